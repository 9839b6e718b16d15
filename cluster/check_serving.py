"""Checks of actions on launchers, replicas, routes, weights and requests."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster import actions as act
from cluster.admission import kept_out
from cluster.base import Ref
from cluster.drops import Drop, current, gone, slots_taken
from cluster.lifecycles import REPLICA, legal
from cluster.overlay import Overlay
from cluster.serving import Mode, ReplicaPhase, Tier
from cluster.size_plan import fault_of
from cluster.targets import Capacity


def create_launcher(overlay: Overlay, action: act.CreateLauncher, _: float) -> Drop | None:
    """Check `create_launcher`."""
    if action.name in overlay.read("launchers"):
        return Drop("Taken", f"launcher name {action.name}", 1, 0, 0, "names")
    return slots_taken(overlay, action.slots, None, f"launcher {action.name}")


def create_replica(overlay: Overlay, action: act.CreateReplica, _: float) -> Drop | None:
    """Check `create_replica`."""
    if action.service not in overlay.read("services"):
        return gone("replica", Ref("ModelService", action.service))
    if action.name in overlay.read("replicas"):
        return Drop("Taken", f"replica name {action.name}", 1, 0, 0, "names")
    if action.launcher:
        launcher = overlay.read("launchers").get(action.launcher)
        if launcher is None:
            return Drop(
                "Taken", f"launcher {action.launcher} of {action.name}, which is gone", 1, 0, 0, "objects"
            )
        return None
    gpus = sum(slot.gpus for slot in action.slots)
    if gpus != action.variant.gpus:
        what = f"replica {action.name} on a number of devices other than its variant's"
        return Drop("Unsafe", what, gpus, 0, action.variant.gpus, "GPU")
    if (odd := _odd_share(overlay, action)) is not None:
        return odd
    what, service = f"replica {action.name}", overlay.read("services")[action.service]
    return kept_out(overlay, action.slots, service, what) or slots_taken(
        overlay, action.slots, service.ref, what
    )


def _odd_share(overlay: Overlay, action: act.CreateReplica) -> Drop | None:
    """A part of a device other than the variant's, or of one that is given out whole."""
    nodes = overlay.read("nodes")
    for slot in action.slots:
        if slot.milli_per_device != action.variant.milli:
            what = f"replica {action.name} on another share of its device than its variant's"
            return Drop("Unsafe", what, slot.milli_per_device / 1_000, 0, action.variant.gpu_share, "GPU")
        if slot.shares and slot.node in nodes and not nodes[slot.node].divisible:
            what = f"replica {action.name} on a share of a device of {slot.node}, whose devices are given out whole"
            return Drop("Unsafe", what, action.variant.gpu_share, 0, 1, "GPU")
    return None


def drain(overlay: Overlay, action: act.Drain, _: float) -> Drop | None:
    """Check `drain`."""
    if action.subject.kind == "Node":
        return None if current(overlay, action.subject) else gone("drain", action.subject)
    replica = current(overlay, action.subject)
    if replica is None:
        return gone("drain", action.subject)
    if not legal(REPLICA, replica.phase, ReplicaPhase.DRAINING):
        return Drop("Stale", f"drain of {replica.key}, which is {replica.phase}", 1, 0, 0, "objects")
    if replica.phase is not ReplicaPhase.READY:
        return None
    if action.voluntary and overlay.moves_left(replica.service) < 1:
        return _moves_spent(overlay, replica)
    return _floor(overlay, replica)


def _moves_spent(overlay: Overlay, replica: Any) -> Drop:
    """A move beyond the budget of its service, or of the cluster."""
    service = overlay.read("services").get(replica.service)
    own = service.moves if service is not None else None
    spent = own if own is not None and not own.left else overlay.moves
    made, allowed = (spent.made, spent.allowed) if spent is not None else (0, 0)
    return Drop("Unsafe", f"a move of {replica.key}", made + 1, made, allowed, "moves")


def _floor(overlay: Overlay, replica: Any) -> Drop | None:
    """A drain must leave the service its floor, unless the node is being lost anyway, or the final capacity in force
    leaves the service nothing: then all it had was given to a higher priority.
    """
    service = overlay.read("services").get(replica.service)
    if service is None or _losing(overlay, replica) or _outranked(overlay, replica.service):
        return None
    ready = sum(
        1
        for other in overlay.read("replicas").values()
        if other.service == replica.service and other.phase is ReplicaPhase.READY
    )
    floor = min(service.floor_units, 1) if service.mode is Mode.AUTO else min(service.replicas, 1)
    if ready - 1 < floor:
        return Drop(
            "Unsafe", f"drain of the last ready replica of {replica.service}", ready - 1, ready, floor
        )
    return None


def _outranked(overlay: Overlay, service: str) -> bool:
    capacity = overlay.read("targets").get(f"Capacity/{service}")
    return isinstance(capacity, Capacity) and capacity.final and not any(p.units for p in capacity.mix.parts)


def _losing(overlay: Overlay, replica: Any) -> bool:
    launcher = overlay.read("launchers").get(replica.launcher)
    nodes = overlay.read("nodes")
    names = [slot.node for slot in launcher.slots] if launcher else []
    return any(name not in nodes or nodes[name].offer in ("lost", "reclaiming", "isolated") for name in names)


def resume(overlay: Overlay, action: act.Resume, _: float) -> Drop | None:
    """Check `resume`."""
    found = current(overlay, action.subject)
    if found is None:
        return gone("resume", action.subject)
    if action.subject.kind == "Replica" and found.phase is not ReplicaPhase.DRAINING:
        return Drop("Stale", f"resume of {found.key}, which is {found.phase}", 1, 0, 0, "objects")
    return None


def delete_replica(overlay: Overlay, action: act.DeleteReplica, now: float) -> Drop | None:
    """Check `delete_replica`."""
    replica = current(overlay, action.replica)
    if replica is None:
        return gone("deletion", action.replica)
    if replica.phase in (ReplicaPhase.READY, ReplicaPhase.WAKING):
        return Drop("Unsafe", f"deletion of {replica.key}, which is {replica.phase} and not drained", 1, 1, 0)
    if replica.phase is ReplicaPhase.GONE:
        return gone("deletion", action.replica)
    return _still_busy(overlay, replica, now) if replica.phase is ReplicaPhase.DRAINING else None


def _still_busy(overlay: Overlay, replica: Any, now: float) -> Drop | None:
    """What drains is deleted when its last report shows it empty, or when its time to drain is over."""
    service = overlay.read("services").get(replica.service)
    if service is None or now - replica.phase_since_seconds >= service.drain_seconds:
        return None
    table = overlay.base.instance_table
    row = table.index().get(replica.key)
    if row is None:
        return None
    running, waiting, pending = (
        max(0.0, float(np.nan_to_num(column[row])))
        for column in (table.running, table.waiting, table.pending)
    )
    busy = max(running + waiting, pending)
    if busy > 0.0:
        what = f"deletion of {replica.key}, which still drains"
        return Drop("Unsafe", what, busy, busy, 0, "req")
    return None


def set_tier(overlay: Overlay, action: act.SetTier, _: float) -> Drop | None:
    """Check `set_tier`."""
    replica = current(overlay, action.replica)
    if replica is None:
        return gone("tier change", action.replica)
    wanted = ReplicaPhase.ASLEEP if action.tier is Tier.AWAKE else ReplicaPhase.READY
    if replica.phase is not wanted:
        return Drop("Stale", f"tier change of {replica.key}, which is {replica.phase}", 1, 0, 0, "objects")
    return None


def set_role(overlay: Overlay, action: act.SetRole, _: float) -> Drop | None:
    """Check `set_role`."""
    return None if current(overlay, action.replica) else gone("role change", action.replica)


def set_routes(overlay: Overlay, action: act.SetRoutes, _: float) -> Drop | None:
    """Check `set_routes`."""
    if action.service not in overlay.read("services"):
        return gone("routes", Ref("ModelService", action.service))
    replicas = overlay.read("replicas")
    unready = [
        key
        for key in sorted(action.weights)
        if key not in replicas
        or replicas[key].service != action.service
        or replicas[key].phase is not ReplicaPhase.READY
    ]
    if unready:
        return Drop(
            "Stale",
            f"routes to {unready[0]}, which is no ready replica of {action.service}",
            len(action.weights),
            len(action.weights) - len(unready),
        )
    fault = fault_of(action.plan) if action.plan is not None else ""
    if fault:
        return Drop("Unsafe", f"a plan by size of {action.service}: {fault}", 1, 0, 1, "objects")
    total, least = sum(action.weights.values()), min(action.weights.values(), default=0.0)
    if least < 0.0:
        return Drop("Unsafe", f"a negative route of {action.service}", least, total, 0.0, "ratio")
    if action.weights and abs(total - 1.0) > 1e-6:
        return Drop("Unsafe", f"routes of {action.service} that do not sum to 1", total, total, 1.0, "ratio")
    return None


def settle_revision(overlay: Overlay, action: act.SettleRevision, _: float) -> Drop | None:
    """Check `settle_revision`: only of the revision that is rolled out now; what was complete is not given up."""
    service = overlay.read("services").get(action.service)
    if service is None:
        return gone("revision", Ref("ModelService", action.service))
    what = f"revision {action.revision} of {action.service}"
    if service.revision != action.revision:
        return Drop("Stale", f"{what}, which is at {service.revision}", 1, 0, 0, "objects")
    if not action.complete and (service.rollout.complete or not service.rollout.back_to):
        return Drop("Unsafe", f"giving up {what}, with nothing to go back to", 1, 0, 1, "objects")
    return None


def scale(overlay: Overlay, action: act.Scale, _: float) -> Drop | None:
    """Check `scale`."""
    if action.subject.kind != "ModelService":
        return None
    found = overlay.read("services").get(action.subject.name)
    if found is None:
        return gone("scale", action.subject)
    if found.mode is not Mode.AUTO:
        what = f"scale of {found.name}, whose mode is {found.mode}"
        return Drop("Unsafe", what, action.replicas, found.replicas, found.replicas)
    return None


def stage_weights(overlay: Overlay, action: act.StageWeights, _: float) -> Drop | None:
    """Check `stage_weights`."""
    node = overlay.read("nodes").get(action.node)
    if node is None:
        return gone("weights", Ref("Node", action.node))
    quota = node.dram_cache_bytes if action.tier == "dram" else node.nvme_bytes
    used = sum(
        w.bytes for w in overlay.read("weights").values() if w.node == action.node and w.tier == action.tier
    )
    if used + action.bytes > quota:
        return Drop(
            "Taken",
            f"{action.tier} of {action.node} for {action.model}",
            action.bytes,
            quota - used,
            quota,
            "B",
        )
    return None


def drop_weights(overlay: Overlay, action: act.DropWeights, _: float) -> Drop | None:
    """Check `drop_weights`."""
    copies = [w for w in overlay.read("weights").values() if w.model == action.model]
    if not any(w.node == action.node and w.tier == action.tier for w in copies):
        return Drop("Stale", f"weights of {action.model} on {action.node}, which are gone", 1, 0, 0, "copies")
    if len(copies) <= 1:
        return Drop("Unsafe", f"removal of the last copy of {action.model}", 0, len(copies), 1, "copies")
    return None


def migrate(overlay: Overlay, action: act.Migrate, _: float) -> Drop | None:
    """Check `migrate`."""
    target = overlay.read("replicas").get(action.target)
    source = overlay.read("replicas").get(action.source)
    if target is None or target.phase is not ReplicaPhase.READY or source is None:
        return Drop(
            "Stale", f"move of {action.sequence} to {action.target}, which is not ready", 1, 0, 0, "objects"
        )
    prints = {_fingerprint(overlay, replica.service) for replica in (source, target)}
    if action.mode == "kv" and len(prints) > 1:
        what = f"KV move of {action.sequence} between different fingerprints"
        return Drop("Unsafe", what, len(prints), 1, 1, "objects")
    return None


def _fingerprint(overlay: Overlay, service: str) -> tuple[str, str]:
    """What must be equal where KV is exchanged; a service that is gone is equal to itself alone."""
    found = overlay.read("services").get(service)
    return ("", found.model.fingerprint) if found is not None else (service, "")


def passes(_: Overlay, __: Any, ___: float) -> Drop | None:
    """Checked by the gateway, which alone sees the request (row ready, caps on held)."""
    return None

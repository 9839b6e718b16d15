"""The pure effect of actions: what the cluster will look like once they are done.

`Snapshot.after(plan)` and the actor share it, so what a later stage plans on and what the actor
charges are the same thing. Mappings are copied on first write only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cluster import actions as act
from cluster.base import Ref
from cluster.flight import InFlight
from cluster.hardware import Offer, Slot, parts_of
from cluster.occupancy import Claim, Reservation
from cluster.power import Lease, LeasePhase
from cluster.power_sums import ancestors, charged_watts, domain_sums
from cluster.restraint import Moves, left_of
from cluster.serving import Launcher, Replica, ReplicaPhase, Tier
from cluster.space import Space
from cluster.targets import AnyTarget, Routes, target_key
from cluster.training import Gang, GangPhase, JobPhase

if TYPE_CHECKING:
    from cluster.snapshot import Snapshot


def routes_of(action: act.SetRoutes, now_seconds: float) -> Routes:
    """What stands when routes were set: who carries the action out puts it in force."""
    return Routes(
        owner="place", decided_seconds=now_seconds, service=action.service, weights=action.weights, plan=action.plan
    )  # fmt: skip


class Overlay:
    """A working copy of a snapshot to which actions and targets are applied one by one."""

    def __init__(self, base: Snapshot) -> None:
        """Start from a snapshot, which is never written to."""
        self.base = base
        self._written: dict[str, dict[str, Any]] = {}
        self._space: Space | None = None
        self._moves = base.moves
        self.memo: dict[str, Any] = {}

    @property
    def space(self) -> Space:
        """Free space now, kept up to date by every applied action."""
        if self._space is None:
            live = [
                r
                for r in self.read("reservations").values()
                if r.expires_seconds > self.base.stamp.taken_seconds
            ]
            self._space = Space(self.read("nodes"), self.read("claims").values(), live)
        return self._space

    def read(self, mapping: str) -> Mapping[str, Any]:
        """A mapping of the snapshot by field name, with what was applied."""
        written = self._written.get(mapping)
        return getattr(self.base, mapping) if written is None else written

    def write(self, mapping: str) -> dict[str, Any]:
        """The same mapping for writing."""
        if mapping not in self._written:
            self._written[mapping] = dict(getattr(self.base, mapping))
        return self._written[mapping]

    def put(self, mapping: str, key: str, **changes: Any) -> None:
        """Replace fields of an object, if it exists."""
        found = self.read(mapping).get(key)
        if found is not None:
            self.write(mapping)[key] = msgspec.structs.replace(found, **changes)

    def apply(self, action: act.AnyAction) -> None:
        """Take an action's effect; kinds without an effect on the snapshot change nothing."""
        effect = _EFFECTS.get(type(action))
        if effect is not None:
            effect(self, action)

    def aim(self, target: AnyTarget) -> None:
        """Put a standing target in force."""
        self.write("targets")[target_key(target)] = target

    def claim(self, key: str, owner: Ref, slot: Slot, priority: int) -> None:
        """Occupy a slot."""
        self.space.take(slot)
        self.write("claims")[key] = Claim(key=key, owner=owner, slot=slot, priority=priority)

    @property
    def moves(self) -> Moves | None:
        """The cluster's disruption budget with what was applied."""
        return self._moves

    def moves_left(self, service: str) -> int:
        """How many replicas of a service may still be moved now: the least of its budget and the cluster's."""
        found = self.read("services").get(service)
        return left_of(self._moves, found.moves if found is not None else None)

    def charge_move(self, service: str) -> None:
        """Count one move of a service's replica against both budgets."""
        now = self.base.stamp.taken_seconds
        found = self.read("services").get(service)
        if found is not None and found.moves is not None:
            self.put("services", service, moves=found.moves.charged(now))
        if self._moves is not None:
            self._moves = self._moves.charged(now)

    def snapshot(self) -> Snapshot:
        """The snapshot with everything applied."""
        return msgspec.structs.replace(self.base, moves=self._moves, **self._written)


def gang_key(job: str, attempt: int) -> str:
    """Key of an attempt: `namespace/job-a3`."""
    return f"{job}-a{attempt}"


def _create_launcher(overlay: Overlay, action: act.CreateLauncher) -> None:
    ref = Ref("Launcher", action.name)
    overlay.write("launchers")[action.name] = Launcher(
        key=action.name, ref=ref, slots=action.slots, variant=action.variant
    )
    for index, slot in enumerate(action.slots):
        overlay.claim(action.name if index == 0 else f"{action.name}/{index}", ref, slot, 0)


def _create_replica(overlay: Overlay, action: act.CreateReplica) -> None:
    launcher = action.launcher or action.name
    service = overlay.read("services").get(action.service)
    if not action.launcher:
        ref = Ref("Replica", action.name)
        overlay.write("launchers")[launcher] = Launcher(
            key=launcher, ref=Ref("Launcher", launcher), slots=action.slots, variant=action.variant
        )
        priority = service.priority if service else 0
        for index, slot in enumerate(action.slots):
            overlay.claim(launcher if index == 0 else f"{launcher}/{index}", ref, slot, priority)
    overlay.write("replicas")[action.name] = Replica(
        key=action.name,
        ref=Ref("Replica", action.name, "", service.ref.version if service else 0),
        service=action.service,
        launcher=launcher,
        variant=action.variant,
        pool=action.pool,
        ordinal=action.ordinal,
        revision=service.revision if service else "",
        tier=action.tier,
        phase_since_seconds=overlay.base.stamp.taken_seconds,
    )


def _drain(overlay: Overlay, action: act.Drain) -> None:
    if action.subject.kind == "Node":
        overlay.put("nodes", action.subject.name, offer=Offer.CORDONED)
    else:
        overlay.put("replicas", action.subject.name, phase=ReplicaPhase.DRAINING)
        replica = overlay.read("replicas").get(action.subject.name)
        if action.voluntary and replica is not None:
            overlay.charge_move(replica.service)


def _resume(overlay: Overlay, action: act.Resume) -> None:
    if action.subject.kind == "Node":
        overlay.put("nodes", action.subject.name, offer=Offer.OPEN)
    else:
        overlay.put("replicas", action.subject.name, phase=ReplicaPhase.READY)


def _delete_replica(overlay: Overlay, action: act.DeleteReplica) -> None:
    # The pod still holds its devices until it is gone, so claims stay.
    overlay.put("replicas", action.replica.name, phase=ReplicaPhase.STOPPING)


def _set_tier(overlay: Overlay, action: act.SetTier) -> None:
    phase = ReplicaPhase.WAKING if action.tier is Tier.AWAKE else ReplicaPhase.SLEEPING
    overlay.put("replicas", action.replica.name, tier=action.tier, phase=phase)


def _set_role(overlay: Overlay, action: act.SetRole) -> None:
    overlay.put("replicas", action.replica.name, role=action.role)


def _settle_revision(overlay: Overlay, action: act.SettleRevision) -> None:
    service = overlay.read("services").get(action.service)
    if service is None or service.revision != action.revision:
        return
    if action.complete:
        after = msgspec.structs.replace(service.rollout, complete=True)
        overlay.put("services", action.service, rollout=after)
    elif service.rollout.back_to:
        after = msgspec.structs.replace(service.rollout, complete=True, back_to="", given_up=action.revision)
        overlay.put("services", action.service, revision=service.rollout.back_to, rollout=after)


def _reserve(overlay: Overlay, action: act.Reserve) -> None:
    reservation = Reservation(
        key=action.key,
        owner=action.owner,
        slots=action.slots,
        priority=action.priority,
        starts_seconds=action.starts_seconds,
        expires_seconds=action.expires_seconds,
    )
    overlay.space.reserve(reservation)
    overlay.write("reservations")[action.key] = reservation


def _release(overlay: Overlay, action: act.Release) -> None:
    reservation = overlay.write("reservations").pop(action.key, None)
    if reservation is not None:
        overlay.space.release(reservation)


def _start_gang(overlay: Overlay, action: act.StartGang) -> None:
    _form(overlay, action.job, action.attempt, action.layout, 0)


def _restart_gang(overlay: Overlay, action: act.RestartGang) -> None:
    overlay.put("gangs", action.gang.name, phase=GangPhase.RESTARTING)
    if action.failed:
        _count_failure(overlay, action.gang.name)
    _form(overlay, action.job, action.attempt, action.layout, action.restore_step)


def _form(overlay: Overlay, ref: Ref, attempt: int, layout: Any, step: int) -> None:
    key = gang_key(ref.name, attempt)
    job = overlay.read("jobs").get(ref.name)
    for index, slot in enumerate(layout.slots):
        overlay.claim(f"{key}-r{index}", Ref("Gang", key), slot, job.priority if job else 0)
    overlay.write("gangs")[key] = Gang(
        key=key,
        ref=Ref("Gang", key),
        job=ref.name,
        attempt=attempt,
        rendezvous=key,
        layout=layout,
        phase_since_seconds=overlay.base.stamp.taken_seconds,
        step=step,
        checkpoint_step=step,
    )
    overlay.put("jobs", ref.name, attempt=attempt, phase=JobPhase.ACTIVE)


def _count_failure(overlay: Overlay, key: str) -> None:
    gang = overlay.read("gangs").get(key)
    job = overlay.read("jobs").get(gang.job) if gang is not None else None
    if gang is not None and job is not None and job.failed_attempt < gang.attempt:
        overlay.put("jobs", job.name, failures=job.failures + 1, failed_attempt=gang.attempt)


def _stop_gang(overlay: Overlay, action: act.StopGang) -> None:
    if action.failed:
        _count_failure(overlay, action.gang.name)
    overlay.put("gangs", action.gang.name, phase=GangPhase.STOPPING)


def _isolate(overlay: Overlay, action: act.Isolate) -> None:
    for name in parts_of(overlay.read("nodes"), action.subject.name):
        overlay.put("nodes", name, offer=Offer.ISOLATED, offer_until_seconds=action.until_seconds)


def _provision(overlay: Overlay, action: act.Provision) -> None:
    """Ordered nodes are in flight at once, and what is left may be ordered from any pool: the budget is one."""
    now = overlay.base.stamp.taken_seconds
    flights = overlay.write("in_flight")
    for _ in range(action.count):
        key = f"provision/{action.pool}/{len(flights)}"
        subject = Ref("Pool", action.pool)
        flights[key] = InFlight(
            id=key, kind="Provision", subject=subject, loop="place", issued_seconds=now, deadline_seconds=now
        )
    for name, pool in sorted(overlay.read("pools").items()):
        if pool.buyable_nodes:
            overlay.put("pools", name, buyable_nodes=max(0, pool.buyable_nodes - action.count))


def _release_node(overlay: Overlay, action: act.ReleaseNode) -> None:
    for name in parts_of(overlay.read("nodes"), action.node):
        overlay.put("nodes", name, offer=Offer.RECLAIMING)


def _grant_power(overlay: Overlay, action: act.GrantPower) -> None:
    now = overlay.base.stamp.taken_seconds
    overlay.memo.setdefault("granted", {})[action.node] = action.watts
    old = charged_watts(overlay, action.node, now)
    charged = max(action.watts, old)
    before = overlay.read("leases").get(action.node)
    # Obeyed as late as its deadline, one life after it was issued, and for a life from then; what it replaces
    # may outlive it where it never arrives.
    ends = max(now + 2.0 * action.ttl_seconds, before.expires_seconds if before is not None else now)
    sums = domain_sums(overlay, now)
    for name in ancestors(overlay, action.node):
        sums[name] += charged - old
    overlay.write("leases")[action.node] = Lease(
        node=action.node,
        watts=action.watts,
        charged_watts=charged,
        clock_mhz=action.clock_mhz,
        issued_seconds=now,
        expires_seconds=ends,
        phase=LeasePhase.SENT,
    )


def _set_routes(overlay: Overlay, action: act.SetRoutes) -> None:
    overlay.aim(routes_of(action, overlay.base.stamp.taken_seconds))


_EFFECTS: dict[type[act.Action], Callable[[Overlay, Any], None]] = {
    act.CreateLauncher: _create_launcher,
    act.CreateReplica: _create_replica,
    act.Drain: _drain,
    act.Resume: _resume,
    act.DeleteReplica: _delete_replica,
    act.SetTier: _set_tier,
    act.SetRole: _set_role,
    act.SetRoutes: _set_routes,
    act.SettleRevision: _settle_revision,
    act.Reserve: _reserve,
    act.Release: _release,
    act.StartGang: _start_gang,
    act.RestartGang: _restart_gang,
    act.StopGang: _stop_gang,
    act.Isolate: _isolate,
    act.GrantPower: _grant_power,
    act.Provision: _provision,
    act.ReleaseNode: _release_node,
}

"""What must be true after every scenario, whatever happened in it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.observer import Observer
from cluster.space import Space
from controller.observe import labels
from controller.observe.caches import _SHAPES
from controller.observe.world import Change, World

if TYPE_CHECKING:
    from tests.scenarios.stage import Stage

COMPARED = (
    "accelerators",
    "pools",
    "nodes",
    "claims",
    "services",
    "launchers",
    "replicas",
    "jobs",
    "gangs",
    "domains",
)
TIMES = ("phase_since_seconds", "waiting_since_seconds")


async def assert_sound(stage: Stage) -> None:
    """No orphan, no double, no over-commitment, no action without a reason, and the model is what the store says."""
    assert not stage.watchman.breaches, "\n".join(stage.watchman.breaches[:10])
    assert not stage.watchman.over_seconds, f"{stage.watchman.over_seconds} s over a rating"
    assert not stage.diary.faults, "\n".join(stage.diary.faults[:10])
    for operator in stage.operators:
        assert operator.narrator.unexplained == 0
        assert not operator.observer.refused, dict(operator.observer.refused)
    core = stage.cluster.gateway.core
    assert not core.refused_transitions, core.refused_transitions
    counts = core.counts
    ended = counts.finished + counts.rejected + counts.failed + counts.cancelled
    assert counts.arrived == ended + core.open_requests
    _no_orphans(stage)
    _one_attempt(stage)
    await _model_is_store(stage)
    _claims_fit(stage)
    ledger = stage.cluster.ledger
    assert ledger is not None
    assert ledger.flush(force=True), ledger.state().problem
    assert not ledger.state().lost_rows, ledger.state().lost_rows


def _no_orphans(stage: Stage) -> None:
    owners = {
        obj["metadata"]["uid"]
        for kind in ("ModelService", "TrainingJob")
        for obj in stage.seen.objects[kind].values()
    }
    for pod in stage.seen.pods():
        meta = pod["metadata"]
        if meta.get("labels", {}).get(labels.MANAGED_BY) == "plimsoll":
            assert any(o["uid"] in owners for o in meta.get("ownerReferences", [])), f"orphan {meta['name']}"


def _one_attempt(stage: Stage) -> None:
    """Only one attempt of a job has pods that run or may yet run."""
    attempts: dict[str, set[str]] = defaultdict(set)
    for pod in stage.seen.pods():
        marks, phase = pod["metadata"].get("labels", {}), pod.get("status", {}).get("phase")
        gone = pod["metadata"].get("deletionTimestamp")
        if labels.JOB in marks and phase not in ("Failed", "Succeeded") and not gone:
            attempts[marks[labels.JOB]].add(marks[labels.ATTEMPT])
    assert all(len(found) == 1 for found in attempts.values()), dict(attempts)
    breaches = stage.cluster.fleet.gangs.attendance.breaches()
    assert not breaches, "\n".join(breaches)
    for meeting in stage.cluster.fleet.gangs.meetings:
        met = meeting.rendezvous
        ranks = stage.cluster.fleet.gangs.attempts(met.job_uid)
        assert len(ranks) == len(set(ranks)), f"an attempt of {met.job_uid} met twice: {ranks}"
        assert met.joins <= met.size, f"{met.joins} ranks joined attempt {met.attempt}, which has {met.size}"
        if meeting.gang is not None:
            assert met.joins == met.size


def _claims_fit(stage: Stage) -> None:
    """In the operator's own model no device, CPU or byte is promised twice."""
    observer = stage.operator.observer
    nodes = observer.live("nodes")
    space = Space(nodes, observer.live("claims").values())
    for name, node in nodes.items():
        over = [d.index for d in node.devices if d.healthy and space.free_milli(name, d.index) < 0]
        assert not over, f"devices {over} of {name} are claimed more than once"
        assert space.free_cpu_millis(name) >= 0
        assert space.free_memory_bytes(name) >= 0


async def _model_is_store(stage: Stage) -> None:
    """Caches equal the store, and the model is the one that a newcomer would make of it."""
    operator = stage.operator
    now = stage.now
    await operator.caches.pump()
    operator.world.apply(operator.caches.changes())
    operator.world.settle(now)
    fresh = World(Observer(), operator.config.seed, started_seconds=operator.world.started_seconds)
    fresh.restraint.settings = operator.config.restraint
    for node, inventory in operator.world.inventories.items():
        fresh.inventory(node, inventory, operator.world.last_report[node])
    fresh.told.update(operator.world.told)
    for node, told in operator.world.told.items():
        if told.holders is not None:
            fresh.seating.holders(node, now)
    for gang, rows in operator.world.workloads.reported.items():
        for node, progress in rows.items():
            fresh.workloads.progress(gang, node, progress)
    changes = []
    for resource, shape in _SHAPES:
        reflector = operator.caches.reflectors[resource.kind]
        _, selector, _ = reflector._bounds
        listed = await stage.cluster.store.list(resource, label_selector=selector)
        decoder = msgspec.json.Decoder(shape)
        objects = {o.metadata.key: o for o in map(decoder.decode, listed.raw_items)}
        held = reflector.objects
        assert objects == held, f"the cache of {resource.kind} is not the store: {_keys(objects, held)}"
        changes += [Change(resource.kind, key, obj) for key, obj in objects.items()]
    fresh._silent.update(operator.world._silent)
    fresh.apply(changes)
    fresh.settle(now)
    for mapping in COMPARED:
        mine = {k: _timeless(v) for k, v in operator.observer.live(mapping).items()}
        theirs = {k: _timeless(v) for k, v in fresh.observer.live(mapping).items()}
        assert mine == theirs, f"{mapping} of the model are not what the store says: {_keys(mine, theirs)}"


def _timeless(noun: Any) -> Any:
    changes: dict[str, Any] = {name: 0.0 for name in TIMES if hasattr(noun, name)}
    if hasattr(noun, "buyable_nodes"):  # known from orders, not from the class
        changes["buyable_nodes"] = None
    if hasattr(noun, "ran"):  # remembered of pods that are gone
        changes["ran"] = False
    if hasattr(noun, "refused"):  # what the API server said to this operator
        changes["refused"] = None
    return msgspec.structs.replace(noun, **changes) if changes else noun


def _keys(one: dict[str, Any], other: dict[str, Any]) -> str:
    differ = [k for k in sorted({*one, *other}) if one.get(k) != other.get(k)]
    return f"{differ[:5]}\n{one.get(differ[0]) if differ else ''}\n{other.get(differ[0]) if differ else ''}"

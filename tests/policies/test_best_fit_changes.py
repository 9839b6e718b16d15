"""Placing what changes: surplus, rolls, nodes, priorities and routes; and that it comes to rest."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from cluster import actions as act
from cluster.hardware import Offer
from cluster.overlay import Overlay
from cluster.plan import Plan
from cluster.serving import Objective, ReplicaPhase
from cluster.snapshot import Snapshot
from placement.packing.best_fit import Rooms
from policies.frames import frame_of
from policies.groups import Groups
from policies.place.best_fit import BestFit, BestFitState
from policies.shapes import declared
from tests.policies.builders import NOW, ClusterBuilder, context
from tests.policies.fitting import SERVICE, cluster, codes, kinds, of, place

# ----------------------------------------------------------------------------------------------------- surplus


def running(count: int, wanted: int, **phases: ReplicaPhase) -> ClusterBuilder:
    made = cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", wanted))
    for number in range(1, count + 1):
        made.with_replica(
            SERVICE, "L4", f"l4-od-{number % 2}", phases.get(f"r{number}", ReplicaPhase.READY), ordinal=number
        )
        made.with_row(
            max(made.parts["replicas"]), running=float(number), waiting=0.0, route_weight=1.0 / count
        )
    return made


def test_surplus_drains_the_least_busy():
    plan, _ = place(running(4, 2))
    assert [a.subject.name[-1] for a in of(plan, act.Drain)] == ["1", "2"]
    assert of(plan, act.Drain)[0].deadline_seconds == NOW + 60.0
    weights = of(plan, act.SetRoutes)[0].weights
    assert sorted(k[-1] for k in weights) == ["3", "4"]


def test_what_never_served_goes_first_and_without_a_drain():
    plan, _ = place(running(3, 2, r3=ReplicaPhase.STARTING))
    assert [a.replica.name[-1] for a in of(plan, act.DeleteReplica)] == ["3"]
    assert of(plan, act.Drain) == []


def test_a_change_of_mix_keeps_the_old_until_the_new_is_ready():
    made = cluster(nodes=3).with_capacity(SERVICE, 5.0, ("L4x2", "l4-od", 2))
    for _ in range(3):
        made.with_replica(SERVICE, "L4", "l4-od-0")
    plan, _ = place(made)
    assert kinds(plan) == ["CreateReplica", "CreateReplica", "SetRoutes"]
    for number in range(2):
        made.with_replica(SERVICE, "L4x2", "l4-od-1", ReplicaPhase.READY if number else ReplicaPhase.STARTING)
    assert of(place(made)[0], act.Drain) == []
    key = next(k for k, r in made.parts["replicas"].items() if r.phase == "starting")
    made.changing("replicas", key, phase=ReplicaPhase.READY)
    assert len(of(place(made)[0], act.Drain)) == 3


def test_a_full_pool_lets_the_old_go_first():
    made = cluster(nodes=1, gpus=2).with_capacity(SERVICE, 5.0, ("L4x2", "l4-od", 1))
    made.with_replica(SERVICE, "L4", "l4-od-0").with_replica(SERVICE, "L4", "l4-od-0")
    plan, _ = place(made)
    assert "ReplicaUnplaceable" in codes(plan)
    assert len(of(plan, act.Drain)) == 2


def test_a_drain_is_undone_when_the_replica_is_wanted_again():
    made = running(2, 2, r2=ReplicaPhase.DRAINING)
    made.changing("replicas", "shop/chat-l4x1-bf16-2", phase_since_seconds=NOW - 10.0)
    made.with_row("shop/chat-l4x1-bf16-2", running=5.0, waiting=0.0)
    plan, _ = place(made)
    assert [a.subject.name[-1] for a in of(plan, act.Resume)] == ["2"]
    assert of(plan, act.CreateReplica) == []


def test_zero_drains_everything():
    made = running(2, 2).with_capacity(SERVICE, 0.0)
    plan, _ = place(made)
    assert len(of(plan, act.Drain)) == 2
    assert of(plan, act.SetRoutes)[0].weights == {}


# ------------------------------------------------------------------------------------- nodes and priorities


def test_replicas_leave_a_node_that_is_being_reclaimed_before_it_is_gone():
    made = running(2, 2).changing("nodes", "l4-od-1", offer=Offer.RECLAIMING, offer_until_seconds=NOW + 25.0)
    plan, _ = place(made)
    (drain,) = of(plan, act.Drain)
    assert drain.subject.name.endswith("-1")
    assert drain.deadline_seconds == NOW + 25.0
    assert [a.slots[0].node for a in of(plan, act.CreateReplica)] == ["l4-od-0"]


def test_a_cordon_keeps_what_runs():
    plan, _ = place(running(2, 2).changing("nodes", "l4-od-1", offer=Offer.CORDONED))
    assert of(plan, act.Drain) == of(plan, act.CreateReplica) == []


def crowded(priority: int) -> ClusterBuilder:
    made = cluster(nodes=1, gpus=2).with_capacity(SERVICE, 5.0, ("L4", "l4-od", 2))
    made.with_replica(SERVICE, "L4", "l4-od-0").with_replica(SERVICE, "L4", "l4-od-0")
    promise = (Objective(ttft_seconds=2.0, tpot_seconds=0.1, priority=priority),)
    return made.with_service("shop/gold", "L4", objectives=promise).with_capacity(
        "shop/gold", 5.0, ("L4", "l4-od", 1)
    )


def test_a_higher_priority_makes_room_and_says_for_whom():
    plan, _ = place(crowded(1))
    assert len(of(plan, act.Drain)) == 1
    reason = next(r for r in plan.reasons if r.code == "PreemptedFor")
    assert (reason.choice, reason.need.value, reason.have.value) == ("shop/gold", 1, 0)


def test_an_equal_priority_waits():
    plan, _ = place(crowded(0))
    assert of(plan, act.Drain) == []
    assert "ReplicaUnplaceable" in codes(plan)


def test_room_that_is_coming_by_itself_is_waited_for():
    made = crowded(1)
    key = min(k for k in made.parts["replicas"])
    made.changing("replicas", key, phase=ReplicaPhase.STOPPING).changing("claims", key, phase="stopping")
    made.with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1))
    plan, _ = place(made)
    assert of(plan, act.Drain) == []


# ------------------------------------------------------------------------------------------------------- routes


def test_weights_follow_the_mix_and_sum_to_one():
    made = cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1), ("L4x2", "l4-od", 1))
    mix = made.parts["targets"][f"Capacity/{SERVICE}"].mix
    parts = tuple(msgspec.structs.replace(p, weight=w) for p, w in zip(mix.parts, (0.3, 0.7), strict=True))
    capacity = made.parts["targets"][f"Capacity/{SERVICE}"]
    made.with_target(msgspec.structs.replace(capacity, mix=msgspec.structs.replace(mix, parts=parts)))
    made.with_replica(SERVICE, "L4", "l4-od-0").with_replica(SERVICE, "L4x2", "l4-od-1")
    (routes,) = of(place(made)[0], act.SetRoutes)
    weights = {key.split("-")[1]: weight for key, weight in routes.weights.items()}
    assert weights == pytest.approx({"l4x1": 0.3, "l4x2": 0.7})
    assert sum(routes.weights.values()) == pytest.approx(1.0, abs=1e-9)


def test_weights_in_force_are_not_published_again():
    made = running(2, 2)
    assert of(place(made)[0], act.SetRoutes) == []
    made.with_row("shop/chat-l4x1-bf16-1", route_weight=0.6)
    assert len(of(place(made)[0], act.SetRoutes)) == 1


def test_a_surplus_replica_serves_by_what_it_can_carry_until_its_successor_is_ready():
    made = cluster().with_capacity(SERVICE, 5.0, ("L4x2", "l4-od", 2))
    made.with_replica(SERVICE, "L4", "l4-od-0").with_replica(SERVICE, "L4x2", "l4-od-1")
    (routes,) = of(place(made)[0], act.SetRoutes)
    single, pair = (routes.weights[k] for k in sorted(routes.weights))
    service = made.parts["services"][SERVICE]
    frame = frame_of(Groups(made.build()), service, {})
    rates = [frame.unit_rate(p, frame.shares(declared(service))) for p in frame.profiles.values()]
    assert single / pair == pytest.approx(rates[0] / rates[1], rel=1e-4)


# ---------------------------------------------------------------------------------------------- coming to rest


def live_through(snapshot: Snapshot, plan: Plan, now: float) -> Snapshot:
    """A plain world: what was created is ready, what was deleted is gone, weights are in force."""
    overlay = Overlay(snapshot)
    weights = {k: row["route_weight"] for k, row in snapshot.instance_table.rows()}
    for action in plan.actions:
        if isinstance(action, act.DeleteReplica):
            for mapping in ("replicas", "claims", "launchers"):
                overlay.write(mapping).pop(action.replica.name, None)
            continue
        overlay.apply(action)
        if isinstance(action, act.CreateReplica):
            overlay.put("replicas", action.name, phase=ReplicaPhase.READY)
        if isinstance(action, act.Drain):
            overlay.put("replicas", action.subject.name, phase_since_seconds=now)
        if isinstance(action, act.SetRoutes):
            service = [k for k, r in overlay.read("replicas").items() if r.service == action.service]
            weights.update({k: action.weights.get(k, 0.0) for k in service})
    after = overlay.snapshot()
    keys = sorted(after.replicas)
    columns = {
        "observed_seconds": [now + 10.0] * len(keys),
        "running": [0.0] * len(keys),
        "waiting": [0.0] * len(keys),
        "route_weight": [weights.get(k, 0.0) for k in keys],
    }
    table = type(snapshot.instance_table).build(keys, columns)
    stamp = msgspec.structs.replace(after.stamp, taken_seconds=now + 10.0)
    return msgspec.structs.replace(after, instance_table=table, stamp=stamp)


WALKS = [
    pytest.param([("L4", 3)], id="from nothing to three"),
    pytest.param([("L4", 5), ("L4", 2)], id="five, then two"),
    pytest.param([("L4", 8), ("L4x2", 4)], id="a full cluster changes its variant"),
    pytest.param([("L4x2", 4), ("L4", 8), ("L4x2", 1)], id="there and back and down"),
    pytest.param([("L4", 4), ("L4", 0), ("L4", 1)], id="to zero and back"),
]


@pytest.mark.parametrize("walk", WALKS)
def test_it_reaches_the_mix_and_comes_to_rest(walk: list[tuple[str, int]]):
    made = cluster()
    snapshot, state, now, born = made.build(), BestFitState(), NOW, set()
    for of_variant, units in walk:
        target = made.with_capacity(SERVICE, 5.0, (of_variant, "l4-od", units)).parts["targets"]
        snapshot = msgspec.structs.replace(snapshot, targets=dict(target))
        for _ in range(12):
            decision = BestFit().decide(snapshot, state, context(now))
            state = decision.state
            names = {a.name for a in of(decision.plan, act.CreateReplica)}
            assert not names & born, "a name came back"
            born |= names
            snapshot = live_through(snapshot, decision.plan, now)
            now += 10.0
        assert decision.plan.actions == ()
        ready = [r for r in snapshot.replicas.values() if r.phase is ReplicaPhase.READY]
        assert len(ready) == len(snapshot.replicas) == units
        assert all(r.variant.gpus == (2 if "x2" in of_variant else 1) for r in ready)


def test_the_index_of_rooms_follows_the_space():
    snapshot = cluster(nodes=3).build()
    overlay = Overlay(snapshot)
    rooms = Rooms(snapshot.nodes, overlay.space)
    rng = np.random.default_rng(5)
    for _ in range(9):
        choice = rooms.choose("l4-od", int(rng.integers(1, 3)))
        if choice is None:
            break
        overlay.space.take(choice.slot)
        rooms.refresh(choice.slot.node)
        for name in snapshot.nodes:
            assert rooms.free(name) == len(overlay.space.free_devices(name))
        assert rooms.most_free("l4-od") == max(rooms.free(n) for n in snapshot.nodes)
    assert rooms.open_nodes("l4-od") == 3
    assert rooms.choose("no-such-pool", 1) is None

"""Placing: names, best fit, rolls, drains, losses and routes; and that it comes to rest."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from cluster import actions as act
from cluster.hardware import Device, Offer
from cluster.overlay import Overlay
from cluster.plan import Plan
from cluster.reasons import render
from cluster.serving import Objective, ReplicaPhase
from cluster.snapshot import Snapshot
from placement.models import model_spec
from placement.packing.best_fit import Rooms, pick_devices
from policies.frames import frame_of
from policies.groups import Groups
from policies.place.best_fit import BestFit, BestFitConfig, BestFitState
from policies.place.cases import replica_name
from policies.shapes import declared
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context

SERVICE = "shop/chat"
OLD = "0123456789abcdef"


def cluster(nodes: int = 2, gpus: int = 4) -> ClusterBuilder:
    made = a_cluster().with_pool("l4-od", "L4").with_nodes(nodes, "l4-od", gpus=gpus)
    return made.with_service(SERVICE, "L4", "L4x2")


def place(
    made: ClusterBuilder | Snapshot, state: BestFitState | None = None, **config: Any
) -> tuple[Plan, BestFitState]:
    snapshot = made if isinstance(made, Snapshot) else made.build()
    policy = BestFit(BestFitConfig(**config))
    decision = policy.decide(snapshot, state or policy.initial(), context(loop="place"))
    for reason in decision.plan.reasons:
        assert render(reason)
    return decision.plan, decision.state


def kinds(plan: Plan) -> list[str]:
    return [action.kind for action in plan.actions]


def of(plan: Plan, kind: type) -> list[Any]:
    return [action for action in plan.actions if isinstance(action, kind)]


def codes(plan: Plan) -> list[str]:
    return [reason.code for reason in plan.reasons]


# ------------------------------------------------------------------------------------------------------ creating


def test_what_is_missing_is_created_under_names_of_its_own():
    plan, state = place(cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", 3)))
    made = of(plan, act.CreateReplica)
    assert [a.name for a in made] == [f"shop/chat-l4x1-bf16-{n}" for n in (1, 2, 3)]
    assert [a.ordinal for a in made] == [1, 2, 3]
    assert all(a.expects[0].name == SERVICE and a.expects[0].version == 1 for a in made)
    slots = [(a.slots[0].node, a.slots[0].devices) for a in made]
    assert len(set(slots)) == 3
    assert state.ordinals == {SERVICE: 3}


def test_pending_and_starting_replicas_count():
    made = cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", 3))
    made.with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.PENDING, age=3.0)
    made.with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.STARTING)
    plan, _ = place(made)
    assert kinds(plan) == ["CreateReplica"]


def test_a_name_never_comes_back_while_anything_bears_it_or_it_is_remembered():
    made = cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", 2))
    made.with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.STOPPING, ordinal=4)
    made.with_claim("shop/chat-l4x1-bf16-5", "l4-od-1", 0)
    plan, _ = place(made)
    assert [a.ordinal for a in of(plan, act.CreateReplica)] == [6, 7]
    plan, _ = place(made, BestFitState(ordinals={SERVICE: 11}))
    assert [a.ordinal for a in of(plan, act.CreateReplica)] == [12, 13]


def test_a_replica_goes_where_the_fewest_gpus_are_left_over():
    made = cluster(nodes=3).with_claim("other/a", "l4-od-1", 0, 1).with_claim("other/b", "l4-od-2", 3)
    plan, _ = place(made.with_capacity(SERVICE, 5.0, ("L4", "l4-od", 2)))
    assert [a.slots[0].node for a in of(plan, act.CreateReplica)] == ["l4-od-1", "l4-od-1"]
    made.with_capacity(SERVICE, 5.0, ("L4x2", "l4-od", 2))
    plan, _ = place(made)
    assert [a.slots[0].node for a in of(plan, act.CreateReplica)] == ["l4-od-1", "l4-od-2"]


def test_ties_go_by_the_nodes_fixed_order():
    made = cluster(nodes=3)
    for name, order in (("l4-od-0", 30), ("l4-od-1", 10), ("l4-od-2", 20)):
        made.changing("nodes", name, order=order)
    plan, _ = place(made.with_capacity(SERVICE, 5.0, ("L4x2", "l4-od", 3)))
    assert [a.slots[0].node for a in of(plan, act.CreateReplica)] == ["l4-od-1", "l4-od-1", "l4-od-2"]


CLIQUES = [
    pytest.param((0, 1, 2, 3), 2, (0, 1), id="inside the first clique"),
    pytest.param((1, 2, 3), 2, (2, 3), id="inside the only whole one"),
    pytest.param((1, 2, 3), 1, (1,), id="a single one leaves pairs whole"),
    pytest.param((0, 2), 2, (0, 2), id="across cliques where there is no other way"),
]


@pytest.mark.parametrize(("free", "gpus", "wanted"), CLIQUES)
def test_devices_stay_inside_one_nvlink_clique(free: tuple[int, ...], gpus: int, wanted: tuple[int, ...]):
    node = cluster().build().nodes["l4-od-0"]
    devices = tuple(Device(uuid=str(i), index=i, clique=i // 2) for i in range(4))
    assert pick_devices(msgspec.structs.replace(node, devices=devices), free, gpus) == wanted


def test_no_room_is_told_with_numbers_and_what_would_cure_it():
    made = cluster(nodes=1, gpus=1).with_capacity(SERVICE, 5.0, ("L4x2", "l4-od", 1))
    plan, _ = place(made)
    assert kinds(plan) == []
    (reason,) = plan.reasons
    assert reason.code == "ReplicaUnplaceable"
    assert (reason.need.value, reason.have.value, reason.limit.value) == (2, 1, 1)
    assert reason.remedy.choice == "l4-od"


UNFIT = [
    pytest.param({"offer": Offer.CORDONED}, id="cordoned"),
    pytest.param({"offer": Offer.ISOLATED}, id="isolated"),
    pytest.param({"offer": Offer.LOST}, id="lost"),
    pytest.param({"devices": (Device(uuid="x", index=0, healthy=False),)}, id="its only GPU is ill"),
]


@pytest.mark.parametrize("change", UNFIT)
def test_nothing_goes_to_a_node_that_is(change: dict[str, Any]):
    made = (
        cluster(nodes=1)
        .changing("nodes", "l4-od-0", **change)
        .with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1))
    )
    plan, _ = place(made)
    assert of(plan, act.CreateReplica) == []


def test_a_standing_capacity_that_is_not_final_moves_nothing():
    plan, _ = place(cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", 3), final=False))
    assert plan.actions == ()


def test_names_fit_a_pod():
    long = replica_name("ns/" + "x" * 40, "RTX-PRO-6000-Blackwell-Server-Editionx16-bf16", 12_345)
    assert len(long.split("/")[1]) <= 63
    assert long.endswith("-12345")
    assert replica_name("chat", "A100-80x2-fp8", 7) == "chat-a100-80x2-fp8-7"


# ------------------------------------------------------------------------------------------------------- ending


def test_a_replica_not_bound_in_time_is_replaced_elsewhere():
    made = cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1))
    for name, order in (("l4-od-0", 1), ("l4-od-1", 2)):
        made.changing("nodes", name, order=order)
    made.with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.PENDING, age=10.0)
    plan, state = place(made)
    assert kinds(plan) == ["DeleteReplica", "CreateReplica"]
    assert of(plan, act.CreateReplica)[0].slots[0].node == "l4-od-1"
    assert state.shunned == {"l4-od-0": NOW + 60.0}
    assert "ReplicaStuck" in codes(plan)
    plan, _ = place(made, bind_seconds=11.0)
    assert kinds(plan) == []


ENDS = [
    pytest.param(ReplicaPhase.FAILED, "ReplicaEnded", id="failed"),
    pytest.param(ReplicaPhase.LOST, "ReplicaLost", id="lost with its node"),
]


@pytest.mark.parametrize(("phase", "code"), ENDS)
def test_a_dead_replica_is_removed_and_replaced(phase: ReplicaPhase, code: str):
    made = (
        cluster()
        .with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1))
        .with_replica(SERVICE, "L4", "l4-od-0", phase)
    )
    plan, _ = place(made)
    assert kinds(plan) == ["DeleteReplica", "CreateReplica"]
    assert code in codes(plan)
    key = of(plan, act.DeleteReplica)[0].replica.name
    made.changing("claims", key, phase="stopping")
    plan, _ = place(made)
    assert kinds(plan) == ["CreateReplica"]


DRAINS = [
    pytest.param(10.0, {"running": 0.0, "waiting": 0.0}, True, id="empty: removed"),
    pytest.param(10.0, {"running": 1.0, "waiting": 0.0}, False, id="still busy: waits"),
    pytest.param(
        10.0, {"running": 0.0, "waiting": 0.0, "pending": 1.0}, False, id="one is on its way: waits"
    ),
    pytest.param(10.0, {"running": np.nan, "waiting": 0.0}, False, id="unknown: waits"),
    pytest.param(
        10.0,
        {"running": 0.0, "waiting": 0.0, "observed_seconds": NOW - 9.0},
        False,
        id="an old report: waits",
    ),
    pytest.param(10.0, {}, False, id="no report: waits"),
    pytest.param(60.0, {"running": 7.0, "waiting": 0.0}, True, id="past the deadline: removed"),
]


@pytest.mark.parametrize(("age", "row", "removed"), DRAINS)
def test_a_drained_replica_is_removed_when_it_is_known_to_be_empty(
    age: float, row: dict[str, float], removed: bool
):
    made = (
        cluster()
        .with_capacity(SERVICE, 5.0)
        .with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.DRAINING, age=age)
    )
    made.with_row(max(made.parts["replicas"]), route_weight=0.0, **row) if row else None
    plan, _ = place(made)
    assert bool(of(plan, act.DeleteReplica)) is removed


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


# ---------------------------------------------------------------------------------------------- a new template


def outdated(count: int, gpus: int = 4) -> ClusterBuilder:
    made = cluster(nodes=1, gpus=gpus).with_capacity(SERVICE, 5.0, ("L4", "l4-od", count))
    for number in range(1, count + 1):
        made.with_replica(SERVICE, "L4", "l4-od-0", template=OLD, ordinal=number)
    return made


def test_a_new_spec_is_rolled_out_one_by_one_after_the_new_one_is_ready():
    made = outdated(2)
    plan, _ = place(made)
    assert len(of(plan, act.CreateReplica)) == 1
    assert of(plan, act.Drain) == []
    template = made.parts["services"][SERVICE].template
    made.with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.STARTING, template=template, ordinal=3)
    plan, _ = place(made)
    assert of(plan, act.CreateReplica) == of(plan, act.Drain) == of(plan, act.DeleteReplica) == []
    made.changing("replicas", "shop/chat-l4x1-bf16-3", phase=ReplicaPhase.READY)
    plan, _ = place(made)
    assert len(of(plan, act.Drain)) == 1
    assert "ReplicaOutdated" in codes(plan)


def test_scaling_is_no_reason_to_replace_anything():
    made = outdated(2)
    old = made.parts["services"][SERVICE]
    made.changing("services", SERVICE, ref=msgspec.structs.replace(old.ref, version=9), floor_units=1)
    for key in made.parts["replicas"]:
        made.changing("replicas", key, template=old.template)
    assert of(place(made)[0], act.CreateReplica) == []
    made.changing("services", SERVICE, model=model_spec("mistral-7b", {}))
    assert len(of(place(made)[0], act.CreateReplica)) == 1


def test_a_roll_without_room_makes_its_own_but_never_ends_the_only_one():
    plan, _ = place(outdated(2, gpus=2))
    assert len(of(plan, act.Drain)) == 1
    plan, _ = place(outdated(1, gpus=1))
    assert of(plan, act.Drain) == []
    assert "ReplicaUnplaceable" in codes(plan)


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

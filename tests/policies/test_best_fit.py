"""Placing: names, best fit, losses and removals."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from cluster import actions as act
from cluster.hardware import Device, Offer
from cluster.serving import ReplicaPhase
from placement.packing.best_fit import pick_devices
from policies.place.best_fit import BestFitState
from policies.place.cases import replica_name
from tests.policies.builders import NOW
from tests.policies.fitting import SERVICE, cluster, codes, kinds, of, place

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

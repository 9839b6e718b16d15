"""Pods stay where their volumes, tolerations, CPU and memory let them, and who waits for it is told how much is where."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster import actions as act
from cluster.plan import Plan
from cluster.reasons import render
from cluster.taints import Taint, Toleration
from cluster.training import GangPhase
from policies.planner import PlannerStates, run_planner
from policies.train.island_gang import IslandGang, IslandGangConfig
from tests.policies.builders import ClusterBuilder, a_cluster, context
from tests.policies.fitting import SERVICE, cluster, codes, of, place
from tests.policies.test_by_priority import commit

RED = Taint(key="team", value="red", effect="NoSchedule")
TOLERANT: dict[str, Any] = {"tolerates": (Toleration(key="team", value="red"),)}
CLAIM = "PersistentVolumeClaim shop/data, whose volume pv is in zone b"
ONLY_2: dict[str, Any] = {"confined_to": ("l4-od-2",), "confined_by": CLAIM}


def made(nodes: int = 3, **said: Any) -> ClusterBuilder:
    """Three nodes of four GPUs, the last of them tainted or where the volume is."""
    return cluster(nodes=nodes).with_service(SERVICE, "L4", **said)


def tainted(built: ClusterBuilder) -> ClusterBuilder:
    return built.changing("nodes", "l4-od-2", taints=(RED,))


PLACED = [
    pytest.param(made(**ONLY_2), {"l4-od-2"}, id="where the volume is"),
    pytest.param(tainted(made()), {"l4-od-0", "l4-od-1"}, id="not where a taint is"),
    pytest.param(tainted(made(**TOLERANT, **ONLY_2)), {"l4-od-2"}, id="where both are, tolerated"),
]


@pytest.mark.parametrize(("built", "nodes"), PLACED)
def test_replicas_are_placed(built: ClusterBuilder, nodes: set[str]) -> None:
    plan, _ = place(built.with_capacity(SERVICE, 5.0, ("L4", "l4-od", 4)))
    found = of(plan, act.CreateReplica)
    assert len(found) == 4
    assert {action.slots[0].node for action in found} <= nodes


def test_no_more_than_fit_where_the_volume_is_and_the_numbers_are_told() -> None:
    plan, _ = place(made(**ONLY_2).with_capacity(SERVICE, 5.0, ("L4", "l4-od", 5)))
    assert len(of(plan, act.CreateReplica)) == 4
    (reason,) = [r for r in plan.reasons if r.code == "PlacesConfined"]
    assert render(reason).startswith(
        f"{CLAIM}: 1 node of 3 nodes open can be used, with 0 GPU free there and 8 GPU free on the others; 1 GPU needed"
    )
    assert "ReplicaUnplaceable" not in codes(plan)


def test_nobody_is_preempted_on_a_node_that_the_pods_could_not_use() -> None:
    built = made(1, confined_to=(), confined_by=CLAIM).changing("services", SERVICE)
    built.with_service("shop/low", "L4").with_capacity("shop/low", 5.0, ("L4", "l4-od", 4))
    for _ in range(4):
        built.with_replica("shop/low", "L4", "l4-od-0")
    plan, _ = place(built.with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1)))
    assert plan.actions == () or not of(plan, act.Drain)


def test_cpu_and_memory_bound_what_fits_on_a_node() -> None:
    built = made(1, cpu_millis=3_000).changing("nodes", "l4-od-0", cpu_millis=8_000)
    plan, _ = place(built.with_capacity(SERVICE, 5.0, ("L4", "l4-od", 4)))
    found = of(plan, act.CreateReplica)
    assert [action.slots[0].cpu_millis for action in found] == [3_000, 3_000]
    assert "PlacesConfined" in codes(plan)


def test_commitment_counts_only_what_the_pods_reach_and_says_what_is_elsewhere() -> None:
    free, _, _ = commit(made().with_capacity(SERVICE, 60.0, final=False).build())
    capacities, reasons, _ = commit(made(**ONLY_2).with_capacity(SERVICE, 60.0, final=False).build())
    assert sum(part.units for part in free[SERVICE].mix.parts) == 12
    assert sum(part.units for part in capacities[SERVICE].mix.parts) == 4
    assert "1 node of 3 nodes open" in render(reasons[SERVICE, "PlacesConfined"])
    assert (SERVICE, "ShortOfCapacity") in reasons


def test_what_runs_on_a_node_that_is_tainted_afterwards_stays_and_counts() -> None:
    built = made(1).with_capacity(SERVICE, 8.0, ("L4", "l4-od", 2))
    for _ in range(2):
        built.with_replica(SERVICE, "L4", "l4-od-0")
    built.changing("nodes", "l4-od-0", taints=(RED,))
    plan, _ = place(built)
    assert not of(plan, act.Drain)
    capacities, _, _ = commit(built.build())
    wanted = capacities.get(SERVICE)
    assert wanted is None or sum(part.units for part in wanted.mix.parts) == 2


def test_the_others_go_on_as_if_the_confined_one_were_not_there() -> None:
    built = made(confined_to=(), confined_by=CLAIM).with_service("shop/free", "L4", floor_units=2)
    built.with_load(SERVICE, 5.0).with_load("shop/free", 1.0)
    run = run_planner(built.build(), PlannerStates(), context())
    created = [a for staged in run.stages for a in staged.plan.actions if isinstance(a, act.CreateReplica)]
    assert {action.service for action in created} == {"shop/free"}


# --------------------------------------------------------------------------------------------------------- gangs

JOB = "lab/job"


def gangs(**said: Any) -> ClusterBuilder:
    built = a_cluster().with_pool("h100-od", "H100").with_nodes(4, "h100-od", gpus=8, link="infiniband")
    return built.with_job(JOB, min_nodes=2, max_nodes=2, **said)


def train(built: ClusterBuilder) -> Plan:
    policy = IslandGang(IslandGangConfig())
    plan = policy.decide(built.build(), policy.initial(), context(loop="train")).plan
    for reason in plan.reasons:
        assert render(reason)
    return plan


def nodes_of(plan: Plan) -> list[str]:
    return [slot.node for action in of(plan, act.StartGang) for slot in action.layout.slots]


GANGS = [
    pytest.param({"confined_to": ("h100-od-1", "h100-od-3")}, ["h100-od-1", "h100-od-3"], id="where its volume is"),
    pytest.param({"confined_to": ("h100-od-1",), "confined_by": CLAIM}, [], id="its volume reaches one node of two"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "nodes"), GANGS)
def test_a_gang_starts(said: dict[str, Any], nodes: list[str]) -> None:
    plan = train(gangs(**said))
    assert sorted(nodes_of(plan)) == nodes
    if not nodes:
        (reason,) = plan.reasons
        assert reason.code == "PlacesConfined"
        assert render(reason).startswith(
            f"{CLAIM}: 1 node of 4 nodes open can be used, with 8 GPU free there and 24 GPU free on the others; "
            "2 nodes needed"
        )


def test_a_gang_comes_to_tainted_nodes_only_where_it_says_so() -> None:
    built = gangs()
    for number in range(3):
        built.changing("nodes", f"h100-od-{number}", taints=(RED,))
    assert nodes_of(train(built)) == []
    assert "PlacesConfined" in codes(train(built))
    assert len(nodes_of(train(built.changing("jobs", JOB, **TOLERANT)))) == 2


def test_cpu_of_a_rank_is_in_its_slot() -> None:
    built = gangs(cpu_millis=4_000)
    for number in range(4):
        built.changing("nodes", f"h100-od-{number}", cpu_millis=8_000)
    (start,) = of(train(built), act.StartGang)
    assert {slot.cpu_millis for slot in start.layout.slots} == {4_000}


def test_the_next_attempt_leaves_a_node_that_was_tainted_meanwhile() -> None:
    built = gangs().with_gang(JOB, ("h100-od-0", "h100-od-1"), GangPhase.FAILED)
    built.changing("nodes", "h100-od-1", taints=(msgspec.structs.replace(RED, effect="NoExecute"),))
    (restart,) = of(train(built), act.RestartGang)
    assert "h100-od-1" not in [slot.node for slot in restart.layout.slots]
    assert "h100-od-0" in [slot.node for slot in restart.layout.slots]

"""Watts that replicas may be planned to draw: a power domain's own budget bounds what selection takes below it."""

from __future__ import annotations

import pytest

from cluster.reasons import render
from cluster.serving import Objective
from cluster.targets import Capacity, Menu
from policies.planner import PlannerRun, PlannerStates, run_planner
from policies.select.watts import budgets
from tests.policies.builders import ClusterBuilder, a_cluster, context, product

A100 = "A100-80"
TDP = product(A100).tdp_watts


def cluster(serving_watts: int | None, rooms: tuple[str, ...] = ("row-a", "row-a")) -> ClusterBuilder:
    """Eight A100 on two nodes, each in a room of its own; a budget on `row-a`."""
    made = a_cluster().with_pool("od", A100)
    for room in rooms:
        made.with_nodes(1, "od", gpus=4, power_domain=room)
    made.with_domain("row-a", 100_000, serving_watts=serving_watts)
    return made.with_domain("rack", 50_000, parent="row-a")


def serving(made: ClusterBuilder, *services: tuple[str, float, float]) -> ClusterBuilder:
    for name, rate, dollars in services:
        promise = (Objective(ttft_seconds=2.0, tpot_seconds=0.1, unserved_dollars=dollars),)
        made.with_service(name, A100, expected_requests_per_second=rate, objectives=promise)
        made.with_load(name, rate)
    return made


def planned(made: ClusterBuilder) -> tuple[PlannerRun, dict[str, int]]:
    run = run_planner(made.build(), PlannerStates(), context(), {"select": ("joint_mix", {})})
    capacities = [t for t in run.snapshot.targets.values() if isinstance(t, Capacity)]
    return run, {c.service: sum(part.units for part in c.mix.parts) for c in capacities}


TWO = (("shop/cheap", 12.0, 5.0), ("shop/dear", 12.0, 500.0))


def test_a_domain_without_a_budget_bounds_nothing():
    free, _ = planned(serving(cluster(None), *TWO))
    units = planned(serving(cluster(10**6), *TWO))[1]
    assert planned(serving(cluster(None), *TWO))[1] == units
    assert all(not menu.closed for menu in free.snapshot.targets.values() if isinstance(menu, Menu))


@pytest.mark.parametrize("gpus", [1, 2, 3])
def test_services_share_the_watts_of_their_domain_by_worth_and_no_gpu_beyond_them_is_taken(gpus):
    run, units = planned(serving(cluster(gpus * TDP), *TWO))
    assert sum(units.values()) <= gpus
    assert units["shop/dear"] >= units["shop/cheap"]
    (reason,) = [r for s in run.stages for r in s.plan.reasons if r.code == "WattsScarce"]
    assert reason.subject.name == "row-a"
    assert "one more kilowatt would save about $" in render(reason)


def test_a_service_alone_keeps_to_the_watts_too():
    _, units = planned(serving(cluster(2 * TDP), ("shop/dear", 30.0, 500.0)))
    assert units == {"shop/dear": 2}


@pytest.mark.parametrize(
    ("rooms", "domain"),
    [
        (("row-a", "row-a"), "row-a"),
        (("rack", "row-a"), "row-a"),
        (("row-a", "elsewhere"), ""),
        (("", ""), ""),
    ],
    ids=["all in it", "some in a domain below it", "some outside", "all outside"],
)
def test_a_pool_counts_to_a_domain_that_all_of_its_nodes_are_below(rooms, domain):
    view = cluster(5_000, rooms).build()
    found = budgets(view, {"od": 8})
    assert {pool: name for pool, (name, _) in found.of_pool.items()} == ({"od": domain} if domain else {})
    assert found.left == {"row-a": 5_000.0}


def test_what_others_hold_below_a_domain_is_taken_off():
    view = cluster(8 * TDP).build()
    assert budgets(view, {"od": 5}).left == {"row-a": 5.0 * TDP}
    assert budgets(view, {}).left == {"row-a": 0.0}

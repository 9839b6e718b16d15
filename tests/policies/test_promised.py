"""What an objective promises beside latency: how much of a class is served on spot, and that it survives a loss."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cluster.hardware import Market
from cluster.reasons import render
from cluster.serving import Objective
from cluster.targets import Capacity
from policies.planner import PlannerStates, run_planner
from tests.policies.builders import ClusterBuilder, a_cluster, context

A100 = "A100-80"


def cluster(**pool: Any) -> ClusterBuilder:
    """A100s on demand at $3.67 and on spot at $1.20, eight of each."""
    made = a_cluster().with_pool("od", A100, 3.67).with_pool("spot", A100, 1.2)
    made.changing("pools", "spot", market=Market.SPOT, **pool)
    return made.with_nodes(1, "od").with_nodes(1, "spot")


def decided(made: ClusterBuilder, rate: float, **promised: Any) -> tuple[dict[str, int], Capacity, list[str]]:
    """Units by pool, the capacity itself, and what was told, of one service with one class."""
    promise = Objective(ttft_seconds=2.0, tpot_seconds=0.1, unserved_dollars=500.0, **promised)
    made.with_service("shop/a", A100, expected_requests_per_second=rate, objectives=(promise,))
    run = run_planner(made.with_load("shop/a", rate).build(), PlannerStates(), context())
    capacity = run.snapshot.capacity("shop/a")
    assert capacity is not None
    told = [render(r) for s in run.stages for r in s.plan.reasons if r.code == "LossExposed"]
    return {part.pool: part.units for part in capacity.mix.parts}, capacity, told


@pytest.mark.parametrize(
    ("share", "pools"),
    [(1.0, {"spot"}), (0.5, {"od", "spot"}), (0.0, {"od"})],
    ids=["no limit", "half of it", "none of it"],
)
def test_no_more_of_a_class_is_routed_to_spot_than_it_allows(share, pools):
    units, capacity, _ = decided(cluster(), 12.0, spot_share=share)
    assert set(units) == pools
    routed = sum(part.weight for part in capacity.mix.parts if part.pool == "spot")
    assert routed <= share + 1e-6


@pytest.mark.parametrize(("reclaims_per_hour", "pool"), [(0.0, "spot"), (20.0, "od")])
def test_a_pool_that_is_known_to_take_nodes_away_is_dearer_than_its_price(reclaims_per_hour, pool):
    units, capacity, _ = decided(cluster(reclaim_per_hour=reclaims_per_hour), 3.0)
    assert set(units) == {pool}
    assert capacity.mix.dollars_per_hour == pytest.approx(
        1.2 if pool == "spot" else 3.67
    )  # told as it is billed


@pytest.mark.parametrize("survives", [False, True])
def test_a_service_alone_gets_the_spare_that_it_needs_to_survive_a_loss(survives):
    units, _, told = decided(cluster(), 3.0, survives_loss=survives)
    assert sum(units.values()) == (2 if survives else 1)
    assert told == []


def test_what_would_not_survive_is_served_all_the_same_and_told():
    made = a_cluster().with_pool("od", A100, 3.67).with_nodes(1, "od", gpus=1)
    units, _, told = decided(made, 3.0, survives_loss=True)
    assert units == {"od": 1}
    (sentence,) = told
    lost, asked = re.findall(r"([0-9.]+) req/s", sentence)
    assert lost == asked  # all of it: there is no other replica
    assert sentence.startswith("losing one replica of 1 A100-80x1-bf16 would leave")

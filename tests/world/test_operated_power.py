"""Power through the operator's loop in the world: leases, limits that land, what is drawn, and what falls back by itself."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.actions import GrantPower
from simulator.experiments.operated import operated_of, prepared
from simulator.experiments.operating import streams
from simulator.traces.requests import Tally
from simulator.world.core import Event
from simulator.world.operated.world import OperatedWorld

QUICK = {
    "container_seconds": 0.5, "process_seconds": 1.0, "engine_seconds": 0.5, "warm_up_seconds": 0.5, "tier": "dram",
    "jitter": 0.0,
}  # fmt: skip
JOB = {
    "model": {"name": "gpt-3-1.3b", "sequenceLength": 2048}, "nodes": {"min": 2}, "gpusPerNode": 2, "steps": 100_000,
    "globalBatch": 16, "accelerators": ["h100"],
}  # fmt: skip
SECONDS = 90.0


def row(watts: int, **more: Any) -> dict[str, Any]:
    """Two nodes of two H100 that train, under a breaker."""
    return {
        "seconds": SECONDS,
        "inventory": [{"prefix": "h100", "gpu": "H100", "gpus": 2, "count": 2, "network": "infiniband", "safe_gpu_watts": 300}],
        "jobs": [{"name": "lab/bert", "spec": JOB}],
        "domains": [{"name": "row", "spec": {"ratingWatts": watts, "marginFraction": 0.0}}] if watts else [],
        "power": {},
        "start": QUICK,
    } | more  # fmt: skip


def world_of(given: dict[str, Any]) -> OperatedWorld:
    scenario = operated_of(given)
    found = prepared(scenario, 1)
    return OperatedWorld(found.spec, streams(scenario, found, 1, Tally()))


def test_leases_never_add_up_to_more_than_the_breaker_carries_and_the_row_draws_less() -> None:
    world = world_of(row(3_400))
    sums: list[float] = []

    def look(at: float, _subject: None, world: Any) -> list[Event]:
        held = {name: each.watts for name, each in world.power.held.items()}
        sums.append(sum(held.get(name, site.spec.server.safe_watts) for name, site in world.sites.items()))
        return [(at + 0.25, look, None)]

    world.kernel.push((0.1, look, None))
    world.run()
    assert max(sums) <= 3_400
    assert max(sums) > sum(site.spec.server.safe_watts for site in world.sites.values()), (
        "something was granted"
    )
    drawn = world.drawing
    assert drawn is not None
    assert 0.0 < drawn.peaks["row"] <= 3_400


@pytest.mark.parametrize(("watts", "slower"), [(6_000, 1.0), (2_500, 1.05)])
def test_a_tight_breaker_slows_training_and_a_wide_one_does_not(watts: int, slower: float) -> None:
    free = world_of(row(0) | {"inventory": [{**row(0)["inventory"][0], "safe_gpu_watts": 0}]})
    capped = world_of(row(watts))
    free.run()
    capped.run()
    ratio = free.steps_of("lab/bert") / capped.steps_of("lab/bert")
    # Both start at safe watts for the seconds until the first lease, so even a wide breaker costs a little.
    assert ratio == pytest.approx(1.0, abs=0.03) if slower == 1.0 else ratio >= slower


def test_a_node_without_a_lease_goes_back_to_its_safe_watts_by_itself() -> None:
    world = world_of(row(6_000))
    grant = world.handlers[GrantPower]
    limits: list[tuple[float, int]] = []

    def cut(at: float, action: Any, overlay: Any, world: Any) -> Any:
        return grant(at, action, overlay, world) if at < 30.0 else None

    def look(at: float, _subject: None, world: Any) -> list[Event]:
        limits.append((at, world.sites["h100-00"].setting.value.gpu_cap_watts))
        return [(at + 1.0, look, None)]

    world.handlers[GrantPower] = cut
    world.kernel.push((0.5, look, None))
    world.run()
    site = world.sites["h100-00"]
    safe = site.state_for(site.spec.server.safe_watts, 0).gpu_cap_watts
    assert max(watts for at, watts in limits if 20.0 < at < 30.0) > safe
    assert {watts for at, watts in limits if at > 29.0 + 5.0 + powering_lag(world)} == {safe}
    failed = [each for each in world.log.rows if each.kind == "GrantPower" and each.outcome == "failed"]
    assert failed, "what could not be sent is told"


def powering_lag(world: OperatedWorld) -> float:
    """Command, actuation and a second until somebody looks."""
    return world.spec.delays.watch_seconds + 0.05 + 1.0


def test_what_is_not_under_a_domain_is_granted_nothing_and_booked_all_the_same() -> None:
    world = world_of(row(0))
    outcome = world.run()
    assert world.power is None
    assert outcome.complete
    assert world.drawing is not None
    assert world.drawing.joules_by_phase()["training"] > 0.0

"""The HPA form: tolerance, target, limits, stabilisation, zero and back."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from cluster.reasons import render
from cluster.snapshot import Snapshot
from cluster.targets import Capacity, Warm
from policies.ladder import rung_down, rung_up
from policies.scale.hpa import Advice, Hpa, HpaConfig, HpaState, ServiceMemory
from policies.shapes import blended, declared, differ, means, measured
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context, histogram

RUNG = 1.05
SERVICE = "shop/chat"


def cluster(**service: Any) -> ClusterBuilder:
    made = a_cluster().with_pool("l4-od", "L4").with_nodes(4, "l4-od", gpus=8)
    return made.with_service(SERVICE, "L4", **service)


def scale(snapshot: Snapshot, state: HpaState | None = None, now: float = NOW, **config: Any) -> Any:
    """(proposed capacity or None, codes of the reasons, next state)."""
    policy = Hpa(HpaConfig(**{"target": 0.8, **config}))
    decision = policy.decide(snapshot, state or policy.initial(), context(now, loop="scale"))
    proposals = [t for t in decision.plan.targets if isinstance(t, Capacity)]
    for reason in decision.plan.reasons:
        assert render(reason)
    return (proposals[0] if proposals else None), [r.code for r in decision.plan.reasons], decision.state


def synced(*advice: tuple[float, float], ago: float = 20.0) -> HpaState:
    """A memory with recommendations (seconds ago, requests/s)."""
    known = tuple(Advice(NOW - age, rate) for age, rate in advice)
    return HpaState(
        services={SERVICE: ServiceMemory(synced_seconds=NOW - ago, advice=known, shape_seconds=NOW)}
    )


def warm(seconds: float) -> Warm:
    return Warm(
        owner="warm",
        decided_seconds=NOW,
        service=SERVICE,
        copies={"awake": 1},
        keep_until_seconds=NOW + seconds,
    )


MOVES = [
    # planned, measured, ago, wanted (before the ladder), code
    pytest.param(10.0, 8.0, 20.0, None, "ScaleHeld", id="on target: held"),
    pytest.param(10.0, 8.7, 20.0, None, "ScaleHeld", id="within the tolerance above: held"),
    pytest.param(10.0, 7.3, 20.0, None, "ScaleHeld", id="within the tolerance below: held"),
    pytest.param(10.0, 9.6, 20.0, 12.0, "ScaledUp", id="above: measured / target"),
    pytest.param(10.0, 4.0, 20.0, 5.0, "ScaledDown", id="below, and nothing remembered: measured / target"),
    pytest.param(10.0, 9.6, 14.0, None, None, id="not yet due: nothing said"),
]


@pytest.mark.parametrize(("planned", "rate", "ago", "wanted", "code"), MOVES)
def test_the_formula(planned: float, rate: float, ago: float, wanted: float | None, code: str | None):
    made = cluster().with_load(SERVICE, rate).with_capacity(SERVICE, planned, ("L4", "l4-od", 4))
    snapshot = made.build()
    standing = msgspec.structs.replace(snapshot.capacity(SERVICE), shape=measured(snapshot.loads.values()))
    snapshot = made.with_target(standing).build()
    capacity, codes, _ = scale(snapshot, synced(ago=ago))
    assert codes == ([code] if code else [])
    if wanted is None:
        assert capacity is None
    else:
        assert capacity.wanted_per_second == rung_up(wanted, RUNG)
        assert wanted <= capacity.wanted_per_second <= wanted * RUNG
        assert not capacity.final


def test_it_falls_only_to_the_highest_recommendation_of_the_window():
    made = cluster().with_load(SERVICE, 2.0).with_capacity(SERVICE, 20.0, ("L4", "l4-od", 4))
    capacity, codes, state = scale(made.build(), synced((290.0, 20.0), (100.0, 8.0)))
    assert codes == ["ScaleHeld"]
    assert capacity is None or capacity.wanted_per_second == 20.0
    capacity, codes, _ = scale(made.build(), synced((310.0, 20.0), (100.0, 8.0)))
    assert codes == ["ScaledDown"]
    assert capacity.wanted_per_second == 8.0
    assert [a.per_second for a in state.services[SERVICE].advice] == [20.0, 8.0, rung_up(2.5, RUNG)]


def test_a_fresh_leader_does_not_shrink_before_it_has_seen_a_window():
    made = cluster().with_load(SERVICE, 2.0).with_capacity(SERVICE, 20.0, ("L4", "l4-od", 4))
    _, codes, state = scale(made.build())
    assert codes == ["ScaleHeld"]
    assert state.services[SERVICE].advice[0].per_second == 20.0


def test_one_period_adds_at_most_the_larger_of_double_and_four_units():
    made = cluster().with_load(SERVICE, 400.0).with_capacity(SERVICE, 40.0, ("L4", "l4-od", 4))
    capacity, codes, _ = scale(made.build(), synced())
    assert codes == ["ScaleBounded"]
    assert capacity.wanted_per_second == rung_down(80.0, RUNG)
    small = cluster().with_load(SERVICE, 400.0).with_capacity(SERVICE, 0.5, ("L4", "l4-od", 1))
    capacity, _, _ = scale(small.build(), synced())
    assert capacity.wanted_per_second > 2 * 0.5


def test_the_users_ceiling_bounds_the_rate():
    made = cluster(ceiling_units=2).with_load(SERVICE, 50.0)
    capacity, codes, _ = scale(made.build())
    assert codes == ["ScaleBounded"]
    assert 0.0 < capacity.wanted_per_second < 15.0


# ----------------------------------------------------------------------------------------------- before any load


def test_the_expected_load_is_planned_for_until_load_was_measured():
    made = cluster(expected_requests_per_second=4.0, floor_units=1)
    capacity, codes, _ = scale(made.build())
    assert codes == ["ScaledUp"]
    assert capacity.wanted_per_second == rung_up(5.0, RUNG)
    made.with_load(SERVICE, 0.4).with_capacity(SERVICE, 5.0, ("L4", "l4-od", 2))
    capacity, _, _ = scale(made.build(), synced())
    assert capacity.wanted_per_second == rung_up(0.5, RUNG)


def test_without_a_floor_the_expected_load_waits_for_the_first_request():
    made = cluster(expected_requests_per_second=4.0)
    capacity, codes, _ = scale(made.build())
    assert (capacity.wanted_per_second, codes) == (0.0, [])
    capacity, codes, _ = scale(made.with_load(SERVICE, 0.1, held=1.0).build())
    assert (capacity.wanted_per_second, codes) == (rung_up(5.0, RUNG), ["ScaledFromZero"])


def test_nothing_expected_and_nothing_seen_is_nothing():
    capacity, codes, _ = scale(cluster().build())
    assert capacity.wanted_per_second == 0.0
    assert capacity.wanted_units == 0
    assert codes == []


def test_a_floor_holds_whatever_the_load():
    capacity, _, _ = scale(cluster(floor_units=3).with_load(SERVICE, 0.0).build())
    assert capacity.wanted_units == 3
    capacity, _, _ = scale(cluster(floor_units=1, replicas=2).build())
    assert capacity.wanted_units == 2


# ---------------------------------------------------------------------------------------------- zero and back


def idle(**service: Any) -> ClusterBuilder:
    made = cluster(**service).with_load(SERVICE, 0.0).with_signal(SERVICE, last_arrival_seconds=NOW - 700.0)
    return made.with_capacity(SERVICE, 5.0, ("L4", "l4-od", 2), units=1)


def test_idle_beyond_the_keep_alive_goes_to_zero_at_once():
    capacity, codes, _ = scale(idle().with_target(warm(-1.0)).build(), synced((10.0, 5.0)))
    assert codes == ["ScaledToZero"]
    assert (capacity.wanted_per_second, capacity.wanted_units) == (0.0, 0)


def test_idle_within_the_keep_alive_keeps_one():
    capacity, _, _ = scale(idle().with_target(warm(60.0)).build(), synced())
    assert capacity.wanted_per_second == 0.0
    assert capacity.wanted_units == 1


def test_a_floor_forbids_zero():
    capacity, _, _ = scale(idle(floor_units=1).with_target(warm(-1.0)).build(), synced())
    assert capacity.wanted_units == 1


def test_a_declared_load_nobody_ever_sent_ends_with_the_keep_alive():
    made = cluster(expected_requests_per_second=4.0).with_capacity(SERVICE, 5.0, ("L4", "l4-od", 2))
    capacity, codes, _ = scale(made.with_target(warm(-1.0)).build(), synced())
    assert codes == ["ScaledToZero"]
    assert capacity.wanted_per_second == 0.0


def test_held_requests_at_zero_start_at_once_even_between_periods():
    made = cluster(expected_requests_per_second=6.0).with_load(SERVICE, 0.1, held=3.0)
    made.with_capacity(SERVICE, 0.0)
    capacity, codes, _ = scale(made.with_target(warm(-1.0)).build(), synced((5.0, 0.0), ago=1.0))
    assert codes == ["ScaledFromZero"]
    assert capacity.wanted_per_second == rung_up(6.0 / 0.8, RUNG)


def test_held_requests_are_demand_on_top():
    made = cluster().with_load(SERVICE, 8.0, held=240.0).with_capacity(SERVICE, 10.0, ("L4", "l4-od", 4))
    capacity, _, _ = scale(made.build(), synced())
    assert capacity.wanted_per_second == rung_up((8.0 + 240.0 / 60.0) / 0.8, RUNG)


# ------------------------------------------------------------------------------------------------- bad figures


def test_an_old_measurement_scales_nothing_down():
    made = cluster().with_load(SERVICE, 1.0, observed_seconds=NOW - 300.0)
    made.with_signal(SERVICE, observed_seconds=NOW - 300.0).with_capacity(SERVICE, 20.0, ("L4", "l4-od", 4))
    policy = Hpa()
    decision = policy.decide(made.with_target(warm(-1.0)).build(), synced((299.0, 20.0)), context())
    assert decision.plan.evidence.degraded == (f"load of {SERVICE}",)
    assert [r.code for r in decision.plan.reasons] == ["ScaleHeld"]
    assert not [t for t in decision.plan.targets if t.wanted_per_second < 20.0]


def test_a_missing_number_is_not_zero_demand():
    made = cluster().with_signal(
        SERVICE, requests_per_second=np.nan, held=np.nan, last_arrival_seconds=NOW - 5.0
    )
    made.with_capacity(SERVICE, 20.0, ("L4", "l4-od", 4)).with_target(warm(-1.0))
    capacity, codes, _ = scale(made.build(), synced())
    assert codes == ["ScaleHeld"]
    assert capacity is None or capacity.wanted_per_second == 20.0


# ------------------------------------------------------------------------------------------------------ shape


def test_the_shape_follows_the_load_slowly_and_the_plan_follows_the_shape_late():
    made = cluster(expected_input_tokens=1_000.0, expected_output_tokens=200.0)
    made.with_load(SERVICE, 8.0, tokens_in=3_000.0, tokens_out=200.0)
    state, planned = HpaState(), []
    for step in range(6):
        now = NOW + 30.0 * step
        snapshot = made.build()
        loads = {k: msgspec.structs.replace(h, observed_seconds=now) for k, h in snapshot.loads.items()}
        capacity, _, state = scale(msgspec.structs.replace(snapshot, loads=loads), state, now)
        if capacity is not None:
            made.with_target(msgspec.structs.replace(capacity, final=True))
            planned.append(means(capacity.shape)[0])
    assert planned[0] == pytest.approx(1_000.0, rel=0.01)
    assert planned == sorted(planned)
    assert 1_000.0 < planned[-1] < 3_000.0
    assert 1 < len(planned) < 6


def test_shapes_of_other_grids_keep_their_means():
    coarse = histogram("s", 4.0, tokens_in=900.0, tokens_out=150.0)
    shape = measured([coarse])
    fine = msgspec.structs.replace(
        coarse,
        input_edges=(100, 1_000, 10_000),
        output_edges=(32, 1_000),
        cells=(1.0, 0.0, 2.0, 1.0, 0.0, 0.0),
    )
    mixed = blended(shape, measured([fine]), 0.5)
    want = tuple((a + b) / 2 for a, b in zip(means(shape), means(measured([fine])), strict=True))
    assert means(mixed) == pytest.approx(want, rel=0.01)
    assert not differ(shape, shape, 0.1)
    assert differ(shape, measured([fine]), 0.1)
    assert measured([msgspec.structs.replace(coarse, cells=(0.0,) * len(coarse.cells))]) is None


def test_a_declared_shape_has_the_declared_means():
    snapshot = cluster(expected_input_tokens=1_155.0, expected_output_tokens=211.0).build()
    assert means(declared(snapshot.services[SERVICE])) == pytest.approx((1_155.0, 211.0), rel=1e-3)


@pytest.mark.parametrize("rate", [1e-6, 0.03, 1.0, 7.77, 1e5])
def test_rungs_bracket_the_rate_and_stay(rate: float):
    up, down = rung_up(rate, RUNG), rung_down(rate, RUNG)
    assert down <= rate * (1 + 1e-9)
    assert up >= rate * (1 - 1e-9)
    assert up / down <= RUNG * (1 + 1e-9)
    assert rung_up(up, RUNG) == up
    assert rung_down(down, RUNG) == down
    assert rung_up(0.0, RUNG) == rung_down(0.0, RUNG) == 0.0

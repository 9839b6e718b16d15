"""The checker finds every kind of fault, planted one at a time into a sound mix."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.selection.checker import check, recomputed_cost, usable
from placement.selection.headroom import capacity_table, rho
from placement.selection.mix import solve_mix
from tests.placement.mixes import problem

TASK = problem(inventory={"big": 9, "mid": 9, "small": 9}, headroom=False)
SOUND = solve_mix(TASK)


def doubled(row):
    return tuple(2 * share for share in row)


@pytest.mark.parametrize(
    ("task", "changes", "text"),
    [
        pytest.param({}, {"counts": {**SOUND.counts, "big": -1}}, "count of big is -1", id="negative count"),
        pytest.param(
            {}, {"counts": {**SOUND.counts, "huge": 1}}, "huge are not in the problem", id="unknown variant"
        ),
        pytest.param(
            {"inventory": {"big": 0, "mid": 9, "small": 9}},
            {},
            "1 GPUs of pool big are used, 0",
            id="inventory",
        ),
        pytest.param({"min_units": 40}, {}, "replicas in all, allowed are 40", id="too few replicas"),
        pytest.param({"max_units": 1}, {}, "allowed are 0 to 1", id="too many replicas"),
        pytest.param({"forbidden": (dict(SOUND.counts),)}, {}, "is forbidden", id="forbidden vector"),
        pytest.param(
            {},
            {"routing": {**SOUND.routing, "big": doubled(SOUND.routing["big"])}},
            "sum to",
            id="more than all is routed",
        ),
        pytest.param({}, {"unserved": (0.5, 0.0, 0.0)}, "sum to 1.5", id="served and unserved at once"),
        pytest.param(
            {}, {"counts": {**SOUND.counts, "small": 1}}, "small is kept busy on", id="over capacity"
        ),
        pytest.param({"headroom": True}, {}, "is kept busy on", id="no headroom left"),
        pytest.param(
            {}, {"cost_per_hour": SOUND.cost_per_hour - 0.1}, "cost_per_hour is stated as", id="wrong cost"
        ),
        pytest.param({}, {"objective_per_hour": 1.0}, "objective_per_hour is stated", id="wrong objective"),
        pytest.param({}, {"unserved_per_second": 1.0}, "unserved_per_second is stated", id="hidden shedding"),
        pytest.param({}, {"bound": 99.0}, "bound 99.0 lies above", id="impossible bound"),
        pytest.param({}, {"feasible": False}, "not feasible", id="nothing to check"),
    ],
)
def test_a_planted_fault_is_found(task, changes, text):
    faults = check(msgspec.structs.replace(TASK, **task), msgspec.structs.replace(SOUND, **changes))
    assert any(text in fault for fault in faults), faults


def test_routing_to_a_variant_that_cannot_serve_is_found():
    crossed = {
        **SOUND.routing,
        "small": (*SOUND.routing["small"][:2], 0.2),
        "big": (*SOUND.routing["big"][:2], 0.8),
    }
    faults = check(TASK, msgspec.structs.replace(SOUND, routing=crossed))
    assert any("cell 2 is routed to small, which cannot serve it" in fault for fault in faults)


def test_the_sound_mix_passes():
    assert check(TASK, SOUND) == ()
    assert recomputed_cost(TASK, SOUND) == pytest.approx(SOUND.cost_per_hour)


@pytest.mark.parametrize(
    ("units", "concurrency", "share"),
    [
        pytest.param(1, 13, 1 - 2 / 13**0.5, id="one L4"),
        pytest.param(16, 116, 1 - 2 / (16 * 116) ** 0.5, id="sixteen H100"),
        pytest.param(1, 4, 0.35, id="never below 0.35"),
        pytest.param(0, 13, 0.0, id="nothing"),
    ],
)
def test_usable_share_of_a_pool(units, concurrency, share):
    assert rho(np.array([float(units)]), concurrency)[0] == pytest.approx(share)
    assert usable(units, concurrency, True) == pytest.approx(units * share)
    assert usable(units, concurrency, False) == units


@given(concurrency=st.floats(0.1, 1e4), headroom=st.booleans())
def test_capacity_is_convex_rising_and_agrees_with_the_checker(concurrency, headroom):
    table = capacity_table(60, concurrency, headroom)
    assert table[0] == 0
    assert (np.diff(table) > 0).all()
    assert (np.diff(table, 2) >= -1e-9).all()
    assert table.tolist() == pytest.approx([usable(n, concurrency, headroom) for n in range(61)])

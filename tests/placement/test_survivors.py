"""Numbers and sentences of refusals in full, and the bookkeeping of a search that is asked twice."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from cluster.reasons import Quantity
from placement.selection.checker import check
from placement.selection.instance import build
from placement.selection.mix import solve_mix
from placement.selection.problem import VariantOption, judge, screen
from placement.selection.search import Search
from tests.placement.mixes import problem

ODD = VariantOption(
    name="odd", pool="odd", dollars_per_hour=1.0, throughput=(9.0, 9.0, 9.0), concurrency=9, gpus=2
)


@pytest.mark.parametrize(
    ("change", "code", "need", "have", "unit", "sentence"),
    [
        pytest.param({"dollars_per_hour": -1.5}, "PriceMissing", 0.01, -1.5, "$/h", "price of odd is -1.5 $/h; set a positive price for pool 'odd'", id="a negative price"),
        pytest.param({"dollars_per_hour": math.inf}, "PriceMissing", 0.01, 0.0, "$/h", "price of odd is inf $/h; set a positive price for pool 'odd'", id="an infinite price"),
        pytest.param({"throughput": (1.0, 1.0)}, "ProfileHole", 1.0, 2 / 3, "ratio", "profile of odd has 2 cells, the demand 3; use the same grid", id="another grid"),
        pytest.param({"throughput": (1.0, -1.0, math.nan)}, "ProfileHole", 1.0, 1 / 3, "ratio", "throughput of odd in cell 1 is -1.0 requests/s; measure it again, or write 0 for infeasible", id="two broken cells"),
        pytest.param({"throughput": (1.0, 1.0, math.inf)}, "ProfileHole", 1.0, 2 / 3, "ratio", "throughput of odd in cell 2 is inf requests/s; measure it again, or write 0 for infeasible", id="an infinite cell"),
        pytest.param({"gpus": 0}, "ProfileHole", 1.0, 0.0, "GPU", "odd takes 0 GPUs and at least 0 units; use 1 GPU or more", id="no GPU"),
        pytest.param({"min_units": -1}, "ProfileHole", 1.0, 2.0, "GPU", "odd takes 2 GPUs and at least -1 units; use 1 GPU or more", id="a negative floor"),
        pytest.param({"concurrency": math.inf}, "ProfileHole", 1.0, 0.0, "ratio", "concurrency of odd is inf; give the running requests of one replica", id="infinite concurrency"),
        pytest.param({"pool": "none"}, "NoInventory", 2.0, 0.0, "GPU", "pool 'none' of odd is not in the inventory; add the pool or drop the variant", id="an unknown pool"),
        pytest.param({"min_units": 3}, "NoInventory", 6.0, 5.0, "GPU", "odd takes 6 GPUs of pool 'odd', where 5 are free; add nodes there", id="a floor that does not fit"),
        pytest.param({"throughput": (0.0, 0.0, 0.0)}, "ProfileHole", 1.0, 0.0, "ratio", "odd keeps the objective in none of the 3 request sizes asked for; relax it", id="nothing it can serve"),
    ],
)  # fmt: skip
def test_a_column_that_cannot_be_used_says_why_in_numbers(
    change: dict[str, Any], code: str, need: float, have: float, unit: Any, sentence: str
) -> None:
    task = problem(inventory={"odd": 5})
    found = judge(msgspec.structs.replace(ODD, **change), task)
    assert found is not None
    assert (found.variant, found.code, found.sentence) == ("odd", code, sentence)
    assert found.need == Quantity("need", need, unit)
    assert (found.have.name, found.have.unit) == ("have", unit)
    assert found.have.value == pytest.approx(have)
    assert found.alternative().facts == (found.need, found.have)


@pytest.mark.parametrize(
    "change",
    [{}, {"min_units": 2}, {"throughput": (0.0, 9.0, 0.0)}],
    ids=["as it is", "a floor that just fits", "one size it can serve"],
)
def test_a_column_that_can_be_used(change: dict[str, Any]) -> None:
    assert judge(msgspec.structs.replace(ODD, **change), problem(inventory={"odd": 5})) is None


def test_a_column_is_judged_by_the_sizes_that_are_asked_for() -> None:
    only_small = msgspec.structs.replace(ODD, throughput=(9.0, 0.0, 0.0))
    assert judge(only_small, problem(demand=(0.0, 1.0, 0.0), inventory={"odd": 5})) is not None
    assert judge(only_small, problem(demand=(0.0, 0.0, 0.0), inventory={"odd": None})) is None


def test_columns_come_in_order_of_name() -> None:
    both = screen(problem(variants=(ODD, msgspec.structs.replace(ODD, name="a")), inventory={"odd": 5}))
    assert [option.name for option in both.options] == ["a", "odd"]
    neither = screen(problem(variants=(ODD, msgspec.structs.replace(ODD, name="a")), inventory={}))
    assert [each.variant for each in neither.rejections] == ["a", "odd"]


def test_gpus_of_a_pool_nobody_listed_are_a_fault() -> None:
    task = problem(headroom=False)
    sound = solve_mix(task)
    assert check(task, sound) == ()
    unlisted = msgspec.structs.replace(task, inventory={})
    assert any(text.endswith("are used, 0 are free") for text in check(unlisted, sound))


def test_each_run_of_a_search_counts_its_own_work() -> None:
    task = problem()
    instance = build(task, task.variants, spare_units=1)
    search = Search(instance, task.work_units, task.relative_gap)
    first = search.run()
    assert first.units_used == search.units_used() > 0
    low = instance.low.copy()
    low[0] = 2
    second = search.run(low=low)
    assert second.units_used == search.units_used() - first.units_used
    impossible = search.run(low=instance.high + 1, high=np.array(instance.high))
    assert (impossible.best, impossible.complete, impossible.units_used) == ((), True, 0)

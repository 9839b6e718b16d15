"""Plans for gateways that dispatch by size: chunks, first tokens, what may go where, how scattered a load is."""

import math

import numpy as np
import pytest

from cluster.size_plan import StepFigures, fault_of
from placement.profiles.grid import Grid
from placement.selection.checker import check
from placement.selection.mix import solve_mix
from placement.selection.sized import (
    SLOPE,
    SizedVariant,
    chunk_tokens,
    first_token_seconds,
    planned_throughput,
    scattered_concurrency,
    size_plan,
    sized_problem,
)

GRID = Grid((100, 1_000, 4_000), (50, 500))
TPOT, TTFT = 0.1, 2.0
SLOW = StepFigures(base_seconds=0.05, request_seconds=0.001, context_seconds=1e-6, prompt_seconds=2e-4)
FAST = StepFigures(base_seconds=0.015, request_seconds=0.0005, context_seconds=2e-7, prompt_seconds=2e-5)
VARIANTS = (
    SizedVariant(name="fast", dollars_per_hour=7.0, steps=FAST, throughput=((60.0, 9.0), (20.0, 6.0), (6.0, 3.0))),
    SizedVariant(name="slow", dollars_per_hour=0.7, steps=SLOW, throughput=((9.0, 1.2), (2.0, 0.6), (0.5, 0.2))),
)  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "tpot", "tokens"),
    [
        pytest.param(FAST, 0.1, 3_008, id="what fits in a step beside the weights: 0.06 s at 20 us"),
        pytest.param(SLOW, 0.1, 128, id="never below the least chunk"),
        pytest.param(FAST, 0.01, 128, id="a promise shorter than the weights' pass"),
        pytest.param(FAST, 10.0, 8_192, id="never above the largest chunk"),
    ],
)
def test_chunks(steps, tpot, tokens):
    assert chunk_tokens(steps, tpot) == tokens


def test_a_first_token_takes_a_promised_step_for_each_chunk_and_its_attention():
    steps = StepFigures(
        base_seconds=0.05,
        request_seconds=0.0,
        context_seconds=0.0,
        prompt_seconds=2e-4,
        pair_seconds=1e-8,
    )
    found = first_token_seconds(steps, np.array([1.0, 128.0, 129.0, 1_280.0]), TPOT)
    assert found == pytest.approx(
        [0.1 + 1e-8, 0.1 + 1e-8 * 128**2, 0.2 + 1e-8 * 129**2, 1.0 + 1e-8 * 1280**2]
    )


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        pytest.param(0.1, False, id="common sizes that come too late are kept from it"),
        pytest.param(0.001, True, id="rare ones do not decide"),
    ],
)
def test_sizes_whose_first_token_comes_too_late(share, kept):
    cells = np.array([[1.0 - share, 0.0], [0.0, 0.0], [share, 0.0]])
    found = planned_throughput(GRID, cells, VARIANTS[1], TTFT, TPOT)
    assert bool(found[2, 0] > 0.0) is kept
    assert found[0, 0] == 9.0


def test_concurrency_of_a_mixed_load_is_the_harmonic_mean_by_work():
    throughput = np.array([[10.0, 1.0]])
    running = np.array([[100.0, 4.0]])
    cells = np.array([[10.0, 1.0]])  # one replica's work each
    assert scattered_concurrency(cells, throughput, running) == pytest.approx(2.0 / (1 / 100 + 1 / 4))
    assert scattered_concurrency(cells * 0.0, throughput, running) == 1.0


def test_a_solution_becomes_the_plan_that_gateways_dispatch_by_and_keeps_its_headroom():
    cells = np.array([[4.0, 2.0], [2.0, 1.0], [0.5, 0.0]])
    problem = sized_problem(GRID, cells, VARIANTS, TTFT, TPOT)
    solution = solve_mix(problem)
    assert check(problem, solution) == ()
    assert solution.unserved_per_second == 0.0
    for option in problem.variants:
        n = solution.counts.get(option.name, 0)
        if n:
            shares = solution.routing[option.name]
            busy = sum(
                r * s / t for r, s, t in zip(problem.demand, shares, option.throughput, strict=True) if s > 0
            )
            own = option.concurrency * SLOPE**2 / 4.0
            assert busy <= n * max(1.0 - SLOPE / math.sqrt(n * own), 0.35) + 1e-6
    plan = size_plan(GRID, problem, solution, VARIANTS, TTFT, TPOT)
    assert fault_of(plan) == ""
    assert [column.name for column in plan.columns] == [f"{name}|{name}" for name in sorted(solution.counts)]
    own = plan.of("default")
    for cell, rate in enumerate(problem.demand):
        if rate > 0.0:
            assert sum(shares[cell] for shares in own.shares) == pytest.approx(1.0)
    steps = {f"{variant.name}|{variant.name}": variant.steps for variant in VARIANTS}
    for column in plan.columns:
        assert column.steps.chunk_tokens == chunk_tokens(steps[column.name], TPOT)
        assert column.tpot_seconds == TPOT

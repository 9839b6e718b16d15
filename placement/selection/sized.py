"""Selection for gateways that dispatch by size and load: what they need to be told, and how full pools may then be planned.

With `policies/dispatch/size_aware.py` in the gateways a busy row's requests go to others, also of another variant, so a pool
needs less room of its own. What it must keep free still follows from chance: requests come as they like, and a request of a
size that B replicas' worth of fit beside each other takes 1/B of one. Of a mixed load with work shares w_b the busy units
then scatter with variance n / B, 1/B = sum of w_b / B_b: the *harmonic* mean of concurrency, which few large requests pull
down as they should. Keeping SLOPE such deviations free gives rho(n) = 1 - SLOPE / sqrt(n B).

A step that takes a chunk of a prompt is kept within the promised time per output token: chunks are what fits in it beside the
pass over the weights and ROOM of it for decoding. Then no neighbour's prompt makes a short answer late, and what a prompt
costs shows in the time to its first token, one promised step a chunk. A size is planned for a variant only where that leaves
a quarter of the promise for waiting; sizes that are rarer than the promise minds (RARE) do not decide which GPUs are bought.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.base import Noun
from cluster.size_plan import ClassPlan, PlannedColumn, SizePlan, StepFigures
from placement.profiles.grid import Grid, implied_concurrency, routable
from placement.selection.headroom import RHO_SLOPE
from placement.selection.problem import MixProblem, MixSolution, VariantOption

Floats = NDArray[np.float64]

SLOPE = 1.0
"""Standard deviations of the busy units that stay free (docs/designs/0022: chosen on generated loads, frozen)."""

ROOM = 0.25
"""Share of the promised time per output token that steps with a chunk leave for decoding."""

TTFT_SHARE = 0.75
"""Share of the promised time to the first token that a prompt may take on its own; the rest is for waiting."""

RARE = 0.002
"""Share of requests that may be late on a variant without their sizes being kept from it."""

LEAST_CHUNK, LARGEST_CHUNK, CHUNK_GRAIN = 128, 8_192, 32
"""Bounds and grain of a chunk, in tokens."""


class SizedVariant(Noun, kw_only=True, frozen=True):
    """A variant to choose from: price, requests/s of one replica [inputs][outputs] at the TPOT objective (0: infeasible), steps."""

    name: str
    dollars_per_hour: float
    throughput: tuple[tuple[float, ...], ...]
    steps: StepFigures
    pool: str = ""
    gpus: int = 1


def chunk_tokens(steps: StepFigures, tpot_seconds: float) -> int:
    """Tokens of a prompt that a step of this variant should take at most."""
    left = (1.0 - ROOM) * tpot_seconds - steps.base_seconds
    tokens = left / max(steps.prompt_seconds, 1e-12)
    grains = round(min(max(tokens, LEAST_CHUNK), LARGEST_CHUNK) / CHUNK_GRAIN)
    return int(grains * CHUNK_GRAIN)


def first_token_seconds(steps: StepFigures, prompts: Floats, tpot_seconds: float) -> Floats:
    """Time to the first token of prompts that do not wait: a promised step for each chunk, and their attention [n]."""
    chunks = np.ceil(prompts / chunk_tokens(steps, tpot_seconds))
    found: Floats = chunks * tpot_seconds + steps.pair_seconds * prompts**2
    return found


def planned_throughput(
    grid: Grid, cells: Floats, variant: SizedVariant, ttft_seconds: float, tpot_seconds: float
) -> Floats:
    """Requests/s of one replica [inputs x outputs], 0 where the load must not go there: infeasible, beside such, or too late."""
    throughput = np.array(variant.throughput, dtype=np.float64)
    allowed = np.where(routable(cells, throughput), throughput, 0.0)
    first = first_token_seconds(variant.steps, np.array(grid.input_edges, dtype=np.float64), tpot_seconds)
    late = first > TTFT_SHARE * ttft_seconds
    if cells[late].sum() > RARE * cells.sum():
        allowed[late] = 0.0
    return allowed


def scattered_concurrency(cells: Floats, throughput: Floats, running: Floats) -> float:
    """Harmonic mean of concurrency over a load, sizes weighing by the time they keep a replica busy; 1 without load."""
    wanted = (cells > 0.0) & (throughput > 0.0)
    busy = cells[wanted] / throughput[wanted]
    scatter = float((busy / np.maximum(running[wanted], 1e-9)).sum())
    return float(busy.sum()) / scatter if scatter > 0.0 else 1.0


def sized_problem(
    grid: Grid,
    cells: Floats,
    variants: tuple[SizedVariant, ...],
    ttft_seconds: float,
    tpot_seconds: float,
    unserved_dollars: float = 1_000.0,
) -> MixProblem:
    """The selection problem of a soft histogram `cells` [inputs x outputs, requests/s] for gateways that dispatch by size.

    The solver's rho has slope RHO_SLOPE; a concurrency (RHO_SLOPE / SLOPE)² times as large makes it SLOPE.
    """
    options = []
    for variant in variants:
        throughput = planned_throughput(grid, cells, variant, ttft_seconds, tpot_seconds)
        running = implied_concurrency(grid, throughput, tpot_seconds)
        options.append(
            VariantOption(
                name=variant.name,
                pool=variant.pool or variant.name,
                dollars_per_hour=variant.dollars_per_hour,
                throughput=tuple(throughput.ravel().tolist()),
                gpus=variant.gpus,
                concurrency=scattered_concurrency(cells, throughput, running) * (RHO_SLOPE / SLOPE) ** 2,
            )
        )
    return MixProblem(
        demand=tuple(cells.ravel().tolist()),
        variants=tuple(options),
        inventory=dict.fromkeys(option.pool for option in options),
        unserved_dollars=unserved_dollars,
    )


def size_plan(
    grid: Grid,
    problem: MixProblem,
    solution: MixSolution,
    variants: tuple[SizedVariant, ...],
    ttft_seconds: float,
    tpot_seconds: float,
    request_class: str = "default",
    blend: bool = True,
) -> SizePlan:
    """A solution as gateways dispatch by it (`cluster.size_plan`): a column `variant|pool` for each variant of it.

    Sizes of the profile, not of the plan, say what a variant is able to serve. `blend` as `SizePlan.blend`.
    """
    by_name = {variant.name: variant for variant in variants}
    columns, shares, able = [], [], []
    for name in sorted(solution.counts):
        variant = by_name[name]
        steps = msgspec.structs.replace(variant.steps, chunk_tokens=chunk_tokens(variant.steps, tpot_seconds))
        columns.append(PlannedColumn(name=column_of(variant), steps=steps, tpot_seconds=tpot_seconds))
        shares.append(tuple(solution.routing.get(name, (0.0,) * len(problem.demand))))
        able.append(tuple((np.array(variant.throughput) > 0.0).ravel().tolist()))
    own = ClassPlan(
        request_class=request_class, ttft_seconds=ttft_seconds, tpot_seconds=tpot_seconds,
        shares=tuple(shares), able=tuple(able),
    )  # fmt: skip
    return SizePlan(
        input_edges=grid.input_edges, output_edges=grid.output_edges, columns=tuple(columns), classes=(own,), blend=blend
    )  # fmt: skip


def column_of(variant: SizedVariant) -> str:
    """`variant|pool`, as routes name a replica's column."""
    return f"{variant.name}|{variant.pool or variant.name}"

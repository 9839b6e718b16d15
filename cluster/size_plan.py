"""A service's plan by size: which share of each size of request is meant for which variant, and how full rows are measured.

It is what selection decided (`cluster.targets.Mix.sizes`) as far as dispatch needs it. It travels with the route weights
(`SetRoutes`) to the gateways; `policies/dispatch/size_aware.py` reads it in its view, in the operator's world and the simulator's.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable

import msgspec

from cluster.base import Noun

MOST_CELLS = 1_024
"""Sizes of a plan's grid at most: 20 kB a column and class would be said of nothing that is measured so finely."""

MOST_COLUMNS, MOST_CLASSES = 64, 64
"""Columns and classes of a plan at most."""

MOST_SHARES = 65_536
"""Shares of a whole plan at most: a quarter of a megabyte on the wire."""

SHARE_SLACK = 0.05
"""A size's shares may sum to so much more than 1: they are rounded one by one."""

MOST_SECONDS = 86_400.0
"""No promise and no step of an engine is longer than a day."""


class StepFigures(Noun, kw_only=True, frozen=True):
    """How long a variant's steps take, as gateways need to know it.

    A step takes `base_seconds` + `request_seconds` a running request + `context_seconds` a token held; a prompt of n tokens
    `prompt_seconds` n + `pair_seconds` n² of arithmetic besides, in chunks of `chunk_tokens`.
    """

    base_seconds: float
    request_seconds: float
    context_seconds: float
    prompt_seconds: float
    pair_seconds: float = 0.0
    chunk_tokens: int = 2_048


class PlannedColumn(Noun, kw_only=True, frozen=True):
    """A variant bought from a pool (`name` is `variant|pool`), its steps, and the strictest time per output token, in seconds,
    promised to a class that is planned there: nobody's request may make another's late. `refill_seconds` are
    what each running request adds to a step there besides, on the mean: the prompts of those that take its place when it ends.
    """

    name: str
    steps: StepFigures
    tpot_seconds: float
    refill_seconds: float = 0.0


class ClassPlan(Noun, kw_only=True, frozen=True):
    """The plan of one request class. `shares` and `able` have a row-major grid [inputs x outputs] for each column of the plan:
    the share of the size's requests that is planned there, and whether the column keeps the class's promise there at all.
    """

    request_class: str
    ttft_seconds: float
    tpot_seconds: float
    shares: tuple[tuple[float, ...], ...]
    able: tuple[tuple[bool, ...], ...]


class SizePlan(Noun, kw_only=True, frozen=True):
    """Grid, columns and classes. A class that is not in it is taken for the first one, as gateways do with its load.

    With `blend` a size between grid points takes the bilinear blend of their shares; without, those of the upper edges.
    """

    input_edges: tuple[int, ...]
    output_edges: tuple[int, ...]
    columns: tuple[PlannedColumn, ...]
    classes: tuple[ClassPlan, ...]
    blend: bool = True

    @property
    def cells(self) -> int:
        """How many sizes the grid has."""
        return len(self.input_edges) * len(self.output_edges)

    @property
    def digest(self) -> str:
        """Eight digits that differ where two plans do, for logs."""
        return hashlib.blake2b(msgspec.json.encode(self, order="deterministic"), digest_size=4).hexdigest()

    def of(self, request_class: str) -> ClassPlan:
        """The plan of a class; of one it does not know, the first."""
        return next((each for each in self.classes if each.request_class == request_class), self.classes[0])


def fault_of(plan: SizePlan) -> str:
    """What is wrong with a plan, as a sentence; empty when it can be dispatched by.

    Checked where plans are made and again where they come off the wire: gateways' arithmetic must not meet what cannot be.
    """
    return _grid_fault(plan) or _column_fault(plan) or _class_fault(plan)


def _grid_fault(plan: SizePlan) -> str:
    for name, edges in (("input", plan.input_edges), ("output", plan.output_edges)):
        if not edges or edges[0] <= 0 or any(b <= a for a, b in itertools.pairwise(edges)):
            return (
                f"The {name} edges {edges[:8]} of the plan must be positive and rise strictly, at least one."
            )
    limits = (
        ("sizes", plan.cells, MOST_CELLS),
        ("columns", len(plan.columns), MOST_COLUMNS),
        ("classes", len(plan.classes), MOST_CLASSES),
        ("shares", plan.cells * len(plan.columns) * len(plan.classes), MOST_SHARES),
    )
    for name, have, most in limits:
        if not 0 < have <= most:
            return f"The plan has {have} {name}; it has between 1 and {most}."
    return ""


def _column_fault(plan: SizePlan) -> str:
    if len({column.name for column in plan.columns}) < len(plan.columns):
        return "Two columns of the plan have one name; each variant of a pool is one column."
    for column in plan.columns:
        steps = column.steps
        figures = msgspec.structs.asdict(steps)
        seconds = [value for name, value in figures.items() if name.endswith("_seconds")]
        if not _within(seconds, MOST_SECONDS, 0.0) or steps.base_seconds <= 0.0 or steps.chunk_tokens < 1:
            return f"The step figures of column {column.name!r} are {figures}; they are times from 0 on, and chunks of tokens."
        if not 0.0 < column.tpot_seconds <= MOST_SECONDS:
            return (
                f"Column {column.name!r} promises {column.tpot_seconds} s per output token; that is above 0."
            )
        if not 0.0 <= column.refill_seconds <= MOST_SECONDS:
            brought = column.refill_seconds
            return f"Requests of column {column.name!r} bring {brought} s of prompts a step; that is a time from 0 on."
    return ""


def _class_fault(plan: SizePlan) -> str:
    wide, cells = len(plan.columns), plan.cells
    for each in plan.classes:
        promises = (each.ttft_seconds, each.tpot_seconds)
        if not all(0.0 < seconds <= MOST_SECONDS for seconds in promises):
            return f"Class {each.request_class!r} promises {promises} s to the first token and for each further one; both are above 0."
        for name, grids in (("shares", each.shares), ("able", each.able)):
            if len(grids) != wide or any(len(grid) != cells for grid in grids):
                return (
                    f"Class {each.request_class!r} has {name} of {[len(grid) for grid in grids]} sizes for {wide} columns of "
                    f"{cells}; give one of each for every size of every column."
                )
        if not all(_within(grid, 1.0 + SHARE_SLACK, 0.0) for grid in each.shares):
            return f"Class {each.request_class!r} has a share that is not between 0 and 1."
        worst = max(map(sum, zip(*each.shares, strict=True)))
        if worst > 1.0 + SHARE_SLACK:
            return f"A size of class {each.request_class!r} is planned {worst:g} times over; its shares sum to 1 at most."
    if len({each.request_class for each in plan.classes}) < len(plan.classes):
        return "Two classes of the plan have one name."
    return ""


def _within(values: Iterable[float], most: float, least: float) -> bool:
    return all(math.isfinite(value) and least <= value <= most for value in values)

"""The plan by size that goes out with a service's weights, and when a new one says enough to be sent.

Its columns are those of the mix and of whatever else of the service is there (surplus ones, another pool), so that gateways know
how full they are; shares are the final mix's, size by size, or alike for every size where it was not planned so.
"""

from __future__ import annotations

import math

import numpy as np

from cluster.reasons import Reason, Verdict
from cluster.size_plan import ClassPlan, PlannedColumn, SizePlan, StepFigures, fault_of
from cluster.targets import Mix
from policies.draft import quantity
from policies.frames import Floats, Frame, Profile
from policies.options import routes_by_size
from policies.place.cases import Case
from policies.place.restraint import AS_IT_RUNS
from policies.place.run import Run
from policies.shapes import declared

REFILL_TOLERANCE, LEAST_REFILL = 0.2, 1e-4
"""Relative change of what follows a request from which on gateways are told again, and seconds that are no change at all."""

LEAST_TOLD = 0.005
"""Share of the requests from which on a column is named to people."""

STEP_TOLERANCE = 0.1
"""Relative change of step times from which on gateways are told again: fills need no better."""


def plan_of(run: Run, case: Case, frame: Frame) -> SizePlan | None:
    """The plan to be in force for a service: what stands while it says nearly the same; None where weights are all."""
    if not routes_by_size(run.groups, case.service):
        return None
    routes = run.view.routes(case.service.name)
    standing = routes.plan if routes is not None else None
    if case.capacity.owner == AS_IT_RUNS:
        return standing  # nobody plans for it now, and its requests go on as they went
    made = made_of(case, frame)
    if made is None or standing is None:
        return made
    shares = frame.shares(case.capacity.shape or declared(case.service))
    return standing if same(standing, made, shares, run.config.plan_tolerance) else made


def made_of(case: Case, frame: Frame) -> SizePlan | None:
    """The final mix as a plan; None while no column has steps that are known and a share of anything."""
    profiles = {
        f"{variant}|{pool}": frame.profiles[variant]
        for variant, pool in case.parts()
        if variant in frame.profiles and frame.profiles[variant].steps is not None
    }
    if not frame.classes or not profiles:
        return None
    grids = {name: _grids(frame, case.capacity.mix, name) for name in profiles}
    if not any(grid.any() for grid in grids.values()):
        return None
    size = len(frame.edges[0]) * len(frame.edges[1])
    load = frame.shares(case.capacity.shape or declared(case.service)).reshape(len(frame.classes), size)
    plan = SizePlan(
        input_edges=frame.edges[0],
        output_edges=frame.edges[1],
        columns=tuple(_column(frame, name, profiles[name], grids[name], load) for name in profiles),
        classes=tuple(
            ClassPlan(
                request_class=request_class, ttft_seconds=frame.promises[n].ttft_seconds,
                tpot_seconds=frame.promises[n].tpot_seconds,
                shares=tuple(tuple(grids[name][n].tolist()) for name in profiles),
                able=tuple(_able(profiles[name], n, size) for name in profiles),
            )
            for n, request_class in enumerate(frame.classes)
        ),
    )  # fmt: skip
    return plan if not fault_of(plan) else None


def _grids(frame: Frame, mix: Mix, name: str) -> Floats:
    """Shares of a column [classes x sizes]."""
    size = len(frame.edges[0]) * len(frame.edges[1])
    found = np.zeros((len(frame.classes), size))
    sizes = mix.sizes
    known = sizes is not None and (sizes.input_edges, sizes.output_edges) == frame.edges
    for number, request_class in enumerate(frame.classes):
        key = f"{request_class}|{name}"
        if known and sizes is not None:
            found[number] = sizes.shares.get(key, 0.0)
        else:
            found[number] = round(min(mix.routing.get(key, 0.0), 1.0), 3)
    return found


def _able(profile: Profile, number: int, size: int) -> tuple[bool, ...]:
    return tuple((profile.throughput[number * size : (number + 1) * size] > 0.0).tolist())


def refill_seconds(frame: Frame, steps: StepFigures, load: Floats) -> float:
    """Seconds of prompts that a running request brings each step on a replica of `load` [classes x sizes, in any unit]: in steady
    state one of mean answer length takes its place each time as many steps are over (`placement.profiles.roofline`).
    """
    tokens = np.tile(np.array(frame.edges[1], dtype=np.float64), len(frame.edges[0]))
    prompts = np.repeat(np.array(frame.edges[0], dtype=np.float64), len(frame.edges[1]))
    seconds = steps.prompt_seconds * prompts + steps.pair_seconds * prompts**2
    sizes = load.sum(axis=0)
    answered = float(sizes @ tokens)
    return round(float(sizes @ seconds) / answered, 6) if answered > 0.0 else 0.0


def _column(frame: Frame, name: str, profile: Profile, grid: Floats, load: Floats) -> PlannedColumn:
    """A column with its strictest promise, of the classes planned there, or of all where none is; and what follows its requests."""
    promised = [frame.promises[n].tpot_seconds for n in range(len(frame.classes)) if grid[n].any()]
    tpot = min(promised or [promise.tpot_seconds for promise in frame.promises])
    steps = profile.steps or StepFigures(
        base_seconds=tpot, request_seconds=0.0, context_seconds=0.0, prompt_seconds=0.0
    )
    planned = grid * load if grid.any() else load
    refill = refill_seconds(frame, steps, planned)
    return PlannedColumn(name=name, steps=steps, tpot_seconds=tpot, refill_seconds=refill)


def same(standing: SizePlan, made: SizePlan, shares: Floats, tolerance: float) -> bool:
    """Whether a plan need not be sent: the same grid, columns and promises, nearly the same steps, and at most `tolerance` of
    the requests of a load of these `shares` would be meant for other columns. Ability is what profiles say, and counts whole.
    """
    if (standing.input_edges, standing.output_edges, standing.blend) != (
        made.input_edges, made.output_edges, made.blend,
    ):  # fmt: skip
        return False
    if [(c.name, c.tpot_seconds) for c in standing.columns] != [
        (c.name, c.tpot_seconds) for c in made.columns
    ]:
        return False
    if [_without_shares(each) for each in standing.classes] != [
        _without_shares(each) for each in made.classes
    ]:
        return False
    if not all(_near(a, b) for a, b in zip(standing.columns, made.columns, strict=True)):
        return False
    return moved(standing, made, shares) <= tolerance


def moved(standing: SizePlan, made: SizePlan, shares: Floats) -> float:
    """Share of the requests of a load that two plans of the same columns mean for different ones."""
    total, size = 0.0, made.cells
    for number, (before, after) in enumerate(zip(standing.classes, made.classes, strict=True)):
        apart = np.abs(np.array(before.shares) - np.array(after.shares)).sum(axis=0) / 2.0
        total += float(apart @ shares[number * size : (number + 1) * size])
    return total


def told(case: Case, frame: Frame, before: SizePlan | None, plan: SizePlan) -> Reason:
    """Where requests go by size from now on, for people: each column's share, and the mean size of what it gets."""
    shares = frame.shares(case.capacity.shape or declared(case.service))
    names = [column.name for column in plan.columns]
    alike = before is not None and before.cells == plan.cells and len(before.classes) == len(plan.classes)
    news = 1.0
    if before is not None and alike and [column.name for column in before.columns] == names:
        news = moved(before, plan, shares)
    return Reason(
        code="SizesRouted", subject=case.service.ref, verdict=Verdict.CHOSEN, choice=described(plan, shares),
        need=quantity("moved", news, "ratio"), have=quantity("columns", len(names), "variants"),
        limit=quantity("sizes", plan.cells, "cells"),
    )  # fmt: skip


def described(plan: SizePlan, shares: Floats) -> str:
    """A plan for a load of these shares in words: `62 % (about 300 + 80) to L4x1-bf16|l4-od, ...`, the largest first."""
    shares = shares / max(float(shares.sum()), 1e-12)
    inputs = np.repeat(np.array(plan.input_edges, dtype=np.float64), len(plan.output_edges))
    outputs = np.tile(np.array(plan.output_edges, dtype=np.float64), len(plan.input_edges))
    parts = []
    for number, column in enumerate(plan.columns):
        weights = sum(
            shares[n * plan.cells : (n + 1) * plan.cells] * np.array(each.shares[number])
            for n, each in enumerate(plan.classes)
        )
        share = float(np.sum(weights))
        if share >= LEAST_TOLD:
            size = f"about {float(np.sum(weights * inputs)) / share:.0f} + {float(np.sum(weights * outputs)) / share:.0f}"
            parts.append((share, f"{share:.0%} ({size}) to {column.name}"))
    return (
        ", ".join(text for _, text in sorted(parts, key=lambda part: (-part[0], part[1])))
        or "wherever there is room"
    )


def _without_shares(each: ClassPlan) -> tuple[object, ...]:
    return each.request_class, each.ttft_seconds, each.tpot_seconds, each.able


def _near(old: PlannedColumn, new: PlannedColumn) -> bool:
    before, after = old.steps, new.steps
    refilled = math.isclose(
        old.refill_seconds, new.refill_seconds, rel_tol=REFILL_TOLERANCE, abs_tol=LEAST_REFILL
    )
    if before.chunk_tokens != after.chunk_tokens or not refilled:
        return False
    names = [name for name in StepFigures.__struct_fields__ if name.endswith("_seconds")]
    return all(
        math.isclose(getattr(before, name), getattr(after, name), rel_tol=STEP_TOLERANCE) for name in names
    )

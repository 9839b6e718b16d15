"""A service as the solver sees it: its usable columns (variant, pool), and why the other variants are out.

Built from beliefs, pools and products alone, not from load or free GPUs; so a frame is kept in scratch
until one of those changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.beliefs import Beliefs, CapacityBelief
from cluster.hardware import Market, Pool
from cluster.reasons import Alternative, Unit
from cluster.serving import Objective, Service, Variant
from cluster.size_plan import StepFigures
from cluster.snapshot import Snapshot
from cluster.targets import LoadShape
from placement.selection.headroom import rho
from policies.draft import quantity
from policies.groups import Groups
from policies.shapes import DEFAULT_EDGES, projected

Floats = NDArray[np.float64]
Edges = tuple[tuple[int, ...], tuple[int, ...]]


class Excluded(NamedTuple):
    """A variant that cannot serve at all: code, and the numbers that decided it in one unit."""

    variant: str
    code: str
    need: float
    have: float
    unit: Unit

    def alternative(self) -> Alternative:
        """The same, as an alternative of a reason."""
        return Alternative(
            choice=self.variant,
            code=self.code,
            facts=(quantity("need", self.need, self.unit), quantity("have", self.have, self.unit)),
        )


class Profile(NamedTuple):
    """A variant that can serve: req/s of one replica per cell (classes one after the other), B, and how long its steps take
    (None: nobody knows).
    """

    variant: Variant
    throughput: Floats
    concurrency: float
    steps: StepFigures | None = None


class Promise(NamedTuple):
    """What a class is promised: most of it on spot, whether it survives the loss of a replica, and its latency."""

    spot_share: float
    survives_loss: bool
    ttft_seconds: float
    tpot_seconds: float


class Column(NamedTuple):
    """A profile bought from a pool. `name` is `variant|pool`, as in `Mix.routing`.

    `risk_dollars` per hour are charged to each replica because its pool is known to take nodes away.
    """

    name: str
    profile: Profile
    pool: str
    dollars_per_hour: float
    spot: bool = False
    risk_dollars: float = 0.0

    def takes(self, quantum: int) -> int:
        """GPUs of one replica, in the frame's quantum."""
        variant = self.profile.variant
        return variant.gpus * variant.milli if quantum > 1 else variant.gpus


class Frame(NamedTuple):
    """Everything about a service's choice but its load and the free GPUs.

    `promises` has one entry a class. Cells are numbered class by class, row-major on `edges`. `fold_to` and `fold_by` move the demand of a
    cell no variant can serve to the nearest smaller one some variant can, by as much work as it means.
    """

    classes: tuple[str, ...]
    edges: Edges
    profiles: dict[str, Profile]
    columns: tuple[Column, ...]
    excluded: tuple[Excluded, ...]
    unserved_dollars: tuple[float, ...]
    fold_to: NDArray[np.int64]
    fold_by: Floats
    promises: tuple[Promise, ...] = ()

    @property
    def quantum(self) -> int:
        """What GPUs are counted in: thousandths where a column has shares, else whole ones."""
        return 1_000 if any(column.profile.variant.shares for column in self.columns) else 1

    @property
    def reference(self) -> Profile | None:
        """The first allowed variant that can serve: the unit that floors, ceilings and `replicas` count in."""
        return next(iter(self.profiles.values()), None)

    def shares(self, shape: LoadShape) -> Floats:
        """Share of the load per cell of the frame; sums to 1 (nothing known: the smallest cell)."""
        source = (shape.input_edges, shape.output_edges)
        size = len(self.edges[0]) * len(self.edges[1])
        parts = [
            projected(shape.cells[name], source, self.edges) if name in shape.cells else np.zeros(size)
            for name in self.classes
        ]
        flat = np.concatenate(parts)
        if flat.sum() <= 0.0:
            flat[0] = 1.0
        folded = np.bincount(self.fold_to, weights=flat * self.fold_by, minlength=len(flat))
        shares: Floats = folded / flat.sum()
        return shares

    def unit_rate(self, profile: Profile, shares: Floats) -> float:
        """Requests/s of this shape that one full replica carries, of those it can carry at all."""
        usable = (profile.throughput > 0.0) & (shares > 0.0)
        work = float((shares[usable] / profile.throughput[usable]).sum())
        return float(shares[usable].sum()) / work if work > 0.0 else 0.0

    def carried_by(self, profile: Profile, units: int, shares: Floats, headroom: bool = True) -> float:
        """Requests/s of this shape that a pool of `units` equal replicas may be planned for."""
        full = rho(np.array([float(units)]), profile.concurrency)[0] if headroom else 1.0
        return units * float(full) * self.unit_rate(profile, shares)


def frame_of(groups: Groups, service: Service, scratch: dict[str, Any]) -> Frame:
    """The service's frame, from scratch while nothing it depends on changed."""
    view = groups.view
    inputs = (service, view.beliefs.capacity, view.pools, view.accelerators)
    memo = scratch.setdefault("frames", {})
    held = memo.get(service.name)
    if held is not None and all(a is b for a, b in zip(held[0], inputs, strict=True)):
        found: Frame = held[1]
        return found
    frame = _build(groups, service)
    memo[service.name] = (inputs, frame)
    return frame


def belief_of(
    beliefs: Beliefs, service: Service, variant: Variant, objective: Objective
) -> CapacityBelief | None:
    """The belief for exactly this image and promise, else for the promise, else for the class whatever is promised."""
    model, name = service.model.name, variant.key
    for promise, image in (
        (objective.key, service.image),
        (objective.key, ""),
        (objective.request_class, ""),
    ):
        found = beliefs.capacity.get(Beliefs.capacity_key(model, name, promise, image))
        if found is not None:
            return found
    return None


def _build(groups: Groups, service: Service) -> Frame:
    view = groups.view
    objectives = tuple(sorted(service.objectives, key=lambda o: o.request_class))
    edges = _edges(view, service, objectives)
    profiles: dict[str, Profile] = {}
    columns: list[Column] = []
    excluded: list[Excluded] = []
    for variant in service.variants:
        if variant.key in profiles or any(e.variant == variant.key for e in excluded):
            continue
        profile = _profile(view, service, variant, objectives, edges)
        if isinstance(profile, Excluded):
            excluded.append(profile)
            continue
        profiles[variant.key] = profile
        bought = [_column(profile, pool) for pool in groups.pools.get(variant.accelerator, [])]
        columns.extend(c for c in bought if isinstance(c, Column))
        excluded.extend(e for e in bought if isinstance(e, Excluded))
        if not bought:
            excluded.append(Excluded(variant.key, "PriceMissing", LEAST_PRICE, 0.0, "$/h"))
    size = len(edges[0]) * len(edges[1])
    fold_to, fold_by = _fold(profiles, edges, len(objectives))
    return Frame(
        classes=tuple(o.request_class for o in objectives),
        edges=edges,
        profiles=profiles,
        columns=tuple(sorted(columns, key=lambda c: c.name)),
        excluded=tuple(excluded),
        unserved_dollars=tuple(max(o.unserved_dollars, 1e-6) for o in objectives for _ in range(size)),
        fold_to=fold_to,
        fold_by=fold_by,
        promises=tuple(
            Promise(o.spot_share, o.survives_loss, o.ttft_seconds, o.tpot_seconds) for o in objectives
        ),
    )


def _edges(view: Snapshot, service: Service, objectives: tuple[Objective, ...]) -> Edges:
    for variant in service.variants:
        for objective in objectives:
            belief = belief_of(view.beliefs, service, variant, objective)
            if belief is not None and not belief.excluded:
                return belief.input_edges, belief.output_edges
    return DEFAULT_EDGES


def _profile(
    view: Snapshot, service: Service, variant: Variant, objectives: tuple[Objective, ...], edges: Edges
) -> Profile | Excluded:
    """The variant's throughput over all classes, or why it has none in any."""
    if variant.accelerator not in view.accelerators:
        return Excluded(variant.key, "UnknownAccelerator", 1, len(view.accelerators), "products")
    parts, refusals, concurrency = [], [], 0.0
    steps: StepFigures | None = None
    size = len(edges[0]) * len(edges[1])
    for objective in objectives:
        belief = belief_of(view.beliefs, service, variant, objective)
        grid, refusal = _grid(variant, belief, edges)
        parts.append(np.zeros(size) if grid is None else grid)
        if belief is not None and grid is not None:
            concurrency = min(concurrency or belief.concurrency, belief.concurrency)
            steps = steps or belief.steps
        if refusal is not None:
            refusals.append(refusal)
    if refusals and len(refusals) == len(objectives):
        return refusals[0]
    throughput = np.concatenate(parts) if parts else np.zeros(0)
    throughput.flags.writeable = False
    if not throughput.any():
        return Excluded(variant.key, "ProfileHole", 1, 0, "cells")
    return Profile(variant, throughput, max(concurrency, 1e-3), steps)


def _grid(
    variant: Variant, belief: CapacityBelief | None, edges: Edges
) -> tuple[Floats | None, Excluded | None]:
    if belief is None:
        return None, Excluded(variant.key, "ProfileHole", 1, 0, "cells")
    if belief.excluded:
        unit: Any = belief.unit or "ratio"
        return None, Excluded(variant.key, belief.excluded, belief.need, belief.have, unit)
    if (belief.input_edges, belief.output_edges) != edges or len(belief.grid) != len(edges[0]) * len(
        edges[1]
    ):
        return None, Excluded(
            variant.key, "ProfileHole", len(edges[0]) * len(edges[1]), len(belief.grid), "cells"
        )
    # Planned at the pessimistic end of the band (research: gpu-selection §5.1).
    grid = np.asarray(belief.grid, dtype=np.float64) * max(0.0, 1.0 - belief.error)
    return np.maximum(grid, 0.0), None


def _column(profile: Profile, pool: Pool) -> Column | Excluded:
    variant = profile.variant
    if pool.dollars_per_gpu_hour <= 0.0:
        return Excluded(
            f"{variant.key}|{pool.name}", "PriceMissing", LEAST_PRICE, pool.dollars_per_gpu_hour, "$/h"
        )
    name = f"{variant.key}|{pool.name}"
    dollars = pool.dollars_per_gpu_hour * variant.gpu_share
    risk = dollars * pool.reclaim_per_hour * RECLAIM_SECONDS / 3_600.0
    return Column(name, profile, pool.name, dollars, pool.market is Market.SPOT, risk)


LEAST_PRICE = 0.01
"""Dollars an hour that a GPU is told to need at least: any price above 0 is taken."""

RECLAIM_SECONDS = 600.0
"""What the loss of a replica to its pool costs, in seconds of its price: its successor is paid for while it starts, as
long as a start is charged for (research: gpu-selection §2.6)."""


def _fold(profiles: dict[str, Profile], edges: Edges, classes: int) -> tuple[NDArray[np.int64], Floats]:
    """Where the demand of cells nobody can serve in time is counted instead: it must be served, if late."""
    rows, columns = len(edges[0]), len(edges[1])
    size = rows * columns
    to, by = np.arange(size * classes), np.ones(size * classes)
    able = np.zeros(size * classes, dtype=np.bool_)
    for profile in profiles.values():
        able |= profile.throughput > 0.0
    for cell in np.flatnonzero(~able).tolist():
        base, (row, column) = cell - cell % size, divmod(cell % size, columns)
        near = [
            (abs(row - r) + abs(column - c), base + r * columns + c, edges[0][r] + edges[1][c])
            for r in range(rows)
            for c in range(columns)
            if able[base + r * columns + c]
        ]
        if near:
            _, target, tokens = min(near)
            to[cell], by[cell] = target, max(1.0, (edges[0][row] + edges[1][column]) / tokens)
    return to, by

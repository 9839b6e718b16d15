"""From measured load and capacity beliefs to the selection problem of one service."""

from __future__ import annotations

from typing import cast, get_args

import numpy as np

from cluster.base import Noun
from cluster.beliefs import CapacityBelief
from cluster.reasons import Unit
from cluster.serving import LoadHistogram, Variant
from placement.profiles.grid import routable
from placement.selection.problem import (
    MixProblem,
    Rejection,
    SelectionInputError,
    VariantOption,
    rejection,
)


class Offered(Noun, kw_only=True, frozen=True):
    """A variant in a pool, with one capacity belief per class of the load, in the classes' order."""

    variant: Variant
    pool: str
    dollars_per_gpu_hour: float
    beliefs: tuple[CapacityBelief, ...]
    min_units: int = 0
    max_units: int | None = None

    @property
    def name(self) -> str:
        """Name of the column: variant and pool."""
        return f"{self.variant.key}@{self.pool}"


def assemble(
    loads: tuple[LoadHistogram, ...],
    offered: tuple[Offered, ...],
    inventory: dict[str, int | None],
    unserved_dollars: tuple[float, ...],
    headroom: bool = True,
    min_units: int = 0,
    max_units: int | None = None,
) -> MixProblem:
    """The selection problem of a service with one histogram and one price of unserved load per class.

    Cells of all classes stand one after another. Each belief's grid is reduced by its error band (planned at the
    pessimistic end) and by the cells that are not routable. A variant excluded for every class becomes a rejection.
    SelectionInputError when the numbers of classes, or the grids of load and belief, do not match.
    """
    if not loads or len(loads) != len(unserved_dollars):
        raise SelectionInputError(
            f"{len(loads)} load histograms and {len(unserved_dollars)} prices; give one of each per request class"
        )
    usable = [each for each in offered if not all(belief.excluded for belief in each.beliefs)]
    excluded = [_exclusion(each) for each in offered if all(belief.excluded for belief in each.beliefs)]
    prices = [price for load, price in zip(loads, unserved_dollars, strict=True) for _ in load.cells]
    return MixProblem(
        demand=tuple(cell for load in loads for cell in load.cells),
        variants=tuple(_option(each, loads) for each in usable),
        inventory=inventory,
        unserved_dollars=max(unserved_dollars),
        cell_unserved_dollars=tuple(prices),
        headroom=headroom,
        min_units=min_units,
        max_units=max_units,
        excluded=tuple(excluded),
    )


def _option(offered: Offered, loads: tuple[LoadHistogram, ...]) -> VariantOption:
    if len(offered.beliefs) != len(loads):
        raise SelectionInputError(
            f"{offered.name} has {len(offered.beliefs)} capacity beliefs for {len(loads)} request classes; give one each"
        )
    throughput: list[float] = []
    for belief, load in zip(offered.beliefs, loads, strict=True):
        throughput.extend(_throughput(offered.name, belief, load))
    return VariantOption(
        name=offered.name,
        pool=offered.pool,
        gpus=offered.variant.gpus,
        dollars_per_hour=offered.dollars_per_gpu_hour * offered.variant.gpus,
        throughput=tuple(throughput),
        concurrency=min(belief.concurrency for belief in offered.beliefs),
        min_units=offered.min_units,
        max_units=offered.max_units,
    )


def _throughput(name: str, belief: CapacityBelief, load: LoadHistogram) -> list[float]:
    """Requests per second per cell at the pessimistic end of the band, 0 where the cell is not routable."""
    if (belief.input_edges, belief.output_edges) != (load.input_edges, load.output_edges):
        raise SelectionInputError(
            f"the belief about {name} and the load of class {load.request_class!r} are on different grids; "
            "compute the belief on the histogram's edges"
        )
    shape = (len(load.input_edges), len(load.output_edges))
    if len(belief.grid) != shape[0] * shape[1] or len(load.cells) != shape[0] * shape[1]:
        raise SelectionInputError(
            f"the belief about {name} has {len(belief.grid)} cells and the load {len(load.cells)}; "
            f"the grid has {shape[0]} x {shape[1]}, row-major by input"
        )
    grid = np.array(belief.grid, dtype=np.float64).reshape(shape) * max(0.0, 1.0 - belief.error)
    cells = np.array(load.cells, dtype=np.float64).reshape(shape)
    kept = np.where(routable(cells, grid) | ~(grid >= 0.0), grid, 0.0)  # NaN stays, to be refused by name
    return cast("list[float]", kept.ravel().tolist())


def _exclusion(offered: Offered) -> Rejection:
    belief = offered.beliefs[0]
    unit = cast("Unit", belief.unit) if belief.unit in get_args(Unit) else "ratio"
    text = f"{offered.name} is excluded ({belief.excluded}): {belief.need:.4g} {unit} against {belief.have:.4g} {unit}"
    return rejection(offered.name, belief.excluded, belief.need, belief.have, unit, text)

"""The master programme of the joint problem: which known mix each model gets, within what all share.

    minimise    sum_k cost_k lambda_k + sum_p node_dollars_p N_p
    subject to  sum over a model's mixes of lambda = 1;   sum_k usage_kr lambda_k (- node size N) <= limit_r

Relaxed, its duals price resources and models; with whole lambda and N it is the best plan of the known mixes. One
thread, fixed seed.
"""

from __future__ import annotations

import highspy
import msgspec
import numpy as np

from placement.selection.fleet import NodeOffer
from placement.selection.instance import Floats
from placement.selection.linear import SolverError
from placement.selection.oracle import Resources

_INFINITY = highspy.kHighsInf


class Column(msgspec.Struct, frozen=True):
    """A mix of a model: counts, cost without resources' prices, and usage [r]."""

    model: int
    counts: tuple[int, ...]
    cost: float
    usage: Floats


class Relaxed(msgspec.Struct, frozen=True):
    """Optimum of the relaxed master: value, prices of resources (>= 0) [r] and models [m], share of each column."""

    value: float
    prices: Floats
    models: Floats
    shares: Floats


class Master:
    """Grows by columns; fixing columns keeps the basis."""

    def __init__(
        self, models: int, resources: Resources, nodes: dict[str, NodeOffer], money_unit: float = 1.0
    ) -> None:
        self._unit = money_unit
        self._models, self._resources, self._nodes = models, resources, nodes
        self.columns: list[Column] = []
        self._number: dict[tuple[int, tuple[int, ...]], int] = {}
        self._highs = _solver()
        for _ in range(models):
            self._highs.addRow(1.0, 1.0, 0, np.zeros(0, dtype=np.int32), np.zeros(0))
        for limit in self._right_sides().tolist():
            self._highs.addRow(-_INFINITY, limit, 0, np.zeros(0, dtype=np.int32), np.zeros(0))
        self._first = self._add_nodes(self._highs)
        self.solved = 0

    def _right_sides(self) -> Floats:
        by_node = np.array([name.startswith("nodes/") for name in self._resources.names], dtype=np.bool_)
        return np.where(by_node, 0.0, self._resources.limits) if len(by_node) else np.zeros(0)

    def _add_nodes(self, highs: highspy.Highs) -> int:
        """Columns of nodes to be bought; how many there are."""
        for pool, offer in sorted(self._nodes.items()):
            row = self._models + self._resources.names.index("nodes/" + pool)
            free = self._resources.by_pool().get(pool)
            most = _INFINITY if free is None else float(free // offer.gpus)
            highs.addCol(
                offer.dollars_per_hour / self._unit,
                0.0,
                most,
                1,
                np.array([row], dtype=np.int32),
                np.array([-float(offer.gpus)]),
            )
        return len(self._nodes)

    def add(self, column: Column) -> bool:
        """Adds a mix that is not there yet; whether it was new."""
        key = (column.model, column.counts)
        if key in self._number:
            return False
        self._number[key] = len(self.columns)
        self.columns.append(column)
        rows, values = self._entries(column)
        self._highs.addCol(column.cost / self._unit, 0.0, _INFINITY, len(rows), rows, values)
        return True

    def _entries(self, column: Column) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], Floats]:
        used = np.flatnonzero(column.usage)
        rows = np.concatenate([[column.model], self._models + used]).astype(np.int32)
        return rows, np.concatenate([[1.0], column.usage[used]])

    def relaxed(self) -> Relaxed | None:
        """The optimum with fractional shares; None when what is fixed leaves none."""
        self.solved += 1
        self._highs.run()
        status = self._highs.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return None
        if status != highspy.HighsModelStatus.kOptimal:
            text = self._highs.modelStatusToString(status)
            raise SolverError(f"HiGHS ended with {text} on a master programme of {len(self.columns)} mixes")
        solution = self._highs.getSolution()
        duals = np.array(solution.row_dual)
        return Relaxed(
            value=self._unit * self._highs.getInfo().objective_function_value,
            prices=self._unit * np.maximum(0.0, -duals[self._models :]),
            models=self._unit * duals[: self._models],
            shares=np.array(solution.col_value)[self._first :],
        )

    def fix(self, number: int) -> None:
        """Takes a column into the plan."""
        self._highs.changeColBounds(self._first + number, 1.0, 1.0)

    def free(self, number: int) -> None:
        """Lets go of a column that was fixed."""
        self._highs.changeColBounds(self._first + number, 0.0, _INFINITY)

    def whole(self, numbers: list[int], most_nodes: int, cutoff: float) -> tuple[list[int], bool] | None:
        """The best plan of some columns, as column numbers (one a model), and whether that is proven.

        None when none below ``cutoff`` was found within ``most_nodes`` nodes of the search.
        """
        highs = _solver()
        highs.setOptionValue("presolve", "on")
        highs.setOptionValue("mip_rel_gap", 0.0)
        highs.setOptionValue("mip_abs_gap", 1e-7)
        highs.setOptionValue("mip_max_nodes", most_nodes)
        highs.setOptionValue("objective_bound", cutoff / self._unit)
        for _ in range(self._models):
            highs.addRow(1.0, 1.0, 0, np.zeros(0, dtype=np.int32), np.zeros(0))
        for limit in self._right_sides().tolist():
            highs.addRow(-_INFINITY, limit, 0, np.zeros(0, dtype=np.int32), np.zeros(0))
        self._add_nodes(highs)
        for number in numbers:
            rows, values = self._entries(self.columns[number])
            highs.addCol(self.columns[number].cost / self._unit, 0.0, 1.0, len(rows), rows, values)
        for k in range(self._first + len(numbers)):
            highs.changeColIntegrality(k, highspy.HighsVarType.kInteger)
        highs.run()
        done = highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        values = np.array(highs.getSolution().col_value)
        if len(values) != self._first + len(numbers) or not np.isfinite(
            highs.getInfo().objective_function_value
        ):
            return None
        chosen = [number for k, number in enumerate(numbers, start=self._first) if values[k] > 0.5]
        return (chosen, done) if len(chosen) == self._models else None


def _solver() -> highspy.Highs:
    highs = highspy.Highs()  # type: ignore[no-untyped-call] # HiGHS types everything but this
    for name, value in _OPTIONS.items():
        highs.setOptionValue(name, value)
    return highs


_OPTIONS: dict[str, bool | int | float | str] = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 0,
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}

"""The linear programme under the selection: routing for a box of count vectors, solved by HiGHS.

    minimise    sum_v cost_v n_v + sum_b penalty_b u_b
    subject to  sum_v x_bv + u_b = 1                                          each cell is served or left
                sum_b load_bv x_bv <= chord of Cap_v over [low_v, high_v]     each variant's capacity
                sum_{b in class, v spot} rate_b x_bv <= share_limit               each class's share on spot
                side @ n <= side_limit,   low <= n <= high,   x, u >= 0
    and startup_v s_v in the objective with n_v - s_v <= standing_v, s >= 0.

Cap is convex, so its chord over the box lies above it: the value bounds every count vector in the box from below,
and is exact when the box is a single one. One thread, fixed seed, dual simplex from the last basis.
"""

from __future__ import annotations

import highspy
import msgspec
import numpy as np
from scipy.sparse import csc_matrix

from placement.selection.instance import Floats, Instance, Ints

_INFINITY = highspy.kHighsInf

MOST_PENALTY = 1e7
"""Dearest unserved cell that a programme counts in the instance's money unit: beyond some 1e8 HiGHS finds no answer."""


class BoxAnswer(msgspec.Struct, frozen=True):
    """Value of the programme with the multipliers (>= 0) of capacities [v], side constraints [q], spot shares [s]."""

    value: float
    prices: Floats
    side_prices: Floats
    share_prices: Floats
    counts: Floats
    used: Floats


class Routing(msgspec.Struct, frozen=True):
    """Shares [b, v] of each cell's demand, unserved shares [b], and the fill of the fullest variant."""

    shares: Floats
    unserved: Floats
    fill: float


class SolverError(RuntimeError):
    """HiGHS ended without an answer to a programme that has one."""


class BoxProgramme:
    """The programme of one instance; successive calls restart from each other's basis."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        cells, variants = instance.load.shape
        self._cells, self._variants, self._sides = cells, variants, len(instance.side_limit)
        self._row_of_cell, self._row_of_variant = np.nonzero(np.isfinite(instance.load))
        self._shares = slice(variants + cells + 1, variants + cells + 1 + len(self._row_of_cell))
        self._charged = np.flatnonzero(instance.startup > 0.0)
        self._unit = max(instance.money_unit, float(instance.penalty.max(initial=0.0)) / MOST_PENALTY)
        self._highs = highspy.Highs()  # type: ignore[no-untyped-call] # HiGHS types everything but this
        for name, value in _OPTIONS.items():
            self._highs.setOptionValue(name, value)
        self._highs.passModel(self._model())
        self.solved = 0

    def _model(self) -> highspy.HighsLp:
        """Columns n, u, fill, x, s; rows cells, capacities, side constraints, spot shares, starts."""
        instance, cells, variants = self._instance, self._cells, self._variants
        charged, limited = self._charged, len(instance.share_limit)
        shares = len(self._row_of_cell)
        columns = variants + cells + 1 + shares + len(charged)
        above = variants + self._sides + limited + len(charged)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = columns, cells + above
        model.col_cost_ = (
            np.concatenate([instance.cost, instance.penalty, np.zeros(1 + shares), instance.startup[charged]])
            / self._unit
        )
        model.col_lower_ = np.zeros(columns)
        upper = np.full(columns, _INFINITY)
        upper[variants + cells] = 0.0
        model.col_upper_ = upper
        model.row_lower_ = np.concatenate([np.ones(cells), np.full(above, -_INFINITY)])
        standing = instance.standing[charged].astype(np.float64)
        model.row_upper_ = np.concatenate(
            [np.ones(cells), np.zeros(variants), instance.side_limit, instance.share_limit, standing]
        )
        matrix = self._matrix(cells + above, columns)
        model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        model.a_matrix_.start_ = matrix.indptr
        model.a_matrix_.index_, model.a_matrix_.value_ = matrix.indices, matrix.data
        return model

    def _matrix(self, rows: int, columns: int) -> csc_matrix:
        """All coefficients; entries that are zero now but may change (slopes) are kept."""
        instance, cells, variants = self._instance, self._cells, self._variants
        b, v, charged = self._row_of_cell, self._row_of_variant, self._charged
        first = variants + cells + 1
        x = first + np.arange(len(b))
        side_row, side_column = np.nonzero(instance.side)
        class_row, entry = np.nonzero(instance.share_rates[:, b] * instance.spot[v])
        side, share = cells + variants, cells + variants + self._sides
        start, last = share + len(instance.share_limit), first + len(b)
        ones, number = np.ones, np.arange
        parts: list[tuple[Ints, Ints, Floats]] = [
            (cells + number(variants), number(variants), -ones(variants)),
            (number(cells), variants + number(cells), ones(cells)),
            (cells + number(variants), np.full(variants, variants + cells), -ones(variants)),
            (b, x, ones(len(b))),
            (cells + v, x, instance.load[b, v]),
            (side + side_row, side_column, instance.side[side_row, side_column]),
            (share + class_row, x[entry], instance.share_rates[class_row, b[entry]]),
            (start + number(len(charged)), charged, ones(len(charged))),
            (start + number(len(charged)), last + number(len(charged)), -ones(len(charged))),
        ]
        row, column, value = (np.concatenate(each) for each in zip(*parts, strict=True))
        return csc_matrix((value, (row, column)), shape=(rows, columns))

    def charge(self, instance: Instance) -> None:
        """Takes over the prices and side limits of an instance that is otherwise the same."""
        self._instance = instance
        for v, dollars in enumerate(instance.cost.tolist()):
            self._highs.changeColCost(v, dollars / self._unit)
        for q, limit in enumerate(instance.side_limit.tolist()):
            self._highs.changeRowBounds(self._cells + self._variants + q, -_INFINITY, limit)

    def solve(self, low: Ints, high: Ints) -> BoxAnswer | None:
        """Value over the box of count vectors ``low <= n <= high``; None when no point keeps the side constraints."""
        for v, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            table = self._instance.capacity[v]
            at_least, at_most = float(table[least]), float(table[most])
            slope = (at_most - at_least) / (most - least) if most > least else 0.0
            row = self._cells + v
            self._highs.changeCoeff(row, v, -slope)
            self._highs.changeRowBounds(row, -_INFINITY, at_least - slope * least)
            self._highs.changeColBounds(v, least, most)
        if not self._run():
            return None
        solution = self._highs.getSolution()
        duals = np.array(solution.row_dual)
        capacities = slice(self._cells, self._cells + self._variants)
        sides = slice(capacities.stop, capacities.stop + self._sides)
        counts = np.array(solution.col_value[: self._variants])
        used = self._loads(np.array(solution.col_value))
        unit = self._unit
        return BoxAnswer(
            value=unit * self._highs.getInfo().objective_function_value,
            prices=unit * np.maximum(0.0, -duals[capacities]),
            side_prices=unit * np.maximum(0.0, -duals[sides]),
            share_prices=unit
            * np.maximum(0.0, -duals[sides.stop : sides.stop + len(self._instance.share_limit)]),
            counts=counts,
            used=used,
        )

    def routing(self, counts: Ints) -> Routing:
        """Routing of one count vector: least unserved demand first, then the fullest variant as empty as possible."""
        answer = self.solve(counts, counts)
        if answer is None:
            raise SolverError(f"count vector {counts.tolist()} does not keep the side constraints")
        columns = np.array(self._highs.getSolution().col_value)
        unserved = columns[self._variants : self._variants + self._cells]
        fill = 1.0
        if float(unserved.sum()) <= 1e-9:
            columns = self._balance(counts)
            fill = float(columns[self._variants + self._cells])
        shares = np.zeros((self._cells, self._variants))
        shares[self._row_of_cell, self._row_of_variant] = columns[self._shares]
        return Routing(shares=shares, unserved=unserved, fill=fill)

    def _balance(self, counts: Ints) -> Floats:
        """Columns that minimise the fill of the fullest variant at fixed counts with nothing unserved."""
        fill_column = self._variants + self._cells
        for v, capacity in enumerate(self._instance.capacity_of(counts).tolist()):
            self._highs.changeCoeff(self._cells + v, fill_column, -capacity)
            self._highs.changeRowBounds(self._cells + v, -_INFINITY, 0.0)
        for b in range(self._cells):
            self._highs.changeColBounds(self._variants + b, 0.0, 0.0)
        self._highs.changeColBounds(fill_column, 0.0, _INFINITY)
        self._highs.changeColCost(fill_column, 1.0)
        if not self._run():
            raise SolverError("balancing a feasible plan found no routing; the load figures are badly scaled")
        columns = np.array(self._highs.getSolution().col_value)
        for v in range(self._variants):
            self._highs.changeCoeff(self._cells + v, fill_column, -1.0)
        for b in range(self._cells):
            self._highs.changeColBounds(self._variants + b, 0.0, _INFINITY)
        self._highs.changeColBounds(fill_column, 0.0, 0.0)
        self._highs.changeColCost(fill_column, 0.0)
        return columns

    def _loads(self, columns: Floats) -> Floats:
        shares = columns[self._shares]
        loads = self._instance.load[self._row_of_cell, self._row_of_variant] * shares
        used: Floats = np.bincount(self._row_of_variant, weights=loads, minlength=self._variants).astype(
            np.float64
        )
        return used

    def _run(self) -> bool:
        self.solved += 1
        self._highs.run()
        status = self._highs.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            return True
        if status == highspy.HighsModelStatus.kInfeasible:
            return False
        self._highs.clearSolver()
        self._highs.run()
        if self._highs.getModelStatus() == highspy.HighsModelStatus.kOptimal:
            return True
        raise SolverError(
            f"HiGHS ended with {self._highs.modelStatusToString(status)} on a routing programme of {self._cells} "
            f"cells and {self._variants} variants; look for throughputs that differ by many orders of magnitude"
        )


_OPTIONS: dict[str, bool | int | float | str] = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 0,
    "presolve": "off",
    "solver": "simplex",
    "simplex_strategy": 1,
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}

"""Profiles: error of the predicted time per output token on measured silicon, before and after twenty online samples.

Leave one GPU out: the constants are fitted on the rows of the other GPU products in the files and predict every row of the
one left out (`zero_shot`); then twenty of its rows, drawn at random, are learned as live samples are, and the others are
predicted again (`after20`, twenty draws; a product with fewer than forty rows gives half of them). A folder with one product
only, whatever its systems are called, is predicted from the published constants. Errors are |predicted - measured| / measured; medians are over all rows (and
draws) of all products, and by product. `within` is the share of rows whose error is inside one and two standard deviations of the
band that was told with the prediction (a sample's own noise included); an honest band has 68 and 95 %. Data (`--data DIR`): DIR/measured_silicon_*.csv.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.base import Arguments, Result, Row, at_most, data_folder
from benchmarks.silicon import Measured, Table, grouped, read
from placement.profiles.calibration import NOISE, Calibration, Samples, fitted, observed, predict
from placement.profiles.figures import OPEN

Floats = NDArray[np.float64]

SAMPLES, DRAWS = 20, 20
GOAL_ZERO_SHOT, GOAL_ONLINE, GOAL_SKIPPED = 15.0, 6.0, 0.05


class Judged(NamedTuple):
    """Relative errors of rows, and the same in standard deviations of the band told with each prediction, noise included."""

    errors: Floats
    deviations: Floats

    def within(self, deviations: float) -> float:
        """Share of rows inside so many deviations."""
        return float(np.mean(self.deviations <= deviations)) if len(self.deviations) else 0.0


class LeftOut(NamedTuple):
    """What became of one product: each row before, and each scored row and draw after; errors per deployment before."""

    before: Judged
    after: Judged
    families: dict[str, Floats]


def run(args: Arguments) -> Result:
    """Fits, leaves out, learns, judges. Raises: BenchmarkError when the data is not there or cannot be read."""
    table = read(data_folder(args, "gpu-selection"))
    draws = 3 if args.quick else DRAWS
    systems = sorted({row.system for row in table.rows})
    found = {system: _leave_out(table.rows, system, draws, args.seed) for system in systems}
    all_before = _joined([each.before for each in found.values()])
    all_after = _joined([each.after for each in found.values()])
    before, after = _median(all_before.errors), _median(all_after.errors)
    skipped = sum(table.skipped.values())
    rows = [
        at_most("zero-shot error, median", 100.0 * before, GOAL_ZERO_SHOT, "%"),
        at_most(f"after {SAMPLES} online samples, median", 100.0 * after, GOAL_ONLINE, "%"),
        at_most("rows skipped", 100.0 * skipped / max(1, table.total), 100.0 * GOAL_SKIPPED, "%"),
        _coverage("zero-shot", all_before),
        _coverage(f"after {SAMPLES} samples", all_after),
    ]
    for system, each in found.items():
        rows += _told(system, each)
    return Result(
        rows=tuple(rows),
        figures={
            "zero_shot_median": round(100.0 * before, 3),
            "after20_median": round(100.0 * after, 3),
            "rows": len(table.rows),
            "skipped": table.skipped,
            "by_system": {
                system: {
                    "zero_shot": round(100.0 * _median(each.before.errors), 3),
                    "after20": round(100.0 * _median(each.after.errors), 3),
                    "rows": len(each.before.errors),
                }
                for system, each in found.items()
            },
        },
        remark=_remark(table, systems),
    )


def _leave_out(rows: tuple[Measured, ...], system: str, draws: int, seed: int) -> LeftOut:
    own = [row for row in rows if row.system == system]
    left = {row.deployment.gpu.name for row in own}
    zero = fitted(OPEN, grouped([row for row in rows if row.deployment.gpu.name not in left]))
    families: dict[str, list[Judged]] = {}
    for samples in grouped(own):
        one = samples.deployment
        name = f"{one.model.name} {one.precision}, {one.engine} {one.release}".strip()
        families.setdefault(name, []).append(_judged(zero, [samples]))
    after = []
    take = min(SAMPLES, len(own) // 2)
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(own))
        learned = observed(zero, grouped([own[at] for at in order[:take]]))
        after.append(_judged(learned, grouped([own[at] for at in order[take:]])))
    return LeftOut(
        _joined([each for group in families.values() for each in group]),
        _joined(after),
        {name: _joined(group).errors for name, group in families.items()},
    )


def _judged(calibration: Calibration, measured: list[Samples]) -> Judged:
    parts = []
    for each in measured:
        found = predict(calibration, each.deployment, each.batch, each.inputs, each.outputs)
        away = np.abs(np.log(found.seconds / each.seconds)) / np.hypot(found.spread, NOISE)
        parts.append(Judged(np.abs(found.seconds / each.seconds - 1.0), away))
    return _joined(parts)


def _joined(parts: list[Judged]) -> Judged:
    if not parts:
        return Judged(np.zeros(0), np.zeros(0))
    return Judged(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _coverage(told: str, judged: Judged) -> Row:
    text = f"{100 * judged.within(1.0):.0f} % / {100 * judged.within(2.0):.0f} %"
    return Row(f"{told}, rows within one / two deviations", text)


def _told(system: str, each: LeftOut) -> list[Row]:
    text = f"{100 * _median(each.before.errors):.1f} % → {100 * _median(each.after.errors):.1f} %"
    families = sorted(each.families.items())
    return [
        Row(f"{system}, {len(each.before.errors)} rows", text),
        *(Row(f"  {family}, {len(errors)}", f"{100 * _median(errors):.1f} %") for family, errors in families),
    ]


def _median(errors: Floats) -> float:
    return float(np.median(errors)) if len(errors) else 0.0


def _remark(table: Table, systems: list[str]) -> str:
    told = []
    if len({row.deployment.gpu.name for row in table.rows}) == 1:
        told.append(
            f"{', '.join(systems)} is the only GPU system of the data, so none is left to learn from: zero-shot is by the round figures that "
            "calibrations start from; add rows of another system to leave one out."
        )
    told += [f"skipped ({reason}), e.g. {example}" for reason, example in table.examples.items()]
    if table.guessed:
        told.append(f"shapes guessed from the size in the name: {', '.join(table.guessed)}")
    return "\n".join(told)

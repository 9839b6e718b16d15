"""What running engines taught, as it outlives a leader: a bounded row of the ledger, checked before it is believed again.

Kept are the effects' posterior (`placement.profiles.calibration`) and how many live samples each deployment gave. Not kept are windows
that were open and samples of the last half minute: they come again. What does not fit is told and dropped; the next leader then
learns anew, which costs money for a while and never correctness.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from placement.profiles.calibration import Calibration
from placement.profiles.effects import is_offset, prior_of
from placement.profiles.figures import StepConstants

SCHEMA = 1
"""Of `Learned`; a row of another one is dropped."""

MOST_EFFECTS = 512
"""Effects kept at most, of some fifty deployments: their covariance has 131,328 numbers, 1.4 MB of the ledger."""


class Learned(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The posterior of a calibration: `triangle` is the lower triangle of its covariance, row by row; and samples by deployment.

    `silicon`: it was learned of real GPUs.
    """

    schema: int = SCHEMA
    silicon: bool
    constants: StepConstants
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    triangle: NDArray[Any]
    widths: dict[str, float] = {}
    samples: int = 0
    live: dict[str, int] = {}


def learned_of(calibration: Calibration, live: dict[str, int], silicon: bool) -> Learned:
    """What is kept of a calibration."""
    return Learned(
        silicon=silicon,
        constants=calibration.constants,
        names=calibration.names,
        mean=calibration.mean,
        triangle=calibration.matrix()[np.tril_indices(len(calibration.names))],
        widths=calibration.widths,
        samples=calibration.samples,
        live=live,
    )


def calibration_of(learned: Learned, constants: StepConstants, silicon: bool) -> Calibration:
    """The calibration that was kept. Raises ValueError with the reason when it cannot be believed here."""
    if learned.silicon != silicon:
        there, here = ("real", "simulated") if learned.silicon else ("simulated", "real")
        raise ValueError(f"it was learned of {there} GPUs, and these are {here}")
    if learned.constants != constants:
        raise ValueError("it was learned above other constants than this version ships")
    count = len(learned.names)
    size = count * (count + 1) // 2
    if len(learned.mean) != count or learned.triangle.shape != (size,) or count > MOST_EFFECTS:
        raise ValueError(
            f"{count} effects (of {MOST_EFFECTS} at most) have {len(learned.mean)} means and {learned.triangle.size} of {size} covariances"
        )
    if learned.triangle.dtype.kind != "f":
        raise ValueError(f"its covariance is of {learned.triangle.dtype}, not of numbers")
    covariance = np.zeros((count, count))
    covariance[np.tril_indices(count)] = learned.triangle
    covariance += np.tril(covariance, -1).T
    numbers = np.concatenate(
        [covariance.ravel(), learned.mean, [*learned.widths.values(), *learned.live.values()]]
    )
    if not np.isfinite(numbers).all() or any(each < 0 for each in learned.live.values()):
        raise ValueError("a number in it is not finite, or a count is negative")
    if len(set(learned.names)) < count or not all(map(_understood, learned.names)):
        raise ValueError("an effect in it is named twice, or this version knows none of that name")
    if any(width <= 0.0 for width in learned.widths.values()):
        raise ValueError("a width in it is none: effects would be known before anything was seen")
    if count and not _proper(covariance):
        raise ValueError("its covariance is none: some effect would be known better than exactly")
    return Calibration(
        constants=constants,
        names=learned.names,
        mean=learned.mean,
        covariance=tuple(covariance.ravel().tolist()),
        samples=learned.samples,
        widths=learned.widths,
    )


def _understood(name: str) -> bool:
    try:
        return prior_of(name) > 0.0
    except KeyError:
        return False


def _proper(covariance: NDArray[np.float64]) -> bool:
    try:
        np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return False
    return True


def bounded(calibration: Calibration, used: Collection[str], most: int = MOST_EFFECTS) -> Calibration:
    """With at most so many effects: those of deployments that are no more go first, then the oldest that only one has.

    ``used`` are offsets and levels of the deployments there are (`Deployment.offsets`, `Deployment.levels`).
    An effect that is dropped is as if it had never been seen: the others' posterior, without it, is the same.
    """
    excess = len(calibration.names) - most
    if excess <= 0:
        return calibration
    scopes = {name.partition("@")[2] or name for name in used}
    ranks = [
        ("@" not in name, name.partition("@")[2] in scopes, not is_offset(name)) for name in calibration.names
    ]
    going = set(sorted(range(len(ranks)), key=lambda row: (ranks[row], row))[:excess])
    rows = [row for row in range(len(ranks)) if row not in going]
    return msgspec.structs.replace(
        calibration,
        names=tuple(calibration.names[row] for row in rows),
        mean=tuple(calibration.mean[row] for row in rows),
        covariance=tuple(calibration.matrix()[np.ix_(rows, rows)].ravel().tolist()),
    )


def counted(
    live: dict[str, int], more: dict[str, int], current: Collection[str], most: int = MOST_EFFECTS
) -> dict[str, int]:
    """Samples by deployment after more of them; of deployments that are no more only as many as there is room for."""
    found = {name: live.get(name, 0) + more.get(name, 0) for name in [*live, *more]}
    past = [name for name in found if name not in current][: max(0, len(found) - most)]
    return {name: number for name, number in found.items() if name not in past}

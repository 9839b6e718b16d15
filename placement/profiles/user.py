"""Measured profiles that users bring: throughput over request sizes under a promise, checked, and read on any grid.

A cell is requests per second of one replica; 0 means that the size cannot be served in time, None that nobody measured it. Between
sizes the load (1 / throughput) is interpolated; never across a size that is infeasible, never beyond the last size.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from cluster.base import Noun
from placement.profiles.grid import Floats, Grid, GridError, check_profile, hat_weights


class ProfileError(ValueError):
    """A profile cannot be used; each sentence names file, place in it, and remedy."""

    def __init__(self, sentences: tuple[str, ...]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class UserProfile(Noun, kw_only=True, frozen=True):
    """Throughput of one replica of a model on a product: `rates` has a row for each input size.

    `tpot_seconds` and `ttft_seconds` are the promise it was measured under (0: none named, it stands for every promise). `error`
    is the relative half-width of its band. Empty `precision` and `engine` match any.
    """

    model: str
    accelerator: str
    gpus: int = 1
    precision: str = ""
    engine: str = ""
    tpot_seconds: float = 0.0
    ttft_seconds: float = 0.0
    input_edges: tuple[int, ...]
    output_edges: tuple[int, ...]
    rates: tuple[tuple[float | None, ...], ...]
    error: float = 0.1
    measured_at: str = ""
    source: str = ""

    @property
    def grid(self) -> Grid:
        """The sizes it was measured at."""
        return Grid(self.input_edges, self.output_edges)

    @property
    def key(self) -> str:
        """What it is of, for sentences."""
        return f"{self.model} on {self.gpus} x {self.accelerator}"

    def table(self) -> Floats:
        """Rates [inputs x outputs], NaN where nobody measured."""
        return np.array([[math.nan if rate is None else rate for rate in row] for row in self.rates])

    def stands_for(self, tpot_seconds: float, ttft_seconds: float) -> bool:
        """Whether what it carries keeps this promise: it was measured under the same or a tighter one."""
        slack = 1.0 + 1e-9
        return self.tpot_seconds <= tpot_seconds * slack and self.ttft_seconds <= ttft_seconds * slack


def checked(profile: UserProfile) -> tuple[str, ...]:
    """Sentences about what is odd but can be lived with. Raises ProfileError with all that cannot."""
    where = profile.source or profile.key
    faults = _field_faults(profile, where)
    widths = {len(row) for row in profile.rates}
    if len(widths) > 1:
        at = next(n for n, row in enumerate(profile.rates) if len(row) != len(profile.rates[0]))
        faults.append(
            f"{where}: row {at + 1} has {len(profile.rates[at])} cells, row 1 has {len(profile.rates[0])}; give each input size "
            "one cell an output size, null where nobody measured"
        )
    if faults:
        raise ProfileError(tuple(faults))
    table = profile.table()
    try:
        told = check_profile(
            f"{where} ({profile.key})", profile.grid, np.where(_unmeasured(profile), 1.0, table)
        )
    except GridError as error:
        raise ProfileError((str(error),)) from error
    if not (table > 0.0).any():
        need = f"a TPOT of {profile.tpot_seconds:g} s" if profile.tpot_seconds else "its promise"
        told = (
            *told,
            (
                f"{where}: {profile.key} serves no size at all under {need}, and is never chosen for it; where that is not meant, measure "
                "it under a looser promise or with more GPUs"
            ),
        )
    holes = int(_unmeasured(profile).sum())
    if holes:
        told = (
            *told,
            f"{where}: {holes} sizes of {profile.key} were not measured; the next best source fills them",
        )
    return told


def _unmeasured(profile: UserProfile) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.array([[rate is None for rate in row] for row in profile.rates], dtype=np.bool_)


def _field_faults(profile: UserProfile, where: str) -> list[str]:
    faults = []
    if not profile.model or not profile.accelerator:
        faults.append(
            f"{where}: model is {profile.model!r} and accelerator {profile.accelerator!r}; name both"
        )
    if profile.gpus < 1:
        faults.append(f"{where}: gpus is {profile.gpus}; a replica has at least one")
    if not 0.0 <= profile.error < 1.0:
        faults.append(
            f"{where}: error is {profile.error}; give the half-width of the band as a share, at least 0 and below 1"
        )
    for name in ("tpot_seconds", "ttft_seconds"):
        value = getattr(profile, name)
        if not 0.0 <= value < math.inf:
            faults.append(f"{where}: {name} is {value}; give seconds, or 0 when no promise was named")
    if not profile.rates:
        faults.append(f"{where}: there are no rates; give one row for each input size")
    return faults


def rates_on(profile: UserProfile, grid: Grid) -> Floats:
    """Requests per second of one replica on another grid: 0 infeasible, NaN where the profile does not know.

    A size below the smallest measured one counts as that one. An interpolated size is infeasible when any corner with weight is.
    """
    table = profile.table()
    inputs, outputs = (np.array(edges, dtype=np.float64) for edges in (grid.input_edges, grid.output_edges))
    row, up = hat_weights(profile.input_edges, inputs)
    column, right = hat_weights(profile.output_edges, outputs)
    load, infeasible = np.zeros(grid.shape), np.zeros(grid.shape, dtype=np.bool_)
    unknown = (inputs > profile.input_edges[-1])[:, None] | (outputs > profile.output_edges[-1])[None, :]
    for down, over in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.outer(up if down else 1.0 - up, right if over else 1.0 - right)
        rows = np.minimum(row + down, len(profile.input_edges) - 1)
        columns = np.minimum(column + over, len(profile.output_edges) - 1)
        corner = table[np.ix_(rows, columns)]
        counts = weight > 0.0
        unknown |= counts & np.isnan(corner)
        infeasible |= counts & (corner == 0.0)
        load += np.where(counts & (corner > 0.0), weight / np.where(corner > 0.0, corner, 1.0), 0.0)
    rate = np.where(infeasible, 0.0, 1.0 / np.where(load > 0.0, load, 1.0))
    return np.where(unknown, math.nan, rate)


class ProfileFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of profiles holds, as `plimsoll profile import` writes it."""

    profiles: tuple[UserProfile, ...]

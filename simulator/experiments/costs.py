"""The cost model of a group as its scenario names it: shipped, measured by the user in any of three formats, or the roofline.

A table of Splitwise's form and a profile of simdistserve hold many engines: `entry` says which, unless it is the only one of its
degree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from simulator.experiments.profiles import ProfileError, read_distserve, read_profile, read_splitwise
from simulator.experiments.traffic import Strict
from simulator.physics.measured import MeasuredCost
from simulator.physics.published import PUBLISHED
from simulator.physics.specs import RooflineConstants
from simulator.world.terms import ScenarioError


class Roofline(Strict, frozen=True, kw_only=True):
    """The four numbers of a roofline, where the user knows better: fractions of the datasheet, seconds a step and a sequence.

    `source` says where they are from.
    """

    source: str
    bandwidth_fraction: float = 0.875
    compute_fraction: float = 0.73
    fixed_seconds: float = 0.0034
    per_sequence_seconds: float = 0.0


def constants_of(given: Roofline | None, where: str) -> RooflineConstants:
    """The constants of an engine's roofline. Raises ScenarioError for a number that cannot be, or no source."""
    if given is None:
        return RooflineConstants()
    if not given.source.strip():
        raise ScenarioError(f"{where}.roofline.source", "is empty; say where the numbers are from")
    for name in ("bandwidth_fraction", "compute_fraction"):
        if not 0.0 < getattr(given, name) <= 1.0:
            raise ScenarioError(
                f"{where}.roofline.{name}", f"is {getattr(given, name)}; it is a fraction of the datasheet"
            )
    for name in ("fixed_seconds", "per_sequence_seconds"):
        if not 0.0 <= getattr(given, name) < math.inf:
            raise ScenarioError(
                f"{where}.roofline.{name}", f"is {getattr(given, name)}; it must not be negative"
            )
    return RooflineConstants(
        bandwidth_fraction=given.bandwidth_fraction,
        compute_fraction=given.compute_fraction,
        compute_fraction_parallel_16bit=given.compute_fraction,
        compute_fraction_parallel_8bit=given.compute_fraction,
        fixed_seconds=given.fixed_seconds,
        per_sequence_seconds=given.per_sequence_seconds,
        source=given.source,
    )


def cost_of(cost: str, profile: str, entry: str, gpus: int, where: str) -> MeasuredCost | None:
    """The measured cost of a group on `gpus` GPUs each; None for the roofline. Raises ScenarioError with the field at fault."""
    if cost and profile:
        raise ScenarioError(where, "has both cost and profile; give one")
    if cost and cost not in PUBLISHED:
        raise ScenarioError(f"{where}.cost", f"is {cost!r}; known are {', '.join(sorted(PUBLISHED))}")
    if entry and not profile:
        raise ScenarioError(f"{where}.entry", "is of a profile; give that too")
    found = _of_file(Path(profile), entry, gpus, where) if profile else PUBLISHED.get(cost)
    if found is not None and found.gpus not in (0, gpus):
        raise ScenarioError(f"{where}.gpus", f"is {gpus}; {found.name} was measured on {found.gpus}")
    return found


def _of_file(path: Path, entry: str, gpus: int, where: str) -> MeasuredCost:
    try:
        if path.suffix == ".csv":
            table = {
                (f"{model}/{gpu}", ways): cost for (model, gpu, ways), cost in read_splitwise(path).items()
            }
        elif path.suffix == ".json":
            table = dict(read_distserve(path))
        else:
            return read_profile(path)
    except ProfileError as error:
        raise ScenarioError(f"{where}.profile", f"cannot be used: {error}") from error
    return _chosen(table, entry, gpus, where)


def _chosen(table: Mapping[tuple[str, int], MeasuredCost], entry: str, gpus: int, where: str) -> MeasuredCost:
    fitting = {name: cost for (name, ways), cost in table.items() if ways == gpus}
    if entry in fitting:
        return fitting[entry]
    if not entry and len(fitting) == 1:
        return next(iter(fitting.values()))
    known = ", ".join(sorted(fitting)) or "none"
    raise ScenarioError(f"{where}.entry", f"is {entry!r}; measured on {gpus} GPUs are {known}")

"""Where the step times and the power of an engine come from, and how far off they may be, in words for a report."""

from __future__ import annotations

from typing import Final

import msgspec

from simulator.physics.measured import Band
from simulator.physics.specs import EngineSpec, RooflineConstants

_DEFAULTS: Final = RooflineConstants()
ROOFLINE_ERROR: Final = 0.16
ROOFLINE: Final = (
    "roofline with four numbers (bandwidth 0.875 and arithmetic 0.73 of the datasheet, 3.4 ms a step, links as fitted): fitted on "
    "operator measurements of vLLM 0.6 or later and TensorRT-LLM; the error is its median over 376 measured points of Llama-3.1 on "
    "H100 and B200 that it was not fitted to, nine tenths lie within 63 %"
)
POWER: Final = (
    "prefill at TDP, decode from 0.65 (POLCA) to 1.0 of it as its arithmetic fills the time (ML.ENERGY's H100 runs), clocks by the "
    "published multipliers of an A100 at 1110 MHz; no error is known for other products"
)


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Of one engine: the name and the source of its step times and of its power; None where no error is known."""

    times: str
    source: str
    error: float | None
    band: Band | None
    power_source: str
    power_error: float | None
    power_band: Band | None

    def sentences(self) -> tuple[str, str]:
        """Times and power, each with its error as far as it is known."""
        return (
            f"{self.times}: {self.source}. {_told(self.error, self.band)}",
            f"Power: {self.power_source}. {_told(self.power_error, self.power_band)}",
        )


def provenance(engine: EngineSpec) -> Provenance:
    """Where an engine's numbers come from."""
    cost = engine.measured
    power = cost.power if cost is not None else None
    given = engine.constants != _DEFAULTS
    return Provenance(
        times=cost.name if cost is not None else "roofline",
        source=cost.source
        if cost is not None
        else (engine.constants.source or "constants as given")
        if given
        else ROOFLINE,
        error=cost.error if cost is not None else None if given else ROOFLINE_ERROR,
        band=cost.band if cost is not None else None,
        power_source=power.source if power is not None else POWER,
        power_error=power.error if power is not None else None,
        power_band=power.band if power is not None else None,
    )


def _told(error: float | None, band: Band | None) -> str:
    if error is None:
        return "Its error is not known."
    told = f"Median error {error:.1%}"
    return f"{told}, nine tenths between {band[0]:+.1%} and {band[1]:+.1%}." if band else f"{told}."

"""Cost models that are shipped, by name: those of `measured`, and what Splitwise's table of measurements gives.

The table (Patel et al., Splitwise, ISCA'24; the performance model of splitwise-sim, MIT) has prompt and step times of Llama-2-70B
and BLOOM-176B on A100 and H100, and power on the A100. `read_splitwise` fits it; its numbers stand here rounded to four digits,
with the errors of that fit. What it says of H100 with a power cap are scaled times and no power, so it is left out.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from simulator.physics.measured import KNOWN, MILLI, Band, MeasuredCost, MeasuredPower, lines

_TABLE = "Splitwise (Patel et al., ISCA'24), measured performance model of splitwise-sim"


class _Fit(NamedTuple):
    """One engine: `rows` measurements; a prompt's and a decode step's coefficients [ms]; errors; power and its errors."""

    model: str
    hardware: str
    gpus: int
    rows: int
    prefill: tuple[float, float, float]
    decode: tuple[float, float, float]
    error: float
    band: Band
    power: tuple[float, float, float, Band] | None


_FITS: Final = (
    _Fit(
        "bloom-176b",
        "A100-80",
        8,
        105,
        (30.06, 0.2769, 1.365e-05),
        (48.16, 0.0003829, 0.4515),
        0.014,
        (-0.189, 0.137),
        (1.017, 0.6349, 0.025, (-0.007, 0.418)),
    ),
    _Fit(
        "bloom-176b",
        "H100",
        8,
        105,
        (17.29, 0.1192, 7.617e-06),
        (35.61, 0.0001851, 0.2912),
        0.041,
        (-0.205, 0.109),
        None,
    ),
    _Fit(
        "llama2-70b",
        "A100-80",
        2,
        100,
        (22.48, 0.3558, 0.0),
        (56.66, 0.0, 0.5173),
        0.045,
        (-0.113, 0.058),
        (1.061, 0.736, 0.029, (-0.023, 0.167)),
    ),
    _Fit(
        "llama2-70b",
        "A100-80",
        4,
        105,
        (14.16, 0.2369, 1.448e-06),
        (43.62, 0.0003544, 0.1842),
        0.044,
        (-0.291, 0.079),
        (1.021, 0.5993, 0.019, (-0.01, 0.592)),
    ),
    _Fit(
        "llama2-70b",
        "A100-80",
        8,
        105,
        (21.53, 0.1502, 1.968e-06),
        (44.27, 0.0003114, 0.1962),
        0.047,
        (-0.322, 0.136),
        (0.9625, 0.4349, 0.051, (-0.033, 1.09)),
    ),
    _Fit(
        "llama2-70b",
        "H100",
        2,
        100,
        (20.1, 0.1306, 3.983e-06),
        (36.78, 7.712e-05, 0.4012),
        0.019,
        (-0.076, 0.055),
        None,
    ),
    _Fit(
        "llama2-70b",
        "H100",
        4,
        105,
        (19.02, 0.08849, 3.04e-06),
        (28.93, 7.107e-05, 0.2754),
        0.04,
        (-0.168, 0.095),
        None,
    ),
    _Fit(
        "llama2-70b",
        "H100",
        8,
        105,
        (22.7, 0.06488, 3.522e-06),
        (29.86, 0.0001848, 0.1961),
        0.044,
        (-0.282, 0.197),
        None,
    ),
)


def _cost(fit: _Fit) -> MeasuredCost:
    power = None
    if fit.power is not None:
        prefill, decode, error, band = fit.power
        power = MeasuredPower(
            source=f"{_TABLE}: peaks of prompts of 1,024 tokens or more, means where decode took 95 % of the time",
            prefill_fraction=prefill,
            decode_fraction=decode,
            error=error,
            band=band,
        )
    said = "" if power else "; its rows of this GPU have no power"
    return MeasuredCost(
        name=f"{fit.model} on {fit.gpus} x {fit.hardware} (Splitwise)",
        source=f"{_TABLE}; {fit.rows} rows fitted by relative least squares{said}",
        cost=lines(
            (fit.prefill[0] * MILLI, fit.prefill[1] * MILLI, fit.prefill[2] * MILLI),
            (fit.decode[0] * MILLI, fit.decode[1] * MILLI, fit.decode[2] * MILLI),
        ),
        error=fit.error,
        band=fit.band,
        gpus=fit.gpus,
        power=power,
    )


SPLITWISE: Final = {cost.name: cost for cost in map(_cost, _FITS)}
"""What Splitwise measured."""
PUBLISHED: Final = KNOWN | SPLITWISE
"""Everything that a scenario may name."""

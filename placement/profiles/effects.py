"""What is learned about the constants of the step time: effects by name, how wide each may be, and what they make of the constants.

The logarithm of a constant is a sum of effects: one that all share, one of the engine, one of the engine's release, one of the GPU
product, and one of the run (model, engine, precision and product). A name is ``coefficient`` or ``coefficient@level=of``. Besides,
a prediction has offsets, ``kind@…``, ``release@…`` and ``degrees@…``. Every effect has a normal prior around 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from cluster.base import Noun
from placement.profiles.figures import GpuFigures, ModelFigures, StepConstants
from placement.profiles.steady import STEADY_TERMS
from placement.profiles.steptime import StepTime


class Spread(NamedTuple):
    """A constant that is learned: fields it scales, +1 for times and -1 for fractions, and standard deviations (log): of what
    all share, from engine to engine, product to product, release to release, and run to run on a product.
    """

    fields: tuple[str, ...]
    sign: int
    shared: float
    engine: float
    product: float
    build: float = 0.15
    run: float = 0.10


COEFFICIENTS: Final[dict[str, Spread]] = {
    "bandwidth": Spread(("bandwidth_fraction",), -1, 0.10, 0.07, 0.17),
    "experts": Spread(("expert_fraction",), -1, 0.12, 0.07, 0.17),
    "unpacked": Spread(("expert_fraction",), -1, 0.12, 0.07, 0.17),
    "compute_16bit": Spread(("compute_fraction", "compute_fraction_parallel_16bit"), -1, 0.15, 0.17, 0.25),
    "compute_8bit": Spread(("compute_fraction_8bit", "compute_fraction_parallel_8bit"), -1, 0.25, 0.17, 0.25),
    "compute_4bit": Spread(("compute_fraction_4bit",), -1, 0.40, 0.17, 0.25),
    "expert_compute": Spread(("expert_compute",), -1, 0.50, 0.15, 0.25),
    "kv": Spread(("kv_fraction",), -1, 0.15, 0.17, 0.25),
    "attention": Spread(("attention_fraction",), -1, 0.40, 0.17, 0.25),
    "layer": Spread(("layer_seconds",), 1, 0.60, 0.17, 0.35),
    "expert_layer": Spread(("expert_layer_seconds",), 1, 0.70, 0.20, 0.50),
    "unpacking": Spread(("expert_layer_seconds",), 1, 0.70, 0.20, 0.50),
    "fixed": Spread(("fixed_seconds",), 1, 1.00, 0.35, 0.50),
    "sequence": Spread(("per_sequence_seconds", "sequence_bytes"), 1, 1.00, 0.35, 0.50),
    "latency_nvlink": Spread(("nvlink_latency_seconds",), 1, 1.00, 0.28, 0.50),
    "link_nvlink": Spread(("nvlink_fraction",), -1, 0.50, 0.20, 0.35),
    "latency_pcie": Spread(("pcie_latency_seconds",), 1, 1.00, 0.28, 0.50),
    "link_pcie": Spread(("pcie_fraction",), -1, 0.50, 0.20, 0.35),
    "launch": Spread(("launch_layer_seconds",), 1, 0.50, 1.00, 0.20, 0.40),
}
"""What is learned, and how far it may be from the published constants. Whether steps with prompts are launched kernel by kernel is
a matter of engines and their releases.
"""

OFFSETS: Final[dict[str, float]] = {"kind": 0.10, "release": 0.06, "degrees": 0.05}
"""Standard deviations of the offsets (log), by what they are of."""


class Deployment(Noun, kw_only=True, frozen=True):
    """What runs where: the replica that a sample was taken from, or a prediction is wanted for."""

    gpu: GpuFigures
    model: ModelFigures
    tensor: int = 1
    data: int = 1
    precision: str = "bf16"
    engine: str = ""
    release: str = ""

    def step(self, constants: StepConstants) -> StepTime:
        """Its step time. ValueError for figures that cannot be."""
        return StepTime(self.gpu, self.model, self.tensor, self.precision, constants, self.data)

    @property
    def kind(self) -> str:
        """Model, engine, precision and product."""
        return f"{self.model.name}|{self.engine}|{self.precision}|{self.gpu.name}"

    @property
    def offsets(self) -> tuple[str, ...]:
        """Names of its offsets, the widest first: of its kind; with this release; with these degrees."""
        release = f"{self.kind}|{self.release}"
        return (
            f"kind@{self.kind}",
            f"release@{release}",
            f"degrees@{release}|{self.tensor}x{self.data}",
        )

    @property
    def counted(self) -> str:
        """Under which name its live samples are counted: its kind and degrees, whatever the release.

        What the new release of an engine does that was known is believed at once, with the band of what it may do otherwise.
        """
        return f"{self.kind}|{self.tensor}x{self.data}"

    @property
    def levels(self) -> tuple[str, ...]:
        """What else than the shared effect its constants have effects of."""
        engine = (f"engine={self.engine}", f"build={self.engine}|{self.release}") if self.engine else ()
        return (*engine, f"gpu={self.gpu.name}", f"run={self.kind}")


def group_of(name: str) -> str:
    """What an effect shares its width with: ``level:coefficient``, or the name of its offset."""
    coefficient, _, scope = name.partition("@")
    return coefficient if coefficient in OFFSETS else f"{scope.partition('=')[0] or 'shared'}:{coefficient}"


def prior_of(name: str, widths: Mapping[str, float] | None = None) -> float:
    """Standard deviation of an effect before anything was seen of it; ``widths`` by group come before the published ones."""
    group = group_of(name)
    if widths is not None and group in widths:
        return widths[group]
    level, _, coefficient = group.partition(":")
    if not coefficient:
        return OFFSETS[group]
    spread = COEFFICIENTS[coefficient]
    return {
        "shared": spread.shared,
        "engine": spread.engine,
        "gpu": spread.product,
        "build": spread.build,
        "run": spread.run,
    }[level]


def is_offset(name: str) -> bool:
    """Whether an effect is an offset of predictions, not of a constant."""
    return name.partition("@")[0] in OFFSETS


def coefficient_of(term: str, deployment: Deployment) -> tuple[str, ...]:
    """The constants that scale a term of this deployment."""
    if term == "compute":
        bits = {"fp8": "8bit", "int8": "8bit"}.get(deployment.precision, "16bit")
        if deployment.precision == "fp4" and deployment.gpu.flops_4bit_per_second > 0.0:
            bits = "4bit"
        return (f"compute_{bits}", "expert_compute") if deployment.model.experts else (f"compute_{bits}",)
    if term in ("experts", "expert_layer") and _unpacks(deployment):
        return ({"experts": "unpacked", "expert_layer": "unpacking"}[term],)
    if term in ("latency", "link"):
        return (f"{term}_{'nvlink' if deployment.gpu.fabric == 'nvlink' else 'pcie'}",)
    return (term,)


def _unpacks(deployment: Deployment) -> bool:
    """Whether experts of 4 bits are widened before each use, for want of 4-bit tensor cores: other kernels altogether."""
    return deployment.precision in ("fp4", "int4") and deployment.gpu.flops_4bit_per_second <= 0.0


def effects_of(term: str, deployment: Deployment) -> tuple[str, ...]:
    """Names of the effects that add up to a term's logarithm."""
    return tuple(name for names in _named(deployment)[term].values() for name in names)


@lru_cache(maxsize=1_024)
def _named(deployment: Deployment) -> dict[str, dict[str, tuple[str, ...]]]:
    """Names of a deployment's effects by term and coefficient; found once, as every round of a search asks for them."""
    levels = deployment.levels
    return {
        term: {
            each: (each, *(f"{each}@{level}" for level in levels))
            for each in coefficient_of(term, deployment)
        }
        for term in STEADY_TERMS
    }


def corrected(
    constants: StepConstants, deployment: Deployment, effects: Mapping[str, float]
) -> StepConstants:
    """The constants with what was learned of this deployment's levels in them (offsets are no constants)."""
    changes: dict[str, float] = {}
    used = {name: names for each in _named(deployment).values() for name, names in each.items()}
    for name, names in used.items():
        spread = COEFFICIENTS[name]
        by = sum(effects.get(each, 0.0) for each in names)
        if by != 0.0:
            for field in spread.fields:
                changes[field] = getattr(constants, field) * math.exp(spread.sign * by)
    return msgspec.structs.replace(constants, **changes)

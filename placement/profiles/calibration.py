"""Calibration of the step time: what its constants are worth here, learned from samples, with a posterior variance.

The mean time per output token is a sum of terms, each scaled by one constant of `StepConstants`. In logarithms::

    log T = log sum_k term_k exp(theta_k) + offset,   d log T / d theta_k = share of term k in T

so the gradient of any sample costs nothing beyond its prediction. theta_k is a sum of effects: one that all share, one
of the engine, one of the GPU product; the offset has one of model, engine, precision and
product, one of the engine's release and one of the parallel degrees. Every effect has a normal prior around 0 (`Spread`), so what was never measured
stays at the published constants and counts in the error band in full, and a product nobody measured borrows from those
that were. `fitted` finds the mode of many samples at once (Gauss-Newton, Student-t weights on samples and offsets); `observed`
takes one more in (extended Kalman filter, a sample far outside its band counts less). Both give the same `Calibration`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.base import Noun
from placement.profiles.figures import GpuFigures, ModelFigures, StepConstants
from placement.profiles.steady import running, steady_terms
from placement.profiles.steptime import TERMS, StepTime

Floats = NDArray[np.float64]


class Spread(NamedTuple):
    """A constant that is learned: fields it scales, +1 for times and -1 for fractions, and standard deviations (log)."""

    fields: tuple[str, ...]
    sign: int
    shared: float
    engine: float
    product: float


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
}
"""What is learned, and how far it may be from the published constants, from engine to engine and from product to product."""

OFFSETS: Final[dict[str, float]] = {"kind": 0.10, "release": 0.06, "degrees": 0.05}
"""Standard deviations of the offsets (log), by what they are of."""

NOISE = 0.06
"""Standard deviation of one sample (log): silicon repeated differs by about as much."""

FREEDOM, OFFSET_FREEDOM = 4.0, 1.0
"""Degrees of freedom of the Student-t of samples and of offsets: some deployments are set up in a way that no figure tells."""

SETTLED = 1e-4
"""Largest change of an effect (log) at which the mode is found: a hundredth of a percent."""


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
    def offsets(self) -> tuple[str, ...]:
        """Names of its offsets, the widest first: model, engine, precision and product; with this release; with these degrees."""
        kind = f"{self.model.name}|{self.engine}|{self.precision}|{self.gpu.name}"
        release = f"{kind}|{self.release}"
        return (
            f"kind@{kind}",
            f"release@{release}",
            f"degrees@{release}|{self.tensor}x{self.data}",
        )


class Samples(NamedTuple):
    """Mean times per output token measured on one deployment: float64 [n] each, the last in seconds."""

    deployment: Deployment
    batch: Floats
    inputs: Floats
    outputs: Floats
    seconds: Floats


class Calibration(Noun, kw_only=True, frozen=True):
    """Mean and covariance (row-major) of the effects named, above the constants they correct."""

    schema: int = 1
    constants: StepConstants
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    covariance: tuple[float, ...] = ()
    samples: int = 0

    def matrix(self) -> Floats:
        """The covariance as float64 [effects x effects]."""
        return np.array(self.covariance, dtype=np.float64).reshape(len(self.names), len(self.names))

    def known(self) -> dict[str, float]:
        """Effects by name."""
        return dict(zip(self.names, self.mean, strict=True))


class Predicted(NamedTuple):
    """Time per output token and the standard deviation of its logarithm, float64 [n]."""

    seconds: Floats
    spread: Floats


def prior_of(name: str) -> float:
    """Standard deviation of an effect before anything was seen of it."""
    coefficient, _, scope = name.partition("@")
    if coefficient in OFFSETS:
        return OFFSETS[coefficient]
    spread = COEFFICIENTS[coefficient]
    if not scope:
        return spread.shared
    return spread.engine if scope.startswith("engine=") else spread.product


def _is_offset(name: str) -> bool:
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


def effects_of(term: str, deployment: Deployment) -> list[str]:
    """Names of the effects that add up to a term's logarithm."""
    found = []
    for name in coefficient_of(term, deployment):
        found.append(name)
        if deployment.engine:
            found.append(f"{name}@engine={deployment.engine}")
        found.append(f"{name}@gpu={deployment.gpu.name}")
    return found


def corrected(constants: StepConstants, deployment: Deployment, effects: dict[str, float]) -> StepConstants:
    """The constants with what was learned of this engine and product in them (offsets are no constants)."""
    changes: dict[str, float] = {}
    used = {name for term in TERMS for name in coefficient_of(term, deployment)}
    for name, spread in COEFFICIENTS.items():
        if name not in used:
            continue
        by = effects.get(name, 0.0)
        by += effects.get(f"{name}@engine={deployment.engine}", 0.0) if deployment.engine else 0.0
        by += effects.get(f"{name}@gpu={deployment.gpu.name}", 0.0)
        if by != 0.0:
            for field in spread.fields:
                changes[field] = getattr(constants, field) * math.exp(spread.sign * by)
    return msgspec.structs.replace(constants, **changes)


class _Linear(NamedTuple):
    """A prediction and its gradient: log seconds [n], and shares [n] by effect."""

    log_seconds: Floats
    gradient: dict[str, Floats]


def _linear(
    constants: StepConstants,
    effects: dict[str, float],
    deployment: Deployment,
    batch: Floats,
    inputs: Floats,
    outputs: Floats,
) -> _Linear:
    step = deployment.step(corrected(constants, deployment, effects))
    terms = steady_terms(step, running(step, batch, inputs, outputs), inputs, outputs)
    total = np.asarray(sum(terms.values()))
    gradient: dict[str, Floats] = {}
    for term, seconds in terms.items():
        if seconds.any():
            for name in effects_of(term, deployment):
                gradient[name] = gradient.get(name, 0.0) + seconds / total
    offset = 0.0
    for name in deployment.offsets:
        gradient[name] = np.ones_like(total)
        offset += effects.get(name, 0.0)
    return _Linear(np.log(total) + offset, gradient)


def predict(
    calibration: Calibration, deployment: Deployment, batch: Floats, inputs: Floats, outputs: Floats
) -> Predicted:
    """Time per output token of a deployment, with what is not known of it in the spread."""
    found = _linear(calibration.constants, calibration.known(), deployment, batch, inputs, outputs)
    index = {name: row for row, name in enumerate(calibration.names)}
    seen = [name for name in found.gradient if name in index]
    variance = np.zeros_like(batch)
    for name, share in found.gradient.items():
        if name not in index:
            variance = variance + (share * prior_of(name)) ** 2
    if seen:
        shares = np.stack([found.gradient[name] for name in seen], axis=1)
        rows = [index[name] for name in seen]
        covariance = calibration.matrix()[np.ix_(rows, rows)]
        variance = variance + np.einsum("ni,ij,nj->n", shares, covariance, shares)
    return Predicted(np.exp(found.log_seconds), np.sqrt(np.maximum(variance, 0.0)))


def fitted(constants: StepConstants, measured: Sequence[Samples], rounds: int = 30) -> Calibration:
    """The mode over all samples and its covariance. Without samples: the constants as they are."""
    names = sorted({name for each in measured for name in _linear(constants, {}, *each[:-1]).gradient})
    if not names:
        return Calibration(constants=constants)
    index = {name: row for row, name in enumerate(names)}
    prior = np.array([prior_of(name) for name in names])
    offsets = np.array([_is_offset(name) for name in names])
    target = np.concatenate([np.log(each.seconds) for each in measured])
    mean = np.zeros(len(names))
    precision = np.zeros((len(names), len(names)))
    for _ in range(rounds):
        residual, jacobian = _stacked(
            constants, dict(zip(names, mean.tolist(), strict=True)), measured, index, target
        )
        weight = (FREEDOM + 1.0) / (FREEDOM + (residual / NOISE) ** 2) / NOISE**2
        tight = (
            np.where(offsets, (OFFSET_FREEDOM + 1.0) / (OFFSET_FREEDOM + (mean / prior) ** 2), 1.0) / prior**2
        )
        precision = jacobian.T @ (weight[:, None] * jacobian) + np.diag(tight)
        step = np.linalg.solve(precision, jacobian.T @ (weight * residual) - tight * mean)
        mean = mean + np.clip(step, -0.5, 0.5)
        if float(np.abs(step).max()) < SETTLED:
            break
    covariance = np.linalg.inv(precision)
    return Calibration(
        constants=constants,
        names=tuple(names),
        mean=tuple(mean.tolist()),
        covariance=tuple(covariance.ravel().tolist()),
        samples=len(target),
    )


def _stacked(
    constants: StepConstants,
    effects: dict[str, float],
    measured: Sequence[Samples],
    index: dict[str, int],
    target: Floats,
) -> tuple[Floats, Floats]:
    """Residuals (measured minus predicted, log) and shares of all samples."""
    jacobian = np.zeros((len(target), len(index)))
    predicted = np.zeros(len(target))
    at = 0
    for each in measured:
        found = _linear(constants, effects, *each[:-1])
        rows = slice(at, at + len(each.seconds))
        predicted[rows] = found.log_seconds
        for name, share in found.gradient.items():
            if name in index:
                jacobian[rows, index[name]] = share
        at += len(each.seconds)
    return target - predicted, jacobian


def observed(calibration: Calibration, seen: Sequence[Samples], rounds: int = 15) -> Calibration:
    """The calibration after a batch of live samples: what it was is the prior of what it becomes.

    An iterated Kalman update in information form. Offsets of deployments not seen before keep their heavy tail, so that an
    odd deployment explains itself and leaves the constants that all share alone.
    """
    effects = calibration.known()
    found = {name for each in seen for name in _linear(calibration.constants, effects, *each[:-1]).gradient}
    fresh = sorted(found - set(calibration.names))
    if not found:
        return calibration
    names = (*calibration.names, *fresh)
    prior = np.array([prior_of(name) for name in names])
    loose = np.array([_is_offset(name) and name in fresh for name in names])
    start = np.concatenate([np.array(calibration.mean), np.zeros(len(fresh))])
    given = np.linalg.inv(_grown(calibration.matrix(), [prior_of(name) for name in fresh]))
    target = np.concatenate([np.log(each.seconds) for each in seen])
    index = {name: row for row, name in enumerate(names)}
    mean, precision = start, given
    for _ in range(rounds):
        residual, jacobian = _stacked(
            calibration.constants, dict(zip(names, mean.tolist(), strict=True)), seen, index, target
        )
        weight = (FREEDOM + 1.0) / (FREEDOM + (residual / NOISE) ** 2) / NOISE**2
        ease = np.sqrt(np.where(loose, (OFFSET_FREEDOM + 1.0) / (OFFSET_FREEDOM + (mean / prior) ** 2), 1.0))
        tight = given * ease[:, None] * ease[None, :]
        precision = jacobian.T @ (weight[:, None] * jacobian) + tight
        step = np.linalg.solve(precision, jacobian.T @ (weight * residual) - tight @ (mean - start))
        mean = mean + np.clip(step, -0.5, 0.5)
        if float(np.abs(step).max()) < SETTLED:
            break
    return msgspec.structs.replace(
        calibration,
        names=names,
        mean=tuple(mean.tolist()),
        covariance=tuple(np.linalg.inv(precision).ravel().tolist()),
        samples=calibration.samples + len(target),
    )


def _grown(covariance: Floats, priors: list[float]) -> Floats:
    size, more = len(covariance), len(priors)
    grown = np.zeros((size + more, size + more))
    grown[:size, :size] = covariance
    grown[size:, size:] = np.diag(np.square(priors)) if more else grown[size:, size:]
    return grown

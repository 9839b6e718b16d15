"""Calibration of the step time: what its constants are worth here, learned from samples, with a posterior variance.

The mean time per output token is a sum of terms, each scaled by one constant of `StepConstants`. In logarithms::

    log T = log sum_k term_k exp(theta_k) + offset,   d log T / d theta_k = share of term k in T

so the gradient of any sample costs nothing beyond its prediction. theta_k is a sum of effects (`effects`): what was never
measured stays at the published constants and counts in the error band in full, and a product nobody measured borrows from those
that were. `fitted` finds the mode of many samples at once (Gauss-Newton, Student-t weights on samples and offsets), and how
widely effects of each group are spread there (empirical Bayes); `observed` takes one more batch in (iterated extended Kalman
update, a sample far outside its band counts less). Both give the same `Calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.base import Noun
from placement.profiles.effects import (
    Deployment,
    corrected,
    effects_of,
    group_of,
    is_offset,
    prior_of,
)
from placement.profiles.figures import StepConstants
from placement.profiles.steady import running, steady_terms

__all__ = [
    "Calibration",
    "Deployment",
    "Predicted",
    "Samples",
    "corrected",
    "fitted",
    "observed",
    "predict",
]

Floats = NDArray[np.float64]

NOISE: Final = 0.06
"""Standard deviation of one sample (log): silicon repeated differs by about as much."""

FREEDOM, OFFSET_FREEDOM = 4.0, 1.0
"""Degrees of freedom of the Student-t of samples and of offsets: some deployments are set up in a way that no figure tells."""

BELIEF = 4.0
"""Effects that a group's published width is worth when it is learned how widely they are spread."""

WIDENINGS = 3
"""How often widths are learned anew."""

SETTLED = 1e-4
"""Largest change of an effect (log) at which the mode is found: a hundredth of a percent."""

LOOKED_BACK = 5
"""Rounds of the search whose worst the next must better; one less after every second round."""


class Samples(NamedTuple):
    """Mean times per output token measured on one deployment: float64 [n] each.

    ``whole``: over all steps of the engine, as its counters tell it; else as requests see it, from their first token on.
    """

    deployment: Deployment
    batch: Floats
    inputs: Floats
    outputs: Floats
    seconds: Floats
    whole: bool = False


class Calibration(Noun, kw_only=True, frozen=True):
    """Mean and covariance (row-major) of the effects named, above the constants they correct; learned widths by group."""

    schema: int = 2
    constants: StepConstants
    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    covariance: tuple[float, ...] = ()
    samples: int = 0
    widths: dict[str, float] = {}

    def matrix(self) -> Floats:
        """The covariance as float64 [effects x effects]."""
        return np.array(self.covariance, dtype=np.float64).reshape(len(self.names), len(self.names))

    def among(self, rows: Sequence[int]) -> Floats:
        """The covariance of some effects, without making an array of all."""
        size = len(self.names)
        picked = [self.covariance[row * size : (row + 1) * size] for row in rows]
        return np.array(picked, dtype=np.float64)[:, rows]

    def known(self) -> dict[str, float]:
        """Effects by name."""
        return dict(zip(self.names, self.mean, strict=True))


class Predicted(NamedTuple):
    """Time per output token and the standard deviation of its logarithm, float64 [n]."""

    seconds: Floats
    spread: Floats


class _Linear(NamedTuple):
    """A prediction and its gradient: log seconds [n], and shares [n] by effect."""

    log_seconds: Floats
    gradient: dict[str, Floats]


def _linear(constants: StepConstants, effects: dict[str, float], at: Samples) -> _Linear:
    """What is predicted for the loads of samples; their seconds are not looked at."""
    deployment = at.deployment
    step = deployment.step(corrected(constants, deployment, effects))
    batch = running(step, at.batch, at.inputs, at.outputs)
    terms = steady_terms(step, batch, at.inputs, at.outputs, at.whole)
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
    calibration: Calibration,
    deployment: Deployment,
    batch: Floats,
    inputs: Floats,
    outputs: Floats,
    whole: bool = False,
) -> Predicted:
    """Time per output token of a deployment (``whole`` as in `Samples`), with what is not known of it in the spread."""
    at = Samples(deployment, batch, inputs, outputs, np.zeros_like(batch), whole)
    found = _linear(calibration.constants, calibration.known(), at)
    index = {name: row for row, name in enumerate(calibration.names)}
    seen = [name for name in found.gradient if name in index]
    variance = np.zeros_like(batch)
    for name, share in found.gradient.items():
        if name not in index:
            variance = variance + (share * prior_of(name, calibration.widths)) ** 2
    if seen:
        shares = np.stack([found.gradient[name] for name in seen], axis=1)
        covariance = calibration.among([index[name] for name in seen])
        variance = variance + np.einsum("ni,ij,nj->n", shares, covariance, shares)
    return Predicted(np.exp(found.log_seconds), np.sqrt(np.maximum(variance, 0.0)))


def fitted(constants: StepConstants, measured: Sequence[Samples], rounds: int = 30) -> Calibration:
    """The mode over all samples, its covariance and the groups' widths. Without samples: the constants as they are."""
    names = tuple(sorted(_told_of(constants, {}, measured)))
    if not names:
        return Calibration(constants=constants)
    loose = np.array([is_offset(name) for name in names])
    origin = np.zeros(len(names))
    widths: dict[str, float] = {}
    prior = np.array([prior_of(name) for name in names])
    mean, covariance = origin, np.diag(prior**2)
    for turn in range(WIDENINGS + 1):
        if turn:
            widths = _widths(names, prior, mean, covariance, loose)
            prior = np.array([widths[group_of(name)] for name in names])
        given = _Prior(constants, names, mean, origin, np.diag(1.0 / prior**2), prior, loose)
        mean, covariance = _mode(given, measured, rounds)
    return Calibration(
        constants=constants,
        names=names,
        mean=tuple(mean.tolist()),
        covariance=tuple(covariance.ravel().tolist()),
        samples=sum(len(each.seconds) for each in measured),
        widths=widths,
    )


def _widths(
    names: Sequence[str], prior: Floats, mean: Floats, covariance: Floats, loose: NDArray[np.bool_]
) -> dict[str, float]:
    """Standard deviation of each group's effects: one step of expectation maximisation, published widths worth `BELIEF` effects."""
    squares = mean**2 + np.diag(covariance)
    squares = np.where(loose, (OFFSET_FREEDOM + 1.0) / (OFFSET_FREEDOM + squares / prior**2), 1.0) * squares
    sums: dict[str, tuple[float, float]] = {}
    for name, square in zip(names, squares.tolist(), strict=True):
        group = group_of(name)
        total, count = sums.get(group, (BELIEF * prior_of(name) ** 2, BELIEF))
        sums[group] = (total + square, count + 1.0)
    return {group: float(np.sqrt(total / count)) for group, (total, count) in sums.items()}


class _Prior(NamedTuple):
    """What is believed before samples: constants and names of effects, where the search starts, the prior's mean and inverse
    covariance, and of offsets not seen before (``loose``) the width of their Student-t.
    """

    constants: StepConstants
    names: tuple[str, ...]
    start: Floats
    mean: Floats
    precision: Floats
    width: Floats
    loose: NDArray[np.bool_]


def _mode(prior: _Prior, measured: Sequence[Samples], rounds: int) -> tuple[Floats, Floats]:
    """Mode and covariance after the samples: Gauss-Newton, reweighted for the heavy tails of samples and of loose offsets.

    A step is halved until the posterior is likelier than at the worst of the last rounds (Grippo, Lampariello and Lucidi 1986), of
    `LOOKED_BACK` at first and of fewer and fewer. A search that may never go uphill stays where an odd deployment bends what all
    share, as the tail of its own offset lies behind a ridge; and one that always may leaps for ever across the kink of the
    gradient where weights take as long as arithmetic.
    """
    index = {name: row for row, name in enumerate(prior.names)}
    target = np.concatenate([np.log(each.seconds) for each in measured])
    mean, precision = prior.start, prior.precision
    residual, jacobian = _stacked(prior, mean, measured, index, target)
    been = [_unlikely(prior, mean, residual)]
    for turn in range(rounds):
        weight = (FREEDOM + 1.0) / (FREEDOM + (residual / NOISE) ** 2) / NOISE**2
        tails = (OFFSET_FREEDOM + 1.0) / (OFFSET_FREEDOM + (mean / prior.width) ** 2)
        ease = np.sqrt(np.where(prior.loose, tails, 1.0))
        tight = prior.precision * ease[:, None] * ease[None, :]
        precision = jacobian.T @ (weight[:, None] * jacobian) + tight
        step = np.linalg.solve(precision, jacobian.T @ (weight * residual) - tight @ (mean - prior.mean))
        step = np.clip(step, -0.5, 0.5)
        worst = max(been[-max(1, LOOKED_BACK - turn // 2) :])
        while float(np.abs(step).max()) >= SETTLED:
            residual, jacobian = _stacked(prior, mean + step, measured, index, target)
            unlikely = _unlikely(prior, mean + step, residual)
            if unlikely < worst:
                been.append(unlikely)
                break
            step = 0.5 * step
        else:
            break
        mean = mean + step
    return mean, _inverse(precision)


def _unlikely(prior: _Prior, mean: Floats, residual: Floats) -> float:
    """Negative logarithm of the posterior, but for a constant."""
    samples = 0.5 * (FREEDOM + 1.0) * np.log1p((residual / NOISE) ** 2 / FREEDOM).sum()
    tails = np.log1p((mean / prior.width) ** 2 / OFFSET_FREEDOM)[prior.loose].sum()
    away = np.where(prior.loose, 0.0, mean - prior.mean)
    return float(samples + 0.5 * (OFFSET_FREEDOM + 1.0) * tails + 0.5 * away @ prior.precision @ away)


def _told_of(constants: StepConstants, effects: dict[str, float], measured: Sequence[Samples]) -> set[str]:
    """Names of all effects that have a part in some sample, small as it may be where the search begins."""
    return {name for each in measured for name in _linear(constants, effects, each).gradient}


def _stacked(
    prior: _Prior, mean: Floats, measured: Sequence[Samples], index: dict[str, int], target: Floats
) -> tuple[Floats, Floats]:
    """Residuals (measured minus predicted, log) and shares of all samples, where effects are ``mean``."""
    effects = dict(zip(prior.names, mean.tolist(), strict=True))
    jacobian = np.zeros((len(target), len(index)))
    predicted = np.zeros(len(target))
    at = 0
    for each in measured:
        found = _linear(prior.constants, effects, each)
        rows = slice(at, at + len(each.seconds))
        predicted[rows] = found.log_seconds
        for name, share in found.gradient.items():
            if name in index:
                jacobian[rows, index[name]] = share
        at += len(each.seconds)
    return target - predicted, jacobian


def observed(calibration: Calibration, seen: Sequence[Samples], rounds: int = 30) -> Calibration:
    """The calibration after a batch of live samples: what it was is the prior of what it becomes.

    An iterated Kalman update in information form. Offsets of deployments not seen before keep their heavy tail, so that an
    odd deployment explains itself and leaves the constants that all share alone.
    """
    effects = calibration.known()
    found = _told_of(calibration.constants, effects, seen)
    fresh = sorted(found - set(calibration.names))
    if not found:
        return calibration
    names = (*calibration.names, *fresh)
    width = np.array([prior_of(name, calibration.widths) for name in names])
    loose = np.array([is_offset(name) and name in fresh for name in names])
    start = np.concatenate([np.array(calibration.mean), np.zeros(len(fresh))])
    given = _inverse(_grown(calibration.matrix(), width[len(calibration.names) :]))
    mean, covariance = _mode(
        _Prior(calibration.constants, names, start, start, given, width, loose), seen, rounds
    )
    return msgspec.structs.replace(
        calibration,
        names=names,
        mean=tuple(mean.tolist()),
        covariance=tuple(covariance.ravel().tolist()),
        samples=calibration.samples + sum(len(each.seconds) for each in seen),
    )


def _inverse(matrix: Floats) -> Floats:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _grown(covariance: Floats, widths: Floats) -> Floats:
    size = len(covariance)
    grown = np.zeros((size + len(widths), size + len(widths)))
    grown[:size, :size] = covariance
    grown[size:, size:] = np.diag(widths**2)
    return grown

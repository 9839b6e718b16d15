"""Precedence of what is known about a variant: online measurements over the user's grid over shipped over roofline.

Each source answers cell by cell, and what it does not know the next one answers. Every source has an error band; a belief has
one, that of the best source in it, and cells from others are moved so that (1 - error) of them is their own pessimistic end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import numpy as np

from cluster.base import Noun
from cluster.beliefs import CapacityBelief
from cluster.size_plan import StepFigures
from placement.catalogue import plain_name
from placement.profiles.belief import model_figures, step_figures, stretched
from placement.profiles.calibration import Calibration, Deployment, corrected, predict
from placement.profiles.engines import engine_of
from placement.profiles.estimator import CapacityQuestion, gpu_figures
from placement.profiles.figures import MODERN, StepConstants
from placement.profiles.grid import Floats, Grid
from placement.profiles.roofline import Limits, throughput_grid
from placement.profiles.shipped import SHIPPED_ERROR, shipped_constants
from placement.profiles.steptime import StepTime
from placement.profiles.user import UserProfile, rates_on

LEAST_SAMPLES = 20
"""Live samples of a deployment from which on they come before the user's grid."""

LEAST_ERROR = 0.03
"""Half-width that no amount of samples goes below: two days differ by as much."""


class Layer(NamedTuple):
    """Requests per second [inputs x outputs] as one source knows them, NaN where it does not, and its band's half-width.

    `steps` are the step times behind them (None: the source knows only rates).
    """

    source: str
    rates: Floats
    error: float
    steps: StepFigures | None = None


class Sources(Noun, kw_only=True, frozen=True):
    """What there is beside the roofline.

    `calibration` is what was learned (None: nothing is), `live` counts the samples it was learned from by `Deployment.counted`.
    `silicon`: the GPUs are real, so constants measured on silicon come before the roofline. `quantile` is where in the band
    of what was learned it is planned.
    """

    profiles: tuple[UserProfile, ...] = ()
    calibration: Calibration | None = None
    live: dict[str, int] = {}
    quantile: float = 0.84
    silicon: bool = True


def deployment_of(question: CapacityQuestion) -> Deployment:
    """What a question asks about, as samples know it.

    A share of a GPU is a product of its own: an engine that is alone on its card runs faster than its part, which says nothing
    of the whole card.
    """
    variant, image = question.variant, engine_of(question.image)
    gpu = gpu_figures(question.accelerator, variant.milli)
    if variant.shares:
        gpu = msgspec.structs.replace(gpu, name=f"{gpu.name}x{variant.gpu_share:g}")
    return Deployment(
        gpu=gpu,
        model=model_figures(question.model),
        tensor=variant.tensor,
        precision=variant.precision,
        engine=image.name if variant.engine == "simulated" else variant.engine,
        release=image.release,
    )


def computable(question: CapacityQuestion) -> bool:
    """Whether the step-time formula has all the figures that it needs of what is asked about."""
    try:
        deployment_of(question).step(MODERN)
    except ValueError:
        return False
    return True


def judged(question: CapacityQuestion, base: CapacityBelief, sources: Sources) -> CapacityBelief:
    """The belief about a question with everything known in it; ``base`` is the roofline's."""
    grid = Grid(base.input_edges, base.output_edges)
    layers = [
        *_online(question, sources, grid),
        *_users(question, sources, grid),
        *_shipped(question, sources, grid),
    ]
    return layered(base, layers)


def layered(base: CapacityBelief, layers: Sequence[Layer]) -> CapacityBelief:
    """The base with every cell from the first layer that knows it; the base itself where none does."""
    shape = (len(base.input_edges), len(base.output_edges))
    if not any(np.isfinite(layer.rates).any() for layer in layers):
        return base
    rates, errors = np.full(shape, math.nan), np.zeros(shape)
    sources = []
    for layer in (*layers, Layer(base.source, np.array(base.grid).reshape(shape), base.error)):
        mine = np.isnan(rates) & ~np.isnan(layer.rates)
        if mine.any():
            sources.append(layer)
            rates, errors = np.where(mine, layer.rates, rates), np.where(mine, layer.error, errors)
    best = sources[0]
    planned = np.where(errors == best.error, rates, rates * (1.0 - errors) / (1.0 - best.error))
    able = bool((planned > 0.0).any())
    excluded = "" if able else base.excluded or "ProfileHole"
    return msgspec.structs.replace(
        base,
        grid=tuple(planned.ravel().tolist()),
        error=best.error,
        source=best.source,
        concurrency=max(base.concurrency, 1.0),
        steps=_steps(base, best),
        excluded=excluded,
        need=base.need if base.excluded and not able else 0.0 if able else 1.0,
        have=base.have if base.excluded and not able else 0.0,
        unit=base.unit if base.excluded and not able else "" if able else "cells",
    )


def _steps(base: CapacityBelief, best: Layer) -> StepFigures | None:
    """Step times of the best source; of one that knows only rates, the base's as much longer as its rates are lower."""
    if best.steps is not None or base.steps is None:
        return best.steps
    rates = np.array(base.grid).reshape(best.rates.shape)
    both = (rates > 0.0) & (np.nan_to_num(best.rates) > 0.0)
    return (
        stretched(base.steps, float(np.median(rates[both] / best.rates[both]))) if both.any() else base.steps
    )


def _grid_of(
    question: CapacityQuestion, constants: StepConstants, grid: Grid
) -> tuple[Floats, StepFigures] | None:
    where = deployment_of(question)
    limits = Limits(question.objective.tpot_seconds, question.objective.ttft_seconds)
    try:
        step = StepTime(where.gpu, where.model, where.tensor, where.precision, constants)
    except ValueError:
        return None
    return throughput_grid(step, grid, limits).requests_per_second, step_figures(step)


def _online(question: CapacityQuestion, sources: Sources, grid: Grid) -> list[Layer]:
    where = deployment_of(question)
    if sources.calibration is None or sources.live.get(where.counted, 0) < LEAST_SAMPLES:
        return []
    known = sources.calibration.known()
    slower = math.exp(sum(known.get(name, 0.0) for name in where.offsets))
    found = _grid_of(question, slowed(corrected(sources.calibration.constants, where, known), slower), grid)
    if found is None:
        return []
    middle = (np.array([16.0]), np.array([1000.0]), np.array([250.0]))
    spread = float(predict(sources.calibration, where, *middle).spread[0])
    band = 1.0 - math.exp(-max(NormalDist().inv_cdf(sources.quantile), 0.0) * spread)
    return [Layer("online", found[0], min(max(band, LEAST_ERROR), 0.95), found[1])]


def _users(question: CapacityQuestion, sources: Sources, grid: Grid) -> list[Layer]:
    """Profiles of this variant whose promise is as tight, the loosest of those first: it carries the most."""
    variant, objective, product = question.variant, question.objective, question.accelerator
    names = {plain_name(each) for each in (variant.accelerator, *product.aliases)}
    fitting = [
        each
        for each in sources.profiles
        if (each.model, each.gpus) == (question.model.name, variant.gpu_share)
        and plain_name(each.accelerator) in names
        and each.precision in ("", variant.precision)
        and each.engine in ("", variant.engine, engine_of(question.image).name)
        and each.stands_for(objective.tpot_seconds, objective.ttft_seconds)
    ]
    fitting.sort(key=lambda each: (-each.tpot_seconds, -each.ttft_seconds, each.error, each.source))
    return [Layer("user", rates_on(each, grid), each.error) for each in fitting]


def _shipped(question: CapacityQuestion, sources: Sources, grid: Grid) -> list[Layer]:
    if sources.calibration is None or not sources.silicon:
        return []
    found = _grid_of(question, shipped_constants(deployment_of(question).engine), grid)
    return [] if found is None else [Layer("shipped", found[0], SHIPPED_ERROR, found[1])]


def slowed(constants: StepConstants, by: float) -> StepConstants:
    """Constants under which every step takes ``by`` times as long."""
    changes: dict[str, float] = {}
    for field in StepConstants.__struct_fields__:
        if field in (
            "expert_compute",
            "memory_fraction",
        ):  # one scales a fraction that is scaled, the other no time
            continue
        if field.endswith("_fraction") or field.startswith("compute_fraction"):
            changes[field] = getattr(constants, field) / by
        elif field.endswith("_seconds") or field == "sequence_bytes":
            changes[field] = getattr(constants, field) * by
    return msgspec.structs.replace(constants, **changes)

"""From the cluster's nouns to capacity beliefs: what one replica of a variant carries under an objective."""

from __future__ import annotations

import msgspec
import numpy as np

from cluster.beliefs import CapacityBelief
from cluster.reasons import Unit
from cluster.serving import LoadHistogram, Model, Objective, Variant
from cluster.size_plan import StepFigures
from placement.profiles.grid import DEFAULT_GRID, Grid, mean_concurrency
from placement.profiles.roofline import Limits, throughput_grid
from placement.profiles.shapes import known_shapes
from placement.profiles.steptime import (
    BYTES_PER_PARAMETER,
    MODERN,
    GpuFigures,
    ModelFigures,
    StepConstants,
    StepTime,
)


def model_figures(model: Model) -> ModelFigures:
    """What the step-time formula needs of a model; parameters are taken from 16-bit weights when not given.

    Of a mixture of experts that the shipped shapes know, with as many parameters, also which part works on a token.
    """
    known = known_shapes().get(model.name)
    if (
        known is not None
        and known.experts
        and abs(known.parameters - model.parameters) <= 0.01 * known.parameters
    ):
        return msgspec.structs.replace(known, kv_bytes_per_token=float(model.kv_bytes_per_token))
    return ModelFigures(
        name=model.name,
        parameters=model.parameters or model.weight_bytes / BYTES_PER_PARAMETER["bf16"],
        kv_bytes_per_token=float(model.kv_bytes_per_token),
        width=model.hidden_size,
        layers=model.layers,
    )


def step_time(gpu: GpuFigures, model: Model, variant: Variant, constants: StepConstants = MODERN) -> StepTime:
    """Step time of one replica of ``variant``. ValueError for figures or a precision that cannot be."""
    return StepTime(gpu, model_figures(model), variant.tensor, variant.precision, constants)


TYPICAL_BATCH = 32.0
"""Running requests at which the weights that a step of a mixture of experts reads are counted."""


def step_figures(step: StepTime) -> StepFigures:
    """What gateways need to know of a replica's steps: below the knee of arithmetic, where decoding engines run.

    base = weights + launch, request and context as `StepTime.decode`; prompts in steps bound by arithmetic, their attention for
    each pair of tokens of one prompt.
    """
    decode = step.decode(TYPICAL_BATCH)
    one, none = np.ones(1), np.zeros(1)
    pair = float(step.terms(none, one, none, one)["attention"][0])
    far = 16.0 * step.knee_batch() + 1_000.0
    prompt = step.seconds(1.0, far + 1_000.0, 0.0) - step.seconds(1.0, far, 0.0)
    return StepFigures(
        base_seconds=decode.fixed, request_seconds=decode.per_sequence, context_seconds=decode.per_token,
        prompt_seconds=prompt / 1_000.0, pair_seconds=pair, chunk_tokens=int(step.constants.chunk_tokens),
    )  # fmt: skip


def stretched(steps: StepFigures, by: float) -> StepFigures:
    """Figures of an engine whose every step takes `by` times as long."""
    seconds = [name for name in StepFigures.__struct_fields__ if name.endswith("_seconds")]
    return msgspec.structs.replace(steps, **{name: getattr(steps, name) * by for name in seconds})


def roofline_belief(
    gpu: GpuFigures,
    model: Model,
    variant: Variant,
    objective: Objective,
    histogram: LoadHistogram | None = None,
    constants: StepConstants = MODERN,
    as_of_seconds: float = 0.0,
) -> CapacityBelief:
    """The roofline's belief about a variant under one class's objective.

    On the grid of ``histogram``, or the default grid; ``concurrency`` is weighted with the histogram's demand.
    The model's context window is not applied: a grid point beyond it still carries the interpolation of sizes
    within, and longer requests are refused where they arrive. Raises ValueError as `step_time` and
    `throughput_grid` do.
    """
    grid = (
        DEFAULT_GRID if histogram is None else Grid(histogram.input_edges, histogram.output_edges).checked()
    )
    limits = Limits(tpot_seconds=objective.tpot_seconds, ttft_seconds=objective.ttft_seconds)
    step = step_time(gpu, model, variant, constants)
    result = throughput_grid(step, grid, limits)
    rate = result.requests_per_second
    cells = np.zeros(grid.shape) if histogram is None else np.array(histogram.cells).reshape(grid.shape)
    belief = CapacityBelief(
        model=model.name,
        variant=variant.key,
        request_class=objective.request_class,
        input_edges=grid.input_edges,
        output_edges=grid.output_edges,
        grid=tuple(rate.ravel().tolist()),
        concurrency=mean_concurrency(cells, rate, result.concurrency),
        source="roofline",
        as_of_seconds=as_of_seconds,
        steps=step_figures(step),
    )
    why = result.infeasible
    if why is None:
        return belief
    unit: Unit = why.unit
    return msgspec.structs.replace(belief, excluded=why.code, need=why.need, have=why.have, unit=unit)

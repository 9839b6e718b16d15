"""Mean time per output token of a replica in steady state: the mean over steps with and without a prompt.

With B requests of I input and O output tokens running, each request brings a prompt once in O steps, in
``chunks = ceil(I / chunk_tokens)`` pieces. So a share ``s = min(1, B chunks / O)`` of the steps carries a piece of
``max(I / chunks, B I / O)`` tokens besides the B decodes, and the mean is::

    TPOT(B) = (1 - s) T(B, 0) + s T(B, piece)

That is the mean over an engine's steps. A request's own prompt is over when its tokens begin to be timed: of its O - 1 steps
``(B - 1) chunks / (O - 1)`` carry the prompt of another.

Steps without prompts are replayed as captured graphs. A step with one is launched kernel by kernel, and takes no less than that
(``launch_layer_seconds`` a layer): on many GPUs short prompts cost as much as long ones.

A prompt's arithmetic does not hide behind the reading of the weights as it would if its tokens were spread evenly over
all steps: of the steps that have none, each reads all weights too.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from placement.profiles.steptime import TERMS, StepTime

Floats = NDArray[np.float64]


STEADY_TERMS: Final = (*TERMS, "launch")
"""Names of the addends of a mean step, as `steady_terms` gives them."""

SHARPNESS = 6.0
"""Power of the mean by which the longer of computing and launching decides; high, but with a slope for what is shorter."""


def steady_terms(
    step: StepTime, batch: Floats, inputs: Floats, outputs: Floats, own: bool = True
) -> dict[str, Floats]:
    """The addends of the mean step, by the constant that scales each (`STEADY_TERMS`). Arrays of one shape.

    Outputs of infinity ask for a step without prompts, at contexts of ``inputs`` tokens. ``own`` False leaves the prompt of the
    request that is looked at out: it is over when the request's tokens begin to be timed.
    """
    share, piece, context = _shares(step, batch, inputs, outputs, own)
    without = step.terms(batch, 0.0 * piece, context, 0.0 * inputs)
    carrying = _launched(step, step.terms(batch, piece, context, inputs))
    return {name: (1.0 - share) * without.get(name, 0.0) + share * carrying[name] for name in carrying}


def _launched(step: StepTime, terms: dict[str, Floats]) -> dict[str, Floats]:
    """The terms of a step that carries a prompt, with "launch": its kernels are launched one by one while the GPU computes.

    So it takes the longer of both, as the mean of power `SHARPNESS`; each addend is what its constant makes of the whole
    (the gradient by the constant's logarithm), and they add up to it.
    """
    computing = np.asarray(sum(terms.values()))
    launching = step.constants.launch_layer_seconds * step.model.layers / computing
    longer = (1.0 + launching**SHARPNESS) ** (1.0 / SHARPNESS)
    found = {name: seconds * longer ** (1.0 - SHARPNESS) for name, seconds in terms.items()}
    return found | {"launch": computing * launching**SHARPNESS * longer ** (1.0 - SHARPNESS)}


def steady_seconds(
    step: StepTime, batch: Floats, inputs: Floats, outputs: Floats, own: bool = True
) -> Floats:
    """Mean time per output token with ``batch`` requests of the size running."""
    share, piece, context = _shares(step, batch, inputs, outputs, own)
    without = step.seconds_array(batch, 0.0 * piece, context, 0.0 * inputs)
    mean: Floats = without + share * (carrying_seconds(step, batch, piece, context, inputs) - without)
    return mean


def carrying_seconds(step: StepTime, batch: Floats, piece: Floats, context: Floats, inputs: Floats) -> Floats:
    """Time of a step that carries ``piece`` tokens of prompts of ``inputs`` tokens, launching included."""
    computing = step.seconds_array(batch, piece, context, inputs)
    if not step.constants.launch_layer_seconds:
        return computing
    launching = step.constants.launch_layer_seconds * step.model.layers / computing
    longer: Floats = computing * (1.0 + launching**SHARPNESS) ** (1.0 / SHARPNESS)
    return longer


def _shares(
    step: StepTime, batch: Floats, inputs: Floats, outputs: Floats, own: bool
) -> tuple[Floats, Floats, Floats]:
    """Share of the steps that carry a piece of a prompt, its tokens, and tokens in all contexts."""
    chunks = np.ceil(inputs / step.constants.chunk_tokens)
    prompts, steps = (
        (batch, outputs) if own else (np.maximum(batch - 1.0, 0.0), np.maximum(outputs - 1.0, 1.0))
    )
    share = np.minimum(1.0, prompts * chunks / steps)
    piece = np.maximum(inputs / np.maximum(chunks, 1.0), prompts * inputs / steps)
    return share, piece, batch * _length(inputs, outputs)


def running(step: StepTime, concurrency: Floats, inputs: Floats, outputs: Floats) -> Floats:
    """Of ``concurrency`` requests those that the KV cache holds at once, at their mean length; at least one."""
    room = step.kv_capacity_tokens() / np.maximum(_length(inputs, outputs), 1.0)
    return np.where(room >= 1.0, np.minimum(concurrency, np.maximum(room, 1.0)), concurrency)


def _length(inputs: Floats, outputs: Floats) -> Floats:
    """Mean length of a running request; with endless outputs (a step without prompts) its context is the inputs."""
    return inputs + np.where(np.isinf(outputs), 0.0, outputs) / 2.0

"""Mean time per output token of a replica in steady state: the mean over steps with and without a prompt.

With B requests of I input and O output tokens running, each request brings a prompt once in O steps, in
``chunks = ceil(I / chunk_tokens)`` pieces. So a share ``s = min(1, B chunks / O)`` of the steps carries a piece of
``max(I / chunks, B I / O)`` tokens besides the B decodes, and the mean is::

    TPOT(B) = (1 - s) T(B, 0) + s T(B, piece)

A prompt's arithmetic does not hide behind the reading of the weights as it would if its tokens were spread evenly over
all steps: of the steps that have none, each reads all weights too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.profiles.steptime import StepTime

Floats = NDArray[np.float64]


def steady_terms(step: StepTime, batch: Floats, inputs: Floats, outputs: Floats) -> dict[str, Floats]:
    """The addends of the mean step, by the constant that scales each (`steptime.TERMS`). Arrays of one shape.

    Outputs of infinity ask for a step without prompts, at contexts of ``inputs`` tokens.
    """
    chunks = np.ceil(inputs / step.constants.chunk_tokens)
    share = np.minimum(1.0, batch * chunks / outputs)
    piece = np.maximum(inputs / chunks, batch * inputs / outputs)
    context = batch * _length(inputs, outputs)
    without = step.terms(batch, 0.0 * piece, context, 0.0 * inputs)
    carrying = step.terms(batch, piece, context, inputs)
    return {name: (1.0 - share) * without[name] + share * carrying[name] for name in without}


def steady_seconds(step: StepTime, batch: Floats, inputs: Floats, outputs: Floats) -> Floats:
    """Mean time per output token with ``batch`` requests of the size running."""
    total: Floats = np.asarray(sum(steady_terms(step, batch, inputs, outputs).values()))
    return total


def running(step: StepTime, concurrency: Floats, inputs: Floats, outputs: Floats) -> Floats:
    """Of ``concurrency`` requests those that the KV cache holds at once, at their mean length; at least one."""
    room = step.kv_capacity_tokens() / _length(inputs, outputs)
    return np.where(room >= 1.0, np.minimum(concurrency, np.maximum(room, 1.0)), concurrency)


def _length(inputs: Floats, outputs: Floats) -> Floats:
    """Mean length of a running request; with endless outputs (a step without prompts) its context is the inputs."""
    return inputs + np.where(np.isinf(outputs), 0.0, outputs) / 2.0

"""How a gang of equal nodes is cut: degrees of tensor, pipeline and data parallelism.

The smallest tensor x pipeline product whose share of the model state fits beside activations; the rest of the
GPUs are data parallel (the layout search over all cuts comes with training-placement §5). State per parameter
with mixed precision and the optimiser sharded over the data parallel group (ZeRO 1): 2 bytes weights, 2 gradients,
12 / data optimiser (research: training-placement §1.3).
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.training import Job, TrainingShape

STATE_SHARE = 0.8
"""Share of GPU memory for model state; the rest is for activations and buffers."""


class Degrees(NamedTuple):
    """Tensor x pipeline x data = GPUs, and layers per pipeline stage."""

    tensor: int
    pipeline: int
    data: int
    layers_per_stage: tuple[int, ...]


def parameters(shape: TrainingShape) -> float:
    """Parameters of a decoder of this shape: 12 L h^2 + V h."""
    return 12.0 * shape.layers * shape.hidden_size**2 + shape.vocabulary * shape.hidden_size


def state_bytes(shape: TrainingShape, cut: int, data: int) -> float:
    """Bytes of model state on one GPU when the model is cut `cut` ways and the optimiser `data` ways more."""
    return parameters(shape) / cut * (4.0 + 12.0 / data)


def degrees_for(job: Job, nodes: int, memory_bytes: int, any_cut: bool = False) -> Degrees | None:
    """Degrees for `nodes` nodes of this memory per GPU, or None when they do not divide the batch or nothing fits.

    `data * micro_batch` must divide `global_batch`; tensor parallelism stays inside a node. `any_cut` takes a
    finer cut than the memory demands where only that divides the batch.
    """
    gpus = nodes * job.gpus_per_node
    for pipeline in range(1, nodes + 1):
        if nodes % pipeline or pipeline > job.shape.layers:
            continue
        for tensor in _divisors(job.gpus_per_node):
            data = gpus // (tensor * pipeline)
            if state_bytes(job.shape, tensor * pipeline, data) > STATE_SHARE * memory_bytes:
                continue
            if job.global_batch % (data * job.micro_batch) == 0:
                return Degrees(tensor, pipeline, data, _stages(job.shape.layers, pipeline))
            if not any_cut:
                return None
    return None


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _stages(layers: int, pipeline: int) -> tuple[int, ...]:
    """Layers per stage, as even as can be; earlier stages take the remainder."""
    each, extra = divmod(layers, pipeline)
    return tuple(each + (1 if stage < extra else 0) for stage in range(pipeline))

"""From what a pod was told to what the physics computes: engines, models, training jobs."""

from __future__ import annotations

from typing import Final

import msgspec

from cluster.launch import EngineLaunch, RankLaunch
from placement.training.degrees import parameters
from simulator.physics.loading import StartSpec, WeightTier
from simulator.physics.specs import BYTES_PER_PARAMETER, EngineSpec, ModelSpec
from simulator.physics.training import TrainingSpec

_SIXTEEN_BIT: Final = BYTES_PER_PARAMETER["bf16"]


class StartProfile(msgspec.Struct, frozen=True, kw_only=True):
    """How long a pod takes to start, medians; the physics draws the rest (research/cold-start.md §2.2).

    `images_present` leaves the pull out, as on nodes that a pre-pull has warmed; else an image is pulled once per
    node. `rank_seconds` is the start of a training process up to its rendezvous. `broken_images` never run: to each
    the kubelet's word for it, `CrashLoopBackOff` or one of a pull in vain such as `ImagePullBackOff`.
    """

    images_present: bool = True
    image_bytes: int = 5_600_000_000
    container_seconds: float = 3.0
    process_seconds: float = 20.0
    engine_seconds: float = 19.6
    warm_up_seconds: float = 2.0
    rank_seconds: float = 15.0
    tier: WeightTier = WeightTier.REMOTE
    jitter: float = 0.1
    broken_images: dict[str, str] = {}


def model_of(launch: EngineLaunch) -> ModelSpec:
    """The model at the variant's precision: the same arithmetic as the planner's beliefs.

    ValueError for a precision the physics has no figures for.
    """
    model, precision = launch.model, launch.variant.precision
    if precision not in BYTES_PER_PARAMETER:
        known = ", ".join(BYTES_PER_PARAMETER)
        raise ValueError(f"precision {precision!r} of {launch.service} is not modelled; use one of {known}")
    count = model.parameters or model.weight_bytes / _SIXTEEN_BIT
    return ModelSpec(
        name=model.name,
        parameters=count,
        weight_bytes=int(count * BYTES_PER_PARAMETER[precision]),
        layers=model.layers,
        hidden=model.hidden_size,
        kv_bytes_per_token=model.kv_bytes_per_token,
        precision=precision,  # type: ignore[arg-type]  # checked above
    )


def engine_of(launch: EngineLaunch, base: EngineSpec) -> EngineSpec:
    """How the engine is started. ValueError for pipeline parallelism, which the physics does not have."""
    variant = launch.variant
    if variant.pipeline != 1:
        raise ValueError(
            f"variant {variant.key} of {launch.service} has {variant.pipeline} pipeline stages; the simulated engine "
            "has one: choose a tensor degree that fits the node"
        )
    return msgspec.structs.replace(
        base,
        tensor_parallel=variant.tensor,
        gpu_milli=variant.milli,
        max_model_tokens=launch.model.max_context_tokens,
    )


def start_of(profile: StartProfile, weight_bytes: int, image_present: bool) -> StartSpec:
    """The stages of an engine's start."""
    return StartSpec(
        weight_bytes=weight_bytes,
        tier=profile.tier,
        image_bytes=0 if image_present else profile.image_bytes,
        container_seconds=profile.container_seconds,
        process_seconds=profile.process_seconds,
        engine_seconds=profile.engine_seconds,
        warm_up_seconds=profile.warm_up_seconds,
        jitter=profile.jitter,
    )


def rank_start_of(profile: StartProfile, image_present: bool) -> StartSpec:
    """The stages of a training process up to its rendezvous: image, container, process."""
    return StartSpec(
        weight_bytes=0,
        tier=profile.tier,
        image_bytes=0 if image_present else profile.image_bytes,
        container_seconds=profile.container_seconds,
        process_seconds=profile.rank_seconds,
        engine_seconds=0.0,
        warm_up_seconds=0.0,
        jitter=profile.jitter,
    )


def training_of(launch: RankLaunch) -> TrainingSpec:
    """What the gang computes (research/training-placement.md §1.3).

    An iteration takes ``96 S L h^2 (1 + S / 6h + V / 16 L h)`` FLOPs per sample with recomputation.
    """
    shape = launch.shape
    hidden, layers, length = shape.hidden_size, shape.layers, shape.sequence_length
    weights = parameters(shape)
    tail = 1.0 + length / (6.0 * hidden) + shape.vocabulary / (16.0 * layers * hidden)
    per_sample = 96.0 * length * layers * hidden**2 * tail
    return TrainingSpec(
        parameters=weights,
        tokens_per_step=float(launch.global_batch * length),
        steps=launch.steps,
        checkpoint_interval_seconds=launch.checkpoint.interval_seconds,
        checkpoint_seconds=launch.checkpoint.write_seconds,
        flops_per_parameter_token=per_sample / (weights * length),
    )

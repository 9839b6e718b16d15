"""TrainingJob: train a model with a gang of pods, all or nothing (DESIGN §4)."""

from __future__ import annotations

from typing import Annotated, Literal

from controller.resources.base import (
    API_VERSION,
    NAME_PATTERN,
    AcceleratorName,
    ApiStruct,
    Conditions,
    ObjectMeta,
    about,
    items,
    number,
    text,
    whole,
)
from controller.resources.podpart import MOST_WORDS, PodPart, Words


class TrainedModel(ApiStruct, frozen=True, kw_only=True):
    """The model: a name of the shipped catalogue, or its shape as training sees it."""

    name: Annotated[str, text("Name of a model of the shipped catalogue, or a new name.", 128, 1)]
    layers: Annotated[int, whole("Number of transformer layers.", 1, 1_000)] | None = None
    hidden_size: Annotated[int, whole("Width of the residual stream.", 1, 1_000_000)] | None = None
    sequence_length: Annotated[int, whole("Tokens of one sample.", 1, 10**8)] | None = None
    vocabulary: Annotated[int, whole("Number of tokens in the vocabulary.", 1, 10**8)] | None = None


class NodeCount(ApiStruct, frozen=True, kw_only=True):
    """How many nodes a gang may have; equal bounds mean exactly that many."""

    min: Annotated[int, whole("Fewest nodes the job can run on.", 1, 10_000)] = 1
    max: Annotated[int, whole("Most nodes it can use; absent means `min`.", 1, 10_000)] | None = None


class Checkpoint(ApiStruct, frozen=True, kw_only=True):
    """How often the job saves, and what a save costs; a restart loses the work since the last one."""

    interval_seconds: Annotated[float, number("Time between two checkpoints.", 1.0, 604_800.0)] = 600.0
    seconds_to_write: Annotated[float, number("How long writing one stops the job.", 0.0, 86_400.0)] = 5.0


class TrainingJobSpec(ApiStruct, frozen=True, kw_only=True):
    """What the user wants trained."""

    model: Annotated[TrainedModel, about("The model to train.")]
    nodes: Annotated[NodeCount, about("Size of the gang in nodes.")] = NodeCount()
    gpus_per_node: Annotated[int, whole("GPUs on each node of the gang.", 1, 64)]
    accelerators: Annotated[
        list[AcceleratorName],
        items(
            "AcceleratorClasses that may be used, never two in one gang; empty means any.", 32, unique=True
        ),
    ] = []
    steps: Annotated[int, whole("Iterations until the job has succeeded.", 1, 10**12)]
    global_batch: Annotated[int, whole("Samples of one iteration over all GPUs.", 1, 10**9)]
    micro_batch: Annotated[int, whole("Samples a GPU computes at a time.", 1, 10**6)] = 1
    checkpoint: Annotated[Checkpoint, about("How often the job saves.")] = Checkpoint()
    queue: Annotated[str, text("Queue the job waits in.", 63, 1, NAME_PATTERN)] = "default"
    priority: Annotated[int, whole("Who goes first in the queue; higher first.", -1_000, 1_000)] = 0
    value_per_gpu_hour: Annotated[
        float, number("Dollars an hour of one GPU is worth to this job; 0 means best effort.", 0.0, 1e6)
    ] = 0.0
    image: Annotated[str, text("Container image of a rank; empty means the operator's default.", 512)] = ""
    command: Annotated[Words, items("Command each node runs; empty means the image's own.", MOST_WORDS)] = []
    args: Annotated[Words, items("Arguments of the command; empty means the image's own.", MOST_WORDS)] = []
    pod: Annotated[PodPart, about("Your part of each rank's pod.")] = PodPart()
    runtime: Annotated[Literal["torchrun", "ray"], about("How ranks find each other.")] = "torchrun"
    restart_limit: Annotated[int, whole("Failed attempts that are followed by another one.", 0, 100_000)] = 10
    mode: Annotated[
        Literal["Auto", "Recommend"],
        about("Auto decides and acts; Recommend says what it would do and touches nothing."),
    ] = "Auto"
    suspend: Annotated[bool, about("True stops the gang and keeps the job.")] = False


class TrainingJobStatus(ApiStruct, frozen=True, kw_only=True):
    """How far the job is, and why not further."""

    phase: Annotated[
        Literal["Pending", "Forming", "Running", "Restarting", "Suspended", "Succeeded", "Failed", "Refused"],
        about("State in one word."),
    ] = "Pending"
    attempt: Annotated[int, whole("Number of the gang; ranks of an older one are fenced.", 0, 10**9)] = 0
    restarts: Annotated[
        int, whole("Attempts that failed; what was suspended or gave way is not counted.", 0, 10**9)
    ] = 0
    failed_attempt: Annotated[int, whole("Newest attempt that is counted in `restarts`.", 0, 10**9)] = 0
    step: Annotated[int, whole("Last iteration reported.", 0, 10**12)] = 0
    checkpoint_step: Annotated[int, whole("Iteration of the last checkpoint.", 0, 10**12)] = 0
    nodes: Annotated[
        list[Annotated[str, text("Name of a node.", 253)]], items("Nodes of the gang, by rank.", 10_000)
    ] = []
    gpus: Annotated[int, whole("GPUs in use.", 0, 10_000_000)] = 0
    cost_per_hour: Annotated[float, number("Dollars per hour of the GPUs in use.", 0.0, 1e9)] = 0.0
    why: Annotated[str, text("Code of the reason of the last decision.", 128)] = ""
    started_at: Annotated[str, text("When the first gang ran, RFC 3339 in UTC.", 32)] | None = None
    finished_at: Annotated[str, text("When the job ended, RFC 3339 in UTC.", 32)] | None = None
    conditions: Conditions = []
    observed_generation: Annotated[int, whole("metadata.generation this status answers.")] = 0


class TrainingJob(ApiStruct, frozen=True, kw_only=True):
    """Trains a model with a gang of pods that starts wholly or not at all."""

    api_version: str = API_VERSION
    kind: str = "TrainingJob"
    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[TrainingJobSpec, about("What is wanted.")]
    status: Annotated[TrainingJobStatus, about("What is, written by the operator.")] = TrainingJobStatus()

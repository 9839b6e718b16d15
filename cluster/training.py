"""What is trained: jobs, one attempt at a job (gang) and its layout."""

from __future__ import annotations

from enum import StrEnum

from cluster.base import Noun, Ref
from cluster.hardware import Slot
from cluster.refused import Refused
from cluster.restraint import Hold
from cluster.taints import Toleration


class GangPhase(StrEnum):
    """The life of one attempt; legal arrows are in `cluster.lifecycles`."""

    FORMING = "forming"
    VERIFYING = "verifying"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"


class JobPhase(StrEnum):
    """What the job as a whole waits for or does."""

    WAITING = "waiting"
    RESERVED = "reserved"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DONE = "done"
    FAILED = "failed"


class CheckpointSpec(Noun, kw_only=True, frozen=True):
    """How often a job saves, within which bounds the operator may move that, and what a save costs."""

    interval_seconds: float = 600.0
    min_interval_seconds: float = 30.0
    max_interval_seconds: float = 3_600.0
    write_seconds: float = 5.0
    tier: str = "zone"


class TrainingShape(Noun, kw_only=True, frozen=True):
    """A model as training sees it (research: training-placement §1.3): F = 96 S L h^2 (...) FLOP/sample."""

    layers: int
    hidden_size: int
    sequence_length: int
    vocabulary: int = 32_000


class Job(Noun, kw_only=True, frozen=True):
    """What the user wants trained.

    `accelerators` empty means any product, but never two products in one gang. `steps` is the number
    of iterations to success. `held` says why nothing may be done about it; `refused` stands while its pods are refused.
    `failures` counts attempts that failed, the newest of them `failed_attempt`; what was stopped on purpose (a
    suspension, a preemption of ours), or never came to be, is none of them. Taints, volumes, CPU and memory of a pod as of a
    `Service`. `revision` names what its ranks are started from (image, command, arguments, the user's part of the pod):
    another one takes effect with the next attempt.
    """

    ref: Ref
    shape: TrainingShape
    steps: int
    global_batch: int
    micro_batch: int = 1
    min_nodes: int
    max_nodes: int
    gpus_per_node: int
    accelerators: tuple[str, ...] = ()
    queue: str = "default"
    priority: int = 0
    dollars_per_gpu_hour: float = 0.0
    checkpoint: CheckpointSpec = CheckpointSpec()
    restart_limit: int = 10
    suspended: bool = False
    phase: JobPhase = JobPhase.WAITING
    attempt: int = 0
    failures: int = 0
    failed_attempt: int = 0
    waiting_since_seconds: float = 0.0
    held: Hold = Hold.NONE
    revision: str = ""
    refused: Refused | None = None
    tolerates: tuple[Toleration, ...] = ()
    confined_to: tuple[str, ...] | None = None
    confined_by: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0

    @property
    def spent(self) -> bool:
        """Whether the user's limit of restarts is used up."""
        return self.failures > self.restart_limit

    @property
    def name(self) -> str:
        """`namespace/name` of the job."""
        return self.ref.name


class Layout(Noun, kw_only=True, frozen=True):
    """How a gang is cut: degrees, micro batch, and which rank sits on which slot.

    `slots[i]` carries ranks `i * gpus .. (i + 1) * gpus - 1`. `network` is the link class the data
    parallel group runs over. `layers_per_stage` sums to the model's layers.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    micro_batch: int = 1
    zero_stage: int = 1
    recompute: bool = True
    layers_per_stage: tuple[int, ...] = ()
    slots: tuple[Slot, ...] = ()
    network: str = "ethernet"
    islands: tuple[str, ...] = ()


class Gang(Noun, kw_only=True, frozen=True):
    """One attempt at a job. `rendezvous` is new for every attempt, so old ranks cannot join.

    `ran`: every pod of it has started, as far as anybody saw. `blocked`: what keeps a member from starting, in its
    kubelet's words (empty: nothing).
    """

    key: str
    ref: Ref
    job: str
    attempt: int
    rendezvous: str
    layout: Layout
    revision: str = ""
    phase: GangPhase = GangPhase.FORMING
    phase_since_seconds: float = 0.0
    members: tuple[str, ...] = ()
    members_up: int = 0
    blocked: str = ""
    ran: bool = False
    step: int = 0
    checkpoint_step: int = 0

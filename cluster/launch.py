"""What a pod is told when it is started: an engine of a service, or the ranks of one node of a gang.

Travels as JSON in the pod (one environment variable and one annotation), so that whoever runs the pod,
a launcher or a simulated kubelet, needs nothing else.
"""

from __future__ import annotations

from cluster.base import Noun
from cluster.serving import Model, Variant
from cluster.training import CheckpointSpec, TrainingShape


class EngineLaunch(Noun, kw_only=True, frozen=True):
    """One engine: which model, how it is run, and the devices the placement counted on. `image` is what the user
    asked for, empty for the operator's default.
    """

    service: str
    model: Model
    image: str = ""
    variant: Variant
    pool: str = ""
    ordinal: int = 0
    devices: tuple[int, ...] = ()


class RankLaunch(Noun, kw_only=True, frozen=True):
    """The ranks of one node: `gpus` of them, the first is `node_rank * gpus`.

    Ranks of an older `attempt` are fenced: the rendezvous `rendezvous` takes only this attempt.
    """

    job: str
    job_uid: str
    attempt: int
    rendezvous: str
    node_rank: int
    nodes: int
    gpus: int
    shape: TrainingShape
    network: str
    steps: int
    global_batch: int
    micro_batch: int
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    checkpoint: CheckpointSpec = CheckpointSpec()
    restore_step: int = 0
    devices: tuple[int, ...] = ()

"""Our five kinds: how the API addresses each, its Python type, and the columns that `kubectl get` shows."""

from __future__ import annotations

from typing import Literal

import msgspec

from controller.resources.acceleratorclass import AcceleratorClass
from controller.resources.acceleratornode import AcceleratorNode
from controller.resources.base import GROUP, NAME_LIMIT, OBJECT_PATTERN, VERSION
from controller.resources.modelservice import ModelService
from controller.resources.powerdomain import PowerDomain
from controller.resources.trainingjob import TrainingJob
from controller.store.interface import Resource, ScalePaths


class Column(msgspec.Struct, frozen=True):
    """One printer column. `wide` ones appear only with `-o wide`."""

    name: str
    type: Literal["string", "integer", "number", "boolean", "date"]
    path: str
    description: str
    wide: bool = False


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of ours. `name_limit` and `name_pattern` bound metadata.name; 0 and "" leave it to the API."""

    resource: Resource
    type: type[msgspec.Struct]
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    name_limit: int = 0
    name_pattern: str = ""


AGE = Column("Age", "date", ".metadata.creationTimestamp", "Time since the object was made.")
_WHY = Column("Why", "string", ".status.why", "Code of the reason of the last decision.")
_PHASE = Column("Phase", "string", ".status.phase", "State in one word.")
_COST = Column("$/h", "number", ".status.costPerHour", "Dollars per hour of the GPUs in use.")

MODEL_SERVICE = Resource(
    group=GROUP,
    version=VERSION,
    kind="ModelService",
    plural="modelservices",
    has_status=True,
    generation=True,
    scale=ScalePaths(),
    selectable=("spec.mode", "spec.model.name", "status.phase"),
)
TRAINING_JOB = Resource(
    group=GROUP,
    version=VERSION,
    kind="TrainingJob",
    plural="trainingjobs",
    has_status=True,
    generation=True,
    selectable=("spec.queue", "spec.suspend", "status.phase"),
)
ACCELERATOR_CLASS = Resource(
    group=GROUP,
    version=VERSION,
    kind="AcceleratorClass",
    plural="acceleratorclasses",
    namespaced=False,
    has_status=True,
    generation=True,
    selectable=("spec.resourceName", "spec.sharing"),
)
POWER_DOMAIN = Resource(
    group=GROUP,
    version=VERSION,
    kind="PowerDomain",
    plural="powerdomains",
    namespaced=False,
    has_status=True,
    generation=True,
    selectable=("spec.parent", "status.phase"),
)
ACCELERATOR_NODE = Resource(
    group=GROUP,
    version=VERSION,
    kind="AcceleratorNode",
    plural="acceleratornodes",
    namespaced=False,
    has_status=True,
    generation=True,
    selectable=("status.accelerator", "status.phase"),
)

KINDS: tuple[Kind, ...] = (
    Kind(
        resource=MODEL_SERVICE,
        type=ModelService,
        short_names=("msvc",),
        name_limit=NAME_LIMIT,
        name_pattern=OBJECT_PATTERN,
        columns=(
            _PHASE,
            Column("Ready", "integer", ".status.ready", "Replicas that take requests."),
            Column("GPUs", "integer", ".status.gpus", "GPUs in use."),
            _COST,
            _WHY,
            Column("Mix", "string", ".status.mix", "The GPU mix in words.", wide=True),
            Column("Mode", "string", ".spec.mode", "Auto, Recommend or Off.", wide=True),
            Column("URL", "string", ".status.url", "Where requests are sent.", wide=True),
            AGE,
        ),
    ),
    Kind(
        resource=TRAINING_JOB,
        type=TrainingJob,
        short_names=("tjob",),
        name_limit=NAME_LIMIT,
        name_pattern=OBJECT_PATTERN,
        columns=(
            _PHASE,
            Column("Step", "integer", ".status.step", "Last iteration reported."),
            Column("Of", "integer", ".spec.steps", "Iterations until success."),
            Column("GPUs", "integer", ".status.gpus", "GPUs in use."),
            _COST,
            _WHY,
            Column("Restarts", "integer", ".status.restarts", "Attempts that failed.", wide=True),
            Column("Saved", "integer", ".status.checkpointStep", "Last checkpoint.", wide=True),
            Column("Queue", "string", ".spec.queue", "Queue the job waits in.", wide=True),
            AGE,
        ),
    ),
    Kind(
        resource=ACCELERATOR_CLASS,
        type=AcceleratorClass,
        short_names=("aclass",),
        name_limit=NAME_LIMIT,
        columns=(
            Column("Memory", "integer", ".spec.memoryBytes", "Bytes of device memory."),
            Column("TDP", "integer", ".spec.tdpWatts", "Thermal design power in watts."),
            Column("GPUs", "integer", ".status.gpus", "GPUs of it in the cluster."),
            Column("Free", "integer", ".status.freeGpus", "GPUs of it that nobody uses."),
            Column("Sharing", "string", ".spec.sharing", "How one GPU may be shared.", wide=True),
            AGE,
        ),
    ),
    Kind(
        resource=POWER_DOMAIN,
        type=PowerDomain,
        short_names=("pdom",),
        name_limit=NAME_LIMIT,
        columns=(
            _PHASE,
            Column("Drawn", "integer", ".status.drawnWatts", "Watts drawn at the last reports."),
            Column("Limit", "integer", ".status.limitWatts", "Rating after feeds and margin."),
            Column("Nodes", "integer", ".status.nodes", "Nodes that draw through it."),
            _WHY,
            Column("Rating", "integer", ".spec.ratingWatts", "What the breaker carries.", wide=True),
            Column("Parent", "string", ".spec.parent", "Domain this one draws through.", wide=True),
            AGE,
        ),
    ),
    Kind(
        resource=ACCELERATOR_NODE,
        type=AcceleratorNode,
        short_names=("anode",),
        columns=(
            _PHASE,
            Column("Accelerator", "string", ".status.accelerator", "AcceleratorClass of the GPUs."),
            Column("GPUs", "integer", ".status.gpuCount", "Healthy GPUs."),
            Column("Fabric", "string", ".status.fabric", "Island of the fastest NIC."),
            Column("Watts", "number", ".status.watts", "Power drawn at the last report."),
            Column("Cap", "integer", ".status.capWatts", "Power cap in force.", wide=True),
            Column("Agent", "string", ".status.agentVersion", "Version of the agent.", wide=True),
            AGE,
        ),
    ),
)

BY_KIND: dict[str, Kind] = {kind.resource.kind: kind for kind in KINDS}
"""Our kinds by the word that manifests use."""

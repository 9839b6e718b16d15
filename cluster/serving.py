"""What is served: models, variants, services, launchers, replicas, weights and load."""

from __future__ import annotations

from enum import StrEnum

from cluster.base import Noun, Ref
from cluster.hardware import Slot
from cluster.refused import Refused
from cluster.restraint import Hold, Moves, left_of
from cluster.taints import Toleration


class Mode(StrEnum):
    """How far the operator may go: watch only, say what it would do, or do it."""

    OFF = "Off"
    RECOMMEND = "Recommend"
    AUTO = "Auto"


class Tier(StrEnum):
    """How warm a replica is. Below `asleep_discard` the replica is deleted; only weight copies remain."""

    AWAKE = "awake"
    ASLEEP_HOST = "asleep_host"
    ASLEEP_DISCARD = "asleep_discard"


class Role(StrEnum):
    """What part of a request a replica computes."""

    MIXED = "mixed"
    PREFILL = "prefill"
    DECODE = "decode"


class ReplicaPhase(StrEnum):
    """The life of a replica; legal arrows are in `cluster.lifecycles`."""

    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    SLEEPING = "sleeping"
    ASLEEP = "asleep"
    WAKING = "waking"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"
    LOST = "lost"
    GONE = "gone"


class Model(Noun, kw_only=True, frozen=True):
    """A network's shape, as far as capacity, memory and transfer depend on it.

    `fingerprint` identifies weights *and* KV layout: only equal fingerprints may exchange KV.
    """

    name: str
    parameters: float
    layers: int
    hidden_size: int
    heads: int = 0
    kv_heads: int = 0
    kv_bytes_per_token: int
    weight_bytes: int
    max_context_tokens: int = 131_072
    fingerprint: str = ""


class Variant(Noun, kw_only=True, frozen=True):
    """One way to run a model: GPU product, how many, how they are split, precision and engine.

    `milli`: thousandths that it has of its one GPU, memory and compute alike; 1000 for whole GPUs.
    """

    accelerator: str
    gpus: int = 1
    milli: int = 1000
    tensor: int = 1
    pipeline: int = 1
    precision: str = "bf16"
    engine: str = "simulated"

    @property
    def key(self) -> str:
        """A stable, readable key, e.g. `A100-80x2-bf16`, or `A100-80x0.25-bf16` for a quarter of one."""
        return f"{self.accelerator}x{self.gpu_share:g}-{self.precision}"

    @property
    def gpu_share(self) -> float:
        """GPUs that it takes, in parts of one where it shares."""
        return self.gpus * self.milli / 1_000

    @property
    def shares(self) -> bool:
        """Whether it has only a part of its GPU."""
        return self.milli < 1_000


class Objective(Noun, kw_only=True, frozen=True):
    """A latency promise for a class of requests, at a percentile, and what breaking it costs.

    `unserved_dollars` is the price of leaving one request per second unserved for an hour. At most `spot_share` of the
    class's requests may be routed to spot pools. `survives_loss`: when any one replica is lost, the others carry the
    whole class.
    """

    request_class: str = "default"
    ttft_seconds: float
    tpot_seconds: float
    percentile: float = 0.95
    priority: int = 0
    unserved_dollars: float = 50.0
    spot_share: float = 1.0
    survives_loss: bool = False

    @property
    def key(self) -> str:
        """Class and promise, e.g. `default@2s/0.04s/p95`: throughput depends on both."""
        return (
            f"{self.request_class}@{self.ttft_seconds:g}s/{self.tpot_seconds:g}s/p{100.0 * self.percentile:g}"
        )


class Policies(Noun, kw_only=True, frozen=True):
    """Names and configurations (builtins, decoded by the registry) of a service's policies, by loop."""

    name: dict[str, str] = {}
    config: dict[str, dict[str, object]] = {}


class Rollout(Noun, kw_only=True, frozen=True):
    """How far a service's revision is, as it is kept beside the user's object.

    `number` counts revisions (and returns to one), `began_seconds` is when this one was first wanted. `complete`: all
    that was wanted of it was ready once. `back_to` is the newest complete revision other than this one, empty where
    there is none. `given_up` is the one the user's object asks for and that did not become ready: while it is set,
    the service is of the revision before.
    """

    number: int = 0
    began_seconds: float = 0.0
    complete: bool = True
    back_to: str = ""
    given_up: str = ""


class Service(Noun, kw_only=True, frozen=True):
    """A model to be served under objectives.

    `floor_units` and `ceiling_units` bound capacity in units of the reference variant (the first
    allowed one that is feasible); `replicas` is the user's or HPA's `scale` in the same unit.
    `expected_*` is the load declared by the user, planned for until load has been measured. `image` is the engine's
    as the user wants it; empty = the operator's default. `revision` names what an engine of this service is started
    from (model, image, the user's part of the pod): replicas of another one are replaced, inside what `rollout` says.
    `held` says why nothing may be done about it, `moves` how many of its running replicas may still be moved by our own
    choice (None: as many as it takes). `refused` stands while its pods are refused. `tolerates` are taints that
    its pods stand, `confined_to` the nodes that their volumes can be reached from (None: any) because of `confined_by`,
    `cpu_millis` and `memory_bytes` what one pod asks for beside its devices.
    """

    ref: Ref
    model: Model
    image: str = ""
    revision: str = ""
    rollout: Rollout = Rollout()
    objectives: tuple[Objective, ...]
    variants: tuple[Variant, ...]
    floor_units: int = 0
    ceiling_units: int = 1_000
    replicas: int = 0
    expected_requests_per_second: float = 0.0
    expected_input_tokens: float = 0.0
    expected_output_tokens: float = 0.0
    violation_budget: float = 0.01
    mode: Mode = Mode.AUTO
    hold_requests: int = 1_000
    hold_seconds: float = 300.0
    keep_alive_seconds: float = 600.0
    drain_seconds: float = 60.0
    migrations_per_minute: int = 60
    refused: Refused | None = None
    policies: Policies = Policies()
    held: Hold = Hold.NONE
    moves: Moves | None = None
    tolerates: tuple[Toleration, ...] = ()
    confined_to: tuple[str, ...] | None = None
    confined_by: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0

    @property
    def name(self) -> str:
        """`namespace/name` of the service."""
        return self.ref.name

    @property
    def moves_left(self) -> int:
        """How many of its running replicas may still be moved now, as far as its own budget goes."""
        return left_of(self.moves)

    @property
    def priority(self) -> int:
        """The highest priority among the classes."""
        return max((o.priority for o in self.objectives), default=0)


class LoadHistogram(Noun, kw_only=True, frozen=True):
    """Measured load of one service and class on a grid of (input, output) token edges.

    `cells` is row-major [inputs x outputs] in requests per second, with *soft* (bilinear hat)
    weights: a request between two edges counts partly in each (research: gpu-selection §2.4,
    total load error 0.1-1 % against 60 % for rounding up). Held requests count as demand.
    """

    service: str
    request_class: str = "default"
    input_edges: tuple[int, ...]
    output_edges: tuple[int, ...]
    cells: tuple[float, ...]
    window_seconds: float
    held_per_second: float = 0.0
    rejected_per_second: float = 0.0
    observed_seconds: float = 0.0

    @property
    def requests_per_second(self) -> float:
        """Total offered rate in the window."""
        return float(sum(self.cells))


class Launcher(Noun, kw_only=True, frozen=True):
    """The pod(s) that own devices. `variant` None means it may host any. Phases as a replica's."""

    key: str
    ref: Ref
    slots: tuple[Slot, ...]
    variant: Variant | None = None
    phase: ReplicaPhase = ReplicaPhase.PENDING


class Replica(Noun, kw_only=True, frozen=True):
    """A service's right to be served by a variant: one engine process in a launcher.

    `stage` names the current start-up stage (image, container, weights, engine, warm-up). `revision`
    is the `Service.revision` it was made from; empty = unknown, taken for the current one. `fault` is the kubelet's
    word for what keeps its containers from running (CrashLoopBackOff, ImagePullBackOff), empty while nothing does;
    `restarts` counts how often they were started again. `kept_by` is the annotation
    that keeps it where it is (empty: none), `budgets` are the keys of the PodDisruptionBudgets over it. `blocked` says it in
    the kubelet's whole sentence; `unprepared`: its volumes are not mounted yet.
    """

    key: str
    ref: Ref
    service: str
    launcher: str
    variant: Variant
    pool: str = ""
    phase: ReplicaPhase = ReplicaPhase.PENDING
    tier: Tier = Tier.AWAKE
    role: Role = Role.MIXED
    stage: str = ""
    ordinal: int = 0
    revision: str = ""
    fault: str = ""
    restarts: int = 0
    kept_by: str = ""
    budgets: tuple[str, ...] = ()
    blocked: str = ""
    unprepared: bool = False
    phase_since_seconds: float = 0.0
    last_busy_seconds: float = 0.0


class WeightCopy(Noun, kw_only=True, frozen=True):
    """Weights of a model in a node's DRAM or NVMe, or in a zone's store."""

    model: str
    node: str
    tier: str
    bytes: int
    state: str = "present"
    last_used_seconds: float = 0.0

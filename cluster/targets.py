"""Standing intents: what a loop has decided should hold until it decides otherwise.

Every target names its owner loop and when it was decided; a newer target of the same key replaces it.
"""

from __future__ import annotations

from cluster.base import Noun
from cluster.hardware import Slot
from cluster.size_plan import SizePlan


class MixPart(Noun, kw_only=True, frozen=True):
    """`units` replicas of one variant bought from one pool; `weight` is their share of the traffic."""

    variant: str
    pool: str
    units: int
    weight: float = 0.0


class SizeShares(Noun, kw_only=True, frozen=True):
    """How a mix routes each size: `shares` maps `class|variant|pool` to the fraction of each size's requests, row-major on
    the edges [inputs x outputs]. Sizes without load have none, and no column has any of what is shed.
    """

    input_edges: tuple[int, ...]
    output_edges: tuple[int, ...]
    shares: dict[str, tuple[float, ...]]


class Mix(Noun, kw_only=True, frozen=True):
    """A combination of variants, what it costs and what it carries.

    `routing` maps `class|variant|pool` to the fraction of that class's requests, summed over buckets
    by rate; fractions of one class sum to 1 less what is shed. `sizes` says it size by size, of a final mix that was
    planned so (None: every size alike).
    """

    parts: tuple[MixPart, ...] = ()
    dollars_per_hour: float = 0.0
    requests_per_second: float = 0.0
    unserved_per_second: float = 0.0
    routing: dict[str, float] = {}
    sizes: SizeShares | None = None

    @property
    def text(self) -> str:
        """Human text, e.g. `6 A100-80x1-bf16 + 2 L4x1-bf16`."""
        return " + ".join(f"{part.units} {part.variant}" for part in self.parts if part.units) or "nothing"


class Scored(Noun, kw_only=True, frozen=True):
    """An alternative that was weighed, its objective in dollars per hour, or the code that excludes it."""

    mix: Mix
    dollars_per_hour: float
    code: str = ""


class Target(Noun, kw_only=True, frozen=True):
    """Base of all targets."""

    owner: str
    decided_seconds: float


class Menu(Target, tag=True, kw_only=True, frozen=True):
    """At most 50 candidate mixes of a service, cheapest first under the standing prices.

    `joint`: the first is the service's part of one plan for all that compete with it, and is kept free for it. `prices`
    are then what one more GPU of a pool would save that plan, dollars per hour, where it would, and `closed` pools of
    which nothing beyond the part may be taken, though GPUs are free: the watts of their domain are spoken for.
    """

    service: str
    mixes: tuple[Mix, ...]
    joint: bool = False
    prices: dict[str, float] = {}
    closed: tuple[str, ...] = ()


class LoadShape(Noun, kw_only=True, frozen=True):
    """What the requests look like: shares on a grid of (input, output) token edges, per class.

    `cells[class]` is row-major [inputs x outputs]; all shares of all classes sum to 1.
    """

    input_edges: tuple[int, ...]
    output_edges: tuple[int, ...]
    cells: dict[str, tuple[float, ...]]


class Capacity(Target, tag=True, kw_only=True, frozen=True):
    """The chosen mix of a service.

    `wanted_per_second` and `shape` are the load it was chosen for (`shape` None = as declared by the
    user); `wanted_units` is the least capacity whatever the load, in units of the reference variant,
    and with owner `user` the exact number of them. `exchanged`: the mix took the place of another one rather than
    growing or shrinking it, so what goes because of it is moved by our own choice.
    """

    service: str
    mix: Mix
    wanted_per_second: float
    wanted_units: int = 0
    shape: LoadShape | None = None
    quantile: float = 0.5
    lead_seconds: float = 0.0
    alternatives: tuple[Scored, ...] = ()
    exchanged: bool = False
    final: bool = False


class Routes(Target, tag=True, kw_only=True, frozen=True):
    """What a service's gateways are told, as `SetRoutes` put it in force: weights by replica, and the plan by size.

    It stands beyond its leader, so that a successor tells gateways the same until it decides otherwise.
    """

    service: str
    weights: dict[str, float]
    plan: SizePlan | None = None


class Share(Target, tag=True, kw_only=True, frozen=True):
    """How a pool's GPUs are split between serving and training.

    `nodes_to_buy`: the chosen mixes count on so many nodes beyond those that exist, ordered ones included.
    """

    pool: str
    serving_gpus: int
    training_gpus: int
    nodes_to_buy: int = 0


class Prices(Target, tag=True, kw_only=True, frozen=True):
    """Dual value of one more GPU per pool, dollars per hour."""

    pool: str
    dollars_per_gpu_hour: float


class Residuals(Target, tag=True, kw_only=True, frozen=True):
    """Value of a free remainder of so many milli-GPU on a product, for packing."""

    accelerator: str
    dollars_by_milli: dict[str, float]


class Warm(Target, tag=True, kw_only=True, frozen=True):
    """How many copies of a model to keep at each tier, and until when the last awake one is kept."""

    service: str
    copies: dict[str, int]
    keep_until_seconds: float | None = None


class Queue(Target, tag=True, kw_only=True, frozen=True):
    """Order of waiting jobs in a queue and when each is expected to start (None = unknown)."""

    queue: str
    order: tuple[str, ...]
    expected_start_seconds: tuple[float | None, ...] = ()


class Budget(Target, tag=True, kw_only=True, frozen=True):
    """Watts a power domain may plan for."""

    domain: str
    watts: int


class Cadence(Target, tag=True, kw_only=True, frozen=True):
    """Checkpoint interval of a job and the spares kept for it."""

    job: str
    checkpoint_seconds: float
    spares: tuple[Slot, ...] = ()


AnyTarget = Menu | Capacity | Routes | Share | Prices | Residuals | Warm | Queue | Budget | Cadence

_KEY_FIELD = {
    Menu: "service",
    Capacity: "service",
    Routes: "service",
    Share: "pool",
    Prices: "pool",
    Residuals: "accelerator",
    Warm: "service",
    Queue: "queue",
    Budget: "domain",
    Cadence: "job",
}


def target_key(target: AnyTarget) -> str:
    """Key under which a standing target is kept: `Kind/subject`."""
    kind = type(target)
    return f"{kind.__name__}/{getattr(target, _KEY_FIELD[kind])}"

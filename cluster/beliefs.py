"""What estimators believe. Policies read beliefs as data: value, error band, source, and how old."""

from __future__ import annotations

from cluster.base import Noun
from cluster.size_plan import StepFigures


class CapacityBelief(Noun, kw_only=True, frozen=True):
    """Throughput of one variant for one model and class under that class's objective.

    `request_class` is the objective's key (class and promise), so that services of one model may
    promise different things; the bare class name says that the figure holds for any promise.

    `grid` is row-major [inputs x outputs] requests per second of one replica, 0 = infeasible cell.
    `concurrency` is B, the running requests of one replica at its limit (for the pool-size headroom
    rho(n) = 1 - 2/sqrt(n B), research: gpu-selection §2.5). `excluded` names why the variant serves
    nothing at all, with `need` and `have` in `unit`. `error` is the relative half-width of the band. `steps` is how long
    its engine's steps take, for gateways that dispatch by size (None: nobody knows).
    """

    model: str
    variant: str
    request_class: str = "default"
    input_edges: tuple[int, ...]
    output_edges: tuple[int, ...]
    grid: tuple[float, ...]
    concurrency: float = 1.0
    error: float = 0.0
    source: str = "roofline"
    as_of_seconds: float = 0.0
    excluded: str = ""
    need: float = 0.0
    have: float = 0.0
    unit: str = ""
    steps: StepFigures | None = None


class DemandBelief(Noun, kw_only=True, frozen=True):
    """Joint sample paths of a service's demand: `paths` is row-major [samples x steps] in req/s."""

    service: str
    paths: tuple[float, ...]
    samples: int
    steps: int
    step_seconds: float
    issued_seconds: float
    degraded: bool = False


class StartBelief(Noun, kw_only=True, frozen=True):
    """How long a start takes from a tier: quantiles in seconds over all stages."""

    model: str
    variant: str
    tier: str
    p50_seconds: float
    p90_seconds: float
    p99_seconds: float
    source: str = "prior"
    as_of_seconds: float = 0.0


class HazardBelief(Noun, kw_only=True, frozen=True):
    """Arrivals per second given a service has been idle for the ages listed."""

    service: str
    ages_seconds: tuple[float, ...]
    arrivals_per_second: tuple[float, ...]
    as_of_seconds: float = 0.0


class LinkBelief(Noun, kw_only=True, frozen=True):
    """Effective bandwidth between two ends (nodes, tiers or stores)."""

    source: str
    target: str
    bytes_per_second: float
    error: float = 0.0
    as_of_seconds: float = 0.0


class PowerBelief(Noun, kw_only=True, frozen=True):
    """Watts and speed of one GPU product in one phase at the clocks listed."""

    accelerator: str
    phase: str
    clocks_mhz: tuple[int, ...]
    watts: tuple[float, ...]
    speed: tuple[float, ...]
    as_of_seconds: float = 0.0


class FailureBelief(Noun, kw_only=True, frozen=True):
    """Failures per node-hour of a pool."""

    pool: str
    per_node_hour: float
    as_of_seconds: float = 0.0


class ExpertBelief(Noun, kw_only=True, frozen=True):
    """Weights of policy settings from replaying the past."""

    service: str
    weights: dict[str, float]
    as_of_seconds: float = 0.0


class Beliefs(Noun, kw_only=True, frozen=True):
    """All beliefs a view carries, by stable key.

    `capacity` is keyed `model|variant|class|image` (without an image: it holds for all), `start` `model|variant|tier`, `link` `source|target`,
    `power` `accelerator|phase`; the rest by their first field.
    """

    capacity: dict[str, CapacityBelief] = {}
    demand: dict[str, DemandBelief] = {}
    start: dict[str, StartBelief] = {}
    hazard: dict[str, HazardBelief] = {}
    link: dict[str, LinkBelief] = {}
    power: dict[str, PowerBelief] = {}
    failure: dict[str, FailureBelief] = {}
    expert: dict[str, ExpertBelief] = {}

    @staticmethod
    def capacity_key(model: str, variant: str, request_class: str, image: str = "") -> str:
        """Key of a `CapacityBelief`; with the engine's image where engines of others may be as fast as they will."""
        return f"{model}|{variant}|{request_class}" + (f"|{image}" if image else "")

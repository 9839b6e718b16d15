"""How a replica starts: image, container, weights beside the process, engine, warm-up, ready.

::

    T_start = T_image + T_container + max(T_weights, T_process) + T_engine + T_warm_up

(research/cold-start.md §1.2, without node provisioning). Weights come over one of the node's tiers, whose
bandwidth all loads of the moment share: b(n) = B / n. The other stages take drawn times: the figure of the
`StartSpec` times a log-normal factor of median 1, from the generator that is handed in. Sleep and wake are not
modelled here yet. Where the bytes of the weights meet other traffic (a PCIe switch, a NIC), whoever knows that traffic
carries them: it is asked by `fetch`, and tells with `fetched`.
"""

import enum
import heapq
import math
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from simulator.physics.network import SharedLink


class Stage(enum.Enum):
    """Where a starting replica stands."""

    IMAGE = "image"
    CONTAINER = "container"
    WEIGHTS = "weights"
    ENGINE = "engine"
    WARM_UP = "warm_up"
    READY = "ready"


class WeightTier(enum.Enum):
    """Where the weights lie before the start."""

    REMOTE = "remote"
    NVME = "nvme"
    DRAM = "dram"


TIER_BYTES_PER_SECOND: Final[dict[WeightTier, float]] = {
    WeightTier.REMOTE: 3.1e9,
    WeightTier.NVME: 3.6e9,
    WeightTier.DRAM: 21e9,
}
"""Effective bandwidth of a node's tiers: one host streaming from S3 3.1 GB/s; safetensors from NVMe 16 GB in
4.44 s (O_DIRECT loaders reach 20-24); pinned memory to an A100 21 GB/s (cold-start.md §2.2)."""


Fetch = Callable[[str, "StartSpec"], None]
"""Is told that the weights of a start are wanted now."""

_DRAWN: Final = ("image", "container", "process", "engine", "warm_up")


class StartSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one replica has to go through, figures for a 7-8B model on a warm node as defaults.

    ``image_bytes`` 0 means that the node has the image. Defaults (cold-start.md §2.2): image 5.6 GB in 101 s,
    container 3 s, framework import and device context 20 s of the 39 s that include Ray, engine start 39 s cold, of
    which 19.4 s are compilation that a warm cache saves. ``jitter`` is the sigma of the log-normal factor.
    ValueError for a negative figure.
    """

    weight_bytes: int
    tier: WeightTier = WeightTier.REMOTE
    image_bytes: int = 0
    image_bytes_per_second: float = 5.6e9 / 101.0
    container_seconds: float = 3.0
    process_seconds: float = 20.0
    engine_seconds: float = 39.0 - 19.4
    warm_up_seconds: float = 2.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        for name in ("weight_bytes", "image_bytes", "jitter", *(f"{what}_seconds" for what in _DRAWN[1:])):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} of a start is {getattr(self, name)}; it must be finite and not negative"
                )
        if not self.image_bytes_per_second > 0.0:
            raise ValueError(f"image_bytes_per_second is {self.image_bytes_per_second}; it must be positive")


class StageEvent(msgspec.Struct, frozen=True, gc=False):
    """A starting replica entered ``stage``."""

    at_seconds: float
    name: str
    stage: Stage


class _Start:
    """One start under way: the drawn seconds of its stages, and which of the two parallel ones are done."""

    __slots__ = ("factors", "open", "spec", "stage")

    def __init__(self, spec: StartSpec, factors: dict[str, float]) -> None:
        self.spec = spec
        self.factors = factors
        self.stage = Stage.IMAGE
        self.open = 0

    def seconds(self, what: str) -> float:
        if what == "image":
            return self.spec.image_bytes / self.spec.image_bytes_per_second * self.factors[what]
        return float(getattr(self.spec, f"{what}_seconds")) * self.factors[what]


class Loader:
    """All starts of one node, and the tiers their weights come from.

    ``rng`` draws the jitter, five numbers per start in the order of `begin` calls. With ``fetch`` the weights do not come
    over the tiers here: it is called when they are wanted, and `fetched` ends that.
    """

    __slots__ = ("_fetch", "_order", "_rng", "_starts", "_timers", "links", "now")

    def __init__(
        self,
        rng: np.random.Generator,
        started_seconds: float = 0.0,
        tier_bytes_per_second: dict[WeightTier, float] | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self._fetch = fetch
        rates = TIER_BYTES_PER_SECOND | (tier_bytes_per_second or {})
        self.links = {tier: SharedLink(rate, started_seconds) for tier, rate in rates.items()}
        self.now = started_seconds
        self._rng = rng
        self._starts: dict[str, _Start] = {}
        self._timers: list[tuple[float, int, str, Stage]] = []
        self._order = 0

    def begin(self, name: str, spec: StartSpec) -> StageEvent:
        """Start replica ``name`` now; ValueError when one of that name is starting."""
        if name in self._starts:
            raise ValueError(
                f"replica {name} is already starting on this node; cancel it before starting it again"
            )
        factors = np.exp(spec.jitter * self._rng.standard_normal(len(_DRAWN))).tolist()
        start = self._starts[name] = _Start(spec, dict(zip(_DRAWN, factors, strict=True)))
        self._after(start.seconds("image"), self.now, name, Stage.CONTAINER)
        return StageEvent(self.now, name, Stage.IMAGE)

    def fetched(self, name: str, at_seconds: float) -> list[StageEvent]:
        """All weights of a start have come, now; returns the stage that this lets it enter. Nothing for one given up."""
        events: list[StageEvent] = []
        start = self._starts.get(name)
        if start is not None and start.stage is Stage.WEIGHTS:
            self._one_of_two_done(name, at_seconds, events)
        return events

    def cancel(self, name: str) -> bool:
        """Give a start up; False when no replica of that name is starting."""
        start = self._starts.pop(name, None)
        if start is None:
            return False
        self.links[start.spec.tier].cancel(name)
        self._timers = [timer for timer in self._timers if timer[2] != name]
        heapq.heapify(self._timers)
        return True

    def stage(self, name: str) -> Stage | None:
        """Stage of a starting replica; None when it is not starting (any more)."""
        start = self._starts.get(name)
        return start.stage if start else None

    def next_event_seconds(self) -> float:
        """When something next happens; infinity when nothing starts."""
        timer = self._timers[0][0] if self._timers else math.inf
        return min(timer, *(link.next_event_seconds() for link in self.links.values()))

    def advance_to(self, until_seconds: float) -> list[StageEvent]:
        """Live up to and including then; returns the stages entered, in order of time."""
        events: list[StageEvent] = []
        while self._starts and (at := self.next_event_seconds()) <= until_seconds:
            for tier in WeightTier:
                for done_at, name in self.links[tier].advance_to(at):
                    self._one_of_two_done(name, done_at, events)
            while self._timers and self._timers[0][0] <= at:
                _, _, name, stage = heapq.heappop(self._timers)
                self._enter(name, stage, at, events)
        for link in self.links.values():
            link.advance_to(until_seconds)
        self.now = max(self.now, until_seconds)
        return events

    def _enter(self, name: str, stage: Stage, at: float, events: list[StageEvent]) -> None:
        start = self._starts[name]
        if stage is Stage.ENGINE:  # the process is up; the weights may still be coming
            self._one_of_two_done(name, at, events)
            return
        start.stage = stage
        events.append(StageEvent(at, name, stage))
        if stage is Stage.CONTAINER:
            self._after(start.seconds("container"), at, name, Stage.WEIGHTS)
        elif stage is Stage.WEIGHTS:
            start.open = 2
            if self._fetch is None:
                self.links[start.spec.tier].begin(name, start.spec.weight_bytes)
            else:
                self._fetch(name, start.spec)
            self._after(start.seconds("process"), at, name, Stage.ENGINE)
        elif stage is Stage.WARM_UP:
            self._after(start.seconds("warm_up"), at, name, Stage.READY)
        else:
            del self._starts[name]

    def _one_of_two_done(self, name: str, at: float, events: list[StageEvent]) -> None:
        start = self._starts[name]
        start.open -= 1
        if not start.open:
            start.stage = Stage.ENGINE
            events.append(StageEvent(at, name, Stage.ENGINE))
            self._after(start.seconds("engine"), at, name, Stage.WARM_UP)

    def _after(self, seconds: float, at: float, name: str, stage: Stage) -> None:
        self._order += 1
        heapq.heappush(self._timers, (at + seconds, self._order, name, stage))

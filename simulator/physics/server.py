"""What a simulated server is made of, and what it tells."""

import math

import msgspec

from simulator.physics.loading import StageEvent, WeightTier
from simulator.physics.meter import GpuReading
from simulator.physics.network import NicSpec
from simulator.physics.power import DEFAULT_POWER, PowerConstants, server_watts
from simulator.physics.sequence import EngineEvent
from simulator.physics.specs import GpuSpec, check_positive


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One server. ``speed`` 1 is healthy, 0.8 runs everything at 80 %.

    ``safe_watts`` is what the server may draw without a lease (0: no limit), ``actuation_seconds`` how long a new
    limit or clock takes to land: NVML writes and clock switches take 5 to 100 ms (research/power.md §4, §5).
    ``tier_bytes_per_second`` replaces the usual bandwidth of some tiers.
    """

    name: str
    gpu: GpuSpec
    gpus: int
    nic: NicSpec
    speed: float = 1.0
    safe_watts: int = 0
    actuation_seconds: float = 0.05
    tier_bytes_per_second: dict[WeightTier, float] = {}
    power: PowerConstants = DEFAULT_POWER

    def __post_init__(self) -> None:
        check_positive(f"node {self.name}", self, ("gpus", "speed"))

    @property
    def base_watts(self) -> int:
        """Whole watts to count beside the GPUs' own limits, so that their sum always covers the server.

        The server's overhead grows with its GPUs' draw; this is the overhead at their highest limits.
        """
        return self.max_watts - self.gpus * self.gpu.max_watts

    @property
    def min_watts(self) -> int:
        """Whole watts that cover the server with every GPU at its lowest limit."""
        return math.ceil(server_watts(self.gpus * self.gpu.min_watts, self.gpus, self.power))

    @property
    def max_watts(self) -> int:
        """Whole watts that cover the server with every GPU at its highest limit."""
        return math.ceil(server_watts(self.gpus * self.gpu.max_watts, self.gpus, self.power))


class PowerState(msgspec.Struct, frozen=True, gc=False):
    """Limit of each GPU and clock lock (0: free) in effect."""

    gpu_cap_watts: int
    clock_mhz: int


class NodeAdvance(msgspec.Struct, frozen=True):
    """What happened on a node, each list in order of time: (replica, request event) and start stages entered."""

    requests: list[tuple[str, EngineEvent]]
    stages: list[StageEvent]


class NodeReading(msgspec.Struct, frozen=True, gc=False):
    """Sensors of a node: means since the reading before. ``uncapped_watts``: without any limit or lock."""

    at_seconds: float
    watts: float
    uncapped_watts: float
    gpu_cap_watts: int
    clock_mhz: int
    gpus: tuple[GpuReading, ...]

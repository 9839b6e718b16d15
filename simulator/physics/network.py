"""Networks between nodes: classes of NICs, the time of collectives, and transfers that share a link.

Times follow the alpha-beta model: a message of S bytes takes alpha + S / beta. A ring all-reduce among n members
takes 2 (n - 1) alpha + 2 (n - 1) / n S / beta (research/training-placement.md §1.3: reduce-scatter and all-gather).
A ring is as fast as its slowest member, and members of unlike NIC classes meet on plain Ethernet sockets, as NCCL
binds one network per communicator (§1.1).
"""

import enum
import heapq
import math
from collections.abc import Sequence
from typing import Final

import msgspec


class NicClass(enum.Enum):
    """Kind of network that a NIC speaks."""

    INFINIBAND = "infiniband"
    ROCE = "roce"
    ETHERNET = "ethernet"


class NicSpec(msgspec.Struct, frozen=True, gc=False):
    """The ports of one class that a node brings into collectives: ``count`` of ``rate_bits_per_second`` each.

    ValueError when either is not positive.
    """

    nic: NicClass
    rate_bits_per_second: float
    count: int = 1

    def __post_init__(self) -> None:
        if not (0.0 < self.rate_bits_per_second < math.inf and self.count > 0):
            raise ValueError(
                f"{self.count} {self.nic.value} ports of {self.rate_bits_per_second} bit/s: both must be positive"
            )


EFFICIENCY: Final[dict[NicClass, float]] = {
    NicClass.INFINIBAND: 0.75,
    NicClass.ROCE: 0.72,
    NicClass.ETHERNET: 0.55,
}
"""Fraction of the line rate that collectives reach. InfiniBand and RoCE: Holmes's fitted 9.3 and 4.5 GB/s per GPU
over its 4 and 2 ports of 200 Gbit/s (training-placement.md §4.2); Ethernet: assumed for TCP sockets."""

ALPHA_SECONDS: Final[dict[NicClass, float]] = {
    NicClass.INFINIBAND: 5e-6,
    NicClass.ROCE: 8e-6,
    NicClass.ETHERNET: 5e-5,
}
"""Latency of one message. Assumed: usual orders of magnitude of RDMA and TCP between hosts."""


def effective_bytes_per_second(nic: NicSpec, used_as: NicClass | None = None) -> float:
    """Bytes per second one node sustains in a collective; ``used_as`` for a NIC that has to speak plain Ethernet."""
    return nic.count * nic.rate_bits_per_second / 8.0 * EFFICIENCY[used_as or nic.nic]


def common_network(nics: Sequence[NicSpec]) -> tuple[float, float]:
    """(alpha seconds, beta bytes/s) of a ring over nodes with these NICs: the slowest member's.

    ValueError without any node.
    """
    if not nics:
        raise ValueError("a network needs at least one node's NIC; none was given")
    classes = {nic.nic for nic in nics}
    spoken = nics[0].nic if len(classes) == 1 else NicClass.ETHERNET
    return ALPHA_SECONDS[spoken], min(effective_bytes_per_second(nic, spoken) for nic in nics)


def allreduce_seconds(size_bytes: float, nics: Sequence[NicSpec]) -> float:
    """Seconds of a ring all-reduce of ``size_bytes`` among the nodes with ``nics``; 0 for a single node."""
    members = len(nics)
    if members < 2:
        return 0.0
    alpha, beta = common_network(nics)
    return 2.0 * (members - 1) * (alpha + size_bytes / (members * beta))


class SharedLink:
    """A link whose bandwidth its active transfers share equally, event by event.

    With n transfers active each gets ``bytes_per_second / n`` (at most ``per_transfer_bytes_per_second``); when one
    joins or ends, the rates of the others change at that moment. Since all have the same rate, a transfer is done
    when the bytes that any one of them would have received since its start reach its size: one heap suffices.
    """

    __slots__ = (
        "_active",
        "_base",
        "_base_at",
        "_order",
        "_sizes",
        "bytes_per_second",
        "now",
        "per_transfer",
    )

    def __init__(
        self,
        bytes_per_second: float,
        started_seconds: float = 0.0,
        per_transfer_bytes_per_second: float = math.inf,
    ) -> None:
        if not (bytes_per_second > 0.0 and per_transfer_bytes_per_second > 0.0):
            raise ValueError(f"bytes_per_second is {bytes_per_second}; a link must carry something")
        self.bytes_per_second = bytes_per_second
        self.per_transfer = per_transfer_bytes_per_second
        self.now = self._base_at = started_seconds
        self._base = 0.0  # bytes one transfer would have received by _base_at
        self._active: list[tuple[float, int, str]] = []
        self._sizes: dict[str, float] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._active)

    @property
    def rate(self) -> float:
        """Bytes per second that each active transfer receives now."""
        return min(self.per_transfer, self.bytes_per_second / max(len(self._active), 1))

    def begin(self, name: str, size_bytes: float) -> None:
        """Start a transfer now; ValueError when one of that name is active."""
        if name in self._sizes:
            raise ValueError(
                f"transfer {name} is already active on this link; end it before starting it again"
            )
        self._settle(self.now)
        self._order += 1
        self._sizes[name] = self._base + size_bytes
        heapq.heappush(self._active, (self._base + size_bytes, self._order, name))

    def cancel(self, name: str) -> None:
        """Drop a transfer now; nothing happens when it is not active."""
        if self._sizes.pop(name, None) is None:
            return
        self._settle(self.now)
        self._active = [entry for entry in self._active if entry[2] != name]
        heapq.heapify(self._active)

    def next_event_seconds(self) -> float:
        """When the next transfer is done; infinity when none is active."""
        if not self._active:
            return math.inf
        return max(self._base_at + (self._active[0][0] - self._base) / self.rate, self.now)

    def advance_to(self, until_seconds: float) -> list[tuple[float, str]]:
        """Move bytes until then; returns (second, name) of the transfers that ended, in order."""
        done: list[tuple[float, str]] = []
        while self._active and (at := self.next_event_seconds()) <= until_seconds:
            goal, _, name = heapq.heappop(self._active)
            del self._sizes[name]
            self._base, self._base_at = goal, at
            done.append((at, name))
        self.now = max(self.now, until_seconds)
        return done

    def _settle(self, at: float) -> None:
        self._base += (at - self._base_at) * self.rate
        self._base_at = at

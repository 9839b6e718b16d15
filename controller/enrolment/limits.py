"""How much is taken at the door: requests a second in all and from each source, both bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class Bucket:
    """So many at once, and then so many a second."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate_per_second: float, burst: float, now_seconds: float) -> None:
        self._rate = rate_per_second
        self._burst = burst
        self._left = burst
        self._at = now_seconds

    def take(self, now_seconds: float) -> bool:
        """Whether one more may pass now."""
        self._left = min(self._burst, self._left + self._rate * max(0.0, now_seconds - self._at))
        self._at = now_seconds
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Sources:
    """A bucket for each source address; those not heard of for longest make room for new ones."""

    def __init__(
        self, rate_per_second: float, burst: float, most: int, monotonic: Callable[[], float]
    ) -> None:
        self._rate = rate_per_second
        self._burst = burst
        self._most = most
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    def take(self, source: str) -> bool:
        """Whether this source may pass once more now."""
        now = self._monotonic()
        bucket = self._buckets.get(source)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._buckets.popitem(last=False)
            bucket = self._buckets[source] = Bucket(self._rate, self._burst, now)
        self._buckets.move_to_end(source)
        return bucket.take(now)


def source_of(peer: str) -> str:
    """The address of a gRPC peer without its port: "ipv4:10.0.0.7" of "ipv4:10.0.0.7:40112"."""
    return peer.rpartition(":")[0] or peer

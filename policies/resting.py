"""Services whose replicas do not start, one after the other: the next try waits, twice as long each time.

The first failure is answered at once (a GPU died, a node did not bind); a second in a row means that the fault is
rather the image, the model or the cluster, and trying faster would only keep the API server busy.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cluster.serving import Replica, ReplicaPhase

FIRST_SECONDS = 5.0
LONGEST_SECONDS = 300.0


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """One service's failures in a row, the newest ordinal that was counted, and until when nothing is tried."""

    failures: int = 0
    counted: int = 0
    until_seconds: float = 0.0


def pause_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    if failures < 2:
        return 0.0
    return float(min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(failures - 2, 16)))


def after(
    rest: Rest | None, failed: Iterable[Replica], replicas: Iterable[Replica], now: float
) -> Rest | None:
    """The rest that follows: None when a replica younger than the last failure is ready, or nothing ever failed.

    Each replica counts once, by its ordinal, however often it is seen before it is gone; those that fail together
    count as one.
    """
    counted = rest.counted if rest is not None else 0
    if any(r.phase is ReplicaPhase.READY and r.ordinal > counted for r in replicas):
        rest = None
    newest = max((r.ordinal for r in failed), default=0)
    if newest <= counted:
        return rest
    failures = (rest.failures if rest is not None else 0) + 1
    return Rest(failures=failures, counted=newest, until_seconds=now + pause_seconds(failures))

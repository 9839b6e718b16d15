"""The power lease of a node, as a pure state machine (SEAMS §9; research: power §7).

A node draws more than its safe watts only under a lease, which ends by itself: on the monotonic clock, whatever
became of operator, network or agent's stream. Epoch and sequence only grow.
"""

from __future__ import annotations

import msgspec

from agent.node.drivers.base import Code

SHORTEST_TTL_SECONDS = 0.1
"""Shorter than boards take to obey."""
LONGEST_TTL_SECONDS = 30.0
"""A longer lease would be a setting, and the point of leases is that they are none."""


class Lease(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the node may draw until when. Without one `active` is false and the node is at its safe watts."""

    epoch: int = 0
    sequence: int = 0
    watts: int = 0
    clock_mhz: int = 0
    expires_monotonic_seconds: float = 0.0
    active: bool = False


class Grant(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A leader's permission, as it came."""

    epoch: int
    sequence: int
    watts: int
    clock_mhz: int
    ttl_seconds: float


class Bounds(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Node watts that the products allow, base included."""

    min_watts: int
    max_watts: int


NONE = Lease()


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Why a grant changes nothing."""

    code: Code
    message: str


def judge(lease: Lease, grant: Grant, bounds: Bounds) -> Refusal | None:
    """Whether a grant may take force; None when it may.

    Of an older epoch or sequence than the lease's: OLD_EPOCH. The same: DUPLICATE. Watts outside `bounds`, or a
    time to live outside 0.1 to 30 s: OUT_OF_RANGE.
    """
    held = (lease.epoch, lease.sequence)
    new = (grant.epoch, grant.sequence)
    if new == held:
        return Refusal(Code.DUPLICATE, f"Lease {new[0]}/{new[1]} is in force already.")
    if new < held:
        return Refusal(
            Code.OLD_EPOCH, f"Lease {new[0]}/{new[1]} is older than {held[0]}/{held[1]}, which is in force."
        )
    if not bounds.min_watts <= grant.watts <= bounds.max_watts:
        return Refusal(
            Code.OUT_OF_RANGE,
            f"{grant.watts} W is outside what this node can be set to, {bounds.min_watts} to {bounds.max_watts} W.",
        )
    if not SHORTEST_TTL_SECONDS <= grant.ttl_seconds <= LONGEST_TTL_SECONDS:
        return Refusal(
            Code.OUT_OF_RANGE,
            f"A lease of {grant.ttl_seconds:g} s is refused: {SHORTEST_TTL_SECONDS:g} to {LONGEST_TTL_SECONDS:g} s.",
        )
    return None


def granted(grant: Grant, monotonic_seconds: float) -> Lease:
    """The lease that a grant found good makes, counted from when it was received."""
    return Lease(
        epoch=grant.epoch,
        sequence=grant.sequence,
        watts=grant.watts,
        clock_mhz=grant.clock_mhz,
        expires_monotonic_seconds=monotonic_seconds + grant.ttl_seconds,
        active=True,
    )


def due(lease: Lease, monotonic_seconds: float) -> bool:
    """Whether the lease has ended by this moment and is still in force."""
    return lease.active and monotonic_seconds >= lease.expires_monotonic_seconds


def ended(lease: Lease) -> Lease:
    """The lease after it ended: epoch and sequence are remembered, so that the same grant cannot return."""
    return Lease(
        epoch=lease.epoch,
        sequence=lease.sequence,
        expires_monotonic_seconds=lease.expires_monotonic_seconds,
    )

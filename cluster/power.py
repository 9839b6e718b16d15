"""Breakers and leases. All watts are integers so that sums are exact."""

from __future__ import annotations

from enum import StrEnum

from cluster.base import Noun, Ref


class LeasePhase(StrEnum):
    """`none` is the safe state; legal arrows are in `cluster.lifecycles`."""

    NONE = "none"
    SENT = "sent"
    ACTIVE = "active"
    EXPIRED = "expired"


class PowerDomain(Noun, kw_only=True, frozen=True):
    """A breaker: everything in `members` (nodes) and in child domains draws through it.

    `margin` is the share of the rating never planned for (epsilon of research: power §5), `feeds` the
    share of the rating left after a feed loss (1 = healthy). `serving_watts` is what GPUs of replicas below it may be
    planned to draw at their TDP; None: selection plans without regard to watts.
    """

    ref: Ref
    parent: str = ""
    rating_watts: int
    margin: float = 0.03
    feeds: float = 1.0
    members: tuple[str, ...] = ()
    serving_watts: int | None = None
    policy: str = "static_clamp"
    config: dict[str, object] = {}

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.ref.name

    @property
    def limit_watts(self) -> int:
        """What may be granted in all: rating x feeds x (1 - margin), rounded down to whole watts."""
        return int(self.rating_watts * self.feeds * (1.0 - self.margin))


class Lease(Noun, kw_only=True, frozen=True):
    """Permission for a node to draw above its safe watts, for a short time.

    `charged_watts` is what the node counts for in every ancestor: the larger of old and new until the
    agent has acknowledged (SEAMS §9, lease). `expires_seconds` is when it stops counting: the latest moment at
    which the agent, by its own monotonic clock, may still hold it.
    """

    node: str
    watts: int
    charged_watts: int
    clock_mhz: int = 0
    epoch: int = 0
    sequence: int = 0
    issued_seconds: float
    expires_seconds: float
    phase: LeasePhase = LeasePhase.SENT

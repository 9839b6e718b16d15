"""One request on its way through the gateway, and the arrows that its life may take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.lifecycles import REQUEST
from gateway.messages import Arrival

if TYPE_CHECKING:
    from gateway.rows import Row

ARROWS = frozenset(
    [(source, target) for source, targets in REQUEST.items() for target in targets]
    # A request that waits for a second owner was accepted: past its deadline it has failed (SEAMS §9, "any").
    + [("held", "failed")]
)
"""Legal transitions as pairs: one set lookup per transition on the hot path."""

ENDED = frozenset({"finished", "rejected", "cancelled", "failed"})


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that has not ended. `epoch` counts owners; `row` is the owner while dispatched, `tick` the
    frame that took it there.

    `held_seconds` sums finished waits; `held_since_seconds` is
    meaningful while held.
    """

    request_id: int
    arrival: Arrival
    phase: str = "arrived"
    epoch: int = 0
    row: Row | None = None
    tick: int = 0
    first_token_seconds: float | None = None
    held_since_seconds: float = 0.0
    held_seconds: float = 0.0


class Transitions:
    """Moves tickets along legal arrows; what is illegal is refused, and counted by (from, to)."""

    __slots__ = ("refused",)

    def __init__(self) -> None:
        self.refused: Counter[tuple[str, str]] = Counter()

    def move(self, ticket: Ticket, target: str) -> bool:
        """Set the phase and return True, or leave it, count, and return False."""
        if (ticket.phase, target) not in ARROWS:
            self.refused[ticket.phase, target] += 1
            return False
        ticket.phase = target
        return True

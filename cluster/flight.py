"""What was decided but has not happened yet."""

from __future__ import annotations

from enum import StrEnum

from cluster.base import Noun, Ref


class FlightPhase(StrEnum):
    """issued -> acked -> done | failed | expired."""

    ISSUED = "issued"
    ACKED = "acked"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"


class InFlight(Noun, kw_only=True, frozen=True):
    """An accepted action whose effect has not been observed. Its effect is charged at once."""

    id: str
    kind: str
    subject: Ref
    loop: str
    issued_seconds: float
    deadline_seconds: float
    phase: FlightPhase = FlightPhase.ISSUED

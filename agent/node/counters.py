"""What an agent counts from its start: reported to the hub, and the source of its metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counts since the agent started. Commands are counted by their ledger."""

    reports: int = 0
    heartbeats: int = 0
    connects: int = 0
    reconnects: int = 0
    connect_failures: int = 0
    leases_expired: int = 0
    power_failures: int = 0
    old_leaders: int = 0
    acks_dropped: int = 0
    driver_failures: int = 0

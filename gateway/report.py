"""What a gateway tells the operator: measured load, and what each instance has outstanding."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.assign import GatewayConfig
from gateway.load import ClassLoadReport
from gateway.messages import Message
from gateway.service import ServiceState


class InstanceLoadReport(Message, frozen=True):
    """One instance as the gateway sees it: own dispatches, and the engine's last word (None before any)."""

    name: str
    service: str
    outstanding: int
    pending_tokens: int
    connected: bool
    running: int | None
    waiting: int | None
    kv_free_tokens: int | None
    kv_capacity_tokens: int | None


class LoadReport(Message, frozen=True):
    """A whole report; services and instances in order of name."""

    gateway: str
    observed_seconds: float
    route_epoch: int
    route_version: int
    loads: list[ClassLoadReport]
    instances: list[InstanceLoadReport]


def build(
    config: GatewayConfig, services: Mapping[str, ServiceState], epoch: int, version: int, now_seconds: float
) -> LoadReport:
    """Gather a report of all services at `now_seconds`."""
    loads: list[ClassLoadReport] = []
    instances: list[InstanceLoadReport] = []
    for name in sorted(services):
        service = services[name]
        held, oldest = _held_by_class(service)
        for request_class, load in service.loads.items():
            age = now_seconds - oldest.get(request_class, now_seconds)
            loads.append(load.report(name, now_seconds, held.get(request_class, 0), age))
        instances.extend(_instances(service))
    return LoadReport(config.name, now_seconds, epoch, version, loads, instances)


def _held_by_class(service: ServiceState) -> tuple[dict[str, int], dict[str, float]]:
    """Count of held requests, and since when the oldest waits, by class."""
    held: dict[str, int] = {}
    oldest: dict[str, float] = {}
    for ticket in service.held:
        name = service.load_of(ticket.arrival.request_class).request_class
        held[name] = held.get(name, 0) + 1
        oldest[name] = min(oldest.get(name, ticket.held_since_seconds), ticket.held_since_seconds)
    return held, oldest


def _instances(service: ServiceState) -> list[InstanceLoadReport]:
    rows = []
    for row in service.rows.ordered:
        load = row.reported
        rows.append(
            InstanceLoadReport(
                name=row.name, service=service.name, outstanding=len(row.open), pending_tokens=row.pending_tokens,
                connected=row.connected, running=load.running if load else None,
                waiting=load.waiting if load else None, kv_free_tokens=load.kv_free_tokens if load else None,
                kv_capacity_tokens=load.kv_capacity_tokens if load else None,
            )
        )  # fmt: skip
    return rows

"""Copies between nodes: all that leave a node share its NIC."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from simulator.physics.network import SharedLink
from simulator.world.core import Event, Handler
from simulator.world.instances import Instance


class Wires:
    """One outgoing link for each node, made when it is first used."""

    __slots__ = ("_links", "_rate", "_scheduled", "_then")

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._links: dict[str, SharedLink] = {}
        self._scheduled: dict[str, float] = {}
        self._then: dict[str, tuple[Handler, Any]] = {}

    def send(
        self, at_seconds: float, source: Instance, _target: Instance, name: str, size_bytes: float, then: Handler,
        subject: Any,
    ) -> list[Event]:  # fmt: skip
        """Start a copy between two instances; `then` happens to `subject` when all of it has arrived."""
        node = source.node
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = SharedLink(self._rate, at_seconds)
        events = self.settle(at_seconds, node)
        self._then[name] = (then, subject)
        link.begin(name, size_bytes)
        return events + self._look(node, link)

    def settle(self, at_seconds: float, node: str) -> list[Event]:
        """What has arrived from a node by now."""
        return [(at, *self._then.pop(name)) for at, name in self._links[node].advance_to(at_seconds)]

    def due(self, at_seconds: float, node: str) -> list[Event]:
        """The next arrival from a node is due, unless another copy has put it off."""
        if self._scheduled.get(node) != at_seconds:
            return []
        return self.settle(at_seconds, node) + self._look(node, self._links[node])

    def _look(self, node: str, link: SharedLink) -> list[Event]:
        at = link.next_event_seconds()
        self._scheduled[node] = at
        return [(at, arrived, node)] if at < float("inf") else []


def arrived(at_seconds: float, subject: str, world: Any) -> Iterable[Event]:
    """Bytes of a copy are due at the other end."""
    due: list[Event] = world.wires.due(at_seconds, subject)
    return due

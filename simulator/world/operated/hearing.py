"""What the operator hears, late: objects after a watch's delay, agents' and gateways' reports after theirs.

Everything is folded into the same `Observer` that the operator has, when the operator looks; the true state of the world is
not reachable from there. Times in events are UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

import msgspec

from cluster import events as ev
from cluster.hardware import Node, Offer
from cluster.observer import Observer
from cluster.serving import Launcher, Replica, ReplicaPhase
from cluster.silence import silent_nodes

Fold = Callable[[float], bool]
"""Folds something at a UTC time; True when a planner would look at something new."""


class Ears:
    """The way from the world to the operator's model. `lost` are the nodes that count as lost."""

    def __init__(self, observer: Observer, origin_seconds: float) -> None:
        """Nothing is on its way yet; everybody has the time from now on to make itself heard."""
        self.observer = observer
        self.lost: frozenset[str] = frozenset()
        self._inbox: list[tuple[float, int, Fold]] = []
        self._put = 0
        self._nodes: dict[str, Node] = {}
        self._heard: dict[str, float] = {}
        self._started = origin_seconds
        self._newest: dict[str, int] = {}
        self._on: dict[str, dict[str, tuple[ev.AnyNoun, ...]]] = {}

    def put(self, at_seconds: float, fold: Fold) -> None:
        """Something will be heard at a UTC time."""
        self._put += 1
        heappush(self._inbox, (at_seconds, self._put, fold))

    def hear(self, now_seconds: float) -> bool:
        """Take in what has come by now; True when a planner would look at something new."""
        changed = False
        while self._inbox and self._inbox[0][0] <= now_seconds:
            _, _, fold = heappop(self._inbox)
            changed |= fold(now_seconds)
        return self._silence(now_seconds) or changed

    # objects

    def see(self, noun: ev.AnyNoun, now_seconds: float, source: str = "watch") -> bool:
        """An object is so, seen now."""
        return self.observer.fold(
            ev.Seen(source=source, observed_seconds=now_seconds, delivered_seconds=now_seconds, noun=noun)
        )

    def drop(self, mapping: str, key: str, now_seconds: float) -> bool:
        """An object is gone."""
        return self.observer.fold(
            ev.Gone(
                source="watch", observed_seconds=now_seconds, delivered_seconds=now_seconds, mapping=mapping, key=key
            )
        )  # fmt: skip

    def node(self, noun: Node, now_seconds: float) -> bool:
        """A node is so; while its agent is silent it counts as lost."""
        self._nodes[noun.name] = noun
        self._heard.setdefault(noun.name, self._started)
        lost = noun.name in self.lost
        return self.see(msgspec.structs.replace(noun, offer=Offer.LOST) if lost else noun, now_seconds)

    def pod(
        self, key: str, number: int, node: str, nouns: tuple[ev.AnyNoun, ...], now_seconds: float
    ) -> bool:
        """What is in a pod is so, as of the `number`-th word about it; an older word than the last changes nothing."""
        if number < self._newest.get(key, 0):
            return False
        self._newest[key] = number
        self._on.setdefault(node, {})[key] = nouns
        return self._project(node, nouns, now_seconds)

    def _project(self, node: str, nouns: tuple[ev.AnyNoun, ...], now: float) -> bool:
        changed = False
        for noun in nouns:
            told = noun
            if node in self.lost and isinstance(noun, (Launcher, Replica)):
                told = msgspec.structs.replace(noun, phase=ReplicaPhase.LOST)
            if isinstance(told, Replica):
                told = self._since(told, now)
            changed |= self.see(told, now)
        return changed

    def _since(self, replica: Replica, now: float) -> Replica:
        """A phase has lasted since it was first seen."""
        old = self.observer.live("replicas").get(replica.key)
        if old is not None and old.phase is replica.phase and old.ref.uid == replica.ref.uid:
            now = old.phase_since_seconds
        return msgspec.structs.replace(replica, phase_since_seconds=now)

    def end(self, key: str, node: str, now_seconds: float) -> bool:
        """A pod is gone."""
        self._newest.pop(key, None)
        self._on.get(node, {}).pop(key, None)
        found = [self.drop(mapping, key, now_seconds) for mapping in ("claims", "replicas", "launchers")]
        return any(found)

    # reports

    def report(self, report: ev.AgentReport, now_seconds: float) -> bool:
        """A node's agent said how it is."""
        self._heard[report.node] = max(self._heard.get(report.node, 0.0), report.observed_seconds)
        return self.observer.fold(msgspec.structs.replace(report, delivered_seconds=now_seconds))

    def _silence(self, now: float) -> bool:
        """Nodes that fell silent, or came back, and what runs there."""
        quiet = {name: now - max(heard, self._started) for name, heard in self._heard.items()}
        silents = silent_nodes(quiet)
        if silents is None:
            self._started, silents = now, frozenset()
        turned, self.lost = self.lost ^ silents, silents
        changed = False
        for name in sorted(turned):
            changed |= self.node(self._nodes[name], now)
            for _, nouns in sorted(self._on.get(name, {}).items()):
                changed |= self._project(name, nouns, now)
        return changed

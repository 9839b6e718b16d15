"""Watches replicas start, and has `forecasting.starts` learn how long that takes."""

from __future__ import annotations

from typing import NamedTuple

from cluster.beliefs import StartBelief
from cluster.observer import Observer
from cluster.serving import Launcher, Replica, ReplicaPhase, Service
from forecasting.starts import StartTimes

REMEMBERED = 100_000
"""Pairs of revision and node that ran it; the oldest are forgotten first, and count as cold once more."""

Place = tuple[str, str, str]
"""Service, revision, node."""


class _Start(NamedTuple):
    uid: str
    since_seconds: float
    cold: bool


class StartBeliefs:
    """Times each start from being bound to being ready.

    Only whole starts of a revision's first replica on a node count: the others find its image there. A start under way when
    this operator began to look has no known beginning and is left out; a node that was lost ends none.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._times = StartTimes()
        self._starting: dict[str, _Start] = {}
        self._ran: dict[Place, None] = {}
        self._looked = False
        self._revision = -1

    def refresh(self, observer: Observer, now_seconds: float) -> int:
        """Take in which replicas started and became ready; how many beliefs are new."""
        if observer.revision == self._revision:
            return 0
        replicas: dict[str, Replica] = observer.live("replicas")
        if not self._looked:
            for replica in replicas.values():
                self._note(_place(observer, replica))
        formed: dict[str, StartBelief] = {}
        for key, replica in replicas.items():
            if replica.phase is ReplicaPhase.STARTING:
                self._begins(observer, key, replica)
            elif (start := self._starting.pop(key, None)) is not None:
                belief = self._ended(observer, replica, start, now_seconds)
                if belief is not None:
                    formed[f"{belief.model}|{belief.variant}|{belief.tier}"] = belief
        for gone in self._starting.keys() - replicas.keys():
            del self._starting[gone]
        if formed:
            observer.believe("start", formed)
        self._looked, self._revision = True, observer.revision
        return len(formed)

    def _begins(self, observer: Observer, key: str, replica: Replica) -> None:
        known = self._starting.get(key)
        if known is not None and known.uid == replica.ref.uid:
            return
        place = _place(observer, replica)
        cold = self._looked and bool(place[-1]) and place not in self._ran
        self._starting[key] = _Start(replica.ref.uid, replica.phase_since_seconds, cold)
        self._note(place)

    def _note(self, place: Place) -> None:
        self._ran[place] = None
        if len(self._ran) > REMEMBERED:
            del self._ran[next(iter(self._ran))]

    def _ended(
        self, observer: Observer, replica: Replica, start: _Start, now_seconds: float
    ) -> StartBelief | None:
        took = replica.phase_since_seconds - start.since_seconds
        service: Service | None = observer.live("services").get(replica.service)
        whole = replica.phase is ReplicaPhase.READY and replica.ref.uid == start.uid
        if not (whole and start.cold and took > 0.0 and service is not None):
            return None
        return self._times.learn(service.model.name, replica.variant.key, took, now_seconds)


def _place(observer: Observer, replica: Replica) -> Place:
    launcher: Launcher | None = observer.live("launchers").get(replica.launcher)
    node = launcher.slots[0].node if launcher is not None and launcher.slots else ""
    return replica.service, replica.revision, node

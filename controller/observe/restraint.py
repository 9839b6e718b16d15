"""What the operator must leave alone, as objects and configuration say it; and the book of moves it made.

Moves are counted by what survives this process: the mark on a pod that is being moved, and the service's status, which
repeats the counts by minute. Of a minute the larger of the two counts, so neither a restart between the two nor a
second reading of the same status counts a move twice or forgets it (docs/designs/0015-restraint.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from cluster.restraint import HOUR_SECONDS, Hold, Moves
from cluster.serving import Service
from controller.config import RestraintSettings
from controller.observe import labels
from controller.resources.base import ObjectMeta
from controller.resources.core import Namespace, Pod
from controller.resources.modelservice import ModelService

MINUTE_SECONDS = 60
TRUE = "true"


class Disrupted(NamedTuple):
    """A pod of ours that others end: whose it is, and by whom, in the words of its condition DisruptionTarget."""

    kind: str
    owner: str
    reason: str
    message: str
    grace_seconds: int


class Restraint:
    """Holds and moves of one world. `settings` is the operator's configuration."""

    def __init__(self, settings: RestraintSettings | None = None) -> None:
        """Start with no move made."""
        self.settings = settings or RestraintSettings()
        self._marks: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._told: dict[str, dict[int, int]] = {}
        self.disrupted: dict[str, Disrupted] = {}
        """Pods that others began to end, by key, until that is told."""

    # ------------------------------------------------------------------------------------------------- holds

    def hold(self, meta: ObjectMeta, mode: str, namespace: Namespace | None) -> Hold:
        """Why nothing is done about an object of ours. A namespace nobody has seen yet is opted in by nobody."""
        around = namespace.metadata if namespace is not None else ObjectMeta()
        if self.settings.namespaces == "labelled" and around.labels.get(labels.MANAGED) != TRUE:
            return Hold.NOT_MANAGED
        if TRUE in (meta.annotations.get(labels.PAUSED), around.annotations.get(labels.PAUSED)):
            return Hold.PAUSED
        if "Recommend" in (mode, self.settings.mode):
            return Hold.RECOMMEND
        return Hold.NONE

    def service(
        self, noun: Service, obj: ModelService, namespace: Namespace | None, now_seconds: float
    ) -> Service:
        """A service with what holds it and what is left of its disruption budget."""
        allowed = obj.spec.disruption.moves_per_hour
        moves = None if allowed is None else self._moves(allowed, self._counts(noun.name, now_seconds))
        held = self.hold(obj.metadata, obj.spec.mode, namespace)
        return msgspec.structs.replace(noun, held=held, moves=moves)

    # ------------------------------------------------------------------------------------------------- moves

    def saw_pod(self, pod: Pod) -> str:
        """Take a pod's mark in; the service that was moved by it, or nothing when it is no news."""
        told = pod.metadata.annotations.get(labels.MOVED_AT)
        name = pod.metadata.labels.get(labels.SERVICE)
        if told is None or not name:
            return ""
        try:
            minute = int(float(told)) // MINUTE_SECONDS
        except (ValueError, OverflowError):
            return ""  # an annotation is anybody's to edit
        service = f"{pod.metadata.namespace}/{name}"
        marks = self._marks[service][minute]
        if pod.metadata.uid in marks:
            return ""
        marks.add(pod.metadata.uid)
        return service

    def saw_end(self, key: str, pod: Pod | None) -> None:
        """Take in whether others end a pod of ours: an eviction, a preemption, a taint."""
        target = pod.condition("DisruptionTarget") if pod is not None else None
        if (
            pod is None
            or target is None
            or target.status != "True"
            or pod.metadata.deletion_timestamp is None
        ):
            return
        marks = pod.metadata.labels
        kind = "ModelService" if labels.SERVICE in marks else "TrainingJob" if labels.JOB in marks else ""
        if kind and labels.DRAIN_UNTIL not in pod.metadata.annotations:  # by our own choice otherwise
            owner = f"{pod.metadata.namespace}/{marks.get(labels.SERVICE) or marks[labels.JOB]}"
            grace = pod.metadata.deletion_grace_period_seconds or 0
            self.disrupted[key] = Disrupted(kind, owner, target.reason, target.message[:200], grace)

    def saw_service(self, key: str, obj: ModelService | None) -> None:
        """Take in what a service's status says of its moves; forget a service that is gone."""
        if obj is None:
            self._told.pop(key, None)
            self._marks.pop(key, None)
            return
        told = {
            minute: moved.count for moved in obj.status.moves if (minute := _minute(moved.at)) is not None
        }
        if told or key in self._told:
            self._told[key] = told

    def made(self, service: str, now_seconds: float) -> dict[int, int]:
        """Moves of a service within the hour, by minute (its number since 1970)."""
        return self._counts(service, now_seconds)

    def cluster(self, now_seconds: float) -> Moves | None:
        """The whole cluster's budget and what was made use of; None where none is set."""
        if self.settings.moves_per_hour is None:
            return None
        whole: dict[int, int] = defaultdict(int)
        for service in {*self._marks, *self._told}:
            for minute, count in self._counts(service, now_seconds).items():
                whole[minute] += count
        return self._moves(self.settings.moves_per_hour, whole)

    def due(self, services: Mapping[str, Service], now_seconds: float) -> list[str]:
        """Services whose budget is not what the view says any more, because time went by."""
        found = []
        for name in sorted({*self._marks, *self._told}):
            self._tidy(name, now_seconds)
            service = services.get(name)
            if service is not None and service.moves is not None:
                now = self._moves(service.moves.allowed, self._counts(name, now_seconds))
                if now != service.moves:
                    found.append(name)
        return found

    def _counts(self, service: str, now: float) -> dict[int, int]:
        marks, told = self._marks.get(service, {}), self._told.get(service, {})
        counts = {m: max(len(marks.get(m, ())), told.get(m, 0)) for m in sorted({*marks, *told})}
        return {minute: count for minute, count in counts.items() if count and _ends(minute) > now}

    def _tidy(self, service: str, now: float) -> None:
        for minute in [m for m in self._marks.get(service, ()) if _ends(m) <= now]:
            del self._marks[service][minute]
        for minute in [m for m in self._told.get(service, ()) if _ends(m) <= now]:
            del self._told[service][minute]

    @staticmethod
    def _moves(allowed: int, counts: Mapping[int, int]) -> Moves:
        first = min(counts, default=None)
        return Moves(
            allowed=allowed, made=sum(counts.values()), next_seconds=None if first is None else _ends(first)
        )


def _ends(minute: int) -> float:
    """When the moves of a minute are surely an hour ago, UTC seconds."""
    return (minute + 1) * MINUTE_SECONDS + HOUR_SECONDS


def _minute(text: str) -> int | None:
    try:
        return int(datetime.fromisoformat(text).timestamp()) // MINUTE_SECONDS
    except (ValueError, OverflowError):
        return None

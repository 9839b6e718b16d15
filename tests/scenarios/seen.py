"""What is seen of a play: objects by kind, what was decided and done, and the requests and their ends."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from cluster.checks import subject_of
from cluster.reasons import Reason, render
from controller.actor.outcome import Outcome
from controller.resources.core import CLAIM, EVENT, NAMESPACE, NODE, POD, POD_DISRUPTION_BUDGET
from controller.resources.kinds import BY_KIND
from controller.store.interface import JsonObject, Resource
from gateway.client import Request, Result

RESOURCES: dict[str, Resource] = {
    each.kind: each for each in (POD, NODE, EVENT, NAMESPACE, POD_DISRUPTION_BUDGET, CLAIM)
} | {kind: entry.resource for kind, entry in BY_KIND.items()}
SEEN_KINDS = ("Node", "Pod", "ModelService", "TrainingJob", "PowerDomain")


class Seen:
    """The objects in the store at one moment, by kind and key. Read only."""

    def __init__(self, objects: Mapping[str, Mapping[str, JsonObject]]) -> None:
        self.objects = objects

    def status(self, kind: str, key: str) -> JsonObject:
        """An object's status, empty while there is none."""
        found: JsonObject = self.objects[kind].get(key, {}).get("status", {})
        return found

    def condition(self, kind: str, key: str, name: str) -> JsonObject:
        """One condition of an object, empty while it is not there."""
        conditions = self.status(kind, key).get("conditions", [])
        return next((c for c in conditions if c["type"] == name), {})

    def phase(self, kind: str, key: str) -> str:
        """The phase in an object's status; empty for one that is gone."""
        return str(self.status(kind, key).get("phase", ""))

    def pods(self, owner: str = "") -> list[JsonObject]:
        """Pods of an owner (`namespace/name`), or all of them, by key."""
        found = [pod for _, pod in sorted(self.objects["Pod"].items())]
        return [pod for pod in found if not owner or owner_of(pod) == owner]

    def ready(self, service: str) -> int:
        """Ready replicas a service's status tells."""
        return int(self.status("ModelService", service).get("ready", 0))


def owner_of(pod: JsonObject) -> str:
    """`namespace/name` of a pod's controller; empty for nobody's."""
    meta = pod["metadata"]
    return next((f"{meta['namespace']}/{o['name']}" for o in meta.get("ownerReferences", [])), "")


def node_of(pod: JsonObject) -> str:
    """Where a pod is bound."""
    return str(pod.get("spec", {}).get("nodeName", ""))


class Line(msgspec.Struct, frozen=True):
    """One action as it was carried out or dropped."""

    loop: str
    kind: str
    subject: str
    code: str
    at_seconds: float


class Diary:
    """Listens to the operator: every action with its fate, every reason rendered at once (or kept as a fault)."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.text: list[str] = []
        self.codes: Counter[tuple[str, str]] = Counter()
        self.faults: list[str] = []

    def decided(
        self, loop: str, tick: int, now_seconds: float, outcomes: list[Outcome], reasons: tuple[Reason, ...]
    ) -> None:
        """See `controller.operator.Listener`."""
        for reason in reasons:
            self.codes[reason.subject.name, reason.code] += 1
        for outcome in outcomes:
            action = outcome.stamped.action
            subject = str(subject_of(action))
            self.lines.append(Line(loop, action.kind, subject, outcome.code, now_seconds))
            words = [self._said(action.reason, reasons, f"{action.kind} of {subject}")]
            if outcome.drop is not None:
                words.append(self._rendered(outcome.drop))
            told = (
                f"{now_seconds:.3f} {loop} {tick} {outcome.stamped.id} {action.kind} {subject} {outcome.code}"
            )
            self.text.append(" | ".join((told, *words)))

    def _said(self, index: int, reasons: tuple[Reason, ...], what: str) -> str:
        if not 0 <= index < len(reasons):
            self.faults.append(f"{what} has no reason (index {index} of {len(reasons)})")
            return ""
        return self._rendered(reasons[index])

    def _rendered(self, reason: Reason) -> str:
        try:
            return render(reason)
        except ValueError as error:
            self.faults.append(str(error))
            return ""

    def did(self, kind: str, code: str = "done") -> list[Line]:
        """Actions of a kind with that fate, in order."""
        return [line for line in self.lines if line.kind == kind and line.code == code]


class Traffic:
    """Requests to come, spread evenly (a seeded jitter would tell nothing more), and what became of each."""

    def __init__(self) -> None:
        self._streams: list[tuple[str, float, float, float, int, int]] = []
        self._drawn: list[tuple[float, str, int, int]] = []
        self._expected = 0
        self._next_id = 1
        self.begins = 0.0
        """When the first stream begins, UTC seconds."""
        self.sent: dict[int, str] = {}
        self.results: dict[int, Result] = {}

    def send(
        self,
        service: str,
        per_second: float,
        from_seconds: float,
        until_seconds: float,
        prompt: int = 200,
        output: int = 40,
    ) -> None:
        """Let requests arrive at a steady rate in [from, until) UTC seconds."""
        self.begins = self.begins or from_seconds
        self._expected += math.ceil((until_seconds - from_seconds) * per_second - 1e-9)
        self._streams.append((service, per_second, from_seconds, until_seconds, prompt, output))

    def trace(
        self, service: str, per_second: float, from_seconds: float, until_seconds: float, *, seed: int
    ) -> None:
        """Let requests of mixed sizes arrive at random moments, the same for the same seed."""
        draws = np.random.Generator(np.random.PCG64(seed))
        at = from_seconds
        while (at := at + float(draws.exponential(1.0 / per_second))) < until_seconds:
            prompt, output = draws.lognormal(5.5, 0.8), draws.lognormal(3.5, 0.6)
            self._drawn.append((at, service, 1 + int(prompt), 1 + int(output)))
            self._expected += 1
        self._drawn.sort()
        self.begins = self.begins or from_seconds

    def arrivals(self, from_seconds: float, until_seconds: float) -> list[Request]:
        """The requests of a window."""
        found: list[Request] = []
        for service, rate, begins, ends, prompt, output in self._streams:
            first = max(0, round((from_seconds - begins) * rate))
            index = first
            while (at := begins + index / rate) < min(until_seconds, ends):
                if at >= from_seconds:
                    self.sent[self._next_id] = service
                    found.append(Request(self._next_id, service, prompt, output, at, "default"))
                    self._next_id += 1
                index += 1
        while self._drawn and self._drawn[0][0] < until_seconds:
            at, service, prompt, output = self._drawn.pop(0)
            self.sent[self._next_id] = service
            found.append(Request(self._next_id, service, prompt, output, at, "default"))
            self._next_id += 1
        return found

    def take(self, results: Iterable[Result]) -> None:
        """Results that came back."""
        for result in results:
            if result.request_id in self.results:
                raise AssertionError(f"request {result.request_id} ended twice")
            self.results[result.request_id] = result

    def ended(self, outcome: str, service: str = "") -> list[Result]:
        """Results with that outcome, of one service when it is given."""
        return [
            r
            for i, r in sorted(self.results.items())
            if r.outcome == outcome and (not service or self.sent[i] == service)
        ]

    @property
    def open(self) -> int:
        """Requests that have not ended, those that are still to come included."""
        return self._expected - len(self.results)

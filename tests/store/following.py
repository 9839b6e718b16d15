"""One run of a cache behind a faulty store, and whether it ended equal to what it follows."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from controller.resources.core import NODE, POD, Pod
from controller.store.cache import SOUND, Defects, Delta, Reflector
from controller.store.embedded import EmbeddedStore
from controller.store.errors import AlreadyExists, NotFound
from controller.store.faults import CALM, FaultRates, FaultyStore
from runtime.clock import VirtualClock
from tests.store.objects import node, pod

Step = tuple[str, float]

ROUGH = (
    CALM,
    FaultRates(cut=0.3, duplicated=0.3),
    FaultRates(delayed=0.5, delay_seconds=5.0, duplicated=0.2, cut=0.1),
    FaultRates(unavailable=0.3, throttled=0.2),
    FaultRates(gone=0.3, stale=0.5, cut=0.2),
    FaultRates(silent=0.2, cut=0.2),
)

WRITES = ("create", "patch", "delete", "create", "patch", "delete", "other")
FAULTS = ("compact", "cut", "expire", "silence", "outage", "throttle", "rates", "rates")
COMMANDS = (*WRITES, *WRITES, "tick", "pump", *FAULTS)
"""Writes come more often than faults, else every mistake would be healed by the next fault's relist."""

NAMES = 4


def now(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits, without an event loop: some hundred times faster."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the store waited")


class Follower:
    """A store, its faults and a cache that follows it; `deltas` are applied to a second copy beside."""

    def __init__(self, seed: int = 0, defects: Defects = SOUND, page: int = 3) -> None:
        self.clock = VirtualClock(1_790_000_000.0)
        self.store = EmbeddedStore({POD: None, NODE: None}, self.clock, seed=seed)
        self.faulty = FaultyStore(self.store, self.clock, seed=seed)
        self.cache: Reflector[Pod] = Reflector(
            self.faulty, POD, Pod, self.clock, seed=seed, page=page, defects=defects,
            indexes={"app": lambda p: (p.metadata.labels["app"],) if "app" in p.metadata.labels else ()},
        )  # fmt: skip
        self.copy: dict[str, Pod] = {}
        self.others = 0
        self.went_back = 0

    def pump(self) -> list[Delta[Pod]]:
        deltas: list[Delta[Pod]] = now(self.cache.pump())
        for delta in deltas:
            assert self.copy.get(delta.key) == delta.old, "a delta starts from what the reader has"
            if delta.new is None:
                del self.copy[delta.key]
                continue
            if delta.old is not None:
                older, newer = delta.old.metadata, delta.new.metadata
                self.went_back += int(newer.resource_version) <= int(older.resource_version)
            self.copy[delta.key] = delta.new
        return deltas

    def tick(self, seconds: float) -> None:
        self.clock.advance_to(self.clock.now() + seconds)

    def do(self, step: Step) -> None:
        command, value = step
        {
            "tick": lambda: self.tick(value * 40),
            "compact": lambda: self.store.objects.table(POD).compact(self.store.objects.version),
            "cut": self.faulty.cut,
            "expire": self.faulty.expire,
            "silence": self.faulty.silence,
            "outage": lambda: self.faulty.outage(value * 90),
            "throttle": lambda: self.faulty.throttle(value * 20),
            "rates": lambda: self.set_rates(value),
            "pump": self.pump,
        }.get(command, lambda: self.write(command, value))()

    def set_rates(self, value: float) -> None:
        self.faulty.rates = ROUGH[int(value * len(ROUGH)) % len(ROUGH)]

    def write(self, command: str, value: float) -> None:
        """Change the store behind the faults' back: the operator is not the only writer."""
        name = f"p{int(value * NAMES)}"
        try:
            if command == "create":
                now(self.store.create(POD, pod(name, labels={"app": name[-1]}), field_manager="user"))
            elif command == "patch":
                patch = {"metadata": {"labels": {"app": f"v{value:.6f}"}}}
                now(self.store.patch(POD, name, patch, "default", field_manager="user"))
            elif command == "delete":
                now(self.store.delete(POD, name, "default"))
            else:
                self.others += 1
                now(self.store.create(NODE, node(f"other-{self.others}"), field_manager="user"))
        except (NotFound, AlreadyExists):
            return

    def settle(self, rounds: int = 30) -> None:
        self.faulty.rates = CALM
        for _ in range(rounds):
            self.tick(10)
            self.pump()

    def truth(self) -> dict[str, str]:
        listed = now(self.store.list(POD)).items
        return {f"default/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in listed}

    def problem(self) -> str:
        """What is wrong once everything is calm again; "" when the cache is sound."""
        self.settle()
        if found := self.difference():
            return found
        self.write("other", 0.0)
        self.tick(61)
        self.pump()
        lists = self.cache.lists
        self.store.objects.table(POD).compact(self.store.objects.version)
        self.faulty.cut()
        self.settle(10)
        if self.cache.lists != lists:
            return "a quiet cache listed again after a compaction: bookmarks did not move its version"
        return self.difference()

    def difference(self) -> str:
        held = {key: obj.metadata.resource_version for key, obj in self.cache.objects.items()}
        if held != self.truth():
            return f"the cache holds {held}, the store {self.truth()}"
        if self.copy != self.cache.objects:
            return "the deltas do not add up to the cache"
        if self.went_back:
            return "an object went back to an older version"
        for app in {f"{obj.metadata.labels.get('app')}" for obj in self.cache.objects.values()}:
            found = {p.metadata.key for p in self.cache.by("app", app)}
            wanted = {key for key, p in self.cache.objects.items() if p.metadata.labels.get("app") == app}
            if found != wanted:
                return f"the index holds {found} under {app}, the cache {wanted}"
        return ""


def begun(seed: int = 0, defects: Defects = SOUND, page: int = 3) -> Follower:
    """A follower that has synced with a store of `NAMES` pods."""
    follower = Follower(seed, defects, page)
    for index in range(NAMES):
        follower.write("create", index / NAMES)
    follower.pump()
    return follower


def follow(steps: Sequence[Step], seed: int = 0, defects: Defects = SOUND) -> str:
    """Run a sequence of commands and faults; returns what is wrong afterwards, or ""."""
    follower = begun(seed, defects)
    for step in steps:
        follower.do(step)
        follower.pump()
    return follower.problem()

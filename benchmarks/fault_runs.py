"""Random sequences of changes and faults: does the cache end equal to the server?

The production store (`controller.store.kube`) and cache (`controller.store.cache`) over real HTTP on loopback, against a
server that misbehaves on command. Only time is made: back-off, silence and Retry-After run on a clock that the sequence
moves, so that minutes of waiting cost nothing. All else happens: connections break, bytes are cut.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from pathlib import Path

import msgspec

from benchmarks.listwatch import Answer, AnswerKind, Collection, ListWatchServer, StreamFault, World
from controller.resources.core import POD, Pod
from controller.store.cache import SOUND, Defects, Reflector
from controller.store.kube import Access, KubeStore, Transport
from runtime.clock import VirtualClock, WallClock

PATH = "/api/v1/pods"
NAMES = 6
STEPS = 30
PAGE = 2
ORIGIN = 1_790_000_000.0
WINDOW_SECONDS = 10.0
"""Lists a second are counted over windows of so much of the made time."""

STORM_STEP_SECONDS = 0.1

ROUNDS = 40
"""Rounds of ten calm seconds in which a sound cache must be equal again."""

_HTTP = {410: 0, 429: 20, 500: 0, 503: 5}
"""Codes of refusals, with the longest Retry-After that goes with each."""

_LIST_FAULTS = (AnswerKind.SILENT, AnswerKind.DROP, AnswerKind.CUT, AnswerKind.STALE, AnswerKind.SLOW)
_WATCH_FAULTS = (AnswerKind.SILENT, AnswerKind.DROP, AnswerKind.ENDS, AnswerKind.GONE_INSIDE)
_MOST_STALE = 2
"""More in a row, and the cache rightly believes that the server was restored from a copy."""


class Outcome(msgspec.Struct, frozen=True):
    """How one sequence ended: `problem` is "" for a sound cache."""

    seed: int
    problem: str
    lists: int
    most_lists_per_second: float


class Bench:
    """One server and one client, for many sequences one after the other."""

    def __init__(self, server: ListWatchServer, store: KubeStore) -> None:
        self.server = server
        self.store = store

    @classmethod
    async def start(cls, folder: Path) -> Bench:
        """A server on loopback and the production store in front of it, by a kubeconfig in `folder`."""
        server = ListWatchServer([])
        kubeconfig = write_kubeconfig(folder, await server.start())
        access = await Access.from_kubeconfig(kubeconfig)
        return cls(server, KubeStore(Transport(access, WallClock(), random.Random(1)), random.Random(2)))

    async def stop(self) -> None:
        """End both."""
        await self.store.close()
        await self.server.stop()

    async def storm(self, verb: str, answer: Answer, seconds: float = 300.0) -> Outcome:
        """A server that answers each list or watch wrongly, for a long time: how often is it asked to list?"""
        run = Sequence(self, 1, SOUND)
        self.server.streams_lists = (
            verb == "list"
        )  # which would go on as the watch, and there would be none to spoil
        try:
            await run.pump()
            self.server.always[verb, PATH] = answer
            run.pods.compact()
            for stream in self.server.streams_of(run.pods):
                stream.end()
            for _ in range(int(seconds / STORM_STEP_SECONDS)):
                run.tick(STORM_STEP_SECONDS)
                await run.pump()
            del self.server.always[verb, PATH]
            return Outcome(1, await run.settle(), run.cache.lists, run.most_lists_per_second())
        finally:
            self.server.always.clear()
            await run.end()

    async def play(self, seed: int, defects: Defects = SOUND) -> Outcome:
        """One sequence, and what was wrong at its end."""
        run = Sequence(self, seed, defects)
        try:
            problem = await run.play()
        finally:
            await run.end()
        return Outcome(seed, problem, run.cache.lists, run.most_lists_per_second())


def write_kubeconfig(folder: Path, endpoint: str, authority: str = "") -> Path:
    """A kubeconfig for a server that asks nobody who they are; `authority` is the file of its certificate's issuer."""
    trust = {"certificate-authority": authority} if authority else {}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": endpoint, **trust}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
    path = folder / "kubeconfig.json"
    path.write_bytes(msgspec.json.encode(config))
    return path


class Sequence:
    """One collection that changes, one cache that follows it, and the faults between them."""

    def __init__(self, bench: Bench, seed: int, defects: Defects) -> None:
        self.server, self.random = bench.server, random.Random(seed)
        self.clock = VirtualClock(ORIGIN)
        self.pods = Collection(World(), PATH, "Pod", "v1")
        self.server.collections = {PATH: self.pods}
        self.server.streams_lists = self.random.random() < 0.5
        self.server.on_request = lambda request: self._asked(request.verb, request.parameters)
        self.cache: Reflector[Pod] = Reflector(
            bench.store, POD, Pod, self.clock, seed=seed, page=PAGE, defects=defects
        )
        self.copy: dict[str, Pod] = {}
        self.told = ""
        self.stale = 0
        self.listed_at: list[float] = []

    # ------------------------------------------------------------------------------------------- a sequence

    async def play(self) -> str:
        """Changes and faults, then calm; what is wrong, or ""."""
        for index in range(NAMES):
            self.change("create", index)
        await self.pump()
        for _ in range(STEPS):
            await self.step()
        return await self.problem()

    async def step(self) -> None:
        """One random thing, after which the cache may look or not."""
        match self.random.choices(
            ("change", "time", "bookmark", "stream", "answer", "compact"), (8, 3, 2, 3, 3, 1)
        )[0]:
            case "change":
                for _ in range(self.random.choice((1, 1, 1, 4))):
                    self.change()
            case "time":
                self.tick(self.random.uniform(0.0, 40.0))
            case "bookmark":
                self.server.bookmark(self.pods)
            case "stream":
                for stream in self.server.streams_of(self.pods):
                    stream.do(self.random.choice(tuple(StreamFault)))
            case "answer":
                self.spoil_an_answer()
            case _:
                self.pods.compact()
                self.server.happened["compacted"] += 1
        if self.random.random() < 0.8:
            await self.arrive()
        if self.random.random() < 0.7:
            await self.pump()

    def spoil_an_answer(self) -> None:
        """Something is wrong with the next list or the next watch."""
        verb = self.random.choice(("list", "watch"))
        if verb == "list" and self.random.random() < 0.5:
            self.pods.compact()
            for stream in self.server.streams_of(self.pods):
                stream.do(StreamFault.END)
        if self.random.random() < 0.5:
            code = self.random.choice(tuple(_HTTP))
            answer = Answer(AnswerKind.REFUSE, code, self.random.randint(0, _HTTP[code]))
        else:
            answer = Answer(self.random.choice(_LIST_FAULTS if verb == "list" else _WATCH_FAULTS))
            if answer.kind is AnswerKind.STALE:
                self.stale += 1
                if self.stale > _MOST_STALE:
                    return
                self.pods.remember()
        self.server.answers.setdefault((verb, PATH), deque()).append(answer)

    def change(self, what: str = "", index: int = -1) -> None:
        """Create, change or delete one of a few pods, or something that this cache does not follow."""
        what = what or self.random.choice(("create", "patch", "delete", "other"))
        key = f"default/p{index if index >= 0 else self.random.randrange(NAMES)}"
        there = key in self.pods.objects
        if what == "other":
            self.pods.world.next()
        elif what == "delete" and there:
            version = self.pods.world.next()
            self.server.tell(self.pods, self.pods.remove(key, self.body(key, version), version))
        elif (what == "create") != there:
            version = self.pods.world.next()
            self.server.tell(self.pods, self.pods.put(key, self.body(key, version), version))

    def body(self, key: str, version: int) -> bytes:
        """A pod as small as may be."""
        namespace, name = key.split("/")
        return (
            f'{{"metadata":{{"name":"{name}","namespace":"{namespace}","uid":"{name}-1","resourceVersion":"{version}",'
            f'"labels":{{"app":"v{version}"}}}},"spec":{{"nodeName":"n-{version % 7}"}},"status":{{"phase":"Running"}}}}'
        ).encode()

    # --------------------------------------------------------------------------------------------- the pump

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance_to(self.clock.now() + seconds)

    async def arrive(self) -> None:
        """Let what was sent reach the client: the kernel has it at once, both event loops are this one."""
        for _ in range(8):
            await asyncio.sleep(0)

    async def pump(self) -> None:
        """Let the cache catch up; who waits for an answer that was held back gets it in the end."""
        pumping = asyncio.ensure_future(self.cache.pump())
        while not pumping.done():
            await asyncio.sleep(0)
            if self.server.held or self.server.hung:
                await self.arrive()
                self.change()
                for release in (*self.server.held, *self.server.hung):
                    release()
                self.server.held.clear()
                self.server.hung.clear()
        for delta in pumping.result():
            if self.copy.get(delta.key) != delta.old:
                self.told = self.told or f"a delta of {delta.key} starts from what its reader does not have"
            if delta.new is None:
                self.copy.pop(delta.key, None)
                continue
            if delta.old is not None and _version(delta.new) <= _version(delta.old):
                self.told = self.told or f"{delta.key} went back to an older version"
            self.copy[delta.key] = delta.new

    def _asked(self, verb: str, parameters: dict[str, str]) -> None:
        if verb == "list" and not parameters.get("continue"):
            self.listed_at.append(self.clock.monotonic())
        if self.random.random() < 0.2:
            self.change()  # between two pages, or between list and watch

    # --------------------------------------------------------------------------------------------- the end

    async def problem(self) -> str:
        """What is wrong once everything is calm; "" when the cache is sound."""
        self.server.answers.clear()
        for stream in self.server.streams_of(self.pods):
            stream.faults.clear()
        if found := await self.settle():
            return found
        for what in ("create", "patch", "delete") * 2:
            self.change(what)
        self.change("delete", 0)
        self.change("create", 0)
        await self.arrive()
        await self.pump()
        if found := self.difference():
            return f"with a sound watch {found}"
        self.change("other")
        self.tick(61.0)
        self.server.bookmark(self.pods)
        await self.arrive()
        await self.pump()
        lists = self.cache.lists
        self.pods.compact()
        for stream in self.server.streams_of(self.pods):
            stream.end()
        found = await self.settle()
        if not found and self.cache.lists != lists:
            return "a quiet cache listed again after a compaction: bookmarks did not move its version"
        return found

    async def settle(self) -> str:
        """Calm until the cache is equal and follows; what is still wrong after `ROUNDS`."""
        quiet, self.random = self.random, _Calm()
        try:
            for _ in range(ROUNDS):
                self.tick(10.0)
                self.server.bookmark(self.pods)
                await self.arrive()
                await self.pump()
                await self.arrive()  # a stream that the client just gave up is over here too
                follows = any(not stream.silent for stream in self.server.streams_of(self.pods))
                if follows and not self.difference():
                    return ""
        finally:
            self.random = quiet
        return self.difference() or "the cache is equal and follows no more"

    def difference(self) -> str:
        """How the cache differs from the server; "" when it does not."""
        held = {key: _version(pod) for key, pod in self.cache.objects.items()}
        if held != self.pods.versions:
            return f"the cache holds {held}, the server {self.pods.versions}"
        if self.copy != self.cache.objects:
            return "the deltas do not add up to the cache"
        return self.told

    async def end(self) -> None:
        """Leave nothing for the next sequence."""
        self.cache.close()
        self.server.answers.clear()
        for release in (*self.server.held, *self.server.hung):
            release()
        self.server.held.clear()
        self.server.hung.clear()
        await self.arrive()

    def most_lists_per_second(self) -> float:
        """The most lists in any window of `WINDOW_SECONDS`, by the second."""
        most = max(
            (sum(begun <= at < begun + WINDOW_SECONDS for at in self.listed_at) for begun in self.listed_at),
            default=0,
        )
        return most / WINDOW_SECONDS


class _Calm(random.Random):
    """Chance in calm times: nothing happens by it."""

    def random(self) -> float:
        return 1.0


def _version(pod: Pod) -> int:
    return int(pod.metadata.resource_version)

"""The world: one service on its instances, requests from a stream, policies from the registry, and what came of it.

What is decided is decided by the policies of `policies.registry` on what they would know in production: dispatch on a
gateway's rows, migration on the `Observer` that the operator uses, both fed with delayed reports. The true state is not
reachable from a view.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from cluster import events as ev
from cluster.base import Ref
from cluster.observer import Observer
from cluster.seeds import stable_hash
from cluster.serving import Replica, ReplicaPhase, Role, Variant
from policies.registry import PolicyConfigError, build
from simulator.physics.sequence import EventKind
from simulator.traces.requests import TraceRequest
from simulator.world import failing, moving, reporting
from simulator.world.book import Book, Open
from simulator.world.core import Kernel
from simulator.world.instances import Instance
from simulator.world.rows import Rows
from simulator.world.serving import SERVICE, arrive
from simulator.world.spec import Choice, ScenarioError, WorldSpec, check
from simulator.world.wires import Wires

_FIRST, _FINISHED, _LEFT = EventKind.FIRST_TOKEN, EventKind.FINISHED, EventKind.HANDED_OVER


class Pool:
    """Instances that one dispatch decision chooses among, and the state of the policy that chooses."""

    __slots__ = ("by_name", "rows", "state")

    def __init__(self, instances: list[Instance], state: Any) -> None:
        self.by_name = {instance.name: instance for instance in instances}
        for row, instance in enumerate(instances):
            instance.row = row
        self.rows = Rows(list(self.by_name), [instance.engine.capacity_tokens for instance in instances])
        self.state = state


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. `complete` is False when the event budget ended it: the rest is then partial.

    `utilisation` is the share of time in which an instance ran a step, over all instances and `seconds` of the world.
    """

    complete: bool
    arrived: int
    completed: int
    refused: int
    seconds: float
    events: int
    utilisation: float
    preemptions: int
    migrations: int
    migrations_aborted: int
    handed_over: int
    replayed: int
    prefix_hit_tokens: int
    prefill_chunks: int
    output_tokens: int
    ttft_p50_seconds: float
    ttft_p99_seconds: float
    tpot_p50_seconds: float
    tpot_p99_seconds: float


class World:
    """A scenario under way. ScenarioError when it contradicts itself, before anything runs."""

    def __init__(self, spec: WorldSpec, requests: Iterable[TraceRequest]) -> None:
        check(spec)
        self.spec = spec
        self.dispatch = _policy("dispatch", spec.dispatch)
        self.migration = _policy("migration", spec.migration) if spec.migration is not None else None
        self.migration_state = self.migration.initial() if self.migration is not None else None
        self.kernel = Kernel(spec.event_budget)
        self.book = Book()
        self.observer = Observer()
        self.wires = Wires(spec.moving.bytes_per_second)
        self.rates: Any = np.zeros((0, 0))
        self.decided_on: tuple[Any, int, int] = (None, 0, 0)
        self.moves: dict[int, moving.Move] = {}
        self.held: list[tuple[Open, int]] = []
        self.rng = np.random.Generator(np.random.PCG64(stable_hash(spec.seed, "world")))
        self._draws: list[float] = []
        self.instances = _instances(spec)
        self.by_name = {instance.name: instance for instance in self.instances}
        self.front = Pool([each for each in self.instances if each.front], self.dispatch.initial())
        self.back = Pool([each for each in self.instances if not each.front], self.dispatch.initial())
        self._arrivals: Iterator[TraceRequest] = iter(requests)
        self._exhausted = False
        self._begin()

    def _begin(self) -> None:
        """Queue what happens by itself: reports, the migration loop, failures, the first request."""
        by_node: dict[str, list[Instance]] = {}
        for instance in self.instances:
            by_node.setdefault(instance.node, []).append(instance)
            self.observer.fold(
                ev.Seen(source="watch", observed_seconds=0.0, delivered_seconds=0.0, noun=_replica(instance))
            )
        for members in by_node.values():
            self.kernel.push((self.draw() * self.spec.delays.report_seconds, reporting.report, members))
        if self.migration is not None:
            self.kernel.push((self.spec.moving.every_seconds, moving.tick, 1))
        for each in self.spec.failures:
            handler = failing.warn if each.notice_seconds else failing.die
            self.kernel.push((each.at_seconds, handler, each))
        first = self.next_arrival()
        if first is not None:
            self.kernel.push((first.arrived_seconds, arrive, first))

    def next_arrival(self) -> TraceRequest | None:
        """The next request of the stream; None when it has ended."""
        request = next(self._arrivals, None)
        self._exhausted = request is None
        return request

    @property
    def done(self) -> bool:
        """Whether every request has ended and none is to come."""
        return self._exhausted and not self.book.open

    def draw(self) -> float:
        """A number below 1 of the world's own stream."""
        if not self._draws:
            self._draws = self.rng.random(1024).tolist()
        return self._draws.pop()

    def pool_of(self, instance: Instance) -> Pool:
        """The pool that an instance is chosen from."""
        return self.front if instance.front else self.back

    def refuse(self, request: Open) -> None:
        """A request is turned away for good."""
        self.book.refuse(request.key)

    def live(self, instance: Instance, at_seconds: float) -> None:
        """Let an instance live up to and including then, and take in what happened to its requests."""
        engine = instance.engine
        if not instance.alive or at_seconds <= engine.now:
            return
        book = self.book
        for event in engine.advance_to(at_seconds):
            key, kind = event.request_id, event.kind
            if kind is _FINISHED:
                book.finish(key, event.at_seconds, event.tokens)
                move = self.moves.get(key)
                if move is not None:
                    if move.cut:
                        instance.leaving -= 1
                    moving.abort(move, self)
            elif kind is _FIRST:
                book.open[key].first = event.at_seconds
            elif kind is _LEFT:
                self.kernel.push((event.at_seconds, moving.left, (instance, key)))

    def run(self) -> Outcome:
        """Run to the end of the requests, or of the event budget."""
        collecting = gc.isenabled()
        gc.disable()  # nothing here forms cycles, and walking what lives takes a tenth of the time
        try:
            complete = self.kernel.run(self)
        finally:
            if collecting:
                gc.enable()
        for instance in self.instances:
            self.live(instance, self.kernel.now)
        return self._outcome(complete)

    def _outcome(self, complete: bool) -> Outcome:
        book, now = self.book, self.kernel.now
        if complete and book.completed:
            now = float(book.finished_seconds.max())
        totals = np.array([instance.totals() for instance in self.instances]).sum(axis=0).tolist()
        busy = sum(
            each.busy_seconds + each.engine.phases().busy_seconds * each.alive for each in self.instances
        )
        ttft, tpot = _percentiles(book.ttft_seconds), _percentiles(book.tpot_seconds)
        return Outcome(
            complete=complete, arrived=book.arrived, completed=book.completed, refused=book.refused,
            seconds=now, events=self.kernel.handled, utilisation=busy / max(now * len(self.instances), 1e-9),
            preemptions=totals[0], migrations=book.moved, migrations_aborted=book.aborted, handed_over=book.handed,
            replayed=book.replayed, prefix_hit_tokens=totals[1], prefill_chunks=totals[2],
            output_tokens=int(book.output_tokens.sum()), ttft_p50_seconds=ttft[0], ttft_p99_seconds=ttft[1],
            tpot_p50_seconds=tpot[0], tpot_p99_seconds=tpot[1],
        )  # fmt: skip


def _policy(loop: str, choice: Choice) -> Any:
    try:
        return build(loop, choice.name, choice.config)
    except PolicyConfigError as error:
        raise ScenarioError(loop, f"cannot be used: {error}") from error


def _instances(spec: WorldSpec) -> list[Instance]:
    """Instances in order of their groups; names sort as they count."""
    made: list[Instance] = []
    for number, group in enumerate(spec.groups):
        for count in range(group.count):
            node = f"node-{number}-{count // group.per_node:05d}"
            made.append(Instance(f"i{len(made):06d}", node, len(made), group, spec.model))
    return made


def _replica(instance: Instance) -> Replica:
    """An instance as the core names it."""
    engine, gpu = instance.group.engine, instance.group.gpu
    variant = Variant(accelerator=gpu.product, gpus=engine.tensor_parallel, tensor=engine.tensor_parallel)
    return Replica(
        key=instance.name, ref=Ref("Replica", instance.name, instance.name), service=SERVICE, launcher=instance.name,
        variant=variant, phase=ReplicaPhase.READY, role=Role(instance.group.role),
    )  # fmt: skip


def _percentiles(values: Any) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    low, high = np.percentile(values, [50, 99])
    return float(low), float(high)

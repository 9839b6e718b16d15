"""The world: one service on its instances, requests from a stream, policies from the registry, and what came of it.

What is decided is decided by the policies of `policies.registry` on what they would know in production: dispatch on a
gateway's rows, migration on the `Observer` that the operator uses, both fed with delayed reports. The true state is not
reachable from a view.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from cluster import events as ev
from cluster.observer import Observer
from cluster.seeds import stable_hash
from policies.registry import PolicyConfigError, build
from simulator.physics.sequence import EventKind
from simulator.traces.requests import TraceRequest
from simulator.world import failing, mounting, moving, reporting
from simulator.world.book import Book, Open
from simulator.world.core import Event, Kernel
from simulator.world.drawing import Drawing
from simulator.world.instances import Instance
from simulator.world.jobs import Jobs
from simulator.world.machines import Machines
from simulator.world.served import Served
from simulator.world.serving import SERVICE, arrive
from simulator.world.spec import Choice, ScenarioError, WorldSpec, check, node_of
from simulator.world.starts import Starts
from simulator.world.watching import replica_of

_FIRST, _FINISHED, _LEFT = EventKind.FIRST_TOKEN, EventKind.FINISHED, EventKind.HANDED_OVER


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
        self._found(spec)
        dispatch = policy_of("dispatch", spec.dispatch)
        migration = policy_of("migration", spec.migration) if spec.migration is not None else None
        instances = _instances(spec)
        holds = (spec.hold_seconds, spec.hold_limit)
        self.services += [Served(SERVICE, 0, spec.model, dispatch, migration, holds, instances, requests)]
        self.listens = migration is not None
        self.services[-1].plan = spec.plan
        for instance in instances:
            self._know(instance)
            self.observer.fold(
                ev.Seen(
                    source="watch", observed_seconds=0.0, delivered_seconds=0.0, noun=replica_of(instance)
                )
            )
        self._begin()

    def _found(self, spec: Any) -> None:
        """What every world has, before there is anybody in it. `spec` has seed, event_budget, delays, moving, parts and serving_nodes."""
        self.spec = spec
        self.kernel = Kernel(spec.event_budget)
        self.book = Book()
        self.observer = Observer()
        self.machines = Machines()
        self.starts = Starts()
        self.wires = mounting.wires_of(
            spec.parts, spec.moving.bytes_per_second, self.machines, set(spec.serving_nodes())
        )
        self.drawing: Drawing | None = None
        self.jobs: Jobs | None = None
        self.broken: Counter[Any] = Counter()
        self.moves: dict[int, moving.Move] = {}
        self.services: list[Served] = []
        self.origin = 0.0
        """UTC seconds of the world's second 0."""
        self.listens = False
        """Whether engines and their reports reach the operator's model by themselves."""
        self.rng = np.random.Generator(np.random.PCG64(stable_hash(spec.seed, "world")))
        self._draws: list[float] = []
        self.instances: list[Instance] = []
        """Every instance there ever was, in the order they came."""
        self.by_name: dict[str, Instance] = {}
        """Those that are there."""
        self.nodes: dict[str, list[Instance]] = {}
        """Those that are there, by node."""

    def _know(self, instance: Instance) -> None:
        self.instances.append(instance)
        self.by_name[instance.name] = instance
        self.nodes.setdefault(instance.node, []).append(instance)
        self.machines.place(instance)

    def add(self, instance: Instance, service: Served) -> None:
        """An instance of a service comes up and takes requests."""
        instance.service = service
        self._know(instance)
        if self.drawing is not None:
            self.drawing.came_up(instance, self.kernel.now, self)
        service.pool_for(instance).join(instance)

    def remove(self, instance: Instance, at_seconds: float) -> list[Event]:
        """An instance goes for good; what it still had is replayed elsewhere."""
        events = failing.halt(at_seconds, instance, self) if instance.alive else []
        instance.gone = at_seconds
        instance.pool.leave(instance)
        del self.by_name[instance.name]
        self.nodes[instance.node].remove(instance)
        self.machines.leave(instance)
        return events

    def _begin(self) -> None:
        """Queue what happens by itself: reports, the migration loop, failures, the first request."""
        for members in self.nodes.values():
            self.kernel.push((self.draw() * self.spec.delays.report_seconds, reporting.report, members))
        for service in self.services:
            if service.migration is not None:
                self.kernel.push((self.spec.moving.every_seconds, moving.tick, (service, 1)))
        for each in self.spec.failures:
            handler = failing.warn if each.notice_seconds else failing.die
            self.kernel.push((each.at_seconds, handler, each))
        mounting.begin(self, self.spec.parts)
        for service in self.services:
            first = service.next_arrival()
            if first is not None:
                self.kernel.push((first.arrived_seconds, arrive, (service, first)))

    @property
    def done(self) -> bool:
        """Whether every request has ended and none is to come, nor any training job that is waited for."""
        if self.book.open or not all(service.stream is None for service in self.services):
            return False
        return self.jobs is None or not self.jobs.awaited

    def draw(self) -> float:
        """A number below 1 of the world's own stream."""
        if not self._draws:
            self._draws = self.rng.random(1024).tolist()
        return self._draws.pop()

    def refuse(self, request: Open) -> None:
        """A request is turned away for good."""
        self.book.refuse(request.key)

    def live(self, instance: Instance, at_seconds: float) -> None:
        """Let an instance live up to and including then, and take in what happened to its requests."""
        engine = instance.engine
        if not instance.alive or at_seconds < engine.now:
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
        mounting.end(self)
        return self._outcome(complete)

    def _outcome(self, complete: bool) -> Outcome:
        book, now = self.book, self.kernel.now
        if complete and book.completed and self.jobs is None:
            now = float(book.finished_seconds.max())
        totals = np.array([(0, 0, 0), *(each.totals() for each in self.instances)]).sum(axis=0).tolist()
        busy = sum(
            each.busy_seconds + each.engine.phases().busy_seconds * each.alive for each in self.instances
        )
        there = sum(max(0.0, min(now, each.gone) - each.placed) for each in self.instances)
        ttft, tpot = _percentiles(book.ttft_seconds), _percentiles(book.tpot_seconds)
        return Outcome(
            complete=complete, arrived=book.arrived, completed=book.completed, refused=book.refused,
            seconds=now, events=self.kernel.handled, utilisation=busy / max(there, 1e-9),
            preemptions=totals[0], migrations=book.moved, migrations_aborted=book.aborted, handed_over=book.handed,
            replayed=book.replayed, prefix_hit_tokens=totals[1], prefill_chunks=totals[2],
            output_tokens=int(book.output_tokens.sum()), ttft_p50_seconds=ttft[0], ttft_p99_seconds=ttft[1],
            tpot_p50_seconds=tpot[0], tpot_p99_seconds=tpot[1],
        )  # fmt: skip


def policy_of(loop: str, choice: Choice) -> Any:
    """A policy of the registry, built. ScenarioError for one that is not there or a setting that it does not know."""
    try:
        return build(loop, choice.name, choice.config)
    except PolicyConfigError as error:
        raise ScenarioError(loop, f"cannot be used: {error}") from error


def _instances(spec: WorldSpec) -> list[Instance]:
    """Instances in order of their groups; names sort as they count."""
    made: list[Instance] = []
    for number, group in enumerate(spec.groups):
        for count in range(group.count):
            node = node_of(number, count, group.per_node)
            made.append(Instance(f"i{len(made):06d}", node, len(made), group, spec.model))
    return made


def _percentiles(values: Any) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    ordered = np.sort(values)
    return _quantile(ordered, 0.50), _quantile(ordered, 0.99)


def _quantile(ordered: Any, share: float) -> float:
    """As `numpy.quantile` (linear) tells it, which would first import the masked arrays: a tenth of a second."""
    place = (len(ordered) - 1) * share
    below = int(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    part = place - below
    return high - (high - low) * (1.0 - part) if part >= 0.5 else low + (high - low) * part

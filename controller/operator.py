"""The operator: observe, decide, validate, act, record. Pumped by `step`, so that time can be virtual.

One event loop owns everything here. In real time `run` pumps it and the planner decides in a thread of
its own, so that a long solve never keeps leases from being renewed; in accelerated time a step ends only
when its decisions are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from cluster import events as ev
from cluster.actions import Stamped
from cluster.observer import Observer
from cluster.occupancy import Reservation
from cluster.plan import Context
from cluster.power import Lease
from cluster.reasons import Reason
from cluster.snapshot import Snapshot
from cluster.targets import AnyTarget
from controller.actor.actor import Actor, Effects
from controller.actor.gates import Gates
from controller.actor.outcome import Outcome
from controller.actor.services import Services
from controller.beliefs import CapacityBeliefs
from controller.config import OperatorConfig
from controller.hub.service import Hub
from controller.leadership import NotLeader, release, take_epoch
from controller.ledger.ledger import Ledger
from controller.ledger.rows import EpochRow, PlanId
from controller.loops.planner import PlannerLoop
from controller.loops.power import PowerLoop
from controller.loops.stamping import stamp
from controller.measuring import Measuring
from controller.memory import Remembered
from controller.metrics import Metrics
from controller.observe.caches import Caches
from controller.observe.reports import fold_agent
from controller.observe.sketches import SketchBook
from controller.observe.world import World
from controller.power_sender import PowerSender
from controller.records import Recorder
from controller.routes import RoutesServicer
from controller.routing import RouteBook
from controller.store.errors import StoreError
from controller.store.interface import Store
from controller.telling.faults import faults_found
from controller.telling.narrator import Narrator
from controller.telling.nodes import NodeWriter
from controller.telling.writer import StatusWriter
from policies.planner import PlannerRun
from runtime.clock import Clock, WallClock

log = logging.getLogger("plimsoll.operator")

VERSION = "0.1.0"


class Listener(Protocol):
    """Somebody who watches decisions go by (the demo's report); never part of deciding."""

    def decided(
        self, loop: str, tick: int, now_seconds: float, outcomes: list[Outcome], reasons: tuple[Reason, ...]
    ) -> None:
        """A loop's plan was carried out."""
        ...


class Operator:
    """One operator process' worth of state. Losing it loses nothing that safety depends on."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        config: OperatorConfig,
        *,
        hub: Hub | None = None,
        routes: RoutesServicer | None = None,
        ledger: Ledger | None = None,
        metrics: Metrics | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Put the parts together; nothing happens before `start`."""
        self.config = config
        self.clock = clock
        self._stopwatch = WallClock()
        self.epoch = 0
        self.observer = Observer()
        self.world = World(self.observer, config.seed, started_seconds=clock.now())
        self.caches = Caches(store, clock, config.seed)
        self.routes_book = RouteBook()
        self.narrator = Narrator(store, ledger)
        self.recorder = Recorder(ledger, config.records_kept)
        self.planner = PlannerLoop(config)
        self.power = PowerLoop(config.seed)
        self.statuses = StatusWriter(store, clock, config.writes_at_once)
        self.nodes = NodeWriter(store, clock, config.writes_at_once)
        self.beliefs = CapacityBeliefs()
        self.sketches = SketchBook()
        self.measuring = Measuring(metrics or Metrics(VERSION))
        self._store = store
        self._hub = hub
        self._routes = routes
        self._ledger = ledger
        self._listener = listener
        self._power_sender = PowerSender(hub)
        parts = (self._power_sender, self.routes_book, self.world, self.caches)
        self._actor = Actor(store, *parts, config.writes_at_once, config.pods)
        self._services = Services(store)
        self._gates = Gates(store, confirmed=hub is not None)
        self._memory = Remembered(ledger)
        self._led_seconds = 0.0
        self._power_tick = 0
        self._power_due = float("-inf")
        self._status_due = float("-inf")
        self._state_due = float("-inf")
        self._measure_due = float("-inf")
        self._deciding: asyncio.Task[tuple[Context, Snapshot, PlannerRun]] | None = None

    async def start(self) -> None:
        """Take a new epoch, fill the caches, load the last states.

        Raises the store's errors when it does not answer: the caller tries again with a pause.
        """
        at_least = max(self._memory.highest_epoch(), self._obeyed())
        now = self.clock.now()
        await self._lead(at_least, now)
        self._memory.restore(self.planner, self.power, self.observer, now)

    async def _lead(self, at_least: int, now: float) -> None:
        """Take an epoch above `at_least` and tell hub, ledger and metrics. Raises the store's errors and NotLeader."""
        config, before = self.config, self.epoch
        self.epoch = await take_epoch(self._store, config.namespace, config.identity, at_least, now)
        if self._hub is not None:
            self._hub.raise_epoch(self.epoch)
        if self._ledger is not None:
            if before:
                self._ledger.epoch(EpochRow(before, config.identity, VERSION, self._led_seconds, now))
            self._ledger.epoch(EpochRow(self.epoch, config.identity, VERSION, now))
        self._led_seconds = now
        self.measuring.metrics.leading(True, self.epoch)
        log.info("leading with epoch %d, seed %d", self.epoch, config.seed)

    async def step(self) -> None:
        """One round: take in what arrived, run the loops that are due, carry out, tell."""
        now = self.clock.now()
        await self._follow_agents(now)
        changed = await self._observe(now)
        if changed:
            self.planner.wake(now)
        await self._power_if_due(now)
        if self._deciding is not None:
            await self._collect(now)
        elif self.planner.due(now):
            await self._run_planner(now)
        await self._tell(now)

    # observe

    async def _follow_agents(self, now: float) -> None:
        """An agent that obeyed a later epoch than ours would refuse us for ever: lead above it.

        The lease says so first; a store that does not take it is asked again with the next round.
        """
        if self._obeyed() <= self.epoch:
            return
        try:
            await self._lead(self._obeyed(), now)
        except (StoreError, NotLeader) as error:
            log.warning("agents obey epoch %d, which is above ours: %s", self._obeyed(), error)

    def _obeyed(self) -> int:
        """The highest epoch any agent or gateway has obeyed."""
        seen = [source.highest_epoch_seen for source in (self._hub, self._routes) if source is not None]
        return max(seen, default=0)

    async def _observe(self, now: float) -> bool:
        await self.caches.pump()
        self.world.apply(self.caches.changes())
        self._hear_agents(now)
        if self._routes is not None:
            for sketch in self._routes.drain():
                if self.sketches.fold(self.observer, sketch, now):
                    self.planner.wake(now)
                self._memory.load(sketch, now)
        changed = self.world.settle(now)
        changed |= await self._open_gates(now)
        self.observer.expire(now)
        self.beliefs.refresh(self.observer, now)
        return changed

    def _hear_agents(self, now: float) -> None:
        if self._hub is not None:
            self._hub.inbox.drain_sessions()
            for report in self._hub.inbox.drain():
                fold_agent(self.world, report, now)

    async def _open_gates(self, now: float) -> bool:
        """Let replicas become ready whose engines are up; whether the model learnt something new by it."""
        opened = await self._gates.open(self.world, now)
        for resource, obj in opened:
            self.caches.wrote(resource, obj)
        if not opened:
            return False
        await self.caches.pump()
        self.world.apply(self.caches.changes())
        return self.world.settle(now)

    # decide and act

    async def _keep_leases(self, stop: asyncio.Event) -> None:
        """Renew power leases on time in real time, whatever else waits for the store (a grant waits for nobody)."""
        while not stop.is_set():
            now = self.clock.now()
            if self.epoch:
                self._hear_agents(now)
                await self._power_if_due(now)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self.config.power_seconds / 4)

    async def _power_if_due(self, now: float) -> None:
        if now >= self._power_due:
            late = now - max(self._power_due, self.world.started_seconds)
            self._power_due = now + self.config.power_seconds
            await self._run_power(now, late)

    async def _run_power(self, now: float, late: float) -> None:
        self._power_tick += 1
        began = self._stopwatch.monotonic()
        for decision in self.power.decide(self.observer, now, self._power_tick, self.epoch):
            plan_id = PlanId(self.epoch, f"power.{decision.root}", self._power_tick)
            self.narrator.decided(plan_id, decision.plan, decision.policy, now, quiet=True)
            took, degraded = self._stopwatch.monotonic() - began, bool(decision.plan.evidence.degraded)
            self.measuring.decided("power", took, decision=str(plan_id), degraded=degraded, late_seconds=late)
            self.measuring.planned("power", decision.plan)
            stamped = stamp(decision.plan.actions, "power", plan_id, now, self.config.power_seconds)
            snapshot = self.observer.snapshot(now, self.epoch)
            await self._carry_out(stamped, snapshot, now, decision.plan.reasons, quiet=True)
            self._aim(decision.plan.targets, "power", now)

    def _aim(self, targets: tuple[AnyTarget, ...], source: str, now: float) -> None:
        for target in targets:
            self.observer.fold(
                ev.Aimed(source=source, observed_seconds=now, delivered_seconds=now, target=target)
            )

    async def _run_planner(self, now: float) -> None:
        if not (self.caches.synced and self.caches.fresh):
            return
        if self._hub is not None and not self.world.acquainted(now):
            return
        self.world.tidy(now)
        self.observer.tidy()
        snapshot = self.observer.snapshot(now, self.epoch)
        context = self.planner.begin(now, self.epoch)
        if self.config.threaded:
            self._deciding = asyncio.create_task(self._decide_in_thread(context, snapshot))
            return
        await self._carry_out_run(context, snapshot, self._decide(context, snapshot), now)

    def _decide(self, context: Context, snapshot: Snapshot) -> PlannerRun:
        began = self._stopwatch.monotonic()
        run = self.planner.decide(snapshot, context)
        degraded = any(staged.plan.evidence.degraded for staged in run.stages)
        took = self._stopwatch.monotonic() - began
        decision = str(PlanId(self.epoch, "planner", context.tick))
        self.measuring.decided("planner", took, decision=decision, degraded=degraded)
        self.measuring.solved(context.scratch)
        return run

    async def _decide_in_thread(
        self, context: Context, snapshot: Snapshot
    ) -> tuple[Context, Snapshot, PlannerRun]:
        return context, snapshot, await asyncio.to_thread(self._decide, context, snapshot)

    async def _collect(self, now: float) -> None:
        if self._deciding is None or not self._deciding.done():
            return
        task, self._deciding = self._deciding, None
        try:
            context, snapshot, run = task.result()
        except Exception:
            # A defect of one policy must not keep leases from being renewed: what is in force stays in force.
            log.exception("the planner failed; it runs again on change, at the latest after its usual pause")
            return
        await self._carry_out_run(context, snapshot, run, now)

    async def _carry_out_run(self, context: Context, snapshot: Snapshot, run: PlannerRun, now: float) -> None:
        """Carry out each stage's plan on the state of now, in order; put its targets in force."""
        record = self.recorder.keep(snapshot, self.planner.states, context, run, self.config)
        self.planner.states = run.states
        seen: Counter[str] = Counter()
        for staged in run.stages:
            # A stage decides once per policy and configuration; each decision is a plan of its own.
            loop = f"{staged.stage}.{seen[staged.stage]}" if seen[staged.stage] else staged.stage
            seen[staged.stage] += 1
            plan_id = PlanId(self.epoch, loop, context.tick)
            quiet = not staged.plan.actions
            self.narrator.decided(plan_id, staged.plan, staged.policy, now, record=record, quiet=quiet)
            self.measuring.planned(staged.stage, staged.plan)
            self._aim(staged.targets, "planner", now)
            stamped = stamp(staged.actions, staged.stage, plan_id, now, self.config.action_seconds)
            if stamped:
                await self._carry_out(
                    stamped, self.observer.snapshot(now, self.epoch), now, staged.plan.reasons
                )
            elif self._listener is not None:
                self._listener.decided(staged.stage, context.tick, now, [], staged.plan.reasons)

    async def _carry_out(
        self,
        stamped: list[Stamped],
        snapshot: Snapshot,
        now: float,
        reasons: tuple[Reason, ...],
        *,
        quiet: bool = False,
    ) -> None:
        outcomes, effects = await self._actor.carry_out(stamped, snapshot, now)
        self._fold_effects(effects, now)
        self.narrator.happened([o for o in outcomes if not quiet or o.status == "dropped"], now)
        self.measuring.acted(outcomes)
        await self._own_writes(outcomes)
        if self._listener is not None and stamped:
            self._listener.decided(stamped[0].loop, self.planner.tick, now, outcomes, reasons)

    async def _own_writes(self, outcomes: list[Outcome]) -> None:
        """Let the model see our own writes before anything else is decided on it."""
        if any(o.status == "done" for o in outcomes):
            await self.caches.pump()
            self.world.apply(self.caches.changes())
            self.world.settle(self.clock.now())

    def _fold_effects(self, effects: Effects, now: float) -> None:
        granted: tuple[Lease | Reservation, ...] = (*effects.leases, *effects.reservations)
        for noun in granted:
            self.observer.fold(ev.Seen(source="own", observed_seconds=now, delivered_seconds=now, noun=noun))
        for key in effects.released:
            self.observer.fold(
                ev.Gone(
                    source="own", observed_seconds=now, delivered_seconds=now, mapping="reservations", key=key
                )
            )
        for weights in effects.weights.values():
            for replica, weight in weights.items():
                self.observer.instance_rows.set(replica, now, {"route_weight": weight})

    # tell

    async def _tell(self, now: float) -> None:
        snapshot = self.observer.snapshot(now, self.epoch)
        # A table made before the replicas were seen would take every request away from them.
        if self._routes is not None and self.caches.synced:
            table = self.routes_book.table(self.world, snapshot, self.epoch, now)
            if table is not None:
                self._routes.publish(table)
        if now < self._status_due:
            return
        self._status_due = now + self.config.status_seconds
        if self.caches.synced:
            for resource, obj in await self._services.keep(self.world, now):
                self.caches.wrote(resource, obj)
        faults = faults_found(self.observer, self.world, self.power.config_faults)
        self.narrator.say([*faults, *self._services.reasons(self.world)], "observe", now)
        if self.planner.tick:  # one that has just begun knows less than what its predecessor wrote
            await self.statuses.write(self.world, snapshot, self.narrator.sayings, now)
        if now >= self._measure_due:
            await self.nodes.write(self.world, snapshot, now)
        await self.narrator.publish(self.world.uids(), now, self.epoch)
        if now >= self._state_due:
            self._state_due = now + self.config.state_seconds
            invalid = self.world.invalid("ModelService")
            self._memory.store(self.planner, self.power, snapshot, invalid, self.epoch, now)
        if now >= self._measure_due:
            self._measure_due = now + self.config.measure_seconds
            every = self.config.measure_seconds
            self.measuring.observed(
                self.observer, snapshot, self.caches, self._hub, self._ledger, every_seconds=every
            )

    # life

    async def run(
        self, stop: asyncio.Event, tick_seconds: float = 0.1, beat: Callable[[], None] = lambda: None
    ) -> None:
        """Pump in real time until `stop` is set. A store that does not answer is waited for, never fatal.

        `beat` is called after each round that was carried out, for a health check.
        """
        leases = asyncio.create_task(self._keep_leases(stop)) if self.config.threaded else None
        try:
            while not stop.is_set():
                if leases is not None and leases.done():
                    leases.result()  # a defect there must end the process: without leases every node is clamped
                try:
                    await self.step()
                    beat()
                except StoreError as error:
                    log.warning("the store does not answer (%s); trying again", error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), tick_seconds)
        finally:
            if leases is not None:
                leases.cancel()

    async def stop(self) -> None:
        """End in order: the lease is given back, what was decided is written down."""
        if self._deciding is not None:
            self._deciding.cancel()
        now = self.clock.now()
        if self.epoch and await release(self._store, self.config.namespace, self.config.identity, now):
            log.info("gave the lease of epoch %d back", self.epoch)
        await self.caches.close()
        if self._ledger is not None and self.epoch:
            self._ledger.epoch(EpochRow(self.epoch, self.config.identity, VERSION, self._led_seconds, now))
            snapshot, invalid = self.observer.snapshot(now, self.epoch), self.world.invalid("ModelService")
            self._memory.store(self.planner, self.power, snapshot, invalid, self.epoch, now)
            self._ledger.flush(force=True)


def facts_of(operator: Operator) -> dict[str, Any]:
    """What a health page shows of an operator."""
    return {"epoch": operator.epoch, "synced": operator.caches.synced, "revision": operator.observer.revision}

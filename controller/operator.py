"""The operator: observe, decide, validate, act, record. Pumped by `step`, so that time can be virtual.

One event loop owns everything here. In real time `run` pumps it and the planner decides in a thread of
its own, so that a long solve never keeps leases from being renewed; in accelerated time a step ends only
when its decisions are made.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from cluster.observer import Observer
from cluster.plan import Context
from cluster.snapshot import Snapshot
from controller import life
from controller.acting import Acting, Listener
from controller.actor.actor import Actor
from controller.actor.consulting import ConsultingStore
from controller.actor.refusals import Refusals
from controller.actor.upkeep import Upkeep
from controller.beliefs import CapacityBeliefs
from controller.config import OperatorConfig
from controller.hub.service import Hub
from controller.leadership import GatedStore, NotLeading
from controller.leadership.epoch import from_ledger
from controller.leadership.term import Term
from controller.ledger.ledger import Ledger
from controller.ledger.rows import PlanId
from controller.loops.planner import PlannerLoop
from controller.loops.power import PowerLoop
from controller.loops.stamping import stamp
from controller.measuring import Measuring
from controller.memory import Remembered
from controller.metrics import Metrics
from controller.observe.caches import Caches
from controller.observe.owners import ObjectOwners
from controller.observe.reports import fold_agent
from controller.observe.room import Room
from controller.observe.sketches import SketchBook
from controller.observe.world import World
from controller.power_sender import PowerSender
from controller.provisioning.acting import handlers
from controller.provisioning.provisioner import Provisioner
from controller.records import Recorder
from controller.routes import RoutesServicer
from controller.routing import RouteBook
from controller.starts import StartBeliefs
from controller.store.interface import Store
from controller.telling.faults import faults_found
from controller.telling.narrator import Narrator
from controller.telling.nodes import NodeWriter
from controller.telling.refused import refused_reasons
from controller.telling.writer import StatusWriter
from policies.advice import buys_nothing, power_advice
from policies.planner import PlannerRun
from runtime.clock import Clock, WallClock

log = logging.getLogger("plimsoll.operator")

VERSION = "0.1.0"


class Operator:
    """One leadership's worth of state, from waiting for the Lease to its end. Losing it loses nothing that safety
    depends on.

    `identity` is who it is on the Lease, random unless given; `dead` are identities that surely act no longer (those
    of former operators of this very process): nobody waits for their Lease to run out.
    """

    def __init__(  # noqa: PLR0913 - all but the first three have defaults
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
        identity: str = "",
        dead: Collection[str] = (),
    ) -> None:
        """Put the parts together; nothing happens before `start`, or `stand_by`."""
        self.config = config
        self.clock = clock
        self._stopwatch = WallClock()
        self._memory = Remembered(ledger)
        known = from_ledger(self._memory.highest_epoch, self._obeyed, threaded=config.threaded)
        self.campaign = life.campaign(store, clock, config, known, identity, dead)
        self.elector = self.campaign.elector
        self.observer = Observer()
        lent = config.pods.service_accounts
        self.world = World(self.observer, config.seed, started_seconds=clock.now(), accounts=lent)
        self.refusals = Refusals(clock, ObjectOwners(self.world.objects))
        reading, store = store, ConsultingStore(GatedStore(store, self.elector.gate), self.refusals)
        self.world.restraint.settings = config.restraint
        self.caches = Caches(reading, clock, config.seed)
        self._room = Room(reading, clock, config.seed)
        self.routes_book = RouteBook()
        self.narrator = Narrator(store, ledger)
        self.recorder = Recorder(ledger, config.records_kept)
        self.planner = PlannerLoop(config)
        self.power = PowerLoop(config.seed)
        self.statuses = StatusWriter(store, clock, config.writes_at_once, config.gateway_url, self.refusals)
        self.nodes = NodeWriter(store, clock, config.writes_at_once)
        self.beliefs = CapacityBeliefs(settings=config.profiles)
        self.starts = StartBeliefs()
        self.sketches = SketchBook()
        self.measuring = Measuring(metrics or Metrics(VERSION))
        self.term = Term(self.elector, hub, ledger, self.measuring.metrics, VERSION)
        self._hub, self._routes, self._ledger, self._listener = hub, routes, ledger, listener
        parts = (PowerSender(hub, self.elector.gate), self.world, self.caches)
        self.provisioner = Provisioner(store, reading, clock, config.provisioning, self.observer)
        buying = handlers(self.provisioner)
        actor = Actor(store, *parts, config.writes_at_once, config.pods, self.refusals, more=buying)
        self._acting = Acting(clock, actor, self.world, self.caches, self.narrator, self.measuring, listener)
        self.upkeep = Upkeep(store, self.caches, self.world, confirmed=hub is not None)
        self._power_tick = 0
        self._power_due = self._status_due = self._state_due = self._measure_due = float("-inf")
        self._deciding: asyncio.Task[tuple[Context, Snapshot, PlannerRun]] | None = None

    @property
    def epoch(self) -> int:
        """The epoch it acts under; 0 while it does not lead."""
        return self.term.epoch

    async def start(self) -> None:
        """Take the Lease now, and begin. Raises NotLeading with who holds it, or why it could not be taken."""
        if not await self.elector.attempt():
            raise NotLeading(self.elector.told())
        self.lead()

    def lead(self) -> None:
        """Begin to act under the Lease that was taken: what a former leader left is restored."""
        now = self.clock.now()
        self.world.started_seconds = now
        self.term.follow(now)
        self._memory.restore(self.planner, self.power, self.beliefs, self.observer, now)

    async def step(self) -> None:
        """One round: take in what arrived, run the loops that are due, carry out, tell.

        Raises NotLeading when the Lease was lost: nothing is decided any more.
        """
        if not self.config.threaded:
            await self.elector.pump()
        if not self.elector.leads:
            raise NotLeading(self.elector.told())
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
        if self._obeyed() > self.epoch and not await self.elector.raise_above(self._obeyed()):
            log.warning("agents obey epoch %d, and the Lease could not say a higher one yet", self._obeyed())
        self.term.follow(now)

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
        for namespace in await self._room.made(self.refusals.bounded(), self.world.objects["Namespace"]):
            self.refusals.loosened(namespace)
        self.refusals.tell(self.world.refuse)
        changed = self.world.settle(now)
        changed |= await self.upkeep.keep_revisions(now)
        changed |= await self.upkeep.open_gates(now)
        changed |= await self.provisioner.follow(now)
        self.observer.expire(now)
        self.beliefs.refresh(self.observer, now)
        self.starts.refresh(self.observer, now)
        return changed

    def _hear_agents(self, now: float) -> None:
        if self._hub is not None:
            self._hub.inbox.drain_sessions()
            for report in self._hub.inbox.drain():
                fold_agent(self.world, report, now)
                self.beliefs.hear(report)

    # decide and act

    async def keep_leases(self) -> None:
        """Renew power leases where they are due; the rest of a step may wait for the store meanwhile."""
        if self.elector.leads and self.epoch:
            now = self.clock.now()
            self._hear_agents(now)
            await self._power_if_due(now)

    async def _power_if_due(self, now: float) -> None:
        if now >= self._power_due:
            late = now - max(self._power_due, self.world.started_seconds)
            self._power_due = now + self.config.power_seconds
            await self._run_power(now, late)

    async def _run_power(self, now: float, late: float) -> None:
        self._power_tick += 1
        began = self._stopwatch.monotonic()
        advises = self.config.restraint.mode == "Recommend"
        for decision in self.power.decide(self.observer, now, self._power_tick, self.epoch):
            if advises:  # leases run out by themselves, and safe caps hold
                decision = decision._replace(plan=power_advice(decision.plan, decision.root))  # noqa: PLW2901
            plan_id = PlanId(self.epoch, f"power.{decision.root}", self._power_tick)
            self.narrator.decided(plan_id, decision.plan, decision.policy, now, quiet=True)
            took, degraded = self._stopwatch.monotonic() - began, bool(decision.plan.evidence.degraded)
            self.measuring.decided("power", took, decision=str(plan_id), degraded=degraded, late_seconds=late)
            self.measuring.planned("power", decision.plan)
            stamped = stamp(decision.plan.actions, "power", plan_id, now, self.config.power_seconds)
            snapshot = self.observer.snapshot(now, self.epoch)
            await self._acting.carry_out(
                stamped, snapshot, now, decision.plan.reasons, tick=self.planner.tick, quiet=True
            )
            self._acting.aim(decision.plan.targets, "power", now)

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
            self._acting.aim(staged.targets, "planner", now)
            actions = staged.actions
            if self.config.restraint.mode == "Recommend":
                actions = buys_nothing(actions)
            stamped = stamp(actions, staged.stage, plan_id, now, self.config.action_seconds)
            if stamped:
                await self._acting.carry_out(
                    stamped,
                    self.observer.snapshot(now, self.epoch),
                    now,
                    staged.plan.reasons,
                    tick=context.tick,
                )
            elif self._listener is not None:
                self._listener.decided(staged.stage, context.tick, now, [], staged.plan.reasons)

    # tell

    async def _tell(self, now: float) -> None:
        snapshot = self.observer.snapshot(now, self.epoch)
        # A table made before the replicas were seen would take every request away from them.
        if self._routes is not None and self.caches.synced:
            table = self.routes_book.table(self.world, snapshot, self.epoch, now)
            if table is not None and self.elector.gate.passes("routes"):
                self._routes.publish(table)
        if now < self._status_due:
            return
        self._status_due = now + self.config.status_seconds
        faults = faults_found(self.observer, self.world, self.power.config_faults)
        refused = refused_reasons(self.refusals, self.world)
        self.narrator.say(
            [*faults, *refused, *await self.upkeep.tend(now), *await self.provisioner.tend(now)],
            "observe",
            now,
        )
        if self.planner.tick:  # one that has just begun knows less than what its predecessor wrote
            await self.statuses.write(self.world, snapshot, self.narrator.sayings, now)
        if now >= self._measure_due:
            await self.nodes.write(self.world, snapshot, now)
        await self.narrator.publish(self.world.uids(), now, self.epoch)
        if now >= self._state_due:
            self._state_due = now + self.config.state_seconds
            invalid = self.world.invalid("ModelService")
            self._memory.store(self.planner, self.power, self.beliefs, snapshot, invalid, self.epoch, now)
        if now >= self._measure_due:
            self._measure_due = now + self.config.measure_seconds
            every = self.config.measure_seconds
            self.measuring.observed(
                self.observer, snapshot, self.caches, self._hub, self._ledger, every_seconds=every
            )

    # life

    async def follow(self) -> None:
        """Take in what the store says and decide nothing: a process that waits for the Lease has warm caches."""
        await self.caches.pump()
        self.world.apply(self.caches.changes())
        self.world.settle(self.clock.now())

    async def run(
        self, stop: asyncio.Event, tick_seconds: float = 0.1, beat: Callable[[], None] = lambda: None
    ) -> None:
        """Pump in real time until `stop` is set or the Lease is lost (see `controller.life`)."""
        await life.run(self, stop, tick_seconds, beat)

    async def stop(self) -> None:
        """End in order: nothing is decided any more, what was is written down, the Lease is given back."""
        if self._deciding is not None:
            self._deciding.cancel()
        now = self.clock.now()
        self.elector.halt()
        await self._acting.end()
        await self.caches.close()
        self._room.close()
        self.provisioner.close()
        self.term.end(now)
        if self._ledger is not None and self.epoch:
            if not self.elector.lost:
                snapshot, invalid = (
                    self.observer.snapshot(now, self.epoch),
                    self.world.invalid("ModelService"),
                )
                self._memory.store(self.planner, self.power, self.beliefs, snapshot, invalid, self.epoch, now)
            self._ledger.flush()
        if await self.elector.release():
            log.info("gave the lease of epoch %d back", self.epoch)
        await self.campaign.stop()


def facts_of(operator: Operator) -> dict[str, Any]:
    """What a health page shows of an operator."""
    return {"epoch": operator.epoch, "synced": operator.caches.synced, "revision": operator.observer.revision}

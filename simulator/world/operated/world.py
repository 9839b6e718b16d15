"""A world under the operator's own planner: replicas come and go as it decides.

The planner, its schedule, its beliefs and the checks of its actions are the operator's; the engines and starts are the physics
the fleet runs. What the operator knows is what an `Observer` has folded from delayed events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cluster import actions as act
from cluster import events as ev
from cluster.launch import EngineLaunch
from cluster.serving import ReplicaPhase, Service
from controller.beliefs import CapacityBeliefs
from controller.config import OperatorConfig, PolicyDefault
from controller.loops.planner import PlannerLoop
from policies.dispatch.choices import dispatch_of
from policies.dispatch.outputs import Outputs
from policies.shapes import DEFAULT_EDGES
from simulator.physics.loading import StageEvent
from simulator.physics.rendezvous import CheckpointVault
from simulator.physics.shapes import model_of
from simulator.physics.specs import ModelSpec
from simulator.physics.training import GangPhase
from simulator.traces.requests import TraceRequest
from simulator.world import moving
from simulator.world.core import Event
from simulator.world.operated import (
    agents,
    deciding,
    leasing,
    measuring,
    outages,
    powering,
    starting,
    training,
)
from simulator.world.operated.acting import Handler
from simulator.world.operated.attempts import Attempt, Ranks
from simulator.world.operated.hearing import Ears
from simulator.world.operated.log import Log
from simulator.world.operated.machines import Site
from simulator.world.operated.routing import Table
from simulator.world.operated.spec import OperatedSpec, check_operated
from simulator.world.operated.units import Unit
from simulator.world.served import Served
from simulator.world.serving import arrive
from simulator.world.spec import Choice
from simulator.world.world import Outcome, World, policy_of

EPOCH = 1
"""One operator leads all the time."""


class Moment(msgspec.Struct, frozen=True, gc=False):
    """How it stood when the operator looked: ready replicas and held requests by service, GPUs held, dollars an hour."""

    seconds: float
    ready: dict[str, int]
    held: dict[str, int]
    gpus: int
    dollars_per_hour: float


class OperatedWorld(World):
    """A cluster under way. ScenarioError when it contradicts itself, before anything runs.

    `requests` are streams by service name; a service without one has no traffic.
    """

    def __init__(self, spec: OperatedSpec, requests: Mapping[str, Iterable[TraceRequest]]) -> None:
        check_operated(spec)
        self._found(spec)
        self.origin = spec.origin_seconds
        self.epoch = EPOCH
        self.sites = {each.noun.name: Site(each, spec.seed) for each in spec.machines}
        self.nodes = {name: [] for name in self.sites}
        for each in spec.machines:
            self.machines.found(each.noun.name, each.server.gpu, each.server.gpus).fixed = True
        self.units: dict[str, Unit] = {}
        self.attempts: dict[str, Attempt] = {}
        self.jobs_known = {job.name: job for job in spec.jobs}
        self.vault = CheckpointVault()
        self.created = self.runs = 0
        self.over = False
        self.ears = Ears(self.observer, self.origin)
        self.log = Log()
        self.routes: dict[str, Table] = {}
        self.moved: dict[str, list[float]] = {}
        self.leases: dict[str, tuple[int, int]] = {}
        self.gpu_seconds: dict[str, float] = {}
        self.moments: list[Moment] = []
        self.planner = PlannerLoop(_config(spec))
        self.beliefs = CapacityBeliefs()
        self.power = leasing.Leases(spec.seed, spec.power_seconds) if spec.domains else None
        self.handlers: dict[type[act.Action], Handler] = (
            {act.GrantPower: leasing.grant} if spec.domains else {}
        )
        self.services = [self._serve(n, each, requests) for n, each in enumerate(spec.services)]
        self.served = {service.name: service for service in self.services}
        self._introduce()
        self._set_off()

    def _serve(self, number: int, noun: Service, requests: Mapping[str, Iterable[TraceRequest]]) -> Served:
        """A service with no instance yet, and its load measured."""
        dispatch = policy_of("dispatch", _chosen(noun, "dispatch") or Choice(dispatch_of(noun)))
        moves = _chosen(noun, "migration")
        migration = policy_of("migration", moves) if moves is not None else None
        holds = (noun.hold_seconds, noun.hold_requests)
        stream = requests.get(noun.name, ())
        made = Served(noun.name, number, _model(noun), dispatch, migration, holds, [], stream)
        made.load = measuring.Load(self.origin)
        made.outputs, made.told = Outputs(DEFAULT_EDGES[0]), self.spec.told
        return made

    def _introduce(self) -> None:
        """What the operator knows when it begins: products, pools, machines, and what is wanted."""
        spec = self.spec
        for noun in (*spec.products, *spec.pools, *spec.services, *spec.jobs, *spec.domains):
            self.ears.see(noun, self.origin)
        for each in spec.machines:
            self.ears.node(each.noun, self.origin)
        if spec.at_first is not None:
            starting.resume(spec.at_first, self)
        if spec.states is not None:
            self.planner.states = spec.states

    def _set_off(self) -> None:
        """Queue what happens by itself: arrivals, outages, reports, the loops, and the end. The operator looks last."""
        spec, push = self.spec, self.kernel.push
        for service in self.services:
            first = service.next_arrival()
            if first is not None:
                push((first.arrived_seconds, arrive, (service, first)))
            if service.migration is not None:
                push((spec.moving.every_seconds, moving.tick, (service, 1)))
        for outage in spec.outages:
            push((outage.at_seconds, outages.crash, outage))
        every = spec.delays.report_seconds
        for site in self.sites.values():
            at = self.draw() * every if spec.staggered else 0.0
            push((at, agents.report, (site, at)))
        push((every - measuring.EARLY_SECONDS, measuring.measure, every))
        push((deciding.LATE_SECONDS, deciding.step, 0.0))
        for event in powering.begin(self):
            push(event)
        push((spec.seconds, _end, None))

    @property
    def done(self) -> bool:
        """Whether the time is over."""
        return self.over

    # what the operator hears

    def tell(self, unit: Unit, at_seconds: float) -> None:
        """The operator will hear how a replica is now."""
        unit.told += 1
        at, number, node = self.origin + at_seconds, unit.told, unit.site.name
        nouns, key = unit.nouns(at), unit.key
        self.ears.put(
            at + self.spec.delays.watch_seconds, lambda now: self.ears.pod(key, number, node, nouns, now)
        )

    def show(self, unit: Unit, at_seconds: float) -> None:
        """The operator did it itself, and sees it at once."""
        unit.told += 1
        now = self.origin + at_seconds
        self.ears.pod(unit.key, unit.told, unit.site.name, unit.nouns(now), now)

    def forget(self, unit: Unit, at_seconds: float) -> None:
        """The operator will hear that a replica is gone."""
        at, key, node = self.origin + at_seconds, unit.key, unit.site.name
        self.ears.put(at + self.spec.delays.watch_seconds, lambda now: self.ears.end(key, node, now))

    def aim(self, targets: Iterable[Any], source: str, now_seconds: float) -> None:
        """Put targets in force."""
        for target in targets:
            self.observer.fold(
                ev.Aimed(
                    source=source, observed_seconds=now_seconds, delivered_seconds=now_seconds, target=target
                )
            )

    def columns(self, site: Site, at_seconds: float) -> dict[str, float]:
        """What a machine's agent measures beside its engines."""
        server = site.spec.server
        found = {
            "safe_watts": float(server.safe_watts), "min_watts": float(server.min_watts),
            "max_watts": float(server.max_watts), **powering.columns(site, at_seconds, self),
        }  # fmt: skip
        return found if self.power is None else self.power.columns(site, found, self)

    def entered(self, event: StageEvent, site: Site) -> list[Event]:
        """A start that is no replica's comes to its next stage."""
        return training.entered(event, site, self)

    def paced(self, site: Site, at_seconds: float) -> list[Event]:
        """The limits of a machine changed: gangs with ranks there go on at its pace."""
        powering.held(site, at_seconds, self)
        events: list[Event] = []
        for attempt in self.attempts.values():
            if (
                attempt.gang is not None
                and not attempt.gang.over
                and any(r.site is site for r in attempt.ranks)
            ):
                training.live(attempt, at_seconds)
                attempt.gang.set_speed(
                    site.name, site.held.training_clock, site.spec.server.speed, at_seconds
                )
                events += training.look(attempt)
        return events

    # accounts

    def bill(self, pool: str, gpu_seconds: float) -> None:
        """GPUs of a pool were held."""
        self.gpu_seconds[pool] = self.gpu_seconds.get(pool, 0.0) + gpu_seconds

    def settle_ranks(self, ranks: Ranks, at_seconds: float) -> None:
        """Ranks have given their GPUs back."""
        if ranks.billed:
            return
        ranks.billed = True
        self.bill(ranks.site.spec.noun.pool, ranks.slot.gpus * (at_seconds - ranks.attempt.since))

    def price(self, pool: str) -> float:
        """Dollars for a GPU-hour of a pool; 0 of one nobody prices."""
        found = self.observer.live("pools").get(pool)
        return float(found.dollars_per_gpu_hour) if found is not None else 0.0

    def count(self, at_seconds: float) -> None:
        """Keep how it stands."""
        ready = {service.name: 0 for service in self.services}
        gpus, dollars = 0, 0.0
        for unit in self.units.values():
            ready[unit.service] += unit.phase is ReplicaPhase.READY and not unit.site.down
            gpus += unit.slot.gpus
            dollars += unit.slot.gpus * self.price(unit.action.pool)
        for attempt in self.attempts.values():
            for ranks in attempt.ranks:
                taken = ranks.slot.gpus * (ranks.claim() is not None)
                gpus += taken
                dollars += taken * self.price(ranks.site.spec.noun.pool)
        held = {service.name: len(service.held) for service in self.services}
        self.moments.append(Moment(at_seconds, ready, held, gpus, dollars))

    def steps_of(self, job: str) -> int:
        """Iterations of a job that are done and not lost."""
        gangs = [a.gang for a in self.attempts.values() if a.job == job and a.gang is not None]
        saved = self.vault.latest(job)
        kept = [gang.checkpoint_step if gang.phase is GangPhase.FAILED else gang.step for gang in gangs]
        return max([*kept, saved.step if saved is not None else 0])

    @property
    def dollars(self) -> float:
        """What the GPUs that were held cost so far."""
        return sum(self.price(pool) * seconds / 3_600.0 for pool, seconds in sorted(self.gpu_seconds.items()))

    def run(self) -> Outcome:
        """Run to the end of the time, or of the event budget."""
        outcome = super().run()
        for unit in self.units.values():
            self.bill(unit.action.pool, unit.slot.gpus * (self.kernel.now - unit.since))
        for attempt in self.attempts.values():
            for ranks in attempt.ranks:
                if ranks.claim() is not None:
                    self.settle_ranks(ranks, self.kernel.now)
        return outcome


def _end(_: float, _subject: None, world: Any) -> Iterable[Event]:
    world.over = True
    return ()


def _config(spec: OperatedSpec) -> OperatorConfig:
    """The operator's own settings."""
    return OperatorConfig(
        seed=spec.seed,
        plan_seconds=spec.plan_seconds,
        debounce_seconds=spec.debounce_seconds,
        power_seconds=spec.power_seconds,
        action_seconds=spec.action_seconds,
        policies={
            loop: PolicyDefault(choice.name, dict(choice.config)) for loop, choice in spec.policies.items()
        },
    )


def _chosen(service: Service, loop: str) -> Choice | None:
    name = service.policies.name.get(loop)
    return Choice(name, dict(service.policies.config.get(loop, {}))) if name else None


def _model(service: Service) -> ModelSpec:
    """The model as moves need it; each replica has the one of its variant."""
    if not service.variants:
        bytes_per_token = service.model.kv_bytes_per_token
        return ModelSpec(
            name=service.model.name, parameters=max(service.model.parameters, 1.0), weight_bytes=service.model.weight_bytes,
            layers=service.model.layers, hidden=service.model.hidden_size, kv_bytes_per_token=bytes_per_token,
        )  # fmt: skip
    return model_of(EngineLaunch(service=service.name, model=service.model, variant=service.variants[0]))

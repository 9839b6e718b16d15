"""The operator in the world: it looks, decides with its own planner on its own schedule, and acts.

The planner loop, its stages, the beliefs and the checks are the operator's own; only what carries actions out is the world's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from cluster.restraint import HOUR_SECONDS, Moves
from simulator.world.core import Event
from simulator.world.operated.acting import carry_out
from simulator.world.operated.attempts import fold
from simulator.world.operated.routing import publish

LATE_SECONDS = 1e-6
"""How long after its moment the operator looks: what happens at that very moment has happened."""


def step(_: float, subject: float, world: Any) -> Iterable[Event]:
    """One round of the operator at the moment `subject`: hear, decide what is due, act, tell the gateways."""
    now = world.origin + subject
    if observe(subject, world):
        world.planner.wake(now)
    events: list[Event] = []
    if world.power is not None:
        events += world.power.step(subject, world)
    if world.planner.due(now):
        events += plan(subject, world)
    events += publish(subject, world)
    world.count(subject)
    again = subject + world.spec.step_seconds
    return [*events, (again + LATE_SECONDS, step, again)]


def observe(at_seconds: float, world: Any) -> bool:
    """Take in what was heard by now; whether a planner would look at something new."""
    now = world.origin + at_seconds
    changed: bool = world.ears.hear(now)
    for attempt in list(world.attempts.values()):
        changed |= fold(attempt, now, world)
    changed |= _budgets(now, world)
    world.observer.expire(now)
    world.beliefs.refresh(world.observer, now)
    return changed


def _budgets(now: float, world: Any) -> bool:
    """Disruption budgets of services, as moves of the last hour (by minute, as the operator counts them) leave them."""
    changed = False
    for name, moved in world.moved.items():
        service = world.observer.live("services").get(name)
        if service is None or service.moves is None:
            continue
        ends = [(int(at // 60.0) + 1) * 60.0 + HOUR_SECONDS for at in moved]
        ends = [at for at in ends if at > now]
        moves = Moves(allowed=service.moves.allowed, made=len(ends), next_seconds=min(ends, default=None))
        if moves != service.moves:
            changed |= world.ears.see(msgspec.structs.replace(service, moves=moves), now)
    return changed


def plan(at_seconds: float, world: Any) -> list[Event]:
    """Run the planner, and carry each stage's plan out on the state of now."""
    now = world.origin + at_seconds
    world.observer.tidy()
    snapshot = world.observer.snapshot(now, world.epoch)
    context = world.planner.begin(now, world.epoch)
    run = world.planner.decide(snapshot, context)
    world.planner.states = run.states
    world.runs += 1
    seen: Counter[str] = Counter()
    events: list[Event] = []
    for staged in run.stages:
        loop = f"{staged.stage}.{seen[staged.stage]}" if seen[staged.stage] else staged.stage
        seen[staged.stage] += 1
        world.log.told(at_seconds, staged.stage, context.tick, staged.plan)
        world.aim(staged.targets, "planner", now)
        if staged.actions:
            events += carry_out(at_seconds, loop, context.tick, staged.plan, staged.actions, world)
    return events

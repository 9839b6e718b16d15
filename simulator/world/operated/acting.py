"""Carrying plans out: every action is checked against the operator's model of now, then happens in the world.

The checks, and what an accepted action is charged with, are the operator's (`cluster.checks`, `cluster.overlay`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cluster import actions as act
from cluster.checks import check, subject_of
from cluster.drops import Drop
from cluster.occupancy import Reservation
from cluster.overlay import Overlay, routes_of
from cluster.plan import Plan
from cluster.reasons import Reason
from cluster.serving import ReplicaPhase
from simulator.world.core import Event
from simulator.world.operated import training, units

Handler = Callable[[float, Any, Overlay, Any], "list[Event] | None"]
"""Does one action at a second of the world; None when the world does not have it any more."""


def carry_out(
    at_seconds: float,
    loop: str,
    tick: int,
    plan: Plan,
    actions: Sequence[act.AnyAction],
    world: Any,
    *,
    quiet: bool = False,
) -> list[Event]:
    """Check and do a plan's actions in order; each accepted one is charged before the next is checked.

    Of a `quiet` loop only what was not done is logged.
    """
    now = world.origin + at_seconds
    overlay = Overlay(world.observer.snapshot(now, world.epoch))
    events: list[Event] = []
    for index, action in enumerate(actions):
        stamped = act.Stamped(
            id=f"{world.epoch}/{loop}/{tick}/{index}", action=action, loop=loop.partition(".")[0],
            epoch=world.epoch, issued_seconds=now, deadline_seconds=now + world.spec.action_seconds,
        )  # fmt: skip
        drop = check(overlay, stamped, now)
        reason, outcome = _reason(plan, action), "dropped"
        if drop is not None:
            reason = drop.reason(subject_of(action))
        else:
            done, reason, outcome = _attempt(at_seconds, action, overlay, reason, world)
            events += done
            if outcome == "done":
                overlay.apply(action)
        if not quiet or outcome != "done":
            world.log.acted(at_seconds, loop, tick, action, outcome, reason)
    return events


def _reason(plan: Plan, action: act.AnyAction) -> Reason | None:
    return plan.reasons[action.reason] if action.reason < len(plan.reasons) else None


def _attempt(
    at: float, action: act.AnyAction, overlay: Overlay, reason: Reason | None, world: Any
) -> tuple[list[Event], Reason | None, str]:
    handler = HANDLERS.get(type(action)) or world.handlers.get(type(action))
    if handler is None:
        drop = Drop("Unsupported", action.kind, 1, 0, 0, "kinds")
        return [], drop.reason(subject_of(action)), "dropped"
    try:
        done = handler(at, action, overlay, world)
    except ValueError:
        return [], reason, "failed"
    return (done, reason, "done") if done is not None else ([], reason, "failed")


def _create(at: float, action: act.CreateReplica, overlay: Overlay, world: Any) -> list[Event] | None:
    if action.name in world.units:
        return None  # one of that name is on its way out still
    return units.create(at, action, overlay.read("services")[action.service], world)


def _drain(at: float, action: act.Drain, _: Overlay, world: Any) -> list[Event] | None:
    unit = world.units.get(action.subject.name)
    if unit is None:
        return None
    if unit.phase is ReplicaPhase.READY:
        unit.phase = ReplicaPhase.DRAINING
    if action.voluntary:
        world.moved.setdefault(unit.service, []).append(world.origin + at)
    world.show(unit, at)
    return []


def _resume(at: float, action: act.Resume, _: Overlay, world: Any) -> list[Event] | None:
    unit = world.units.get(action.subject.name)
    if unit is None:
        return None
    if unit.phase is ReplicaPhase.DRAINING:
        unit.phase = ReplicaPhase.READY
    world.show(unit, at)
    return []


def _delete(at: float, action: act.DeleteReplica, _: Overlay, world: Any) -> list[Event] | None:
    unit = world.units.get(action.replica.name)
    return units.stop(unit, at, action.grace_seconds, world) if unit is not None else []


def _routes(at: float, action: act.SetRoutes, overlay: Overlay, world: Any) -> list[Event]:
    world.aim((routes_of(action, world.origin + at),), "own", world.origin + at)
    owned = [key for key, r in overlay.read("replicas").items() if r.service == action.service]
    for key, weight in {**dict.fromkeys(owned, 0.0), **action.weights}.items():
        world.observer.instance_rows.set(key, world.origin + at, {"route_weight": weight})
    return []


def _settle(at: float, action: act.SettleRevision, overlay: Overlay, world: Any) -> list[Event]:
    after = Overlay(overlay.base)
    after.apply(action)
    world.ears.see(after.read("services")[action.service], world.origin + at)
    return []


def _reserve(at: float, action: act.Reserve, _: Overlay, world: Any) -> list[Event]:
    reservation = Reservation(
        key=action.key, owner=action.owner, slots=action.slots, priority=action.priority,
        starts_seconds=action.starts_seconds, expires_seconds=action.expires_seconds,
    )  # fmt: skip
    world.ears.see(reservation, world.origin + at, "own")
    return []


def _release(at: float, action: act.Release, _: Overlay, world: Any) -> list[Event]:
    world.ears.drop("reservations", action.key, world.origin + at)
    return []


HANDLERS: dict[type[act.Action], Handler] = {
    act.CreateReplica: _create,
    act.Drain: _drain,
    act.Resume: _resume,
    act.DeleteReplica: _delete,
    act.SetRoutes: _routes,
    act.SettleRevision: _settle,
    act.Reserve: _reserve,
    act.Release: _release,
    act.StartGang: training.start,
    act.RestartGang: training.restart,
    act.StopGang: training.end,
}
"""What the world can do, by kind of action; the others are answered `Unsupported`."""

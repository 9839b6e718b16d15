"""Requests that change engines: migrations as the policy wants them, and the way from prefill to decode.

A move reserves room on the target, copies the context while the source goes on, then what was generated meanwhile, until so
few tokens are left that the target computes them again in its first step; then the request leaves the source at a step
boundary, the commit at the token log gives it to the target, and the source frees its KV (research/live-migration.md §1.3-1.5).
What ends or dies on the way aborts the move; a request always has an owner or is replayed from the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cluster.actions import Migrate, Reject
from cluster.base import Ref
from cluster.flight import InFlight
from cluster.plan import Context
from cluster.tables import InstanceTable, SequenceTable
from cluster.views import MigrationView
from simulator.world.book import Open
from simulator.world.core import Event
from simulator.world.instances import Instance
from simulator.world.served import Served
from simulator.world.serving import choose, replay

RETRY_SECONDS = 0.05
"""How soon a prefilled request asks again for room on a decode instance."""
NOBODY = SequenceTable.empty()
STEP_SECONDS = 0.005
"""No engine is faster than this a token: what may be generated while a context is copied."""


class Move:
    """A request on its way from `source` to `target`; `copied` tokens of its context are there.

    In the end `lag` are computed again. It is the `number`-th try to move its request. `cut`: it has left the source's batch, or leaves at the end of the step. A hand-over from prefill to decode is cut
    from its beginning, and is no migration.
    """

    __slots__ = (
        "copied",
        "cut",
        "deadline",
        "lag",
        "migration",
        "number",
        "request",
        "source",
        "stage",
        "target",
    )

    def __init__(self, request: Open, source: Instance, target: Instance, deadline: float) -> None:
        self.request, self.source, self.target, self.deadline = request, source, target, deadline
        self.copied = self.stage = self.lag = 0
        self.number = request.tried = (
            request.tried + 1
        )  # a copy of an earlier move of it may still be under way
        self.migration = deadline < float("inf")
        self.cut = not self.migration


def tick(at_seconds: float, subject: tuple[Served, int], world: Any) -> Iterable[Event]:
    """The migration loop of a service: the policy sees the operator's model, and its moves begin.

    Where nothing was heard and nothing has moved since it was last asked, it is not asked again: it would say the same.
    """
    service, number = subject
    again = (at_seconds + world.spec.moving.every_seconds, tick, (service, number + 1))
    known = (world.observer.instance_rows.publish(), len(world.moves), world.book.moved + world.book.aborted)
    if known[0] is service.decided_on[0] and known[1:] == service.decided_on[1:]:
        return (again,)
    service.decided_on = known
    view = view_of(at_seconds, service, world)
    ctx = Context(
        now_seconds=world.origin + at_seconds,
        tick=number,
        seed=world.spec.seed,
        loop="migration",
        scope=(service.name,),
    )
    decision = service.migration.decide(view, service.migration_state, ctx)
    service.migration_state = decision.state
    events: list[Event] = [again]
    for action in decision.plan.actions:
        events += begin(at_seconds, action, world)
    return events


def view_of(at_seconds: float, service: Served, world: Any) -> MigrationView:
    """What the operator knows of a service: its table of instances, the requests of crowded ones, moves in flight."""
    table = _table_of(service, world)
    flights = {}
    for key, move in world.moves.items():
        for end in (move.source.name, move.target.name):
            flights[f"{key}/{end}"] = InFlight(
                id=f"{key}/{end}", kind="Migrate", subject=Ref("Replica", end), loop="migration",
                issued_seconds=world.origin + at_seconds, deadline_seconds=world.origin + move.deadline,
            )  # fmt: skip
    if service.rates.shape[0] != len(table.keys):
        every = (len(table.keys), len(table.keys))
        service.rates = np.broadcast_to(np.float64(world.spec.moving.bytes_per_second), every)
    return MigrationView(
        instances=table,
        sequences=_sequences(at_seconds, table, world),
        bytes_per_second=service.rates,
        moves=flights,
    )


def _sequences(at_seconds: float, table: InstanceTable, world: Any) -> SequenceTable:
    """The requests that crowded instances were last known to decode, and that have not ended."""
    keys, instance, context, moves, since, epochs = [], [], [], [], [], []
    for row, name in enumerate(table.keys):
        for key, now in world.by_name[name].seen:
            request = world.book.open.get(key)
            if request is not None:
                keys.append(str(key))
                instance.append(row)
                context.append(now)
                moves.append(request.moves)
                since.append(at_seconds - request.since)
                epochs.append(request.epoch)
    if not keys:
        return NOBODY
    tokens = np.array(context, dtype=np.float64)
    return SequenceTable(
        keys=tuple(keys), observed_seconds=np.full(len(keys), world.origin + at_seconds),
        instance=np.array(instance, dtype=np.int64), epoch=np.array(epochs, dtype=np.int64), context_tokens=tokens,
        unique_tokens=tokens, priority=np.zeros(len(keys)), moves=np.array(moves, dtype=np.int64),
        resident_seconds=np.array(since, dtype=np.float64),
    ).freeze()  # fmt: skip


def _table_of(service: Served, world: Any) -> InstanceTable:
    """The operator's rows of the service's instances that are still there."""
    table: InstanceTable = world.observer.instance_rows.publish()
    mine = [row for row, name in enumerate(table.keys) if _is_of(service, world.by_name.get(name))]
    if len(mine) == len(table.keys):
        return table
    columns = {name: getattr(table, name)[mine] for name in InstanceTable.columns()}
    return InstanceTable(keys=tuple(table.keys[row] for row in mine), **columns).freeze()


def _is_of(service: Served, instance: Instance | None) -> bool:
    return instance is not None and instance.service is service


def begin(at_seconds: float, action: Migrate, world: Any) -> Iterable[Event]:
    """Start a move if what it was decided on still holds: owner, epoch, a target that has the room."""
    request = world.book.open.get(int(action.sequence))
    source, target = world.by_name.get(action.source), world.by_name.get(action.target)
    if (
        request is None or request.key in world.moves or request.instance is not source
        or request.epoch != action.epoch or target is None or not target.alive
    ):  # fmt: skip
        world.book.aborted += 1
        return ()
    world.live(source, at_seconds)
    world.live(target, at_seconds)
    if request.key not in world.book.open or not source.engine.holds(request.key):
        world.book.aborted += 1
        return ()
    context = request.prompt + source.engine.generated_tokens(request.key)
    moving = world.spec.moving
    seconds = request.service.model.kv_bytes_per_token * context / moving.bytes_per_second
    room = context + moving.lag_tokens + int(2.0 * seconds / STEP_SECONDS)
    if target.group.engine.admission == "reserve":
        room = request.prompt + request.output
    if not target.engine.reserve(request.key, room):
        world.book.aborted += 1
        return ()
    move = world.moves[request.key] = Move(request, source, target, action.deadline_seconds - world.origin)
    return send(at_seconds, move, context, world)


def send(at_seconds: float, move: Move, context: int, world: Any) -> Iterable[Event]:
    """Copy what the target lacks of a context."""
    move.stage += 1
    size = move.request.service.model.kv_bytes_per_token * (context - move.copied)
    name = f"{move.request.key}.{move.number}.{move.stage}"
    sent: list[Event] = world.wires.send(
        at_seconds, move.source, move.target, name, size, copied, (move, context)
    )
    return sent


def copied(at_seconds: float, subject: tuple[Move, int], world: Any) -> Iterable[Event]:
    """A stage has arrived: cut over when little is left, else copy the rest, else give up."""
    move, context = subject
    key, source = move.request.key, move.source
    if world.moves.get(key) is not move:
        return ()  # aborted meanwhile
    world.live(source, at_seconds)
    if world.moves.get(key) is not move:
        return ()  # it ended just now
    move.copied = context
    now = move.request.prompt + source.engine.generated_tokens(key)
    moving = world.spec.moving
    if now - context > moving.lag_tokens and move.stage < moving.stages and at_seconds < move.deadline:
        return send(at_seconds, move, now, world)
    if now - context > moving.lag_tokens or at_seconds >= move.deadline or not source.engine.hand_over(key):
        abort(move, world)
        return ()
    move.cut = True
    source.leaving += 1
    return source.attend()


def left(at_seconds: float, subject: tuple[Instance, int], world: Any) -> Iterable[Event]:
    """A request left the batch of its engine: commit its move, or find it a decode instance."""
    source, key = subject
    if not source.engine.holds(key):
        return ()  # the instance died with it
    source.leaving -= 1
    move = world.moves.get(key)
    if move is not None and world.spec.moving.copy_last:
        return rest(at_seconds, move, world)
    if move is not None:
        return ((at_seconds + world.spec.moving.commit_seconds, commit, move),)
    return decode(at_seconds, subject, world)


def rest(at_seconds: float, move: Move, world: Any) -> Iterable[Event]:
    """Copy what was generated since the last stage, while nobody decodes."""
    key, source, model = move.request.key, move.source, move.request.service.model
    context = move.request.prompt + source.engine.generated_tokens(key)
    size = model.kv_bytes_per_token * (context - move.copied)
    sent: list[Event] = world.wires.send(
        at_seconds, source, move.target, f"{key}.{move.number}.r", size, delivered, (move, context)
    )
    return sent


def decode(at_seconds: float, subject: tuple[Instance, int], world: Any) -> Iterable[Event]:
    """A prefilled request asks for room on a decode instance, and its KV goes there."""
    source, key = subject
    request = world.book.open.get(key)
    if request is None or request.instance is not source or not source.engine.holds(key):
        return ()  # its prefill instance died: it is replayed
    generated = source.engine.generated_tokens(key)
    target = choose(at_seconds, request, world, request.service.back, generated)
    again = (at_seconds + RETRY_SECONDS, decode, subject)
    if isinstance(target, Reject):
        source.engine.release(key)
        world.refuse(request)
        return ()
    if target is None:
        return (again,)
    world.live(target, at_seconds)
    grows = target.group.engine.admission == "grow"
    if not target.engine.reserve(key, request.prompt + (generated if grows else request.output)):
        return (again,)
    move = world.moves[key] = Move(request, source, target, float("inf"))
    context = request.prompt + generated
    name = f"{key}.{move.number}.d"
    sent: list[Event] = world.wires.send(
        at_seconds,
        source,
        target,
        name,
        request.service.model.kv_bytes_per_token * context,
        delivered,
        (move, context),
    )
    return sent


def delivered(at_seconds: float, subject: tuple[Move, int], world: Any) -> Iterable[Event]:
    """All KV of a prefilled request is at its decode instance."""
    move, context = subject
    if world.moves.get(move.request.key) is not move:
        return ()
    move.copied = context
    return ((at_seconds + world.spec.moving.commit_seconds, commit, move),)


def commit(at_seconds: float, subject: Move, world: Any) -> Iterable[Event]:
    """The token log gives the request to the target, unless one of the two is gone."""
    request, source, target = subject.request, subject.source, subject.target
    if world.moves.pop(request.key, None) is not subject:
        return ()
    handover = source.engine.handover(request.key)
    source.engine.release(request.key)
    subject.lag = max(handover.context_tokens - subject.copied, 1)
    if not target.alive:
        return replay(at_seconds, handover, world)
    world.live(target, at_seconds)
    if target.engine.take_over(handover, subject.copied) is not None:
        return replay(at_seconds, handover, world)
    target.engine.advance_to(at_seconds)
    request.instance, request.since = target, at_seconds
    request.epoch += 1
    if subject.migration:
        request.moves += 1
        world.book.moved += 1
    else:
        world.book.handed += 1
    return target.attend()


def abort(move: Move, world: Any) -> None:
    """Give a move up: the source goes on, the target's room is free again."""
    del world.moves[move.request.key]
    if move.target.alive:
        move.target.engine.unreserve(move.request.key)
    world.book.aborted += 1

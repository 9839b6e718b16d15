"""Requests come in, are dispatched by the policy in force, wait where nobody is ready, and leave when it takes too long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.actions import Dispatch, Reject
from cluster.plan import Context
from cluster.serving import Role
from cluster.views import DispatchView, Request
from simulator.physics.sequence import Handover
from simulator.traces.requests import TraceRequest
from simulator.world.book import Open
from simulator.world.core import Event
from simulator.world.hearing import hear
from simulator.world.instances import Instance
from simulator.world.served import Served

SERVICE = "world/service"
"""The name of a service that its scenario gives none."""


def arrive(at_seconds: float, subject: tuple[Served, TraceRequest], world: Any) -> Iterable[Event]:
    """A request of a service's trace arrives, and the next one is looked up."""
    service, given = subject
    prefix = given.block_hashes[: given.input_tokens // given.block_tokens] if given.block_tokens else ()
    output = max(given.output_tokens, 1)
    request = world.book.begin(at_seconds, given.input_tokens, output, prefix, service, given.priority)
    if service.load is not None:
        service.load.add(at_seconds, given.input_tokens, output)
    following = service.next_arrival()
    if following is not None:
        world.kernel.push((following.arrived_seconds, arrive, (service, following)))
    if service.held:
        return hold(at_seconds, request)
    return place(at_seconds, request, world)


def place(at_seconds: float, request: Open, world: Any, generated: int = 0) -> Iterable[Event]:
    """Give a request to an instance that takes them from the gateway, or let it wait."""
    chosen = choose(at_seconds, request, world, request.service.front, generated)
    if chosen is None:
        return hold(at_seconds, request, generated)
    if isinstance(chosen, Reject):
        world.refuse(request)
        return ()
    return submit(at_seconds, request, chosen, world, generated)


def choose(
    at_seconds: float, request: Open, world: Any, pool: Any, generated: int = 0
) -> Instance | Reject | None:
    """What the dispatch policy says of a pool of instances: one of them, a refusal, or None for wait."""
    prompt, service = request.prompt + generated, request.service
    if world.spec.delays.each_step:
        hear(at_seconds, pool, world)
    output = request.output - generated
    view = DispatchView(
        request=Request(
            id=str(request.key), service=service.name, prompt_tokens=prompt,
            expected_output_tokens=service.expected(prompt, output), arrived_seconds=request.arrived,
            deadline_seconds=request.arrived + service.hold_seconds, priority=request.priority,
            most_output_tokens=output,
        ),
        instances=pool.rows.table, held=len(service.held), hold_limit=service.hold_limit,
        plan=service.plan, columns=pool.columns,
    )  # fmt: skip
    ctx = Context(
        now_seconds=at_seconds, tick=request.key, seed=world.spec.seed, loop="dispatch", scope=(service.name,)
    )
    decision = service.dispatch.decide(view, pool.state, ctx)
    pool.state = decision.state
    (action,) = decision.plan.actions
    if isinstance(action, Dispatch):
        chosen: Instance = pool.by_name[action.instance]
        pool.rows.sent(chosen.row, at_seconds, prompt)
        return chosen
    return action if isinstance(action, Reject) else None


def submit(
    at_seconds: float, request: Open, instance: Instance, world: Any, generated: int = 0
) -> Iterable[Event]:
    """Hand a request to the engine of an instance; what was generated elsewhere is computed again as prompt."""
    world.live(instance, at_seconds)
    engine, key = instance.engine, request.key
    leaves = instance.group.role is Role.PREFILL and request.output > generated + 1
    if generated:
        refusal = engine.take_over(request.handover(generated))
    else:
        refusal = engine.submit(
            key, request.prompt, request.output, request.arrived, request.priority, request.prefix, leaves
        )
    if refusal is not None:
        world.refuse(request)
        return ()
    request.instance, request.since = instance, at_seconds
    request.epoch += 1
    if leaves:
        instance.leaving += 1
    if not instance.leaving:
        return ()  # it is looked at soon enough
    engine.advance_to(at_seconds)
    return instance.attend()


def hold(at_seconds: float, request: Open, generated: int = 0) -> Iterable[Event]:
    """Let a request wait for an instance, until the hold deadline."""
    request.service.held.append((request, generated))
    return ((max(request.arrived + request.service.hold_seconds, at_seconds), overdue, request),)


def overdue(_: float, subject: Open, world: Any) -> Iterable[Event]:
    """A request that nobody took waited too long."""
    if subject.instance is None and subject.key in world.book.open:
        subject.service.let_go(subject)
        world.refuse(subject)
    return ()


def let_in(at_seconds: float, subject: Served, world: Any) -> Iterable[Event]:
    """Somebody of a service is ready: who was held is dispatched, oldest first."""
    held, subject.held = subject.held, []
    events: list[Event] = []
    for request, generated in held:
        if request.key in world.book.open:
            events += place(at_seconds, request, world, generated)
    return events


def replay(at_seconds: float, subject: Handover, world: Any) -> Iterable[Event]:
    """A request lost its owner: it goes on elsewhere from the token log."""
    request = world.book.open.get(subject.request_id)
    if request is None:
        return ()
    request.instance = None
    world.book.replayed += 1
    return place(at_seconds, request, world, subject.generated_tokens)

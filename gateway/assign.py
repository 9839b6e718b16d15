"""Moves requests between arrived, held and dispatched: the only place that changes a request's owner."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.actions import Dispatch, Hold, Reject
from cluster.plan import Context, Policy
from cluster.views import DispatchView, Request
from gateway.endings import sentence
from gateway.hold import HoldConfig
from gateway.ledger import Ledger
from gateway.load import LoadConfig
from gateway.messages import Cancellation, End, NodeFrame, Submission, Window
from gateway.requests import Ticket
from gateway.rows import Row
from gateway.service import ServiceState

DispatchPolicy = Policy[DispatchView, Any]
DEFAULT_POLICY = "least_outstanding"


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one gateway.

    `owners_limit`: instances that a request may be given to before it fails. `refusal_mask_seconds`: how long
    an instance that refused a request is left alone. `open_limit`: requests open at once, over all services.
    `seed` feeds the contexts of dispatch policies.
    """

    name: str = "gateway"
    hold: HoldConfig = HoldConfig()
    load: LoadConfig = LoadConfig()
    owners_limit: int = 10
    refusal_mask_seconds: float = 1.0
    open_limit: int = 100_000
    seed: int = 0


class Assigner:
    """Places requests through the dispatch seam, holds them, lets them go, and looks at deadlines when due.

    `policies` maps a name to a dispatch policy and must have `least_outstanding`, which serves every service
    whose route names none or one that is not there.
    """

    def __init__(self, config: GatewayConfig, ledger: Ledger, policies: Mapping[str, DispatchPolicy]) -> None:
        self.config = config
        self.ledger = ledger
        self.services: dict[str, ServiceState] = {}
        self.frames: dict[str, NodeFrame] = {}
        self.urgent = False
        self.lost: list[Ticket] = []
        self.epoch = 0
        self.window = Window(0, 0.0, 0.0)
        self._policies = dict(policies)
        self._states: dict[str, Any] = {}
        self._scratch: dict[str, Any] = {}
        self._timers: list[tuple[float, int, ServiceState | Ticket]] = []
        self._timer = 0

    # ------------------------------------------------------------------------------------------- timers

    def schedule(self, service: ServiceState, at_seconds: float) -> None:
        """Look at a service at a time, unless it is looked at earlier anyway."""
        if at_seconds < service.wake_seconds:
            service.wake_seconds = at_seconds
            self._push(at_seconds, service)

    def watch(self, ticket: Ticket) -> None:
        """Look at a request when its client's own deadline passes."""
        self._push(ticket.arrival.deadline_seconds, ticket)

    def _push(self, at_seconds: float, subject: ServiceState | Ticket) -> None:
        self._timer += 1
        heapq.heappush(self._timers, (at_seconds, self._timer, subject))

    def run_until(self, limit_seconds: float, inclusive: bool) -> None:
        """Do everything that is due before the limit (or at it), in order of time."""
        timers = self._timers
        while timers and (timers[0][0] < limit_seconds or (inclusive and timers[0][0] == limit_seconds)):
            due, _, subject = heapq.heappop(timers)
            at = max(due, self.window.from_seconds)
            if isinstance(subject, Ticket):
                self._client_deadline(subject, at)
            elif due == subject.wake_seconds and self.services.get(subject.name) is subject:
                self._look(subject, at)

    def _look(self, service: ServiceState, at: float) -> None:
        service.wake_seconds = math.inf
        service.rows.unmask(at)
        for ticket in service.held.overdue(at, service.route.hold_deadline_seconds):
            self._overdue(service, ticket, at)
        self._release(service, at)
        upcoming = service.next_look()
        if upcoming < math.inf:
            self.schedule(service, upcoming)

    def _overdue(self, service: ServiceState, ticket: Ticket, at: float) -> None:
        waited = at - ticket.held_since_seconds
        self.unhold(service, ticket, at)
        if ticket.epoch:
            self.end(ticket, End.FAILED, at, "LostDeadline", sentence("LostDeadline", waited=waited))
            return
        again = self.config.hold.retry_after_floor_seconds
        text = sentence("RejectDeadline", waited=waited, retry_after=again)
        self.end(ticket, End.REJECTED, at, "RejectDeadline", text, retry_after=again)

    def _client_deadline(self, ticket: Ticket, at: float) -> None:
        if ticket.request_id not in self.ledger.open:
            return
        text = sentence("ClientDeadline", waited=at - ticket.arrival.arrived_seconds)
        never_owned = ticket.epoch == 0
        self.withdraw(ticket, at)
        self.end(ticket, End.REJECTED if never_owned else End.FAILED, at, "ClientDeadline", text)

    # ------------------------------------------------------------------------------------------ placing

    def place(self, service: ServiceState, ticket: Ticket, at: float) -> None:
        """Give a request without owner to an instance, or let it wait behind those that already do."""
        if service.held or not self._assign(service, ticket, at):
            self._hold(service, ticket, at)

    def _release(self, service: ServiceState, at: float) -> None:
        """Let held requests go, as many as the pace allows."""
        ready = service.rows.ready_count
        if not service.held or not ready:
            service.pacer.close()
            return
        allowance = service.pacer.allowance(at, ready)
        released = 0
        while released < allowance:
            ticket = service.held.head()
            if ticket is None or not self._assign(service, ticket, at):
                break
            released += 1
        service.pacer.took(released)
        if not service.held:
            service.pacer.close()

    def _assign(self, service: ServiceState, ticket: Ticket, at: float) -> bool:
        """Ask the policy once and carry out what it says; False when the request has to wait."""
        action = self._decide(service, ticket, at)
        if isinstance(action, Dispatch):
            row = service.rows.by_name.get(action.instance)
            if row is None or not row.may_serve(at):
                return False
            self._submit(service, ticket, row, at)
            return True
        if isinstance(action, Reject):
            self._refuse(service, ticket, action, at)
            return True
        return False

    def _decide(self, service: ServiceState, ticket: Ticket, at: float) -> Dispatch | Hold | Reject | None:
        arrival, route = ticket.arrival, service.route
        waiting = ticket in service.held
        view = DispatchView(
            request=Request(
                id=str(ticket.request_id),
                service=route.service,
                request_class=arrival.request_class,
                prompt_tokens=arrival.prompt_tokens,
                expected_output_tokens=service.expected(arrival),
                arrived_seconds=arrival.arrived_seconds,
                deadline_seconds=(ticket.held_since_seconds if waiting else at) + route.hold_deadline_seconds,
                priority=arrival.priority,
                most_output_tokens=arrival.output_tokens,
            ),
            instances=service.rows.table,
            plan=route.size_plan,
            columns=service.rows.columns,
            held=service.held.first_comers - (waiting and not ticket.epoch),
            # Who already had an owner is not turned away for lack of room.
            hold_limit=route.hold_limit if ticket.epoch == 0 else service.held.first_comers + 1,
        )
        ctx = Context(
            now_seconds=at, tick=self.window.tick, epoch=self.epoch, seed=self.config.seed, loop="dispatch",
            scope=(route.service,), scratch=self._scratch,
        )  # fmt: skip
        policy = self._policies.get(route.dispatch_policy) or self._policies[DEFAULT_POLICY]
        state = self._states.get(route.service)
        decision = policy.decide(view, policy.initial() if state is None else state, ctx)
        self._states[route.service] = decision.state
        actions = decision.plan.actions
        action = actions[0] if actions else None
        return action if isinstance(action, (Dispatch, Hold, Reject)) else None

    def _submit(self, service: ServiceState, ticket: Ticket, row: Row, at: float) -> None:
        if ticket in service.held:
            self.unhold(service, ticket, at)
        self.ledger.transitions.move(ticket, "dispatched")
        arrival, tick = ticket.arrival, self.window.tick
        ticket.epoch += 1
        ticket.row, ticket.tick, ticket.first_token_seconds = row, tick, None
        row.open[ticket.request_id] = ticket
        service.rows.submitted(row, tick, arrival.prompt_tokens)
        self.ledger.counts.dispatched += 1
        self.frame(row.node).submissions.append(
            Submission(
                request_id=ticket.request_id, epoch=ticket.epoch, instance=row.name,
                request_class=arrival.request_class, prompt_tokens=arrival.prompt_tokens,
                output_tokens=arrival.output_tokens, arrived_seconds=arrival.arrived_seconds,
                submitted_seconds=at, priority=arrival.priority,
            )
        )  # fmt: skip

    def frame(self, node: str) -> NodeFrame:
        """The frame under construction for a node."""
        frame = self.frames.get(node)
        if frame is None:
            frame = self.frames[node] = NodeFrame(node, self.window.tick)
        return frame

    # ------------------------------------------------------------------------------------------ waiting

    def _hold(self, service: ServiceState, ticket: Ticket, at: float) -> None:
        """Let a request wait, inside the caps on count and bytes."""
        held, route = service.held, service.route
        over = held.first_comers >= route.hold_limit or (
            held.bytes + held.size(ticket) > self.config.hold.bytes_limit
        )
        if over and ticket.epoch == 0:
            self._refuse(service, ticket, None, at)
            return
        if ticket.phase != "held":
            self.ledger.transitions.move(ticket, "held")
        ticket.held_since_seconds = at
        if not held and not service.rows.ready_count:
            self.urgent = True
        held.push(ticket)
        self.ledger.counts.held += 1
        again = at + self.config.hold.pace_seconds if service.rows.ready_count else math.inf
        self.schedule(service, min(again, service.next_look()))

    def unhold(self, service: ServiceState, ticket: Ticket, at: float) -> None:
        """Take a request out of the queue."""
        service.held.remove(ticket)
        ticket.held_seconds += at - ticket.held_since_seconds

    def _refuse(self, service: ServiceState, ticket: Ticket, action: Reject | None, at: float) -> None:
        """End a request that cannot be taken: by the policy's Reject, or by the caps."""
        code = action.code if action else "RejectCap"
        oldest = service.held.oldest_since_seconds()
        room = 0.0 if oldest is None else oldest + service.route.hold_deadline_seconds - at
        again = max(
            self.config.hold.retry_after_floor_seconds, action.retry_after_seconds if action else room
        )
        if ticket in service.held:
            self.unhold(service, ticket, at)
        text = sentence(
            code if code in _POLICY_CODES else "RejectCap",
            retry_after=again,
            waited=ticket.held_seconds,
            tokens=ticket.arrival.prompt_tokens + ticket.arrival.output_tokens,
        )
        end = End.FAILED if ticket.epoch else End.REJECTED
        self.end(ticket, end, at, code, text, retry_after=0.0 if code == "RejectTooLong" else again)

    # -------------------------------------------------------------------------------------------- losing

    def lose(self, ticket: Ticket, at: float, fault: str) -> None:
        """The owner is gone or gave the request back: replay it at the next step, or fail it after too many."""
        row = ticket.row
        if row is not None:
            del row.open[ticket.request_id]
        ticket.row = None
        if ticket.epoch >= self.config.owners_limit:
            self.end(
                ticket, End.FAILED, at, "LostOwners", sentence("LostOwners", owners=ticket.epoch, fault=fault)
            )
            return
        self.ledger.counts.retried += 1
        service = self.services.get(ticket.arrival.service)
        if service is not None:
            service.load_of(ticket.arrival.request_class).retried += 1
        self.lost.append(ticket)

    def replay(self, at: float) -> None:
        """Place everything that was lost since the last step, oldest request first."""
        lost, self.lost = sorted(self.lost, key=_by_id), []
        for ticket in lost:
            if ticket.request_id not in self.ledger.open:
                continue
            service = self.services.get(ticket.arrival.service)
            if service is not None:
                self.place(service, ticket, at)
            else:
                name = ticket.arrival.service
                self.end(ticket, End.FAILED, at, "LostService", sentence("LostService", service=name))

    def withdraw(self, ticket: Ticket, at: float) -> None:
        """Take a request from wherever it is, telling its owner to stop; its end is the caller's next step."""
        service = self.services.get(ticket.arrival.service)
        if service is not None and ticket in service.held:
            self.unhold(service, ticket, at)
        self.tell_owner(ticket)
        if ticket.row is not None:
            del ticket.row.open[ticket.request_id]

    def tell_owner(self, ticket: Ticket) -> None:
        """Tell the owner, if it has one that can hear, that it no longer owns the request."""
        row = ticket.row
        if row is not None and row.connected:
            self.frame(row.node).cancels.append(Cancellation(ticket.request_id, ticket.epoch, row.name))

    def end(
        self, ticket: Ticket, end: End, at: float, code: str, message: str, retry_after: float = 0.0
    ) -> None:
        """Close a request that was not served, in the book and in its service's load."""
        service = self.services.get(ticket.arrival.service)
        if (
            self.ledger.end(ticket, end, at, code, message, retry_after_seconds=retry_after)
            and service is not None
        ):
            service.load_of(ticket.arrival.request_class).end(end, at)


_POLICY_CODES = frozenset({"RejectCap", "RejectDeadline", "RejectTooLong"})


def _by_id(ticket: Ticket) -> int:
    return ticket.request_id

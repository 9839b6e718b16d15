"""The gateway's core: events in, frames and endings out; no transport, no clock, no task.

**Information delay.** `step` decides one window of time. What it may use is what was handed in before it (routes,
streams that came up or went down, engine frames of earlier windows) and its own dispatches so far: within a window
arrivals are dispatched one by one at their exact times, held requests leave and deadlines strike in between, and
nothing that an engine does inside the window is known before its frame is folded. Frames are folded in the order
(tick, node, sequence), whatever order they came in. So the outcome is a function of the inputs alone.

**Conservation.** Each arrival ends exactly once: finished, rejected, failed or cancelled (`Counts`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from gateway.assign import DEFAULT_POLICY, Assigner, DispatchPolicy, GatewayConfig
from gateway.endings import sentence
from gateway.ledger import Counts, Ledger
from gateway.messages import Arrival, End, Ending, EngineReport, Outbox, RouteTable, Window
from gateway.report import LoadReport, build
from gateway.requests import Ticket
from gateway.returns import Returns
from gateway.rows import Row
from gateway.service import ServiceState

LONGEST_NAME = 253
"""Characters of a name that a client made up which are repeated to it."""

__all__ = ["GatewayConfig", "GatewayCore"]


class GatewayCore:
    """One gateway's state. Not thread-safe: one owner calls it.

    `policies` maps names to dispatch policies and must have `least_outstanding`; ValueError otherwise.
    """

    def __init__(self, config: GatewayConfig, policies: Mapping[str, DispatchPolicy]) -> None:
        if DEFAULT_POLICY not in policies:
            raise ValueError(
                f"The gateway needs the dispatch policy {DEFAULT_POLICY!r}; it was given {sorted(policies)}."
            )
        self.config = config
        self._ledger = Ledger()
        self._assigner = Assigner(config, self._ledger, policies)
        self._returns = Returns(self._assigner)
        self._up: set[str] = set()
        self.route_epoch = 0
        self.route_version = -1

    @property
    def counts(self) -> Counts:
        """Counts since the gateway began; read only."""
        return self._ledger.counts

    @property
    def refused_transitions(self) -> dict[tuple[str, str], int]:
        """Illegal life-cycle moves that were asked for, by (from, to); empty in a healthy gateway."""
        return dict(self._ledger.transitions.refused)

    @property
    def open_requests(self) -> int:
        """Requests that have not ended."""
        return len(self._ledger.open)

    @property
    def services(self) -> Mapping[str, ServiceState]:
        """Services in force, by name; read only."""
        return self._assigner.services

    @property
    def nodes(self) -> dict[str, str]:
        """Nodes that the routes need a stream to, with the endpoint of each."""
        wanted: dict[str, str] = {}
        for service in self._assigner.services.values():
            for row in service.rows.ordered:
                wanted[row.node] = row.route.endpoint
        return wanted

    # -------------------------------------------------------------------------------------------- routes

    def apply_routes(self, table: RouteTable, now_seconds: float) -> bool:
        """Put a table in force when it is newer by (epoch, version); else count the refusal and return False.

        Instances that are not in it any more are lost: what they own is replayed at the next step.
        """
        counts = self._ledger.counts
        if table.epoch < self.route_epoch:
            counts.routes_old_epoch += 1
            return False
        if table.epoch == self.route_epoch and table.version <= self.route_version:
            counts.routes_old_version += 1
            return False
        self.route_epoch, self.route_version = table.epoch, table.version
        self._assigner.epoch = table.epoch
        counts.routes_accepted += 1
        routes = {route.service: route for route in table.services}
        services = self._assigner.services
        for name in sorted(set(services) - set(routes)):
            self._remove(services[name], now_seconds)
        for name in sorted(routes):
            service = services.get(name)
            if service is None:
                service = ServiceState(routes[name], self.config.hold, self.config.load, now_seconds)
                services[name] = service
            for row in service.take_route(routes[name], now_seconds):
                self._discard(row, now_seconds)
            for row in service.rows.ordered:
                row.connected = row.node in self._up
                service.rows.refresh(row, now_seconds)
            self._assigner.schedule(service, now_seconds)
        self._returns.index_nodes()
        return True

    def _remove(self, service: ServiceState, now: float) -> None:
        for row in service.rows.ordered:
            self._discard(row, now)
        for ticket in list(service.held):
            self._assigner.unhold(service, ticket, now)
            if ticket.epoch:
                self._assigner.lost.append(ticket)
            else:
                text = sentence("RejectNoService", service=service.name)
                self._assigner.end(ticket, End.REJECTED, now, "RejectNoService", text)
        del self._assigner.services[service.name]

    def _discard(self, row: Row, now: float) -> None:
        """An instance left the routes: it may still work on what it has, and is told to stop."""
        self._ledger.counts.lost_rows += 1
        for ticket in list(row.open.values()):
            self._assigner.tell_owner(ticket)
            self._assigner.lose(ticket, now, f"{row.name} left the routes")

    # --------------------------------------------------------------------------------------------- nodes

    def node_up(self, node: str, now_seconds: float) -> None:
        """The stream to a node is there."""
        self._up.add(node)
        for service, row in self._returns.rows_on(node):
            row.connected, row.absent = True, False
            service.rows.refresh(row, now_seconds)
            self._assigner.schedule(service, now_seconds)

    def node_down(self, node: str, now_seconds: float) -> None:
        """The stream to a node broke: its instances lost all they owned, and get nothing until it is back."""
        self._up.discard(node)
        self._assigner.frames.pop(node, None)
        for service, row in self._returns.rows_on(node):
            row.connected = False
            self._ledger.counts.lost_rows += 1
            self._returns.lose_all(row, math.inf, now_seconds, f"the stream to {node} broke")
            service.rows.clear(row)
            service.rows.refresh(row, now_seconds)

    def fold(self, reports: Iterable[EngineReport], now_seconds: float) -> None:
        """Take in frames of engines, in order (tick, node, sequence). Frames of unknown nodes change nothing."""
        for report in sorted(reports, key=_fold_order):
            self._returns.fold(report, now_seconds)

    # ------------------------------------------------------------------------------------------- clients

    def cancel_client(self, client: int, now_seconds: float) -> int:
        """A client's stream closed: withdraw all that it has open; return how many."""
        tickets = self._ledger.of_client(client)
        for ticket in tickets:
            self._cancel(ticket, now_seconds)
        return len(tickets)

    def _cancel(self, ticket: Ticket, now: float) -> None:
        self._assigner.withdraw(ticket, now)
        self._assigner.end(ticket, End.CANCELLED, now, "ClientGone", sentence("ClientGone"))

    # ---------------------------------------------------------------------------------------------- step

    def step(self, window: Window, arrivals: Sequence[Arrival] = ()) -> Outbox:
        """Decide one window; see the module. Arrivals may come in any order; those from before the window are
        taken in at its start, with their latency counted from their own time.

        Raises ValueError when the window's tick or start goes back, or it ends before it starts.
        """
        former = self._assigner.window
        if (
            window.tick <= former.tick
            or not former.from_seconds <= window.from_seconds <= window.until_seconds
        ):
            raise ValueError(f"Window {window} cannot follow {former}: ticks and times must grow.")
        assigner = self._assigner
        assigner.window = window
        for frame in assigner.frames.values():
            frame.tick = window.tick
        assigner.replay(window.from_seconds)
        for arrival in self._in_order(arrivals, window):
            at = arrival.arrived_seconds
            if at < window.from_seconds:
                self._ledger.counts.late_arrivals += 1
                at = window.from_seconds
            assigner.run_until(at, inclusive=True)
            self._arrive(arrival, at)
        assigner.run_until(window.until_seconds, inclusive=False)
        frames, assigner.frames = assigner.frames, {}
        urgent, assigner.urgent = assigner.urgent, False
        return Outbox(frames, self._ledger.collect(), urgent)

    def _in_order(self, arrivals: Sequence[Arrival], window: Window) -> list[Arrival]:
        valid: list[Arrival] = []
        for arrival in arrivals:
            fault = _fault(arrival, window)
            if fault:
                self._turn_away(arrival, window.from_seconds, "RejectInvalid", fault=fault)
            else:
                valid.append(arrival)
        valid.sort(key=_arrival_order)
        return valid

    def _arrive(self, arrival: Arrival, at: float) -> None:
        service = self._assigner.services.get(arrival.service)
        if service is None:
            self._turn_away(arrival, at, "RejectNoService", service=arrival.service[:LONGEST_NAME])
            return
        service.load_of(arrival.request_class).arrive(at, arrival.prompt_tokens, arrival.output_tokens)
        if len(self._ledger.open) >= self.config.open_limit:
            again = self.config.hold.retry_after_floor_seconds
            self._turn_away(arrival, at, "RejectOverload", open=len(self._ledger.open), retry_after=again)
            return
        ticket = self._ledger.admit(arrival)
        if arrival.deadline_seconds > 0.0:
            self._assigner.watch(ticket)
        self._assigner.place(service, ticket, at)

    def _turn_away(self, arrival: Arrival, at: float, code: str, **facts: object) -> None:
        ticket = self._ledger.admit(arrival)
        again = self.config.hold.retry_after_floor_seconds if code == "RejectOverload" else 0.0
        self._assigner.end(ticket, End.REJECTED, at, code, sentence(code, **facts), again)

    def collect(self) -> list[Ending]:
        """Endings since the last step or call: those that folding brought."""
        return self._ledger.collect()

    def report(self, now_seconds: float) -> LoadReport:
        """What the operator is to know: load by service and class, and what each instance has outstanding."""
        return build(self.config, self._assigner.services, self.route_epoch, self.route_version, now_seconds)


def _fault(arrival: Arrival, window: Window) -> str:
    """Why an arrival cannot be taken; empty when it can."""
    if not -math.inf < arrival.arrived_seconds <= window.until_seconds:
        return f"it arrives at {arrival.arrived_seconds}, after the window ends at {window.until_seconds}"
    if arrival.prompt_tokens < 1 or arrival.output_tokens < 1:
        return f"{arrival.prompt_tokens} prompt and {arrival.output_tokens} output tokens, at least 1 of each"
    if not 0.0 <= arrival.deadline_seconds < math.inf:
        return f"its deadline is {arrival.deadline_seconds}, not a point in time"
    return ""


def _fold_order(report: EngineReport) -> tuple[int, str, int]:
    return report.tick, report.node, report.sequence


def _arrival_order(arrival: Arrival) -> tuple[float, int, int]:
    return arrival.arrived_seconds, arrival.client, arrival.tag

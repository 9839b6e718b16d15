"""What comes back from the nodes: first tokens, ends, refusals, loads, and instances that are there no more."""

from __future__ import annotations

from gateway.assign import Assigner
from gateway.messages import End, EngineEvent, EngineReport, EventKind
from gateway.requests import Ticket
from gateway.rows import Row
from gateway.service import ServiceState


class Returns:
    """Folds engine reports. An event counts only when it is of the request's present owner (epoch and row)."""

    def __init__(self, assigner: Assigner) -> None:
        self._assigner = assigner
        self._ledger = assigner.ledger
        self._by_node: dict[str, dict[str, tuple[ServiceState, Row]]] = {}

    def index_nodes(self) -> None:
        """Find rows by node again, after the routes changed."""
        self._by_node = {}
        for service in self._assigner.services.values():
            for row in service.rows.ordered:
                self._by_node.setdefault(row.node, {})[row.name] = service, row

    def rows_on(self, node: str) -> list[tuple[ServiceState, Row]]:
        """The routed instances of a node, with their services."""
        return list(self._by_node.get(node, {}).values())

    def fold(self, report: EngineReport, now: float) -> None:
        """Take in one frame: its events, then the loads, then what is missing from its list."""
        for event in report.events:
            self._event(event, now)
        rows = self._by_node.get(report.node)
        if not rows:
            return
        listed = set()
        for load in report.instances:
            found = rows.get(load.name)
            if found is None:
                continue
            service, row = found
            listed.add(load.name)
            service.rows.report(row, load, report.tick, report.observed_seconds)
            self._refresh(service, row, now)
        if len(listed) < len(rows):
            for name, (service, row) in rows.items():
                if name not in listed:
                    self._missing(service, row, report, now)

    def lose_all(self, row: Row, tick: float, now: float, fault: str) -> None:
        """Take back what was sent to a row in frames up to `tick`."""
        for ticket in list(row.open.values()):
            if ticket.tick <= tick:
                self._assigner.lose(ticket, now, fault)

    def _missing(self, service: ServiceState, row: Row, report: EngineReport, now: float) -> None:
        """The node does not list the instance: it is not there now, whether not yet or no more."""
        self._ledger.counts.lost_rows += not row.absent
        service.rows.missing(row, report.tick)
        self.lose_all(row, report.tick, now, f"{row.name} is not on {row.node}")
        service.rows.refresh(row, now)

    def _refresh(self, service: ServiceState, row: Row, now: float) -> None:
        before = service.rows.ready_count
        service.rows.refresh(row, now)
        if service.rows.ready_count > before and service.held:
            self._assigner.schedule(service, now)

    def _event(self, event: EngineEvent, now: float) -> None:
        ticket = self._ledger.open.get(event.request_id)
        if (
            ticket is None
            or ticket.epoch != event.epoch
            or ticket.row is None
            or ticket.row.name != event.instance
        ):
            self._ledger.counts.stale_events += 1
            return
        if event.kind is EventKind.FIRST_TOKEN:
            self._first_token(ticket, event)
        elif event.kind is EventKind.FINISHED:
            self._finish(ticket, event)
        elif event.kind is EventKind.REFUSED:
            self._refused(ticket, ticket.row, event, now)
        else:
            self._assigner.lose(ticket, now, event.message or "the engine lost it")

    def _first_token(self, ticket: Ticket, event: EngineEvent) -> None:
        transitions = self._ledger.transitions
        if transitions.move(ticket, "prefill") and transitions.move(ticket, "decoding"):
            ticket.first_token_seconds = event.at_seconds

    def _finish(self, ticket: Ticket, event: EngineEvent) -> None:
        row = ticket.row
        if ticket.first_token_seconds is None:
            ticket.first_token_seconds = event.at_seconds
        first = ticket.first_token_seconds
        if not self._ledger.end(ticket, End.FINISHED, event.at_seconds, output_tokens=event.tokens):
            return
        if row is not None:
            del row.open[ticket.request_id]
        self._ledger.counts.short_outputs += event.tokens != ticket.arrival.output_tokens
        service = self._assigner.services.get(ticket.arrival.service)
        if service is not None:
            load = service.load_of(ticket.arrival.request_class)
            load.finish(ticket, first, event.at_seconds, event.tokens)

    def _refused(self, ticket: Ticket, row: Row, event: EngineEvent, now: float) -> None:
        """Another instance is to have it; this one is left alone for a while unless the request is to blame."""
        self._ledger.counts.refused_by_engine += 1
        arrival, load = ticket.arrival, row.reported
        if load is None or arrival.prompt_tokens + arrival.output_tokens <= load.kv_capacity_tokens:
            service = self._assigner.services.get(row.service)
            if service is not None and service.rows.by_name.get(row.name) is row:
                until = now + self._assigner.config.refusal_mask_seconds
                service.rows.mask(row, until, now)
                self._assigner.schedule(service, until)
        self._assigner.lose(ticket, now, event.message or f"{row.name} refused it")

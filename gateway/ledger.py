"""The book of requests: everyone who came in is in it once, and leaves it once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gateway.messages import Arrival, End, Ending
from gateway.requests import Ticket, Transitions

_PHASE_OF = {
    End.FINISHED: "finished",
    End.REJECTED: "rejected",
    End.FAILED: "failed",
    End.CANCELLED: "cancelled",
}


@dataclass(slots=True)
class Counts:
    """Counts since the gateway began. `arrived` = finished + rejected + failed + cancelled + open, always.

    `retried`: times that a request lost its owner and was given to be replayed. `stale_events`: events of an
    owner that is not one any more. `routes_old_epoch`, `routes_old_version`: tables refused. `late_arrivals`:
    arrivals of a window that was already decided, taken in at the present one. `lost_rows`: instances that
    left the routes, their node's list, or with their node's stream.
    """

    arrived: int = 0
    finished: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    dispatched: int = 0
    held: int = 0
    retried: int = 0
    refused_by_engine: int = 0
    stale_events: int = 0
    short_outputs: int = 0
    routes_accepted: int = 0
    routes_old_epoch: int = 0
    routes_old_version: int = 0
    late_arrivals: int = 0
    lost_rows: int = 0
    codes: Counter[str] = field(default_factory=Counter)


class Ledger:
    """Open requests by id and by client, counts, and the endings that nobody has collected yet."""

    __slots__ = ("_by_client", "_next_id", "counts", "endings", "open", "transitions")

    def __init__(self) -> None:
        self._next_id = 1
        self._by_client: dict[int, dict[int, Ticket]] = {}
        self.open: dict[int, Ticket] = {}
        self.counts = Counts()
        self.endings: list[Ending] = []
        self.transitions = Transitions()

    def admit(self, arrival: Arrival) -> Ticket:
        """Open a request. One whose tag its client already has open is a new request all the same."""
        ticket = Ticket(self._next_id, arrival)
        self._next_id += 1
        self.counts.arrived += 1
        self.open[ticket.request_id] = ticket
        self._by_client.setdefault(arrival.client, {})[ticket.request_id] = ticket
        return ticket

    def of_client(self, client: int) -> list[Ticket]:
        """A client's open requests, oldest first."""
        return list(self._by_client.get(client, {}).values())

    def end(
        self,
        ticket: Ticket,
        end: End,
        at_seconds: float,
        code: str = "",
        message: str = "",
        output_tokens: int = 0,
        retry_after_seconds: float = 0.0,
    ) -> bool:
        """Close a request; False, counted, when the life cycle does not allow it: then it stays open."""
        owner = ticket.row.name if ticket.row is not None else ""
        if not self.transitions.move(ticket, _PHASE_OF[end]):
            return False
        arrival, counts = ticket.arrival, self.counts
        del self.open[ticket.request_id]
        siblings = self._by_client[arrival.client]
        del siblings[ticket.request_id]
        if not siblings:
            del self._by_client[arrival.client]
        finished = end is End.FINISHED
        if finished:
            counts.finished += 1
        else:
            counts.codes[code] += 1
            counts.rejected += end is End.REJECTED
            counts.failed += end is End.FAILED
            counts.cancelled += end is End.CANCELLED
        self.endings.append(
            Ending(
                tag=arrival.tag, client=arrival.client, service=arrival.service,
                request_class=arrival.request_class, end=end, arrived_seconds=arrival.arrived_seconds,
                ended_seconds=at_seconds, first_token_seconds=ticket.first_token_seconds,
                finished_seconds=at_seconds if finished else None, output_tokens=output_tokens, instance=owner,
                retries=max(0, ticket.epoch - 1), held_seconds=ticket.held_seconds, code=code, message=message,
                retry_after_seconds=retry_after_seconds,
            )
        )  # fmt: skip
        return True

    def collect(self) -> list[Ending]:
        """Hand over the endings since the last call, in order."""
        endings, self.endings = self.endings, []
        return endings

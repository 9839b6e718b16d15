"""The hub: agents' streams on one side, the operator's thread on the other.

Reports are checked, typed and put into the inbox. Commands are stamped with the leader's epoch and a sequence per
node, and queued. Nothing is decided here. All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from controller.hub.commands import AgentCommand, to_wire
from controller.hub.inbox import Inbox, SessionChange, SessionEvent
from controller.hub.sessions import HubError, HubStats, NotConnected, Session
from controller.hub.validity import Validity
from controller.hub.waits import TickBarrier, until_empty
from runtime.authority import Role
from runtime.channels import EOF, MIB
from runtime.clock import Clock, WallClock
from runtime.tls import PeerRefused, caller
from wire import agent_pb2 as pb
from wire import agent_pb2_grpc

logger = logging.getLogger(__name__)

SERVICE = "plimsoll.v1.Hub"
ROLES = frozenset({Role.NODE})
ACCEPTED = "x-plimsoll-accepted"
"""Metadata key that answers a hello which was accepted, with the boot id it is for."""
HELLO_SECONDS = 5.0
"""A stream that has not said hello by then (wall time) is closed."""


class _Refused(Exception):
    """The stream must end with this status and sentence."""

    def __init__(self, code: grpc.StatusCode, why: str) -> None:
        super().__init__(why)
        self.code = code


class Hub(agent_pb2_grpc.HubServicer):
    """The service `plimsoll.v1.Hub`.

    `epoch` 0 means that nobody leads yet: agents may connect and report, commands are refused until `raise_epoch`.
    `most_message_bytes` bounds one message of an agent; a larger one ends its stream.
    `wall` is the clock of certificates, the machine's unless given.
    `heartbeat_seconds` equal to `report_seconds` makes every agent report every tick, as a barrier needs.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        epoch: int = 0,
        report_seconds: float = 1.0,
        heartbeat_seconds: float = 5.0,
        inbox: Inbox | None = None,
        most_message_bytes: int = 1 * MIB,
        wall: Clock | None = None,
    ) -> None:
        self._clock = clock
        self._validity = Validity(wall or WallClock())
        self._epoch = epoch
        self._report_seconds = report_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._most_message_bytes = most_message_bytes
        self.inbox = inbox or Inbox()
        self.stats = HubStats()
        self._sessions: dict[str, Session] = {}
        self._sent: dict[str, int] = {}
        self._barrier = TickBarrier()
        self._changed = asyncio.Event()

    # ---------------------------------------------------------------------------------- for the operator

    @property
    def epoch(self) -> int:
        """The leader's epoch; 0 before it leads."""
        return self._epoch

    def raise_epoch(self, epoch: int) -> None:
        """A new term: sequences begin again and every agent is welcomed anew. Raises: HubError unless it grows."""
        if epoch <= self._epoch:
            raise HubError(f"Epoch {epoch} is not above {self._epoch}; an epoch only grows.")
        self._epoch = epoch
        self._sent.clear()
        for session in self._sessions.values():
            self._welcome(session)

    @property
    def highest_epoch_seen(self) -> int:
        """Highest epoch that any connected node has obeyed: a leader needs one at least as high."""
        return max((session.highest_epoch for session in self._sessions.values()), default=0)

    def nodes(self) -> list[str]:
        """Names of the nodes that have a stream now, sorted."""
        return sorted(self._sessions)

    def connected(self, node: str) -> bool:
        """Whether the node has a stream now."""
        return node in self._sessions

    def send(self, node: str, command: AgentCommand, command_id: str, deadline_seconds: float) -> int:
        """Stamps and queues a command; returns its sequence. `deadline_seconds` is UTC on the shared clock.

        Raises: NotConnected, OutboxFull. A queued command whose stream breaks is dropped and counted: the answer
        that does not come tells.
        """
        session = self._sessions.get(node)
        if session is None:
            self.stats.commands_refused += 1
            raise NotConnected(f"Node {node!r} has no stream to this hub.")
        if not self._epoch or session.welcomed_epoch != self._epoch:
            self.stats.commands_refused += 1
            raise NotConnected(
                f"Node {node!r} has obeyed epoch {session.highest_epoch}; this hub is of epoch {self._epoch} "
                "and must be raised above it first."
            )
        sequence = self._sent.get(node, 0) + 1
        try:
            session.queue(to_wire(command, command_id, self._epoch, sequence, deadline_seconds))
        except HubError:
            self.stats.commands_refused += 1
            raise
        self._sent[node] = sequence
        self.stats.commands_queued += 1
        return sequence

    def renewed(self, node: str, until_seconds: float) -> None:
        """The node was given a further certificate (UTC seconds of its end): its stream may go on as long."""
        self._validity.renewed(node, until_seconds)

    def sent_sequence(self, node: str) -> int:
        """Sequence of the last command queued for the node in this epoch, 0 before the first."""
        return self._sent.get(node, 0)

    def last_tick(self, node: str) -> int | None:
        """Tick of the node's newest report; None before the first."""
        return self._barrier.last(node)

    async def reports_for(self, tick: int, nodes: Iterable[str], timeout_seconds: float) -> frozenset[str]:
        """Waits (wall time) until each of the nodes has reported for `tick` or later; returns those that have not.

        One caller at a time: it is the barrier of accelerated time.
        """
        return await self._barrier.wait(tick, nodes, timeout_seconds)

    async def present(self, nodes: Iterable[str], timeout_seconds: float) -> frozenset[str]:
        """Waits (wall time) until the nodes have streams; returns those that have not."""
        wanted = frozenset(nodes)
        return await until_empty(lambda: wanted - self._sessions.keys(), self._changed, timeout_seconds)

    async def absent(self, nodes: Iterable[str], timeout_seconds: float) -> frozenset[str]:
        """Waits (wall time) until the nodes have no streams; returns those that still have."""
        wanted = frozenset(nodes)
        return await until_empty(lambda: wanted & self._sessions.keys(), self._changed, timeout_seconds)

    # ------------------------------------------------------------------------------------ for the agents

    async def Connect(self, request_iterator: AsyncIterator[pb.AgentMessage], context: Any) -> None:  # noqa: ARG002
        """One agent's stream, from hello to its end (the contract's method; messages are read from the context)."""
        session: Session | None = None
        try:
            session = await self._greet(context)
            await self._converse(session, context)
        except _Refused as refused:
            self._refused(session, context, refused)
            await context.abort(refused.code, str(refused))
        except asyncio.CancelledError:
            if session is None or not session.replaced:
                raise
            await context.abort(grpc.StatusCode.ABORTED, "A newer stream of this node replaced this one.")

    async def _converse(self, session: Session, context: Any) -> None:
        """Accepts, then reads and writes until the stream ends. A node that was told so is known already; the session
        ends before the transport does, which may take long.
        """
        self._open(session)
        writing: asyncio.Task[None] | None = None
        try:
            await context.send_initial_metadata(((ACCEPTED, session.boot_id),))
            writing = asyncio.create_task(session.write(self.stats))
            writing.add_done_callback(_consume)
            await self._listen(session, context)
        finally:
            if writing is not None:
                writing.cancel()  # not awaited: gRPC may cancel this handler once more meanwhile
            self._close(session)

    async def _greet(self, context: Any) -> Session:
        """Reads the hello, checks whose it is, and makes the session."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                message = await self._read(context)
        except TimeoutError as error:
            raise _Refused(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"No hello within {HELLO_SECONDS:g} s of dialling."
            ) from error
        try:
            node = caller(context.auth_context()).name
        except PeerRefused as refused:
            raise _Refused(grpc.StatusCode.PERMISSION_DENIED, str(refused)) from refused
        if message is EOF or message.WhichOneof("body") != "hello":
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, "The first message of a stream must be a hello.")
        self._check_name(node, message)
        self._validity.opened(node, context.auth_context()["x509_pem_cert"][0])
        session = Session(node, message.hello, context, asyncio.current_task())
        session.last_sequence = message.sequence
        return session

    async def _listen(self, session: Session, context: Any) -> None:
        while True:
            message = await self._read(context)
            if message is EOF:
                return
            if message.node != session.node:
                self._check_name(session.node, message)
            if self._validity.ended(session.node):
                raise _Refused(
                    grpc.StatusCode.UNAUTHENTICATED,
                    "The certificate of this stream has ended and the node was given no further one: come back with "
                    "a new one.",
                )
            kind = message.WhichOneof("body")
            if kind == "report":
                self._report(session, message)
            elif kind == "goodbye":
                session.farewell = message.goodbye.reason or "no reason given"
            else:
                raise _Refused(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"A {kind or 'message without content'} is not expected here.",
                )

    async def _read(self, context: Any) -> Any:
        """The next message. What cannot be parsed, or is too large, ends the stream with a status.

        gRPC's own limit lies above ours: what exceeds that too ends the stream before we see it, as a loss.
        """
        try:
            message = await context.read()
        except DecodeError as error:
            raise _Refused(
                grpc.StatusCode.INVALID_ARGUMENT, f"A message cannot be parsed: {error}."
            ) from error
        if message is not EOF and (size := message.ByteSize()) > self._most_message_bytes:
            self.stats.oversized += 1
            raise _Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"A message of {size} bytes is larger than the {self._most_message_bytes} that a node may send.",
            )
        return message

    def _check_name(self, node: str, message: pb.AgentMessage) -> None:
        if message.node != node:
            self.stats.refused_name += 1
            raise _Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"The certificate is of node {node!r}, but the message names {message.node[:120]!r}; "
                "an agent speaks for its own node only.",
            )

    def _report(self, session: Session, message: pb.AgentMessage) -> None:
        if message.sequence <= session.last_sequence:
            self.stats.repeated_reports += 1
            return
        session.last_sequence = message.sequence
        decoder = session.decoder
        rejected = decoder.rejected
        report = decoder.report(message, self._clock.now())
        self.stats.reports += 1
        self.stats.rejected_values += decoder.rejected - rejected
        for ack in report.acks:
            self.stats.acks[ack.code.name.lower()] = self.stats.acks.get(ack.code.name.lower(), 0) + 1
        self.inbox.put(report)
        self._barrier.reported(session.node, message.tick)

    # -------------------------------------------------------------------------------------------- sessions

    def _open(self, session: Session) -> None:
        older = self._sessions.get(session.node)
        if older is not None:
            self.stats.replaced += 1
            self._drop_outbox(older)
            older.replace()
            self._note(older, SessionChange.REPLACED, "a newer stream of the node")
        self._sessions[session.node] = session
        self.stats.opened += 1
        self._note(session, SessionChange.OPENED, "")
        self._welcome(session)
        self._changed.set()

    def _welcome(self, session: Session) -> None:
        """Welcomes the node unless it has obeyed a later leader than this one (its event says so)."""
        if self._epoch and self._epoch >= session.highest_epoch:
            session.highest_epoch = self._epoch
            session.welcome(
                pb.Welcome(
                    epoch=self._epoch,
                    report_interval_seconds=self._report_seconds,
                    heartbeat_seconds=self._heartbeat_seconds,
                    now_seconds=self._clock.now(),
                )
            )

    def _close(self, session: Session) -> None:
        """After the stream's end, for whatever cause."""
        if self._sessions.get(session.node) is not session:
            return
        del self._sessions[session.node]
        self._validity.closed(session.node)
        self._drop_outbox(session)
        if session.farewell is not None:
            self.stats.left += 1
            self._note(session, SessionChange.LEFT, session.farewell)
        else:
            self.stats.lost += 1
            self._note(session, SessionChange.LOST, "the stream ended without a goodbye")
        self._changed.set()

    def _drop_outbox(self, session: Session) -> None:
        self.stats.commands_dropped += session.waiting

    def _refused(self, session: Session | None, context: Any, refused: _Refused) -> None:
        self.stats.refused_protocol += 1
        node = session.node if session else ""
        facts = {"node": node, "peer": context.peer(), "code": refused.code.name, "why": str(refused)}
        logger.warning("agent's stream refused", extra={"facts": facts})
        self.inbox.note(
            SessionEvent(
                node=node, change=SessionChange.REFUSED, at_seconds=self._clock.now(), why=str(refused)
            )
        )

    def _note(self, session: Session, change: SessionChange, why: str) -> None:
        facts = {"node": session.node, "change": change.value, "why": why}
        logger.info("agent's stream", extra={"facts": facts})
        self.inbox.note(
            SessionEvent(
                node=session.node,
                change=change,
                at_seconds=self._clock.now(),
                boot_id=session.boot_id,
                driver=session.driver,
                version=session.version,
                highest_epoch=session.highest_epoch,
                why=why,
            )
        )


def _consume(writing: asyncio.Task[None]) -> None:
    """A writer fails when its stream breaks, which the reader reports; its error is not news."""
    if not writing.cancelled():
        writing.exception()

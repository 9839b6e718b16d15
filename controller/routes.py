"""The operator's side of the request plane: route tables out to gateways, their load reports in.

Hosted behind the hub's door (`hosted`). A gateway speaks for itself only: the name in its certificate is the name
of its reports. Nothing is decided here. All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio
import msgspec
from google.protobuf.message import DecodeError

from controller.hub.server import Hosted
from runtime.authority import Role
from runtime.channels import EOF
from runtime.clock import Clock
from runtime.tls import caller
from wire import gateway_pb2 as pb
from wire import gateway_pb2_grpc

logger = logging.getLogger(__name__)

SERVICE = "plimsoll.v1.Routes"
ROLES = frozenset({Role.GATEWAY})
ACCEPTED = (("x-plimsoll-accepted", "1"),)
"""Said in the initial metadata. A refused stream has none, but may look open for a moment all the same."""
FUTURE_SECONDS = 5.0
"""A gateway's clock may be ahead by this much; beyond it its time is replaced by the time of delivery."""
MOST_CELLS = 4_096
MOST_REPORTS = 4_096
"""Reports kept while nobody drains; then the oldest go: each is whole in itself."""
LONGEST_NAME = 512


class ServiceLoad(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Load of one class of a service. `cells` row-major [inputs x outputs], requests per second, soft weights.

    Counts are since the gateway began, `window_*` and latencies (at the objective's percentile) of the window.
    """

    service: str
    traffic_class: str
    window_seconds: float
    input_edges: tuple[float, ...]
    output_edges: tuple[float, ...]
    cells: tuple[float, ...]
    held: int = 0
    oldest_held_seconds: float = 0.0
    rejected_per_second: float = 0.0
    arrived: int = 0
    finished: int = 0
    rejected: int = 0
    lost: int = 0
    retried: int = 0
    window_finished: int = 0
    window_attained: int = 0
    ttft_seconds: float | None = None
    tpot_seconds: float | None = None


class InstanceLoad(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What one instance has of a gateway's requests, and what its engine last said of itself."""

    name: str
    service: str
    outstanding: int
    pending_tokens: int
    running: int
    waiting: int
    kv_free_tokens: int
    kv_capacity_tokens: int
    connected: bool


class GatewayReport(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One report of one gateway. `route_epoch`, `route_version`: the table it obeys. `knows_size_plans`: whether it dispatches
    by plans of size.
    """

    gateway: str
    tick: int
    sequence: int
    observed_seconds: float
    delivered_seconds: float
    route_epoch: int = 0
    route_version: int = 0
    highest_epoch: int = 0
    knows_size_plans: bool = False
    loads: tuple[ServiceLoad, ...] = ()
    instances: tuple[InstanceLoad, ...] = ()


class _Session:
    """One gateway's stream. It is always sent the newest table, never one in between."""

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.replaced = False
        self._task = task
        self.wake = asyncio.Event()
        self.last_sequence = 0
        self.highest_epoch = 0

    def replace(self) -> None:
        """End this stream in favour of a newer one of the same gateway."""
        self.replaced = True
        if self._task is not None:
            self._task.cancel()


class RoutesServicer(gateway_pb2_grpc.RoutesServicer):
    """The service `plimsoll.v1.Routes`: `publish` and `drain` for the operator, `Attach` for gateways."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._table: pb.RouteTable | None = None
        self._sessions: dict[str, _Session] = {}
        self._ticks: dict[str, int] = {}
        self._inbox: list[GatewayReport] = []
        self._changed = asyncio.Event()
        self.rejected = 0
        """Loads, rows and repeated reports left out."""
        self.dropped = 0
        """Reports dropped because nobody drained."""

    def hosted(self) -> Hosted:
        """For the hub's server: this service, open to gateways."""

        def register(server: grpc.aio.Server) -> None:
            gateway_pb2_grpc.add_RoutesServicer_to_server(self, server)

        return Hosted(name=SERVICE, roles=ROLES, register=register)

    # ---------------------------------------------------------------------------------- for the operator

    def publish(self, table: pb.RouteTable) -> None:
        """Send a table to all gateways, and to each that attaches later.

        Raises: ValueError when it is not newer by (epoch, version) than the last one: gateways would ignore it.
        """
        last = self._table
        if last is not None and (table.epoch, table.version) <= (last.epoch, last.version):
            raise ValueError(
                f"Route table {table.epoch}/{table.version} is not newer than {last.epoch}/{last.version}."
            )
        self._table = table
        for session in self._sessions.values():
            session.wake.set()

    def drain(self) -> list[GatewayReport]:
        """Reports since the last call, sorted by (tick, gateway, sequence): the order tells not who was faster."""
        drained, self._inbox = self._inbox, []
        drained.sort(key=lambda report: (report.tick, report.gateway, report.sequence))
        return drained

    def gateways(self) -> list[str]:
        """Names of the gateways attached now, sorted."""
        return sorted(self._sessions)

    @property
    def highest_epoch_seen(self) -> int:
        """Highest epoch that any attached gateway has obeyed: a leader needs one at least as high."""
        return max((session.highest_epoch for session in self._sessions.values()), default=0)

    async def present(self, gateways: Iterable[str], timeout_seconds: float) -> frozenset[str]:
        """Wait (wall time) until the gateways are attached; return those that are not."""
        wanted = frozenset(gateways)
        return await self._until(lambda: wanted - self._sessions.keys(), timeout_seconds)

    async def reports_for(self, tick: int, gateways: Iterable[str], timeout_seconds: float) -> frozenset[str]:
        """Wait (wall time) until each gateway has reported for `tick` or later; return those that have not."""
        wanted = frozenset(gateways)
        return await self._until(
            lambda: frozenset(name for name in wanted if self._ticks.get(name, -1) < tick), timeout_seconds
        )

    async def _until(self, missing: Callable[[], frozenset[str]], timeout_seconds: float) -> frozenset[str]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while missing():
                    self._changed.clear()
                    await self._changed.wait()
        return missing()

    # ------------------------------------------------------------------------------------ for the gateways

    async def Attach(self, request_iterator: Any, context: Any) -> None:  # noqa: ARG002 - messages come by the context
        """One gateway's stream. A second one of the same gateway replaces the first."""
        gateway = caller(context.auth_context()).name
        session = _Session(asyncio.current_task())
        former = self._sessions.get(gateway)
        if former is not None:
            former.replace()
        self._sessions[gateway] = session
        await context.send_initial_metadata(ACCEPTED)
        writing = asyncio.create_task(self._write(session, context))
        logger.info("gateway attached", extra={"facts": {"gateway": gateway}})
        self._changed.set()
        try:
            while (message := await _read(context)) is not EOF:
                if message.gateway != gateway:
                    why = f"The certificate is of gateway {gateway!r}, but the report names {message.gateway[:120]!r}."
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
                self._take_in(session, message)
        except asyncio.CancelledError:
            if not session.replaced:
                raise
            await context.abort(grpc.StatusCode.ABORTED, "A newer stream of this gateway replaced this one.")
        finally:
            writing.cancel()
            if self._sessions.get(gateway) is session:
                del self._sessions[gateway]
                logger.info("gateway detached", extra={"facts": {"gateway": gateway}})
            self._changed.set()

    async def _write(self, session: _Session, context: Any) -> None:
        sent: pb.RouteTable | None = None
        while True:
            session.wake.clear()
            if self._table is not sent:
                sent = self._table
                await context.write(sent)
            else:
                await session.wake.wait()

    def _take_in(self, session: _Session, message: pb.GatewayReport) -> None:
        session.highest_epoch = max(session.highest_epoch, message.highest_epoch)
        if message.sequence == 0:  # the greeting: a name and nothing else
            return
        if message.sequence <= session.last_sequence:
            self.rejected += 1
            return
        session.last_sequence = message.sequence
        self._inbox.append(self._report(message))
        if len(self._inbox) > MOST_REPORTS:
            del self._inbox[0]
            self.dropped += 1
        self._ticks[message.gateway] = message.tick
        self._changed.set()

    def _report(self, message: pb.GatewayReport) -> GatewayReport:
        now = self._clock.now()
        observed = message.observed_seconds
        loads = [_load(each) for each in message.loads if _plausible(each)]
        rows = [_instance(row) for row in message.instances if 0 < len(row.name) <= LONGEST_NAME]
        self.rejected += len(message.loads) - len(loads) + len(message.instances) - len(rows)
        return GatewayReport(
            gateway=message.gateway,
            tick=message.tick,
            sequence=message.sequence,
            observed_seconds=observed if 0.0 <= observed <= now + FUTURE_SECONDS else now,
            delivered_seconds=now,
            route_epoch=message.route_epoch,
            route_version=message.route_version,
            highest_epoch=message.highest_epoch,
            knows_size_plans=message.knows_size_plans,
            loads=tuple(loads),
            instances=tuple(rows),
        )


async def _read(context: Any) -> Any:
    """The next report. What cannot be parsed ends the stream with a status."""
    try:
        return await context.read()
    except DecodeError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"A report cannot be parsed: {error}.")


def _plausible(load: pb.ServiceLoad) -> bool:
    """Whether a load is of a service, on a grid, in numbers."""
    cells = len(load.cells)
    return (
        0 < len(load.service) <= LONGEST_NAME
        and len(load.traffic_class) <= LONGEST_NAME
        and cells == len(load.input_edges) * len(load.output_edges)
        and cells <= MOST_CELLS
        and load.window_seconds > 0.0
        and _finite((load.window_seconds, load.rejected_per_second, load.oldest_held_seconds))
        and _finite(load.cells)
        and _finite(load.input_edges)
        and _finite(load.output_edges)
    )


def _finite(values: Sequence[float]) -> bool:
    """Whether all are numbers from 0 on (a sum is NaN or infinite as soon as one part is)."""
    return math.isfinite(sum(values)) and min(values, default=0.0) >= 0.0


def _load(load: pb.ServiceLoad) -> ServiceLoad:
    return ServiceLoad(
        service=load.service,
        traffic_class=load.traffic_class,
        window_seconds=load.window_seconds,
        input_edges=tuple(load.input_edges),
        output_edges=tuple(load.output_edges),
        cells=tuple(load.cells),
        held=load.held,
        oldest_held_seconds=load.oldest_held_seconds,
        rejected_per_second=load.rejected_per_second,
        arrived=load.arrived,
        finished=load.finished,
        rejected=load.rejected,
        lost=load.lost,
        retried=load.retried,
        window_finished=load.window_finished,
        window_attained=load.window_attained,
        ttft_seconds=_seconds(load.ttft_seconds) if load.HasField("ttft_seconds") else None,
        tpot_seconds=_seconds(load.tpot_seconds) if load.HasField("tpot_seconds") else None,
    )


def _seconds(value: float) -> float | None:
    return value if math.isfinite(value) and value >= 0.0 else None


def _instance(row: pb.InstanceLoad) -> InstanceLoad:
    return InstanceLoad(
        name=row.name,
        service=row.service,
        outstanding=row.outstanding,
        pending_tokens=row.pending_tokens,
        running=row.running,
        waiting=row.waiting,
        kv_free_tokens=row.kv_free_tokens,
        kv_capacity_tokens=row.kv_capacity_tokens,
        connected=row.connected,
    )

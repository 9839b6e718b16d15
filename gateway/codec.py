"""Between the wire and the core's own values. What a peer says that cannot be true is mended here, once.

The operator and the nodes are authenticated, not trusted to be right: times that are no times, weights that are no
numbers and edges that make no grid must not reach arithmetic.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from gateway.histogram import check_edges
from gateway.load import ClassLoadReport
from gateway.messages import (
    Arrival,
    ClassRoute,
    End,
    Ending,
    EngineEvent,
    EngineLoad,
    EngineReport,
    EventKind,
    InstanceRoute,
    NodeFrame,
    RouteState,
    RouteTable,
    ServiceRoute,
    Window,
)
from gateway.plans import size_plan
from gateway.report import LoadReport
from wire import engine_pb2, gateway_pb2

logger = logging.getLogger(__name__)

FUTURE_SECONDS = 5.0
"""A node's clock may be ahead by this much; an event from further on is taken to have happened just now."""

_STATES = {
    "ready": RouteState.READY,
    "draining": RouteState.DRAINING,
    "masked": RouteState.MASKED,
    "asleep": RouteState.ASLEEP,
}
_KINDS = {
    engine_pb2.ENGINE_EVENT_KIND_FIRST_TOKEN: EventKind.FIRST_TOKEN,
    engine_pb2.ENGINE_EVENT_KIND_FINISHED: EventKind.FINISHED,
    engine_pb2.ENGINE_EVENT_KIND_REFUSED: EventKind.REFUSED,
    engine_pb2.ENGINE_EVENT_KIND_FAILED: EventKind.FAILED,
}
_OUTCOMES = {
    End.FINISHED: gateway_pb2.OUTCOME_SERVED,
    End.REJECTED: gateway_pb2.OUTCOME_REJECTED,
    End.FAILED: gateway_pb2.OUTCOME_LOST,
    End.CANCELLED: gateway_pb2.OUTCOME_LOST,
}


def arrival(request: gateway_pb2.GenerateRequest, client: int, arrived_seconds: float) -> Arrival:
    """A client's request, arrived at the given time."""
    return Arrival(
        tag=request.request_id,
        service=request.service,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        arrived_seconds=arrived_seconds,
        request_class=request.traffic_class,
        deadline_seconds=request.deadline_seconds,
        priority=request.priority,
        client=client,
    )


def result(ending: Ending) -> gateway_pb2.RequestResult:
    """How a request ended, for its client."""
    return gateway_pb2.RequestResult(
        request_id=ending.tag,
        outcome=_OUTCOMES[ending.end],
        code=ending.code,
        message=ending.message,
        instance=ending.instance,
        first_token_seconds=ending.first_token_seconds or 0.0,
        finished_seconds=ending.ended_seconds,
        output_tokens=ending.output_tokens,
        retries=ending.retries,
        retry_after_seconds=ending.retry_after_seconds,
    )


def gateway_frame(
    frame: NodeFrame, window: Window, gateway: str, *, windowed: bool
) -> engine_pb2.GatewayFrame:
    """A node's frame; without a window in real time."""
    message = engine_pb2.GatewayFrame(
        tick=window.tick,
        from_seconds=window.from_seconds if windowed else 0.0,
        until_seconds=window.until_seconds if windowed else 0.0,
        gateway=gateway,
    )
    for each in frame.submissions:
        message.submissions.add(
            request_id=each.request_id,
            instance=each.instance,
            traffic_class=each.request_class,
            prompt_tokens=each.prompt_tokens,
            output_tokens=each.output_tokens,
            arrived_seconds=each.arrived_seconds,
            submitted_seconds=each.submitted_seconds,
            priority=each.priority,
            epoch=each.epoch,
        )
    for cancel in frame.cancels:
        message.cancels.add(request_id=cancel.request_id, instance=cancel.instance, epoch=cancel.epoch)
    return message


def engine_report(frame: engine_pb2.EngineFrame, node: str) -> EngineReport:
    """A node's frame, for the node whose stream it came on, whatever it says itself."""
    latest = frame.observed_seconds + FUTURE_SECONDS
    events = [
        EngineEvent(
            request_id=each.request_id,
            epoch=each.epoch,
            instance=each.instance,
            kind=_KINDS[each.kind],
            at_seconds=each.at_seconds if 0.0 <= each.at_seconds <= latest else frame.observed_seconds,
            tokens=each.tokens,
            message=each.message,
        )
        for each in frame.events
        if each.kind in _KINDS
    ]
    loads = [
        EngineLoad(row.name, row.running, row.waiting, row.kv_free_tokens, row.kv_capacity_tokens, row.ready)
        for row in frame.instances
    ]
    return EngineReport(node, frame.tick, frame.sequence, frame.observed_seconds, events, loads)


def route_table(table: gateway_pb2.RouteTable) -> RouteTable:
    """The operator's routes. A state that is not known is masked, a weight that is no number is zero."""
    return RouteTable(
        epoch=table.epoch,
        version=table.version,
        services=tuple(_service(each) for each in table.services),
        decided_seconds=table.decided_seconds,
    )


def _service(route: gateway_pb2.ServiceRoute) -> ServiceRoute:
    return ServiceRoute(
        service=route.service,
        uid=route.uid,
        classes=tuple(
            ClassRoute(
                each.name, each.ttft_seconds, each.tpot_seconds, _between(each.percentile, 1.0), each.priority
            )
            for each in route.classes
        ),
        hold_limit=route.hold_limit,
        hold_deadline_seconds=_between(route.hold_deadline_seconds, 1e9),
        instances=tuple(
            InstanceRoute(
                name=row.name,
                node=row.node,
                endpoint=row.endpoint,
                weight=_between(row.weight, 1e9),
                state=_STATES.get(row.state, RouteState.MASKED),
                variant=row.variant,
                uid=row.uid,
                kv_capacity_tokens=row.kv_capacity_tokens,
                pool=row.pool,
            )
            for row in route.instances
        ),
        input_edges=_edges(route.service, route.input_edges, "input"),
        output_edges=_edges(route.service, route.output_edges, "output"),
        dispatch_policy=route.dispatch_policy,
        size_plan=size_plan(route.service, route.size_plan) if route.HasField("size_plan") else None,
    )


def _between(value: float, most: float) -> float:
    """`value` inside [0, most]; 0 when it is no number."""
    return min(most, max(0.0, value)) if math.isfinite(value) else 0.0


def _edges(service: str, edges: Iterable[float], what: str) -> tuple[float, ...]:
    given = tuple(edges)
    if not given:
        return ()
    try:
        return check_edges(given, what)
    except ValueError as error:
        facts = {"service": service, "why": str(error)}
        logger.warning("histogram edges ignored, the gateway's own are used", extra={"facts": facts})
        return ()


def gateway_report(report: LoadReport, sequence: int, tick: int) -> gateway_pb2.GatewayReport:
    """A report for the operator."""
    message = gateway_pb2.GatewayReport(
        gateway=report.gateway,
        sequence=sequence,
        tick=tick,
        observed_seconds=report.observed_seconds,
        route_epoch=report.route_epoch,
        route_version=max(0, report.route_version),
        highest_epoch=report.route_epoch,
        knows_size_plans=True,
    )
    for load in report.loads:
        _load(message, load)
    for row in report.instances:
        message.instances.add(
            name=row.name,
            service=row.service,
            outstanding=row.outstanding,
            pending_tokens=row.pending_tokens,
            running=row.running or 0,
            waiting=row.waiting or 0,
            kv_free_tokens=row.kv_free_tokens or 0,
            kv_capacity_tokens=row.kv_capacity_tokens or 0,
            connected=row.connected,
        )
    return message


def _load(message: gateway_pb2.GatewayReport, load: ClassLoadReport) -> None:
    message.loads.add(
        service=load.service,
        traffic_class=load.request_class,
        window_seconds=load.window_seconds,
        input_edges=load.input_edges,
        output_edges=load.output_edges,
        cells=load.cells.tolist(),
        held=load.held,
        rejected_per_second=load.rejected_per_second,
        arrived=load.arrived,
        finished=load.finished,
        rejected=load.rejected,
        lost=load.lost,
        retried=load.retried,
        window_finished=load.window_finished,
        window_attained=load.window_attained,
        ttft_seconds=load.ttft_seconds,
        tpot_seconds=load.tpot_seconds,
        oldest_held_seconds=load.oldest_held_seconds,
    )

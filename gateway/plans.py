"""Plans by size off the wire: what cannot be dispatched by is refused with a sentence, and weights hold as without a plan."""

from __future__ import annotations

import logging

from cluster.size_plan import (
    MOST_CELLS,
    MOST_CLASSES,
    MOST_COLUMNS,
    MOST_SHARES,
    ClassPlan,
    PlannedColumn,
    SizePlan,
    StepFigures,
    fault_of,
)
from wire import gateway_pb2 as pb

logger = logging.getLogger(__name__)


def size_plan(service: str, message: pb.SizePlan) -> SizePlan | None:
    """A route's plan; None, with a line in the log, for one that is not sound."""
    fault = _bound(message)
    if not fault:
        plan = _read(message)
        fault = fault_of(plan)
        if not fault:
            return plan
    facts = {"service": service, "why": fault}
    logger.warning("plan by size refused, requests go by route weights", extra={"facts": facts})
    return None


def _bound(message: pb.SizePlan) -> str:
    """Why a message is too large to be looked at; empty when it is not."""
    cells = len(message.input_edges) * len(message.output_edges)
    wide, deep = len(message.columns), len(message.classes)
    shares = sum(len(part.shares) + len(part.able) for each in message.classes for part in each.columns)
    if cells > MOST_CELLS or wide > MOST_COLUMNS or deep > MOST_CLASSES or shares > 2 * MOST_SHARES:
        return (
            f"The plan has {cells} sizes, {wide} columns, {deep} classes and {shares} shares and marks; at most {MOST_CELLS}, "
            f"{MOST_COLUMNS}, {MOST_CLASSES} and {2 * MOST_SHARES} are taken."
        )
    return ""


def _read(message: pb.SizePlan) -> SizePlan:
    none = (0.0,) * (len(message.input_edges) * len(message.output_edges))
    return SizePlan(
        input_edges=tuple(message.input_edges),
        output_edges=tuple(message.output_edges),
        columns=tuple(_column(each) for each in message.columns),
        classes=tuple(
            ClassPlan(
                request_class=each.name, ttft_seconds=each.ttft_seconds, tpot_seconds=each.tpot_seconds,
                shares=tuple(tuple(part.shares) or none for part in each.columns),
                able=tuple(tuple(part.able) for part in each.columns),
            )
            for each in message.classes
        ),
        blend=not message.upper_edges,
    )  # fmt: skip


def _column(message: pb.PlannedColumn) -> PlannedColumn:
    steps = StepFigures(
        base_seconds=message.base_seconds, request_seconds=message.request_seconds,
        context_seconds=message.context_seconds, prompt_seconds=message.prompt_seconds,
        pair_seconds=message.pair_seconds, chunk_tokens=message.chunk_tokens,
    )  # fmt: skip
    return PlannedColumn(
        name=message.name,
        steps=steps,
        tpot_seconds=message.tpot_seconds,
        refill_seconds=message.refill_seconds,
    )

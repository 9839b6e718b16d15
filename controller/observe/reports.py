"""Agents' and gateways' reports as events of the model."""

from __future__ import annotations

import math

from cluster import events as ev
from cluster.overlay import gang_key
from cluster.serving import LoadHistogram
from controller.hub.messages import InstanceSeen, NodeReport
from controller.observe.gangs import Progress
from controller.observe.world import World
from controller.routes import GatewayReport

AT_CAP = 0.95
"""A node drawing more than this share of its cap may want anything up to its maximum."""


def fold_agent(world: World, report: NodeReport, now_seconds: float) -> None:
    """Take one agent's report in: inventory, telemetry, lease acknowledgement, instances, gangs."""
    if report.inventory is not None:
        world.inventory(report.node, report.inventory, report.observed_seconds)
    world.heard(report.node, report.observed_seconds)
    for gang in report.gangs or ():
        key = gang_key(gang.job, gang.attempt)
        world.progress(
            key, report.node, Progress(gang.ranks_joined, gang.step, gang.last_checkpoint_step, gang.phase)
        )
    lease = report.lease
    world.observer.fold(
        ev.AgentReport(
            source="agents",
            observed_seconds=report.observed_seconds,
            delivered_seconds=now_seconds,
            node=report.node,
            columns=_columns(world, report),
            instances={row.name: _instance(row) for row in report.instances or ()},
            lease_epoch=lease.epoch if lease else 0,
            lease_sequence=lease.sequence if lease else 0,
        )
    )


def _columns(world: World, report: NodeReport) -> dict[str, float]:
    columns: dict[str, float] = {}
    inventory = world.inventories.get(report.node)
    if inventory is not None:
        columns |= {
            "safe_watts": float(inventory.safe_watts),
            "min_watts": float(inventory.min_watts),
            "max_watts": float(inventory.max_watts),
        }
    if report.lease is not None:
        columns |= {
            "lease_watts": float(report.lease.readback_watts or report.lease.watts),
            "lease_expires_seconds": report.lease.expires_seconds,
            "safe_watts": float(report.lease.safe_watts or columns.get("safe_watts", math.nan)),
        }
    if report.gpus is not None:
        columns |= _gpu_columns(report)
    if report.node_watts is not None:
        columns["watts"] = report.node_watts
        rows = world.observer.node_rows
        cap = columns.get("lease_watts", rows.get(report.node, "lease_watts"))
        most = columns.get("max_watts", rows.get(report.node, "max_watts"))
        columns["demand_watts"] = _demand(report.node_watts, cap, most)
    return columns


def _gpu_columns(report: NodeReport) -> dict[str, float]:
    gpus = report.gpus
    if gpus is None:
        return {}
    columns: dict[str, float] = {}
    clocks = [c for c in gpus.clock_mhz if c is not None]
    if clocks:
        columns["clock_mhz"] = float(min(clocks))
    busy = [u for u in gpus.utilisation if not math.isnan(u)]
    if busy:
        columns["utilisation"] = sum(busy) / len(busy)
    used = [m for m in gpus.memory_used_bytes if m is not None]
    if used:
        columns["memory_used_bytes"] = float(sum(used))
    return columns


def _demand(watts: float, cap_watts: float, max_watts: float) -> float:
    """What the node would draw if free: its draw, or its maximum where the cap may be hiding more."""
    hidden = not math.isnan(cap_watts) and cap_watts > 0.0 and watts >= AT_CAP * cap_watts
    return max_watts if hidden and not math.isnan(max_watts) else watts


def _instance(row: InstanceSeen) -> dict[str, float]:
    values = {
        "running": float(row.running),
        "waiting": float(row.waiting),
        "kv_free_tokens": float(row.kv_free_tokens),
        "kv_capacity_tokens": float(row.kv_capacity_tokens),
        "head_wait_seconds": row.head_of_line_seconds,
        "speed": row.capped_speed,
    }
    fits = {
        "step_base_seconds": row.step_base_seconds,
        "step_per_request_seconds": row.step_per_sequence_seconds,
        "step_per_token_seconds": row.step_per_context_token_seconds,
    }
    return values | {name: value for name, value in fits.items() if value is not None}


def fold_gateway(world: World, report: GatewayReport, now_seconds: float) -> None:
    """Take one gateway's sketch in: histograms, signals per service, what each instance is owed."""
    histograms = []
    signals: dict[str, dict[str, float]] = {}
    for load in report.loads:
        rate = float(sum(load.cells))
        histograms.append(
            LoadHistogram(
                service=load.service,
                request_class=load.traffic_class,
                input_edges=tuple(round(e) for e in load.input_edges),
                output_edges=tuple(round(e) for e in load.output_edges),
                cells=tuple(float(c) for c in load.cells),
                window_seconds=load.window_seconds,
                held_per_second=load.held / max(load.window_seconds, 1.0),
                rejected_per_second=load.rejected_per_second,
                observed_seconds=report.observed_seconds,
            )
        )
        signal = signals.setdefault(
            load.service, {"requests_per_second": 0.0, "held": 0.0, "rejected_per_second": 0.0}
        )
        signal["requests_per_second"] += rate
        signal["held"] += load.held
        signal["rejected_per_second"] += load.rejected_per_second
        if rate > 0.0 or load.held:
            signal["last_arrival_seconds"] = report.observed_seconds
        if load.ttft_seconds is not None:
            signal["ttft_p99_seconds"] = load.ttft_seconds
        if load.tpot_seconds is not None:
            signal["tpot_p99_seconds"] = load.tpot_seconds
    instances = {
        row.name: {"pending": float(row.outstanding), "pending_tokens": float(row.pending_tokens)}
        for row in report.instances
    }
    world.observer.fold(
        ev.LoadReport(
            source="gateways",
            observed_seconds=report.observed_seconds,
            delivered_seconds=now_seconds,
            gateway=report.gateway,
            histograms=tuple(histograms),
            signals=signals,
            instances=instances,
        )
    )

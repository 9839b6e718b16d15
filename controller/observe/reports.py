"""Agents' reports as events of the model."""

from __future__ import annotations

import math

from cluster import events as ev
from cluster.overlay import gang_key
from controller.hub.messages import InstanceSeen, NodeReport
from controller.observe.gangs import Progress
from controller.observe.told import AgentTold
from controller.observe.world import World

NOTHING_TOLD = AgentTold()
AT_CAP = 0.95
"""A node drawing more than this share of its cap may want anything up to its maximum."""


def fold_agent(world: World, report: NodeReport, now_seconds: float) -> None:
    """Take one agent's report in: inventory, telemetry, lease acknowledgement, instances, gangs."""
    if report.inventory is not None:
        world.inventory(report.node, report.inventory, report.observed_seconds)
    world.heard(report.node, report.observed_seconds)
    before = world.told.get(report.node, NOTHING_TOLD)
    world.told[report.node] = before.then(report)
    if world.told[report.node].holders != before.holders:
        world.seating.holders(report.node, now_seconds)
    if report.replicas is not None:
        world.workloads.engines[report.node] = {row.name: (row.uid, row.phase) for row in report.replicas}
    elif report.inventory is not None:
        world.workloads.engines.setdefault(report.node, {})
    for gang in report.gangs or ():
        key = gang_key(gang.job, gang.attempt)
        world.workloads.progress(
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

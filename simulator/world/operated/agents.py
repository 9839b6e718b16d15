"""What the nodes' agents say: how their engines are, each second, heard a second or two later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster import events as ev
from simulator.world.core import Event
from simulator.world.operated import training
from simulator.world.operated.attempts import progressed
from simulator.world.operated.machines import Site
from simulator.world.reporting import Said, tell_gateway


def report(at_seconds: float, subject: tuple[Site, float], world: Any) -> Iterable[Event]:
    """The engines of a machine say how they are, to the gateways and to the operator; `subject` has the moment meant."""
    site, meant = subject
    delays = world.spec.delays
    again = (at_seconds + delays.report_seconds, report, (site, meant + delays.report_seconds))
    if site.down:
        return (again,)
    loads: list[tuple[Any, Any, Any]] = []
    rows: dict[str, dict[str, float]] = {}
    crowded = world.spec.moving.crowded_share
    for instance in world.nodes.get(site.name, ()):
        world.live(instance, at_seconds)
        engine = instance.engine
        standing = running, waiting, free, queued = engine.standing()
        tells = free - queued < crowded * engine.capacity_tokens and instance.service.migration is not None
        loads.append((instance, standing, engine.decoding() if tells else []))
        rows[instance.name] = {
            "running": float(running), "waiting": float(waiting), "ready": 1.0, "kv_free_tokens": float(max(0, free)),
            "kv_reserved_tokens": float(queued), "kv_capacity_tokens": float(engine.capacity_tokens),
            "speed": min(1.0, site.held.decode_clock * site.spec.server.speed),
        }  # fmt: skip
    said = Said(site.name, at_seconds, loads)
    now = world.origin + meant
    lease = world.leases.get(site.name, (0, 0))
    heard = ev.AgentReport(
        source="agents", observed_seconds=now, delivered_seconds=now, node=site.name,
        columns=world.columns(site, at_seconds), instances=rows, lease_epoch=lease[0], lease_sequence=lease[1],
    )  # fmt: skip
    late = delays.agent_low_seconds + world.draw() * (delays.agent_high_seconds - delays.agent_low_seconds)

    gangs = training.report(site, at_seconds)

    def fold(now_seconds: float) -> bool:
        for instance, _, running in said.loads:
            instance.seen = running
        changed: bool = world.ears.report(heard, now_seconds)
        return progressed(site.name, gangs, now_seconds, world) or changed

    world.ears.put(now + late, fold)
    return ((at_seconds + delays.gateway_seconds, tell_gateway, said), again)

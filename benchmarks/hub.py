"""1,000 agents on one hub: command latency, CPU, memory, reconnect.

Two processes besides this one, all with the production code. The hub process is held to one core: it takes each
report over mutual TLS, folds it into the operator's model (`controller.observe`), and sends one power lease per
node and second, evenly spaced. The agents' process holds the agents, each with its own certificate and its own TCP
connection, on modelled nodes whose readings move each second, so that each report is about 1 kB. A command's
latency runs from `Hub.send` to its answer folded at the hub: TLS, wire and event loop both ways, and the agent's
own judging, setting and reading back. Then the hub is killed and another started on its port.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.base import Arguments, Figure, Plot, Result, Row, at_most
from benchmarks.hub_sides import AGENTS, HUB, Fleet, Setup
from benchmarks.sides import Side
from runtime.authority import Authority, Identity, Role, write_private
from runtime.clock import WallClock

SIDES = "benchmarks.hub_sides"
GOAL_P99_MS = 50.0
GOAL_CPU = 0.5
GOAL_RSS_MB = 300.0
GOAL_RECONNECT_SECONDS = 10.0


def run(args: Arguments) -> Result:
    """Measures and judges. Raises: BenchmarkError when a side dies or does not come up."""
    count, seconds = (50, 4.0) if args.quick else (1000, 20.0)
    with tempfile.TemporaryDirectory(prefix="plimsoll-hub-") as folder:
        setup = prepare(Path(folder), count, args.seed)
        measured = asyncio.run(_measure(setup, seconds))
    return judge(measured, seconds)


def prepare(folder: Path, count: int, seed: int) -> Setup:
    """Issues every certificate and writes what both sides need, readable by this user alone."""
    authority = Authority.create(WallClock())
    hub = authority.issue(Identity(Role.OPERATOR, "hub"))
    nodes = tuple(authority.issue(Identity(Role.NODE, f"node-{index:04d}")) for index in range(count))
    write_private(folder / HUB, msgspec.msgpack.encode(hub))
    write_private(folder / AGENTS, msgspec.msgpack.encode(Fleet(credentials=nodes)))
    return Setup(folder=str(folder), nodes=count, seed=seed)


async def _measure(setup: Setup, seconds: float) -> dict[str, Any]:
    sides: list[Side] = []
    try:
        hub = await Side.start(SIDES, "hub", setup)
        sides.append(hub)
        port = (await hub.hear(30))["port"]
        agents = await Side.start(SIDES, "agents", msgspec.structs.replace(setup, port=port))
        sides.append(agents)
        await agents.hear(60)
        begun = time.monotonic()
        await agents.tell({"do": "dial"})
        await hub.tell({"do": "await all"})
        connect_seconds = (await hub.hear(60))["at"] - begun
        await hub.tell({"do": "measure", "warm_up": 3.0, "seconds": seconds})
        measured = await hub.hear(seconds + 60)
        killed = time.monotonic()
        await hub.end()
        again = await Side.start(SIDES, "hub", msgspec.structs.replace(setup, port=port, epoch=2))
        sides.append(again)
        await again.hear(30)
        listening = time.monotonic()
        await again.tell({"do": "await all"})
        back = (await again.hear(90))["at"]
        return measured | {
            "connect_s": connect_seconds,
            "reconnect_s": back - killed,
            "reconnect_after_listening_s": back - listening,
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[0],
        }
    finally:
        for side in sides:
            await side.end()


def judge(measured: dict[str, Any], seconds: float) -> Result:
    """Rows, figures and plot of what was measured."""
    remark = (
        f"Window {seconds:g} s; machine of {measured['cores']} cores, load {measured['load']:.2f} at the end; "
        "the agents share the other cores with whatever else runs."
    )
    figures = _figures(measured, seconds)
    return Result(
        rows=_rows(measured, figures, seconds), figures=figures, plots=(_plot(measured),), remark=remark
    )


def _figures(measured: dict[str, Any], seconds: float) -> dict[str, Figure]:
    return {
        "connections": measured["connections"],
        "reports_per_s": round(measured["reports"] / seconds, 1),
        "sent": measured["sent"],
        "acked": measured["acked"],
        "p50_command_ms": round(measured["p50_ms"], 2),
        "p99_command_ms": round(measured["p99_ms"], 2),
        "cpu_share": round(measured["cpu_share"], 3),
        "rss_mb": round(measured["rss_mb"], 1),
        "connect_s": round(measured["connect_s"], 2),
        "reconnect_s": round(measured["reconnect_s"], 2),
    }


def _rows(measured: dict[str, Any], figures: dict[str, Figure], seconds: float) -> tuple[Row, ...]:
    sent, acked = measured["sent"], measured["acked"]
    return (
        Row("connections (own certificate each)", str(measured["connections"])),
        Row(
            "telemetry reports per second", f"{figures['reports_per_s']} of {measured['report_bytes']:.0f} B"
        ),
        Row("commands per second", f"{sent / seconds:.1f}"),
        Row("commands sent, answered", f"{sent}, {acked}", "equal", sent == acked),
        Row("command latency, median", f"{measured['p50_ms']:.1f} ms"),
        at_most("command latency, p99", measured["p99_ms"], GOAL_P99_MS, "ms"),
        at_most("hub's CPU, share of one core", measured["cpu_share"], GOAL_CPU),
        at_most("hub's memory (resident)", measured["rss_mb"], GOAL_RSS_MB, "MB"),
        Row("all connected after", f"{measured['connect_s']:.2f} s"),
        at_most("all back after the hub was killed", measured["reconnect_s"], GOAL_RECONNECT_SECONDS, "s"),
        Row("… of which after it listened again", f"{measured['reconnect_after_listening_s']:.2f} s"),
    )


def _plot(measured: dict[str, Any]) -> Plot:
    quantiles = tuple((float(ms), share) for ms, share in measured["latencies"])
    return Plot(
        name="hub_latency",
        title="Command latency, sent to answered",
        x_label="latency (ms)",
        y_label="share of commands",
        series={f"{measured['connections']} agents": quantiles},
        log_x=True,
    )

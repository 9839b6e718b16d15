"""5,000 nodes and 50,000 pods of 6.4 kB: what a full cache costs, beside the official client's informer in the same run.

The server (`benchmarks.listwatch`) has its bodies ready and is a process of its own; clients reach it over TLS on
loopback, as they reach a real one. Each client is a fresh process that measures its own processor time and its peak of
memory, imports included. Ours then follows changes as fast as it takes them, and both are shown a server that answers each
watch with 410: how often is it asked for a whole list?
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.base import Arguments, Figure, Result, Row, at_most
from benchmarks.kube_sync_sides import Setup
from benchmarks.sides import Side

MODULE = "benchmarks.kube_sync_sides"
GOAL_CPU_SECONDS = 3.0
GOAL_RSS_MB = 250.0
GOAL_EVENTS = 10_000.0
GOAL_LISTS = 1.0
STORM_SECONDS, OFFICIAL_STORM_SECONDS = 30.0, 5.0
OFFICIAL_BYTES_EACH = 120_000
"""What the official client keeps of an object, measured at 10,000 pods (research: ecosystem §2.2), with room."""

PATIENCE_SECONDS = 600.0


class Size(msgspec.Struct, frozen=True):
    """How much there is, and what part of it the official client is shown: all, where the memory is there."""

    nodes: int
    pods: int
    events: int
    official_share: float

    @property
    def official(self) -> tuple[int, int]:
        """Nodes and pods for the official client."""
        return round(self.nodes * self.official_share), round(self.pods * self.official_share)


def run(args: Arguments) -> Result:
    """Measures and judges. Raises: BenchmarkError when a side dies or does not come up."""
    size = _size(args.quick)
    measured = asyncio.run(measure(size, args.seed, 1.0 if args.quick else STORM_SECONDS))
    return judge(measured, size)


async def measure(size: Size, seed: int, storm_seconds: float) -> dict[str, Any]:
    """Both clients, one after the other, each with a server of the size it is shown."""
    load = os.getloadavg()[0]
    found = await _client(
        "ours",
        Setup(folder="", nodes=size.nodes, pods=size.pods, seed=seed),
        size.events,
        storm_seconds,
    )
    nodes, pods = size.official
    official = await _client(
        "official",
        Setup(folder="", nodes=nodes, pods=pods, seed=seed),
        0,
        min(storm_seconds, OFFICIAL_STORM_SECONDS),
    )
    return {"ours": found, "official": official, "load": load, "cores": len(os.sched_getaffinity(0))}


async def _client(name: str, setup: Setup, events: int, storm_seconds: float) -> dict[str, Any]:
    """One client from its start to its end."""
    with tempfile.TemporaryDirectory(prefix="plimsoll-sync-") as folder:
        setup = msgspec.structs.replace(setup, folder=folder)
        server = await Side.start(MODULE, "server", setup)
        sides = [server]
        try:
            there = await server.hear(PATIENCE_SECONDS)
            reached = msgspec.structs.replace(setup, endpoint=there["endpoint"], authority=there["authority"])
            client = await Side.start(MODULE, name, reached)
            sides.append(client)
            found: dict[str, Any] = {"pod_bytes": there["pod_bytes"], **await client.hear(PATIENCE_SECONDS)}
            await client.tell({"do": "sync"})
            found["sync"] = await client.hear(PATIENCE_SECONDS)
            if events:
                await client.tell({"do": "follow", "count": events})
                await server.tell({"do": "churn", "count": events})
                await server.hear(PATIENCE_SECONDS)
                found["follow"] = await client.hear(PATIENCE_SECONDS)
            await server.tell({"do": "gone"})
            await server.hear(PATIENCE_SECONDS)
            await client.tell({"do": "storm", "seconds": storm_seconds})
            found["storm"] = await client.hear(PATIENCE_SECONDS)
            await server.tell({"do": "asked"})
            found["asked"] = await server.hear(PATIENCE_SECONDS)
            return found
        finally:
            for side in reversed(sides):
                await side.end()


def judge(measured: dict[str, Any], size: Size) -> Result:
    """Rows and figures of what was measured."""
    ours, official = measured["ours"], measured["official"]
    events = size.events / ours["follow"]["cpu_s"]
    lists = ours["asked"]["lists"] / ours["storm"]["took_s"]
    official_lists = official["asked"]["lists"] / official["storm"]["took_s"]
    nodes, pods = size.official
    shown = "" if size.official_share == 1.0 else f" (of {nodes:,} nodes and {pods:,} pods only)"
    figures: dict[str, Figure] = {
        "sync_cpu_s": round(ours["sync"]["cpu_s"], 2),
        "peak_rss_mb": round(ours["sync"]["peak_mb"], 1),
        "events_per_cpu_s": round(events),
        "lists_per_s_under_410": round(lists, 3),
        "official_sync_cpu_s": round(official["sync"]["cpu_s"], 2),
        "official_peak_rss_mb": round(official["sync"]["peak_mb"], 1),
        "nodes": size.nodes,
        "pods": size.pods,
        "pod_bytes": ours["pod_bytes"],
        "official_nodes": nodes,
        "official_pods": pods,
        "official_lists_per_s_under_410": round(official_lists, 3),
    }
    rows = (
        Row("objects", f"{size.nodes:,} nodes, {size.pods:,} pods of {ours['pod_bytes']:,} B"),
        at_most("sync: processor time", ours["sync"]["cpu_s"], GOAL_CPU_SECONDS, "s"),
        at_most("sync: peak of memory, imports included", ours["sync"]["peak_mb"], GOAL_RSS_MB, "MB"),
        Row("… of which before the first list", f"{ours['imported_mb']:.0f} MB"),
        Row("events a CPU-second", f"{events:,.0f}", f"≥ {GOAL_EVENTS:,.0f}", events >= GOAL_EVENTS),
        at_most("lists a second while each watch answers 410", lists, GOAL_LISTS),
        Row(f"official informer: processor time{shown}", f"{official['sync']['cpu_s']:.1f} s"),
        Row(f"official informer: peak of memory{shown}", f"{official['sync']['peak_mb']:,.0f} MB"),
        Row("official informer: lists a second under 410", f"{official_lists:.1f}"),
    )
    return Result(rows=rows, figures=figures, remark=_remark(measured, size))


def _remark(measured: dict[str, Any], size: Size) -> str:
    ours, official = measured["ours"], measured["official"]
    said = (
        f"Wall clock: {ours['sync']['took_s']:.1f} s for ours, {official['sync']['took_s']:.1f} s for the official client; "
        f"{size.events:,} events in {ours['follow']['took_s']:.1f} s; {ours['storm']['took_s']:.0f} s of 410 "
        f"({official['storm']['took_s']:.0f} s for the official client). Over TLS on loopback; machine of {measured['cores']} "
        f"cores, load {measured['load']:.2f} at the beginning."
    )
    if size.official_share < 1.0:
        said += " The memory of this machine was not enough to show the official client everything."
    return said


def _size(quick: bool) -> Size:
    if quick:
        return Size(nodes=50, pods=500, events=500, official_share=1.0)
    nodes, pods = 5_000, 50_000
    wanted = OFFICIAL_BYTES_EACH * (nodes + pods) + 3 * 6_400 * pods  # and whole lists on both sides
    return Size(nodes, pods, pods, 1.0 if _available_bytes() > 1.3 * wanted else 0.1)


def _available_bytes() -> int:
    """Memory that may be taken without pushing others out."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0

"""Pods on a real control plane: from a scale patch to the last pod bound, beside the stock scheduler with plain pods.

1,000 nodes of 8 GPUs; 3,000 replicas of one GPU. Ours: 20 ModelServices are scaled from 0 to 150 through their scale
subresource; a process with the production operator decides, validates, creates pinned pods and keeps its ledger, and
the stock scheduler binds them. Stock: this process creates 3,000 plain pods, as many on their way at once as the
operator has, and the same scheduler places and binds them. The two alternate. A pod's time runs from the first request
of its run (scale patch, creation) to the moment its binding reaches this process' watch. No client is held back by a
budget of its own: the operator's (`api_requests_per_second`, by default 300 after a burst of 500) would add two seconds.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.base import Arguments, BenchmarkError, Figure, Plot, Result, Row, at_least, at_most
from benchmarks.sides import Side, cpu_seconds
from console.controlplane import ControlPlane, ControlPlaneError
from console.controlplane.components import Component
from controller.config import OperatorConfig
from controller.resources import crds
from controller.resources.core import NAMESPACE, NODE, POD
from controller.resources.kinds import ACCELERATOR_CLASS, MODEL_SERVICE
from controller.store.errors import AlreadyExists, Conflict, NotFound
from controller.store.interface import EventType, JsonObject, Resource, WatchEvent
from controller.store.kube import KubeStore
from controller.store.kube.budget import Budget
from runtime.clock import WallClock

NODES, GPUS, PODS, SERVICES, REPEATS = 1_000, 8, 3_000, 20, 5
AT_ONCE = 32
OURS, STOCK = "operator", "stock scheduler"
SPACE = "place"
WITHIN_SECONDS = 180.0
GOAL_RATE = 0.9
GOAL_SCHEDULER = 0.4
MANAGER = "benchmark"
FLAGS = {
    # Nodes have no kubelet here, so nobody renews leases; and the clients' own limits are not what is measured.
    "kube-controller-manager": [
        "--node-monitor-grace-period=3600s",
        "--kube-api-qps=5000",
        "--kube-api-burst=10000",
    ],
    "kube-scheduler": ["--kube-api-qps=5000", "--kube-api-burst=10000"],
}


class Size(NamedTuple):
    """How much is placed, and how often."""

    nodes: int
    pods: int
    services: int
    repeats: int


class Run(NamedTuple):
    """One placing: seconds from the first request to each pod bound (sorted), and processor time used meanwhile."""

    seconds: list[float]
    scheduler_cpu: float
    operator_cpu: float

    @property
    def rate(self) -> float:
        """Pods bound per second, up to the last."""
        return len(self.seconds) / self.seconds[-1]

    @property
    def p99(self) -> float:
        """Seconds until 99 % were bound."""
        return float(np.percentile(self.seconds, 99))


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator's process is told first."""

    kubeconfig: str
    ledger: str
    seed: int
    at_once: int = AT_ONCE
    requests_per_second: float = 2_000.0
    burst: int = 3_000


def run(args: Arguments) -> Result:
    """Measures and judges. Raises: BenchmarkError when the control plane is not there or pods stay unbound."""
    size = Size(20, 60, 4, 1) if args.quick else Size(NODES, PODS, SERVICES, REPEATS)
    try:
        with (
            ControlPlane(extra=FLAGS) as plane,
            tempfile.TemporaryDirectory(prefix="plimsoll-place-") as folder,
        ):
            runs = asyncio.run(_measure(plane, size, Path(folder), args.seed))
    except ControlPlaneError as error:
        raise BenchmarkError(str(error)) from error
    return judge(runs, size)


async def _measure(plane: ControlPlane, size: Size, folder: Path, seed: int) -> dict[str, list[Run]]:
    clock = WallClock()
    unlimited = Budget(clock, per_second=1e6, burst=10**6)
    store = await KubeStore.connect(plane.kubeconfig, budget=unlimited, agent="plimsoll-benchmark")
    try:
        await _furnish(store, size)
        runs: dict[str, list[Run]] = {OURS: [], STOCK: []}
        for repeat in range(size.repeats):
            order = (OURS, STOCK) if repeat % 2 == 0 else (STOCK, OURS)
            for arm in order:
                setup = Setup(
                    kubeconfig=str(plane.kubeconfig),
                    ledger=str(folder / f"ledger-{repeat}.db"),
                    seed=seed + repeat,
                )
                bench = _Arm(store, plane, size)
                runs[arm].append(await (bench.ours(setup) if arm == OURS else bench.stock()))
                await bench.clear()
        return runs
    finally:
        await store.close()


async def _furnish(store: KubeStore, size: Size) -> None:
    """Definitions, namespace, nodes, and services at zero."""
    await crds.install(store)
    for name in (SPACE, OperatorConfig().namespace):
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await store.create(NAMESPACE, space, field_manager=MANAGER)
    await store.create(ACCELERATOR_CLASS, _accelerator(), field_manager=MANAGER)
    await _together(_create(store, NODE, _node(n)) for n in range(size.nodes))
    await _together(_create(store, MODEL_SERVICE, _service(n)) for n in range(size.services))
    async with asyncio.timeout(WITHIN_SECONDS):
        while any(n.get("spec", {}).get("taints") for n in (await store.list(NODE)).items):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


class _Arm:
    """One placing of all pods, and its traces removed."""

    def __init__(self, store: KubeStore, plane: ControlPlane, size: Size) -> None:
        self._store = store
        self._plane = plane
        self._size = size

    async def ours(self, setup: Setup) -> Run:
        """The operator places what the services are scaled to."""
        operator = await Side.start("benchmarks.place_operator", "operator", setup)
        try:
            await operator.hear(60.0)
            each = self._size.pods // self._size.services

            async def ask() -> None:
                for number in range(self._size.services):
                    await self._store.put_scale(
                        MODEL_SERVICE, f"svc-{number:03d}", SPACE, replicas=each, field_manager=MANAGER
                    )

            return await self._watched(ask, lambda: operator.cpu_seconds)
        finally:
            await operator.tell({"do": "stop"})
            with suppress(BenchmarkError):
                await operator.hear(30.0)
            await operator.end()

    async def stock(self) -> Run:
        """Plain pods, placed by the scheduler alone."""

        async def ask() -> None:
            await _together(_create(self._store, POD, _plain(n)) for n in range(self._size.pods))

        return await self._watched(ask, lambda: 0.0)

    async def _watched(self, ask: Callable[[], Awaitable[None]], operator_cpu: Callable[[], float]) -> Run:
        since = (await self._store.list(POD, SPACE)).resource_version
        pid = self._plane.pids[Component.SCHEDULER]
        scheduler, operator = cpu_seconds(pid, "scheduler"), operator_cpu()
        began = time.monotonic()
        asking = asyncio.ensure_future(ask())
        async with asyncio.timeout(WITHIN_SECONDS):
            bound = await self._bound(since, began)
            await asking
        used = operator_cpu() - operator
        return Run(sorted(bound.values()), cpu_seconds(pid, "scheduler") - scheduler, used)

    async def _bound(self, since: str, began: float) -> dict[str, float]:
        """Follow the pods until all are bound; seconds since `began` at which each was, by name."""
        bound: dict[str, float] = {}
        while len(bound) < self._size.pods:
            watch = await self._store.watch(POD, SPACE, resource_version=since)
            while len(bound) < self._size.pods and not watch.ended:
                await watch.wait()
                now = time.monotonic() - began
                for event in watch.drain():
                    since = event.resource_version
                    if b'"nodeName"' in event.raw:
                        _note(event, now, bound)
            watch.close()
        return bound

    async def clear(self) -> None:
        """Services to zero, and every pod gone: there are no kubelets, so each is removed at once."""
        for number in range(self._size.services):
            await self._store.put_scale(
                MODEL_SERVICE, f"svc-{number:03d}", SPACE, replicas=0, field_manager=MANAGER
            )
        names = [pod["metadata"]["name"] for pod in (await self._store.list(POD, SPACE)).items]
        await _together(self._remove(name) for name in names)
        async with asyncio.timeout(WITHIN_SECONDS):
            while (await self._store.list(POD, SPACE, limit=1)).raw_items:  # noqa: ASYNC110 - a count is waited for
                await asyncio.sleep(0.1)

    async def _remove(self, name: str) -> None:
        with suppress(NotFound, Conflict):
            await self._store.delete(POD, name, SPACE, grace_seconds=0)


def _note(event: WatchEvent, now: float, bound: dict[str, float]) -> None:
    name = event.object["metadata"]["name"]
    if event.type is EventType.DELETED:
        raise BenchmarkError(f"Pod {name} was deleted while it was measured.")
    bound.setdefault(name, now)


async def _together(work: Iterable[Awaitable[None]]) -> None:
    """All of it, so many at once as the operator sends."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(each: Awaitable[None]) -> None:
        async with free:
            await each

    await asyncio.gather(*(one(each) for each in work))


async def _create(store: KubeStore, resource: Resource, obj: JsonObject) -> None:
    with suppress(AlreadyExists):
        await store.create(resource, obj, field_manager=MANAGER)


def _accelerator() -> JsonObject:
    return {
        "apiVersion": ACCELERATOR_CLASS.api_version,
        "kind": "AcceleratorClass",
        "metadata": {"name": "l4"},
        "spec": {
            "displayName": "L4",
            "aliases": ["NVIDIA-L4"],
            "memoryBytes": 25_769_803_776,
            "bandwidthBytesPerSecond": 300_000_000_000,
            "flops": {"bf16": 121.0e12},
            "minWatts": 40,
            "maxWatts": 72,
            "tdpWatts": 72,
            "safeWatts": 60,
            "pools": [
                {
                    "name": "l4-on-demand",
                    "dollarsPerGpuHour": 0.805,
                    "pricedAt": "2026-07-20",
                    "source": "list",
                }
            ],
        },
    }


def _node(number: int) -> JsonObject:
    name = f"node-{number:04d}"
    offered = {"nvidia.com/gpu": str(GPUS), "cpu": "64", "memory": "512Gi", "pods": "110"}
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ready = {
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
        "lastHeartbeatTime": stamp, "lastTransitionTime": stamp,
    }  # fmt: skip
    marks = {"kubernetes.io/hostname": name, "nvidia.com/gpu.product": "NVIDIA-L4"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": marks},
        "status": {"capacity": offered, "allocatable": offered, "conditions": [ready]},
    }


def _service(number: int) -> JsonObject:
    return {
        "apiVersion": MODEL_SERVICE.api_version,
        "kind": "ModelService",
        "metadata": {"name": f"svc-{number:03d}", "namespace": SPACE},
        "spec": {
            "model": {"name": "llama-3.2-3b"},
            "mode": "Off",
            "replicas": 0,
            "minReplicas": 0,
            "variants": [{"accelerator": "l4"}],
            "objectives": [{"class": "default", "ttftSeconds": 5.0, "tpotSeconds": 0.2, "percentile": 0.95}],
            "expectedLoad": {"requestsPerSecond": 1.0, "inputTokens": 1155, "outputTokens": 211},
        },
    }


def _plain(number: int) -> JsonObject:
    limits = {"nvidia.com/gpu": "1"}
    container = {
        "name": "main",
        "image": "plimsoll/engine:0.1.0",
        "resources": {"limits": limits, "requests": limits},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"plain-{number:04d}", "namespace": SPACE},
        "spec": {"automountServiceAccountToken": False, "containers": [container]},
    }


def judge(runs: dict[str, list[Run]], size: Size) -> Result:
    """Rows, medians and spread over the repeats."""

    def median(arm: str, figure: Callable[[Run], float]) -> float:
        return statistics.median(figure(run) for run in runs[arm])

    figures: dict[str, Figure] = {
        "pods_per_s": round(median(OURS, lambda r: r.rate), 1),
        "p99_s": round(median(OURS, lambda r: r.p99), 2),
        "stock_pods_per_s": round(median(STOCK, lambda r: r.rate), 1),
        "stock_p99_s": round(median(STOCK, lambda r: r.p99), 2),
        "operator_cpu_s": round(median(OURS, lambda r: r.operator_cpu), 2),
        "scheduler_cpu_s": round(median(OURS, lambda r: r.scheduler_cpu), 2),
        "stock_scheduler_cpu_s": round(median(STOCK, lambda r: r.scheduler_cpu), 2),
        "pods": size.pods,
        "nodes": size.nodes,
        "repeats": size.repeats,
    }
    return Result(rows=_rows(runs, median, figures), figures=figures, plots=(_plot(runs),))


def _rows(
    runs: dict[str, list[Run]],
    median: Callable[[str, Callable[[Run], float]], float],
    figures: dict[str, Figure],
) -> tuple[Row, ...]:
    rate = median(OURS, lambda r: r.rate) / median(STOCK, lambda r: r.rate)
    cpu = median(OURS, lambda r: r.scheduler_cpu) / max(median(STOCK, lambda r: r.scheduler_cpu), 1e-9)
    rows: list[Row] = []
    for arm in (OURS, STOCK):
        spread = ", ".join(f"{run.rate:.0f}" for run in runs[arm])
        rows += [
            Row(f"{arm}: pods bound per second, median", f"{median(arm, lambda r: r.rate):.0f}  ({spread})"),
            Row(f"{arm}: 99 % bound after, median", f"{median(arm, lambda r: r.p99):.1f} s"),
            Row(f"{arm}: scheduler's processor time", f"{median(arm, lambda r: r.scheduler_cpu):.1f} s"),
        ]
    return (
        *rows,
        Row("operator's processor time", f"{figures['operator_cpu_s']} s"),
        at_least("rate, operator to stock", rate, GOAL_RATE),
        at_most("scheduler's processor time, operator to stock", cpu, GOAL_SCHEDULER),
    )


def _plot(runs: dict[str, list[Run]]) -> Plot:
    series = {}
    for arm in (OURS, STOCK):
        points = tuple((seconds, float(n + 1)) for n, seconds in enumerate(runs[arm][-1].seconds))
        series[arm] = points[:: max(1, len(points) // 200)]
    return Plot(
        name="place",
        title="Pods bound, last repeat",
        x_label="seconds since the first request",
        y_label="pods",
        series=series,
    )

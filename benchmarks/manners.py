"""What the operator asks of an API server: idle, while 100 pods roll out, under a permanent 403, under a storm of 409.

Real: control plane, the operator's process with the operator's own rights, RBAC, ResourceQuota, the rival that writes our
fields. Modelled: 1,000 nodes whose kubelets' work is done here (heartbeats every five minutes, containers that come up
at once), and their agents, at the hub's inbox, with watts that move all the time. Requests are counted where they leave
the operator (watches and retries included) and by the API server's audit log, under the operator's user; the two must
agree. The operator has no ledger and no gateway here: neither asks the API server anything.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import manners_cluster as cluster
from benchmarks.base import Arguments, BenchmarkError, Figure, Result, Row, at_most
from benchmarks.manners_cluster import FULL, MANAGER, SPACE, USER, Kubelets, until
from benchmarks.manners_operator import Setup
from benchmarks.sides import Side
from console.controlplane import ControlPlane, ControlPlaneError
from controller.config import OperatorConfig
from controller.resources import crds
from controller.resources.core import NAMESPACE, NODE
from controller.resources.core_bounds import RESOURCE_QUOTA
from controller.resources.kinds import ACCELERATOR_CLASS, MODEL_SERVICE
from controller.store.kube import KubeStore
from controller.store.kube.budget import Budget
from runtime.clock import WallClock

ROOT = Path(__file__).resolve().parents[1]
GPUS = 8
QUIET_SECONDS, SETTLE_SECONDS = 6.0, 600.0
GOAL_IDLE, GOAL_ROLLOUT, GOAL_FORBIDDEN, GOAL_CONFLICT = 30.0, 10.0, 2.0, 20.0
"""Requests: a minute; a pod; an object and minute; an object and minute (bounded: what two a quarter of a minute make)."""
DIFFERENCE = 2
"""Requests that may be under way at the edges of a window, where the two counts are compared."""


class Size(NamedTuple):
    """How much there is, and how long is watched."""

    nodes: int
    services: int
    pods: int
    refused: int
    contested: int
    window_seconds: float


class Phase(NamedTuple):
    """What was asked in one phase: by the client, by the audit log, and what watches brought."""

    name: str
    seconds: float
    sent: list[str]
    seen: int
    watched_bytes: int

    @property
    def per_minute(self) -> float:
        """Requests a minute."""
        return 60.0 * len(self.sent) / self.seconds


FULL_SIZE = Size(1_000, 500, 100, 100, 50, 60.0)
QUICK_SIZE = Size(30, 20, 10, 10, 5, 10.0)


def run(args: Arguments) -> Result:
    """Measures and judges. Raises: BenchmarkError when the control plane is not there or nothing comes to rest."""
    size = QUICK_SIZE if args.quick else FULL_SIZE
    try:
        with tempfile.TemporaryDirectory(prefix="plimsoll-manners-") as folder:
            place = Path(folder)
            with ControlPlane(extra=cluster.audited(place)) as plane:
                return judge(asyncio.run(_measure(plane, size, place, args.seed)), size)
    except ControlPlaneError as error:
        raise BenchmarkError(str(error)) from error


class Bench:
    """The operator under measurement, its nodes, and the two counts."""

    def __init__(self, store: KubeStore, side: Side, kubelets: Kubelets, folder: Path, size: Size) -> None:
        self.store, self.kubelets, self.size = store, kubelets, size
        self._side, self._folder = side, folder
        self.replaced = 0

    async def count(self, since: float) -> tuple[list[str], int, float]:
        """What the operator sent since a moment, bytes its watches brought in all, and when it answered."""
        await self._side.tell({"do": "count", "since": since})
        told = await self._side.hear(30.0)
        return told["sent"], told["bytes"], told["at"]

    async def rest(self) -> None:
        """Wait until the operator has asked next to nothing for a while."""
        deadline = time.monotonic() + SETTLE_SECONDS
        sent: list[str] = []
        while time.monotonic() < deadline:
            since = time.time()
            await asyncio.sleep(QUIET_SECONDS)
            sent, _, _ = await self.count(since)
            if len(sent) <= QUIET_SECONDS:
                return
        raise BenchmarkError(f"The operator did not come to rest within {SETTLE_SECONDS:g} s: {sent[-5:]}")

    async def window(self, name: str, seconds: float) -> Phase:
        """Count for so long."""
        began, before = time.time(), (await self.count(time.time()))[1]
        await asyncio.sleep(seconds)
        return await self.phase(name, began, before)

    async def phase(self, name: str, began: float, bytes_before: int) -> Phase:
        """What was asked since `began`."""
        sent, watched, at = await self.count(began)
        await asyncio.sleep(0.5)  # until the audit log has the last line
        seen = sum(began <= when < at for when in cluster.requests_seen(self._folder).values())
        return Phase(name, at - began, sent, seen, watched - bytes_before)


async def _measure(plane: ControlPlane, size: Size, folder: Path, seed: int) -> dict[str, Phase]:
    clock = WallClock()
    unlimited = Budget(clock, per_second=1e6, burst=10**6)
    store = await KubeStore.connect(plane.kubeconfig, budget=unlimited, agent="plimsoll-benchmark")
    try:
        await _furnish(store, plane, size)
        async with _operating(store, plane, size, folder, seed) as bench:
            return await _phases(bench, size)
    finally:
        await store.close()


async def _furnish(store: KubeStore, plane: ControlPlane, size: Size) -> None:
    """Definitions, rights, nodes, services of one replica each."""
    await crds.install(store)
    spaces = (SPACE, FULL, OperatorConfig().namespace)
    for name in spaces:
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await store.create(NAMESPACE, space, field_manager=MANAGER)
    rights = str(ROOT / "helm/plimsoll/files/rbac/operator.yaml")
    await asyncio.to_thread(plane.kubectl, "apply", "-f", rights)
    for kind, role in (("clusterrolebinding", "--clusterrole"), ("rolebinding", "--role")):
        await asyncio.to_thread(
            plane.kubectl, "create", kind, "manners", f"{role}=plimsoll-operator", f"--namespace={spaces[2]}",
            f"--user={USER}",
        )  # fmt: skip
    await store.create(ACCELERATOR_CLASS, cluster.product(), field_manager=MANAGER)
    await cluster.made(store, NODE, (cluster.node(n, GPUS) for n in range(size.nodes)))
    objects = [cluster.service(f"svc-{n:03d}", SPACE, 1) for n in range(size.services - 1)]
    await cluster.made(store, MODEL_SERVICE, [*objects, cluster.service("rollout", SPACE, 0)])


@asynccontextmanager
async def _operating(
    store: KubeStore, plane: ControlPlane, size: Size, folder: Path, seed: int
) -> AsyncIterator[Bench]:
    kubelets = Kubelets(store)
    doing = [
        asyncio.create_task(kubelets.run()),
        asyncio.create_task(cluster.heartbeats(store, size.nodes)),
    ]
    setup = Setup(kubeconfig=str(plane.kubeconfig_for(USER)), seed=seed, nodes=size.nodes, gpus=GPUS)
    side = await Side.start("benchmarks.manners_operator", "operator", setup)
    try:
        await side.hear(120.0)
        yield Bench(store, side, kubelets, folder, size)
        await side.tell({"do": "stop"})
        await side.hear(60.0)
    finally:
        for task in doing:
            task.cancel()
        await asyncio.gather(*doing, return_exceptions=True)
        await side.end()


async def _phases(bench: Bench, size: Size) -> dict[str, Phase]:
    pods = size.services - 1
    while len(bench.kubelets.ready) < pods:
        await _more(bench.kubelets, pods)
        await bench.count(time.time())  # it still leads
    await bench.rest()
    found = {"idle": await bench.window("idle", size.window_seconds)}
    found["rollout"] = await _rollout(bench, size)
    await bench.rest()
    found |= await _forbidden(bench, size)
    found["conflict"] = await _storm(bench, size)
    return found


async def _more(kubelets: Kubelets, pods: int) -> None:
    """Wait until further pods are ready. Raises: BenchmarkError when none comes for a minute."""
    have = len(kubelets.ready)
    await until(lambda: len(kubelets.ready) > have, 60.0, f"more than {have} of {pods} pods ready")


async def _rollout(bench: Bench, size: Size) -> Phase:
    """From none to all pods ready."""
    began, before = time.time(), (await bench.count(time.time()))[1]
    await bench.store.put_scale(MODEL_SERVICE, "rollout", SPACE, replicas=size.pods, field_manager=MANAGER)
    ours = f"{SPACE}/rollout-"
    await until(
        lambda: sum(key.startswith(ours) for key in bench.kubelets.ready) >= size.pods,
        SETTLE_SECONDS,
        f"{size.pods} pods of the rollout ready",
    )
    await asyncio.sleep(QUIET_SECONDS / 2)
    return await bench.phase("rollout", began, before)


async def _forbidden(bench: Bench, size: Size) -> dict[str, Phase]:
    """Services of a namespace whose quota has no room: the first minute, and the one after it."""
    quota = {
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": FULL},
        "spec": {"hard": {"pods": "0"}},
    }  # fmt: skip
    await bench.store.create(RESOURCE_QUOTA, quota, field_manager=MANAGER)
    async with asyncio.timeout(SETTLE_SECONDS):
        while "used" not in (await bench.store.get(RESOURCE_QUOTA, "none", FULL)).get("status", {}):  # noqa: ASYNC110 - a count is waited for
            await asyncio.sleep(0.2)
    began, before = time.time(), (await bench.count(time.time()))[1]
    objects = [cluster.service(f"no-{n:03d}", FULL, 1) for n in range(size.refused)]
    await cluster.made(bench.store, MODEL_SERVICE, objects)
    await asyncio.sleep(size.window_seconds - (time.time() - began))
    first = await bench.phase("forbidden_first", began, before)
    return {"forbidden_first": first, "forbidden": await bench.window("forbidden", size.window_seconds)}


async def _storm(bench: Bench, size: Size) -> Phase:
    """Somebody takes fields of our statuses back, twice a second, of so many objects."""
    names = [f"svc-{n:03d}" for n in range(size.contested)]

    async def rival() -> None:
        while True:
            patch = {"status": {"phase": "Refused"}}
            await cluster.together(
                bench.store.patch(
                    MODEL_SERVICE, name, patch, SPACE, field_manager="rival", subresource="status"
                )
                for name in names
            )
            await asyncio.sleep(0.5)

    fighting = asyncio.create_task(rival())
    try:
        return await bench.window("conflict", size.window_seconds)
    finally:
        fighting.cancel()
        await asyncio.gather(fighting, return_exceptions=True)


# ------------------------------------------------------------------------------------------------------------ judging


def judge(phases: dict[str, Phase], size: Size) -> Result:
    """Rows and figures. What an idle operator asks is not taken off the other phases but for the ones per object."""
    idle = phases["idle"].per_minute
    storm = phases["conflict"]

    def each(name: str, objects: int) -> float:
        return max(0.0, phases[name].per_minute - idle) / objects

    rollout = len(phases["rollout"].sent) / size.pods
    figures: dict[str, Figure] = {
        "idle_requests_per_min": round(idle, 1),
        "rollout_requests": round(rollout, 2),
        "forbidden_requests_per_min": round(each("forbidden", size.refused), 2),
        "conflict_requests_per_min": round(each("conflict", size.contested), 2),
        "forbidden_first_min": round(each("forbidden_first", size.refused), 2),
        "idle_watched_bytes_per_min": round(60.0 * phases["idle"].watched_bytes / phases["idle"].seconds),
        "rollout_watched_bytes": phases["rollout"].watched_bytes,
        "conflict_watched_bytes_per_min": round(60.0 * storm.watched_bytes / storm.seconds),
        "client_server_difference": max(abs(len(p.sent) - p.seen) for p in phases.values()),
        "nodes": size.nodes,
        "services": size.services,
        "load": round(os.getloadavg()[0], 2),
    }
    remark = (
        f"{size.nodes} nodes, {size.services} services; windows of {size.window_seconds:g} s; load of the machine at the "
        f"end {figures['load']}."
    )
    return Result(rows=_rows(phases, size, figures), figures=figures, remark=remark)


def _rows(phases: dict[str, Phase], size: Size, figures: dict[str, Figure]) -> tuple[Row, ...]:
    def figure(name: str) -> float:
        return float(figures[name] or 0.0)

    differ = int(figure("client_server_difference"))
    return (
        at_most("idle: requests a minute", figure("idle_requests_per_min"), GOAL_IDLE),
        Row("… which are", _kinds(phases["idle"])),
        Row("… bytes watched a minute", f"{figures['idle_watched_bytes_per_min']:,}"),
        at_most(f"{size.pods} pods rolled out: requests a pod", figure("rollout_requests"), GOAL_ROLLOUT),
        Row("… which are", _kinds(phases["rollout"])),
        at_most("permanent 403: requests an object and minute", figure("forbidden_requests_per_min"), GOAL_FORBIDDEN),
        Row("… in the first minute, with the objects' first status and event", f"{figure('forbidden_first_min'):.2f}"),
        Row("… which are", _kinds(phases["forbidden_first"])),
        Row("… which are, after it", _kinds(phases["forbidden"])),
        at_most("storm of 409: requests an object and minute", figure("conflict_requests_per_min"), GOAL_CONFLICT),
        Row("… which are", _kinds(phases["conflict"])),
        Row(
            "requests counted by the client and by the audit log, largest difference of a phase",
            f"{differ}", f"≤ {DIFFERENCE}", differ <= DIFFERENCE,
        ),
    )  # fmt: skip


def _kinds(phase: Phase) -> str:
    """The most frequent requests by verb and kind."""
    counted = Counter(_kind(each) for each in phase.sent)
    return ", ".join(f"{count} {what}" for what, count in counted.most_common(6)) or "none"


def _kind(request: str) -> str:
    method, _, path = request.partition(" ")
    path, watched, _ = path.partition(" watch")
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest and rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    below = f"/{rest[2]}" if len(rest) > 2 else ""
    return f"{'WATCH' if watched else method} {rest[0] if rest else ''}{below}"

"""A whole operator on the real control plane, in real time: simulated nodes with kubelets and agents, a user, faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from console.controlplane import ControlPlane
from console.local import HUB
from controller.config import OperatorConfig, PolicyDefault
from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.observe import labels
from controller.operator import Operator
from controller.resources import crds
from controller.resources.core import EVENT, NODE, POD
from controller.resources.kinds import ACCELERATOR_CLASS, ACCELERATOR_NODE, MODEL_SERVICE, TRAINING_JOB
from controller.resources.manifests import apply, parse
from controller.store.errors import Forbidden, NotFound, StoreError
from controller.store.interface import JsonObject, Resource, Store
from controller.store.interposed import InterposedStore, Request
from controller.store.kube import KubeStore
from runtime.authority import Authority
from runtime.clock import WallClock
from simulator.fleet.fleet import Fleet
from simulator.fleet.node import HubAddress
from simulator.fleet.specs import FleetSpec
from tests.scenarios.props import PRODUCTS
from tests.scenarios.props import fleet as fleet_of

T = TypeVar("T")

PATIENCE_SECONDS = 90.0
"""Wall time for what should take seconds, on a machine that does much else."""
BRISK = msgspec.structs.replace(
    fleet_of(l4=1).start, container_seconds=0.2, process_seconds=0.2, engine_seconds=0.2, warm_up_seconds=0.2,
    rank_seconds=0.2,
)  # fmt: skip


METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

Right = tuple[str, str, str]
"""API group, resource (with its subresource) and verb, as the API server authorises a request."""


def right_of(method: str, url: str) -> Right:
    """What a request needs."""
    parts = urlsplit(url)
    words = parts.path.strip("/").split("/")
    group, rest = ("", words[2:]) if words[0] == "api" else (words[1], words[3:])
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join((rest[0], *rest[2:]))
    if method != "GET":
        return group, resource, METHODS[method]
    if len(rest) > 1:
        return group, resource, "get"
    return group, resource, "watch" if "watch=" in parts.query else "list"


def discovers(url: str) -> bool:
    """Whether a request asks which kinds there are: every account may."""
    words = urlsplit(url).path.strip("/").split("/")
    return words[0] == "apis" and len(words) <= len(("apis", "group", "version"))


def listen(store: KubeStore) -> set[Right]:
    """The rights that the store's requests need from now on, as they leave for the API server."""
    needed: set[Right] = set()
    send = store.transport.access.send

    async def told(method: str, url: str, *rest: Any) -> Any:
        if not discovers(url):
            needed.add(right_of(method, url))
        return await send(method, url, *rest)

    store.transport.access.send = told  # type: ignore[method-assign]
    return needed


class Recorder(InterposedStore):
    """Counts what the operator asks of the API server, and what it was refused."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.asked: Counter[tuple[str, Resource, str]] = Counter()
        self.requests: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        """Requests that may have changed something, by namespace."""
        self.forbidden: list[str] = []
        self.before: Callable[[Request], Awaitable[None]] | None = None

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        """Count it; `before` may do something in the world first."""
        if self.before is not None and request.mutating:
            await self.before(request)
        self.asked[request.verb, request.resource, request.subresource] += 1
        self.requests[str(request)] += 1
        self.written[request.namespace] += request.mutating
        try:
            return await answer()
        except Forbidden as error:
            self.forbidden.append(f"{request}: {error.message}")
            raise

    @property
    def mutations(self) -> int:
        """Requests that may have changed something."""
        reads = {"get", "list", "watch"}
        return sum(count for (verb, _, _), count in self.asked.items() if verb not in reads)


@dataclass
class Cluster:
    """One operator with its nodes. `admin` is the administrator's store, `recorder` the operator's."""

    plane: ControlPlane
    namespace: str
    admin: KubeStore
    operator: Operator
    fleet: Fleet
    recorder: Recorder
    rights: set[Right]
    """What the operator's requests needed."""
    running: list[asyncio.Task[None]]
    """Nodes and operator; one that ends before the test does is a defect."""

    async def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> Any:
        """The real kubectl, as the administrator, in the test's namespace."""
        return await asyncio.to_thread(
            self.plane.kubectl, "-n", self.namespace, *words, stdin=stdin, check=check
        )

    async def json(self, *words: str) -> Any:
        """What kubectl gives as JSON."""
        return json.loads((await self.kubectl(*words, "-o", "json")).stdout)

    async def until(self, holds: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Ask again until it holds; what it gave. Raises AssertionError naming it."""
        last: Any = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    for task in self.running:
                        assert not task.done(), f"ended by itself: {task.exception()!r}"
                    with contextlib.suppress(NotFound):
                        last = await holds()
                        if last:
                            return last
                    await asyncio.sleep(0.1)
        raise AssertionError(f"not within {PATIENCE_SECONDS:g} s: {what}\n{await self.told()}")

    async def told(self) -> str:
        """What is there, for a failed expectation."""
        listed = await self.kubectl("get", "plimsoll,pods,services,events", "-o", "wide", check=False)
        return f"{listed.stdout}\nrefused: {self.recorder.forbidden[:5]}"

    async def pods(self) -> list[JsonObject]:
        """Pods of the test's namespace."""
        return list((await self.admin.list(POD, self.namespace)).items)

    async def ready(self) -> list[JsonObject]:
        """Those of ours that are ready and stay."""
        return [
            pod
            for pod in await self.pods()
            if "deletionTimestamp" not in pod["metadata"]
            and labels.MANAGED_BY in pod["metadata"].get("labels", {})
            and any(
                c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])
            )
        ]

    async def events(self, reason: str = "", about: str = "") -> list[JsonObject]:
        """Events of the test's namespace and of `default`, with this reason, about this object."""
        found = [
            *(await self.admin.list(EVENT, self.namespace)).items,
            *(await self.admin.list(EVENT, "default")).items,
        ]
        return [
            event
            for event in found
            if (not reason or event["reason"] == reason)
            and (not about or event["involvedObject"]["name"] == about)
        ]


def fleet_spec(prefix: str, **counts: int) -> FleetSpec:
    """Nodes whose names begin with the test's namespace: many tests share one control plane."""
    made = fleet_of(**counts)
    nodes = tuple(msgspec.structs.replace(n, name=f"{prefix}-{n.name}") for n in made.nodes)
    return msgspec.structs.replace(made, nodes=nodes, start=BRISK)


def config_of(namespace: str, **more: Any) -> OperatorConfig:
    """Plans every other second, so that tests wait little."""
    settings: dict[str, Any] = {
        "namespace": namespace,
        "plan_seconds": 2.0,
        "threaded": True,
        "writes_at_once": 8,
        "policies": {"commit": PolicyDefault("by_priority", {"hold_seconds": 2.0})},
        "gateway_url": "https://plimsoll-gateway.plimsoll-system.svc",
    }
    return OperatorConfig(**(settings | more))


@asynccontextmanager
async def operating(
    plane: ControlPlane,
    namespace: str,
    *,
    operator: Path | None = None,
    config: OperatorConfig | None = None,
    leads_in: str = "",
    **counts: int,
) -> AsyncIterator[Cluster]:
    """An operator (as the administrator, or with the rights of the kubeconfig `operator`) and nodes, both running."""
    clock = WallClock()
    admin = await KubeStore.connect(plane.kubeconfig, clock=clock, seed=1)
    await crds.install(admin)
    products, _ = parse(PRODUCTS)
    await apply(admin, products)
    own = await KubeStore.connect(operator or plane.kubeconfig, clock=clock, seed=2)
    recorder, rights = Recorder(own), listen(own)
    authority = Authority.create(clock)
    hub = Hub(clock, heartbeat_seconds=1.0)
    held = authority.issue(HUB)
    door = HubServer(hub, lambda: held)
    await door.start()
    address = HubAddress(door.endpoint, HUB)
    fleet = Fleet(fleet_spec(namespace, **counts), admin, clock, authority, hub=address, real_time=True)
    made = Operator(recorder, clock, config or config_of(leads_in or namespace), hub=hub)
    await made.start()
    await fleet.start()
    stop = asyncio.Event()
    running = [asyncio.create_task(fleet.run(stop, 0.05)), asyncio.create_task(made.run(stop))]
    cluster = Cluster(plane, namespace, admin, made, fleet, recorder, rights, running)
    try:
        yield cluster
    finally:
        stop.set()
        await asyncio.gather(*running, return_exceptions=True)
        await fleet.stop()
        await made.stop()
        await door.stop()
        await _sweep(admin, namespace, fleet)
        await own.close()
        await admin.close()


async def _sweep(admin: KubeStore, namespace: str, fleet: Fleet) -> None:
    """What the test left that a namespace's deletion does not take: pods without a kubelet, nodes, cluster's objects."""
    for resource in (MODEL_SERVICE, TRAINING_JOB):  # the next test's operator would find them
        for obj in (await admin.list(resource)).items:
            await _gone(admin, resource, obj["metadata"])
    for pod in (await admin.list(POD)).items:
        if pod["spec"].get("nodeName", "") in fleet.nodes or pod["metadata"]["namespace"] == namespace:
            await _gone(admin, POD, pod["metadata"])
    for name in fleet.nodes:
        for resource in (NODE, ACCELERATOR_NODE):
            await _gone(admin, resource, {"name": name})
    for product in (await admin.list(ACCELERATOR_CLASS)).items:
        await _gone(admin, ACCELERATOR_CLASS, product["metadata"])


async def _gone(admin: KubeStore, resource: Resource, meta: JsonObject) -> None:
    with contextlib.suppress(StoreError):
        if meta.get("finalizers"):
            patch: JsonObject = {"metadata": {"finalizers": None}}
            await admin.patch(resource, meta["name"], patch, meta.get("namespace", ""), field_manager="tests")
        await admin.delete(resource, meta["name"], meta.get("namespace", ""), grace_seconds=0)

"""A small cluster of real parts: embedded store, hub on loopback, fleet, and the conductor of accelerated time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cluster.codec import to_json
from cluster.launch import EngineLaunch, RankLaunch
from cluster.serving import Model, Variant
from cluster.training import CheckpointSpec, TrainingShape
from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.resources.core import LEASE, NODE, POD
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.errors import NotFound
from controller.store.interface import JsonObject, Store
from runtime.authority import Authority, Identity, Role
from runtime.clock import VirtualClock, WallClock
from simulator.fleet.barrier import Conductor
from simulator.fleet.fleet import Fleet
from simulator.fleet.node import HubAddress
from simulator.fleet.specs import FleetSpec, uniform_fleet
from simulator.physics.shapes import StartProfile

ORIGIN = 1_700_000_000.0
QUICK = StartProfile(
    container_seconds=1.5,
    process_seconds=2.0,
    engine_seconds=1.0,
    warm_up_seconds=1.0,
    rank_seconds=2.0,
    jitter=0.0,
)
MODEL = Model(
    name="llama-7b",
    parameters=6.74e9,
    layers=32,
    hidden_size=4096,
    kv_bytes_per_token=524_288,
    weight_bytes=13_480_000_000,
)
SHAPE = TrainingShape(layers=24, hidden_size=2048, sequence_length=2048)


@dataclass
class Idle:
    """An operator that decides nothing; `script` may act at its moments."""

    script: Callable[[], Awaitable[None]] | None = None
    steps: int = 0

    async def step(self) -> None:
        self.steps += 1
        if self.script is not None:
            await self.script()


@dataclass
class Cluster:
    """One fleet with all it needs."""

    clock: VirtualClock
    store: EmbeddedStore
    fleet: Fleet
    conductor: Conductor
    operator: Idle
    hub: Hub | None = None
    reports: list[Any] = field(default_factory=list)

    @property
    def now(self) -> float:
        return self.clock.now() - ORIGIN

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            await self.conductor.step()
            if self.hub is not None:
                self.reports += self.hub.inbox.drain()

    async def until(self, condition: Callable[[], Awaitable[bool]], most: int = 300) -> float:
        for _ in range(most):
            if await condition():
                return self.now
            await self.seconds(1)
        raise AssertionError(f"not within {most} simulated seconds")

    async def pod(self, key: str) -> JsonObject:
        namespace, _, name = key.partition("/")
        return await self.store.get(POD, name, namespace)

    async def gone(self, key: str) -> bool:
        try:
            await self.pod(key)
        except NotFound:
            return True
        return False

    async def ready(self, key: str) -> bool:
        conditions = (await self.pod(key))["status"].get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    async def phase(self, key: str) -> str:
        return str((await self.pod(key))["status"]["phase"])

    async def node(self, name: str) -> JsonObject:
        return await self.store.get(NODE, name)

    async def lease(self, name: str) -> JsonObject:
        return await self.store.get(LEASE, name, "kube-node-lease")

    async def create(self, pod: JsonObject) -> JsonObject:
        return await self.store.create(POD, pod, field_manager="test")

    async def delete(self, key: str, grace_seconds: int) -> None:
        namespace, _, name = key.partition("/")
        await self.store.delete(POD, name, namespace, grace_seconds=grace_seconds)


@asynccontextmanager
async def cluster(
    spec: FleetSpec | None = None,
    *,
    hub: bool = False,
    heartbeat_seconds: float = 1.0,
    store_of: Callable[[EmbeddedStore, VirtualClock], Store] | None = None,
    operator: Idle | None = None,
) -> AsyncIterator[Cluster]:
    """A started fleet on the embedded store; with `hub`, its agents are connected to a real hub on loopback."""
    spec = spec or uniform_fleet(2, start=QUICK)
    clock = VirtualClock(ORIGIN)
    store = open_store(clock)
    authority = Authority.create(WallClock())
    operator = operator or Idle()
    made_hub = server = address = None
    if hub:
        held = authority.issue(Identity(Role.OPERATOR, "hub"))
        made_hub = Hub(clock, epoch=1, heartbeat_seconds=heartbeat_seconds)
        server = HubServer(made_hub, lambda: held)
        await server.start()
        address = HubAddress(server.endpoint)
    seen = store_of(store, clock) if store_of else store
    fleet = Fleet(spec, seen, clock, authority, hub=address, plane=store)
    conductor = Conductor(clock, fleet, operator, hub=made_hub, patience_seconds=10.0)
    await fleet.start()
    try:
        yield Cluster(clock, store, fleet, conductor, operator, made_hub)
    finally:
        await fleet.stop()
        if server is not None:
            await server.stop()


def run(scenario: Callable[[], Awaitable[Any]], timeout_seconds: float = 60.0) -> Any:
    """Runs a scenario on a loop of its own, with a limit, so that a hang is a failure."""

    async def limited() -> Any:
        async with asyncio.timeout(timeout_seconds):
            return await scenario()

    return asyncio.run(limited())


def engine_pod(
    name: str,
    node: str,
    devices: tuple[int, ...] = (0,),
    *,
    accelerator: str = "H100",
    grace: int = 30,
    **spec: Any,
) -> JsonObject:
    """An engine's pod as the operator writes it."""
    launch = EngineLaunch(
        service="shop/chat",
        model=MODEL,
        variant=Variant(accelerator=accelerator, gpus=len(devices), tensor=len(devices)),
        devices=devices,
    )
    return _pod(name, node, len(devices), to_json(launch).decode(), "engine:1", grace, spec)


def rank_pod(
    job: str,
    attempt: int,
    rank: int,
    nodes: tuple[str, ...],
    *,
    gpus: int = 8,
    steps: int = 40,
    rendezvous: str = "",
    uid: str = "",
) -> JsonObject:
    """One node's ranks of a gang, as the operator writes it."""
    launch = RankLaunch(
        job=f"default/{job}",
        job_uid=uid or f"uid-{job}",
        attempt=attempt,
        rendezvous=rendezvous or f"uid-{job}-a{attempt}",
        node_rank=rank,
        nodes=len(nodes),
        gpus=gpus,
        shape=SHAPE,
        network="infiniband",
        steps=steps,
        global_batch=256,
        micro_batch=1,
        data=len(nodes) * gpus,
        checkpoint=CheckpointSpec(interval_seconds=30.0, write_seconds=2.0),
        devices=tuple(range(gpus)),
    )
    made = _pod(f"{job}-a{attempt}-r{rank}", nodes[rank], gpus, to_json(launch).decode(), "trainer:1", 10, {})
    made["spec"]["restartPolicy"] = "Never"
    return made


def _pod(
    name: str, node: str, gpus: int, launch: str, image: str, grace: int, spec: dict[str, Any]
) -> JsonObject:
    resources = {"nvidia.com/gpu": str(gpus), "cpu": "4", "memory": "16Gi"}
    pinned = {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
    }
    affinity = (
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": pinned}}}
        if node
        else {}
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"plimsoll.dev/launch": launch} if launch else {},
        },
        "spec": {
            **affinity,
            "terminationGracePeriodSeconds": grace,
            "containers": [{"name": "main", "image": image, "resources": {"limits": resources}}],
            **spec,
        },
    }


def plain_pod(name: str, node: str = "", gpus: int = 1, **spec: Any) -> JsonObject:
    """Somebody else's pod."""
    return _pod(name, node, gpus, "", "busybox", 30, spec)

"""The cluster of `failover`: control plane, nodes with their agents, two operators, and services that are scaled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.node.link import LinkError
from benchmarks.base import BenchmarkError
from benchmarks.failover_sides import (
    NAMES,
    PATIENCE_SECONDS,
    POLL_SECONDS,
    ROOT,
    SPACE,
    Accepted,
    LeaderService,
    OperatorProcess,
    Witness,
    Write,
    writes,
)
from console.controlplane import ControlPlane
from controller.leadership.lease import LEASE_NAME, Record, read
from controller.resources.core import LEASE
from controller.resources.kinds import MODEL_SERVICE
from controller.resources.manifests import apply, parse
from controller.store.errors import NotFound, StoreError
from controller.store.kube import KubeStore
from runtime.authority import Identity, Role
from runtime.clock import WallClock
from runtime.keyring import Keyring
from simulator.fleet.fleet import Fleet
from simulator.fleet.node import HubAddress
from simulator.fleet.specs import uniform_fleet
from simulator.physics.catalogue import GPU_SPECS
from simulator.physics.loading import WeightTier
from simulator.physics.shapes import StartProfile

WORK = "shop"
HUB = Identity(Role.OPERATOR, "hub")
SERVICES = 3
MANIFESTS = """
apiVersion: plimsoll.dev/v1alpha1
kind: PowerDomain
metadata: {name: row}
spec: {ratingWatts: WATTS, members: {nodes: [NODES]}}
"""
SERVICE = """
apiVersion: plimsoll.dev/v1alpha1
kind: ModelService
metadata: {name: NAME, namespace: shop}
spec:
  model: {name: llama-3.1-8b}
  mode: "Off"
  replicas: 1
  objectives: [{ttftSeconds: 2.0, tpotSeconds: 0.12}]
  expectedLoad: {requestsPerSecond: 0.5, inputTokens: 1000, outputTokens: 200}
"""
QUICK_START = StartProfile(
    container_seconds=0.1,
    process_seconds=0.1,
    engine_seconds=0.2,
    warm_up_seconds=0.1,
    rank_seconds=0.5,
    tier=WeightTier.DRAM,
    jitter=0.05,
)


class Arena:
    """The cluster, its nodes with their agents, and the operators. Made by `arena`."""

    def __init__(self, folder: Path, plane: ControlPlane, store: KubeStore, lease: dict[str, float]) -> None:
        self.folder = folder
        self.plane = plane
        self.store = store
        self.accepted: list[Accepted] = []
        self.operators: dict[str, OperatorProcess] = {}
        self.ports = {name: _free_port() for name in NAMES}
        self.service = LeaderService(store, self.ports)
        self._kubeconfigs = {name: plane.kubeconfig_for(name) for name in NAMES}
        self._settings = folder / "operator.yaml"
        self._settings.write_text(json.dumps({"lease": lease} if lease else {}))
        self._stop = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        self._loading: asyncio.Task[None] | None = None
        self.fleet: Fleet

    # ------------------------------------------------------------------------------------------ operators

    async def start_operator(self, name: str) -> OperatorProcess:
        """Start one (again) and wait until it stands by or leads."""
        made = OperatorProcess(name, self.ports[name], self.folder / f"{name}.log")
        self.operators[name] = made
        await made.start([
            "--store", "kube", "--kubeconfig", str(self._kubeconfigs[name]), "--pki", str(self.folder / "pki"),
            "--ledger", str(self.folder / "ledger.db"), "--health-port", "0", "--config", str(self._settings),
        ])  # fmt: skip
        return made

    async def lease(self) -> Record | None:
        """What the Lease says now; None while there is none."""
        with contextlib.suppress(NotFound):
            return read(await self.store.get(LEASE, LEASE_NAME, SPACE))
        return None

    async def until(self, what: str, holds: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until something holds. Raises: BenchmarkError with the logs."""
        until = time.monotonic() + seconds
        while True:
            answer = holds()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            if time.monotonic() > until:
                logs = "\n".join(f"== {each.name}\n{each.told()[-3000:]}" for each in self.operators.values())
                raise BenchmarkError(f"Not in {seconds:g} s: {what}\n{logs}")
            await asyncio.sleep(POLL_SECONDS)

    async def roles(self) -> tuple[OperatorProcess, OperatorProcess]:
        """The leader, obeyed by every agent, and the other one, which stands by with warm caches."""

        async def stands_by(other: OperatorProcess) -> bool:
            status, text = await other.page("/readyz")
            return status == 200 and text.startswith("standby: ") and "holds the Lease" in text

        await self.until("the Service has a leader", lambda: self.service.leader in self.operators)
        leader = self.operators[self.service.leader]
        other = next(each for each in self.operators.values() if each is not leader)
        await self.until("the other one stands by", lambda: stands_by(other))
        record = await self.lease()
        epoch = record.epoch if record else 0
        await self.until("every agent obeys", lambda: self.obeyed(epoch) == len(self.fleet.nodes))
        return leader, other

    def first_accepted(self, above_epoch: int, since_seconds: float) -> float | None:
        """When an agent first carried out a command of a later epoch, in wall time; None while none did."""
        found = (
            e.at_seconds for e in self.accepted if e.epoch > above_epoch and e.at_seconds > since_seconds
        )
        return next(found, None)

    def obeyed(self, epoch: int) -> int:
        """How many nodes draw power by a lease of this epoch."""
        leases = [node.agent.lease for node in self.fleet.nodes.values() if node.agent is not None]
        return sum(lease.active and lease.epoch == epoch for lease in leases)

    # ----------------------------------------------------------------------------------------------- load

    async def load(self, every_seconds: float = 1.0) -> None:
        """Scale the services up and down, so that there is always something to decide and to write."""
        count = 0
        while True:
            count += 1
            name = f"chat-{count % SERVICES}"
            with contextlib.suppress(StoreError):
                await self.store.put_scale(
                    MODEL_SERVICE, name, WORK, replicas=1 + count // SERVICES % 3, field_manager="user"
                )
            await asyncio.sleep(every_seconds)

    def begin_load(self) -> None:
        """Load from now on."""
        self._loading = asyncio.create_task(self.load())

    async def end_load(self) -> None:
        """No more."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    async def open(self, nodes: int) -> None:
        """Objects, nodes, agents; the first operator must run, or agents find nobody."""
        await self.service.start()
        ring = Keyring(self.folder / "pki", WallClock())
        spec = uniform_fleet(nodes, gpu=GPU_SPECS["L4"], gpus=4, seed=1, start=QUICK_START)
        self.fleet = Fleet(
            spec,
            self.store,
            WallClock(),
            ring.authority(),
            hub=HubAddress(self.service.endpoint, HUB),
            real_time=True,
        )
        watts = str(sum(node.server().max_watts for node in spec.nodes) + 1000)
        names = ", ".join(node.name for node in spec.nodes)
        text = MANIFESTS.replace("WATTS", watts).replace("NODES", names)
        classes = (ROOT / "examples" / "minimal" / "service.yaml").read_text().split("---")[0]
        services = [SERVICE.replace("NAME", f"chat-{index}") for index in range(SERVICES)]
        manifests, problems = parse("---".join([classes, text, *services]))
        if problems:
            raise BenchmarkError("; ".join(str(each) for each in problems))
        await apply(self.store, manifests, field_manager="user")

    async def join(self) -> None:
        """Nodes register and agents connect."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                await self.fleet.start()
                break
            except (LinkError, StoreError) as error:
                if time.monotonic() > until:
                    raise BenchmarkError(f"The nodes cannot join: {error}") from error
                await asyncio.sleep(0.5)
        for node in self.fleet.nodes.values():
            if node.agent is not None:
                witness = Witness(node.name, self.accepted.append)
                witness.raise_epoch(node.agent.highest_epoch)
                node.agent._actuator.ledger = witness
        self._running.append(asyncio.create_task(self.fleet.run(self._stop)))

    async def close(self) -> None:
        """End all, in order."""
        self._stop.set()
        await self.end_load()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for operator in self.operators.values():
            operator.signal(signal.SIGCONT)
            await operator.kill()
        if hasattr(self, "fleet"):
            await self.fleet.stop()
        await self.service.stop()

    # ---------------------------------------------------------------------------------------- what was written

    def writes(self) -> list[Write]:
        """Successful writes of the operators by the audit log, oldest first; none where the log is not kept."""
        return writes(self.folder)


@asynccontextmanager
async def arena(
    folder: Path, plane: ControlPlane, *, nodes: int = 6, lease: dict[str, float] | None = None
) -> AsyncIterator[Arena]:
    """Both operators, the nodes and the load, on a control plane that nobody else uses. Ends what it began."""
    prepare(plane, folder)
    store = await KubeStore.connect(plane.kubeconfig, seed=1)
    made = Arena(folder, plane, store, lease or {})
    try:
        await made.open(nodes)
        for name in NAMES:
            await made.start_operator(name)
        await made.join()
        yield made
    finally:
        await made.close()
        await store.close()


def prepare(plane: ControlPlane, folder: Path) -> None:
    """Definitions, namespaces, the operators' pods, certificates."""
    plane.kubectl("apply", "--server-side", "-f", str(ROOT / "helm" / "plimsoll" / "files" / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    for space in (SPACE, WORK):
        plane.create_namespace(space)
    # Each operator is a user of its own with exactly the operator's rights.
    plane.kubectl("apply", "-f", str(ROOT / "helm" / "plimsoll" / "files" / "rbac" / "operator.yaml"))
    users = [f"--user={name}" for name in NAMES]
    for kind, role in (("clusterrolebinding", "--clusterrole"), ("rolebinding", "--role")):
        plane.kubectl(
            "create", kind, "operators", f"{role}=plimsoll-operator", f"--namespace={SPACE}", *users
        )
    for name in NAMES:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": SPACE},
            "spec": {
                "schedulingGates": [{"name": "plimsoll.dev/runs-outside"}],
                "containers": [{"name": "operator", "image": "plimsoll/operator"}],
            },
        }
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    ring = Keyring(folder / "pki", WallClock())
    ring.create()
    ring.issue(HUB)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

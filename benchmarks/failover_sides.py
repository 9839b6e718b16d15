"""A cluster with two operator processes, for `failover` and for the tests of leadership on a real control plane.

Real: control plane, operator processes (each with its own user, so that the audit log tells whose a write was), agents
over mutual TLS, Lease, marks on the operators' pods. Modelled: the nodes. The hub's Service is a small forwarder here
that sends each new connection to the pod with the leader's mark, as a Service with that selector does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from agent.node.commands import CommandLedger, Stamp
from agent.node.drivers.base import Code, Outcome
from agent.node.link import LinkError
from benchmarks.base import BenchmarkError
from console.controlplane import Component, ControlPlane
from controller.leadership.lease import LEASE_NAME, Record, read
from controller.leadership.mark import LEADER, POD_NAME, POD_NAMESPACE
from controller.resources.core import LEASE, POD
from controller.resources.kinds import MODEL_SERVICE
from controller.resources.manifests import apply, parse
from controller.store.errors import NotFound, StoreError
from controller.store.kube import KubeStore
from runtime.authority import Identity, Role
from runtime.clock import WallClock
from runtime.keyring import Keyring
from simulator.fleet.fleet import Fleet
from simulator.fleet.node import HubAddress
from simulator.fleet.specs import StartProfile, uniform_fleet
from simulator.physics.catalogue import GPU_SPECS
from simulator.physics.loading import WeightTier

ROOT = Path(__file__).resolve().parents[1]
SPACE = "plimsoll-system"
WORK = "shop"
HUB = Identity(Role.OPERATOR, "hub")
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 90.0
AUDIT = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: None, verbs: [get, list, watch]}
  - {level: Request, users: [USERS]}
  - {level: None}
"""
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


class Accepted(msgspec.Struct, frozen=True):
    """A command that an agent carried out. `at_seconds` is wall time, UTC."""

    at_seconds: float
    node: str
    epoch: int


class Write(msgspec.Struct, frozen=True):
    """A mutating request that the API server carried out, by the audit log. `at_seconds` is wall time, UTC.

    `epoch` is the one written on a Lease, else 0.
    """

    at_seconds: float
    user: str
    verb: str
    resource: str
    name: str
    code: int
    epoch: int = 0


class Witness(CommandLedger):
    """An agent's book of commands that also tells which were carried out."""

    __slots__ = ("_node", "_tell")

    def __init__(self, node: str, tell: Callable[[Accepted], None]) -> None:
        super().__init__()
        self._node = node
        self._tell = tell

    def record(self, stamp: Stamp, outcome: Outcome) -> Outcome:
        """As the agent's own."""
        if outcome.code is Code.DONE:
            self._tell(Accepted(time.time(), self._node, stamp.epoch))
        return super().record(stamp, outcome)


class OperatorProcess:
    """One `plimsoll operator --store kube` with a user, a pod and a port of its own."""

    def __init__(self, name: str, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self.log = log
        self.ready: dict[str, Any] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, words: list[str]) -> None:
        """Start it and wait until it stands by or leads. Raises: BenchmarkError with the end of its log."""
        environment = {**os.environ, POD_NAME: self.name, POD_NAMESPACE: SPACE}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "console.main", "operator", "--port", str(self.port), *words, "-o", "json",
                stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT, env=environment, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                line = await self._process.stdout.readline()
            self.ready = json.loads(line)
        except (TimeoutError, ValueError) as error:
            raise BenchmarkError(f"Operator {self.name} does not come up: {self.told()[-2000:]}") from error

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, by its id."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def ended(self, seconds: float = 20.0) -> int:
        """Its exit code. Raises TimeoutError when it does not end."""
        if self._process is None:
            return 0
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def kill(self) -> None:
        """Whatever is left of it."""
        self.signal(signal.SIGKILL)
        await self.ended()

    def told(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    async def page(self, path: str) -> tuple[int, str]:
        """One of its health pages: status and text; status 0 without an answer in two seconds."""
        host, _, port = str(self.ready.get("health", "http://127.0.0.1:9")).rpartition("/")[2].partition(":")
        try:
            async with asyncio.timeout(2.0):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                text = (await reader.read()).decode()
                writer.close()
        except (OSError, TimeoutError):
            return 0, ""
        head, _, body = text.partition("\r\n\r\n")
        return int(head.split()[1]), body


class LeaderService:
    """What the hub's Service does: a new connection goes to the pod with the mark, or is refused."""

    def __init__(self, store: KubeStore, ports: dict[str, int]) -> None:
        self._store = store
        self._ports = ports
        self._tasks: set[asyncio.Task[None]] = set()
        self.leader = ""
        """Name of the pod with the mark."""
        self.endpoint = ""

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.endpoint = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._tasks.add(asyncio.create_task(self._follow()))

    async def stop(self) -> None:
        """Close everything."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                marked = (await self._store.list(POD, SPACE, label_selector=f"{LEADER}=true")).items
                self.leader = str(marked[0]["metadata"]["name"]) if len(marked) == 1 else ""
            await asyncio.sleep(POLL_SECONDS)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            port = self._ports.get(self.leader)
            if port is None:
                return
            onward = await asyncio.open_connection("127.0.0.1", port)
            ways = [
                asyncio.create_task(_pour(reader, onward[1])),
                asyncio.create_task(_pour(onward[0], writer)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            onward[1].close()
        except OSError:
            return
        finally:
            writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


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
        self._kubeconfigs = {name: plane.kubeconfig_for(name, ["system:masters"]) for name in NAMES}
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
        path = audit_log(self.folder)
        lines = path.read_text().splitlines() if path.exists() else []
        found = [_write(json.loads(line)) for line in lines if line.endswith("}")]
        return sorted((each for each in found if each.code < 300), key=lambda each: each.at_seconds)


NAMES = ("operator-a", "operator-b")
SERVICES = 3


def audit_log(folder: Path) -> Path:
    """Where the API server writes who wrote what."""
    return folder / "audit.log"


def audited(folder: Path) -> dict[str, list[str]]:
    """Extra flags of a control plane whose audit log `Arena.writes` reads."""
    policy = folder / "audit.yaml"
    policy.write_text(AUDIT.replace("USERS", ", ".join(NAMES)))
    return {
        Component.API_SERVER: [f"--audit-policy-file={policy}", f"--audit-log-path={audit_log(folder)}"],
    }


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


def _write(line: dict[str, Any]) -> Write:
    about = line.get("objectRef") or {}
    name = about.get("name") or ((line.get("requestObject") or {}).get("metadata") or {}).get("name", "")
    sub = f"/{about['subresource']}" if about.get("subresource") else ""
    stamp = msgspec.convert(line["stageTimestamp"], type=datetime)
    return Write(
        at_seconds=stamp.timestamp(),
        user=str(line["user"]["username"]),
        verb=str(line["verb"]),
        resource=f"{about.get('resource', '')}{sub}",
        name=f"{about.get('namespace', '')}/{name}",
        code=int((line.get("responseStatus") or {}).get("code", 0)),
        epoch=read(line.get("requestObject") or {}).epoch,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

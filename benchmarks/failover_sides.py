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
import sys
import time
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from agent.node.commands import CommandLedger, Stamp
from agent.node.drivers.base import Code, Outcome
from benchmarks.base import BenchmarkError
from console.controlplane import Component
from controller.leadership.lease import read
from controller.leadership.mark import LEADER, POD_NAME, POD_NAMESPACE
from controller.resources.core import POD
from controller.store.errors import StoreError
from controller.store.kube import KubeStore

ROOT = Path(__file__).resolve().parents[1]
SPACE = "plimsoll-system"
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
NAMES = ("operator-a", "operator-b")


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


def writes(folder: Path) -> list[Write]:
    """Successful writes of the operators by the audit log, oldest first; none where the log is not kept."""
    path = audit_log(folder)
    lines = path.read_text().splitlines() if path.exists() else []
    found = [_write(json.loads(line)) for line in lines if line.endswith("}")]
    return sorted(
        (each for each in found if each.code < HTTPStatus.MULTIPLE_CHOICES), key=lambda e: e.at_seconds
    )


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

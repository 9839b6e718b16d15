"""A real control plane on loopback: started, broken on purpose, and stopped without a trace.

    with ControlPlane() as plane:
        plane.kubectl("get", "namespaces")

Every call blocks; in an event loop use `async with`, and `asyncio.to_thread(plane.restart, ...)` for the rest.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from console.controlplane import binaries as finding
from console.controlplane.ask import Answer, Door, Unreachable
from console.controlplane.binaries import Binaries
from console.controlplane.certificates import Pair, Pki
from console.controlplane.components import READY_PATHS, Component, Site, arguments
from console.controlplane.errors import ControlPlaneError
from console.controlplane.processes import Group, Port, end, resident_bytes, state, tail
from runtime.clock import Clock, WallClock

READY_SECONDS = 90.0
"""How long a component may take to come up: a few seconds on a calm machine."""
POLL_SECONDS = 0.015
KUBECTL_SECONDS = 120.0
ETCD_SECONDS = 60.0
CLIENTS = {
    Component.CONTROLLER_MANAGER: "controller_manager",
    Component.SCHEDULER: "scheduler",
}


class ControlPlane:
    """etcd, API server, controller manager and scheduler as processes of this one.

    `extra` adds flags to a component. `logs` is a folder for the components' logs that outlives the control plane;
    without it they go with the rest.
    """

    def __init__(
        self,
        binaries: Binaries | None = None,
        *,
        extra: Mapping[str, Sequence[str]] | None = None,
        logs: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Nothing is started or written before `start`. Raises: ControlPlaneError when there are no binaries."""
        self.binaries = binaries or finding.find()
        self._extra = {Component(name): list(flags) for name, flags in (extra or {}).items()}
        self._clock = clock or WallClock()
        self._kept_logs = logs
        self._processes: dict[Component, subprocess.Popen[bytes]] = {}
        self._ports: dict[Component, Port] = {}
        self._group: Group | None = None
        self._site: Site | None = None
        self._doors: dict[Component, Door] = {}
        self.boot_seconds = 0.0
        """How long the last `start` took."""

    # ------------------------------------------------------------------------------------------ start and stop

    def start(self) -> Self:
        """Starts all four and returns when they work. Raises: ControlPlaneError with the end of a log."""
        if self._group is not None:
            raise ControlPlaneError("This control plane runs already; stop it first, or make another.")
        began = self._clock.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="plimsoll-control-plane-"))
        self._group = Group(folder)
        try:
            self._settle(folder)
            for component in Component:
                self.spawn(component)
                if component in {Component.ETCD, Component.API_SERVER}:
                    self.wait_ready(component)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        self.boot_seconds = self._clock.monotonic() - began
        return self

    def stop(self) -> None:
        """Ends scheduler, controller manager, API server and etcd, in this order and by pid. Idempotent."""
        for component in reversed(Component):
            if process := self._processes.pop(component, None):
                end(process)
        if self._group is not None:
            self._group.close()
            self._group = None
        for port in self._ports.values():
            port.release()
        self._ports.clear()
        self._doors.clear()
        self._site = None

    def __enter__(self) -> Self:
        """Starts."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Starts, in a thread."""
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        """Stops, in a thread."""
        await asyncio.to_thread(self.stop)

    def _settle(self, folder: Path) -> None:
        """Ports, certificates and kubeconfigs of a control plane in this folder."""
        pki = Pki(folder / "pki", self._clock)
        self._ports = {component: Port() for component in Component}
        server = f"https://127.0.0.1:{self._ports[Component.API_SERVER].number}"
        pki.kubeconfig("admin", server, pki.admin)
        self._site = Site(
            folder=folder,
            pki=pki,
            ports={component: port.number for component, port in self._ports.items()},
            kubeconfigs={
                component: pki.kubeconfig(str(component), server, getattr(pki, name))
                for component, name in CLIENTS.items()
            },
        )
        for component in Component:
            root, user = (
                (pki.etcd, pki.etcd_client) if component is Component.ETCD else (pki.cluster, pki.admin)
            )
            self._doors[component] = Door(self._site.ports[component], root.files.certificate, user)
        self._logs.mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------------------------------------ what it offers

    @property
    def site(self) -> Site:
        """Folder, ports and certificates. Raises: ControlPlaneError when it does not run."""
        if self._site is None:
            raise ControlPlaneError("This control plane does not run: start it first.")
        return self._site

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return self.site.url(Component.API_SERVER)

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of an administrator (group system:masters)."""
        return self.site.pki.cluster.files.certificate.with_name("admin.kubeconfig")

    @property
    def authority(self) -> Path:
        """The certificate that the API server's must come from."""
        return self.site.pki.cluster.files.certificate

    @property
    def admin(self) -> Pair:
        """The administrator's certificate and key."""
        return self.site.pki.admin

    @property
    def api(self) -> Door:
        """Plain requests to the API server as the administrator."""
        _ = self.site
        return self._doors[Component.API_SERVER]

    @property
    def pids(self) -> dict[Component, int]:
        """Processes that were started and not ended by us."""
        return {component: process.pid for component, process in self._processes.items()}

    @property
    def resident_bytes(self) -> int:
        """Memory that the four hold together."""
        return sum(resident_bytes(pid) for pid in self.pids.values())

    @property
    def _logs(self) -> Path:
        return self._kept_logs or self.site.folder / "logs"

    def log(self, component: Component | str) -> Path:
        """The log of a component; it goes on when the component is started again."""
        return self._logs / f"{Component(component)}.log"

    def kubeconfig_for(self, user: str, groups: Sequence[str] = (), namespace: str = "default") -> Path:
        """A kubeconfig by which the API server knows `user` as a member of `groups`, with no rights but theirs."""
        file = "user-" + "".join(letter if letter.isalnum() else "-" for letter in user)
        pair = self.site.pki.cluster.client(file, user, groups)
        return self.site.pki.kubeconfig(file, self.server, pair, namespace)

    def kubectl(
        self, *words: str, stdin: str | None = None, kubeconfig: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator, or as another kubeconfig's user.

        Raises: ControlPlaneError with what it said when it fails and `check` is set.
        """
        told = subprocess.run(
            [str(self.binaries.path("kubectl")), *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env={**os.environ, **self.environment(kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
            timeout=KUBECTL_SECONDS,
        )
        if check and told.returncode:
            raise ControlPlaneError(
                f"kubectl {' '.join(words)} ended with {told.returncode}: {told.stderr.strip()[-2000:]}"
            )
        return told

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """Variables by which kubectl and helm find this control plane and write nowhere else."""
        return {
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "KUBECACHEDIR": str(self.site.folder / "kubectl"),
        }

    # ------------------------------------------------------------------------------------------------- readiness

    def wait_ready(self, *components: Component | str, seconds: float = READY_SECONDS) -> None:
        """Returns when the components (all, if none is named) work, and a namespace can be used.

        Raises: ControlPlaneError with the end of the log of one that ended, or does not come up in time.
        """
        deadline = self._clock.monotonic() + seconds
        for component in map(Component, components or tuple(Component)):
            self._until(partial(self._ready, component), component, deadline)
        if not components:
            self._until(lambda: self._has_account("default"), Component.CONTROLLER_MANAGER, deadline)

    def ready(self) -> bool:
        """Whether all four work now."""
        return all(self._ready(component) for component in Component)

    def died(self) -> str:
        """Which component has ended by itself, with the end of its log; empty while all run."""
        for component, process in self._processes.items():
            if (code := process.poll()) is not None:
                return str(self._failed(component, f"ended with {code}"))
        return ""

    def _until(self, holds: Callable[[], bool], component: Component, deadline: float) -> None:
        while not holds():
            process = self._processes.get(component)
            if process is None:
                raise ControlPlaneError(f"{component} is not running: start it first.")
            if (code := process.poll()) is not None:
                raise self._failed(component, f"ended with {code} before it was ready")
            if self._clock.monotonic() > deadline:
                raise self._failed(component, "is not ready in time")
            time.sleep(POLL_SECONDS)

    def _failed(self, component: Component, how: str) -> ControlPlaneError:
        log = self.log(component)
        return ControlPlaneError(f"{component} {how}. The end of its log ({log}):\n{tail(log)}")

    def _ready(self, component: Component) -> bool:
        try:
            self._doors[component].ask("GET", READY_PATHS[component], timeout_seconds=5.0)
        except (Answer, Unreachable):
            return False
        return True

    def _has_account(self, namespace: str) -> bool:
        """Whether pods can be created there: the service account `default`, and the roots that pods mount."""
        path = f"/api/v1/namespaces/{namespace}"
        try:
            self.api.ask("GET", f"{path}/serviceaccounts/default")
            self.api.ask("GET", f"{path}/configmaps/kube-root-ca.crt")
        except (Answer, Unreachable):
            return False
        return True

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """A namespace in which pods can be created at once. Raises: `ask.Answer` when it exists already."""
        body = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": dict(labels or {})},
        }
        self.api.ask("POST", "/api/v1/namespaces", body)
        deadline = self._clock.monotonic() + READY_SECONDS
        self._until(lambda: self._has_account(name), Component.CONTROLLER_MANAGER, deadline)

    # ------------------------------------------------------------------------------------------ faults on purpose

    def spawn(self, component: Component | str) -> int:
        """Starts one component without waiting for it; its pid. Raises: ControlPlaneError when it runs."""
        which = Component(component)
        running = self._processes.get(which)
        if self._group is None or (running is not None and running.poll() is None):
            raise ControlPlaneError(
                f"{which} runs already, or its control plane does not: nothing was started."
            )
        command = [str(self.binaries.path(which)), *arguments(which, self.site), *self._extra.get(which, [])]
        self._processes[which] = self._group.spawn(command, self.log(which))
        return self._processes[which].pid

    def kill(self, component: Component | str) -> None:
        """SIGKILL; returns when the process has ended."""
        process = self._process(component)
        process.kill()
        process.wait()

    def restart(self, component: Component | str, *, gently: bool = False) -> None:
        """Ends one component, by SIGKILL or `gently` by SIGTERM, starts it again and waits until it works."""
        if gently:
            end(self._process(component))
        else:
            self.kill(component)
        self.spawn(component)
        self.wait_ready(component)

    def pause(self, component: Component | str) -> None:
        """SIGSTOP: its connections stay open, and nobody answers."""
        self._process(component).send_signal(signal.SIGSTOP)

    def resume(self, component: Component | str) -> None:
        """SIGCONT."""
        self._process(component).send_signal(signal.SIGCONT)

    def mend(self) -> list[Component]:
        """Continues what is paused, starts what has ended, waits until all work; those that were broken."""
        broken = [component for component, process in self._processes.items() if not _runs(process)]
        for component in Component:
            if component in broken and self._process_ended(component):
                self.spawn(component)
            elif component in broken:
                self.resume(component)
        self.wait_ready()
        return broken

    def compact(self) -> int:
        """Makes etcd forget every revision but the newest, which is returned.

        The API server's watch cache still knows the newest events of each resource: a watch from an older revision
        gets 410 only when the cache does not reach back that far, so restart the API server to see one surely.
        """
        door = self._doors[Component.ETCD]
        status = door.ask("POST", "/v3/maintenance/status", {}, timeout_seconds=ETCD_SECONDS)
        revision = int(status["header"]["revision"])
        door.ask(
            "POST",
            "/v3/kv/compaction",
            {"revision": str(revision), "physical": True},
            timeout_seconds=ETCD_SECONDS,
        )
        return revision

    def _process_ended(self, component: Component) -> bool:
        return self._processes[component].poll() is not None

    def _process(self, component: Component | str) -> subprocess.Popen[bytes]:
        process = self._processes.get(Component(component))
        if process is None or process.poll() is not None:
            raise ControlPlaneError(f"{Component(component)} does not run: start it first.")
        return process


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has neither ended nor been stopped."""
    return process.poll() is None and state(process.pid) not in {"T", "t", ""}

"""The four processes of a control plane: started, watched until they work, broken on purpose, mended, ended."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from console.controlplane.ask import Answer, Door, Unreachable
from console.controlplane.binaries import Binaries
from console.controlplane.certificates import Pki
from console.controlplane.components import READY_PATHS, Component, Site, arguments
from console.controlplane.errors import ControlPlaneError
from console.controlplane.processes import Group, Port, end, resident_bytes, state, tail
from runtime.clock import Clock

READY_SECONDS = 90.0
"""How long a component may take to come up: a few seconds on a calm machine."""
POLL_SECONDS = 0.015
CLIENTS = {
    Component.CONTROLLER_MANAGER: "controller_manager",
    Component.SCHEDULER: "scheduler",
}


class Processes:
    """etcd, API server, controller manager and scheduler as processes that end with this one."""

    def __init__(
        self, binaries: Binaries, extra: Mapping[str, Sequence[str]], logs: Path | None, clock: Clock
    ) -> None:
        self.binaries = binaries
        self._extra = {Component(name): list(flags) for name, flags in extra.items()}
        self._clock = clock
        self._kept_logs = logs
        self._processes: dict[Component, subprocess.Popen[bytes]] = {}
        self._ports: dict[Component, Port] = {}
        self._group: Group | None = None
        self._site: Site | None = None
        self._doors: dict[Component, Door] = {}

    # ------------------------------------------------------------------------------------------ all of them

    def _start(self) -> None:
        """Starts all four and returns when they work; nothing is left when it raises ControlPlaneError."""
        if self._group is not None:
            raise ControlPlaneError("This control plane runs already; stop it first, or make another.")
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

    def _settle(self, folder: Path) -> None:
        """Ports, certificates and kubeconfigs of a control plane in this folder."""
        pki = Pki(folder / "pki", self._clock)
        for component in Component:
            self._ports[component] = Port()
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

    @property
    def site(self) -> Site:
        """Folder, ports and certificates. Raises: ControlPlaneError when it does not run."""
        if self._site is None:
            raise ControlPlaneError("This control plane does not run: start it first.")
        return self._site

    @property
    def pids(self) -> dict[Component, int]:
        """Processes that were started and not ended by `stop`."""
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

    # ------------------------------------------------------------------------------------------ readiness

    def wait_ready(self, *components: Component | str, seconds: float = READY_SECONDS) -> None:
        """Returns when the components named work; all four, and the first service account, when none is.

        Raises: ControlPlaneError with the end of the log of one that ended, or does not come up in time.
        """
        deadline = self._clock.monotonic() + seconds
        for component in map(Component, components or tuple(Component)):
            self._until(partial(self._ready, component), component, deadline)
        if not components:
            self._until(partial(self._takes_pods, "default"), Component.CONTROLLER_MANAGER, deadline)

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

    def _takes_pods(self, namespace: str) -> bool:
        """Whether pods can be created there: the service account `default`, and the roots that pods mount."""
        door = self._doors[Component.API_SERVER]
        try:
            door.ask("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
            door.ask("GET", f"/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt")
        except (Answer, Unreachable):
            return False
        return True

    # ------------------------------------------------------------------------------------------ one of them

    def spawn(self, component: Component | str) -> int:
        """Starts one component without waiting for it; its pid. Raises: ControlPlaneError when it runs."""
        which = Component(component)
        running = self._processes.get(which)
        if self._group is None or (running is not None and running.poll() is None):
            raise ControlPlaneError(
                f"{which} runs already, or its control plane does not: nothing was started."
            )
        command = [
            str(self.binaries.path(which)),
            *arguments(which, self.site),
            *self._extra.get(which, []),
        ]
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
        broken = []
        for component in Component:
            process = self._processes.get(component)
            if process is None or process.poll() is not None:
                broken.append(component)
                self.spawn(component)
            elif state(process.pid) in {"T", "t"}:
                broken.append(component)
                self.resume(component)
        self.wait_ready()
        return broken

    def _process(self, component: Component | str) -> subprocess.Popen[bytes]:
        process = self._processes.get(Component(component))
        if process is None or process.poll() is not None:
            raise ControlPlaneError(f"{Component(component)} does not run: start it first.")
        return process

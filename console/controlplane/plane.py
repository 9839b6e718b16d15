"""A real control plane on loopback: started, used, broken on purpose, and stopped without a trace.

    with ControlPlane() as plane:
        plane.kubectl("get", "namespaces")

Every call blocks; in an event loop use `async with`, and `asyncio.to_thread(plane.restart, ...)` for the rest.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from console.controlplane import binaries as finding
from console.controlplane.ask import Door
from console.controlplane.binaries import Binaries
from console.controlplane.certificates import Pair
from console.controlplane.components import Component
from console.controlplane.errors import ControlPlaneError
from console.controlplane.running import READY_SECONDS, Processes
from runtime.clock import Clock, WallClock

KUBECTL_SECONDS = 120.0
ETCD_SECONDS = 60.0


class ControlPlane(Processes):
    """etcd, API server, controller manager and scheduler of one cluster, and an administrator's ways into it.

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
        super().__init__(binaries or finding.find(), extra or {}, logs, clock or WallClock())
        self.boot_seconds = 0.0
        """How long the last `start` took."""

    def start(self) -> Self:
        """Starts all four and returns when they work. Raises: ControlPlaneError with the end of a log."""
        began = self._clock.monotonic()
        self._start()
        self.boot_seconds = self._clock.monotonic() - began
        return self

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

    # ------------------------------------------------------------------------------------------ ways in

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return self.site.url(Component.API_SERVER)

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of an administrator (group system:masters)."""
        return self.authority.with_name("admin.kubeconfig")

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

    def kubeconfig_for(self, user: str, groups: Sequence[str] = (), namespace: str = "default") -> Path:
        """A kubeconfig by which the API server knows `user` as a member of `groups`, with no rights but theirs."""
        file = "user-" + "".join(letter if letter.isalnum() else "-" for letter in user)
        pair = self.site.pki.cluster.client(file, user, groups)
        return self.site.pki.kubeconfig(file, self.server, pair, namespace)

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """Variables by which kubectl and helm find this control plane and write nowhere else."""
        return {
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "KUBECACHEDIR": str(self.site.folder / "kubectl"),
        }

    def kubectl(
        self, *words: str, stdin: str | None = None, kubeconfig: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator, or as another kubeconfig's user.

        Raises: ControlPlaneError with what it said when it fails and `check` is set.
        """
        told = subprocess.run(
            [str(self.binaries.path("kubectl")), *words],
            input=stdin or "",
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

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """A namespace in which pods can be created at once. Raises: `ask.Answer` when it exists already."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.api.ask(
            "POST",
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
        )
        deadline = self._clock.monotonic() + READY_SECONDS
        self._until(partial(self._takes_pods, name), Component.CONTROLLER_MANAGER, deadline)

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

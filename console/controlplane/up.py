"""A control plane that stays up until it is told to stop: `make cluster`."""

from __future__ import annotations

import asyncio

from console.controlplane.plane import ControlPlane
from console.process import Talk, pause, run_process
from console.telling import Refused

LOOK_SECONDS = 0.5
MIB = 2**20


def run_up(talk: Talk) -> int:
    """Runs one until SIGINT or SIGTERM; exit code 2 with a sentence when it cannot start or a component dies."""

    async def serve(stop: asyncio.Event) -> None:
        plane = ControlPlane()
        async with plane:
            talk.ready(
                "control plane",
                seconds=f"{plane.boot_seconds:.1f}",
                memory=f"{plane.resident_bytes / MIB:.0f} MiB",
                server=plane.server,
                KUBECONFIG=str(plane.kubeconfig),
                kubectl=str(plane.binaries.path("kubectl")),
            )
            while not await pause(stop, LOOK_SECONDS):
                if died := plane.died():
                    raise Refused(died)

    return run_process(serve, talk)

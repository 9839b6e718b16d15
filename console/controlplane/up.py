"""A control plane that stays up until it is told to stop, with custom resources and a simulated fleet: `make cluster`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agent.node.link import LinkError
from console.commands.fleet import FleetOptions, fleet_spec
from console.controlplane.binaries import ROOT
from console.controlplane.plane import ControlPlane
from console.process import Talk, run_process
from console.telling import Refused, host_and_port
from controller.config import OperatorConfig
from controller.store.kube import KubeStore
from runtime.authority import Authority
from runtime.clock import WallClock
from runtime.keyring import Keyring
from runtime.pausing import pause
from simulator.fleet.enrolment import AgentAccount, AgentPods, Enrolments
from simulator.fleet.fleet import Fleet
from simulator.fleet.node import HubAddress

log = logging.getLogger("plimsoll.cluster")

LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 2.0
MIB = 2**20
CRDS = ROOT / "helm" / "plimsoll" / "files" / "crds"
"""Written by `make crds`."""


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster is to have. `nodes`: `demo`, or how many alike; `0`: none.

    `operator`: where the nodes' agents find one, under certificates of the authority in `pki`; without that folder the
    nodes have kubelets and no agents. `enrol`: where the agents get certificates for the tokens of their pods instead.
    """

    operator: str
    pki: Path
    enrol: str = ""
    nodes: str = "demo"
    gpu: str = "H100"
    gpus: int = 8
    seed: int = 1
    start_seconds: float = 0.0

    def fleet(self) -> FleetOptions | None:
        """The fleet's part; None without one."""
        if self.nodes == "0":
            return None
        return FleetOptions(
            operator=self.operator,
            pki=self.pki,
            nodes=self.nodes,
            gpu=self.gpu,
            gpus=self.gpus,
            seed=self.seed,
            start_seconds=self.start_seconds,
        )

    def hub(self) -> HubAddress | None:
        """Where the agents dial. Raises: Refused for an address that is none."""
        if not (self.pki / "authority" / "authority.key").is_file():
            return None
        host_and_port(self.operator, "--operator")
        return HubAddress(endpoint=self.operator)


def run_up(options: UpOptions, talk: Talk) -> int:
    """Runs one until SIGINT or SIGTERM; exit code 2 with a sentence when it cannot start or a component dies."""

    async def serve(stop: asyncio.Event) -> None:
        asked = options.fleet()
        spec = fleet_spec(asked) if asked else None
        async with ControlPlane() as plane:
            await asyncio.to_thread(furnish, plane)
            async with _fleet(plane, options) as running:
                talk.ready(
                    "cluster",
                    nodes=len(spec.nodes) if spec else 0,
                    agents=f"dial {options.operator}" if options.hub() else "none",
                    seconds=f"{plane.boot_seconds:.1f}",
                    memory=f"{plane.resident_bytes / MIB:.0f} MiB",
                    server=plane.server,
                    KUBECONFIG=str(plane.kubeconfig),
                    kubectl=str(plane.binaries.path("kubectl")),
                )
                await _watch_over(plane, running, stop)

    return run_process(serve, talk)


def furnish(plane: ControlPlane) -> None:
    """What the chart would bring: our kinds, served, and the operator's namespace. Raises: ControlPlaneError."""
    plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS))
    plane.create_namespace(OperatorConfig().namespace)


@asynccontextmanager
async def _fleet(plane: ControlPlane, options: UpOptions) -> AsyncIterator[asyncio.Task[None] | None]:
    """Simulated nodes on the API server. Their agents dial the operator until it is there, and whenever it is back."""
    asked = options.fleet()
    if asked is None:
        yield None
        return
    clock = WallClock()
    store = await KubeStore.connect(plane.kubeconfig, clock=clock, seed=options.seed, agent="plimsoll-fleet")
    hub = options.hub()
    authority = Keyring(options.pki, clock).authority() if hub else Authority.create(clock)
    enrolments = await _enrolments(store, plane, options, clock) if hub and options.enrol else None
    spec = fleet_spec(asked)
    fleet = Fleet(
        spec, store, clock, authority, hub=hub, real_time=True, enrolments=enrolments, tells_holders=True
    )
    ended = asyncio.Event()
    try:
        try:
            await fleet.start()
        except LinkError as error:  # by now the nodes are registered
            log.info("the agents wait for an operator: %s", error)
        living = asyncio.create_task(fleet.run(ended))
        try:
            yield living
        finally:
            ended.set()
            await asyncio.gather(living, return_exceptions=True)
    finally:
        await fleet.stop()
        await store.close()


async def _enrolments(
    store: KubeStore, plane: ControlPlane, options: UpOptions, clock: WallClock
) -> Enrolments:
    """Agents' pods and their tokens, on this control plane. They are not waited for: an operator comes later."""
    host_and_port(options.enrol, "--enrol")
    folder = plane.site.folder / "tokens"
    pods = AgentPods(store.transport.access.client, AgentAccount(), folder, clock)
    roots = options.pki / "authority" / "authority.pem"
    return Enrolments(pods, options.enrol, roots, clock, random.uniform, patience_seconds=PATIENCE_SECONDS)


async def _watch_over(plane: ControlPlane, fleet: asyncio.Task[None] | None, stop: asyncio.Event) -> None:
    """Returns when told to stop. Raises: Refused when a component died, or what ended the fleet."""
    while not await pause(stop, LOOK_SECONDS):
        if died := plane.died():
            raise Refused(died)
        if fleet is not None and fleet.done():
            await fleet
            raise Refused("The fleet ended by itself: see its log above.")

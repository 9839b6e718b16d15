"""One simulated node: machine, kubelet, agent and engines' server, and how it dies and comes back.

The agent is the production daemon over the simulated driver, the server the production one; both speak mutual TLS
under the node's own certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

import msgspec

from agent.engine.host import EngineHost
from agent.engine.server import EngineServer, EnginesService
from agent.node.daemon import HUB, Agent, AgentConfig
from agent.node.drivers.base import GangState, ReplicaState
from agent.node.drivers.simulated import SimulatedDriver
from cluster.seeds import stable_hash
from controller.store.interface import Store
from runtime.authority import DAY_SECONDS, Authority, Credentials, Identity, Role
from runtime.clock import Clock
from runtime.tls import Source
from simulator.fleet.cloud import Registration
from simulator.fleet.gangs import GangBook
from simulator.fleet.holding import Holding
from simulator.fleet.index import PodIndex
from simulator.fleet.kubelet import Kubelet
from simulator.fleet.machine import Machine
from simulator.fleet.pantry import Pantry
from simulator.fleet.specs import FleetSpec, NodeSpec
from simulator.physics.failures import Failure, FailureKind

CERTIFICATE_SECONDS = 30 * DAY_SECONDS
"""A simulated fleet lives no longer; real agents renew theirs."""


class HubAddress(msgspec.Struct, frozen=True):
    """Where agents dial, and who must answer there."""

    endpoint: str
    identity: Identity = HUB


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all nodes of a fleet share. `hub` None: no agents; `prompt_acks`: real time, answers go at once.

    `identities` gives each node's certificates by its name; None: `authority` issues them here. `tells_holders`:
    agents tell which pod has which GPU. `pantry` has the Secrets and ConfigMaps that pods need; None: none is missed.
    """

    spec: FleetSpec
    store: Store
    clock: Clock
    authority: Authority
    gangs: GangBook
    index: PodIndex
    hub: HubAddress | None = None
    prompt_acks: bool = False
    identities: Callable[[str], Source] | None = None
    tells_holders: bool = False
    pantry: Pantry | None = None


class SimulatedNode:
    """One machine of the fleet from its first boot on. All methods belong to one event loop."""

    def __init__(self, spec: NodeSpec, order: int, around: Surroundings) -> None:
        self.spec = spec
        self.name = spec.name
        self._around = around
        self.registration = Registration(around.store, spec)
        self.alive = False
        self.reachable = True
        """Whether the network lets its agent reach the hub."""
        self.cut_off = False
        """Whether nothing at all reaches it or leaves it: what runs goes on, and neither kubelet nor ranks are heard."""
        self.boots = 0
        self.renew_at_seconds = around.clock.now() + 1.0 + order % max(1, int(around.spec.lease_seconds))
        self.renewed_seconds = around.clock.now()
        """When its kubelet last renewed its lease, by the fleet's clock."""
        self._credentials: Credentials | None = None
        self._server: EngineServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._boot(around.clock.now())

    def _boot(self, now_seconds: float) -> None:
        """Everything that a power cycle makes new."""
        around = self._around
        self.boots += 1
        seed = stable_hash(around.spec.seed, self.name, self.boots)
        self.machine = Machine(self.spec, seed, now_seconds, self._rows)
        self.host = EngineHost(self.name)
        self.service = EnginesService(self.host)
        spec = around.spec
        self.kubelet = Kubelet(self.machine, self.host, around.gangs, spec.start, spec.engine, around.pantry)
        self.agent = self._agent(seed) if around.hub is not None else None
        self.alive = True

    def _rows(self, at_seconds: float) -> tuple[tuple[ReplicaState, ...], tuple[GangState, ...]]:
        return self.kubelet.rows(at_seconds)  # made after the machine that asks

    def _agent(self, seed: int) -> Agent:
        around = self._around
        hub = around.hub
        assert hub is not None  # noqa: S101 - the caller asked
        config = AgentConfig(
            node=self.name,
            endpoint=hub.endpoint,
            hub=hub.identity,
            boot_id=f"{self.name}-boot-{self.boots}",
            prompt_acks=around.prompt_acks,
        )
        draw = random.Random(seed).uniform
        driver = SimulatedDriver(self.machine)
        holding = Holding(self.name, around.index, self.machine) if around.tells_holders else lambda: None
        return Agent(config, driver, self.credentials, around.clock, draw, holding)

    def credentials(self) -> Credentials:
        """The node's own certificate, issued when first needed. Raises: AuthorityError where it has none yet."""
        if self._around.identities is not None:
            return self._around.identities(self.name)()
        if self._credentials is None:
            identity = Identity(Role.NODE, self.name)
            self._credentials = self._around.authority.issue(identity, CERTIFICATE_SECONDS)
        return self._credentials

    # -------------------------------------------------------------------------------------------- time

    def live(self, until_seconds: float) -> None:
        """Let the machine live up to then; a power lease that ends before ends at its very moment."""
        if not self.alive:
            return
        if self.agent is not None:
            self.agent.advance(until_seconds)
        self.machine.advance_to(until_seconds)

    async def report(self, now_seconds: float) -> bool:
        """The agent's tick: True when a report went to the hub."""
        if not self.alive or self.agent is None or not self.reachable:
            return False
        return await self.agent.tick(now_seconds)

    # --------------------------------------------------------------------------------------- gateways

    @property
    def open_requests(self) -> int:
        """Requests that its engines work on."""
        return self.host.open_requests if self.alive else 0

    async def endpoint(self) -> str:
        """host:port of its engines' server, which is started when first asked for."""
        if self._server is None:
            server = EngineServer(self.service, self.credentials)
            # Each handshake of proof costs some milliseconds, and all these servers are built alike.
            await server.start(prove=False)
            self._server = server
        return self._server.endpoint

    def serve_in_real_time(self) -> None:
        """Answer gateways as events happen, from now on."""
        if self._server is not None and self._serving is None:
            self._serving = asyncio.create_task(self.service.run(self._around.clock))

    # --------------------------------------------------------------------------------------- failures

    async def fail(self, failure: Failure) -> None:
        """Something breaks at `failure.at_seconds`, which the machine has lived up to.

        A crash cuts every stream and kills all that runs; the kubelet writes nothing and renews nothing. A broken GPU
        ends the pods that use it. A hang stops all that computes, while agent and kubelet go on.
        """
        if not self.alive:
            return
        self.machine.physics.fail(failure)
        if failure.kind is FailureKind.GPU_XID:
            broken = self.machine.physics.broken
            self.kubelet.broke(failure.gpu, broken[failure.gpu], failure.at_seconds)
            self.registration.offer(self.spec.gpus - len(broken))
        elif failure.kind is FailureKind.NODE_CRASH:
            self.kubelet.crash(failure.at_seconds)
            self.alive = False
            await self._cut()

    async def recover(self, now_seconds: float) -> None:
        """Power comes back: a new boot, with nothing of the old one but its objects in the store."""
        if self.alive:
            return
        self.registration.forget()
        self._boot(now_seconds)
        self.renew_at_seconds = now_seconds
        for _, pod in sorted(self._around.index.pods_on(self.name).items()):
            self.kubelet.restore(pod, now_seconds)

    async def partition(self) -> None:
        """The network between agent and hub breaks; the node itself goes on."""
        self.reachable = False
        if self.agent is not None:
            await self.agent.abandon()

    def heal(self) -> None:
        """It works again: the agent finds its way back by itself."""
        self.reachable = True

    async def stop(self, reason: str) -> None:
        """An orderly end."""
        if self.alive and self.agent is not None:
            await self.agent.close(reason)
        self.alive = False
        await self._cut()

    async def _cut(self) -> None:
        """Every connection of the node ends."""
        if self.agent is not None:
            await self.agent.abandon()
        if self._serving is not None:
            self._serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving
            self._serving = None
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

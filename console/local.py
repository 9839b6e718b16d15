"""A whole cluster on loopback in one process and in accelerated time: for the demo, and for scenario tests.

Store, operator with hub and ledger, fleet with agents and engines, gateway and a client: all the production
parts, joined by the barrier of `simulator.fleet.barrier`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from controller.acting import Listener
from controller.config import OperatorConfig
from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.leadership import LeaseSettings
from controller.ledger.ledger import Ledger
from controller.observe import labels
from controller.operator import Operator
from controller.resources.core import SERVICE
from controller.resources.kinds import MODEL_SERVICE, TRAINING_JOB
from controller.routes import RoutesServicer
from controller.store.embedded import open_store
from controller.store.heard import HeardStore
from controller.store.interface import JsonObject, Resource, Store
from gateway.assign import GatewayConfig
from gateway.client import GatewayClient, Request, Result
from gateway.messages import Window
from gateway.server import GatewayServer, ServerConfig
from policies.dispatch.choices import dispatch_policies
from runtime.authority import Authority, Identity, Role
from runtime.clock import VirtualClock, WallClock
from simulator.fleet.barrier import Conductor
from simulator.fleet.fleet import Fleet
from simulator.fleet.node import HubAddress
from simulator.fleet.scheduler import ControlPlane
from simulator.fleet.settling import Settling
from simulator.fleet.specs import FleetSpec

ORIGIN_SECONDS = 1_700_158_546.0
"""Where virtual time begins: the moment of the Azure 2023 trace's first request, in whole UTC seconds."""
GATEWAY = "gateway-0"
FLUSH_SECONDS = 60.0
"""How often (virtual time) the ledger is written out."""
HUB = Identity(Role.OPERATOR, "hub")
ALONE = LeaseSettings(lease_seconds=1e7, renew_deadline_seconds=9e6, retry_seconds=3e6)
"""Nobody else asks for the Lease of a cluster in one process: it is taken once and needs no renewal."""


class Feeder:
    """The request side of the barrier: a client that sends each window's arrivals through the real ingress."""

    def __init__(
        self,
        gateway: GatewayServer,
        routes: RoutesServicer,
        source: Callable[[float, float], Sequence[Request]],
    ) -> None:
        """`source(from, until)` gives the requests that arrive in a window."""
        self._gateway = gateway
        self._routes = routes
        self._source = source
        self._published = (0, 0)
        self.client: GatewayClient | None = None
        self.results: list[Result] = []

    def published(self, epoch: int, version: int) -> None:
        """The operator published a table: no window is decided before the gateway has it."""
        self._published = (epoch, version)

    async def routed(self, timeout_seconds: float) -> Collection[str]:
        """Wait for the newest routes."""
        epoch, version = self._published
        there = not epoch or await self._gateway.routed(epoch, version, timeout_seconds)
        return () if there else (GATEWAY,)

    async def open(
        self, tick: int, from_seconds: float, until_seconds: float, timeout_seconds: float
    ) -> Collection[str]:
        """Send the window's arrivals, and have it decided."""
        if self.client is not None:
            await self.client.send_window(
                tick, from_seconds, until_seconds, self._source(from_seconds, until_seconds)
            )
        window = Window(tick, from_seconds, until_seconds)
        await self._gateway.open_window(
            window, clients=1 if self.client else 0, timeout_seconds=timeout_seconds
        )
        return ()

    async def close(self, tick: int, timeout_seconds: float) -> Collection[str]:
        """Fold the nodes' answers; results to the client, load to the operator."""
        await self._gateway.close_window(timeout_seconds=timeout_seconds)
        if self.client is not None:
            self.results += await self.client.answer(tick, timeout_seconds)
        return await self._routes.reports_for(tick, [GATEWAY], timeout_seconds)


class PublishedRoutes(RoutesServicer):
    """The routes service that also tells the barrier what was published."""

    feeder: Feeder | None = None

    def publish(self, table: Any) -> None:
        """Publish, and let the barrier wait for it."""
        super().publish(table)
        if self.feeder is not None:
            self.feeder.published(table.epoch, table.version)


def embedded(clock: VirtualClock, seed: int) -> Store:
    """An empty store in this process."""
    return open_store(clock, seed=seed)


class LocalCluster:
    """Everything on loopback. Use as an async context manager; then `second()` by `second()`.

    `open_with` gives the store: an embedded one, or that of a real API server (then behind
    `controller.store.heard.HeardStore`; whoever opened it closes it). `wrap_store` lets a test put fault modes between the
    operator and the store; the fleet keeps the plain one.
    """

    def __init__(  # noqa: PLR0913 - all but the first have defaults
        self,
        fleet: FleetSpec,
        *,
        config: OperatorConfig | None = None,
        ledger: Path | None = None,
        source: Callable[[float, float], Sequence[Request]] | None = None,
        listener: Listener | None = None,
        open_with: Callable[[VirtualClock, int], Store] = embedded,
        wrap_store: Callable[[Store, VirtualClock], Store] | None = None,
        origin_seconds: float = ORIGIN_SECONDS,
        seed: int = 1,
    ) -> None:
        """Put the parts together; nothing listens before `start`."""
        self.clock = VirtualClock(origin_seconds)
        self.store = open_with(self.clock, seed)
        self.config = config or OperatorConfig(seed=seed)
        if self.config.lease == LeaseSettings():
            self.config = msgspec.structs.replace(self.config, lease=ALONE)
        self._identities: list[str] = []
        self.authority = Authority.create(WallClock())
        self.ledger = Ledger(str(ledger), now=self.clock.now) if ledger is not None else None
        self._operator_store = wrap_store(self.store, self.clock) if wrap_store else self.store
        self._listener = listener
        self._fleet_spec = fleet
        self._source = source or (lambda _from, _until: ())
        self._serves = source is not None
        self._flush_due = 0.0
        self.operator: Operator
        self.hub: Hub
        self.routes: PublishedRoutes
        self.fleet: Fleet
        self.gateway: GatewayServer
        self.feeder: Feeder
        self.conductor: Conductor
        self._door: HubServer

    async def __aenter__(self) -> LocalCluster:
        """Start everything."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything in order."""
        await self.stop()

    async def start(self) -> None:
        """Listen, connect agents and gateway, take the first epoch."""
        self.hub = Hub(self.clock, heartbeat_seconds=1.0)
        self.routes = PublishedRoutes(self.clock)
        operator_certificate = self.authority.issue(HUB)
        self._door = HubServer(self.hub, lambda: operator_certificate, hosted=[self.routes.hosted()])
        await self._door.start()
        await self._start_gateway()
        address = HubAddress(endpoint=self._door.endpoint, identity=HUB)
        self.fleet = Fleet(
            self._fleet_spec,
            self.store,
            self.clock,
            self.authority,
            hub=address,
            plane=self.store if isinstance(self.store, ControlPlane) else None,
            settling=self._settling(),
        )
        self.operator = self._new_operator()
        await self.operator.start()
        await self.fleet.start()
        # What exists now lives as long as the cluster: no collection need look at it again.
        gc.collect()
        gc.freeze()
        self.conductor = Conductor(self.clock, self.fleet, self, hub=self.hub, requests=self.feeder)

    def _settling(self) -> Settling | None:
        """What the fleet waits for where a real API server's controllers work in their own time."""
        if not isinstance(self.store, HeardStore):
            return None
        return Settling((MODEL_SERVICE, TRAINING_JOB), (SERVICE,), self.store.level)

    async def _start_gateway(self) -> None:
        gateway_certificate = self.authority.issue(Identity(Role.GATEWAY, GATEWAY))
        config = ServerConfig(
            gateway=GatewayConfig(name=GATEWAY), operator=self._door.endpoint, operator_name=HUB.name
        )
        self.gateway = GatewayServer(config, dispatch_policies(), lambda: gateway_certificate, self.clock)
        await self.gateway.start()
        await self.routes.present([GATEWAY], 10.0)
        self.feeder = Feeder(self.gateway, self.routes, self._source)
        self.routes.feeder = self.feeder
        if self._serves:
            client = self.authority.issue(Identity(Role.CLIENT, "trace"))
            self.feeder.client = await GatewayClient.connect(self.gateway.endpoint, GATEWAY, client)

    _operator_type: type[Operator] = Operator
    """What runs as the operator."""

    def _identity(self) -> tuple[str, tuple[str, ...]]:
        """Who the next operator is, and who surely acts no longer: those that it replaces in this process."""
        dead = tuple(self._identities)
        self._identities.append(f"{self.config.identity}-{len(dead)}")
        return self._identities[-1], dead

    def _new_operator(self) -> Operator:
        identity, dead = self._identity()
        return self._operator_type(
            self._operator_store,
            self.clock,
            self.config,
            hub=self.hub,
            routes=self.routes,
            ledger=self.ledger,
            listener=self._listener,
            identity=identity,
            dead=dead,
        )

    async def step(self) -> None:
        """The operator's part of the barrier."""
        await self.operator.step()
        if self.ledger is not None and self.clock.now() >= self._flush_due:
            self._flush_due = self.clock.now() + FLUSH_SECONDS
            self.ledger.flush()

    async def second(self) -> None:
        """One simulated second of everything. Raises `BarrierBroken` when somebody does not answer."""
        await self.conductor.step()

    async def until(self, holds: Callable[[], bool], seconds: int, what: str) -> None:
        """Run until a condition holds. Raises AssertionError naming it when `seconds` were not enough."""
        for _ in range(seconds):
            if holds():
                return
            await self.second()
        if not holds():
            raise AssertionError(f"after {seconds} simulated seconds still not: {what}")

    async def restart_operator(self) -> None:
        """The operator dies without a word, and another takes over: new epoch, caches from nothing."""
        self.operator = self._new_operator()
        await self.operator.start()

    async def apply(self, resource: Resource, obj: JsonObject) -> JsonObject:
        """Apply a manifest as a user would."""
        return await self.store.apply(resource, obj, field_manager="user", force=True)

    async def stop(self) -> None:
        """End in order: clients, gateway, fleet, operator, door, ledger."""
        if self.feeder.client is not None:
            await self.feeder.client.close()
        await self.gateway.stop()
        await self.fleet.stop()
        await self.operator.stop()
        await self._door.stop()
        if self.ledger is not None:
            self.ledger.close()


MANAGED = f"{labels.MANAGED_BY}=plimsoll"
"""Label selector of all pods the operator made."""

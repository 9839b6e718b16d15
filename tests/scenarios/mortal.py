"""A cluster on loopback whose operator dies as a process does, and another that takes over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from console.local import GATEWAY, HUB, LocalCluster, PublishedRoutes
from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.operator import Operator
from controller.store.faults import Killed
from runtime.channels import Backoff
from simulator.fleet.barrier import Conductor


class Absent:
    """No operator runs: nothing is decided, and nobody hears the gateway's reports."""

    async def step(self) -> None:
        """Nothing happens."""

    async def stop(self) -> None:
        """Nothing to end."""

    async def reports_for(self, *_: object) -> tuple[str, ...]:
        """Nobody waits for reports."""
        return ()


class _Mortal(Operator):
    """An operator that may be killed while it takes its epoch; whoever restarts it begins again."""

    reborn: Callable[[], None]

    async def start(self) -> None:
        """Take an epoch; again, on a new line, where the process dies meanwhile."""
        try:
            await super().start()
        except Killed:
            self.reborn()
            await super().start()


class MortalCluster(LocalCluster):
    """A local cluster whose operator can die as a process does: hub, routes and all streams with it."""

    reborn: Callable[[], None]

    _operator_type = _Mortal

    def _new_operator(self) -> Operator:
        made = super()._new_operator()
        assert isinstance(made, _Mortal)
        made.reborn = self.reborn
        return made

    async def start(self) -> None:
        """Start all; a gateway that lost its operator dials again at once (it waits in wall time)."""
        await super().start()
        link = self.gateway.routes
        assert link is not None
        link._backoff = Backoff(random.Random(0).uniform, 0.01, 0.02)

    async def die(self) -> None:
        """The operator's process ends: so do its port and every stream to it."""
        for reflector in self.operator.caches.reflectors.values():
            reflector.close()
        self.operator.provisioner.close()
        await self._door.stop()
        async with asyncio.timeout(10.0):
            while self.fleet.linked():  # noqa: ASYNC110 - agents learn it from their own streams
                await asyncio.sleep(0.002)
        self.operator = absent = Absent()  # type: ignore[assignment]
        self.feeder._routes = absent  # type: ignore[assignment]
        self.feeder.published(0, 0)
        self.conductor = Conductor(self.clock, self.fleet, self, requests=self.feeder)

    async def revive(self) -> None:
        """Another process on the same port: agents and gateway come back to it by themselves."""
        certificate = self.authority.issue(HUB)
        self.hub = Hub(self.clock, heartbeat_seconds=1.0)
        self.routes = PublishedRoutes(self.clock)
        port = self._door.port
        self._door = HubServer(self.hub, lambda: certificate, port=port, hosted=[self.routes.hosted()])
        await self._door.start()
        missing = await self.routes.present([GATEWAY], 10.0)
        assert not missing, "the gateway does not come back"
        self.routes.feeder = self.feeder
        self.feeder._routes = self.routes
        self.operator = self._new_operator()
        await self.operator.start()
        self.conductor = Conductor(self.clock, self.fleet, self, hub=self.hub, requests=self.feeder)

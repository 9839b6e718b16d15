"""The operator's one gRPC door: the hub, and whatever else is served on the same port under the same rules."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio
import msgspec

from controller.hub.service import ROLES, SERVICE, Hub
from runtime.authority import Role
from runtime.channels import NODE_PLANE, Limits, server_options
from runtime.doors import open_door
from runtime.tls import Guard, Source
from wire import agent_pb2_grpc

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 0.05


class Hosted(msgspec.Struct, frozen=True, kw_only=True):
    """A further service behind the same door.

    `name` is its full name ("plimsoll.v1.Routes"), `roles` who may call it, `register` adds it to the server.
    """

    name: str
    roles: frozenset[Role]
    register: Callable[[grpc.aio.Server], None]


class HubServer:
    """Serves a hub over mutual TLS 1.3, and proves that it serves nothing less before `start` returns."""

    def __init__(
        self,
        hub: Hub,
        credentials: Source,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits = NODE_PLANE,
        hosted: Iterable[Hosted] = (),
    ) -> None:
        """`port` 0 takes a free one. `credentials` is asked again for each connection: renewal needs no restart."""
        self._credentials = credentials
        self._host = host
        self._port = port
        self.guard = Guard({SERVICE: ROLES})
        self._server: Any = grpc.aio.server(interceptors=(self.guard,), options=server_options(limits))
        agent_pb2_grpc.add_HubServicer_to_server(hub, self._server)
        for each in hosted:
            self.guard.allow(each.name, each.roles)
            each.register(self._server)

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self._port

    @property
    def endpoint(self) -> str:
        """host:port, for agents."""
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Listens. Raises: OSError when the port cannot be had, TransportUnsafe when TLS 1.2 would be spoken."""
        self._port = await open_door(
            self._server, self._host, self._port, self._credentials, another="operator"
        )
        logger.info("hub listens", extra={"facts": {"endpoint": self.endpoint}})

    async def stop(self, grace_seconds: float = 0.0) -> None:
        """Closes the door and ends all streams; agents come back with jitter."""
        await self._server.stop(grace_seconds)
        # gRPC ends the tasks of its calls a moment later, and prints a trace for each that a closing loop cancels.
        await asyncio.sleep(SETTLE_SECONDS)

"""The door at which agents get their certificates: TLS 1.3, the operator's certificate, none of the agent's.

It is a port of its own with this one service; the hub's port goes on to demand a certificate from everybody.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc.aio

from controller.enrolment.service import EnrolmentServicer
from runtime.channels import KIB, Limits, Options, server_options
from runtime.doors import open_door
from runtime.tls import Source
from wire import enrolment_pb2_grpc

logger = logging.getLogger(__name__)

ENROLMENT = Limits(receive_bytes=32 * KIB, send_bytes=64 * KIB)
"""A request has some 2 kB; a larger message ends its call before it is read."""
MOST_CALLS = 256
"""Calls answered or refused at once; more are turned away by gRPC before they are read."""
IDLE_SECONDS = 20.0
LONGEST_SECONDS = 60.0
"""A connection is for one question: an idle one, and one this old, is closed."""
SETTLE_SECONDS = 0.05


def _options() -> Options:
    return (
        *(each for each in server_options(ENROLMENT) if each[0] != "grpc.max_concurrent_streams"),
        ("grpc.max_concurrent_streams", 4),
        ("grpc.max_metadata_size", 8 * KIB),
        ("grpc.max_connection_idle_ms", int(IDLE_SECONDS * 1000)),
        ("grpc.max_connection_age_ms", int(LONGEST_SECONDS * 1000)),
        ("grpc.max_connection_age_grace_ms", 10_000),
    )


class EnrolmentServer:
    """Serves a servicer, and proves that it speaks nothing less than TLS 1.3 before `start` returns."""

    def __init__(
        self,
        servicer: EnrolmentServicer,
        credentials: Source,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """`port` 0 takes a free one. `credentials` is asked again for each connection: renewal needs no restart."""
        self._credentials = credentials
        self._host = host
        self._port = port
        self._server: Any = grpc.aio.server(options=_options(), maximum_concurrent_rpcs=MOST_CALLS)
        enrolment_pb2_grpc.add_EnrolmentServicer_to_server(servicer, self._server)

    @property
    def endpoint(self) -> str:
        """host:port, for agents."""
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Listens. Raises: OSError when the port cannot be had, TransportUnsafe when TLS 1.2 would be spoken."""
        self._port = await open_door(
            self._server,
            self._host,
            self._port,
            self._credentials,
            another="operator",
            demand_certificate=False,
        )
        logger.info("enrolment listens", extra={"facts": {"endpoint": self.endpoint}})

    async def stop(self, grace_seconds: float = 0.0) -> None:
        """Closes the door."""
        await self._server.stop(grace_seconds)
        await asyncio.sleep(SETTLE_SECONDS)

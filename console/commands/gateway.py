"""`plimsoll gateway`: takes requests, holds and dispatches them, reports load to the operator, in real time."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec

from console.commands.pki import HUB
from console.process import Talk, run_process
from console.telling import host_and_port
from gateway.core import GatewayConfig
from gateway.server import GatewayServer, ServerConfig
from policies.dispatch.choices import dispatch_policies
from runtime.authority import Identity, Role
from runtime.clock import WallClock
from runtime.keyring import Keyring


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `plimsoll gateway` was told."""

    name: str
    operator: str
    pki: Path
    host: str
    port: int


def run_gateway(options: GatewayOptions, talk: Talk) -> int:
    """Serve until told to stop; 0 at a clean end."""
    return run_process(lambda stop: _serve(options, talk, stop), talk)


async def _serve(options: GatewayOptions, talk: Talk, stop: asyncio.Event) -> None:
    host_and_port(options.operator, "--operator")
    clock = WallClock()
    source = Keyring(options.pki, clock).source(Identity(Role.GATEWAY, options.name))
    config = ServerConfig(
        gateway=GatewayConfig(name=options.name),
        host=options.host,
        port=options.port,
        operator=options.operator,
        operator_name=HUB.name,
    )
    gateway = GatewayServer(config, dispatch_policies(), source, clock)
    await gateway.start()
    running = asyncio.create_task(gateway.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        talk.ready("gateway", name=options.name, endpoint=gateway.endpoint, operator=options.operator)
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        stopping.cancel()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await gateway.stop()

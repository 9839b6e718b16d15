"""A gRPC server's port: opened under TLS 1.3, and proved to speak nothing less before anybody is told of it."""

from __future__ import annotations

from typing import Any

from runtime.tls import Source, prove_only_tls13, server_credentials


async def open_door(
    server: Any,
    host: str,
    port: int,
    credentials: Source,
    *,
    another: str,
    demand_certificate: bool = True,
    prove: bool = True,
) -> int:
    """Start a grpc.aio server on a port (0: a free one); the port it has.

    `another` names who may have the port already (`operator`). `prove` False leaves out the handshake that shows that
    TLS 1.2 is not spoken, for a process with many such servers.
    Raises: OSError when the port cannot be had, TransportUnsafe when TLS 1.2 would be spoken.
    """
    address = f"{host}:{port}"
    try:
        taken: int = server.add_secure_port(
            address, server_credentials(credentials, demand_certificate=demand_certificate)
        )
    except RuntimeError as error:
        raise OSError(f"Cannot listen on {address}: {error}. Is another {another} running?") from error
    if taken == 0:
        raise OSError(f"Cannot listen on {address}. Is another {another} running?")
    await server.start()
    if prove:
        await prove_only_tls13(host, taken, credentials())
    return taken

"""Mutual TLS 1.3 for grpcio, and the check of who is calling, on every call.

Servers demand a certificate of our authority. `Guard` is the interceptor that then refuses, before any handler
runs, a call that did not come over TLS 1.3 with privacy and integrity, or whose certificate names a role that
the called service does not serve. What a handler must still check is the name: `caller` gives it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from runtime.authority import AuthorityError, Credentials, Identity, Role
from runtime.ciphers import TransportUnsafe, require_only_tls13

Source = Callable[[], Credentials]
"""Gives the credentials in force: called again for each new connection, so that renewal needs no restart."""

AuthContext = Mapping[str, list[bytes]]
logger = logging.getLogger(__name__)


class PeerRefused(Exception):
    """The peer may not make this call; the text is a sentence for both sides' logs."""


def server_credentials(source: Source, *, demand_certificate: bool = True) -> grpc.ServerCredentials:
    """Credentials of a server that demands the peer's certificate, re-read from `source` as connections come.

    `demand_certificate` False is for the one door at which peers get their first certificate, and no other.
    Raises: TransportUnsafe when the process would still speak TLS 1.2.
    """
    require_only_tls13()
    held = source()

    def configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(credentials.key_pem, credentials.certificate_pem)],
            credentials.authority_pem if demand_certificate else None,
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal held
        newest = source()
        if newest is held:
            return None
        held = newest
        return configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        configuration(held),
        fetch,  # type: ignore[arg-type]  # grpc's own page: None means unchanged
        require_client_authentication=demand_certificate,
    )


def channel_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    """Credentials of a dialling peer. Raises: TransportUnsafe when the process would still speak TLS 1.2."""
    require_only_tls13()
    return grpc.ssl_channel_credentials(
        credentials.authority_pem, credentials.key_pem, credentials.certificate_pem
    )


def certificate_free_credentials(authority_pem: bytes) -> grpc.ChannelCredentials:
    """Credentials of a peer that has no certificate yet; it checks the server's against these roots.

    Raises: TransportUnsafe when the process would still speak TLS 1.2.
    """
    require_only_tls13()
    return grpc.ssl_channel_credentials(authority_pem)


def caller(context: AuthContext) -> Identity:
    """Who is at the other end of a call, from its `context.auth_context()`.

    Raises: PeerRefused when the connection is not TLS 1.3 with privacy and integrity, or the certificate does not
    name exactly one identity of ours.
    """
    require_transport(context)
    uris = context.get("peer_uri", [])
    if len(uris) != 1:
        raise PeerRefused(
            f"The peer's certificate names {len(uris)} URIs; it must name exactly one identity."
        )
    try:
        return Identity.parse(uris[0].decode("ascii", "replace"))
    except AuthorityError as error:
        raise PeerRefused(str(error)) from error


def require_transport(context: AuthContext) -> None:
    """Raises PeerRefused when a call did not come over TLS 1.3 with privacy and integrity."""
    for key, wanted in (
        ("transport_security_type", b"ssl"),
        ("security_level", b"TSI_PRIVACY_AND_INTEGRITY"),
        ("ssl_tls_version", b"TLSv1.3"),
    ):
        found = context.get(key, [])
        if found != [wanted]:
            shown = b", ".join(found).decode("ascii", "replace") or "nothing"
            raise PeerRefused(f"Only TLS 1.3 is spoken here: {key} is {shown}, not {wanted.decode()}.")


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses calls by transport and by role before their handler sees them.

    `allowed` maps a service's full name ("plimsoll.v1.Hub") to the roles it serves; a service that is not in it is
    refused to all. Refusals are counted in `refused`.
    """

    def __init__(self, allowed: Mapping[str, frozenset[Role]]) -> None:
        self._allowed = dict(allowed)
        self.refused = 0

    def allow(self, service: str, roles: frozenset[Role]) -> None:
        """Opens a further service, before the server starts."""
        self._allowed[service] = roles

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of a call so that the check comes first (gRPC's interface)."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        service = handler_call_details.method.lstrip("/").partition("/")[0]
        inner, rebuild = _inner(handler)
        guarded = self._guarded_stream if handler.response_streaming else self._guarded_answer
        return rebuild(
            guarded(inner, service),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _problem(self, context: Any, service: str) -> str | None:
        try:
            peer = caller(context.auth_context())
        except PeerRefused as refused:
            return str(refused)
        if peer.role not in self._allowed.get(service, frozenset()):
            return f"{peer.uri} may not call {service}: it is not open to the role {peer.role}."
        return None

    async def _refuse(self, context: Any, problem: str) -> None:
        self.refused += 1
        logger.warning("call refused", extra={"facts": {"peer": context.peer(), "why": problem}})
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, problem)

    def _guarded_answer(self, inner: Callable[..., Any], service: str) -> Callable[..., Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            if problem := self._problem(context, service):
                await self._refuse(context, problem)
            return await inner(request, context)

        return answer

    def _guarded_stream(self, inner: Callable[..., Any], service: str) -> Callable[..., Awaitable[None]]:
        async def stream(request: Any, context: Any) -> None:
            if problem := self._problem(context, service):
                await self._refuse(context, problem)
            if inspect.isasyncgenfunction(inner):
                produced: AsyncIterator[Any] = inner(request, context)
                async for message in produced:
                    await context.write(message)
            else:
                await inner(request, context)

        return stream


def _inner(handler: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The behaviour inside an RPC method handler, and grpc's factory that builds such a handler again."""
    key = (bool(handler.request_streaming), bool(handler.response_streaming))
    behaviour, rebuild = {
        (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
        (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
        (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
        (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
    }[key]
    return behaviour, rebuild


async def prove_only_tls13(
    host: str, port: int, credentials: Credentials, timeout_seconds: float = 5.0
) -> None:
    """Tries one's own server with TLS 1.2 and a good certificate; returns when it is refused.

    Raises: TransportUnsafe when a 1.2 handshake succeeds, or nothing listens there.
    """
    context = _old_context(credentials)
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(host, port, ssl=context, server_hostname=credentials.identity.dns),
            timeout_seconds,
        )
    except ConnectionRefusedError as error:
        raise TransportUnsafe(f"Nothing listens on {host}:{port}, so its TLS cannot be checked.") from error
    except TimeoutError as error:
        raise TransportUnsafe(
            f"{host}:{port} neither took nor refused TLS 1.2 in {timeout_seconds} s."
        ) from error
    except (ssl.SSLError, ConnectionError):
        return
    writer.transport.abort()
    raise TransportUnsafe(f"{host}:{port} completed a TLS 1.2 handshake; only 1.3 may be spoken here.")


def _old_context(credentials: Credentials) -> ssl.SSLContext:
    """A client that speaks TLS 1.2 at most, otherwise with all that a good peer has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=credentials.authority_pem.decode())
    with tempfile.TemporaryDirectory(prefix="plimsoll-tls-") as folder:  # ssl reads keys from files only
        credentials.write(Path(folder))
        context.load_cert_chain(Path(folder) / "certificate.pem", Path(folder) / "key.pem")
    return context

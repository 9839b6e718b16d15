"""Who gets in, on real sockets: TLS 1.3 with our certificates and the right role, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.node.link import HubLink, LinkError, _failure
from controller.hub.server import HubServer
from controller.hub.service import Hub
from runtime import ciphers
from runtime.authority import Authority, Credentials, Identity, Role
from runtime.channels import Limits, dial
from runtime.ciphers import TransportUnsafe
from runtime.clock import WallClock
from runtime.tls import PeerRefused, caller, prove_only_tls13
from tests.hub.support import HUB_IDENTITY, run, until, world
from wire import agent_pb2 as pb
from wire import agent_pb2_grpc

NODE = Identity(Role.NODE, "n1")
QUICK = Limits(connect_seconds=2.0)


def hello(node: str) -> pb.AgentMessage:
    return pb.AgentMessage(node=node, sequence=1, hello=pb.Hello(boot_id="b", driver="simulated"))


async def open_link(
    endpoint: str, credentials: Credentials, node: str, peer: Identity = HUB_IDENTITY
) -> HubLink:
    return await HubLink.open(endpoint, peer, credentials, hello(node), lambda message: None, QUICK)


def socket_context(credentials: Credentials | None, folder: Path, authority_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority_pem.decode())
    context.set_alpn_protocols(["h2"])
    if credentials is not None:
        credentials.write(folder)
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


def handshake(port: int, context: ssl.SSLContext) -> tuple[str | None, bytes]:
    """The version agreed on and the server's first bytes. TLS 1.3 refuses a client's certificate only after it."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=HUB_IDENTITY.dns) as wrapped,
    ):
        wrapped.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        return wrapped.version(), wrapped.recv(64)


def test_a_peer_with_our_certificate_speaks_tls_13(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world() as made:
            context = socket_context(made.credentials("n1"), tmp_path, made.authority.certificate_pem)
            version, answer = await asyncio.to_thread(handshake, made.server.port, context)
            assert version == "TLSv1.3"
            assert len(answer) > 9, "the server's HTTP/2 settings must follow"
            agent = made.agent("n1")
            await agent.connect()
            assert made.hub.nodes() == ["n1"]

    run(scenario)


def test_a_client_of_tls_12_only_is_refused_though_its_certificate_is_good(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world() as made:
            context = socket_context(made.credentials("n1"), tmp_path, made.authority.certificate_pem)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(handshake, made.server.port, context)

    run(scenario)


def test_a_client_of_tls_12_with_every_suite_it_knows_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world() as made:
            context = socket_context(made.credentials("n1"), tmp_path, made.authority.certificate_pem)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(handshake, made.server.port, context)

    run(scenario)


def test_a_client_without_a_certificate_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world() as made:
            context = socket_context(None, tmp_path, made.authority.certificate_pem)
            try:
                _, answer = await asyncio.to_thread(handshake, made.server.port, context)
            except (ssl.SSLError, ConnectionError):
                return
            assert answer == b"", "a server that wants no certificate would have sent its HTTP/2 settings"

    run(scenario)


def test_plaintext_is_refused() -> None:
    async def scenario() -> None:
        async with world() as made:
            async with grpc.aio.insecure_channel(made.server.endpoint) as channel:
                call = agent_pb2_grpc.HubStub(channel).Connect()  # type: ignore[call-arg]

                async def greet() -> None:
                    await call.write(hello("n1"))
                    await call.read()

                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await asyncio.wait_for(greet(), 5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert made.hub.nodes() == []

    run(scenario)


def test_a_foreign_authority_is_refused_by_the_server() -> None:
    async def scenario() -> None:
        async with world() as made:
            foreign = Authority.create(WallClock()).issue(NODE)
            liar = Credentials(
                identity=NODE,
                key_pem=foreign.key_pem,
                certificate_pem=foreign.certificate_pem,
                authority_pem=made.authority.certificate_pem,
                expires_seconds=foreign.expires_seconds,
            )
            with pytest.raises(LinkError, match="cannot be used"):
                await open_link(made.server.endpoint, liar, "n1")
            assert made.hub.stats.opened == 0

    run(scenario)


def test_a_foreign_hub_is_refused_by_the_agent() -> None:
    async def scenario() -> None:
        async with world() as made:
            stranger = Authority.create(WallClock()).issue(NODE)
            with pytest.raises(LinkError, match="cannot be used"):
                await open_link(made.server.endpoint, stranger, "n1")
            assert made.hub.stats.opened == 0

    run(scenario)


def test_a_node_cannot_pose_as_the_hub() -> None:
    async def scenario() -> None:
        authority = Authority.create(WallClock())
        impostor = authority.issue(Identity(Role.NODE, "evil"))
        server = HubServer(Hub(WallClock(), epoch=1), lambda: impostor)
        await server.start()
        try:
            with pytest.raises(LinkError, match="cannot be used"):
                await open_link(server.endpoint, authority.issue(NODE), "n1")
        finally:
            await server.stop()

    run(scenario)


def test_an_expired_certificate_is_refused() -> None:
    class Yesterday(WallClock):
        def now(self) -> float:
            return super().now() - 90_000.0

    async def scenario() -> None:
        async with world() as made:
            made.authority._clock = Yesterday()
            with pytest.raises(LinkError, match="cannot be used"):
                await open_link(made.server.endpoint, made.credentials("n1"), "n1")
            assert made.hub.stats.opened == 0

    run(scenario)


def test_another_nodes_name_is_refused_with_a_sentence() -> None:
    async def scenario() -> None:
        async with world() as made:
            with pytest.raises(
                LinkError, match=r"PERMISSION_DENIED.*certificate is of node 'n1'.*names 'n2'"
            ):
                await open_link(made.server.endpoint, made.credentials("n1"), "n2")
            assert made.hub.stats.refused_name == 1
            assert made.hub.nodes() == []

    run(scenario)


def test_another_nodes_name_in_a_later_message_ends_the_stream() -> None:
    async def scenario() -> None:
        async with world() as made:
            link = await open_link(made.server.endpoint, made.credentials("n1"), "n1")
            await link.send(pb.AgentMessage(node="n2", sequence=2, report=pb.Report()))
            assert await made.hub.absent({"n1"}, 5.0) == frozenset()
            await until(lambda: link.broken is not None)
            assert link.broken is not None
            assert "PERMISSION_DENIED" in link.broken
            assert "names 'n2'" in link.broken
            assert len(made.hub.inbox) == 0
            await link.close()

    run(scenario)


@pytest.mark.parametrize("lost", [1, 2], ids=["once", "again"])
def test_a_refusal_that_the_hello_ran_into_is_asked_for_once_more(
    monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """As grpc.aio has it where the write fails before the status is read."""
    dialled, calls = HubLink._dialled, 0

    async def run_into(*given: Any) -> HubLink:
        nonlocal calls
        calls += 1
        if calls <= lost:
            raise _failure("here", grpc.StatusCode.INTERNAL, "Internal error from Core.")
        return await dialled(*given)

    async def scenario() -> None:
        async with world() as made:
            other = made.authority.issue(Identity(Role.CLIENT, "n1"))
            with pytest.raises(LinkError, match="PERMISSION_DENIED" if lost == 1 else "INTERNAL"):
                await open_link(made.server.endpoint, other, "n1")
            assert calls == 2

    monkeypatch.setattr(HubLink, "_dialled", run_into)
    run(scenario)


@pytest.mark.parametrize("role", [Role.GATEWAY, Role.OPERATOR, Role.CLIENT])
def test_other_roles_may_not_speak_as_agents(role: Role) -> None:
    async def scenario() -> None:
        async with world() as made:
            other = made.authority.issue(Identity(role, "n1"))
            with pytest.raises(LinkError, match=f"PERMISSION_DENIED.*not open to the role {role}"):
                await open_link(made.server.endpoint, other, "n1")
            assert made.server.guard.refused in (1, 2)  # twice where the hello ran into the refusal
            assert made.hub.stats.opened == 0

    run(scenario)


def test_renewed_server_credentials_are_used_without_a_restart() -> None:
    async def scenario() -> None:
        authority, successor = Authority.create(WallClock()), Authority.create(WallClock())
        held = [authority.issue(HUB_IDENTITY)]
        hub = Hub(WallClock(), epoch=1)
        server = HubServer(hub, lambda: held[0])
        await server.start()
        try:
            first = await open_link(server.endpoint, authority.issue(NODE), "n1")
            await until(lambda: hub.stats.opened == 1)
            await first.close()
            held[0] = successor.issue(HUB_IDENTITY)
            second = await open_link(server.endpoint, successor.issue(NODE), "n1")
            await until(lambda: hub.stats.opened == 2)
            await second.close()
            with pytest.raises(LinkError):
                await open_link(server.endpoint, authority.issue(NODE), "n1")
            assert hub.stats.opened == 2
        finally:
            await server.stop()

    run(scenario)


@contextlib.asynccontextmanager
async def listener(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object],
) -> AsyncIterator[int]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)  # type: ignore[arg-type]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_the_proof_fails_on_a_server_that_speaks_tls_12(tmp_path: Path) -> None:
    """The check itself is checked: against a server that accepts 1.2, it must raise."""

    async def scenario() -> None:
        credentials = Authority.create(WallClock()).issue(HUB_IDENTITY)
        credentials.write(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
        context.load_verify_locations(tmp_path / "authority.pem")
        context.verify_mode = ssl.CERT_REQUIRED

        async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        lax = await asyncio.start_server(close, "127.0.0.1", 0, ssl=context)
        port = lax.sockets[0].getsockname()[1]
        with pytest.raises(TransportUnsafe, match=r"completed a TLS 1\.2 handshake"):
            await prove_only_tls13("127.0.0.1", port, credentials)
        lax.close()
        await lax.wait_closed()
        with pytest.raises(TransportUnsafe, match="Nothing listens"):
            await prove_only_tls13("127.0.0.1", port, credentials)

    run(scenario)


def test_the_agent_refuses_a_server_that_speaks_tls_12_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority.create(WallClock())
        authority.issue(HUB_IDENTITY).write(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
        context.set_alpn_protocols(["h2"])
        shaken = []

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            shaken.append(writer.get_extra_info("ssl_object").version())
            writer.close()

        old = await asyncio.start_server(note, "127.0.0.1", 0, ssl=context)
        port = old.sockets[0].getsockname()[1]
        with pytest.raises(LinkError, match=r"UNAVAILABLE|no answer"):
            await open_link(f"127.0.0.1:{port}", authority.issue(NODE), "n1")
        assert shaken == []
        old.close()

    run(scenario)


GOOD = {
    "transport_security_type": [b"ssl"],
    "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
    "ssl_tls_version": [b"TLSv1.3"],
    "peer_uri": [b"spiffe://plimsoll/node/n1"],
}


def test_caller_reads_role_and_name() -> None:
    assert caller(GOOD) == NODE


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        pytest.param({"ssl_tls_version": [b"TLSv1.2"]}, "ssl_tls_version is TLSv1.2", id="older tls"),
        pytest.param({"ssl_tls_version": []}, "ssl_tls_version is nothing", id="no tls version"),
        pytest.param({"transport_security_type": [b"insecure"]}, "is insecure, not ssl", id="plaintext"),
        pytest.param({"security_level": [b"TSI_INTEGRITY_ONLY"]}, "TSI_INTEGRITY_ONLY", id="no privacy"),
        pytest.param({"peer_uri": []}, "names 0 URIs", id="no identity"),
        pytest.param({"peer_uri": GOOD["peer_uri"] * 2}, "names 2 URIs", id="two identities"),
        pytest.param(
            {"peer_uri": [b"spiffe://other/node/n1"]}, "no identity of this cluster", id="other domain"
        ),
        pytest.param(
            {"peer_uri": [b"spiffe://plimsoll/king/n1"]}, "no identity of this cluster", id="no such role"
        ),
        pytest.param({"peer_uri": [b"spiffe://plimsoll/node/../x"]}, "no identity", id="path tricks"),
    ],
)
def test_caller_refuses(changed: dict[str, list[bytes]], sentence: str) -> None:
    with pytest.raises(PeerRefused, match=sentence):
        caller(GOOD | changed)


PROGRAM = """
import {first}
import {second}
import asyncio, grpc.aio
from runtime.authority import *; from runtime.clock import WallClock
from runtime.tls import *
held = Authority.create(WallClock()).issue(Identity(Role.OPERATOR, "hub"))
async def main():
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: held))
    await server.start()
    await prove_only_tls13("127.0.0.1", port, held)
    await server.stop(0)
    print("only 1.3")
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        pytest.param("runtime", "grpc", "only 1.3", id="runtime before grpc speaks 1.3 only"),
        pytest.param(
            "grpc", "runtime", "TransportUnsafe: grpc was imported before", id="grpc first is refused"
        ),
    ],
)
def test_the_order_of_imports_cannot_weaken_the_transport(first: str, second: str, said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != ciphers.VARIABLE}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first, second=second)],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert said in ended.stdout + ended.stderr


def test_a_changed_cipher_setting_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ciphers.VARIABLE, "ECDHE-ECDSA-AES256-GCM-SHA384")
    with pytest.raises(TransportUnsafe, match="was changed"):
        dial("127.0.0.1:1", Authority.create(WallClock()).issue(NODE), HUB_IDENTITY)

"""The signing root: followed as its files change, replaced by another without a moment without trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from agent.node.link import LinkError
from controller.enrolment.authorities import AuthorityFolder, SelfIssued
from controller.enrolment.server import EnrolmentServer
from controller.hub.server import HubServer
from controller.hub.service import Hub
from runtime.authority import Authority, AuthorityError, Identity, Role
from runtime.clock import VirtualClock, WallClock
from tests.enrolment.support import (
    DAY,
    HUB,
    Serving,
    door,
    greets,
)
from tests.hub.support import run

# ------------------------------------------------------------------------------------------------ two roots


def test_one_root_replaces_another_without_a_moment_without_trust(tmp_path: Path):
    """The order in `controller.enrolment.authorities`, on a running hub and door."""
    clock = WallClock()
    folder = tmp_path / "authority"
    Authority.create(clock).write(folder)
    files = tmp_path / "agent"
    files.mkdir()

    async def scenario() -> None:
        source = AuthorityFolder(folder, clock)
        own = SelfIssued(source, HUB, clock)
        async with door(files) as made:
            hub = Hub(clock, epoch=1)

            made.servicer._authority = source
            enrolment = EnrolmentServer(made.servicer, own)
            await enrolment.start()
            async with Serving(HubServer(hub, own)) as server:
                (files / "token").write_text(made.book.issue())
                old = made.agent(endpoint=enrolment.endpoint)
                (files / "roots.pem").write_bytes(source().trusted_pem)
                before = await old.enrol()
                await greets(hub, server, before)

                successor = Authority.create(clock)
                (folder / "trusted.pem").write_bytes(successor.certificate_pem)
                assert len(x509.load_pem_x509_certificates(source().trusted_pem)) == 2
                both = await old.enrol()
                assert both.authority_pem == source().trusted_pem

                former = source().certificate_pem
                successor.write(folder)
                (folder / "trusted.pem").write_bytes(former)
                assert source().certificate_pem == successor.certificate_pem
                await greets(hub, server, both)  # a certificate of the old root, a hub under the new one
                (files / "roots.pem").write_bytes(former + successor.certificate_pem)
                after = await old.enrol()
                signed = x509.load_pem_x509_certificate(after.certificate_pem)
                signed.verify_directly_issued_by(x509.load_pem_x509_certificate(successor.certificate_pem))
                await greets(hub, server, after)

                (folder / "trusted.pem").unlink()
                assert source().trusted_pem == successor.certificate_pem
                await greets(hub, server, after)
                with pytest.raises(LinkError):
                    await greets(hub, server, before)
            await enrolment.stop()

    run(scenario)


def test_a_half_written_root_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    clock = WallClock()
    Authority.create(clock).write(tmp_path)
    source = AuthorityFolder(tmp_path, clock)
    good = source()
    pem = (tmp_path / "authority.pem").read_bytes()
    (tmp_path / "authority.pem").write_bytes(pem[:100])
    assert source() is good
    assert "stays as it was" in caplog.text
    Authority.create(clock).write(tmp_path)
    assert source() is not good


TRUSTED = [
    pytest.param(lambda made: b"nothing", "No certificate", id="no certificate at all"),
    pytest.param(
        lambda made: made.issue(Identity(Role.NODE, "n1")).certificate_pem,
        "not the certificate of an authority",
        id="a node's certificate",
    ),
]


@pytest.mark.parametrize(("bundle", "says"), TRUSTED)
def test_peers_are_told_to_trust_roots_only(tmp_path: Path, bundle: Any, says: str):
    clock = WallClock()
    made = Authority.create(clock)
    made.write(tmp_path)
    (tmp_path / "trusted.pem").write_bytes(bundle(made))
    with pytest.raises(AuthorityError, match=says):
        AuthorityFolder(tmp_path, clock)


def test_a_key_that_is_not_the_roots_is_refused(tmp_path: Path):
    clock = WallClock()
    Authority.create(clock).write(tmp_path)
    pem = (tmp_path / "authority.pem").read_bytes()
    Authority.create(clock).write(tmp_path)
    (tmp_path / "authority.pem").write_bytes(pem)
    with pytest.raises(AuthorityError, match="not that of the root"):
        AuthorityFolder(tmp_path, clock)


def test_the_operators_own_certificate_is_renewed_at_two_thirds(tmp_path: Path):
    clock = VirtualClock(WallClock().now())
    Authority.create(clock).write(tmp_path)
    own = SelfIssued(AuthorityFolder(tmp_path, clock), HUB, clock, validity_seconds=DAY, hosts=("hub.svc",))
    first = own()
    clock.advance_to(clock.now() + 0.66 * DAY)
    assert own() is first
    clock.advance_to(clock.now() + 0.01 * DAY)
    second = own()
    assert second.expires_seconds > first.expires_seconds
    names = x509.load_pem_x509_certificate(second.certificate_pem).extensions
    found = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == [HUB.dns, "hub.svc"]

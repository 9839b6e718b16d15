"""Certificates: what they say, how long, and that keys stay private."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from runtime.authority import (
    BACKDATE_SECONDS,
    DAY_SECONDS,
    Authority,
    AuthorityError,
    Credentials,
    Identity,
    Role,
    identity_of,
)
from runtime.clock import VirtualClock

NOW = 1_700_000_000.0


def authority() -> Authority:
    return Authority.create(VirtualClock(NOW))


def parsed(credentials: Credentials) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credentials.certificate_pem)


@pytest.mark.parametrize(
    ("role", "serves"),
    [(Role.NODE, True), (Role.GATEWAY, True), (Role.OPERATOR, True), (Role.CLIENT, False)],
)
def test_what_a_certificate_says(role: Role, serves: bool) -> None:
    credentials = authority().issue(
        Identity(role, "pool-a.n1"), hosts=("hub.plimsoll.svc",) if serves else ()
    )
    certificate = parsed(credentials)
    assert identity_of(certificate) == Identity(role, "pool-a.n1")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"spiffe://plimsoll/{role}/pool-a.n1"
    ]
    dns = names.get_values_for_type(x509.DNSName)
    assert dns == [f"pool-a.n1.{role}.plimsoll.internal", *(["hub.plimsoll.svc"] if serves else [])]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usage
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usage) == serves
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_validity_is_a_day_from_the_injected_now() -> None:
    credentials = authority().issue(Identity(Role.NODE, "n1"))
    certificate = parsed(credentials)
    assert certificate.not_valid_before_utc.timestamp() == NOW - BACKDATE_SECONDS
    assert certificate.not_valid_after_utc.timestamp() == NOW + DAY_SECONDS == credentials.expires_seconds


def test_a_chain_verifies_and_a_foreign_one_does_not() -> None:
    ours, other = authority(), authority()
    leaf = parsed(ours.issue(Identity(Role.OPERATOR, "hub")))

    def verify(root: Authority) -> None:
        store = Store([x509.load_pem_x509_certificate(root.certificate_pem)])
        builder = PolicyBuilder().store(store).time(leaf.not_valid_after_utc.replace(tzinfo=None))
        builder.build_server_verifier(x509.DNSName("hub.operator.plimsoll.internal")).verify(leaf, [])

    verify(ours)
    with pytest.raises(VerificationError):
        verify(other)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Upper",
        "a/b",
        "a b",
        "-a",
        "a-",
        "a..",
        "x" * 201,
        "x" * 1_000_000,
        "a\n",
        "ü",
        "spiffe://x",
        "*.node",
    ],
    ids=lambda name: repr(name[:12]),
)
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(AuthorityError, match="cannot be a node's name in a certificate"):
        authority().issue(Identity(Role.NODE, name))


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_no_validity_is_refused(seconds: float) -> None:
    with pytest.raises(AuthorityError, match="is none"):
        authority().issue(Identity(Role.NODE, "n1"), validity_seconds=seconds)


def test_files_are_private_and_read_back(tmp_path: Path) -> None:
    ours = authority()
    ours.write(tmp_path / "authority")
    again = Authority.read(tmp_path / "authority", VirtualClock(NOW))
    credentials = again.issue(Identity(Role.GATEWAY, "edge"))
    credentials.write(tmp_path / "edge")
    assert Credentials.read(tmp_path / "edge") == credentials
    assert again.certificate_pem == ours.certificate_pem
    files = [*tmp_path.glob("*/*")]
    assert len(files) == 5
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "authority").stat().st_mode) == 0o700


@pytest.mark.parametrize("spoiled", ["key.pem", "certificate.pem", "authority.pem"])
def test_missing_or_damaged_files_say_what_to_do(tmp_path: Path, spoiled: str) -> None:
    authority().issue(Identity(Role.NODE, "n1")).write(tmp_path)
    (tmp_path / spoiled).unlink()
    with pytest.raises(AuthorityError, match="Issue them anew"):
        Credentials.read(tmp_path)
    (tmp_path / "certificate.pem").write_text("nonsense")
    with pytest.raises(AuthorityError, match="Issue them anew"):
        Credentials.read(tmp_path)
    with pytest.raises(AuthorityError, match="Create one anew"):
        Authority.read(tmp_path, VirtualClock(NOW))


def test_keys_are_never_shown() -> None:
    ours = authority()
    credentials = ours.issue(Identity(Role.NODE, "n1"))
    for shown in (repr(credentials), str(credentials), f"{credentials}", repr(ours)):
        assert "PRIVATE" not in shown
        assert "KEY" not in shown.upper().replace("KEY-USAGE", "")
    assert "spiffe://plimsoll/node/n1" in repr(credentials)


@pytest.mark.parametrize(
    ("uri", "identity"),
    [
        pytest.param("spiffe://plimsoll/node/n1", Identity(Role.NODE, "n1"), id="node"),
        pytest.param(
            "spiffe://plimsoll/gateway/a.b-c", Identity(Role.GATEWAY, "a.b-c"), id="dots and dashes"
        ),
        pytest.param("spiffe://plimsoll/node/", None, id="no name"),
        pytest.param("spiffe://plimsoll/node/a/b", None, id="two names"),
        pytest.param("spiffe://plimsoll.evil/node/a", None, id="another domain"),
        pytest.param("http://plimsoll/node/a", None, id="another scheme"),
        pytest.param("spiffe://plimsoll/node/" + "a" * 1_000_000, None, id="1 MB name"),
        pytest.param("spiffe://plimsoll/node/a\n", None, id="a line end"),
    ],
)
def test_identities_are_parsed_strictly(uri: str, identity: Identity | None) -> None:
    if identity is None:
        with pytest.raises(AuthorityError, match="no identity of this cluster"):
            Identity.parse(uri)
    else:
        assert Identity.parse(uri) == identity
        assert identity.uri == uri

"""Certificates in a folder: who may read them, what is refused with which sentence, how renewal is noticed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from runtime.authority import DAY_SECONDS, AuthorityError, Identity, Role
from runtime.clock import VirtualClock
from runtime.keyring import Keyring

NOW = 1_790_000_000.0
GATEWAY = Identity(Role.GATEWAY, "gateway-0")
NODE = Identity(Role.NODE, "l4-00")


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW)


@pytest.fixture
def ring(tmp_path: Path, clock: VirtualClock) -> Keyring:
    made = Keyring(tmp_path / "pki", clock)
    made.create()
    return made


def test_every_file_is_its_owners_alone(ring: Keyring) -> None:
    ring.issue(GATEWAY)
    files = [path for path in ring.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"authority.key", "authority.pem", "certificate.pem", "key.pem"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    holding = {path.parent for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o700}


def test_an_authority_is_never_replaced(ring: Keyring) -> None:
    before = (ring.folder / "authority" / "authority.key").read_bytes()
    with pytest.raises(AuthorityError, match="already holds an authority"):
        ring.create()
    assert (ring.folder / "authority" / "authority.key").read_bytes() == before


def test_what_is_issued_is_found_again(ring: Keyring) -> None:
    made = ring.issue(GATEWAY)
    ring.issue(NODE)
    assert ring.read(GATEWAY) == made
    assert ring.get(GATEWAY) == made
    assert ring.identities() == [NODE, GATEWAY]


def test_where_the_authority_is_what_is_missing_is_issued(ring: Keyring) -> None:
    assert ring.get(NODE).identity == NODE
    assert ring.identities() == [NODE]


def _copied(ring: Keyring, tmp_path: Path, clock: VirtualClock, identity: Identity) -> Keyring:
    """An identity's folder alone, as another machine has it."""
    ring.issue(identity)
    other = Keyring(tmp_path / "elsewhere", clock)
    other.place(identity).parent.mkdir(parents=True)
    ring.place(identity).rename(other.place(identity))
    return other


def test_without_the_authority_nothing_is_issued_and_the_sentence_says_what_to_do(
    ring: Keyring, tmp_path: Path, clock: VirtualClock
) -> None:
    other = _copied(ring, tmp_path, clock, GATEWAY)
    assert other.get(GATEWAY).identity == GATEWAY
    with pytest.raises(AuthorityError, match=r"plimsoll pki issue node l4-00 --dir .*elsewhere"):
        other.get(NODE)
    with pytest.raises(AuthorityError, match="plimsoll pki init"):
        other.authority()


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        pytest.param(lambda p: (p / "key.pem").unlink(), "No usable credentials", id="a file is gone"),
        pytest.param(lambda p: (p / "certificate.pem").write_text("x"), "No usable", id="no certificate"),
        pytest.param(lambda p: (p / "key.pem").write_text("x"), "key in .* is not that of", id="no key"),
    ],
)
def test_damage_is_told_and_healed_where_the_authority_is(
    ring: Keyring, tmp_path: Path, clock: VirtualClock, harm: object, why: str
) -> None:
    other = _copied(ring, tmp_path, clock, GATEWAY)
    ring.issue(GATEWAY)
    for each in (other, ring):
        harm(each.place(GATEWAY))  # type: ignore[operator]
    with pytest.raises(AuthorityError, match=why):
        other.get(GATEWAY)
    assert ring.get(GATEWAY).identity == GATEWAY


def test_anothers_certificate_under_a_name_is_refused(
    ring: Keyring, tmp_path: Path, clock: VirtualClock
) -> None:
    other = _copied(ring, tmp_path, clock, GATEWAY)
    other.place(GATEWAY).rename(other.folder / "gateway" / "gateway-1")
    with pytest.raises(AuthorityError, match="holds the certificate of spiffe://plimsoll/gateway/gateway-0"):
        other.read(Identity(Role.GATEWAY, "gateway-1"))


def test_an_expired_certificate_is_refused_and_an_old_one_renewed(
    ring: Keyring, tmp_path: Path, clock: VirtualClock
) -> None:
    other = _copied(ring, tmp_path, clock, GATEWAY)
    first = ring.get(NODE)
    clock.advance_to(NOW + 21 * DAY_SECONDS)
    assert ring.get(NODE).expires_seconds > first.expires_seconds
    clock.advance_to(NOW + 30 * DAY_SECONDS)
    with pytest.raises(
        AuthorityError, match=r"has expired: issue it anew with `plimsoll pki issue gateway gateway-0"
    ):
        other.read(GATEWAY)


def test_a_source_follows_renewal_and_never_takes_half_of_one(ring: Keyring) -> None:
    source = ring.source(GATEWAY)
    first = source()
    assert source() is first
    second = ring.issue(GATEWAY)
    assert source() == second
    key = ring.place(GATEWAY) / "key.pem"
    whole = key.read_bytes()
    key.write_bytes(first.key_pem)
    assert source() == second, "a key without its certificate is not used"
    key.write_bytes(whole)
    assert source() == second
    key.unlink()
    assert source() == second, "the files may go while the process lives"


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, clock: VirtualClock) -> None:
    (tmp_path / "pki").write_text("a file")
    with pytest.raises(AuthorityError, match="cannot be written"):
        Keyring(tmp_path / "pki", clock).create()

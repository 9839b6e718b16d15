"""Certificates in a folder: one local authority, and one folder of credentials for each identity.

::

    DIR/authority/authority.key, authority.pem      the root; only who issues certificates needs this folder
    DIR/ROLE/NAME/key.pem, certificate.pem, authority.pem

Copy an identity's folder to the machine that needs it, and nothing else. Every file is readable by its owner alone.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_pem_x509_certificate

from runtime.authority import DAY_SECONDS, Authority, AuthorityError, Credentials, Identity, Role
from runtime.clock import Clock
from runtime.tls import Source

logger = logging.getLogger(__name__)

ROOT_DAYS = 365.0
LEAF_DAYS = 30.0
RENEW_FRACTION = 1.0 / 3.0
"""Where the authority is at hand, a certificate with less of its validity left than this is issued anew."""


class Keyring:
    """The folder DIR. Raises AuthorityError with a sentence for everything that is missing, damaged or expired."""

    def __init__(self, folder: Path, clock: Clock, leaf_days: float = LEAF_DAYS) -> None:
        self.folder = folder
        self._clock = clock
        self._leaf_seconds = leaf_days * DAY_SECONDS

    def create(self, days: float = ROOT_DAYS) -> None:
        """Make the authority. Refuses to replace one: every certificate that it signed would be void."""
        if (self._root / "authority.key").exists():
            raise AuthorityError(
                f"{self.folder} already holds an authority, whose certificates would all be void: use it, or choose "
                "another folder."
            )
        try:
            Authority.create(self._clock, days * DAY_SECONDS).write(self._root)
        except OSError as error:
            raise AuthorityError(f"{self._root} cannot be written: {error.strerror or error}.") from error

    @property
    def can_issue(self) -> bool:
        """Whether the authority's key is here."""
        return (self._root / "authority.key").exists()

    def authority(self) -> Authority:
        """The authority that signs."""
        if not self.can_issue:
            raise AuthorityError(
                f"{self.folder} holds no authority (authority/authority.key): make one with `plimsoll pki init "
                f"--dir {self.folder}`."
            )
        return Authority.read(self._root, self._clock)

    def issue(self, identity: Identity) -> Credentials:
        """A new key and certificate, written to the identity's folder."""
        made = self.authority().issue(identity, self._leaf_seconds)
        try:
            made.write(self.place(identity))
        except OSError as error:
            raise AuthorityError(
                f"{self.place(identity)} cannot be written: {error.strerror or error}."
            ) from error
        return made

    def read(self, identity: Identity) -> Credentials:
        """What is in the identity's folder, checked: of this identity, with its key, not expired."""
        place = self.place(identity)
        if not place.is_dir():
            raise AuthorityError(
                f"{place} is missing: issue it with `plimsoll pki issue {identity.role} {identity.name} --dir "
                f"{self.folder}` where the authority is, or copy it from there."
            )
        found = Credentials.read(place)
        if found.identity != identity:
            raise AuthorityError(
                f"{place} holds the certificate of {found.identity.uri}, not of {identity.uri}."
            )
        if not _matches(found):
            raise AuthorityError(
                f"The key in {place} is not that of the certificate beside it: issue it anew."
            )
        if found.expires_seconds <= self._clock.now():
            raise AuthorityError(
                f"The certificate of {identity.uri} in {place} has expired: issue it anew with `plimsoll pki issue "
                f"{identity.role} {identity.name} --dir {self.folder}`."
            )
        return found

    def get(self, identity: Identity) -> Credentials:
        """What is there; where the authority is at hand, what is missing, damaged or old is issued anew."""
        if not self.can_issue:
            return self.read(identity)
        try:
            found = self.read(identity)
        except AuthorityError:
            logger.info("issuing a certificate for %s", identity.uri)
            return self.issue(identity)
        if found.expires_seconds - self._clock.now() < RENEW_FRACTION * self._leaf_seconds:
            logger.info("renewing the certificate of %s", identity.uri)
            return self.issue(identity)
        return found

    def source(self, identity: Identity) -> Source:
        """Credentials that follow the files: a renewal is used for the next connection, a half-written one is not."""
        held = self.get(identity)
        files = [self.place(identity) / name for name in ("authority.pem", "certificate.pem", "key.pem")]

        def stamp() -> tuple[int, ...]:
            return tuple(file.stat().st_mtime_ns for file in files)

        seen = stamp()

        def newest() -> Credentials:
            nonlocal held, seen
            try:
                now = stamp()
                if now != seen:
                    held, seen = self.read(identity), now
            except (AuthorityError, OSError) as error:
                logger.warning("the certificate of %s stays as it was: %s", identity.uri, error)
            return held

        return newest

    def place(self, identity: Identity) -> Path:
        """The identity's folder."""
        return self.folder / identity.role / identity.name

    def identities(self) -> list[Identity]:
        """Every identity that has a folder here, sorted."""
        return [
            Identity(role, place.name)
            for role in Role
            for place in sorted((self.folder / role).glob("*"))
            if (place / "certificate.pem").is_file()
        ]

    @property
    def _root(self) -> Path:
        return self.folder / "authority"


def _matches(credentials: Credentials) -> bool:
    """Whether key and certificate belong together."""
    try:
        key = serialization.load_pem_private_key(credentials.key_pem, password=None)
        certificate = load_pem_x509_certificate(credentials.certificate_pem)
    except ValueError:
        return False
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)

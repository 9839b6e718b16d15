"""A local certificate authority: who is who between operator, agents and gateway.

P-256 keys, short validity, one identity per certificate: a URI `spiffe://plimsoll/<role>/<name>` that servers
check, and a DNS name `<name>.<role>.plimsoll.internal` that clients check. Where a cluster has Pod Certificates
or cert-manager, certificates of the same shape from there do as well (research: ecosystem §6).
"""

from __future__ import annotations

import datetime as dt
import os
import re
from enum import StrEnum
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.clock import Clock

TRUST_DOMAIN = "plimsoll"
DNS_SUFFIX = "plimsoll.internal"
BACKDATE_SECONDS = 300.0
"""Certificates are valid from a little before they were made: machines' dates differ."""
DAY_SECONDS = 86_400.0
TRUSTED = "trusted.pem"
"""File beside an authority's own: further roots that peers trust, while one root replaces another."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,198}[a-z0-9])?")


class Role(StrEnum):
    """Kinds of peers. Each serves or dials what `SERVES` says."""

    NODE = "node"
    GATEWAY = "gateway"
    OPERATOR = "operator"
    CLIENT = "client"
    """Sends requests to a gateway; knows nothing of the operator."""
    ADMIN = "admin"
    """A person's hand on the objects of an embedded store."""
    FLEET = "fleet"
    """Plays kubelet, scheduler and garbage collector on an embedded store."""


SERVES = frozenset({Role.NODE, Role.GATEWAY, Role.OPERATOR})
"""Roles whose certificates may be shown by a server. A node serves its engines, and never poses as an operator:
clients check the DNS name, which carries the role."""


class AuthorityError(Exception):
    """A certificate cannot be made or read; the text says why and what to do."""


class Identity(msgspec.Struct, frozen=True):
    """A role and, within it, a name (a node's name, a gateway's name)."""

    role: Role
    name: str

    @property
    def uri(self) -> str:
        """`spiffe://plimsoll/<role>/<name>`: what servers check."""
        return f"spiffe://{TRUST_DOMAIN}/{self.role}/{self.name}"

    @property
    def dns(self) -> str:
        """`<name>.<role>.plimsoll.internal`: what clients check. It resolves nowhere, it is an identity."""
        return f"{self.name}.{self.role}.{DNS_SUFFIX}"

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """The identity a URI names. Raises: AuthorityError when it is none of ours."""
        found = re.fullmatch(rf"spiffe://{TRUST_DOMAIN}/([a-z]+)/(.+)", uri[:512])
        if found is None or found[1] not in list(Role) or not _NAME.fullmatch(found[2]):
            raise AuthorityError(
                f"{uri[:120]!r} is no identity of this cluster: it must be spiffe://{TRUST_DOMAIN}/ROLE/NAME."
            )
        return cls(Role(found[1]), found[2])


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer needs to speak: its key and certificate, and the authority it trusts. All PEM."""

    identity: Identity
    key_pem: bytes
    certificate_pem: bytes
    authority_pem: bytes
    expires_seconds: float

    def __repr__(self) -> str:
        """Names the holder, never the key."""
        return f"Credentials({self.identity.uri}, expires_seconds={self.expires_seconds:.0f})"

    __str__ = __repr__

    def write(self, folder: Path) -> None:
        """Writes key.pem, certificate.pem and authority.pem, readable by the owner alone."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / "authority.pem", self.authority_pem)
        write_private(folder / "certificate.pem", self.certificate_pem)
        write_private(folder / "key.pem", self.key_pem)

    @classmethod
    def read(cls, folder: Path) -> Credentials:
        """What `write` wrote. Raises: AuthorityError when a file is missing or is no certificate of ours."""
        try:
            key, certificate, authority = (
                (folder / name).read_bytes() for name in ("key.pem", "certificate.pem", "authority.pem")
            )
            parsed = x509.load_pem_x509_certificate(certificate)
        except (OSError, ValueError) as error:
            raise AuthorityError(f"No usable credentials in {folder}: {error}. Issue them anew.") from error
        return cls(
            identity=identity_of(parsed),
            key_pem=key,
            certificate_pem=certificate,
            authority_pem=authority,
            expires_seconds=parsed.not_valid_after_utc.timestamp(),
        )


class Authority:
    """Signs identities. Holds the root key: there is one, in the operator (or the demo), and it never leaves it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, clock: Clock) -> None:
        self._key = key
        self._certificate = certificate
        self._clock = clock
        self._pem = pem_of(certificate)
        self._trusted = self._pem

    def __repr__(self) -> str:
        """Names the authority, never the key."""
        return f"Authority({self._certificate.subject.rfc4514_string()})"

    @property
    def certificate_pem(self) -> bytes:
        """The root certificate that peers trust."""
        return self._pem

    @classmethod
    def create(cls, clock: Clock, validity_seconds: float = 365 * DAY_SECONDS) -> Authority:
        """A new root, valid from the clock's now. The clock must be on wall time: TLS checks against it."""
        key = ec.generate_private_key(ec.SECP256R1())
        number = x509.random_serial_number()
        subject = _subject(f"plimsoll authority {number & 0xFFFFFFFF:08x}")
        certificate = (
            _builder(subject, subject, key.public_key(), number, clock.now(), validity_seconds)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate, clock)

    @classmethod
    def read(cls, folder: Path, clock: Clock) -> Authority:
        """The root that `write` wrote, and the further roots in `TRUSTED` beside it if there are any.

        Raises: AuthorityError when one is missing or damaged, or the key is not the root's.
        """
        try:
            key = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate((folder / "authority.pem").read_bytes())
            kept = folder / TRUSTED
            further = kept.read_bytes() if kept.exists() else b""
        except (OSError, ValueError) as error:
            raise AuthorityError(f"No usable authority in {folder}: {error}. Create one anew.") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError(
                f"The authority in {folder} has no elliptic-curve key; TLS 1.3 alone needs one."
            )
        if key.public_key() != certificate.public_key():
            raise AuthorityError(
                f"The key in {folder} is not that of the root beside it: put both there again."
            )
        found = cls(key, certificate, clock)
        return found.trusting(further) if further.strip() else found

    def write(self, folder: Path) -> None:
        """Writes authority.key and authority.pem, readable by the owner alone."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / "authority.key", key_pem(self._key))
        write_private(folder / "authority.pem", self._pem)

    @property
    def trusted_pem(self) -> bytes:
        """What peers are to trust: this root, then those kept beside it (its predecessor or its successor)."""
        return self._trusted

    def trusting(self, further_pem: bytes) -> Authority:
        """The same authority, whose peers also trust these roots (PEM): two stand side by side while one replaces
        the other. Raises: AuthorityError when they are no certificates of authorities.
        """
        for root in roots_of(further_pem):
            try:
                basic = root.extensions.get_extension_for_class(x509.BasicConstraints).value
            except x509.ExtensionNotFound:
                basic = x509.BasicConstraints(ca=False, path_length=None)
            if not basic.ca:
                raise AuthorityError(
                    f"{root.subject.rfc4514_string()[:120]!r} is not the certificate of an authority; peers must not "
                    "be told to trust it."
                )
        kept = [pem_of(root) for root in roots_of(further_pem) if root != self._certificate]
        made = Authority(self._key, self._certificate, self._clock)
        made._trusted = b"".join([self._pem, *dict.fromkeys(kept)])
        return made

    def issue(
        self, identity: Identity, validity_seconds: float = DAY_SECONDS, hosts: tuple[str, ...] = ()
    ) -> Credentials:
        """A new key and a certificate for it, valid from now (less `BACKDATE_SECONDS`).

        `hosts` are further DNS names a server is dialled by. Raises: AuthorityError for a name that is no DNS
        name, or a validity that is not positive.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.sign(identity, key.public_key(), validity_seconds, hosts)
        return Credentials(
            identity=identity,
            key_pem=key_pem(key),
            certificate_pem=pem_of(certificate),
            authority_pem=self._trusted,
            expires_seconds=certificate.not_valid_after_utc.timestamp(),
        )

    def sign(
        self,
        identity: Identity,
        key: ec.EllipticCurvePublicKey,
        validity_seconds: float = DAY_SECONDS,
        hosts: tuple[str, ...] = (),
    ) -> x509.Certificate:
        """A certificate for a key that somebody else holds. It never outlives the root.

        Raises: AuthorityError for a name that is no DNS name, a validity that is not positive, a key that is not on
        P-256, or a root that has ended.
        """
        if not _NAME.fullmatch(identity.name):
            raise AuthorityError(
                f"{identity.name[:80]!r} cannot be a {identity.role}'s name in a certificate: lower-case letters, "
                "digits, '-' and '.', 200 at most."
            )
        if not validity_seconds > 0:
            raise AuthorityError(
                f"A validity of {validity_seconds} s is none; give a positive number of seconds."
            )
        if not isinstance(key.curve, ec.SECP256R1):
            raise AuthorityError(
                f"A key on the curve {key.curve.name} is not signed here; make one on P-256."
            )
        now = self._clock.now()
        rest = self._certificate.not_valid_after_utc.timestamp() - now
        if rest <= 0:
            raise AuthorityError("The root of this authority has expired: create it anew.")
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in (identity.dns, *hosts)]
        return (
            _builder(
                _subject(f"{identity.role} {identity.name}"[:64]),
                self._certificate.subject,
                key,
                x509.random_serial_number(),
                now,
                min(validity_seconds, rest),
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_purposes(identity.role)), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([*names, x509.UniformResourceIdentifier(identity.uri)]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


def roots_of(bundle_pem: bytes) -> list[x509.Certificate]:
    """The certificates of a bundle. Raises: AuthorityError when there is none, or one cannot be read."""
    try:
        return x509.load_pem_x509_certificates(bundle_pem)
    except ValueError as error:
        raise AuthorityError(f"No certificate can be read from the bundle of roots: {error}.") from error


def pem_of(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PKCS #8 in PEM, not encrypted: for memory and for files of mode 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def identity_of(certificate: x509.Certificate) -> Identity:
    """The one identity of a certificate. Raises: AuthorityError when it has none or several."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as missing:
        raise AuthorityError("The certificate has no subject alternative name: issue it anew.") from missing
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise AuthorityError(f"The certificate names {len(uris)} URIs; it must name exactly one.")
    return Identity.parse(uris[0])


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file atomically; mode 0600 from its first byte on."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _purposes(role: Role) -> list[x509.ObjectIdentifier]:
    served = [ExtendedKeyUsageOID.SERVER_AUTH] if role in SERVES else []
    return [*served, ExtendedKeyUsageOID.CLIENT_AUTH]


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    now_seconds: float,
    validity_seconds: float,
) -> x509.CertificateBuilder:
    now = dt.datetime.fromtimestamp(now_seconds, dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - dt.timedelta(seconds=BACKDATE_SECONDS))
        .not_valid_after(now + dt.timedelta(seconds=validity_seconds))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

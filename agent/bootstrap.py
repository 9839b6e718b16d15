"""An agent's certificate for its projected token: asked of the operator, renewed at two thirds of its life.

The token's file is read anew at each use, because the kubelet exchanges it every few minutes; the bundle of roots
that the operator is checked by likewise. The key is made here for each certificate and never leaves the process,
unless a folder is given, where it is kept with mode 0600 so that a restart needs no operator. While the operator is
away, or refuses, the agent goes on with the certificate it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.node.daemon import HUB
from runtime.authority import (
    AuthorityError,
    Credentials,
    Identity,
    Role,
    identity_of,
    key_pem,
    pem_of,
    roots_of,
)
from runtime.channels import KIB, Backoff, Limits, channel_options
from runtime.clock import Clock
from runtime.pausing import pause
from runtime.tls import certificate_free_credentials
from wire import enrolment_pb2 as pb
from wire import enrolment_pb2_grpc

logger = logging.getLogger(__name__)

REFUSAL = "x-plimsoll-refusal"
LIMITS = Limits(receive_bytes=64 * KIB, send_bytes=32 * KIB)
MOST_TOKEN_BYTES = 8 * KIB
MOST_BUNDLE_BYTES = 256 * KIB
JITTER = 0.05
"""A renewal comes up to this share of the certificate's life before its moment, so that a fleet's do not meet."""
RENEW_FRACTION = 2.0 / 3.0
LONGEST_PAUSE_SECONDS = 60.0
"""The clock is looked at so often: a machine that slept renews soon after it wakes."""


class BootstrapError(AuthorityError):
    """No certificate this time. `reason` is the operator's word for a refusal, or `unreachable`, `files`, `answer`."""

    def __init__(self, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class BootstrapConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where an agent gets its certificate. `folder` None: the key is kept in memory only.

    `base_seconds` and `cap_seconds` bound the pause between two tries (decorrelated jitter).
    """

    node: str
    endpoint: str
    token_file: Path
    ca_file: Path
    folder: Path | None = None
    hub: Identity = HUB
    version: str = "0.1.0"
    deadline_seconds: float = 10.0
    base_seconds: float = 0.5
    cap_seconds: float = 30.0


class Bootstrap:
    """One node's certificate and its renewal. Calling `credentials` is a `Source` for every connection."""

    def __init__(self, config: BootstrapConfig, clock: Clock, draw: Callable[[float, float], float]) -> None:
        """`draw(low, high)` is the random source of back-off and jitter. The clock must be on wall time.

        What the folder holds is used if it is this node's and still valid.
        """
        self._config = config
        self._clock = clock
        self._draw = draw
        self._identity = Identity(Role.NODE, config.node)
        self._backoff = Backoff(draw, config.base_seconds, config.cap_seconds)
        self._renew_at_seconds = clock.now()
        self.enrolled = 0
        """Certificates got since the start."""
        self.refused: dict[str, int] = {}
        """Tries without a certificate, by reason."""
        self._held = self._kept()

    def credentials(self) -> Credentials:
        """The certificate in force. Raises: BootstrapError before the first one."""
        if self._held is None:
            raise BootstrapError(
                f"Node {self._config.node} has no certificate yet; it is asked for at {self._config.endpoint}.",
                "none",
            )
        return self._held

    @property
    def renew_at_seconds(self) -> float:
        """When the next certificate is asked for (UTC seconds); now or earlier means at once."""
        return self._renew_at_seconds

    async def enrol(self) -> Credentials:
        """One try to get a certificate, which is in force when this returns. Raises: BootstrapError."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            answer = await self._ask(key)
            found = self._checked(answer, key)
        except BootstrapError as error:
            self.refused[error.reason] = self.refused.get(error.reason, 0) + 1
            raise
        now = self._clock.now()
        self._held = found
        self._renew_at_seconds = now + self._pause(found.expires_seconds - now, answer)
        self.enrolled += 1
        self._keep(found)
        logger.info(
            "certificate in force",
            extra={
                "facts": {
                    "node": self._config.node,
                    "valid_seconds": round(found.expires_seconds - now),
                    "renew_in_seconds": round(self._renew_at_seconds - now),
                }
            },
        )
        return found

    async def run(self, stop: asyncio.Event) -> None:
        """Gets the first certificate and renews it until `stop` is set. Never ends by itself, whatever the operator
        answers; what it answers is logged once for each change.
        """
        told = ""
        while not stop.is_set():
            wait = self._renew_at_seconds - self._clock.now()
            if wait <= 0:
                try:
                    await self.enrol()
                except BootstrapError as error:
                    wait = self._backoff.next_seconds()
                    if error.reason != told:
                        logger.warning("no certificate: %s%s", error, self._still())
                    told = error.reason
                else:
                    self._backoff.reset()
                    told = ""
                    continue
            await pause(stop, min(wait, LONGEST_PAUSE_SECONDS))

    def _still(self) -> str:
        if self._held is None:
            return ""
        left = self._held.expires_seconds - self._clock.now()
        if left <= 0:
            return " The one at hand has ended."
        return f" The one at hand is good for another {left:.0f} s."

    def _pause(self, life_seconds: float, answer: pb.EnrolResponse) -> float:
        """Seconds until the renewal: two thirds of the life, or sooner if the operator says so, less the jitter."""
        wanted = RENEW_FRACTION * life_seconds
        if 0 < answer.renew_seconds < wanted:
            wanted = answer.renew_seconds
        return max(self._config.base_seconds, wanted - self._draw(0.0, JITTER * life_seconds))

    # -------------------------------------------------------------------------------------------- the question

    async def _ask(self, key: ec.EllipticCurvePrivateKey) -> pb.EnrolResponse:
        token, roots = await asyncio.to_thread(self._files)
        request = pb.EnrolRequest(
            token=token, signing_request=signing_request(self._identity, key), version=self._config.version
        )
        channel: Any = grpc.aio.secure_channel(
            self._config.endpoint,
            certificate_free_credentials(roots),
            options=channel_options(LIMITS, self._config.hub),
        )
        stub: Any = enrolment_pb2_grpc.EnrolmentStub(channel)
        try:
            answer: pb.EnrolResponse | None = await stub.Enrol(request, timeout=self._config.deadline_seconds)
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error) from None
        finally:
            await channel.close()
        if answer is None:  # what gRPC gives for bytes that are no message
            raise self._odd("cannot be read")
        return answer

    def _files(self) -> tuple[str, bytes]:
        """Token and roots, as they are now."""
        token = _read(self._config.token_file, "--token-file", "the projected token", MOST_TOKEN_BYTES)
        roots = _read(self._config.ca_file, "--ca-file", "the bundle of roots", MOST_BUNDLE_BYTES)
        try:
            roots_of(roots)
            return token.decode("ascii").strip(), roots
        except AuthorityError as error:
            raise BootstrapError(f"--ca-file {self._config.ca_file}: {error}", "files") from error
        except UnicodeDecodeError:
            raise BootstrapError(f"--token-file {self._config.token_file} holds no token.", "files") from None

    def _refusal(self, error: grpc.aio.AioRpcError) -> BootstrapError:
        trailing: Any = error.trailing_metadata() or ()
        reason = str(dict(trailing).get(REFUSAL, ""))
        if reason:
            return BootstrapError(
                f"The operator at {self._config.endpoint} signs no certificate for {self._config.node} "
                f"({reason}): {error.details()}",
                reason,
            )
        return BootstrapError(
            f"The operator at {self._config.endpoint} cannot be asked for a certificate ({error.code().name}: "
            f"{error.details() or 'no details'}): is it there, and is its certificate of a root in "
            f"{self._config.ca_file}?",
            "unreachable",
        )

    # -------------------------------------------------------------------------------------------- the answer

    def _checked(self, answer: pb.EnrolResponse, key: ec.EllipticCurvePrivateKey) -> Credentials:
        """The answer as credentials: of this node, for this key, signed by a root that comes with it."""
        try:
            certificate = x509.load_pem_x509_certificate(answer.certificate)
            roots = roots_of(answer.roots)
            identity = identity_of(certificate)
        except (ValueError, AuthorityError) as error:
            raise self._odd(f"cannot be read: {error}") from error
        if identity != self._identity:
            raise self._odd(f"is of {identity.uri}")
        if certificate.public_key() != key.public_key():
            raise self._odd("is not for the key that was sent")
        if not any(_signed_by(certificate, root) for root in roots):
            raise self._odd("is signed by none of the roots that came with it")
        expires = certificate.not_valid_after_utc.timestamp()
        if expires <= self._clock.now():
            raise self._odd("has ended already: compare the clocks of this node and the operator")
        return Credentials(
            identity=identity,
            key_pem=key_pem(key),
            certificate_pem=pem_of(certificate),
            authority_pem=answer.roots,
            expires_seconds=expires,
        )

    def _odd(self, what: str) -> BootstrapError:
        return BootstrapError(
            f"The certificate that the operator at {self._config.endpoint} gave {what.rstrip('.')}.", "answer"
        )

    # -------------------------------------------------------------------------------------------- the folder

    def _kept(self) -> Credentials | None:
        """What an earlier process left in the folder, if it is of any use."""
        if self._config.folder is None:
            return None
        try:
            found = Credentials.read(self._config.folder)
            certificate = x509.load_pem_x509_certificate(found.certificate_pem)
            key = serialization.load_pem_private_key(found.key_pem, password=None)
        except (AuthorityError, ValueError, TypeError):
            return None
        now = self._clock.now()
        fits = found.identity == self._identity and key.public_key() == certificate.public_key()
        if not fits or found.expires_seconds <= now:
            return None
        began = certificate.not_valid_before_utc.timestamp()
        self._renew_at_seconds = began + RENEW_FRACTION * (found.expires_seconds - began)
        return found

    def _keep(self, found: Credentials) -> None:
        if self._config.folder is None:
            return
        try:
            found.write(self._config.folder)
        except OSError as error:
            logger.warning(
                "the certificate is kept in memory only: %s cannot be written (%s)",
                self._config.folder,
                error.strerror or error,
            )


def signing_request(identity: Identity, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PKCS #10 request in DER for one identity, signed by the key that it holds."""
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(name, critical=True)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.DER)


def _signed_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _read(file: Path, option: str, what: str, most_bytes: int) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(most_bytes + 1)
    except OSError as error:
        raise BootstrapError(
            f"{option} {file} cannot be read ({error.strerror or error}): mount {what} there.", "files"
        ) from error
    if not content.strip():
        raise BootstrapError(f"{option} {file} is empty: mount {what} there.", "files")
    if len(content) > most_bytes:
        raise BootstrapError(f"{option} {file} is larger than {most_bytes} bytes; {what} is not.", "files")
    return content

"""What a reviewed token and a signing request must say. Pure: no clock, no network."""

from __future__ import annotations

import base64
import binascii

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

from controller.enrolment.refusals import Reason, Refused
from controller.enrolment.review import Review
from runtime.authority import AuthorityError, Identity, Role

AUDIENCE = "plimsoll-enrolment"
MOST_TOKEN_BYTES = 8 * 1024
"""A projected token has about 1.2 kB."""
MOST_REQUEST_BYTES = 4 * 1024
"""A signing request on P-256 has about 300 bytes; one with RSA 4096 some 1.6 kB."""
CLAIMS = "authentication.kubernetes.io/"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The one service account whose pods are agents."""

    namespace: str = "plimsoll-agents"
    name: str = "plimsoll-agent"

    @property
    def username(self) -> str:
        """As the API server names it."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"


class TokenClaims(msgspec.Struct, frozen=True):
    """The part of a token's payload that is looked at. Nobody has verified it before the review says so."""

    aud: tuple[str, ...] | str = ()
    exp: float = 0.0

    @property
    def audiences(self) -> tuple[str, ...]:
        """For whom the token was made."""
        return (self.aud,) if isinstance(self.aud, str) else self.aud


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The node and the pod that a token is bound to, by name and uid; `credential` is the token's own id."""

    node: str
    node_uid: str
    namespace: str
    pod: str
    pod_uid: str
    credential: str = ""


class SigningRequest(msgspec.Struct, frozen=True):
    """A signing request whose signature holds: for whom, and the key to sign."""

    identity: Identity
    key: ec.EllipticCurvePublicKey


def read_token(token: str) -> TokenClaims:
    """The payload of a token, unverified: it serves to refuse early and to say why. Raises: Refused."""
    size = len(token.encode())
    if size > MOST_TOKEN_BYTES:
        raise Refused(
            Reason.OVERSIZE,
            f"The token has {size} bytes, more than the {MOST_TOKEN_BYTES} of any projected token: check --token-file.",
        )
    parts = token.split(".")
    try:
        if len(parts) != 3 or not all(parts):
            raise ValueError("it has not three parts")
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(payload, type=TokenClaims)
    except (ValueError, binascii.Error):  # msgspec's errors are ValueErrors
        raise Refused(
            Reason.MALFORMED_TOKEN,
            "What was sent as token is no JSON web token: --token-file must name the file of a projected service "
            "account token.",
        ) from None


def require_audience(audiences: tuple[str, ...], audience: str) -> None:
    """A token for us alone: one that others accept too could be used in the agent's name. Raises: Refused."""
    if audiences != (audience,):
        shown = ", ".join(repr(each[:80]) for each in audiences[:4]) or "nobody in particular"
        raise Refused(
            Reason.WRONG_AUDIENCE,
            f"The token is for {shown}, and must be for {audience!r} alone: set audience of the serviceAccountToken "
            "projection in the agent's pod.",
        )


def bound_by(
    review: Review, claims: TokenClaims, account: Account, audience: str, now_seconds: float
) -> Bound:
    """What an authenticated token is bound to; everything else is refused. Raises: Refused."""
    if not review.authenticated:
        raise _not_authenticated(claims, now_seconds)
    require_audience(review.audiences, audience)
    require_audience(claims.audiences, audience)
    if review.username != account.username:
        raise Refused(
            Reason.OTHER_ACCOUNT,
            f"The token is of {review.username[:200]!r}; agents run as {account.username!r}: set serviceAccountName of "
            "the agent's pod.",
        )
    found = {
        name: review.extra.get(CLAIMS + name, ())
        for name in ("node-name", "node-uid", "pod-name", "pod-uid", "credential-id")
    }
    missing = [name for name, values in found.items() if name != "credential-id" and not _one(values)]
    if missing:
        raise Refused(
            Reason.UNBOUND,
            f"The token is bound to no pod on a node ({', '.join(missing)} missing): only the token that the kubelet "
            "projects into the agent's pod counts, on Kubernetes 1.33 or later.",
        )
    return Bound(
        node=_one(found["node-name"]),
        node_uid=_one(found["node-uid"]),
        namespace=account.namespace,
        pod=_one(found["pod-name"]),
        pod_uid=_one(found["pod-uid"]),
        credential=_one(found["credential-id"]),
    )


def _one(values: tuple[str, ...]) -> str:
    return values[0] if len(values) == 1 else ""


def _not_authenticated(claims: TokenClaims, now_seconds: float) -> Refused:
    if 0 < claims.exp <= now_seconds:
        return Refused(
            Reason.EXPIRED,
            f"The token ended {now_seconds - claims.exp:.0f} s ago: the kubelet writes a new one into the file before "
            "that; the file must be read anew each time.",
        )
    return Refused(
        Reason.NOT_AUTHENTICATED,
        "The API server does not accept the token: its pod may be gone, or it is of another cluster.",
    )


def read_request(der: bytes) -> SigningRequest:
    """A signing request, its key and signature checked. Raises: Refused."""
    if len(der) > MOST_REQUEST_BYTES:
        raise Refused(
            Reason.OVERSIZE, f"The signing request has {len(der)} bytes; {MOST_REQUEST_BYTES} are accepted."
        )
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        names, further = _names_of(request)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        raise _malformed("it is no PKCS #10 request in DER with one subject alternative name") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        size = getattr(key, "key_size", 0)
        raise Refused(
            Reason.WEAK_KEY,
            f"The key to sign is {type(key).__name__.strip('_')} of {size} bits; only keys on P-256 are signed.",
        )
    try:
        holds = request.is_signature_valid
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        holds = False
    if not holds:
        raise _malformed("its signature is not by the key that it holds")
    if further or len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise _malformed("it must ask for exactly one URI and nothing else")
    return SigningRequest(_node_of(names[0].value), key)


def _names_of(request: x509.CertificateSigningRequest) -> tuple[list[x509.GeneralName], bool]:
    """The subject alternative names asked for, and whether anything else is."""
    asked = request.extensions
    names = asked.get_extension_for_class(x509.SubjectAlternativeName).value
    further = any(each.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME for each in asked)
    return list(names), further


def _node_of(uri: str) -> Identity:
    try:
        identity = Identity.parse(uri)
    except AuthorityError as error:
        raise _malformed(str(error)) from None
    if identity.role is not Role.NODE:
        raise _malformed(f"it asks for the role {identity.role}; only nodes get a certificate here")
    return identity


def _malformed(why: str) -> Refused:
    return Refused(Reason.MALFORMED_REQUEST, f"The signing request is refused: {why.rstrip('.')}.")

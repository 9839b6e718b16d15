"""What a token and a signing request must say, case by case."""

from __future__ import annotations

import random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from controller.enrolment.claims import (
    AUDIENCE,
    CLAIMS,
    Account,
    Bound,
    TokenClaims,
    bound_by,
    read_request,
    read_token,
    require_audience,
)
from controller.enrolment.limits import Bucket, Sources, source_of
from controller.enrolment.refusals import _CODES, Reason, Refused
from controller.enrolment.review import Review
from runtime.authority import Identity, Role
from tests.enrolment.support import NODE, request_for, token_of

NOW = 1_700_000_000.0
GOOD = {
    "node-name": (NODE,),
    "node-uid": ("nu",),
    "pod-name": ("agent-1",),
    "pod-uid": ("pu",),
    "credential-id": ("JTI=1",),
}
CLAIMED = TokenClaims((AUDIENCE,), NOW + 500)


def review(**changed: object) -> Review:
    extra = {CLAIMS + name: values for name, values in GOOD.items()}
    parts: dict[str, object] = {
        "authenticated": True,
        "username": Account().username,
        "audiences": (AUDIENCE,),
        "extra": extra,
    }
    return Review(**(parts | changed))  # type: ignore[arg-type]


def without(*names: str) -> dict[str, tuple[str, ...]]:
    return {CLAIMS + name: values for name, values in GOOD.items() if name not in names}


def refused_of(reviewed: Review, claims: TokenClaims = CLAIMED) -> Refused:
    with pytest.raises(Refused) as caught:
        bound_by(reviewed, claims, Account(), AUDIENCE, NOW)
    return caught.value


def test_a_token_bound_to_pod_and_node_says_both():
    assert bound_by(review(), CLAIMED, Account(), AUDIENCE, NOW) == Bound(
        node=NODE,
        node_uid="nu",
        namespace="plimsoll-agents",
        pod="agent-1",
        pod_uid="pu",
        credential="JTI=1",
    )


REVIEWS = [
    pytest.param(review(authenticated=False), CLAIMED, Reason.NOT_AUTHENTICATED, "its pod may be gone", id="the API server says no"),
    pytest.param(review(authenticated=False), TokenClaims((AUDIENCE,), NOW - 40), Reason.EXPIRED, "ended 40 s ago", id="a token that has ended"),
    pytest.param(review(audiences=("kubernetes",)), CLAIMED, Reason.WRONG_AUDIENCE, "'kubernetes'", id="authenticated for another audience"),
    pytest.param(review(audiences=()), CLAIMED, Reason.WRONG_AUDIENCE, "nobody in particular", id="authenticated by a server that knows no audiences"),
    pytest.param(review(), TokenClaims((AUDIENCE, "kubernetes"), NOW + 9), Reason.WRONG_AUDIENCE, "alone", id="a token that the API server would take too"),
    pytest.param(review(username="system:serviceaccount:plimsoll-agents:default"), CLAIMED, Reason.OTHER_ACCOUNT, "plimsoll-agent'", id="another account of the namespace"),
    pytest.param(review(username="system:serviceaccount:shop:plimsoll-agent"), CLAIMED, Reason.OTHER_ACCOUNT, "shop", id="an account of the same name elsewhere"),
    pytest.param(review(username="kubernetes-admin"), CLAIMED, Reason.OTHER_ACCOUNT, "kubernetes-admin", id="a person"),
    pytest.param(review(extra={}), CLAIMED, Reason.UNBOUND, "node-name, node-uid, pod-name, pod-uid", id="a token made by hand, bound to nothing"),
    pytest.param(review(extra=without("pod-name", "pod-uid")), CLAIMED, Reason.UNBOUND, "pod-name, pod-uid", id="bound to a node only"),
    pytest.param(review(extra=without("node-name", "node-uid")), CLAIMED, Reason.UNBOUND, "node-name, node-uid", id="bound to a pod that is on no node yet"),
    pytest.param(review(extra=without("node-uid")), CLAIMED, Reason.UNBOUND, "(node-uid missing)", id="a node without uid"),
    pytest.param(review(extra=without("pod-uid")), CLAIMED, Reason.UNBOUND, "(pod-uid missing)", id="a pod without uid"),
    pytest.param(review(extra=without() | {CLAIMS + "node-name": (NODE, "other")}), CLAIMED, Reason.UNBOUND, "(node-name missing)", id="two nodes in one claim"),
    pytest.param(review(extra=without() | {CLAIMS + "pod-uid": ("",)}), CLAIMED, Reason.UNBOUND, "(pod-uid missing)", id="an empty uid"),
]  # fmt: skip


@pytest.mark.parametrize(("reviewed", "claims", "reason", "says"), REVIEWS)
def test_a_token_is_refused(reviewed: Review, claims: TokenClaims, reason: Reason, says: str):
    refused = refused_of(reviewed, claims)
    assert refused.reason is reason
    assert says in str(refused)


def test_the_tokens_own_id_is_not_demanded():
    found = bound_by(review(extra=without("credential-id")), CLAIMED, Account(), AUDIENCE, NOW)
    assert found.credential == ""


@given(st.sets(st.sampled_from(["node-name", "node-uid", "pod-name", "pod-uid"]), min_size=1))
def test_no_claim_can_be_done_without(missing: set[str]):
    assert refused_of(review(extra=without(*missing))).reason is Reason.UNBOUND


TOKENS = [
    pytest.param("", Reason.MALFORMED_TOKEN, id="nothing"),
    pytest.param("abc", Reason.MALFORMED_TOKEN, id="a password"),
    pytest.param("a.b", Reason.MALFORMED_TOKEN, id="two parts"),
    pytest.param("a..c", Reason.MALFORMED_TOKEN, id="an empty payload"),
    pytest.param("a.!!!.c", Reason.MALFORMED_TOKEN, id="no base64"),
    pytest.param("a.bm90IGpzb24.c", Reason.MALFORMED_TOKEN, id="no JSON"),
    pytest.param("a.WzFd.c", Reason.MALFORMED_TOKEN, id="a list"),
    pytest.param(token_of({"aud": 7}), Reason.MALFORMED_TOKEN, id="a number for an audience"),
    pytest.param("a." + "b" * 9_000 + ".c", Reason.OVERSIZE, id="nine kilobytes"),
    pytest.param("ü" * 5_000, Reason.OVERSIZE, id="ten kilobytes in five thousand letters"),
]


@pytest.mark.parametrize(("token", "reason"), TOKENS)
def test_what_is_no_token_is_refused_before_anybody_is_asked(token: str, reason: Reason):
    with pytest.raises(Refused) as caught:
        read_token(token)
    assert caught.value.reason is reason
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "audiences"),
    [
        pytest.param({"aud": "one", "exp": 5}, ("one",), id="one audience as a word"),
        pytest.param({"aud": ["one", "two"]}, ("one", "two"), id="two in a list"),
        pytest.param({"sub": "x"}, (), id="a legacy token without any"),
    ],
)
def test_the_audiences_of_a_token(payload: dict[str, object], audiences: tuple[str, ...]):
    assert read_token(token_of(payload)).audiences == audiences


def test_the_audience_must_be_exactly_ours():
    require_audience((AUDIENCE,), AUDIENCE)
    for wrong in ((), ("plimsoll",), (AUDIENCE, AUDIENCE + "2"), (AUDIENCE.upper(),)):
        with pytest.raises(Refused) as caught:
            require_audience(wrong, AUDIENCE)
        assert caught.value.reason is Reason.WRONG_AUDIENCE


def csr(
    key: object,
    *names: x509.GeneralName,
    further: tuple[x509.ExtensionType, ...] = (),
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anything")])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in further:
        builder = builder.add_extension(extension, critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]


P256 = ec.generate_private_key(ec.SECP256R1())
URI = x509.UniformResourceIdentifier(f"spiffe://plimsoll/node/{NODE}")
FORGED = bytearray(request_for(NODE, P256))
FORGED[-1] ^= 1

WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is to be refused

REQUESTS = [
    pytest.param(csr(WEAK, URI), Reason.WEAK_KEY, "1024 bits", id="RSA of 1024 bits"),
    pytest.param(csr(rsa.generate_private_key(65537, 3072), URI), Reason.WEAK_KEY, "only keys on P-256", id="RSA that is strong, but no elliptic curve"),
    pytest.param(csr(ec.generate_private_key(ec.SECP192R1()), URI), Reason.WEAK_KEY, "192 bits", id="a short curve"),
    pytest.param(csr(ec.generate_private_key(ec.SECP384R1()), URI), Reason.WEAK_KEY, "384 bits", id="another curve"),
    pytest.param(csr(ed25519.Ed25519PrivateKey.generate(), URI), Reason.WEAK_KEY, "P-256", id="Ed25519"),
    pytest.param(b"", Reason.MALFORMED_REQUEST, "no PKCS #10", id="nothing"),
    pytest.param(b"-----BEGIN CERTIFICATE REQUEST-----", Reason.MALFORMED_REQUEST, "in DER", id="PEM"),
    pytest.param(bytes(range(256)), Reason.MALFORMED_REQUEST, "no PKCS #10", id="noise"),
    pytest.param(request_for()[:-5], Reason.MALFORMED_REQUEST, "no PKCS #10", id="cut off"),
    pytest.param(bytes(FORGED), Reason.MALFORMED_REQUEST, "signature", id="signed by another key"),
    pytest.param(csr(P256), Reason.MALFORMED_REQUEST, "one subject alternative name", id="without a name"),
    pytest.param(csr(P256, x509.DNSName(NODE)), Reason.MALFORMED_REQUEST, "exactly one URI", id="a DNS name"),
    pytest.param(csr(P256, URI, URI), Reason.MALFORMED_REQUEST, "exactly one URI", id="two URIs"),
    pytest.param(csr(P256, URI, x509.DNSName("hub.operator.plimsoll.internal")), Reason.MALFORMED_REQUEST, "exactly one URI", id="the operator's name beside its own"),
    pytest.param(csr(P256, URI, further=(x509.BasicConstraints(ca=True, path_length=None),)), Reason.MALFORMED_REQUEST, "nothing else", id="wants to sign certificates itself"),
    pytest.param(csr(P256, x509.UniformResourceIdentifier("spiffe://plimsoll/operator/hub")), Reason.MALFORMED_REQUEST, "role operator", id="wants to be the operator"),
    pytest.param(csr(P256, x509.UniformResourceIdentifier("spiffe://plimsoll/admin/admin")), Reason.MALFORMED_REQUEST, "role admin", id="wants to be a person"),
    pytest.param(csr(P256, x509.UniformResourceIdentifier("spiffe://elsewhere/node/n")), Reason.MALFORMED_REQUEST, "no identity of this cluster", id="another trust domain"),
    pytest.param(csr(P256, x509.UniformResourceIdentifier("spiffe://plimsoll/node/../operator")), Reason.MALFORMED_REQUEST, "no identity", id="a path"),
    pytest.param(b"0" * 5_000, Reason.OVERSIZE, "5000 bytes", id="five kilobytes"),
]  # fmt: skip


@pytest.mark.parametrize(("der", "reason", "says"), REQUESTS)
def test_a_signing_request_is_refused(der: bytes, reason: Reason, says: str):
    with pytest.raises(Refused) as caught:
        read_request(der)
    assert caught.value.reason is reason
    assert says in str(caught.value)


def test_a_good_signing_request_says_who_and_which_key():
    found = read_request(request_for(NODE, P256))
    assert found.identity == Identity(Role.NODE, NODE)
    assert found.key == P256.public_key()


@given(st.binary(max_size=600))
def test_no_bytes_break_the_reader(der: bytes):
    with pytest.raises(Refused):
        read_request(der)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_request_with_one_byte_changed_is_refused_or_still_for_this_node(where: int, change: int):
    der = bytearray(request_for(NODE, P256))
    der[where % len(der)] ^= change
    try:
        found = read_request(bytes(der))
    except Refused:
        return
    assert found.identity == Identity(Role.NODE, NODE)  # an unsigned byte of the encoding


def test_every_reason_has_a_status():
    assert set(_CODES) == set(Reason)


def test_a_bucket_lets_a_burst_pass_and_then_its_rate():
    bucket = Bucket(2.0, 3.0, 0.0)
    assert [bucket.take(0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(at) for at in (0.4, 0.5, 0.6, 1.0)] == [False, True, False, True]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_sources_are_bounded_and_apart_from_each_other():
    now = [0.0]
    sources = Sources(1.0, 1.0, 2, lambda: now[0])
    assert sources.take("a")
    assert not sources.take("a")
    assert sources.take("b")
    assert sources.take("c")  # "a", not heard of for longest, makes room
    assert len(sources) == 2
    assert sources.take("a")


@given(st.lists(st.integers(0, 40), max_size=200), st.integers(1, 8))
def test_never_more_sources_than_allowed(asked: list[int], most: int):
    sources = Sources(1.0, 1.0, most, random.random)
    for each in asked:
        sources.take(str(each))
    assert len(sources) <= most


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("ipv4:10.0.0.7:40112", "ipv4:10.0.0.7"),
        ("ipv6:%5B::1%5D:40112", "ipv6:%5B::1%5D"),
        ("unix", "unix"),
    ],
)
def test_a_source_is_an_address_without_its_port(peer: str, source: str):
    assert source_of(peer) == source

"""The service `plimsoll.v1.Enrolment`: one request in, a certificate or a refusal out.

Cheap checks come first, so that junk costs the API server nothing: who leads, how much this source asks, sizes, the
token's shape and audience, the signing request. Then the review, the claims, the operator's own view of node and
pod, and the signature. Nothing of a request outlives its call, and no part of a token is logged or answered.

There is no revocation list. Certificates are short, and a renewal is an enrolment like the first: when its node is
deleted or its pod is gone, the agent gets no further one, and what it holds ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from controller.enrolment.authorities import RENEW_FRACTION
from controller.enrolment.claims import (
    AUDIENCE,
    Account,
    Bound,
    SigningRequest,
    bound_by,
    read_request,
    read_token,
    require_audience,
)
from controller.enrolment.limits import Bucket, Sources, source_of
from controller.enrolment.presence import Presence
from controller.enrolment.refusals import Reason, Refused
from controller.enrolment.review import Reviewer, ReviewFailed
from runtime.authority import DAY_SECONDS, Authority, AuthorityError, pem_of
from runtime.clock import Clock
from runtime.tls import PeerRefused, require_transport
from wire import enrolment_pb2 as pb
from wire import enrolment_pb2_grpc

logger = logging.getLogger(__name__)

SIGNED = "signed"


class EnrolmentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens, how long a certificate lives, and how much is taken at once.

    `in_flight` requests may wait for reviews; `reviews_per_second` bounds what reaches the API server, with as many
    at once as a fleet that restarts may need; `source_per_second` and `source_burst` bound one address.
    """

    account: Account = Account()
    audience: str = AUDIENCE
    validity_seconds: float = DAY_SECONDS
    in_flight: int = 64
    review_seconds: float = 6.0
    reviews_per_second: float = 50.0
    review_burst: float = 500.0
    source_per_second: float = 1.0
    source_burst: float = 10.0
    sources: int = 10_000


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServicer):
    """Answers agents. All calls belong to one event loop.

    `authority()` gives the root in force, `leads()` whether this operator leads, `counted(outcome, seconds)` is told of
    each answer: `signed`, or the reason of the refusal; `signed(node, until_seconds)` of each certificate.
    """

    def __init__(
        self,
        reviewer: Reviewer,
        authority: Callable[[], Authority],
        clock: Clock,
        *,
        presence: Presence,
        leads: Callable[[], bool] = lambda: True,
        counted: Callable[[str, float], None] = lambda _outcome, _seconds: None,
        signed: Callable[[str, float], None] = lambda _node, _until_seconds: None,
        config: EnrolmentConfig = EnrolmentConfig(),  # noqa: B008 - frozen
    ) -> None:
        self._reviewer = reviewer
        self._authority = authority
        self._clock = clock
        self._presence = presence
        self._leads = leads
        self._counted = counted
        self._signed = signed
        self._config = config
        self._sources = Sources(
            config.source_per_second, config.source_burst, config.sources, clock.monotonic
        )
        self._reviews = Bucket(config.reviews_per_second, config.review_burst, clock.monotonic())
        self._in_flight = 0
        self.outcomes: Counter[str] = Counter()
        """Answers so far, by outcome."""

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolResponse:
        """One certificate (the contract's method)."""
        began = self._clock.monotonic()
        try:
            answer = await self._bounded(request, context)
        except Refused as refused:
            self._count(refused.reason.value, began)
            logger.warning(
                "no certificate signed",
                extra={
                    "facts": {"peer": context.peer(), "reason": refused.reason.value, "why": str(refused)}
                },
            )
            await context.abort(refused.code, str(refused), refused.trailing)
            raise  # abort has raised already
        except Exception:
            self._count(Reason.INTERNAL.value, began)
            logger.exception("an enrolment failed by a defect of the operator")
            internal = Refused(Reason.INTERNAL, "The operator failed at this; its log says where.")
            await context.abort(internal.code, str(internal), internal.trailing)
            raise
        self._count(SIGNED, began)
        return answer

    def _count(self, outcome: str, began: float) -> None:
        self.outcomes[outcome] += 1
        self._counted(outcome, self._clock.monotonic() - began)

    async def _bounded(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolResponse:
        try:
            require_transport(context.auth_context())
        except PeerRefused as refused:
            raise Refused(Reason.TRANSPORT, str(refused)) from refused
        if not self._leads():
            raise Refused(
                Reason.NOT_LEADER, "This operator does not lead: dial again, the Service finds the leader."
            )
        if not self._sources.take(source_of(context.peer())):
            raise Refused(Reason.TOO_MANY, "This address asks too often: wait longer between two tries.")
        if self._in_flight >= self._config.in_flight:
            raise Refused(
                Reason.BUSY, f"{self._in_flight} enrolments are being answered: try again after a pause."
            )
        self._in_flight += 1
        try:
            return await self._enrol(request, context)
        finally:
            self._in_flight -= 1

    async def _enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolResponse:
        claims = read_token(request.token)
        require_audience(claims.audiences, self._config.audience)
        wanted = read_request(request.signing_request)
        if not self._reviews.take(self._clock.monotonic()):
            raise Refused(Reason.BUSY, "Too many tokens are being reviewed: try again after a pause.")
        review = await self._review(request.token)
        bound = bound_by(review, claims, self._config.account, self._config.audience, self._clock.now())
        if wanted.identity.name != bound.node:
            raise Refused(
                Reason.OTHER_NODE,
                f"The token is of a pod on {bound.node!r}, and the request is for {wanted.identity.name!r}: an agent "
                "speaks for its own node only; set --node from spec.nodeName.",
            )
        if why := self._presence.missing(bound):
            raise Refused(Reason.GONE, f"No certificate for a pod that is not there: {why}.")
        return self._sign(wanted, bound, request.version, context)

    async def _review(self, token: str) -> Any:
        try:
            async with asyncio.timeout(self._config.review_seconds):
                return await self._reviewer.review(token, self._config.audience)
        except ReviewFailed as error:
            raise Refused(Reason.API_SERVER, str(error)) from None
        except TimeoutError:
            raise Refused(
                Reason.API_SERVER,
                f"The API server did not review the token in {self._config.review_seconds:g} s; it is tried again.",
            ) from None

    def _sign(self, wanted: SigningRequest, bound: Bound, version: str, context: Any) -> pb.EnrolResponse:
        now = self._clock.now()
        try:
            authority = self._authority()
            certificate = authority.sign(wanted.identity, wanted.key, self._config.validity_seconds)
        except AuthorityError as error:
            raise Refused(Reason.AUTHORITY, f"The operator cannot sign: {error}") from error
        until = certificate.not_valid_after_utc.timestamp()
        valid = until - now
        self._signed(bound.node, until)
        logger.info(
            "certificate signed",
            extra={
                "facts": {
                    "node": bound.node,
                    "pod": f"{bound.namespace}/{bound.pod}",
                    "pod_uid": bound.pod_uid,
                    "credential": bound.credential,
                    "serial": f"{certificate.serial_number:x}",
                    "valid_seconds": round(valid),
                    "agent": version[:64],
                    "peer": context.peer(),
                }
            },
        )
        return pb.EnrolResponse(
            certificate=pem_of(certificate),
            roots=authority.trusted_pem,
            valid_seconds=valid,
            renew_seconds=RENEW_FRACTION * valid,
        )

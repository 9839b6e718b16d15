"""Why an agent gets no certificate: a closed list of reasons, each with its status and a sentence that says what to do."""

from __future__ import annotations

from enum import StrEnum

import grpc

REFUSAL = "x-plimsoll-refusal"
"""Trailing metadata: the reason in one word."""
AGAIN = "x-plimsoll-again"
"""Trailing metadata: "yes" where the very same request may succeed later."""


class Reason(StrEnum):
    """Reasons, as metrics and the trailing metadata have them."""

    NOT_LEADER = "not_leader"
    TOO_MANY = "too_many"
    BUSY = "busy"
    OVERSIZE = "oversize"
    MALFORMED_TOKEN = "malformed_token"  # noqa: S105 - a reason, not a secret
    MALFORMED_REQUEST = "malformed_request"
    WEAK_KEY = "weak_key"
    WRONG_AUDIENCE = "wrong_audience"
    EXPIRED = "expired"
    NOT_AUTHENTICATED = "not_authenticated"
    OTHER_ACCOUNT = "other_account"
    UNBOUND = "unbound"
    OTHER_NODE = "other_node"
    GONE = "gone"
    API_SERVER = "api_server"
    AUTHORITY = "authority"
    TRANSPORT = "transport"
    INTERNAL = "internal"


_CODES = {
    Reason.NOT_LEADER: grpc.StatusCode.UNAVAILABLE,
    Reason.TOO_MANY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.OVERSIZE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.MALFORMED_TOKEN: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.MALFORMED_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.WEAK_KEY: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.WRONG_AUDIENCE: grpc.StatusCode.UNAUTHENTICATED,
    Reason.EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.NOT_AUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.OTHER_ACCOUNT: grpc.StatusCode.PERMISSION_DENIED,
    Reason.UNBOUND: grpc.StatusCode.PERMISSION_DENIED,
    Reason.OTHER_NODE: grpc.StatusCode.PERMISSION_DENIED,
    Reason.GONE: grpc.StatusCode.PERMISSION_DENIED,
    Reason.API_SERVER: grpc.StatusCode.UNAVAILABLE,
    Reason.AUTHORITY: grpc.StatusCode.UNAVAILABLE,
    Reason.TRANSPORT: grpc.StatusCode.PERMISSION_DENIED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
}
_PASSING = frozenset(
    {
        Reason.NOT_LEADER,
        Reason.TOO_MANY,
        Reason.BUSY,
        Reason.EXPIRED,  # the kubelet writes a new token into the file
        Reason.GONE,  # the operator may only not have seen it yet
        Reason.API_SERVER,
        Reason.AUTHORITY,
        Reason.INTERNAL,
    }
)


class Refused(Exception):
    """No certificate. The text is a sentence for the agent's log; no part of a token is ever in it."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason

    @property
    def code(self) -> grpc.StatusCode:
        """The status of the call."""
        return _CODES[self.reason]

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later without anybody mending anything."""
        return self.reason in _PASSING

    @property
    def trailing(self) -> tuple[tuple[str, str], ...]:
        """The trailing metadata of the call."""
        return ((REFUSAL, self.reason.value), (AGAIN, "yes" if self.passing else "no"))

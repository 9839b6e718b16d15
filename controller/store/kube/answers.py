"""From the API server's answers to the store's: status objects, headers, broken connections.

The server's own sentence is kept. Where it says nothing of use (an unknown path is "the server could not find the
requested resource") what was asked is added.
"""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import msgspec
from kubernetes.aio.client.exceptions import ApiException

from controller.store.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)

LONGEST_BODY = 2_000
"""Of an answer that is no Status, so much is told."""

RETRY_SECONDS = 1.0
"""Wait after a 429 that does not say how long (client-go's default)."""


class _Cause(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    causes: tuple[_Cause, ...] = ()
    retry_after_seconds: int = 0


class Status(msgspec.Struct, frozen=True):
    """What the API server answers instead of an object (metav1.Status), as far as we read it."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None

    @property
    def causes(self) -> tuple[Cause, ...]:
        """One for each fault that the server lists."""
        found = self.details.causes if self.details else ()
        return tuple(Cause(each.field, each.reason, each.message) for each in found)


_STATUS = msgspec.json.Decoder(Status)
_BY_CODE: dict[int, type[StoreError]] = {
    400: BadRequest,
    403: Forbidden,
    404: NotFound,
    405: BadRequest,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    415: BadRequest,
    422: Invalid,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
_BY_REASON: dict[str, type[StoreError]] = {
    "AlreadyExists": AlreadyExists,
    "Expired": Gone,
    "Gone": Gone,
    "ServerTimeout": Unavailable,
    "Timeout": Unavailable,
}
_PASSING = ("etcdserver:", "rpc error:", "context deadline exceeded", "storage is (re)initializing")
"""Words of a 500 that speak of the server's own troubles, which pass, and not of the request."""


_REFUSED = (
    "failed to create typed patch object",
    "field not declared in schema",
    "resourceVersion: Invalid value",
    "resourceVersion should not be set",
)
"""Words of a 500 that are about the request all the same (measured on 1.36.3)."""

_NOWHERE = ("the server could not find the requested resource", "404 page not found")


def error_of(answer: ApiException, doing: str) -> StoreError:
    """The store's error for an answer that is no success. `doing` says what was asked, in words."""
    body = answer.body or ""
    status = status_of(body.encode(), answer.status or 0)
    return refusal(status, doing, seconds(answer.headers.get("Retry-After") if answer.headers else None))


def status_of(body: bytes, code: int) -> Status:
    """The Status in a body; for any other body (a proxy's page) one that quotes it."""
    try:
        status = _STATUS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        words = body[:LONGEST_BODY].decode("utf-8", "replace").strip()
        return Status(message=words or f"HTTP {code} without a word", code=code)
    return msgspec.structs.replace(status, code=code) if code else status


def refusal(status: Status, doing: str, retry_after_seconds: float = 0.0) -> StoreError:
    """The store's error for a Status, by its reason first and its code second."""
    message = status.message or f"HTTP {status.code} without a word"
    if status.details and status.details.retry_after_seconds:
        retry_after_seconds = max(retry_after_seconds, float(status.details.retry_after_seconds))
    if status.code == 429:
        # A PodDisruptionBudget's name and numbers stand in the causes alone.
        said = " ".join((message, *(cause.message for cause in status.causes)))
        return TooManyRequests(f"{doing}: {said}", retry_after_seconds or RETRY_SECONDS, status.causes)
    if status.code == 401:
        return Forbidden(
            f"{doing}: the API server does not know who is asking ({message}); renew the credentials in the "
            "kubeconfig, or look whether the account's token is mounted"
        )
    kind = _BY_REASON.get(status.reason) or _BY_CODE.get(status.code, StoreError)
    if kind is StoreError:
        kind = _by_words(message)
    if kind is Unavailable:
        return Unavailable(f"{doing}: {message}", status.causes, retry_after_seconds)
    if kind is NotFound and message in _NOWHERE:
        message = f"the server could not find the requested resource ({doing.partition(' ')[2]})"
    elif kind is StoreError:
        message = f"{doing}: {message}"
    return kind(message, status.causes)


def unanswered(error: BaseException, endpoint: str, doing: str) -> StoreError:
    """What it means that no answer came. Whether a write happened is then unknown."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return Unavailable(
            f"{doing}: {endpoint} shows a certificate that is not trusted ({error}); "
            "check certificate-authority in the kubeconfig"
        )
    if isinstance(error, aiohttp.SocketTimeoutError | asyncio.TimeoutError | TimeoutError):
        return Unavailable(f"{doing}: the API server at {endpoint} gave no answer in time")
    return Unavailable(
        f"{doing}: the API server at {endpoint} gave no answer ({str(error) or type(error).__name__})"
    )


def _by_words(message: str) -> type[StoreError]:
    """What a 500 without a reason means."""
    if any(words in message for words in _REFUSED):
        return BadRequest
    if not message.startswith(_PASSING):
        return StoreError
    return TooLarge if "request is too large" in message else Unavailable


def seconds(header: str | None) -> float:
    """Retry-After in seconds; 0 when absent or no number (the API server never sends a date)."""
    try:
        return max(0.0, float(header)) if header else 0.0
    except ValueError:
        return 0.0

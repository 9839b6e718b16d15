"""What a refusal is, how refusals of one sort are spaced, and the word by which each is told."""

from __future__ import annotations

from typing import NamedTuple

from controller.store.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)

TERMINATING = "because it is being terminated"
"""The API server's words for a namespace that goes."""


class Pace(NamedTuple):
    """How failures of one sort are spaced: the first `free` at no wait, then `first_seconds`, doubled up to `longest`."""

    first_seconds: float
    longest_seconds: float
    free: int = 0

    def wait_seconds(self, attempts: int) -> float:
        """The wait after so many failures in a row."""
        counted = attempts - self.free
        if counted <= 0:
            return 0.0
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(counted - 1, 40))


REFUSED = Pace(20.0, 300.0)
"""A rule says no (403, 422, 400, 413): until somebody changes something, every further try is in vain."""
WEBHOOK = Pace(5.0, 300.0)
"""500: a webhook of others does not answer, or the server has a defect."""
SLOW = Pace(5.0, 60.0)
"""No answer for long: what waits holds a connection at both ends meanwhile."""
SLOW_SECONDS = 2.0
UNANSWERED = Pace(1.0, 15.0, free=1)
"""503, 504, no answer at all: as a rule the whole server, and soon over."""
CONTESTED = Pace(1.0, 60.0, free=1)
"""409: somebody else wrote meanwhile. The caches tell what, so the first is answered at once."""

PACES: tuple[tuple[type[StoreError], Pace], ...] = (
    (Forbidden, REFUSED), (Invalid, REFUSED), (BadRequest, REFUSED), (TooLarge, REFUSED),
    (Conflict, CONTESTED), (Unavailable, UNANSWERED), (TooManyRequests, UNANSWERED),
)  # fmt: skip

_WEBHOOKS = ("failed calling webhook", "failed to call webhook")


def pace_of(error: StoreError, took_seconds: float = 0.0) -> Pace | None:
    """How a failure is spaced; None for one that is no refusal (absent, there already, not sent by ourselves).

    `took_seconds` is how long its answer took, or was waited for.
    """
    if type(error) is Unavailable and took_seconds >= SLOW_SECONDS:
        return WEBHOOK if any(words in error.message for words in _WEBHOOKS) else SLOW
    if any(words in error.message for words in _WEBHOOKS):
        return WEBHOOK
    for kind, pace in PACES:
        if isinstance(error, kind):
            return pace
    return WEBHOOK if type(error) is StoreError else None


WORDS: tuple[tuple[str, str], ...] = (
    (TERMINATING, "NamespaceTerminating"),
    ("exceeded quota", "QuotaExceeded"),
    ("failed quota", "QuotaExceeded"),
    ("violates PodSecurity", "PodSecurity"),
    ("denied the request", "DeniedByWebhook"),
    ("ValidatingAdmissionPolicy", "DeniedByPolicy"),
    (" cannot ", "NotAllowed"),
    ("usage per ", "LimitRange"),
)
"""Words of a 403 by which it is told what refused; they are the API server's own (1.36.3)."""

_CODES: tuple[tuple[type[StoreError], str], ...] = (
    (Forbidden, "Forbidden"), (Invalid, "Invalid"), (BadRequest, "Invalid"), (TooLarge, "TooLarge"),
    (Conflict, "Conflict"), (TooManyRequests, "TooManyRequests"), (Unavailable, "NoAnswer"),
)  # fmt: skip


def reason_word(error: StoreError) -> str:
    """The reason of a condition that tells this refusal."""
    if any(words in error.message for words in _WEBHOOKS):
        return "WebhookFailed"
    if isinstance(error, (Forbidden, Invalid, BadRequest)):
        for words, reason in WORDS:
            if words in error.message:
                return reason
    return next((reason for kind, reason in _CODES if isinstance(error, kind)), "ServerError")

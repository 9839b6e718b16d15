"""What the server may do wrong: to a request, and to a stream that is open."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class AnswerKind(StrEnum):
    """What becomes of one request."""

    REFUSE = "refuse"
    """A Status of `code` instead of an answer."""
    SILENT = "silent"
    """Taken and never answered, the connection stays open: half open."""
    DROP = "drop"
    """The connection ends before a byte of the answer."""
    CUT = "cut"
    """The connection ends in the middle of the answer."""
    STALE = "stale"
    """A list from an older state: a server that lags behind."""
    SLOW = "slow"
    """Answered `seconds` later (0: when the test says so), with what was true when it was asked."""
    ENDS = "ends"
    """A watch that ends in order before its first event."""
    GONE_INSIDE = "gone_inside"
    """A watch that begins well and says 410 in its first line, as a real server does."""


class Answer(msgspec.Struct, frozen=True):
    """What becomes of one request; `retry_after_seconds` is said only when it is not 0."""

    kind: AnswerKind
    code: int = 500
    retry_after_seconds: int = 0
    seconds: float = 0.0


REASONS = {
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class StreamFault(StrEnum):
    """What becomes of a watch that is open."""

    CUT_EVENT = "cut_event"
    """Half of the next event, then the connection ends."""
    DROP = "drop"
    """The connection ends now."""
    END = "end"
    """The stream ends in order, as after the server's time limit."""
    SILENCE = "silence"
    """Nothing more comes, and the connection stays open: half open."""
    DUPLICATE = "duplicate"
    """The next event comes twice."""
    SWAP = "swap"
    """The next two events come in the wrong order."""

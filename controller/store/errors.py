"""What a store may answer instead of an object; one class per meaning, status codes as the API server's.

`StoreError.message` is the sentence the user sees, worded as the API server words it.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Cause(msgspec.Struct, frozen=True):
    """One of several faults in one object: the field's path, the API's cause word, the sentence."""

    field: str
    reason: str
    message: str


class StoreError(Exception):
    """Base of all answers that are no success. `code` and `reason` are the API's Status fields.

    `retry_after_seconds` is the server's own word on when to come back; 0.0 when it gave none.
    """

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"
    retry_after_seconds: float = 0.0

    def __init__(self, message: str, causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.causes = causes


class BadRequest(StoreError):
    """400: the request cannot be understood: unknown field, malformed selector, wrong kind."""

    code = 400
    reason = "BadRequest"


class Forbidden(StoreError):
    """403: not allowed to this identity, or not in this namespace now."""

    code = 403
    reason = "Forbidden"


class NotFound(StoreError):
    """404: no such object, namespace, kind or subresource."""

    code = 404
    reason = "NotFound"


class AlreadyExists(StoreError):
    """409 on create: an object of that name is there. Compare its uid before calling it success."""

    code = 409
    reason = "AlreadyExists"


class Conflict(StoreError):
    """409: a version or uid given does not match, or another manager owns a field (see `causes`)."""

    code = 409
    reason = "Conflict"


class Gone(StoreError):
    """410: the version or continue token is older than what is kept: list again."""

    code = 410
    reason = "Expired"


class TooLarge(StoreError):
    """413: the object is bigger than the server keeps."""

    code = 413
    reason = "RequestEntityTooLarge"


class Invalid(StoreError):
    """422: the object breaks rules; one cause per rule."""

    code = 422
    reason = "Invalid"


class TooManyRequests(StoreError):
    """429: not now."""

    code = 429
    reason = "TooManyRequests"

    def __init__(
        self, message: str, retry_after_seconds: float = 1.0, causes: tuple[Cause, ...] = ()
    ) -> None:
        super().__init__(message, causes)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(StoreError):
    """503, a time-out or a broken connection: whether a write happened is unknown."""

    code = 503
    reason = "ServiceUnavailable"

    def __init__(
        self, message: str, causes: tuple[Cause, ...] = (), retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(message, causes)
        self.retry_after_seconds = retry_after_seconds


class HeldBack(StoreError):
    """Not sent: the server refused the like a short time ago, in the sentence that is quoted.

    `retry_after_seconds` is how long it is still held back.
    """

    code = 429
    reason = "HeldBack"

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


RETRYABLE: tuple[type[StoreError], ...] = (TooManyRequests, Unavailable)
"""Answers after which the same request may be sent again unchanged, later."""

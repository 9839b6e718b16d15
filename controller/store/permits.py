"""Leave to send, asked at the last moment: a request may wait for its turn or be tried again long after it was made.

Whoever wraps a store sets a permit around a call; whoever puts bytes on a wire asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Permit = Callable[[], None]
"""Raises a StoreError when the request must not be sent any more."""

_permit: ContextVar[Permit | None] = ContextVar("permit", default=None)


@contextmanager
def permitted(permit: Permit) -> Iterator[None]:
    """Everything that this task sends meanwhile asks `permit` first."""
    token = _permit.set(permit)
    try:
        yield
    finally:
        _permit.reset(token)


def ask() -> None:
    """Immediately before sending. Raises what the permit in force raises; without one anything may be sent."""
    permit = _permit.get()
    if permit is not None:
        permit()

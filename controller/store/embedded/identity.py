"""What the server gives every object: identities from a seeded stream and times from the injected clock."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from uuid import UUID

from runtime.clock import Clock

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Identities:
    """Deterministic uids and name suffixes: the n-th of a seed is always the same."""

    __slots__ = ("_count", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._count = 0

    def _bytes(self) -> bytes:
        self._count += 1
        return blake2b(f"{self._seed}/{self._count}".encode(), digest_size=16).digest()

    def uid(self) -> str:
        """A new uid, in the form of a random UUID."""
        return str(UUID(bytes=self._bytes(), version=4))

    def suffix(self) -> str:
        """Five letters for a generated name."""
        return "".join(_LETTERS[byte % len(_LETTERS)] for byte in self._bytes()[:5])


class Stamps:
    """The clock's time as RFC 3339 in UTC, whole seconds, as the server writes it."""

    __slots__ = ("_clock", "_second", "_text")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._text = ""

    def now(self, later_seconds: int = 0) -> str:
        """Now, or so many seconds later."""
        second = int(self._clock.now()) + later_seconds
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._text

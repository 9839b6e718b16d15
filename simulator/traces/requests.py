"""One request of a trace, and the account of the lines that were read for it."""

from __future__ import annotations

import msgspec

MOST_TOKENS = 1_000_000
"""More tokens than any request has; a larger number is a fault of the line."""
MOST_PRIORITY = 1_000
"""Priorities lie between this and its negative."""
FAULTS_KEPT = 20
"""So many faulty lines are kept with their sentence; all are counted."""


class TraceError(ValueError):
    """A trace that cannot be used; the sentence says what is wrong, where, and what to do."""


class TraceRequest(msgspec.Struct, frozen=True, gc=False):
    """One request: 1-based line of its file (or number of a generated one), seconds after the first arrival, tokens.

    `block_hashes` name the prompt's content in blocks of `block_tokens` tokens (0 where the trace has none): two requests
    whose hashes begin alike share a prefix. `session` and `model` are empty where the trace does not tell. A higher `priority`
    goes first; 0 where the trace has none.
    """

    line: int
    arrived_seconds: float
    input_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()
    block_tokens: int = 0
    session: str = ""
    model: str = ""
    priority: int = 0


class Malformed(msgspec.Struct, frozen=True):
    """A line of a file that is no request, and why."""

    line: int
    why: str
    file: str = ""


class Tally:
    """What became of the lines of a trace: every line below the header is a request or malformed."""

    def __init__(self) -> None:
        """Nothing read."""
        self.requests = 0
        self.malformed = 0
        self.out_of_order = 0
        """Requests that arrived before their predecessor in the file; they were put in order."""
        self.faults: list[Malformed] = []
        """The first malformed lines."""

    def bad(self, line: int, why: str, file: str = "") -> None:
        """Count a malformed line."""
        self.malformed += 1
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(Malformed(line, why, file))

    def told(self) -> list[str]:
        """The malformed lines with file, number and reason; of those that were not kept, how many they are."""
        lines = [f"{fault.file}:{fault.line}: {fault.why}" for fault in self.faults]
        more = self.malformed - len(self.faults)
        return [*lines, f"{more} more lines are malformed"] if more else lines

    @property
    def lines(self) -> int:
        """Lines that were judged: requests and malformed ones."""
        return self.requests + self.malformed


def priority(text: str | int, name: str) -> int:
    """A priority, 0 for an empty cell. Raises ValueError with a sentence for no whole number, or one beyond MOST_PRIORITY."""
    if isinstance(text, str) and not text.strip():
        return 0
    try:
        value = int(text)
    except (TypeError, ValueError):
        raise ValueError(f"{name} {str(text).strip()[:40]!r} is no whole number") from None
    if abs(value) > MOST_PRIORITY:
        raise ValueError(f"{name} is {value}, must lie between -{MOST_PRIORITY} and {MOST_PRIORITY}")
    return value


def tokens(text: str | int, name: str) -> int:
    """A count of tokens. Raises ValueError with a sentence for anything but a whole number of 1 to MOST_TOKENS."""
    try:
        value = int(text)
    except (TypeError, ValueError):
        raise ValueError(f"{name} {str(text).strip()[:40]!r} is no whole number") from None
    if not 1 <= value <= MOST_TOKENS:
        raise ValueError(f"{name} is {value}, must lie between 1 and {MOST_TOKENS}")
    return value

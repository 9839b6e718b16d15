"""Azure LLM inference traces (2023, 2024): TIMESTAMP, ContextTokens, GeneratedTokens (Patel et al., Splitwise, ISCA'24)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from simulator.traces.lines import PRIORITY, cell, number, optional
from simulator.traces.requests import TraceRequest, priority, tokens

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class AzureRows:
    """Reads rows below a header; `arrived_seconds` is on the trace's own clock."""

    def __init__(self, header: Sequence[str]) -> None:
        """Find the columns."""
        self._at, self._input, self._output = (header.index(column) for column in COLUMNS)
        self._priority = optional(header, PRIORITY)
        self._widest = max(self._at, self._input, self._output)

    def request(self, line: int, cells: Sequence[str]) -> TraceRequest:
        """One row. Raises ValueError saying what is wrong with it."""
        if len(cells) <= self._widest:
            raise ValueError(f"{len(cells)} cells, needs {self._widest + 1}")
        return TraceRequest(
            line,
            timestamp(cells[self._at].strip()),
            tokens(cells[self._input], COLUMNS[1]),
            tokens(cells[self._output], COLUMNS[2]),
            priority=priority(cell(cells, self._priority), PRIORITY),
        )


def timestamp(text: str) -> float:
    """Seconds of a date and time in UTC (with up to 100 ns digits, as the Azure trace has them), or of a plain number.

    Raises ValueError for neither.
    """
    try:
        float(text)
    except ValueError:
        return _moment(text)
    return number(text, "TIMESTAMP")


def _moment(text: str) -> float:
    head, _, fraction = text.partition(".")
    zone = "+00:00"
    for mark in ("Z", "+00:00"):
        if text.endswith(mark):
            head, fraction = head.removesuffix(mark), fraction.removesuffix(mark)
    try:
        moment = datetime.fromisoformat(head + zone).astimezone(UTC).timestamp()
        return moment + (float(f"0.{int(fraction):0{len(fraction)}d}") if fraction else 0.0)
    except ValueError:
        raise ValueError(f"TIMESTAMP {text[:40]!r} is no date and time") from None

"""ServeGen (Xiang et al., 2025) requests as rows: timestamp_s, client_id, input_tokens, output_tokens, reason_tokens.

A reasoning model's thoughts are generated like its answer: both count as output.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.traces.lines import PRIORITY, cell, number, optional
from simulator.traces.requests import TraceRequest, priority, tokens

COLUMNS = ("timestamp_s", "input_tokens", "output_tokens")
CLIENT, REASON = "client_id", "reason_tokens"


class ServeGenRows:
    """Reads rows below a header."""

    def __init__(self, header: Sequence[str]) -> None:
        """Find the columns."""
        self._at, self._input, self._output = (header.index(column) for column in COLUMNS)
        self._client, self._reason = (optional(header, column) for column in (CLIENT, REASON))
        self._priority = optional(header, PRIORITY)
        self._widest = max(self._at, self._input, self._output)

    def request(self, line: int, cells: Sequence[str]) -> TraceRequest:
        """One row. Raises ValueError saying what is wrong with it."""
        if len(cells) <= self._widest:
            raise ValueError(f"{len(cells)} cells, needs {self._widest + 1}")
        thought = cell(cells, self._reason)
        return TraceRequest(
            line,
            number(cells[self._at], COLUMNS[0]),
            tokens(cells[self._input], COLUMNS[1]),
            tokens(cells[self._output], COLUMNS[2]) + (tokens(thought, REASON) if thought else 0),
            session=cell(cells, self._client),
            priority=priority(cell(cells, self._priority), PRIORITY),
        )

"""BurstGPT (Wang et al., 2024): Timestamp [s], Model, Request tokens, Response tokens; later files also Session ID."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.traces.lines import PRIORITY, cell, number, optional
from simulator.traces.requests import TraceRequest, priority, tokens

COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens")
SESSION = "Session ID"


class BurstRows:
    """Reads rows below a header. A request without an answer (it failed at the service) is no request to replay."""

    def __init__(self, header: Sequence[str]) -> None:
        """Find the columns."""
        self._at, self._model, self._input, self._output = (header.index(column) for column in COLUMNS)
        self._session = optional(header, SESSION)
        self._priority = optional(header, PRIORITY)
        self._widest = max(self._at, self._model, self._input, self._output, self._session)

    def request(self, line: int, cells: Sequence[str]) -> TraceRequest:
        """One row. Raises ValueError saying what is wrong with it."""
        if len(cells) <= self._widest:
            raise ValueError(f"{len(cells)} cells, needs {self._widest + 1}")
        if cells[self._output].strip() in ("0", "0.0"):
            raise ValueError("Response tokens is 0: the request failed where it was recorded")
        return TraceRequest(
            line,
            number(cells[self._at], COLUMNS[0]),
            tokens(cells[self._input], COLUMNS[2]),
            tokens(cells[self._output], COLUMNS[3]),
            session=cells[self._session].strip() if self._session >= 0 else "",
            model=cells[self._model].strip(),
            priority=priority(cell(cells, self._priority), PRIORITY),
        )

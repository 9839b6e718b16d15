"""Trace files as streams of requests in order of arrival, whatever their size and whichever published format."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from simulator.traces import azure, burstgpt, mooncake, servegen
from simulator.traces.lines import table_rows, text_lines
from simulator.traces.requests import Tally, TraceError, TraceRequest

REORDER = 4_096
"""So many requests are held back to put late lines in their place; nothing beyond is."""


class Rows(Protocol):
    """Reads the rows below the header of a CSV format."""

    def request(self, line: int, cells: Sequence[str]) -> TraceRequest:
        """One row. Raises ValueError saying what is wrong with it."""
        ...


_TABLES: dict[str, tuple[tuple[str, ...], Callable[[Sequence[str]], Rows]]] = {
    "azure": (azure.COLUMNS, azure.AzureRows),
    "burstgpt": (burstgpt.COLUMNS, burstgpt.BurstRows),
    "servegen": (servegen.COLUMNS, servegen.ServeGenRows),
}
FORMATS = (*sorted(_TABLES), "mooncake")
"""Names of the formats `read` knows."""


def read(
    path: Path, *, form: str = "", strict: bool = False, tally: Tally | None = None
) -> Iterator[TraceRequest]:
    """Requests of a file in order of arrival, the first at 0 s.

    `form` is one of FORMATS; empty tells it from the file's first line. Malformed lines are counted in `tally` with
    their number and reason; with `strict` the first one raises TraceError. It raises TraceError too for a file that
    cannot be read, has no such format, or holds no request at all.
    """
    tally = tally if tally is not None else Tally()
    form = form or recognise(path)
    if form not in FORMATS:
        raise TraceError(f"{path}: there is no trace format {form!r}; known are {', '.join(FORMATS)}.")
    found = _in_order(_requests(path, form, strict, tally), path, strict, tally)
    origin: float | None = None
    for request in found:
        if origin is None:
            origin = request.arrived_seconds
        tally.requests += 1
        yield msgspec.structs.replace(request, arrived_seconds=request.arrived_seconds - origin)
    if origin is None:
        raise TraceError(
            f"{path}: no request in it ({tally.malformed} malformed lines); it was read as {form}."
        )


def recognise(path: Path) -> str:
    """The format of a file by its first line. Raises TraceError when it is none of ours."""
    first = next((line for _, line in text_lines(path)), "")
    if first.lstrip().startswith("{"):
        return "mooncake"
    for name, (columns, _) in _TABLES.items():
        if all(column in first for column in columns):
            return name
    raise TraceError(
        f"{path}: line 1 is no header of a known trace: {first.strip()[:80]!r}. Known are {', '.join(FORMATS)}."
    )


def _requests(path: Path, form: str, strict: bool, tally: Tally) -> Iterator[TraceRequest]:
    for number, read_line in _lines(path, form):
        try:
            yield read_line()
        except ValueError as error:
            _bad(path, number, str(error), strict, tally)


def _lines(path: Path, form: str) -> Iterator[tuple[int, Callable[[], TraceRequest]]]:
    """Each line with what makes a request of it."""
    if form == "mooncake":
        for number, text in text_lines(path):
            yield number, lambda n=number, t=text: mooncake.request(n, t)  # type: ignore[misc]
        return
    columns, make = _TABLES[form]
    rows = table_rows(path, columns)
    _, header = next(rows)
    reader = make(header)
    for number, cells in rows:
        yield number, lambda n=number, c=cells: reader.request(n, c)  # type: ignore[misc]


def _bad(path: Path, line: int, why: str, strict: bool, tally: Tally) -> None:
    if strict:
        raise TraceError(f"{path}:{line}: {why}. Correct the line, or read without --strict to leave it out.")
    tally.bad(line, why, str(path))


def _in_order(
    requests: Iterable[TraceRequest], path: Path, strict: bool, tally: Tally
) -> Iterator[TraceRequest]:
    """Late lines put in their place as far as REORDER requests reach; one that is later still is malformed."""
    held: list[tuple[float, int, TraceRequest]] = []
    newest = given = float("-inf")
    for request in requests:
        at = request.arrived_seconds
        if at < given:
            why = (
                f"arrives {given - at:.3f} s before a request {REORDER} lines earlier; sort the trace by time"
            )
            _bad(path, request.line, why, strict, tally)
            continue
        tally.out_of_order += at < newest
        newest = max(newest, at)
        heapq.heappush(held, (at, request.line, request))
        if len(held) > REORDER:
            given, _, first = heapq.heappop(held)
            yield first
    while held:
        yield heapq.heappop(held)[2]

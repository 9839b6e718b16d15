"""Lines of a file of any size, plain or gzip, one at a time."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from simulator.traces.requests import TraceError

PRIORITY = "priority"
"""The column of priorities, which any table may have: a higher one goes first, an empty cell is 0."""
LONGEST_LINE = 1 << 17
"""Characters; a longer line is no request of any format (and the CSV reader takes no longer cell)."""


def open_text(path: Path) -> IO[str]:
    """A text stream of a file, unpacked when its name ends in .gz. Raises TraceError when it cannot be opened."""
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
        return path.open(encoding="utf-8-sig", errors="replace", newline="")
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}. Give the path of a readable file.") from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Non-empty lines with their 1-based numbers; one longer than LONGEST_LINE comes cut.

    Raises TraceError for a file that cannot be read (to its end).
    """
    number, whole = 0, True
    with open_text(path) as stream:
        try:
            while line := stream.readline(LONGEST_LINE):
                goes_on, whole = not whole, line[-1] in "\r\n"
                if goes_on:
                    continue
                number += 1
                if line.strip():
                    yield number, line
        except (OSError, EOFError, zlib.error) as error:
            raise TraceError(f"{path}: cannot be read beyond line {number}: {error}. Is it whole?") from error


def table_rows(path: Path, wanted: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """First the header (checked to have the columns wanted), then each non-empty row with its line number.

    Raises TraceError for a file that cannot be read or that lacks one of the columns.
    """
    lines = text_lines(path)
    number, header = next(((n, split(line)) for n, line in lines), (1, []))
    header = [cell.strip() for cell in header]
    missing = [column for column in wanted if column not in header]
    if missing:
        raise TraceError(
            f"{path}: line {number} has no column {missing[0]!r}; the header must name {', '.join(wanted)}."
        )
    yield number, header
    for number, line in lines:
        yield number, split(line)


def split(line: str) -> list[str]:
    """The cells of one line of CSV; a line that is none is one cell."""
    try:
        return next(csv.reader((line,)), [])
    except csv.Error:
        return [line]


def optional(header: Sequence[str], column: str) -> int:
    """Where a column is that need not be there; -1 where it is not."""
    return header.index(column) if column in header else -1


def cell(cells: Sequence[str], where: int) -> str:
    """The cell of an optional column; empty where the row or the table has none."""
    return cells[where].strip() if 0 <= where < len(cells) else ""


def number(text: str, name: str) -> float:
    """A finite number. Raises ValueError with a sentence for anything else."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} {text.strip()[:40]!r} is no number") from None
    if value - value != 0.0:
        raise ValueError(f"{name} is {text.strip()[:40]}, must be finite")
    return value

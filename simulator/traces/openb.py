"""Alibaba's openb GPU cluster (Weng et al., FGD, ATC'23): nodes and the pods that came to them, as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from simulator.traces.lines import table_rows
from simulator.traces.requests import Tally, TraceError

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
MOST = 10**12
MOST_GPUS = 1_024
"""GPUs of a node at most; a larger number is a fault of the line."""

MIB = 1 << 20
T = TypeVar("T")


class OpenbNode(msgspec.Struct, frozen=True, gc=False):
    """A node: millicores, bytes, GPUs and their product (empty without GPUs)."""

    name: str
    cpu_millis: int
    memory_bytes: int
    gpus: int
    product: str


class OpenbPod(msgspec.Struct, frozen=True, gc=False):
    """A pod: millicores, bytes, GPUs, thousandths of each, products it accepts (none means any), seconds of its life.

    Times are on the trace's clock; None where the file has none.
    """

    name: str
    cpu_millis: int
    memory_bytes: int
    gpus: int
    milli_per_gpu: int
    products: tuple[str, ...] = ()
    qos: str = ""
    created_seconds: float | None = None
    scheduled_seconds: float | None = None
    deleted_seconds: float | None = None


def read_nodes(path: Path, *, strict: bool = False, tally: Tally | None = None) -> Iterator[OpenbNode]:
    """Nodes in the file's order. Malformed lines (a name that an earlier one has is a fault too) as `reading.read`; raises
    TraceError as it does.
    """
    known = set[str]()

    def node(cells: dict[str, str]) -> OpenbNode:
        name, gpus = _name(cells, "sn"), _count(cells, "gpu", MOST_GPUS)
        product = cells["model"].strip()
        if gpus and not product:
            raise ValueError(f"{gpus} GPUs of no model")
        if name in known:
            raise ValueError(f"sn {name[:40]!r} is the name of an earlier node")
        known.add(name)
        return OpenbNode(
            name,
            _count(cells, "cpu_milli"),
            _count(cells, "memory_mib") * MIB,
            gpus,
            product if gpus else "",
        )

    return _read(path, NODE_COLUMNS, node, strict, tally)


def read_pods(path: Path, *, strict: bool = False, tally: Tally | None = None) -> Iterator[OpenbPod]:
    """Pods in the file's order. Malformed lines as `reading.read`; raises TraceError as it does."""
    return _read(path, POD_COLUMNS, _pod, strict, tally)


def _pod(cells: dict[str, str]) -> OpenbPod:
    gpus, milli = _count(cells, "num_gpu"), _count(cells, "gpu_milli")
    if gpus and not 1 <= milli <= 1_000:
        raise ValueError(f"gpu_milli is {milli}, must lie between 1 and 1000")
    if gpus > 1 and milli != 1_000:
        raise ValueError(f"{gpus} GPUs of {milli} thousandths each: only a single GPU may be shared")
    return OpenbPod(
        _name(cells, "name"),
        _count(cells, "cpu_milli"),
        _count(cells, "memory_mib") * MIB,
        gpus,
        milli if gpus else 0,
        tuple(word for part in cells.get("gpu_spec", "").split("|") if (word := part.strip())),
        cells.get("qos", "").strip(),
        *(_seconds(cells, column) for column in ("creation_time", "scheduled_time", "deletion_time")),
    )


def _read(
    path: Path,
    columns: tuple[str, ...],
    make: Callable[[dict[str, str]], T],
    strict: bool,
    tally: Tally | None,
) -> Iterator[T]:
    tally = tally if tally is not None else Tally()
    rows = table_rows(path, columns)
    _, header = next(rows)
    seen = False
    for line, cells in rows:
        try:
            noun = make(_named(header, cells, columns))
        except ValueError as error:
            if strict:
                raise TraceError(f"{path}:{line}: {error}. Correct the line, or take it out.") from None
            tally.bad(line, str(error), str(path))
            continue
        seen = True
        tally.requests += 1
        yield noun
    if not seen:
        raise TraceError(
            f"{path}: nothing in it ({tally.malformed} malformed lines): give a file with lines below its header, or take it out."
        )


def _named(header: Sequence[str], cells: Sequence[str], columns: tuple[str, ...]) -> dict[str, str]:
    named = dict(zip(header, cells, strict=False))
    missing = [column for column in columns if column not in named]
    if missing:
        raise ValueError(f"{len(cells)} cells, none for {missing[0]}")
    return named


def _name(cells: dict[str, str], column: str) -> str:
    name = cells[column].strip()
    if not name:
        raise ValueError(f"{column} is empty")
    return name


def _count(cells: dict[str, str], column: str, most: int = MOST) -> int:
    text = cells[column].strip()
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{column} {text[:40]!r} is no whole number") from None
    if not 0 <= value <= most:
        raise ValueError(f"{column} is {value}, must lie between 0 and {most}")
    return value


def _seconds(cells: dict[str, str], column: str) -> float | None:
    text = cells.get(column, "").strip()
    if not text:
        return None
    try:
        return float(int(float(text)))
    except (ValueError, OverflowError):
        raise ValueError(f"{column} {text[:40]!r} is no time") from None

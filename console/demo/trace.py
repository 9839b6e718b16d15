"""Request traces: reading a CSV of the Azure LLM form, and generating one from published statistics.

Columns TIMESTAMP, ContextTokens, GeneratedTokens. Every data line is either a request or is counted as
malformed with its line number and what is wrong with it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from cluster.seeds import stable_hash
from simulator.traces.azure import COLUMNS, AzureRows
from simulator.traces.requests import FAULTS_KEPT, Malformed, TraceError, TraceRequest

# Statistics of the Azure LLM inference trace 2023, conversation part (Patel et al., "Splitwise", ISCA'24, and the
# trace published with it): rate, CV of inter-arrival times, mean and 99th percentile of both token counts.
RATE_PER_SECOND = 5.53
ARRIVAL_CV = 1.09
INPUT_MEAN, INPUT_P99 = 1_155.0, 4_142.0
OUTPUT_MEAN, OUTPUT_P99 = 211.0, 601.0
_Z99 = 2.3263478740408408
GENERATED_START = datetime(2023, 11, 16, 18, 15, 46, tzinfo=UTC)


class Trace(msgspec.Struct, frozen=True):
    """A whole trace in order of arrival.

    `data_lines` counts non-empty lines below the header: requests and malformed ones. `out_of_order` is how
    many arrived before their predecessor; they were sorted, nothing was dropped.
    """

    name: str
    sha256: str
    requests: tuple[TraceRequest, ...]
    malformed: tuple[Malformed, ...]
    malformed_lines: int
    out_of_order: int = 0

    @property
    def data_lines(self) -> int:
        """Requests and malformed lines."""
        return len(self.requests) + self.malformed_lines

    @property
    def seconds(self) -> float:
        """Time from the first to the last arrival."""
        return self.requests[-1].arrived_seconds if self.requests else 0.0


def read_trace(path: Path) -> Trace:
    """Read a trace file.

    Raises TraceError for a file that cannot be read, has other columns, or holds no request.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TraceError(
            f"{path}: {error.strerror or error}. Give the path of a readable CSV file."
        ) from error
    return parse_trace(data, str(path))


def parse_trace(data: bytes, name: str) -> Trace:
    """Parse a trace from bytes; errors as `read_trace`."""
    reader = csv.reader(io.StringIO(data.decode("utf-8", errors="replace"), newline=""))
    header = next(reader, [])
    rows = _reader([cell.strip().lstrip("\ufeff") for cell in header], name)
    found: list[TraceRequest] = []
    malformed: list[Malformed] = []
    bad = 0
    for line, cells in _data_lines(reader):
        try:
            found.append(rows.request(line, cells))
        except ValueError as error:
            bad += 1
            if len(malformed) < FAULTS_KEPT:
                malformed.append(Malformed(line, str(error)))
    if not found:
        raise TraceError(
            f"{name}: no request in it ({bad} malformed lines); it needs lines of {', '.join(COLUMNS)}."
        )
    turned = sum(1 for a, b in itertools.pairwise(found) if b.arrived_seconds < a.arrived_seconds)
    found.sort(key=lambda request: (request.arrived_seconds, request.line))
    first = found[0].arrived_seconds
    requests = tuple(
        msgspec.structs.replace(request, arrived_seconds=request.arrived_seconds - first) for request in found
    )
    return Trace(name, hashlib.sha256(data).hexdigest(), requests, tuple(malformed), bad, turned)


def _data_lines(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    for line, cells in enumerate(reader, start=2):
        if cells and any(cell.strip() for cell in cells):
            yield line, cells


def _reader(header: list[str], name: str) -> AzureRows:
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise TraceError(
            f"{name}: line 1 has no column {missing[0]!r}; the header must be {','.join(COLUMNS)}."
        )
    return AzureRows(header)


def _lognormal(mean: float, p99: float) -> tuple[float, float]:
    """mu, sigma of the lognormal with this mean and 99th percentile: ln(p99/mean) = z sigma - sigma^2 / 2."""
    sigma = _Z99 - math.sqrt(_Z99**2 - 2.0 * math.log(p99 / mean))
    return math.log(mean) - sigma**2 / 2.0, sigma


def generate_trace(seed: int, seconds: float = 3_600.0) -> bytes:
    """A CSV with the statistics above: gamma inter-arrivals (shape 1/CV^2), lognormal token counts."""
    rng = np.random.Generator(np.random.PCG64(stable_hash(seed, "trace")))
    shape = 1.0 / ARRIVAL_CV**2
    count = int(RATE_PER_SECOND * seconds * 1.1) + 64
    gaps = rng.gamma(shape, 1.0 / (RATE_PER_SECOND * shape), size=count)
    gaps[0] = 0.0
    at = np.cumsum(gaps)
    at = at[at < seconds]
    inputs = np.clip(np.rint(rng.lognormal(*_lognormal(INPUT_MEAN, INPUT_P99), size=len(at))), 2, 14_000)
    outputs = np.clip(np.rint(rng.lognormal(*_lognormal(OUTPUT_MEAN, OUTPUT_P99), size=len(at))), 2, 1_500)
    lines = [",".join(COLUMNS)]
    start = GENERATED_START.timestamp()
    for t, i, o in zip(at.tolist(), inputs.tolist(), outputs.tolist(), strict=True):
        moment = datetime.fromtimestamp(start + t, tz=UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        lines.append(f"{moment}0,{int(i)},{int(o)}")
    return ("\n".join(lines) + "\n").encode()


def share_out(
    requests: tuple[TraceRequest, ...], services: tuple[str, ...], late: str, late_seconds: float
) -> list[str]:
    """The service of each request, by a hash of its line number; `late` gets none before `late_seconds`."""
    others = tuple(name for name in services if name != late)
    chosen = []
    for request in requests:
        name = services[stable_hash("line", request.line) % len(services)]
        if name == late and request.arrived_seconds < late_seconds:
            name = others[stable_hash("early", request.line) % len(others)]
        chosen.append(name)
    return chosen

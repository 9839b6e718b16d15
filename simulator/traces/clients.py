"""Requests drawn from ServeGen's client windows (Xiang et al., 2025, §5): each client's rate and burstiness by window.

Clients are independent. Within a window a client's arrivals are a gamma renewal process of that window's rate and CV, in
operational time, so that a gap that spans windows is as long as their rates make it. Token counts are drawn from the
model's histogram of that time (log-uniform within a bucket) and scaled to the client's own mean where it is known.
"""

from __future__ import annotations

import heapq
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulator.traces.arrivals import generator
from simulator.traces.requests import MOST_TOKENS, TraceError, TraceRequest

Floats = NDArray[np.float64]
WINDOW_SECONDS = 600.0
LEAST_CV, MOST_CV = 0.05, 60.0
"""CVs outside are cut: 0 would be a clock, and more cannot be told from a window with one burst."""


class Lengths(NamedTuple):
    """Histograms of token counts: probabilities [window, bucket], edges [bucket + 1], client means [window, client]."""

    histogram: Floats
    edges: Floats
    means: Floats


class ClientWindows(NamedTuple):
    """Rates [window, client] in req/s, CVs [window, client], and the lengths of prompts and answers."""

    rates: Floats
    cvs: Floats
    inputs: Lengths
    outputs: Lengths


def models_of(path: Path) -> tuple[str, ...]:
    """Names of the models in a file of client windows. Raises TraceError when it cannot be read."""
    with _archive(path) as archive:
        return tuple(sorted(name.removesuffix("_rate") for name in archive.files if name.endswith("_rate")))


def read_windows(path: Path, model: str) -> ClientWindows:
    """The windows of one model from an .npz archive with arrays `<model>_rate`, `_cv`, `_in_mean`, `_in_hist`, ….

    Raises TraceError for a file that cannot be read, a model it does not have, or arrays that do not fit each other.
    """
    with _archive(path) as archive:
        if f"{model}_rate" not in archive.files:
            known = sorted(name.removesuffix("_rate") for name in archive.files if name.endswith("_rate"))
            raise TraceError(f"{path}: no model {model!r}; it has {', '.join(known) or 'none'}.")
        try:
            rates, cvs = (_floats(archive[f"{model}_{name}"]) for name in ("rate", "cv"))
            lengths = [
                Lengths(
                    _floats(archive[f"{model}_{side}_hist"]),
                    _floats(archive[f"{side}_bucket_edges"]),
                    _floats(archive[f"{model}_{side}_mean"]),
                )
                for side in ("in", "out")
            ]
        except KeyError as error:
            raise TraceError(f"{path}: no array {error.args[0]}; it is not whole.") from None
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise TraceError(f"{path}: an array cannot be read: {error}. Is it whole?") from error
    windows = ClientWindows(rates, cvs, *lengths)
    _check(windows, path)
    return windows


def _archive(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TraceError(
            f"{path}: cannot be read as .npz: {error}. Give a file of client windows."
        ) from error


def _floats(array: Any) -> Floats:
    return np.asarray(array, dtype=np.float64)


def _check(windows: ClientWindows, path: Path) -> None:
    clients = windows.rates.shape[1:]
    sound = windows.rates.ndim == 2 and windows.cvs.shape == windows.rates.shape
    for lengths in (windows.inputs, windows.outputs):
        sound = sound and lengths.means.shape[1:] == clients
        sound = sound and lengths.histogram.shape == (len(lengths.means), len(lengths.edges) - 1)
    if not sound:
        raise TraceError(
            f"{path}: the arrays do not fit each other (windows by clients, windows by buckets)."
        )
    if not (np.isfinite(windows.rates).all() and (windows.rates >= 0.0).all()):
        raise TraceError(f"{path}: a rate is negative or not finite.")
    for lengths in (windows.inputs, windows.outputs):
        rows = lengths.histogram
        if not (np.isfinite(rows).all() and (rows >= 0.0).all() and (rows.sum(axis=1) > 0.0).all()):
            raise TraceError(f"{path}: a histogram of lengths is empty, negative or not finite.")
        if not (np.isfinite(lengths.edges).all() and (np.diff(lengths.edges) > 0.0).all()):
            raise TraceError(f"{path}: the edges of a histogram do not rise.")


def client_requests(
    windows: ClientWindows, seed: int, *, first_window: int = 0, count: int | None = None
) -> Iterator[TraceRequest]:
    """Requests of `count` windows from `first_window` on, in order of arrival; 0 s is the start of the first one.

    `line` is the number of the request. Raises ValueError when there is no such window.
    """
    end = len(windows.rates) if count is None else first_window + count
    if not 0 <= first_window < end <= len(windows.rates):
        raise ValueError(f"windows {first_window} to {end} of {len(windows.rates)}: choose among them")
    streams = [
        _client(windows, client, seed, range(first_window, end))
        for client in range(windows.rates.shape[1])
        if windows.rates[first_window:end, client].any()
    ]
    for number, request in enumerate(heapq.merge(*streams, key=_by_arrival), start=1):
        yield msgspec.structs.replace(request, line=number)


def _by_arrival(request: TraceRequest) -> tuple[float, str]:
    return request.arrived_seconds, request.session


def _client(windows: ClientWindows, client: int, seed: int, which: range) -> Iterator[TraceRequest]:
    rng = generator(seed, "client", client)
    need: float | None = None
    for window in which:
        rate = float(windows.rates[window, client])
        cv = float(np.clip(np.nan_to_num(windows.cvs[window, client], nan=1.0) or 1.0, LEAST_CV, MOST_CV))
        shape = 1.0 / cv**2
        if need is None:  # in the middle of a gap: what is left of one that was chosen by its length
            need = float(rng.random() * rng.gamma(shape + 1.0, 1.0 / shape))
        moments, need = _renewals(need, rate * WINDOW_SECONDS, shape, rng)
        if not len(moments):
            continue
        at = (window - which.start) * WINDOW_SECONDS + moments / rate
        inputs, outputs = (
            _tokens(lengths, window * len(lengths.means) // len(windows.rates), client, len(at), rng)
            for lengths in (windows.inputs, windows.outputs)
        )
        for moment, given, wanted in zip(at.tolist(), inputs.tolist(), outputs.tolist(), strict=True):
            yield TraceRequest(0, moment, given, wanted, session=str(client))


def _renewals(need: float, length: float, shape: float, rng: np.random.Generator) -> tuple[Floats, float]:
    """Arrivals of a unit-rate gamma renewal process in [0, length), the first after `need`; what is left beyond."""
    found: list[Floats] = []
    while need < length:
        size = int(1.2 * (length - need)) + 16
        moments = need + np.concatenate(([0.0], np.cumsum(rng.gamma(shape, 1.0 / shape, size=size))))
        need = float(moments[-1])
        inside = moments[:-1]
        if need >= length:
            beyond = int(np.searchsorted(moments, length))
            inside, need = moments[:beyond], float(moments[beyond])
        found.append(inside)
    return (np.concatenate(found) if found else np.empty(0)), need - length


def _tokens(
    lengths: Lengths, slow: int, client: int, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`count` token counts of the slow window `slow`."""
    histogram = lengths.histogram[slow]
    low, high = np.maximum(lengths.edges[:-1], 1.0), np.maximum(lengths.edges[1:], 2.0)
    bucket = rng.choice(len(histogram), p=histogram / histogram.sum(), size=count)
    drawn = np.exp(rng.uniform(np.log(low[bucket]), np.log(high[bucket])))
    own = lengths.means[slow, client]
    if np.isfinite(own) and own > 0.0:
        drawn *= own / _mean(histogram, low, high)
    return np.clip(np.rint(drawn), 1, MOST_TOKENS).astype(np.int64)


def _mean(histogram: Floats, low: Floats, high: Floats) -> float:
    """Mean of the log-uniform mixture: (b - a) / ln(b / a) in each bucket."""
    return float((histogram * (high - low) / np.log(high / low)).sum() / histogram.sum())

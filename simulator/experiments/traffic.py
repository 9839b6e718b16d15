"""The traffic of a scenario: where its requests come from, how fast, and how many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec

from simulator.traces.arrivals import faster, within
from simulator.traces.clients import client_requests, models_of, read_windows
from simulator.traces.powerlaw import power_law
from simulator.traces.reading import FORMATS, read
from simulator.traces.requests import Tally, TraceError, TraceRequest
from simulator.world.spec import ScenarioError


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a scenario: a field that is not declared is an error."""


class Trace(Strict, frozen=True, kw_only=True):
    """Requests of a file; `format` empty means it is recognised."""

    path: str
    format: str = ""
    strict: bool = False


class PowerLaw(Strict, frozen=True, kw_only=True):
    """The synthetic traffic of Llumnix: mean tokens, requests per second, how many, CV of the gaps (1 is Poisson)."""

    input_mean: int
    output_mean: int
    rate: float
    requests: int
    cv: float = 1.0


class Clients(Strict, frozen=True, kw_only=True):
    """Requests drawn from ServeGen's client windows: the archive, its model, and which windows."""

    path: str
    model: str
    first_window: int = 0
    windows: int = 6


class Traffic(Strict, frozen=True, kw_only=True):
    """Exactly one source; `speed` times as fast, cut after `seconds` or `requests` where these are not 0."""

    trace: Trace | None = None
    power_law: PowerLaw | None = None
    clients: Clients | None = None
    speed: float = 1.0
    seconds: float = 0.0
    requests: int = 0


def check_traffic(traffic: Traffic) -> None:
    """Raise ScenarioError with the path of the first field that contradicts another or itself."""
    sources = [name for name in ("trace", "power_law", "clients") if getattr(traffic, name) is not None]
    if len(sources) != 1:
        raise ScenarioError(
            "traffic", f"has {len(sources)} of trace, power_law and clients; give exactly one"
        )
    if not traffic.speed > 0.0:
        raise ScenarioError("traffic.speed", f"is {traffic.speed}; it must be positive")
    for name in ("seconds", "requests"):
        if getattr(traffic, name) < 0:
            raise ScenarioError(f"traffic.{name}", f"is {getattr(traffic, name)}; it must not be negative")
    if traffic.trace is not None and traffic.trace.format not in ("", *FORMATS):
        raise ScenarioError(
            "traffic.trace.format", f"is {traffic.trace.format!r}; known are {', '.join(FORMATS)}"
        )
    if traffic.power_law is not None:
        for name in ("rate", "cv", "requests"):
            if not getattr(traffic.power_law, name) > 0:
                raise ScenarioError(f"traffic.power_law.{name}", "must be positive")


def requests_of(traffic: Traffic, seed: int, tally: Tally) -> Iterator[TraceRequest]:
    """The traffic as a stream; malformed lines are counted in `tally`. Raises TraceError as its readers do."""
    stream = _source(traffic, seed, tally)
    if traffic.speed != 1.0:
        stream = faster(stream, traffic.speed)
    if traffic.seconds:
        stream = within(stream, traffic.seconds)
    return itertools.islice(stream, traffic.requests) if traffic.requests else stream


def _source(traffic: Traffic, seed: int, tally: Tally) -> Iterator[TraceRequest]:
    if traffic.trace is not None:
        return read(
            Path(traffic.trace.path), form=traffic.trace.format, strict=traffic.trace.strict, tally=tally
        )
    if traffic.clients is not None:
        path, given = Path(traffic.clients.path), traffic.clients
        if given.model not in models_of(path):
            raise TraceError(f"{path}: no model {given.model!r}; it has {', '.join(models_of(path))}.")
        windows = read_windows(path, given.model)
        return client_requests(windows, seed, first_window=given.first_window, count=given.windows)
    law = traffic.power_law
    if law is None:
        raise TraceError("the traffic has no source: give trace, power_law or clients.")
    return power_law(law.input_mean, law.output_mean, law.rate, law.requests, seed, cv=law.cv)

"""The traffic of a scenario: where its requests come from, how fast, and how many."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import msgspec

from simulator.traces.arrivals import faster, within
from simulator.traces.clients import client_requests, models_of, read_windows
from simulator.traces.powerlaw import power_law
from simulator.traces.reading import FORMATS, read
from simulator.traces.requests import MOST_TOKENS, Tally, TraceError, TraceRequest
from simulator.traces.steps import stepped
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


class Step(Strict, frozen=True, kw_only=True):
    """From second `at` on, `rate` requests a second arrive."""

    at: float
    rate: float


class Steps(Strict, frozen=True, kw_only=True):
    """Poisson requests of one size, at rates that change in steps."""

    rates: tuple[Step, ...]
    input_tokens: int = 200
    output_tokens: int = 40


class Traffic(Strict, frozen=True, kw_only=True):
    """Exactly one source; `speed` times as fast, cut after `seconds` or `requests` where these are not 0."""

    trace: Trace | None = None
    power_law: PowerLaw | None = None
    clients: Clients | None = None
    steps: Steps | None = None
    speed: float = 1.0
    seconds: float = 0.0
    requests: int = 0


SOURCES = ("trace", "power_law", "clients", "steps")


def check_traffic(traffic: Traffic, path: str = "traffic") -> None:
    """Raise ScenarioError with the path (below `path`) of the first field that contradicts another or itself."""
    try:
        _check(traffic)
    except ScenarioError as error:
        inner = error.path.removeprefix("traffic")
        raise ScenarioError(path + inner, str(error).removeprefix(error.path).strip()) from None


def _check(traffic: Traffic) -> None:
    sources = [name for name in SOURCES if getattr(traffic, name) is not None]
    if len(sources) != 1:
        raise ScenarioError("traffic", f"has {len(sources)} of {', '.join(SOURCES)}; give exactly one")
    if traffic.steps is not None:
        _check_steps(traffic.steps, traffic.seconds)
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


def _check_steps(steps: Steps, seconds: float) -> None:
    where = "traffic.steps.rates"
    if not steps.rates:
        raise ScenarioError(where, "is empty; give at least one rate")
    before = -1.0
    for number, step in enumerate(steps.rates):
        if not 0.0 <= step.rate < math.inf:
            raise ScenarioError(f"{where}[{number}].rate", f"is {step.rate}; it must not be negative")
        if not max(before, 0.0) <= step.at < math.inf or step.at == before:
            raise ScenarioError(f"{where}[{number}].at", f"is {step.at}; seconds count from 0 and rise")
        before = step.at
    for name in ("input_tokens", "output_tokens"):
        if not 1 <= getattr(steps, name) <= MOST_TOKENS:
            raise ScenarioError(f"traffic.steps.{name}", f"must lie between 1 and {MOST_TOKENS}")
    if steps.rates[-1].rate and not seconds:
        raise ScenarioError("traffic.seconds", "is 0, and the last rate goes on for ever: give either an end")


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
    if traffic.steps is not None:
        steps = traffic.steps
        pairs = [(step.at, step.rate) for step in steps.rates]
        return stepped(pairs, steps.input_tokens, steps.output_tokens, traffic.seconds or pairs[-1][0], seed)
    law = traffic.power_law
    if law is None:
        raise TraceError(f"the traffic has no source: give one of {', '.join(SOURCES)}.")
    return power_law(law.input_mean, law.output_mean, law.rate, law.requests, seed, cv=law.cv)

"""What the gateway has seen of one traffic class of one service: counts, load and latencies."""

from __future__ import annotations

from collections import deque

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.answers import AnswerLengths
from gateway.histogram import DEFAULT_INPUT_EDGES, DEFAULT_OUTPUT_EDGES, LatencyWindow, SoftHistogram
from gateway.messages import ClassRoute, End, Message, ServiceRoute
from gateway.requests import Ticket
from policies.dispatch.outputs import Outputs


class LoadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Width of the sliding window of all rates, its time step, and the edges of services that name none."""

    window_seconds: float = 60.0
    bucket_seconds: float = 5.0
    input_edges: tuple[float, ...] = DEFAULT_INPUT_EDGES
    output_edges: tuple[float, ...] = DEFAULT_OUTPUT_EDGES


class ClassLoadReport(Message, frozen=True):
    """One class's part of a report. Counts since the gateway began; `window_*` and latencies in the window.

    `cells` is row-major [inputs x outputs] in requests per second, by the outputs that are to be expected.
    """

    service: str
    request_class: str
    window_seconds: float
    input_edges: tuple[float, ...]
    output_edges: tuple[float, ...]
    cells: NDArray[np.float64]
    held: int
    oldest_held_seconds: float
    rejected_per_second: float
    arrived: int
    finished: int
    rejected: int
    lost: int
    retried: int
    window_finished: int
    window_attained: int
    ttft_seconds: float | None
    tpot_seconds: float | None


class ClassLoad:
    """Accumulates one class. `retried` is counted by the core; the rest through the methods.

    `lost` counts requests that were accepted and then failed or were left by their client.
    """

    __slots__ = ("_answers", "_histogram", "_latency", "_refusals", "_since", "_window", "arrived", "edges", "finished",
                 "lost", "objective", "outputs", "rejected", "request_class", "retried")  # fmt: skip

    def __init__(
        self, objective: ClassRoute, route: ServiceRoute, config: LoadConfig, now_seconds: float
    ) -> None:
        self.objective = objective
        self.request_class = objective.name
        self.edges = edges_of(route, config)
        self._histogram = SoftHistogram(
            *self.edges, config.window_seconds, config.bucket_seconds, now_seconds
        )
        self._latency = LatencyWindow(config.window_seconds)
        self._answers = AnswerLengths(*self.edges)
        self.outputs = Outputs(self.edges[0])
        """How long answers are, by the size of their prompts."""
        self._refusals: deque[tuple[float, int]] = deque()
        self._window = config.window_seconds
        self._since = now_seconds
        self.arrived = self.finished = self.rejected = self.lost = self.retried = 0

    def resume(self, former: ClassLoad | None) -> ClassLoad:
        """Go on with the counts of a former one that had other edges; return self."""
        if former is not None:
            for name in ("arrived", "finished", "rejected", "lost", "retried"):
                setattr(self, name, getattr(former, name))
        return self

    def arrive(self, at_seconds: float, prompt_tokens: int, output_tokens: int) -> None:
        """Count an arrival as load, whatever becomes of it."""
        self.arrived += 1
        self._histogram.add(at_seconds, prompt_tokens, output_tokens)

    def finish(
        self, ticket: Ticket, first_token_seconds: float, finished_seconds: float, tokens: int
    ) -> None:
        """Count a finished request and whether it met the objective; latency starts at its arrival."""
        self.finished += 1
        arrival = ticket.arrival
        self.outputs.learn(arrival.prompt_tokens, tokens)
        self._answers.learn(arrival.prompt_tokens, arrival.output_tokens, tokens)
        ttft = first_token_seconds - arrival.arrived_seconds
        tpot = (finished_seconds - first_token_seconds) / (tokens - 1) if tokens > 1 else 0.0
        objective = self.objective
        attained = ttft <= objective.ttft_seconds and tpot <= objective.tpot_seconds
        self._latency.add(finished_seconds, ttft, tpot, attained)

    def end(self, end: End, at_seconds: float) -> None:
        """Count a request that ended without being served."""
        if end is End.REJECTED:
            self.rejected += 1
            second = at_seconds // 1.0
            if self._refusals and self._refusals[-1][0] >= second:
                newest, count = self._refusals[-1]
                self._refusals[-1] = (newest, count + 1)
            else:
                self._refusals.append((second, 1))
            self._forget(at_seconds)
        else:
            self.lost += 1

    def report(
        self, service: str, now_seconds: float, held: int, oldest_held_seconds: float
    ) -> ClassLoadReport:
        """Everything known at `now_seconds`; `held` now, and the age of the oldest of them."""
        cells, width = self._histogram.rates(now_seconds)
        finished, attained, ttft, tpot = self._latency.summary(now_seconds, self.objective.percentile)
        self._forget(now_seconds)
        refused = sum(count for _, count in self._refusals)
        return ClassLoadReport(
            service=service, request_class=self.request_class, window_seconds=width,
            input_edges=self.edges[0], output_edges=self.edges[1], cells=self._answers.answered(cells), held=held,
            oldest_held_seconds=oldest_held_seconds,
            rejected_per_second=refused / min(self._window, max(1.0, now_seconds - self._since)),
            arrived=self.arrived, finished=self.finished, rejected=self.rejected, lost=self.lost,
            retried=self.retried, window_finished=finished, window_attained=attained,
            ttft_seconds=ttft, tpot_seconds=tpot,
        )  # fmt: skip

    def _forget(self, now_seconds: float) -> None:
        while self._refusals and self._refusals[0][0] <= now_seconds - self._window:
            self._refusals.popleft()


def edges_of(route: ServiceRoute, config: LoadConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The (input, output) edges in force for a service: its route's, else the gateway's own."""
    return route.input_edges or config.input_edges, route.output_edges or config.output_edges

"""Every data line ends once: malformed, served, rejected (with reason) or lost.

A line may be sent several times (the replication factor brings a small trace to a cluster's load); it is
served when every copy was, and an engine emitted exactly its GeneratedTokens for each.
"""

from __future__ import annotations

import math
from collections import Counter

import msgspec

from console.demo.run_data import ServiceFacts
from console.demo.trace import Trace
from gateway.client import Request, Result
from simulator.traces.requests import TraceRequest


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """How the data lines ended; the four sum to the data lines."""

    data_lines: int
    malformed: int
    served: int
    rejected: int
    lost: int
    rejected_by_code: dict[str, int]
    output_tokens: int
    retried: int
    open_lines: int


class Books:
    """Keeps account of one run. Request ids are `index * replication + copy` over the trace's requests."""

    def __init__(
        self, trace: Trace, services: list[str], facts: dict[str, ServiceFacts], replication: int
    ) -> None:
        """Open the books; `services[i]` is the service of `trace.requests[i]`."""
        self.trace = trace
        self.replication = replication
        self._services = services
        self._facts = facts
        self._left = [replication] * len(trace.requests)
        self._rejected: dict[int, str] = {}
        self._lost: set[int] = set()
        self._retried = 0
        self._tokens = 0
        self._seen: set[int] = set()
        self.faults: list[str] = []
        for facts_of in facts.values():
            facts_of.total = 0
        for name in services:
            facts[name].total += replication

    def requests(self, low: int, high: int, origin_seconds: float) -> list[Request]:
        """Requests of the trace's rows [low, high), all copies, with arrival in UTC seconds."""
        return [
            Request(
                request_id=index * self.replication + copy,
                service=self._services[index],
                prompt_tokens=row.input_tokens,
                output_tokens=row.output_tokens,
                arrived_seconds=origin_seconds + row.arrived_seconds,
            )
            for index, row in enumerate(self.trace.requests[low:high], start=low)
            for copy in range(self.replication)
        ]

    def end(self, result: Result, origin_seconds: float) -> None:
        """Book one copy's end. A second end of the same copy is a fault of the gateway, and is said."""
        if result.request_id in self._seen:
            self.faults.append(f"request {result.request_id} ended twice")
            return
        self._seen.add(result.request_id)
        index = result.request_id // self.replication
        row = self.trace.requests[index]
        self._left[index] -= 1
        self._retried += 1 if result.retries else 0
        facts = self._facts[self._services[index]]
        facts.arrived_seconds.append(row.arrived_seconds)
        if result.outcome == "served" and result.output_tokens == row.output_tokens:
            self._serve(result, row, facts, origin_seconds)
            return
        facts.ttft_seconds.append(math.nan)
        facts.tpot_seconds.append(math.nan)
        if result.outcome == "rejected":
            self._rejected[index] = result.code
            return
        self._lost.add(index)
        if result.outcome == "served":
            self.faults.append(
                f"line {row.line} got {result.output_tokens} tokens, {row.output_tokens} were asked for"
            )

    def _serve(self, result: Result, row: TraceRequest, facts: ServiceFacts, origin_seconds: float) -> None:
        ttft = result.first_token_seconds - origin_seconds - row.arrived_seconds
        steps = max(1, row.output_tokens - 1)
        tpot = (result.finished_seconds - result.first_token_seconds) / steps
        facts.ttft_seconds.append(ttft)
        facts.tpot_seconds.append(tpot)
        facts.attained += ttft <= facts.ttft_objective_seconds and tpot <= facts.tpot_objective_seconds
        self._tokens += result.output_tokens

    @property
    def tokens_emitted(self) -> int:
        """Tokens emitted for all copies served so far."""
        return self._tokens

    @property
    def open_copies(self) -> int:
        """Copies that have not ended."""
        return sum(self._left)

    def totals(self) -> Totals:
        """How the lines stand; a line with an open copy counts as lost."""
        open_lines = {index for index, left in enumerate(self._left) if left}
        lost = self._lost | open_lines
        rejected = {index: code for index, code in self._rejected.items() if index not in lost}
        served = [index for index in range(len(self._left)) if index not in lost and index not in rejected]
        return Totals(
            data_lines=self.trace.data_lines,
            malformed=self.trace.malformed_lines,
            served=len(served),
            rejected=len(rejected),
            lost=len(lost),
            rejected_by_code=dict(sorted(Counter(rejected.values()).items())),
            output_tokens=sum(self.trace.requests[index].output_tokens for index in served),
            retried=self._retried,
            open_lines=len(open_lines),
        )

"""The same engine, one step at a time: slow, plain, and the yardstick of `EngineInstance`.

It shares only the step-time formula with the fast engine. Queue, admission, chunks, preemption and finishes are
written again over simple lists, a loop over the batch in every step, so that a mistake in the closed forms shows
up as a difference in event times.
"""

import math

from simulator.physics.roofline import kv_capacity_tokens, step_cost
from simulator.physics.sequence import EngineEvent, EventKind
from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec


class _Row:
    """One request: what it asked for and how far it is (``computed`` tokens of its context are in the cache)."""

    def __init__(self, rank: tuple[int, float, int], ready: float, request_id: int, prompt: int, output: int):
        self.rank, self.ready, self.request_id = rank, ready, request_id
        self.prompt, self.output = prompt, output
        self.target = prompt  # tokens to prefill: the prompt, after a preemption also what was generated
        self.computed = self.generated = self.blocks = 0

    @property
    def decoding(self) -> bool:
        return self.computed >= self.target


class PerTokenEngine:
    """Per-step engine with the scheduling rules of `EngineInstance`; requests must fit, as nothing is refused."""

    def __init__(
        self, gpu: GpuSpec, model: ModelSpec, engine: EngineSpec, started_seconds: float = 0.0
    ) -> None:
        self._specs = (gpu, model, engine)
        self._engine = engine
        self._free = kv_capacity_tokens(gpu, model, engine) // engine.block_tokens
        self.now = started_seconds
        self.preemptions = 0
        self._pending: list[_Row] = []
        self._waiting: list[_Row] = []
        self._running: list[_Row] = []
        self._cancelled: set[int] = set()
        self._order = 0
        self._step_end = math.inf
        self._step: list[tuple[_Row, int]] = []
        self.set_speed(1.0)

    def submit(
        self,
        request_id: int,
        prompt_tokens: int,
        output_tokens: int,
        arrived_seconds: float,
        priority: int = 0,
    ) -> None:
        """Hand in a request that fits; same meaning as `EngineInstance.submit`."""
        rank = (-priority, arrived_seconds, self._order)
        self._order += 1
        row = _Row(rank, max(arrived_seconds, self.now), request_id, prompt_tokens, output_tokens)
        self._pending.append(row)
        self._pending.sort(key=lambda each: (each.ready, each.rank[2]))

    def cancel(self, request_id: int) -> None:
        """Drop a request: at once while it waits, else at the next step boundary."""
        self._pending = [row for row in self._pending if row.request_id != request_id]
        self._waiting = [row for row in self._waiting if row.request_id != request_id]
        if any(row.request_id == request_id for row in self._running):
            self._cancelled.add(request_id)

    def set_speed(
        self, prefill_clock: float, decode_clock: float | None = None, node_speed: float = 1.0
    ) -> None:
        """Set clocks and node speed from the next step on."""
        gpu, model, engine = self._specs
        self._prefill_cost = step_cost(gpu, model, engine, prefill_clock, node_speed)
        decode_clock = prefill_clock if decode_clock is None else decode_clock
        self._decode_cost = step_cost(gpu, model, engine, decode_clock, node_speed)

    def advance_to(self, until_seconds: float) -> list[EngineEvent]:
        """Live step by step up to and including ``until_seconds``."""
        events: list[EngineEvent] = []
        while True:
            wake = (
                self._step_end if self._running else (self._pending[0].ready if self._pending else math.inf)
            )
            if wake > until_seconds or wake == math.inf:
                break
            if self._running:
                self._finish_step(wake, events)
            while self._pending and self._pending[0].ready <= wake:
                self._waiting.append(self._pending.pop(0))
            self._waiting.sort(key=lambda row: row.rank)
            self._begin_step(wake)
        while self._pending and self._pending[0].ready <= until_seconds:
            self._waiting.append(self._pending.pop(0))  # arrived while a step runs
        self.now = until_seconds
        return events

    def _finish_step(self, at: float, events: list[EngineEvent]) -> None:
        done = []
        for row, tokens in self._step:
            row.computed += tokens
            if row.computed < row.target or row.generated == row.output:
                done += [row] if row.decoding else []
                continue
            row.generated += 1
            visible = row.request_id not in self._cancelled
            if row.generated == 1 and visible:
                events.append(EngineEvent(at, EventKind.FIRST_TOKEN, row.request_id, 1))
            done += [row] if row.generated == row.output else []
        for row in done:
            self._release(row)
            if row.request_id not in self._cancelled:
                events.append(EngineEvent(at, EventKind.FINISHED, row.request_id, row.generated))
        for row in [row for row in self._running if row.request_id in self._cancelled]:
            self._release(row)
        self._cancelled.clear()

    def _begin_step(self, at: float) -> None:
        engine, preempted = self._engine, False
        decoding = [row for row in self._running if row.decoding]
        if engine.admission == "grow":
            while sum(self._missing(row) for row in decoding) > self._free:
                self._preempt(max(self._running, key=lambda row: row.rank))
                preempted = True
                decoding = [row for row in decoding if row in self._running]
            for row in decoding:
                missing = self._missing(row)
                row.blocks += missing
                self._free -= missing
        self._step = [(row, 1) for row in decoding]
        budget = engine.chunk_tokens - len(decoding)
        prefilling = [row for row in self._running if not row.decoding]
        while prefilling and budget:
            budget -= self._chunk(prefilling.pop(0), budget)
        while budget and not preempted and self._waiting and len(self._running) < engine.max_num_seqs:
            row = self._waiting[0]
            tokens = row.target if engine.admission == "grow" else row.prompt + row.output
            blocks = math.ceil(tokens / engine.block_tokens)
            if blocks > self._free:
                break
            self._waiting.pop(0)
            row.blocks, self._free = blocks, self._free - blocks
            self._running.append(row)
            budget -= self._chunk(row, budget)
        self._step_end = at + self._seconds(decoding) if self._step else math.inf

    def _chunk(self, row: _Row, budget: int) -> int:
        tokens = min(row.target - row.computed, budget)
        self._step.append((row, tokens))
        return tokens

    def _seconds(self, decoding: list[_Row]) -> float:
        chunks = self._step[len(decoding) :]
        cost = self._prefill_cost if chunks else self._decode_cost
        context = sum(row.prompt + row.generated for row in decoding)
        pairs = sum(tokens * (row.computed + tokens / 2) for row, tokens in chunks)
        return cost.seconds(len(decoding), sum(tokens for _, tokens in chunks), context, pairs)

    def _missing(self, row: _Row) -> int:
        return math.ceil((row.prompt + row.generated) / self._engine.block_tokens) - row.blocks

    def _preempt(self, row: _Row) -> None:
        self._release(row)
        row.target, row.computed = row.prompt + row.generated, 0
        self._waiting.append(row)
        self._waiting.sort(key=lambda each: each.rank)
        self.preemptions += 1

    def _release(self, row: _Row) -> None:
        if row in self._running:
            self._running.remove(row)
            self._free += row.blocks
            row.blocks = 0

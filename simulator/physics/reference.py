"""The same engine, one step at a time: slow, plain, and the yardstick of `EngineInstance`.

It shares only the step-time formula with the fast engine. Queue, admission, chunks, preemption and finishes are
written again over simple lists, a loop over the batch in every step, so that a mistake in the closed forms shows
up as a difference in event times.
"""

import math

from simulator.physics.prefill_first import WATERMARK
from simulator.physics.roofline import kv_capacity_tokens, step_cost
from simulator.physics.sequence import EngineEvent, EventKind, Handover
from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec


class _Row:
    """One request: what it asked for and how far it is (``computed`` tokens of its context are in the cache)."""

    def __init__(self, rank: tuple[int, float, int], ready: float, request_id: int, prompt: int, output: int):
        self.rank, self.ready, self.request_id = rank, ready, request_id
        self.prompt, self.output = prompt, output
        self.prefix: tuple[int, ...] = ()
        self.hand_over = self.held = False
        self.shared: list[int] = []  # entries of the prefix cache that it holds
        self.reserved = 0
        self.target = prompt  # tokens to prefill: the prompt, after a preemption also what was generated
        self.computed = self.generated = self.blocks = 0

    @property
    def context(self) -> int:
        return self.prompt + self.generated

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
        self._free = self._total = kv_capacity_tokens(gpu, model, engine) // engine.block_tokens
        self.now = started_seconds
        self.preemptions = 0
        self._pending: list[_Row] = []
        self._waiting: list[_Row] = []
        self._running: list[_Row] = []
        self._cancelled: dict[int, None] = {}
        self._leaving: dict[int, None] = {}
        self._held: list[_Row] = []
        self._reserved: dict[int, int] = {}
        self._holders: dict[int, list[_Row]] = {}  # prefix entry to who holds it
        self._idle: dict[int, None] = {}  # prefix entries of nobody, in order of release
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
        prefix: tuple[int, ...] = (),
        hand_over: bool = False,
    ) -> None:
        """Hand in a request that fits; same meaning as `EngineInstance.submit`."""
        rank = (-priority, arrived_seconds, self._order)
        row = _Row(rank, max(arrived_seconds, self.now), request_id, prompt_tokens, output_tokens)
        row.prefix, row.hand_over = prefix, hand_over
        self._push(row)

    def _push(self, row: _Row) -> None:
        self._order += 1
        self._pending.append(row)
        self._pending.sort(key=lambda each: (each.ready, each.rank[2]))

    def cancel(self, request_id: int) -> None:
        """Drop a request: at once while it waits, else at the next step boundary."""
        self._pending = [row for row in self._pending if row.request_id != request_id]
        self._waiting = [row for row in self._waiting if row.request_id != request_id]
        if any(row.request_id == request_id for row in self._running):
            self._cancelled[request_id] = None

    def reserve(self, request_id: int, tokens: int) -> bool:
        """Set blocks aside; same meaning as `EngineInstance.reserve`."""
        blocks = math.ceil(tokens / self._engine.block_tokens)
        if blocks > self._free:
            return False
        self._free -= blocks
        self._reserved[request_id] = blocks
        self._trim()
        return True

    def unreserve(self, request_id: int) -> None:
        """Give a reservation up; same meaning as `EngineInstance.unreserve`."""
        self._free += self._reserved.pop(request_id, 0)
        if not self._running and self._waiting:
            self._step_end = self.now

    def hand_over(self, request_id: int) -> bool:
        """Let a decoding request leave at the next step boundary; same meaning as `EngineInstance.hand_over`."""
        if not any(row.request_id == request_id and row.decoding for row in self._running):
            return False
        self._leaving[request_id] = None
        return True

    def handover(self, request_id: int) -> Handover:
        """What the next engine must know of a request that was handed over."""
        row = next(row for row in self._held if row.request_id == request_id)
        return Handover(
            request_id=request_id, prompt_tokens=row.prompt, output_tokens=row.output, prefix=row.prefix,
            generated_tokens=row.generated, arrived_seconds=row.rank[1], priority=-row.rank[0],
        )  # fmt: skip

    def release(self, request_id: int) -> bool:
        """Free the KV of a request that was handed over; same meaning as `EngineInstance.release`."""
        found = [row for row in self._held if row.request_id == request_id]
        for row in found:
            self._held.remove(row)
            self._free_blocks(row)
        if found and not self._running and self._waiting:
            self._step_end = self.now
        return bool(found)

    def take_over(self, handover: Handover, cached_tokens: int = 0) -> None:
        """Go on with a request; same meaning as `EngineInstance.take_over`."""
        rank = (-handover.priority, handover.arrived_seconds, self._order)
        ready = max(handover.arrived_seconds, self.now)
        row = _Row(rank, ready, handover.request_id, handover.prompt_tokens, handover.output_tokens)
        row.prefix, row.generated = handover.prefix, handover.generated_tokens
        row.target = row.context
        row.computed = min(cached_tokens, row.context - 1)
        blocks = math.ceil((row.target if self._engine.admission == "grow" else row.prompt + row.output)
                           / self._engine.block_tokens)  # fmt: skip
        if self._reserved.get(handover.request_id, 0) >= blocks:
            row.reserved = self._reserved.pop(handover.request_id)
        else:
            self.unreserve(handover.request_id)
        self._push(row)

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
            arrival = self._pending[0].ready if self._pending else math.inf
            wake = self._step_end if self._running else min(self._step_end, arrival)
            if wake > until_seconds or wake == math.inf:
                break
            if self._running:
                self._finish_step(wake, events)
            while self._pending and self._pending[0].ready <= wake:
                self._waiting.append(self._pending.pop(0))
            self._waiting.sort(key=_turn)
            self._begin_step(wake)
        while self._pending and self._pending[0].ready <= until_seconds:
            self._waiting.append(self._pending.pop(0))  # arrived while a step runs
        self.now = until_seconds
        return events

    def _finish_step(self, at: float, events: list[EngineEvent]) -> None:
        size = sum(row.decoding for row, _ in self._step)
        decoding, chunks = self._step[:size], self._step[size:]
        for row, tokens in chunks:
            row.computed += tokens
            if row.decoding:
                self._prompt_done(row, at, events)
        for row, _ in decoding:
            row.computed += 1
            self._emit(row, at, events)
        for row in sorted((row for row, _ in decoding), key=lambda row: row.rank[2]):
            if row.generated == row.output:
                self._finish(row, at, events)
        running = {row.request_id: row for row in self._running}
        for request_id in [key for key in self._leaving if key in running and key not in self._cancelled]:
            self._leave(running[request_id], at, events)
        self._leaving.clear()
        for request_id in self._cancelled:
            for row in [row for row in self._running if row.request_id == request_id]:
                self._release(row)
        self._cancelled.clear()

    def _prompt_done(self, row: _Row, at: float, events: list[EngineEvent]) -> None:
        self._share(row)
        self._emit(row, at, events)
        if row.generated == row.output:
            self._finish(row, at, events)
        elif row.hand_over and row.generated == 1 and row.request_id not in self._cancelled:
            self._leave(row, at, events)

    def _emit(self, row: _Row, at: float, events: list[EngineEvent]) -> None:
        if row.generated < row.output:
            row.generated += 1
            if row.generated == 1 and row.request_id not in self._cancelled:
                events.append(EngineEvent(at, EventKind.FIRST_TOKEN, row.request_id, 1))

    def _finish(self, row: _Row, at: float, events: list[EngineEvent]) -> None:
        self._release(row)
        if row.request_id not in self._cancelled:
            events.append(EngineEvent(at, EventKind.FINISHED, row.request_id, row.generated))

    def _leave(self, row: _Row, at: float, events: list[EngineEvent]) -> None:
        self._running.remove(row)
        self._held.append(row)
        events.append(EngineEvent(at, EventKind.HANDED_OVER, row.request_id, row.generated))

    def _begin_step(self, at: float) -> None:
        engine, preempted, budget = self._engine, False, 0
        self._step = []
        if engine.scheduling == "prefill_first":
            self._prompts_alone()
        decoding = [row for row in self._running if row.decoding and not self._step]
        if not self._step:
            preempted = self._grow(decoding)
            self._step = [(row, 1) for row in decoding]
            budget = engine.chunk_tokens - len(decoding) if engine.scheduling == "chunked" else 0
        prefilling = [row for row in self._running if not row.decoding]
        while prefilling and budget:
            budget -= self._chunk(prefilling.pop(0), budget)
        while budget and not preempted and self._waiting and len(self._running) < engine.max_num_seqs:
            row = self._waiting[0]
            if not self._admit(row):
                break
            self._waiting.pop(0)
            self._running.append(row)
            budget -= self._chunk(row, budget)
        self._step_end = at + self._seconds(decoding) if self._step else math.inf

    def _grow(self, decoding: list[_Row]) -> bool:
        """Take the blocks of a step of ``decoding``, preempting the youngest (out of the list too) where they lack."""
        preempted = False
        if self._engine.admission == "grow":
            while sum(self._missing(row) for row in decoding) > self._free:
                self._preempt(max(self._running, key=lambda row: row.rank))
                preempted = True
                decoding[:] = [row for row in decoding if row in self._running]
            for row in decoding:
                missing = self._missing(row)
                row.blocks += missing
                self._free -= missing
            self._trim()
        return preempted

    def _prompts_alone(self) -> None:
        """A step of whole prompts where any fits; who lacks but its last token decodes from the next such step on."""
        engine = self._engine
        kept, budget = math.floor(WATERMARK * self._total), engine.chunk_tokens
        while self._waiting and len(self._running) < engine.max_num_seqs:
            row = self._waiting[0]
            left = row.target - row.computed
            resumes = row.generated > 0 and left == 1
            if self._step and not resumes and left > budget:
                break
            if not self._admit(row, 0 if row.reserved or not self._running else kept):
                break
            self._running.append(self._waiting.pop(0))
            if not resumes:
                budget -= self._chunk(row, row.target)
                continue
            row.target = row.computed
            if engine.admission == "grow":
                held = math.ceil(row.computed / engine.block_tokens)
                self._free += row.blocks - held
                row.blocks = held

    def _admit(self, row: _Row, kept: int = 0) -> bool:
        """Take the blocks of ``row``, sharing what is cached of its prompt; False when they, and ``kept`` more, are not free."""
        engine, size = self._engine, self._engine.prefix_block_tokens
        tokens = row.target if engine.admission == "grow" else row.prompt + row.output
        blocks = math.ceil(tokens / engine.block_tokens)
        found: list[int] = []
        if size and not row.computed:
            for key in row.prefix[: (row.target - 1) // size]:
                if key not in self._holders and key not in self._idle:
                    break
                found.append(key)
        held = sum(1 for key in found if key in self._holders)
        need = blocks - row.reserved - held * (size // engine.block_tokens)
        if need + kept > self._free:
            return False
        for key in found:
            self._idle.pop(key, None)
            self._holders.setdefault(key, []).append(row)
        row.shared, row.blocks, row.reserved = found, blocks, 0
        row.computed += len(found) * size
        self._free -= need
        self._trim()
        return True

    def _share(self, row: _Row) -> None:
        if self._engine.prefix_block_tokens:
            for key in row.prefix[len(row.shared) :]:
                if key not in self._holders:
                    self._idle.pop(key, None)
                    self._holders[key] = [row]
                    row.shared.append(key)

    def _trim(self) -> None:
        size = self._engine.prefix_block_tokens // self._engine.block_tokens
        while len(self._idle) * size > self._free:
            del self._idle[next(iter(self._idle))]

    def _chunk(self, row: _Row, budget: int) -> int:
        tokens = min(row.target - row.computed, budget)
        self._step.append((row, tokens))
        return tokens

    def _seconds(self, decoding: list[_Row]) -> float:
        chunks = self._step[len(decoding) :]
        cost = (self._prefill_cost if chunks else self._decode_cost).at(len(decoding))
        context = sum(row.prompt + row.generated for row in decoding)
        pairs = sum(tokens * (row.computed + tokens / 2) for row, tokens in chunks)
        return cost.seconds(len(decoding), sum(tokens for _, tokens in chunks), context, pairs)

    def _missing(self, row: _Row) -> int:
        return math.ceil((row.prompt + row.generated) / self._engine.block_tokens) - row.blocks

    def _preempt(self, row: _Row) -> None:
        self._release(row)
        row.target, row.computed = row.prompt + row.generated, 0
        self._waiting.append(row)
        self._waiting.sort(key=_turn)
        self.preemptions += 1

    def _release(self, row: _Row) -> None:
        if row in self._running:
            self._running.remove(row)
            self._free_blocks(row)

    def _free_blocks(self, row: _Row) -> None:
        self._free += row.blocks
        row.blocks = 0
        for key in reversed(row.shared):
            self._holders[key].remove(row)
            if not self._holders[key]:
                del self._holders[key]
                self._idle[key] = None
            else:
                self._free -= self._engine.prefix_block_tokens // self._engine.block_tokens
        row.shared = []


def _turn(row: _Row) -> tuple[bool, tuple[int, float, int]]:
    return not row.reserved, row.rank

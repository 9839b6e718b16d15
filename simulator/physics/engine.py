"""A continuously batched LLM engine that skips from event to event.

The scheduler (`Batch`) is that of vLLM: each step decodes one token for every decoding sequence and fills the rest
of the token budget with prompt chunks, oldest first; prompts are admitted in order of priority and arrival while
their KV blocks fit, and the first that does not fit blocks those behind it. With admission "grow" the youngest
sequence is preempted when blocks run out, and its tokens are computed again later.

Between two admissions, finishes, preemptions and clock changes the batch is fixed and its context grows by one
token per sequence and step, so the times of all steps are an arithmetic series: the engine jumps over the whole
run, and finds the step boundary after an arrival by solving a quadratic. The chunks of a prompt that fills the token
budget alone are such a series too. `PerTokenEngine` in ``reference.py`` does the same step by step; a property test
compares the two.

A request may leave before it is finished (`hand_over`): its KV stays pinned here until `release`, while another
engine goes on with it (`take_over`). So a migration, and the way from prefill to decode, are timing around these calls.

Time is injected: ``advance_to(t)`` lives through everything up to and including ``t`` and returns what happened.
How time is cut into calls does not change the events.
"""

import math
from heapq import heapify, heappop, heappush
from typing import Final

from simulator.physics.batch import Batch
from simulator.physics.handing import Handing
from simulator.physics.prefill_first import PrefillFirst
from simulator.physics.roofline import kv_capacity_tokens, step_cost
from simulator.physics.sequence import (
    EngineEvent,
    EngineLoad,
    EnginePhases,
    Refusal,
    Sequence,
    SequenceState,
    refuse,
    refuse_stopped,
)
from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec
from simulator.physics.stepcost import Pace, StepCost

_NEVER: Final = math.inf
# Until the next boundary: nothing, a run of decode steps, steps with prompts.
_IDLE: Final = 0
_RUN: Final = 1
_MIXED: Final = 2


class EngineInstance(Handing):
    """One engine serving ``model`` on ``engine.tensor_parallel`` GPUs ``gpu``, from ``started_seconds`` on.

    ValueError when the weights leave no room for a single KV block.
    """

    __slots__ = (
        "_arrivals", "_batch", "_cancels", "_chunk", "_cost_key", "_decode_compute", "_decode_first", "_decode_half",
        "_decode_pace", "_decode_seconds", "_draining", "_end", "_first_step", "_half_growth", "_kind", "_leaving", "_limit",
        "_matmul", "_next_order", "_paces", "_prefill_pace", "_prefill_seconds", "_reserved", "_sequence_seconds", "_start",
        "_steps", "_stopped", "now", "spec", "started",
    )  # fmt: skip

    def __init__(
        self, gpu: GpuSpec, model: ModelSpec, engine: EngineSpec, started_seconds: float = 0.0
    ) -> None:
        capacity = kv_capacity_tokens(gpu, model, engine)
        if capacity <= 0:
            raise ValueError(
                f"model {model.name} ({model.weight_bytes / 2**30:.1f} GiB of weights) leaves no room for KV cache "
                f"on {engine.tensor_parallel} x {gpu.product} ({gpu.memory_bytes / 2**30:.0f} GiB each); "
                "raise the tensor parallel degree or take a larger GPU"
            )
        self.spec = engine
        self._limit = min(capacity, engine.max_model_tokens or capacity)
        self.now = self.started = started_seconds
        self._batch = (PrefillFirst if engine.scheduling == "prefill_first" else Batch)(engine, capacity)
        self._cost_key = (gpu, model, engine)
        self._paces: dict[tuple[float, float], Pace] = {}
        self._prefill_pace = self._decode_pace = self._pace(1.0, 1.0)
        self._arrivals: list[tuple[float, int, Sequence]] = []
        self._cancels: list[Sequence] = []
        self._leaving: list[Sequence] = []
        self._reserved: dict[int, int] = {}
        self._next_order = self._steps = 0
        self._draining = self._stopped = False
        # What runs until the next boundary: from _start, _steps steps, the first taking _first_step seconds and
        # each further one twice _half_growth more, to _end. Of them _decode_first, and _decode_half likewise, count as
        # decode; each works on _chunk tokens of prompts.
        self._kind, self._start, self._end = _IDLE, started_seconds, math.inf
        self._first_step = self._half_growth = self._decode_first = self._decode_half = self._matmul = 0.0
        self._chunk = 0
        self._prefill_seconds = self._decode_seconds = self._decode_compute = self._sequence_seconds = 0.0

    # ------------------------------------------------------------------------------------------------ commands

    def submit(
        self,
        request_id: int,
        prompt_tokens: int,
        output_tokens: int,
        arrived_seconds: float,
        priority: int = 0,
        prefix: tuple[int, ...] = (),
        hand_over: bool = False,
    ) -> Refusal | None:
        """Hand in a request; it joins the queue at ``arrived_seconds``, or now where that is past.

        Higher ``priority`` goes first; equals are served by ``arrived_seconds``. ``prefix`` are the hashes of the
        prompt's full prefix blocks. With ``hand_over`` it leaves after its first token, as a prefill engine's do.
        Returns None when taken, else the refusal: malformed, duplicate id, longer than the KV cache or the model's
        limit, draining, stopped.
        """
        if self._draining or self._stopped:
            return refuse_stopped(request_id, self._stopped)
        if (
            prompt_tokens < 1
            or output_tokens < 0
            or prompt_tokens + output_tokens > self._limit
            or request_id in self._batch.by_id
        ):
            return refuse(request_id, prompt_tokens, output_tokens, self._limit)
        order = self._next_order
        self._next_order = order + 1
        sequence = Sequence(request_id, prompt_tokens, output_tokens, arrived_seconds, priority, order)
        sequence.prefix, sequence.hand_over = prefix, hand_over
        self._batch.by_id[request_id] = sequence
        now = self.now
        heappush(self._arrivals, (max(now, arrived_seconds), order, sequence))
        return None

    def cancel(self, request_id: int) -> bool:
        """Drop a request: at once while it waits, at the next step boundary while it runs. False when unknown.

        No event of a cancelled request follows.
        """
        sequence = self._batch.by_id.pop(request_id, None)
        if sequence is None:
            return False
        sequence.cancelled = True
        self._forget_prefixes()
        if sequence.state is SequenceState.PENDING:
            self._batch.kv.free += sequence.reserved
            self._arrivals = [entry for entry in self._arrivals if entry[2] is not sequence]
            heapify(self._arrivals)
            return True
        if sequence.state is SequenceState.WAITING or sequence.state is SequenceState.HELD:
            self._batch.remove(sequence)
        else:
            self._cancels.append(sequence)
        self._nudge()  # whoever waited behind it may fit at the next boundary
        return True

    def set_speed(
        self, prefill_clock: float, decode_clock: float | None = None, node_speed: float = 1.0
    ) -> None:
        """Set clocks (over the maximum) of steps with and without prompt tokens, and the node's speed factor.

        Takes effect at the next step boundary. ValueError unless all are positive.
        """
        prefill = self._pace(prefill_clock, node_speed)
        decode = self._pace(prefill_clock if decode_clock is None else decode_clock, node_speed)
        if prefill is not self._prefill_pace or decode is not self._decode_pace:
            self._prefill_pace, self._decode_pace = prefill, decode
            self._truncate(self.now)

    def drain(self) -> None:
        """Take no more requests; what is queued and running is still served."""
        self._draining = True

    def kill(self) -> list[int]:
        """Stop for good and lose everything; returns the ids of the lost requests in order of submission."""
        lost = list(self._batch.by_id)
        if self._kind != _IDLE:
            steps = self._steps_done()
            self._book(steps)
            if steps and self._kind == _RUN:
                self._batch.close_run(steps)
            elif steps:
                self._batch.close_mixed(self.now, [], steps)
        self._arrivals.clear()
        self._cancels.clear()
        self._leaving.clear()
        self._reserved.clear()
        self._batch.clear()
        self._kind, self._start, self._end = _IDLE, self.now, math.inf
        self._stopped = True
        return lost

    # ------------------------------------------------------------------------------------------------ readings

    @property
    def capacity_tokens(self) -> int:
        """Tokens of KV cache, whole blocks."""
        return self._batch.kv.total * self._batch.kv.block_tokens

    @property
    def drained(self) -> bool:
        """Whether the engine drains and has nothing left to do."""
        return self._draining and not self._batch.by_id and not self._cancels

    @property
    def stopped(self) -> bool:
        """Whether the engine was killed."""
        return self._stopped

    @property
    def decode_cost(self) -> StepCost:
        """Coefficients of a decode step at the present clock and node speed."""
        return self._decode_pace.cost

    def relative_speed(self) -> float:
        """Speed at the present clocks over full speed, for a prompt of 1,024 tokens and 200 decode steps of 16."""
        full, prefill, decode = self._pace(1.0, 1.0).cost, self._prefill_pace.cost, self._decode_pace.cost
        prompt, pairs, context = 1024, 0.5 * 1024 * 1024, 16 * 1024
        now = prefill.seconds(0, prompt, 0, pairs) + decode.run_seconds(16, context, 200)
        return (full.seconds(0, prompt, 0, pairs) + full.run_seconds(16, context, 200)) / now

    def request_ids(self) -> list[int]:
        """Requests that the engine has, in order of submission."""
        return list(self._batch.by_id)

    def holds(self, request_id: int) -> bool:
        """Whether the engine still has this request."""
        return request_id in self._batch.by_id

    def decoding(self) -> list[tuple[int, int]]:
        """Requests that decode now and the tokens of their context, in order of submission."""
        batch = self._batch
        tick = batch.tick + self._steps_done()
        decode = SequenceState.DECODE
        return [
            (key, each.prompt + each.output - (each.finish_tick - tick))
            for key, each in batch.by_id.items()
            if each.state is decode
        ]

    def generated_tokens(self, request_id: int) -> int:
        """Output tokens that the engine has emitted for a request so far; KeyError when it does not hold it."""
        batch = self._batch
        return batch.generated(batch.by_id[request_id], batch.tick + self._steps_done())

    def standing(self) -> tuple[int, int, int, int]:
        """Of `load`, what changes a decision: running, waiting, free tokens of KV, tokens that the waiting ask for."""
        batch = self._batch
        kv = batch.kv
        free = kv.free - kv.needed(batch.tick + 1, self._steps_done())
        return batch.running, len(batch.waiting), free * kv.block_tokens, batch.queued_tokens

    def step_now(self) -> tuple[float, float, bool] | None:
        """The step (or run of decode steps) under way: when it began, seconds of its first step, whether it is one of
        prompts. None when nothing runs.
        """
        return None if self._kind == _IDLE else (self._start, self._first_step, self._kind == _MIXED)

    def load(self) -> EngineLoad:
        """Occupancy at ``now``; tokens move at step boundaries."""
        batch, steps = self._batch, self._steps_done()
        running, waiting, free, queued = self.standing()
        owed = batch.owed - steps * (batch.batch + self._chunk)
        oldest = batch.oldest_without_token()
        return EngineLoad(
            running=running,
            waiting=waiting,
            kv_free_tokens=free,
            kv_capacity_tokens=self.capacity_tokens,
            outstanding_tokens=owed,
            generated_tokens=batch.first_tokens + batch.decode_tokens + steps * batch.batch,
            head_of_line_seconds=0.0 if oldest is None else max(self.now - oldest, 0.0),
            last_busy_seconds=self._start if self._kind == _IDLE else self.now,
            preemptions=batch.preemptions,
            draining=self._draining,
            prefill_chunks=batch.prefill_chunks,
            queued_tokens=queued,
            prefix_hit_tokens=batch.kv.cache.hit_tokens if batch.kv.cache is not None else 0,
        )

    def phases(self) -> EnginePhases:
        """Integrals of what the engine did from its start to ``now``."""
        batch, steps = self._batch, self._steps_done()
        elapsed = 0.0 if self._kind == _IDLE else self.now - self._start
        decoded = self._decoded(steps, elapsed) if elapsed else 0.0
        prefill, decode = self._prefill_seconds + elapsed - decoded, self._decode_seconds + decoded
        return EnginePhases(
            prefill_seconds=prefill,
            decode_seconds=decode,
            idle_seconds=max(self.now - self.started - prefill - decode, 0.0),
            decode_compute_seconds=self._decode_compute + steps * batch.batch * self._matmul,
            sequence_seconds=self._sequence_seconds + elapsed * batch.batch,
            prefill_tokens=batch.prefill_tokens + steps * self._chunk,
            decode_tokens=batch.decode_tokens + steps * batch.batch,
        )

    # ---------------------------------------------------------------------------------------------------- time

    def advance_to(self, until_seconds: float) -> list[EngineEvent]:
        """Live up to and including ``until_seconds``; returns the events in order of time.

        ValueError when that lies in the past.
        """
        if until_seconds < self.now:
            raise ValueError(f"the engine is at {self.now} s and cannot go back to {until_seconds} s")
        events: list[EngineEvent] = []
        arrivals = self._arrivals
        while True:
            end = self._end
            if arrivals and arrivals[0][0] <= end:
                arrival = arrivals[0][0]
                if arrival > until_seconds or arrival == _NEVER:
                    break
                may_join = self._batch.enqueue(heappop(arrivals)[2])
                if self._kind == _IDLE:
                    self._end = arrival  # wake at once, after all that arrive at this very instant
                elif may_join and self._kind == _RUN:
                    self._truncate(arrival)
            elif end > until_seconds or end == _NEVER:
                break
            else:
                self._boundary(end, events)
        self.now = until_seconds
        return events

    def next_event_seconds(self) -> float:
        """When the engine next changes by itself (arrival or boundary); infinity when it has nothing to do."""
        return min(self._end, self._arrivals[0][0]) if self._arrivals else self._end

    def _boundary(self, at: float, events: list[EngineEvent]) -> None:
        """Close the run or step that ends at ``at``, and start the next."""
        batch = self._batch
        if self._kind == _RUN:
            self._book(self._steps, at)
            batch.close_run(self._steps)
        elif self._kind == _MIXED:
            self._book(self._steps, at)
            batch.close_mixed(at, events, self._steps)
        batch.retire(at, events)
        if self._cancels or self._leaving:
            self._let_go(at, events)
        tokens, pairs = batch.compose()
        self._start, size = at, batch.batch
        if tokens:
            self._start_mixed(at, size, tokens, pairs)
        elif size:
            pace = self._decode_pace.at(size)
            steps = self._steps = batch.run_limit()
            first = self._first_step = self._decode_first = pace.seconds(size, 0, batch.context, 0.0)
            half = self._half_growth = self._decode_half = 0.5 * pace.kv * size
            self._kind, self._chunk, self._matmul = _RUN, 0, pace.matmul
            self._end = at + steps * (first + half * (steps - 1))
        else:
            self._kind, self._chunk, self._end = _IDLE, 0, math.inf

    def _start_mixed(self, at: float, size: int, tokens: int, pairs: float) -> None:
        pace, context = self._prefill_pace.at(size), self._batch.context
        steps = self._steps = self._batch.chunk_limit(tokens)
        first = self._first_step = pace.seconds(size, tokens, context, pairs)
        self._decode_half = 0.5 * pace.kv * size
        half = self._half_growth = self._decode_half + 0.5 * pace.attention * tokens * tokens
        self._decode_first = pace.seconds(size, 0, context, 0.0) if size else 0.0
        self._kind, self._chunk, self._matmul = _MIXED, tokens, pace.matmul
        self._end = at + steps * (first + half * (steps - 1))

    def _book(self, steps: int, at: float | None = None) -> None:
        """Add what ran since ``_start``, of it ``steps`` whole steps, to the integrals."""
        elapsed = (self.now if at is None else at) - self._start
        size = self._batch.batch
        decoded = self._decoded(steps, elapsed)
        self._prefill_seconds += elapsed - decoded
        self._decode_seconds += decoded
        if size:
            self._sequence_seconds += elapsed * size
            self._decode_compute += steps * size * self._matmul

    def _decoded(self, steps: int, elapsed: float) -> float:
        """Seconds of the ``elapsed`` ones since ``_start`` that count as decode; ``steps`` steps are done."""
        if self._kind == _RUN:
            return elapsed
        first, half = self._decode_first, self._decode_half
        into = elapsed - steps * (self._first_step + self._half_growth * (steps - 1))
        step = self._first_step + 2.0 * self._half_growth * steps
        return steps * (first + half * (steps - 1)) + min(max(into / step, 0.0), 1.0) * (
            first + 2.0 * half * steps
        )

    def _truncate(self, at: float) -> None:
        """End the current run at its first step boundary not before ``at``; its current step is not undone."""
        if self._kind == _IDLE or self._steps == 1:
            return
        steps = self._steps_until(at)
        if steps < self._steps:
            self._steps = steps
            self._end = self._start + steps * (self._first_step + self._half_growth * (steps - 1))

    def _nudge(self) -> None:
        """Something became free: look at the queue at the next boundary, or at once where nothing runs."""
        if self._kind != _IDLE:
            self._truncate(self.now)
        elif self._batch.waiting:
            self._end = self.now

    def _steps_until(self, at: float) -> int:
        """Fewest steps (at least 1) of the run that end at or after ``at``; more than it has where all end before.

        Solves half_growth k² + (first_step - half_growth) k = at - start, then mends the rounding.
        """
        start, first, half = self._start, self._first_step, self._half_growth
        linear, elapsed = first - half, at - start
        if elapsed <= 0.0:
            return 1
        root = linear + math.sqrt(linear * linear + 4.0 * half * elapsed)
        steps = max(1, math.ceil(2.0 * elapsed / root))
        while steps > 1 and start + (steps - 1) * (first + half * (steps - 2)) >= at:
            steps -= 1
        while start + steps * (first + half * (steps - 1)) < at:
            steps += 1
        return steps

    def _steps_done(self) -> int:
        """Whole steps of the current run that ended at or before ``now``."""
        if self._kind == _IDLE or (self._steps == 1 and self.now < self._end):
            return 0
        steps = self._steps_until(self.now)
        ended = self._start + steps * (self._first_step + self._half_growth * (steps - 1)) <= self.now
        return steps if ended else steps - 1

    def _let_go(self, at: float, events: list[EngineEvent]) -> None:
        """At a boundary: who is to leave leaves, who was cancelled is dropped."""
        for sequence in self._leaving:
            if sequence.state is SequenceState.DECODE and not sequence.cancelled:
                self._batch.hand_over(sequence, at, events)
        self._leaving.clear()
        for sequence in self._cancels:
            if sequence.state is not SequenceState.GONE:
                self._batch.remove(sequence)
        self._cancels.clear()

    def _pace(self, clock: float, speed: float) -> Pace:
        pace = self._paces.get((clock, speed))
        if pace is None:
            gpu, model, engine = self._cost_key
            pace = self._paces[clock, speed] = Pace(step_cost(gpu, model, engine, clock, speed))
        return pace

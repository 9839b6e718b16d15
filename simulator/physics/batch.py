"""The scheduler inside an engine: queue, admission, chunks, preemption; counted in steps, without any time.

One step decodes a token for every decoding sequence and fills the rest of the token budget with prompt chunks.
``tick`` numbers the steps. Since each decoding sequence gains one token per step, its end is a tick known when it
joins, and sums over the batch suffice to advance by many steps at once.
"""

from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from simulator.physics.kv import KvBlocks
from simulator.physics.sequence import EngineEvent, EventKind, Sequence, SequenceState
from simulator.physics.specs import EngineSpec

FIRST_TOKEN: Final = EventKind.FIRST_TOKEN
FINISHED: Final = EventKind.FINISHED
HANDED_OVER: Final = EventKind.HANDED_OVER
WAITING: Final = SequenceState.WAITING
PREFILL: Final = SequenceState.PREFILL
DECODE: Final = SequenceState.DECODE
HELD: Final = SequenceState.HELD
GONE: Final = SequenceState.GONE


class Batch:
    """Sequences of one engine from queue to end (mutable, private to `EngineInstance`).

    ``batch`` sequences decode; their contexts in the next step sum to ``context``. ``owed`` is the prompt tokens
    to prefill plus the output tokens to emit over all sequences here.
    """

    __slots__ = (
        "_chunk_tokens", "_chunks", "_finishing", "_max_seqs", "_preempted", "batch", "by_id", "context",
        "decode_tokens", "first_tokens", "kv", "owed", "preemptions", "prefill_chunks", "prefill_tokens", "prefilling", "queued_tokens", "tick",
        "waiting",
    )  # fmt: skip

    def __init__(self, spec: EngineSpec, capacity_tokens: int) -> None:
        self._max_seqs, self._chunk_tokens = spec.max_num_seqs, spec.chunk_tokens
        blocks, growing = capacity_tokens // spec.block_tokens, spec.admission == "grow"
        self.kv = KvBlocks(blocks, spec.block_tokens, growing, spec.prefix_block_tokens)
        self.by_id: dict[int, Sequence] = {}
        self.waiting: list[tuple[float, float, int, Sequence]] = []
        self.prefilling: list[Sequence] = []
        self._finishing: list[tuple[int, int, Sequence]] = []
        self._chunks: list[tuple[Sequence, int]] = []
        self._preempted = False
        self.tick = self.batch = self.context = self.owed = self.preemptions = 0
        self.prefill_tokens = self.decode_tokens = self.first_tokens = 0
        self.prefill_chunks = self.queued_tokens = 0

    @property
    def running(self) -> int:
        """Sequences that hold KV blocks."""
        return self.batch + len(self.prefilling)

    def enqueue(self, sequence: Sequence) -> bool:
        """Queue a sequence; True when it could be admitted at the next step boundary."""
        sequence.state = WAITING
        self.queued_tokens += sequence.prompt + sequence.generated
        self.owed += sequence.left + sequence.output - sequence.generated
        rank = -inf if sequence.reserved else -sequence.priority
        heappush(self.waiting, (rank, sequence.arrived, sequence.order, sequence))
        return (
            self.waiting[0][3] is sequence
            and self.batch + len(self.prefilling) < self._max_seqs
            and self.kv.least_demand(sequence) <= self.kv.free
        )

    def compose(self) -> tuple[int, float]:
        """Make up the next step: grow or preempt, admit, cut chunks.

        Returns (prompt tokens, attention pairs) of the step; both 0 for a pure decode step.
        """
        preempted = self._preempted = self.kv.growing and self._grow()
        if not self.prefilling and not self.waiting:
            return 0, 0.0
        chunks = self._chunks = []
        budget, tokens, pairs = self._chunk_tokens - self.batch, 0, 0.0
        for sequence in self.prefilling:
            take = min(sequence.left, budget - tokens)
            if take <= 0:
                break
            chunks.append((sequence, take))
            tokens += take
            pairs += take * (sequence.offset + 0.5 * take)
        while tokens < budget and not preempted:
            admitted = self._admit()
            if admitted is None:
                break
            take = min(admitted.left, budget - tokens)
            chunks.append((admitted, take))
            tokens += take
            pairs += take * (admitted.offset + 0.5 * take)
        return tokens, pairs

    def run_limit(self) -> int:
        """Pure decode steps until a sequence finishes or the KV blocks run out, at least 1."""
        if self._preempted:
            return 1  # nothing is admitted in the step of a preemption, but perhaps in the next
        steps = self._finishing[0][0] - self.tick
        if self.kv.growing and steps > 1:
            return 1 + self.kv.steps_that_fit(self.tick + 1, steps - 1)
        return steps

    def chunk_limit(self, tokens: int) -> int:
        """Steps like the one that `compose` made up with ``tokens`` of prompt, at least 1.

        While one prompt fills the whole budget, each step takes as much of it as the one before, and nobody else
        gets in, until the prompt ends, a sequence finishes or the KV blocks run out.
        """
        chunks = self._chunks
        if len(chunks) != 1 or self._preempted or tokens < self._chunk_tokens - self.batch:
            return 1
        steps = chunks[0][0].left // tokens
        if self._finishing:
            steps = min(steps, self._finishing[0][0] - self.tick)
        if self.kv.growing and steps > 1:
            return 1 + self.kv.steps_that_fit(self.tick + 1, steps - 1)
        return max(steps, 1)

    def close_run(self, steps: int) -> None:
        """Book ``steps`` pure decode steps."""
        grown = steps * self.batch
        if self.kv.growing:
            self.kv.take(self.kv.needed(self.tick + 1, steps - 1))
        self.decode_tokens += grown
        self.owed -= grown
        self.context += grown
        self.tick += steps

    def close_mixed(self, at: float, events: list[EngineEvent], steps: int = 1) -> None:
        """Book ``steps`` steps like the one that `compose` made up with prompt chunks; the last ends at ``at``."""
        batch, done, tokens = self.batch * steps, 0, 0
        if steps > 1 and self.kv.growing:
            self.kv.take(self.kv.needed(self.tick + 1, steps - 1))
        self.tick += steps
        self.prefill_chunks += steps * len(self._chunks)
        self.context += batch
        for sequence, chunk in self._chunks:
            take = chunk * steps
            tokens += take
            sequence.left -= take
            sequence.offset += take
            if not sequence.left:
                done += 1
        self.decode_tokens += batch
        self.prefill_tokens += tokens
        self.owed -= tokens + batch
        finished = self.prefilling[:done]
        del self.prefilling[:done]
        for sequence in finished:
            self._join(sequence, at, events)

    def retire(self, at: float, events: list[EngineEvent]) -> None:
        """Let the sequences end whose last token came with the step before ``tick``."""
        finishing, tick = self._finishing, self.tick
        while finishing and finishing[0][0] <= tick:
            sequence = heappop(finishing)[2]
            self.batch -= 1
            self.context -= sequence.prompt + sequence.output
            self.kv.leave(sequence, tick)
            self._finish(sequence, at, events)

    def generated(self, sequence: Sequence, tick: int) -> int:
        """Output tokens of ``sequence`` before step ``tick``."""
        if sequence.state is DECODE:
            return sequence.output - (sequence.finish_tick - tick)
        return sequence.generated

    def oldest_without_token(self) -> float | None:
        """Arrival of the oldest sequence here that has emitted nothing yet; None without one."""
        queued = [entry[3] for entry in self.waiting] + self.prefilling
        return min((sequence.arrived for sequence in queued if not sequence.generated), default=None)

    def remove(self, sequence: Sequence) -> None:
        """Take a queued or running sequence out, between two steps."""
        left = sequence.left
        generated = self.generated(sequence, self.tick)
        if sequence.state is WAITING:
            self.waiting = [entry for entry in self.waiting if entry[3] is not sequence]
            heapify(self.waiting)
            self.queued_tokens -= sequence.prompt + sequence.generated
            self.kv.free += sequence.reserved
        elif sequence.state is HELD:
            self.kv.release(sequence)
            sequence.state = GONE
            return
        else:
            self._evict(sequence)
        self.owed -= left + sequence.output - generated
        sequence.state = GONE

    def hand_over(self, sequence: Sequence, at: float, events: list[EngineEvent]) -> None:
        """Take a decoding sequence out of the batch, between two steps, and keep its blocks."""
        sequence.generated = self.generated(sequence, self.tick)
        self._finishing = [entry for entry in self._finishing if entry[2] is not sequence]
        heapify(self._finishing)
        self.batch -= 1
        self.context -= sequence.prompt + sequence.generated
        self.kv.settle(sequence, self.tick)
        self._hold(sequence, at, events)

    def _hold(self, sequence: Sequence, at: float, events: list[EngineEvent]) -> None:
        sequence.state = HELD
        self.owed -= sequence.output - sequence.generated
        events.append(EngineEvent(at, HANDED_OVER, sequence.request_id, sequence.generated))

    def clear(self) -> None:
        """Lose everything."""
        for queue in (self.waiting, self.prefilling, self._finishing, self._chunks):
            queue.clear()
        self.by_id.clear()
        self.kv.clear()
        self.batch = self.context = self.owed = self.queued_tokens = 0

    def _admit(self) -> Sequence | None:
        """Move the head of the queue into the running set if it fits."""
        if not self.waiting or self.batch + len(self.prefilling) >= self._max_seqs:
            return None
        sequence = self.waiting[0][3]
        blocks = self.kv.demand(sequence)
        if blocks > self.kv.free:
            return None
        heappop(self.waiting)
        self.queued_tokens -= sequence.prompt + sequence.generated
        self.owed -= self.kv.admit(sequence, blocks)
        sequence.state = PREFILL
        self.prefilling.append(sequence)
        return sequence

    def _join(self, sequence: Sequence, at: float, events: list[EngineEvent]) -> None:
        """The prompt is done: its last step gave the first (after a preemption: the next) token."""
        left = sequence.output - sequence.generated
        if left:
            left -= 1
            self.owed -= 1
            sequence.generated += 1
            self.first_tokens += 1
            if sequence.generated == 1 and not sequence.cancelled:
                events.append(EngineEvent(at, FIRST_TOKEN, sequence.request_id, 1))
        self.kv.share(sequence)
        if not left:
            self.kv.release(sequence)
            self._finish(sequence, at, events)
            return
        if sequence.hand_over and not sequence.cancelled:
            self._hold(sequence, at, events)
            return
        self._decode(sequence, left)

    def _decode(self, sequence: Sequence, left: int) -> None:
        """``sequence`` decodes from the next step on, with ``left`` tokens to emit."""
        tick = self.tick
        sequence.state = DECODE
        sequence.joined_tick = tick
        sequence.finish_tick = tick + left
        sequence.context = sequence.prompt + sequence.generated
        self.batch += 1
        self.context += sequence.context
        self.kv.join(sequence)
        heappush(self._finishing, (tick + left, sequence.order, sequence))

    def _finish(self, sequence: Sequence, at: float, events: list[EngineEvent]) -> None:
        sequence.state = GONE
        if not sequence.cancelled:
            del self.by_id[sequence.request_id]
            events.append(EngineEvent(at, FINISHED, sequence.request_id, sequence.output))

    def _grow(self) -> bool:
        """Take the blocks of the next decode step, preempting the youngest while there are too few."""
        preempted = False
        while self.kv.due(self.tick) > self.kv.free:
            running = self.prefilling + [entry[2] for entry in self._finishing]
            self._preempt(max(running, key=Sequence.rank))
            preempted = True
        self.kv.take(self.kv.due(self.tick))
        return preempted

    def _preempt(self, victim: Sequence) -> None:
        """Give up the blocks of ``victim`` and queue it again; its tokens so far become prompt to recompute."""
        left, generated = victim.left, self.generated(victim, self.tick)
        self._evict(victim)
        victim.generated, victim.offset = generated, 0
        victim.left = victim.prompt + generated
        self.owed -= left + victim.output - generated
        self.preemptions += 1
        self.enqueue(victim)

    def _evict(self, sequence: Sequence) -> None:
        if sequence.state is PREFILL:
            self.prefilling.remove(sequence)
            self.kv.release(sequence)
            return
        self._finishing = [entry for entry in self._finishing if entry[2] is not sequence]
        heapify(self._finishing)
        self.batch -= 1
        self.context -= sequence.prompt + self.generated(sequence, self.tick)
        self.kv.leave(sequence, self.tick)

"""The scheduler of engines before chunked prefill: whole prompts go first, in steps of their own (vLLM 0.1 to 0.3).

Each step either computes whole prompts, as many of the queue in its order as the token budget, the KV blocks and
`max_num_seqs` allow, or decodes one token for every running sequence; while prompts wait that fit, nobody decodes.
A prompt is admitted when its blocks leave a hundredth of the cache free (vLLM's watermark), unless nothing runs.
A step of decodes that lacks blocks preempts the youngest, which goes back to the queue and is computed again as a
prompt (vLLM 0.1.7, ``core/scheduler.py`` and ``core/block_manager.py``). A prompt longer than the budget, which vLLM
would refuse, has a step to itself.
"""

from simulator.physics.batch import Batch
from simulator.physics.sequence import EngineEvent, Sequence
from simulator.physics.specs import EngineSpec

WATERMARK = 0.01
"""Share of the blocks that admission leaves free."""


class PrefillFirst(Batch):
    """A `Batch` whose steps hold either prompts or decodes.

    While a step of prompts runs, the decoding sequences are parked: ``batch`` and ``context`` are 0 and ``tick``
    stands still, so the closed forms of `EngineInstance`, which count by the three, hold as they are.
    """

    __slots__ = ("_kept", "_parked", "_parked_context")

    def __init__(self, spec: EngineSpec, capacity_tokens: int) -> None:
        super().__init__(spec, capacity_tokens)
        self._kept = int(WATERMARK * self.kv.total)
        self._parked = self._parked_context = 0

    @property
    def running(self) -> int:
        """Sequences that hold KV blocks."""
        return self.batch + self._parked + len(self.prefilling)

    def compose(self) -> tuple[int, float]:
        """Make up the next step: prompts, or else decodes; (prompt tokens, attention pairs) as in `Batch.compose`."""
        tokens, pairs = self._prompts() if self.waiting else (0, 0.0)
        self._preempted = not tokens and self.kv.growing and self._grow()
        if tokens:
            self._parked, self._parked_context = self.batch, self.context
            self.batch = self.context = 0
        return tokens, pairs

    def close_mixed(self, at: float, events: list[EngineEvent], steps: int = 1) -> None:
        """Book a step of prompts: nobody decoded in it, so no step is counted."""
        self.tick -= steps
        super().close_mixed(at, events, steps)
        self.batch += self._parked
        self.context += self._parked_context
        self._parked = self._parked_context = 0

    def clear(self) -> None:
        """Lose everything."""
        super().clear()
        self._parked = self._parked_context = 0

    def _prompts(self) -> tuple[int, float]:
        """Admit whole prompts in order while they fit; returns their tokens and attention pairs."""
        self._chunks = []
        tokens, pairs = 0, 0.0
        while self.waiting:
            head = self.waiting[0][3]
            resumes = head.generated > 0 and head.left == 1
            if tokens and not resumes and tokens + head.left > self._chunk_tokens:
                break
            admitted = self._admit()
            if admitted is None:
                break
            if resumes:
                self._resume(admitted)
                continue
            self._chunks.append((admitted, admitted.left))
            tokens += admitted.left
            pairs += admitted.left * (admitted.offset + 0.5 * admitted.left)
        return tokens, pairs

    def _admit(self) -> Sequence | None:
        head = self.waiting[0][3]
        if self.running and not head.reserved and self.kv.demand(head) + self._kept > self.kv.free:
            return None
        return super()._admit()

    def _resume(self, sequence: Sequence) -> None:
        """One that came with all of its KV but the last token's: computing that one is a decode step."""
        self.prefilling.pop()
        sequence.offset += 1
        sequence.left = 0
        self.owed -= 1
        if self.kv.growing:  # a decode step takes its own block
            held = -(-(sequence.offset - 1) // self.kv.block_tokens)
            self.kv.free += sequence.blocks - held
            sequence.blocks = held
        self._decode(sequence, sequence.output - sequence.generated)

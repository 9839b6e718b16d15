"""Requests that change engines: reservations, leaving with the KV pinned, going on elsewhere.

Mixed into `EngineInstance`. A move is: `reserve` on the target, copy while the source goes on, `hand_over` on the source,
`take_over` on the target, `release` on the source. What copies and when is the caller's business.
"""

from abc import ABC, abstractmethod

from simulator.physics.batch import Batch
from simulator.physics.sequence import Handover, Refusal, Sequence, SequenceState
from simulator.physics.specs import EngineSpec


class Handing(ABC):
    """The part of an engine that lets requests come and go with their KV; abstract but for that."""

    __slots__ = ()

    spec: EngineSpec
    now: float
    _batch: Batch
    _draining: bool
    _leaving: list[Sequence]
    _reserved: dict[int, int]
    _stopped: bool

    @abstractmethod
    def submit(  # noqa: D102 - see EngineInstance
        self,
        request_id: int,
        prompt_tokens: int,
        output_tokens: int,
        arrived_seconds: float,
        priority: int = 0,
        prefix: tuple[int, ...] = (),
        hand_over: bool = False,
    ) -> Refusal | None: ...

    @abstractmethod
    def generated_tokens(self, request_id: int) -> int:  # noqa: D102 - see EngineInstance
        ...

    @abstractmethod
    def _truncate(self, at: float) -> None: ...

    @abstractmethod
    def _nudge(self) -> None: ...

    @abstractmethod
    def _steps_done(self) -> int: ...

    def reserve(self, request_id: int, tokens: int) -> bool:
        """Set KV blocks for ``tokens`` aside for a request that is to come; False when they are not free now.

        ValueError when blocks are already set aside for it.
        """
        if request_id in self._reserved:
            raise ValueError(f"request {request_id} has a reservation on this engine; end it before another")
        blocks = -(-tokens // self.spec.block_tokens)
        if self._stopped or self._draining or blocks > self._free_blocks():
            return False
        self._batch.kv.take(blocks)
        self._reserved[request_id] = blocks
        self._truncate(self.now)  # what runs was counted with these blocks
        return True

    def unreserve(self, request_id: int) -> None:
        """Give a reservation up; nothing happens where there is none."""
        blocks = self._reserved.pop(request_id, 0)
        if blocks:
            self._forget_prefixes()
            self._batch.kv.free += blocks
            self._nudge()

    def hand_over(self, request_id: int) -> bool:
        """Let a decoding request leave at the next step boundary: HANDED_OVER tells when, unless it ends first.

        Its KV stays here until `release`. False when it is not here or does not decode.
        """
        sequence = self._batch.by_id.get(request_id)
        if sequence is None or sequence.state is not SequenceState.DECODE:
            return False
        self._leaving.append(sequence)
        self._truncate(self.now)
        return True

    def handover(self, request_id: int) -> Handover:
        """What another engine must know to go on with a request of this one; KeyError when it is not here."""
        sequence = self._batch.by_id[request_id]
        return Handover(
            request_id=request_id,
            prompt_tokens=sequence.prompt,
            output_tokens=sequence.output,
            generated_tokens=self.generated_tokens(request_id),
            arrived_seconds=sequence.arrived,
            priority=sequence.priority,
            prefix=sequence.prefix,
        )

    def release(self, request_id: int) -> bool:
        """Free the KV of a request that was handed over; False when none of that id is held."""
        sequence = self._batch.by_id.get(request_id)
        if sequence is None or sequence.state is not SequenceState.HELD:
            return False
        del self._batch.by_id[request_id]
        self._forget_prefixes()
        self._batch.remove(sequence)
        self._nudge()
        return True

    def take_over(self, handover: Handover, cached_tokens: int = 0) -> Refusal | None:
        """Go on with a request from now; the KV of its first ``cached_tokens`` has come with it (0: compute it again).

        The last token's KV is computed here in any case: that is the step that gives the next token. Blocks reserved
        for it become its own where they are enough for it to be admitted, and it is then admitted before those that have
        none (who might wait for its blocks); else they are given back. Refused as in `submit`.
        """
        request_id, context = handover.request_id, handover.context_tokens
        refusal = self.submit(
            request_id, handover.prompt_tokens, handover.output_tokens, handover.arrived_seconds,
            handover.priority, handover.prefix,
        )  # fmt: skip
        if refusal is not None:
            self.unreserve(request_id)
            return refusal
        sequence = self._batch.by_id[request_id]
        sequence.generated = handover.generated_tokens
        sequence.offset = min(cached_tokens, context - 1)
        sequence.left = context - sequence.offset
        if self._reserved.get(request_id, 0) >= self._batch.kv.whole(sequence):
            sequence.reserved = self._reserved.pop(request_id)
        else:
            self.unreserve(request_id)
        return None

    def _forget_prefixes(self) -> None:
        """Before room is given back within a run: forget the idle prefixes that its steps so far have overwritten."""
        cache = self._batch.kv.cache
        if cache is not None:
            cache.trim(self._free_blocks())

    def _free_blocks(self) -> int:
        """KV blocks that are free during the step that runs now."""
        batch = self._batch
        return batch.kv.free - batch.kv.needed(batch.tick + 1, self._steps_done())

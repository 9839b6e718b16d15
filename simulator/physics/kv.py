"""Paged KV cache of one engine: blocks taken at admission, and block by block while sequences decode."""

from simulator.physics.sequence import Sequence


class KvBlocks:
    """``total`` blocks of ``block_tokens`` tokens each.

    Without ``growing`` a sequence takes the blocks of prompt and output at admission and keeps them. With it, it
    takes those of its prompt, and each further block in the step that writes the block's first token. Which
    sequences do so in a given step depends only on the step's number modulo the block size, so a counter per
    residue tells the need of any run of steps without a loop over sequences.
    """

    __slots__ = ("_due", "_members", "block_tokens", "free", "growing", "total")

    def __init__(self, total: int, block_tokens: int, growing: bool) -> None:
        self.total = self.free = total
        self.block_tokens = block_tokens
        self.growing = growing
        self._members = 0
        self._due = [0] * block_tokens

    def demand(self, sequence: Sequence) -> int:
        """Blocks that admitting ``sequence`` takes."""
        if self.growing:
            return -(-(sequence.prompt + sequence.generated) // self.block_tokens)
        return -(-(sequence.prompt + sequence.output) // self.block_tokens)

    def admit(self, sequence: Sequence, blocks: int) -> None:
        """Take ``blocks`` for ``sequence``."""
        sequence.blocks = blocks
        self.free -= blocks

    def join(self, sequence: Sequence) -> None:
        """``sequence`` decodes from its ``joined_tick`` on, with ``context`` tokens in that step."""
        if self.growing:
            self._due[self._residue(sequence)] += 1
            self._members += 1

    def leave(self, sequence: Sequence, tick: int) -> None:
        """A decoding ``sequence`` ends before step ``tick``: its blocks are free again."""
        if not self.growing:
            self.free += sequence.blocks
            return
        self._due[self._residue(sequence)] -= 1
        self._members -= 1
        written = sequence.context + tick - sequence.joined_tick - 1
        self.free += -(-written // self.block_tokens)

    def release(self, sequence: Sequence) -> None:
        """A ``sequence`` that never came to decode ends: its blocks are free again."""
        self.free += sequence.blocks

    def due(self, tick: int) -> int:
        """Blocks that the decoding sequences take in step ``tick``."""
        return self._due[tick % self.block_tokens] if self.growing else 0

    def needed(self, tick: int, steps: int) -> int:
        """Blocks that the decoding sequences take in ``steps`` steps from ``tick`` on."""
        if not self.growing or steps <= 0:
            return 0
        size, due = self.block_tokens, self._due
        cycles, rest = divmod(steps, size)
        first = tick % size
        partial = sum(due[first : first + rest]) + sum(due[: max(first + rest - size, 0)])
        return cycles * self._members + partial

    def steps_that_fit(self, tick: int, steps: int) -> int:
        """Most steps, at most ``steps``, from ``tick`` on for which the free blocks suffice."""
        if self.needed(tick, steps) <= self.free:
            return steps
        cycles = self.free // self._members
        fitting, left = cycles * self.block_tokens, self.free - cycles * self._members
        while True:
            left -= self._due[(tick + fitting) % self.block_tokens]
            if left < 0:
                return fitting
            fitting += 1

    def clear(self) -> None:
        """Forget every sequence."""
        self.free, self._members = self.total, 0
        self._due = [0] * self.block_tokens

    def _residue(self, sequence: Sequence) -> int:
        return (1 - sequence.context + sequence.joined_tick) % self.block_tokens

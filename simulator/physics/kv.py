"""Paged KV cache of one engine: blocks taken at admission, and block by block while sequences decode."""

from simulator.physics.prefix import PrefixCache
from simulator.physics.sequence import Sequence


class KvBlocks:
    """``total`` blocks of ``block_tokens`` tokens each.

    Without ``growing`` a sequence takes the blocks of prompt and output at admission and keeps them. With it, it
    takes those of its prompt, and each further block in the step that writes the block's first token. Which
    sequences do so in a given step depends only on the step's number modulo the block size, so a counter per
    residue tells the need of any run of steps without a loop over sequences; the counters stand twice in a row, so that
    the remainder of a run is one slice.

    With ``prefix_tokens`` prompts share their leading blocks (``cache``); ``free`` then counts the cache's idle ones too.
    """

    __slots__ = ("_due", "_members", "block_tokens", "cache", "free", "growing", "total")

    def __init__(self, total: int, block_tokens: int, growing: bool, prefix_tokens: int = 0) -> None:
        self.total = self.free = total
        self.cache = PrefixCache(prefix_tokens, prefix_tokens // block_tokens) if prefix_tokens else None
        self.block_tokens = block_tokens
        self.growing = growing
        self._members = 0
        self._due = [0] * (2 * block_tokens)

    def demand(self, sequence: Sequence) -> int:
        """Blocks that admitting ``sequence`` takes, beside those that were set aside for it and those it would share."""
        blocks = self.whole(sequence) - sequence.reserved
        cache = self.cache
        if cache is not None and sequence.prefix and not sequence.offset:
            most = (sequence.prompt + sequence.generated - 1) // cache.block_tokens
            sequence.hits, held = cache.match(sequence.prefix, most)
            blocks -= held * cache.kv_blocks
        return blocks

    def least_demand(self, sequence: Sequence) -> int:
        """What `demand` is at least, without a look into the cache: as if others held all of its prefix."""
        blocks = self.whole(sequence) - sequence.reserved
        cache = self.cache
        return blocks if cache is None else blocks - len(sequence.prefix) * cache.kv_blocks

    def admit(self, sequence: Sequence, blocks: int) -> int:
        """Take the ``blocks`` that `demand` just told; returns the tokens of its context that were found cached."""
        sequence.blocks = self.whole(sequence)
        sequence.reserved = 0
        found = 0
        cache = self.cache
        if cache is not None and sequence.hits:
            sequence.shared = cache.hold(sequence.prefix, sequence.hits)
            found = sequence.offset = sequence.hits * cache.block_tokens
            sequence.left -= found
            sequence.hits = 0
        self.take(blocks)
        return found

    def take(self, blocks: int) -> None:
        """Take ``blocks``, forgetting idle prefixes where they are in the way."""
        self.free -= blocks
        cache = self.cache
        if cache is not None and blocks > 0:
            cache.trim(self.free)

    def share(self, sequence: Sequence) -> None:
        """The prompt of ``sequence`` is computed: others may use its blocks from now on."""
        if self.cache is not None and sequence.prefix:
            sequence.shared = self.cache.insert(sequence.prefix, sequence.shared or [])

    def join(self, sequence: Sequence) -> None:
        """``sequence`` decodes from its ``joined_tick`` on, with ``context`` tokens in that step."""
        if self.growing:
            self._count(sequence, 1)

    def leave(self, sequence: Sequence, tick: int) -> None:
        """A decoding ``sequence`` ends before step ``tick``: its blocks are free again."""
        self.settle(sequence, tick)
        self.release(sequence)

    def settle(self, sequence: Sequence, tick: int) -> None:
        """A decoding ``sequence`` leaves the batch before step ``tick`` and keeps the blocks it has written."""
        if self.growing:
            self._count(sequence, -1)
            written = sequence.context + tick - sequence.joined_tick - 1
            sequence.blocks = -(-written // self.block_tokens)

    def release(self, sequence: Sequence) -> None:
        """A ``sequence`` that decodes no more, or never did, ends: its blocks are free again."""
        self.free += sequence.blocks
        cache = self.cache
        if cache is not None and sequence.shared:
            self.free -= cache.drop(sequence.shared) * cache.kv_blocks
        sequence.shared = None

    def due(self, tick: int) -> int:
        """Blocks that the decoding sequences take in step ``tick``."""
        return self._due[tick % self.block_tokens] if self.growing else 0

    def needed(self, tick: int, steps: int) -> int:
        """Blocks that the decoding sequences take in ``steps`` steps from ``tick`` on."""
        if not self.growing or steps <= 0:
            return 0
        size = self.block_tokens
        first, rest = tick % size, steps % size
        return steps // size * self._members + sum(self._due[first : first + rest])

    def steps_that_fit(self, tick: int, steps: int) -> int:
        """Most steps, at most ``steps``, from ``tick`` on for which the free blocks suffice."""
        free, members = self.free, self._members
        if (steps // self.block_tokens + 1) * members <= free or self.needed(tick, steps) <= free:
            return steps
        cycles = free // members
        fitting, left = cycles * self.block_tokens, free - cycles * members
        while True:
            left -= self._due[(tick + fitting) % self.block_tokens]
            if left < 0:
                return fitting
            fitting += 1

    def clear(self) -> None:
        """Forget every sequence."""
        self.free, self._members = self.total, 0
        self._due = [0] * (2 * self.block_tokens)
        if self.cache is not None:
            self.cache.clear()

    def whole(self, sequence: Sequence) -> int:
        """Blocks of ``sequence`` once it is admitted."""
        tokens = sequence.prompt + (sequence.generated if self.growing else sequence.output)
        return -(-tokens // self.block_tokens)

    def _count(self, sequence: Sequence, change: int) -> None:
        due, size = self._due, self.block_tokens
        residue = (1 - sequence.context + sequence.joined_tick) % size
        due[residue] += change
        due[residue + size] += change
        self._members += change

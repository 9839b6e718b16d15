"""Prefix cache: full blocks of prompts that stay in the KV cache under their hashes, least recently used out first.

A hash stands for a block *and* all before it, so two prompts share their longest common run of leading hashes. A
block enters when the prompt it belongs to has been computed. While a sequence holds it, it is counted once, whoever
else holds it; when nobody does, it is *idle*: free for whoever needs room, and found again until then.
"""

from collections import OrderedDict


class PrefixCache:
    """The shared blocks of one engine. ``block_tokens`` tokens an entry, each of ``kv_blocks`` blocks of the cache."""

    __slots__ = ("_holders", "_idle", "block_tokens", "hit_tokens", "kv_blocks")

    def __init__(self, block_tokens: int, kv_blocks: int) -> None:
        self.block_tokens, self.kv_blocks = block_tokens, kv_blocks
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self.hit_tokens = 0

    def match(self, prefix: tuple[int, ...], most: int) -> tuple[int, int]:
        """Leading entries of ``prefix`` that are here, at most ``most``; and how many of them somebody holds."""
        holders, idle = self._holders, self._idle
        found = held = 0
        for key in prefix[:most]:
            if key in holders:
                held += 1
            elif key not in idle:
                break
            found += 1
        return found, held

    def hold(self, prefix: tuple[int, ...], count: int) -> list[int]:
        """Hold the first ``count`` entries, which are here; returns them."""
        holders, idle = self._holders, self._idle
        taken = list(prefix[:count])
        for key in taken:
            if key in holders:
                holders[key] += 1
            else:
                del idle[key]
                holders[key] = 1
        self.hit_tokens += count * self.block_tokens
        return taken

    def insert(self, prefix: tuple[int, ...], held: list[int]) -> list[int]:
        """Enter the blocks behind the first ``len(held)``; returns all that the sequence holds now.

        What somebody else has entered meanwhile stays his, and the sequence's own copy is shared with nobody.
        """
        holders, idle = self._holders, self._idle
        for key in prefix[len(held) :]:
            if key not in holders:
                idle.pop(key, None)
                holders[key] = 1
                held.append(key)
        return held

    def drop(self, held: list[int]) -> int:
        """Let go of what a sequence holds, the last block to be forgotten first; returns how many others still hold."""
        holders, idle = self._holders, self._idle
        left = 0
        for key in reversed(held):
            others = holders[key] - 1
            if others:
                holders[key] = others
                left += 1
            else:
                del holders[key]
                idle[key] = None
        return left

    def trim(self, free_blocks: int) -> None:
        """Forget the least recently used idle entries until they fit into ``free_blocks``."""
        idle = self._idle
        for _ in range(len(idle) - max(free_blocks // self.kv_blocks, 0)):
            idle.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._holders.clear()
        self._idle.clear()

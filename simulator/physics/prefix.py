"""Prefix cache: full blocks of prompts that stay in the KV cache under their hashes, least recently used out first.

A hash stands for a block *and* all before it, so two prompts share their longest common run of leading hashes. A
block enters when the prompt it belongs to has been computed. While a sequence holds it, it is counted once, whoever
else holds it; when nobody does, it is *idle*: free for whoever needs room, and found again until then.

Whoever lets go leaves a run of idle entries behind, under a number of its own. An entry that is held again, or idle again in a
later run, stays in the old one too, and is passed over when its turn comes: the number it has now is another.
"""

from collections import deque

_SPARE = 4096
"""So many passed-over entries may wait in the runs, beside as many as there are idle ones."""


class PrefixCache:
    """The shared blocks of one engine. ``block_tokens`` tokens an entry, each of ``kv_blocks`` blocks of the cache."""

    __slots__ = (
        "_idle",
        "_number",
        "_runs",
        "_states",
        "_waiting",
        "block_tokens",
        "hit_tokens",
        "kv_blocks",
    )

    def __init__(self, block_tokens: int, kv_blocks: int) -> None:
        self.block_tokens, self.kv_blocks = block_tokens, kv_blocks
        self._states: dict[object, int] = {}  # how many hold an entry, or the negative number of its idle run
        self._runs: deque[tuple[int, list[object]]] = deque()
        self._idle = self._number = 0
        self._waiting = 0  # entries in the runs, those to be passed over too
        self.hit_tokens = 0

    def match(self, prefix: tuple[object, ...], most: int) -> tuple[int, int]:
        """Leading entries of ``prefix`` that are here, at most ``most``; and how many of them somebody holds."""
        states = self._states
        found = held = 0
        for key in prefix[:most]:
            state = states.get(key, 0)
            if not state:
                break
            if state > 0:
                held += 1
            found += 1
        return found, held

    def hold(self, prefix: tuple[object, ...], count: int) -> list[object]:
        """Hold the first ``count`` entries, which are here; returns them."""
        states = self._states
        taken = list(prefix[:count])
        for key in taken:
            state = states[key]
            if state > 0:
                states[key] = state + 1
            else:
                states[key] = 1
                self._idle -= 1
        self.hit_tokens += count * self.block_tokens
        return taken

    def insert(self, prefix: tuple[object, ...], held: list[object]) -> list[object]:
        """Enter the blocks behind the first ``len(held)``; returns all that the sequence holds now.

        What somebody else has entered meanwhile stays his, and the sequence's own copy is shared with nobody.
        """
        states = self._states
        for key in prefix[len(held) :]:
            state = states.get(key, 0)
            if state <= 0:
                states[key] = 1
                held.append(key)
                if state:
                    self._idle -= 1
        return held

    def drop(self, held: list[object]) -> int:
        """Let go of what a sequence holds, the last block to be forgotten first; returns how many others still hold."""
        states = self._states
        number = self._number = self._number - 1
        run: list[object] = []
        for key in held:
            others = states[key] - 1
            if others:
                states[key] = others
            else:
                states[key] = number
                run.append(key)
        if run:
            self._runs.append((number, run))
            self._idle += len(run)
            self._waiting += len(run)
            if self._waiting > 2 * self._idle + _SPARE:
                self._tidy()
        return len(held) - len(run)

    def trim(self, free_blocks: int) -> None:
        """Forget the least recently used idle entries until they fit into ``free_blocks``."""
        excess = self._idle - max(free_blocks // self.kv_blocks, 0)
        if excess > 0:
            self._forget(excess)

    def _forget(self, count: int) -> None:
        """Forget the first ``count`` idle entries; there are as many."""
        states, runs = self._states, self._runs
        self._idle -= count
        while count:
            number, run = runs[0]
            size = len(run)
            while count and run:
                key = run.pop()
                if states.get(key, 0) == number:
                    del states[key]
                    count -= 1
            self._waiting -= size - len(run)
            if not run:
                runs.popleft()

    def _tidy(self) -> None:
        """Take what would be passed over out of the runs."""
        states, runs = self._states, self._runs
        kept = [(number, [key for key in run if states.get(key, 0) == number]) for number, run in runs]
        self._runs = deque([(number, run) for number, run in kept if run])
        self._waiting = self._idle

    def clear(self) -> None:
        """Forget everything."""
        self._states.clear()
        self._runs.clear()
        self._idle = self._waiting = 0

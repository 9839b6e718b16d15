"""KV blocks: the counters per residue say what a look at every sequence would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.physics.kv import KvBlocks
from simulator.physics.sequence import Sequence


def sequence(prompt: int, output: int = 50, joined: int = 0) -> Sequence:
    made = Sequence(1, prompt, output, 0.0, 0, 0)
    made.context, made.joined_tick = prompt + 1, joined
    return made


def blocks(tokens: int, size: int) -> int:
    return -(-tokens // size)


@pytest.mark.parametrize(
    ("growing", "generated", "demand"),
    [(False, 0, 10), (False, 30, 10), (True, 0, 7), (True, 12, 7), (True, 13, 8)],
    ids=["prompt and output at once", "whatever it has emitted", "the prompt alone", "and what it had emitted", "one token more, one block more"],
)  # fmt: skip
def test_what_admission_takes(growing: bool, generated: int, demand: int) -> None:
    cache = KvBlocks(100, 16, growing)
    one = sequence(100, 60)
    one.generated = generated
    assert cache.demand(one) == demand
    cache.admit(one, demand)
    assert (cache.free, cache.total, one.blocks) == (100 - demand, 100, demand)
    cache.release(one)
    assert cache.free == 100


def test_reserved_blocks_are_all_given_back_at_the_end_and_none_is_due() -> None:
    cache = KvBlocks(10, 16, growing=False)
    one = sequence(30, 40)
    cache.admit(one, cache.demand(one))
    cache.join(one)
    assert (cache.free, cache.due(0), cache.needed(0, 99), cache.steps_that_fit(0, 99)) == (5, 0, 0, 99)
    cache.leave(one, 20)
    assert cache.free == 10


def test_a_growing_sequence_takes_a_block_with_its_first_token() -> None:
    cache = KvBlocks(10, 4, growing=True)
    one = sequence(6, joined=3)
    cache.admit(one, cache.demand(one))
    cache.join(one)
    assert [cache.due(tick) for tick in range(3, 12)] == [0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert [cache.needed(3, steps) for steps in (-1, 0, 1, 2, 3, 6, 7, 11)] == [0, 0, 0, 0, 1, 1, 2, 3]
    cache.free -= cache.needed(3, 5)
    cache.leave(one, 8)
    assert cache.free == 10
    assert [cache.due(tick) for tick in range(8, 12)] == [0, 0, 0, 0]


def test_a_cleared_cache_is_empty_and_nothing_is_due() -> None:
    cache = KvBlocks(10, 4, growing=True)
    one = sequence(6)
    cache.admit(one, 2)
    cache.join(one)
    cache.clear()
    assert cache.free == 10
    assert cache.needed(0, 100) == 0


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), min_size=1, max_size=6),
    st.integers(12, 40),
    st.integers(0, 60),
    st.integers(0, 30),
)
def test_the_counters_agree_with_every_sequence(
    size: int, rows: list[tuple[int, int]], tick: int, steps: int, free: int
) -> None:
    cache = KvBlocks(10_000, size, growing=True)
    decoding = [sequence(prompt, joined=joined) for prompt, joined in rows]
    for one in decoding:
        cache.join(one)

    def held(after: int) -> int:
        """Blocks all of them have before step `after`."""
        return sum(blocks(one.context + after - one.joined_tick - 1, size) for one in decoding)

    assert cache.due(tick) == held(tick + 1) - held(tick)
    assert cache.needed(tick, steps) == held(tick + steps) - held(tick)
    cache.free = free
    fitting = max(n for n in range(steps + 1) if held(tick + n) - held(tick) <= free)
    assert cache.steps_that_fit(tick, steps) == fitting


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(1, 40), st.integers(0, 25)), max_size=5))
def test_every_block_comes_back_whenever_sequences_end(size: int, rows: list[tuple[int, int]]) -> None:
    cache = KvBlocks(1_000, size, growing=True)
    running = []
    for prompt, length in rows:
        one = sequence(prompt)
        cache.admit(one, cache.demand(one))
        cache.join(one)
        running.append((length, one))
    for tick in range(30):
        for length, one in running:
            if length == tick:
                cache.leave(one, tick)
        cache.free -= cache.due(tick)
    assert cache.free == 1_000

"""What a gateway expects of answers: the mean of what was seen for prompts of the size, never more than was asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.dispatch.outputs import ENOUGH, MEMORY, Outputs

EDGES = (100, 1_000, 10_000)


def seen(*answers: tuple[int, int, int]) -> Outputs:
    """(prompt, output, how often)."""
    found = Outputs(EDGES)
    for prompt, output, times in answers:
        for _ in range(times):
            found.learn(prompt, output)
    return found


@pytest.mark.parametrize(
    ("answers", "prompt", "most", "expected"),
    [
        pytest.param([], 100, 500, 500, id="nothing seen: the most that was asked for"),
        pytest.param([(100, 40, 15)], 100, 500, 500, id="too few seen"),
        pytest.param([(100, 40, 16)], 100, 500, 40, id="enough seen: their mean"),
        pytest.param([(100, 40, 8), (100, 80, 8)], 100, 500, 60, id="the mean of different ones"),
        pytest.param([(100, 40, 99)], 100, 25, 25, id="never more than was asked for"),
        pytest.param([(100, 40, 99)], 10_000, 500, 500, id="short prompts tell nothing of long ones"),
        pytest.param(
            [(100, 40, 99), (1_000, 400, 99)], 550, 999, 220, id="a prompt between two edges takes of both"
        ),
        pytest.param([(550, 220, 64)], 100, 999, 220, id="and tells both"),
        pytest.param([(50_000, 7, 20)], 90_000, 999, 7, id="prompts beyond the last edge count there"),
        pytest.param([(100, 1, 50)], 100, 1, 1, id="at least one token"),
        pytest.param(
            [(100, 500, 4_000), (100, 20, 4_000)], 100, 999, 20, id="what is long ago counts no more"
        ),
    ],
)
def test_what_is_expected(answers, prompt, most, expected):
    assert seen(*answers).expected(prompt, most) == pytest.approx(expected, abs=1)


@given(
    st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 4_000)), max_size=60),
    st.integers(1, 20_000),
    st.integers(1, 4_000),
)
def test_it_lies_between_what_was_seen_and_is_the_same_whenever_it_is_asked(pairs, prompt, most):
    found, again = Outputs(EDGES), Outputs(EDGES)
    for each in pairs:
        found.learn(*each)
        again.learn(*each)
        again.expected(prompt, most)
    expected = found.expected(prompt, most)
    assert expected == again.expected(prompt, most)
    assert 1 <= expected <= most
    low = min((output for _, output in pairs), default=most)
    assert expected >= min(low, most)


def test_memory_is_bounded():
    assert ENOUGH < MEMORY / 2
    found = seen((100, 300, 100_000))
    assert max(found._weights) <= MEMORY

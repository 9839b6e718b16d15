"""Load by what is really generated: exact once all has ended, and untouched where all is generated that was asked for."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answers import AnswerLengths
from gateway.histogram import SoftHistogram
from policies.dispatch.outputs import ENOUGH, MEMORY
from tests.gateway.worlds import World, arrival, instance, service

INPUTS = (100.0, 200.0, 400.0)
OUTPUTS = (10.0, 50.0, 200.0)


def counted(requests: list[tuple[int, int]]) -> np.ndarray:
    grid = SoftHistogram(INPUTS, OUTPUTS, 60.0, 5.0, 0.0)
    for prompt, output in requests:
        grid.add(0.5, prompt, output)
    return grid.rates(60.0)[0]


def learned(requests: list[tuple[int, int, int]], times: int = 1) -> AnswerLengths:
    found = AnswerLengths(INPUTS, OUTPUTS)
    for prompt, most, tokens in requests * times:
        found.learn(prompt, most, tokens)
    return found


sizes = st.tuples(st.integers(1, 500), st.integers(1, 300), st.integers(1, 300))


@given(st.lists(sizes, min_size=1, max_size=12))
def test_once_all_has_ended_load_is_what_was_generated_for_each_size_of_prompt(requests) -> None:
    requests = [(prompt, max(most, tokens), tokens) for prompt, most, tokens in requests]
    asked = counted([(prompt, most) for prompt, most, _ in requests])
    found = AnswerLengths(INPUTS, OUTPUTS, enough=0.0)
    for each in requests:
        found.learn(*each)
    generated = counted([(prompt, tokens) for prompt, _, tokens in requests])
    np.testing.assert_allclose(found.answered(asked), generated, atol=1e-12)


@given(st.lists(sizes, min_size=1, max_size=12), st.integers(1, 40))
def test_where_all_is_generated_that_was_asked_for_nothing_changes(requests, times) -> None:
    asked = counted([(prompt, most) for prompt, most, _ in requests])
    found = learned([(prompt, most, most) for prompt, most, _ in requests], times)
    assert found.answered(asked) is asked


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        pytest.param([(100, 200, 10)] * int(ENOUGH - 1), [0, 0, 1], id="too few are known: as long as they may become"),
        pytest.param([(100, 200, 10)] * int(ENOUGH), [1, 0, 0], id="all much shorter"),
        pytest.param([(100, 200, 10), (100, 200, 200)] * 20, [0.5, 0, 0.5], id="every second one ends early"),
        pytest.param([(100, 200, 30)] * 20, [0.5, 0.5, 0], id="between two edges"),
        pytest.param([(100, 200, 500)] * 20, [0, 0, 1], id="longer than was allowed"),
        pytest.param([(400, 200, 10)] * 20, [0, 0, 1], id="long prompts tell nothing of short ones"),
        pytest.param([(100, 10, 1)] * 20, [0, 0, 1], id="nor short answers of long ones"),
        pytest.param([(100, 200, 200)] * 9_000 + [(100, 200, 10)] * 9_000, [1, 0, 0], id="what is long ago counts no more"),
    ],
)  # fmt: skip
def test_what_requests_that_may_become_long_count_as(ended, expected) -> None:
    cells = learned(ended).answered(counted([(100, 200)])).reshape(3, 3)
    np.testing.assert_allclose(cells[0] * 60.0, expected, atol=1e-3)
    assert not cells[1:].any()


def test_memory_is_bounded() -> None:
    assert max(learned([(100, 200, 10)], 5_000)._known) <= MEMORY


def test_a_gateway_whose_clients_always_ask_for_the_most_reports_what_they_get() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    for tag in range(40):
        world.step(arrival(tag, world.now + 0.5, output=4_096))
        (sent,) = world.last_sent
        assert sent.output_tokens == 4_096
        first, last = world.serve([sent])
        world.fold(world.frame("n1", [first, msgspec.structs.replace(last, tokens=64)]))
    (load,) = world.core.report(world.now).loads
    cells = load.cells.reshape(len(load.input_edges), len(load.output_edges))
    by_output = cells.sum(axis=0) / cells.sum()
    assert dict(zip(load.output_edges, by_output, strict=True))[64.0] == pytest.approx(1.0)

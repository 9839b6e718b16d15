"""Live samples: windows of engines at work, and what disturbs one."""

import pytest

from controller.observe.live import LiveSteps
from tests.observe.test_reports import NOW, instance, report


def seen(at, tokens, **more):
    fields = {
        "running": 4,
        "capped_speed": 1.0,
        "kv_free_tokens": 6_000,
        "kv_capacity_tokens": 10_000,
        "generated_tokens": tokens,
    }
    return report(at=NOW + at, instances=(instance(**{**fields, **more}),))


def test_a_window_of_an_engine_at_work_is_a_sample():
    live = LiveSteps()
    for at, tokens in ((0, 0), (3, 600), (10, 2_000)):
        live.hear(seen(at, tokens))
    (sample,) = live.drain()
    assert (sample.replica, sample.batch, sample.context_tokens) == ("shop/chat-0", 4.0, 1_000.0)
    assert sample.seconds == pytest.approx(10 * 4 / 2_000)
    assert live.drain() == []


@pytest.mark.parametrize(
    ("tokens", "more"),
    [
        pytest.param(2_000, {"running": 6}, id="many more requests"),
        pytest.param(2_000, {"running": 0}, id="idle"),
        pytest.param(2_000, {"capped_speed": 0.9}, id="capped in power"),
        pytest.param(10, {}, id="started anew: its count fell"),
        pytest.param(150, {}, id="hardly a token"),
    ],
)
def test_a_disturbed_window_is_none(tokens, more):
    live = LiveSteps()
    live.hear(seen(0, 100))
    live.hear(seen(10, tokens, **more))
    assert live.drain() == []


@pytest.mark.parametrize(
    ("at", "found"),
    [(300, 0), (-300, 0), (40, 1)],
    ids=["a silent agent", "a clock set back", "slow reports"],
)
def test_a_window_that_nobody_watched_is_none_and_the_next_one_counts_again(at, found):
    live = LiveSteps()
    live.hear(seen(0, 0))
    live.hear(seen(at, 5_000))
    assert len(live.drain()) == found
    live.hear(seen(at + 10, 7_000))
    (sample,) = live.drain()
    assert sample.seconds == pytest.approx(10 * 4 / 2_000)


def test_windows_of_replicas_that_are_no_more_are_forgotten():
    live = LiveSteps()
    live.hear(seen(0, 0))
    live.forget(set())
    live.hear(seen(10, 2_000))
    assert live.drain() == []
    live.forget({"shop/chat-0"})
    live.hear(seen(20, 4_000))
    assert len(live.drain()) == 1

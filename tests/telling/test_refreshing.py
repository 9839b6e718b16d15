"""Numbers that merely moved share an allowance; what was told longest ago goes first."""

from __future__ import annotations

from cluster.base import Ref
from cluster.reasons import Quantity, Reason, Verdict
from controller.telling.memory import is_news
from controller.telling.refreshing import Refreshes
from runtime.clock import VirtualClock


def test_a_share_a_minute_the_longest_untold_first() -> None:
    clock = VirtualClock(1_000.0)
    refreshes = Refreshes(clock, per_minute=6.0, burst=2)
    due = [(5.0, "b"), (1.0, "a"), (9.0, "c"), (7.0, "d")]
    assert refreshes.of(due) == ["a", "b"]
    assert refreshes.of(due) == []
    clock.advance_to(1_010.0)
    assert refreshes.of(due) == ["a"]
    clock.advance_to(9_999.0)
    assert refreshes.of(due) == ["a", "b"], "a calm time saves up no more than the burst"


def warm(idle: float, copies: float = 1.0) -> Reason:
    return Reason(
        code="KeptWarm",
        subject=Ref("ModelService", "shop/chat"),
        verdict=Verdict.KEPT,
        need=Quantity("copies", copies, "replicas"),
        have=Quantity("idle", idle, "s"),
        limit=Quantity("keep_alive", 600.0, "s"),
    )


def test_time_that_goes_by_is_no_news_and_a_copy_more_is() -> None:
    assert not is_news(warm(10.0), warm(300.0))
    assert is_news(warm(10.0), warm(10.0, 2.0))

"""What is news: a new reason, another set of numbers, or a number that moved by more than a tenth."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.base import Ref
from cluster.reasons import Quantity, Reason, Verdict
from controller.telling.memory import REASONS_PER_SUBJECT, Sayings, is_news

CHAT = Ref("ModelService", "shop/chat", "u", 1)


def reason(
    load: float | None = 100.0, code: str = "ScaleHeld", choice: str = "", subject: Ref = CHAT, **facts: float
) -> Reason:
    return Reason(
        code=code, subject=subject, verdict=Verdict.KEPT, choice=choice,
        need=None if load is None else Quantity("load", load, "req/s"),
        facts=tuple(Quantity(name, value, "s") for name, value in facts.items()),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "news"),
    [
        pytest.param(None, reason(), True, id="never said before"),
        pytest.param(reason(), reason(), False, id="the same"),
        pytest.param(reason(100.0), reason(110.0), False, id="a tenth more"),
        pytest.param(reason(100.0), reason(110.1), True, id="more than a tenth more"),
        pytest.param(reason(100.0), reason(90.0), False, id="a tenth less"),
        pytest.param(reason(100.0), reason(89.9), True, id="more than a tenth less"),
        pytest.param(reason(-100.0), reason(-120.0), True, id="a negative number that moved"),
        pytest.param(reason(0.0), reason(0.0), False, id="still nothing"),
        pytest.param(reason(0.0), reason(0.001), True, id="from nothing to something"),
        pytest.param(reason(lead=10.0), reason(lead=12.0), True, id="a fact that moved"),
        pytest.param(reason(lead=10.0), reason(lead=10.5), False, id="a fact that hardly moved"),
        pytest.param(reason(), reason(None), True, id="a number that is gone"),
        pytest.param(reason(), reason(lead=1.0), True, id="a number that is new"),
        pytest.param(reason(None, need=100.0), reason(100.0), True, id="a fact is not the slot of its name"),
    ],
)  # fmt: skip
def test_what_is_news(old: Reason | None, new: Reason, news: bool) -> None:
    assert is_news(old, new) is news


@pytest.mark.parametrize("code", ["MixChosen", "ReplicaPlaced", "ReplicaTried"])
def test_what_others_leave_free_is_no_news(code: str) -> None:
    def said(free: float, need: float = 1.0) -> Reason:
        quantities = {"need": Quantity("need", need, "GPU"), "limit": Quantity("free", free, "GPU")}
        return Reason(code=code, subject=CHAT, verdict=Verdict.CHOSEN, choice="n1", **quantities)

    assert not is_news(said(500.0), said(50.0))
    assert is_news(said(500.0), said(500.0, need=2.0))


def test_a_reason_is_told_again_only_when_it_is_news() -> None:
    sayings = Sayings()
    assert sayings.hear([reason(100.0)], "planner", 1.0) == [reason(100.0)]
    assert sayings.hear([reason(104.0)], "planner", 2.0) == []
    assert sayings.hear([reason(109.0)], "planner", 3.0) == []
    assert sayings.hear([reason(121.0)], "planner", 4.0) == [reason(121.0)]


@pytest.mark.parametrize(
    "other",
    [reason(code="ScaledUp"), reason(choice="another"), reason(subject=Ref("ModelService", "shop/other"))],
    ids=["another code", "another choice", "another subject"],
)  # fmt: skip
def test_other_reasons_are_news_of_their_own(other: Reason) -> None:
    sayings = Sayings()
    sayings.hear([reason()], "planner", 1.0)
    assert sayings.hear([other], "planner", 1.0) == [other]


def test_a_new_version_of_the_subject_says_nothing_new() -> None:
    sayings = Sayings()
    sayings.hear([reason()], "planner", 1.0)
    assert sayings.hear([reason(subject=Ref("ModelService", "shop/chat", "u", 2))], "planner", 2.0) == []


def test_the_newest_saying_about_a_subject_of_some_codes() -> None:
    sayings = Sayings()
    sayings.hear([reason(code="ScaledUp"), reason(code="MixChosen")], "planner", 1.0)
    sayings.hear([reason(code="ScaledUp")], "planner", 2.0)
    found = sayings.latest("ModelService", "shop/chat")
    assert found is not None
    assert (found.reason.code, found.loop, found.at_seconds) == ("ScaledUp", "planner", 2.0)
    mixed = sayings.latest("ModelService", "shop/chat", frozenset({"MixChosen"}))
    assert mixed is not None
    assert mixed.at_seconds == 1.0
    assert sayings.latest("ModelService", "shop/chat", frozenset({"RoutesSet"})) is None
    assert sayings.latest("ModelService", "shop/none") is None
    assert [said.reason.code for said in sayings.about("ModelService", "shop/chat")] == [
        "MixChosen",
        "ScaledUp",
    ]


def test_memory_is_bounded_and_what_is_gone_is_forgotten() -> None:
    sayings = Sayings()
    everything: list[Any] = [reason(choice=str(number)) for number in range(REASONS_PER_SUBJECT + 5)]
    sayings.hear(everything, "planner", 1.0)
    assert [said.reason.choice for said in sayings.about("ModelService", "shop/chat")] == [
        str(n) for n in range(5, REASONS_PER_SUBJECT + 5)
    ]
    assert sayings.hear(everything[:1], "planner", 2.0) == everything[:1], "what was forgotten is news again"
    sayings.forget("ModelService", "shop/chat")
    sayings.forget("ModelService", "shop/chat")
    assert sayings.about("ModelService", "shop/chat") == []

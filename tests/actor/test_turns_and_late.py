"""Creations for one object begin slowly; an answer that is late is waited for by nobody else; room is noticed."""

from __future__ import annotations

import asyncio

import pytest

from cluster import actions as act
from cluster.base import Ref
from controller.actor import late
from controller.actor.consulting import FIRST_AT_ONCE, Turns
from controller.actor.late import Late
from controller.actor.outcome import Outcome
from controller.actor.refusals import pods_of
from controller.observe.room import grows
from controller.resources.base import ObjectMeta
from controller.resources.core_bounds import QuotaSpec, QuotaStatus, ResourceQuota

CHAT, DRAFT = pods_of("ModelService", "shop/chat"), pods_of("ModelService", "shop/draft")


def test_creations_for_one_object_begin_two_at_a_time_and_grow_with_each_success() -> None:
    async def story() -> None:
        turns, going, most = Turns(), 0, []

        async def one(*, taken: bool = True) -> None:
            nonlocal going
            await turns.begin(CHAT)
            going += 1
            most.append(going)
            await asyncio.sleep(0.01)
            going -= 1
            turns.end(CHAT, taken=taken)

        await asyncio.gather(*(one() for _ in range(40)))
        assert most[:FIRST_AT_ONCE] == [1, 2]
        assert FIRST_AT_ONCE < max(most) < 40, "more at a time, and never all of them together"
        most.clear()
        await one(taken=False)
        await asyncio.gather(*(one(taken=False) for _ in range(6)))
        assert max(most) == FIRST_AT_ONCE, "a refusal takes it back"
        await turns.begin(DRAFT)  # another object's turn waits for nobody
        turns.end(DRAFT, taken=True)

    asyncio.run(story())


def stamped() -> act.Stamped:
    action = act.Resume(subject=Ref("Replica", "shop/chat-1"), reason=0)
    return act.Stamped(
        action=action, id="1/place/1/0", loop="place", epoch=1, issued_seconds=0.0, deadline_seconds=30.0
    )


def test_a_late_answer_is_told_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "PATIENCE_SECONDS", 0.01)

    async def story() -> None:
        book, gate, item = Late(), asyncio.Event(), stamped()

        async def slow() -> Outcome:
            await gate.wait()
            return Outcome(stamped=item, status="done")

        first = await book.outcome(item, asyncio.create_task(slow()))
        assert first.status == "sent"
        assert book.answered() == []
        gate.set()
        await asyncio.sleep(0.05)
        assert [o.status for o in book.answered()] == ["done"]
        assert book.answered() == []
        gate.clear()
        await book.outcome(item, asyncio.create_task(slow()))
        await book.end()

    asyncio.run(story())


def quota(
    hard: dict[str, str | int], used: dict[str, str | int], in_force: dict[str, str | int] | None = None
) -> ResourceQuota:
    return ResourceQuota(
        metadata=ObjectMeta(name="q"),
        spec=QuotaSpec(hard=hard),
        status=QuotaStatus(hard=in_force or {}, used=used),
    )


GPUS = "requests.nvidia.com/gpu"


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [
        pytest.param(quota({GPUS: "2"}, {GPUS: "2"}), quota({GPUS: "4"}, {GPUS: "2"}), True, id="it allows more"),
        pytest.param(quota({GPUS: "2"}, {GPUS: "2"}), quota({GPUS: "2"}, {GPUS: "1"}), True, id="less is used"),
        pytest.param(quota({GPUS: "2"}, {GPUS: "2"}), quota({}, {}), True, id="it counts them no more"),
        pytest.param(quota({GPUS: "2"}, {GPUS: "2"}), None, True, id="it is gone"),
        pytest.param(None, quota({GPUS: "2"}, {GPUS: "2"}), False, id="it is new"),
        pytest.param(quota({GPUS: "2"}, {GPUS: "1"}), quota({GPUS: "2"}, {GPUS: "2"}), False, id="more is used"),
        pytest.param(quota({GPUS: "2"}, {GPUS: "0"}), quota({GPUS: "1"}, {GPUS: "0"}), False, id="it allows less"),
        pytest.param(
            quota({GPUS: "2"}, {GPUS: "2"}, {GPUS: "2"}), quota({GPUS: "4"}, {GPUS: "2"}, {GPUS: "2"}), False,
            id="it will allow more, and whoever admits does not know yet",
        ),
    ],
)  # fmt: skip
def test_what_leaves_more_room_is_noticed(
    old: ResourceQuota | None, new: ResourceQuota | None, more: bool
) -> None:
    assert grows(old, new) is more

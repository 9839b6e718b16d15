"""Who leads when: each case a story of two processes and a Lease, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from controller.leadership import LeaseSettings
from controller.observe import labels
from controller.resources.core import LEASE
from controller.store.errors import Conflict, TooManyRequests, Unavailable
from tests.leadership.world import Body, World, play

Scene = Callable[[World], Awaitable[None]]
LEASE_SECONDS, DEADLINE_SECONDS = 15.0, 10.0


async def first(world: World) -> tuple[Body, Body]:
    """The one that leads, and the other one, some seconds after the start."""
    await world.until(lambda: bool(world.leaders()), 1.0, "the first takes a Lease that never was at once")
    await world.run(7.3)
    leader = world.leaders()[0]
    return leader, next(body for body in world.bodies if body is not leader)


async def a_leader_is_killed(world: World) -> None:
    leader, other = await first(world)
    leader.die()
    took = await world.until(lambda: other.leads, 20.0, "the other takes over")
    assert LEASE_SECONDS - 2.5 <= took <= LEASE_SECONDS + 2.5, took
    assert other.elector.epoch == 2


async def a_leader_gives_the_lease_back(world: World) -> None:
    leader, other = await first(world)
    leader.alive = False
    assert await released(world, leader)
    took = await world.until(lambda: other.leads, 5.0, "the other takes over at its next try")
    assert took <= 2.5
    assert (await world.lease())["spec"]["holderIdentity"] == other.elector.identity


async def released(world: World, body: Body) -> bool:
    answers: list[bool] = []

    async def give() -> None:
        answers.append(await body.elector.release())
        assert not body.elector.leads

    world.spawn(give())
    await world.until(lambda: bool(answers), 5.0, "the release is answered")
    return answers[0]


async def a_leader_sleeps_and_wakes_up(world: World) -> None:
    leader, other = await first(world)
    old = leader.elector
    leader.asleep_until = world.now + 60.0
    await world.until(lambda: other.leads, 20.0, "the other takes over")
    assert not old.gate.open, "whatever it was about to do when it wakes up"
    assert not old.gate.passes("create")
    assert old.gate.refused["create"] == 1
    await world.run(60.0)
    assert other.leads, "the sleeper waits like anybody else"
    assert leader.elector is not old
    assert "not renewed in time" in old.lost or "holds the Lease" in old.lost


async def a_short_sleep_changes_nothing(world: World) -> None:
    leader, _other = await first(world)
    leader.asleep_until = world.now + 6.0
    await world.run(30.0)
    assert leader.leads
    assert leader.elector.epoch == 1


async def the_lease_is_deleted_under_the_leader(world: World) -> None:
    leader, _other = await first(world)
    await world.delete_lease()
    await world.run(3.0)
    assert leader.leads, "it makes it anew"
    assert (await world.lease())["metadata"]["annotations"][labels.EPOCH] == "1"
    await world.run(60.0)
    assert leader.leads


async def leader_dies_and_the_lease_is_deleted(world: World) -> None:
    leader, other = await first(world)
    leader.die()
    await world.delete_lease()
    took = await world.until(lambda: other.leads, 20.0, "the other takes over")
    assert took >= LEASE_SECONDS, "a dead leader cannot be told from one that is cut off"
    assert other.elector.epoch == 2, "from the ledger: the Lease that said 1 is gone"


async def the_holder_is_emptied_by_hand(world: World) -> None:
    leader, _other = await first(world)
    await world.edit_lease(holderIdentity="")
    await world.run(30.0)
    assert leader.leads, "no successor before the leader could know"
    assert leader.elector.epoch == 1


async def the_holder_is_changed_by_hand(world: World) -> None:
    _leader, _other = await first(world)
    await world.edit_lease(holderIdentity="nobody-we-know")
    await world.run(4.0)
    assert not world.leaders()
    await world.until(lambda: bool(world.leaders()), 20.0, "somebody takes over once it ran out")
    assert world.leaders()[0].elector.epoch == 2


async def a_duration_of_years_is_written_by_hand(world: World) -> None:
    leader, other = await first(world)
    leader.die()
    await world.edit_lease(leaseDurationSeconds=2_000_000_000)
    took = await world.until(lambda: other.leads, 200.0, "the other takes over")
    assert took >= 10 * LEASE_SECONDS - 1.0


async def a_higher_epoch_is_written_by_hand(world: World) -> None:
    leader, _other = await first(world)
    await world.edit_lease(epoch=40)
    await world.until(lambda: leader.elector.epoch == 41, 5.0, "the leader leads above it")
    await world.edit_lease(epoch=3)
    await world.run(6.0)  # a renewal comes every 5 s
    assert (await world.lease())["metadata"]["annotations"][labels.EPOCH] == "41"
    assert leader.leads


async def nonsense_is_written_by_hand(world: World) -> None:
    leader, _other = await first(world)
    lease = await world.lease()
    lease["metadata"]["annotations"] = {labels.EPOCH: "-9" * 40, "note": "kept"}
    lease["spec"] = {}
    await world.store.replace(LEASE, lease, field_manager="somebody")
    await world.run(5.0)
    now = await world.lease()
    assert now["metadata"]["annotations"] == {labels.EPOCH: "1", "note": "kept"}
    assert now["spec"]["holderIdentity"] == leader.elector.identity


async def agents_obeyed_a_later_epoch(world: World) -> None:
    leader, _other = await first(world)
    raised: list[bool] = []

    async def raise_above() -> None:
        raised.append(await leader.elector.raise_above(7))

    world.spawn(raise_above())
    await world.until(lambda: bool(raised), 5.0, "the Lease says it")
    assert raised == [True]
    assert leader.elector.epoch == 8
    assert (await world.lease())["metadata"]["annotations"][labels.EPOCH] == "8"


async def the_store_is_away_for_a_while(world: World) -> None:
    leader, _other = await first(world)
    for body in world.bodies:
        body.line.refusing = [Unavailable("connection refused")] * 3
    await world.run(15.0)
    assert leader.leads, "three lost renewals are no lost leadership"


async def the_store_is_away_for_long(world: World) -> None:
    leader, _other = await first(world)
    old = leader.elector
    for body in world.bodies:
        body.line.refusing = [Unavailable("connection refused")] * 1000
    await world.run(DEADLINE_SECONDS + 0.2)
    assert not world.leaders(), "the leader stops although nobody can take its place"
    assert "connection refused" in old.lost
    for body in world.bodies:
        body.line.refusing = []
    await world.until(lambda: bool(world.leaders()), 20.0, "somebody leads once it answers")
    assert world.leaders()[0].elector.epoch == 2


async def a_storm_of_conflicts(world: World) -> None:
    leader, _other = await first(world)
    leader.line.refusing = [Conflict("the object has been modified")] * 8
    await world.run(15.0)
    assert leader.leads
    assert leader.elector.epoch == 1


async def the_store_is_busy(world: World) -> None:
    leader, _other = await first(world)
    leader.line.refusing = [TooManyRequests("later", 1.0)] * 2
    await world.run(15.0)
    assert leader.leads


async def the_answer_to_taking_the_lease_is_lost(world: World) -> None:
    for body in world.bodies:
        body.line.losing = 2
    await world.until(lambda: bool(world.leaders()), 60.0, "somebody leads")
    leader = world.leaders()[0]
    assert leader.elector.epoch >= 1
    assert (await world.lease())["spec"]["holderIdentity"] == leader.elector.identity


async def the_answer_to_renewals_is_lost(world: World) -> None:
    leader, _other = await first(world)
    leader.line.losing = 3
    await world.run(40.0)
    assert leader.leads
    assert leader.elector.epoch == 1


async def a_label_is_changed_every_second(world: World) -> None:
    leader, other = await first(world)
    leader.die()

    async def scribble() -> None:
        for count in range(40):
            lease = await world.lease()
            lease["metadata"]["labels"] = {"count": str(count)}
            await world.store.replace(LEASE, lease, field_manager="somebody")
            await world.sleep(1.0)

    world.spawn(scribble())
    took = await world.until(lambda: other.leads, 20.0, "a label is no sign of life")
    assert took <= LEASE_SECONDS + 2.5


STORIES: list[Scene] = [
    a_leader_is_killed,
    a_leader_gives_the_lease_back,
    a_leader_sleeps_and_wakes_up,
    a_short_sleep_changes_nothing,
    the_lease_is_deleted_under_the_leader,
    leader_dies_and_the_lease_is_deleted,
    the_holder_is_emptied_by_hand,
    the_holder_is_changed_by_hand,
    a_duration_of_years_is_written_by_hand,
    a_higher_epoch_is_written_by_hand,
    nonsense_is_written_by_hand,
    agents_obeyed_a_later_epoch,
    the_store_is_away_for_a_while,
    the_store_is_away_for_long,
    a_storm_of_conflicts,
    the_store_is_busy,
    the_answer_to_taking_the_lease_is_lost,
    the_answer_to_renewals_is_lost,
    a_label_is_changed_every_second,
]


@pytest.mark.parametrize("scene", [pytest.param(s, id=s.__name__.replace("_", " ")) for s in STORIES])
def test_who_leads(scene: Scene) -> None:
    play(scene, rates=[1.0, 1.0])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param(
            {"lease_seconds": 10.0},
            "renew_deadline_seconds 10 must be below lease_seconds 10",
            id="a leader that stops too late",
        ),
        pytest.param(
            {"retry_seconds": 9.0},
            "retry_seconds 9 times jitter 1.2 must be below renew_deadline_seconds 10",
            id="a single try",
        ),
    ],
)
def test_durations_that_cannot_work_are_refused(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LeaseSettings(**settings)

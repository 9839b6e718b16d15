"""Whatever happens to processes, lines, clocks and the Lease: never two leaders, and one again when it is over."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.store.errors import Conflict, TooManyRequests, Unavailable
from tests.leadership.world import Body, World, play

KINDS = (
    "sleep", "refuse", "conflicts", "busy", "lose", "slow", "die", "release", "delete", "empty", "steal", "epoch",
)  # fmt: skip

happening = st.tuples(
    st.floats(0.0, 25.0),  # seconds since the one before
    st.sampled_from(KINDS),
    st.integers(0, 2),  # to whom
    st.floats(0.0, 40.0),  # how long, or how many
)
rates = st.lists(st.floats(0.9, 1.1), min_size=2, max_size=3)


def _break(world: World, body: Body, kind: str, much: float) -> None:
    line = body.line
    if kind == "sleep":
        body.asleep_until = world.now + much
    elif kind == "refuse":
        line.refusing = [Unavailable("connection refused")] * int(much)
    elif kind == "conflicts":
        line.refusing = [Conflict("the object has been modified")] * int(much)
    elif kind == "busy":
        line.refusing = [TooManyRequests("later", 1.0)] * int(much / 4)
    elif kind == "lose":
        line.losing = int(much / 4)
    elif kind == "slow":
        body.latency_seconds = much / 10.0
    elif kind == "die" and sum(each.alive for each in world.bodies) > 1:
        body.die()
    elif kind == "release":
        world.spawn(body.elector.release())


async def _happen(world: World, kind: str, who: int, much: float) -> None:
    if kind == "delete":
        await world.delete_lease()
    elif kind == "empty":
        await world.edit_lease(holderIdentity="")
    elif kind == "steal":
        await world.edit_lease(holderIdentity="nobody-we-know")
    elif kind == "epoch":
        await world.edit_lease(epoch=int(much))
    else:
        _break(world, world.bodies[who % len(world.bodies)], kind, much)


async def _mend(world: World) -> None:
    for body in world.bodies:
        body.asleep_until = world.now
        body.line.refusing, body.line.losing = [], 0
        body.latency_seconds = 0.02


@pytest.mark.parametrize("durable", [True, False], ids=["a store that lives on", "a store of this process"])
@settings(max_examples=20)
@given(rates=rates, events=st.lists(happening, max_size=12), seed=st.integers(0, 2**16))
def test_never_two_leaders_and_one_again_when_faults_stop(
    durable: bool, rates: list[float], events: list[tuple[float, str, int, float]], seed: int
) -> None:
    async def scene(world: World) -> None:
        await world.until(lambda: bool(world.leaders()), 5.0, "one begins")
        for after, kind, who, much in events:
            await world.run(after)
            await _happen(world, kind, who, much)
        await world.run(2.0)
        await _mend(world)
        await world.run(30.0)
        await world.until(lambda: bool(world.leaders()), 30.0, "one leads when all is well")
        steady = world.leaders()[0].elector
        before = len(world.history)
        await world.run(45.0)
        assert world.leaders(), world.told()
        assert world.leaders()[0].elector is steady, f"it stays with one: {world.told()}"
        assert len(world.history) == before

    play(scene, rates, seed, durable=durable)


def test_the_property_notices_an_elector_that_does_not_wait(monkeypatch: Any) -> None:
    """A planted defect: one that takes a Lease eight seconds after its last change."""
    monkeypatch.setattr("controller.leadership.elector.Elector._patience", lambda *_: 8.0)

    async def scene(world: World) -> None:
        await world.until(lambda: bool(world.leaders()), 5.0, "one begins")
        world.leaders()[0].asleep_until = world.now + 30.0
        await world.run(30.0)

    with pytest.raises(AssertionError, match="two lead"):
        play(scene, [1.0, 1.0])

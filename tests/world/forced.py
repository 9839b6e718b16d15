"""A move that a test asks for, where no policy would."""

from __future__ import annotations

from typing import Any

from cluster.actions import Migrate
from simulator.world import moving
from simulator.world.world import World

WITHIN_SECONDS = 60.0


def force_move(world: World, at_seconds: float) -> list[moving.Move]:
    """Have request 0 moved to the other instance then. The move is in the list once the world has run past it."""
    begun: list[moving.Move] = []

    def go(at: float, _subject: None, there: World) -> Any:
        source = there.book.open[0].instance
        target = next(each for each in there.instances if each is not source)
        action = Migrate(
            reason=0, sequence="0", epoch=1, source=source.name, target=target.name, mode="kv", reserve_tokens=0,
            deadline_seconds=at + WITHIN_SECONDS,
        )  # fmt: skip
        events = moving.begin(at, action, there)
        begun.append(there.moves[0])
        return events

    world.kernel.push((at_seconds, go, None))
    return begun

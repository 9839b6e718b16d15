"""Instances in the world: an engine on a node, when it is next to be looked at, and what of it is over."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from cluster.serving import Role
from simulator.physics.engine import EngineInstance
from simulator.physics.specs import ModelSpec
from simulator.world.core import Event
from simulator.world.hearing import Told
from simulator.world.spec import Group


class Instance:
    """One instance. An engine lives through time only when somebody looks: at a report, a new request, a move.

    `leaving` requests are on their way out: only for them does it matter when exactly something happens.
    `seen` are the requests it was last known to decode, with their contexts. It is there from `placed` until it is `gone`
    for good; where it dies and starts again, `started` is when it last came up.
    """

    __slots__ = (
        "alive",
        "busy_seconds",
        "engine",
        "gone",
        "group",
        "index",
        "leaving",
        "name",
        "node",
        "placed",
        "pool",
        "row",
        "scheduled",
        "seen",
        "service",
        "spent",
        "started",
        "told",
    )  # fmt: skip

    def __init__(
        self, name: str, node: str, index: int, group: Group, model: ModelSpec, at_seconds: float = 0.0
    ) -> None:
        self.name, self.node, self.index, self.group = name, node, index, group
        self.service: Any = None
        self.pool: Any = None
        self.row = 0
        self.engine = EngineInstance(group.gpu, model, group.engine, at_seconds)
        self.alive = True
        self.leaving = 0
        self.scheduled = -1.0
        self.placed = self.started = at_seconds
        self.gone = math.inf
        self.busy_seconds = 0.0
        self.seen: list[tuple[int, int]] = []
        self.told = Told()
        self.spent = (0, 0, 0)  # preemptions, hit tokens and chunks of engines that are gone

    @property
    def front(self) -> bool:
        """Whether it takes requests from the gateway."""
        return self.group.role is not Role.DECODE

    def attend(self) -> Iterable[Event]:
        """The next look at it, where the exact moment matters."""
        if not self.leaving:
            return ()
        at = self.engine.next_event_seconds()
        if at == self.scheduled or at == float("inf"):
            return ()
        self.scheduled = at
        return ((at, wake, self),)

    def totals(self) -> tuple[int, int, int]:
        """Preemptions, prompt tokens found cached and chunks since the beginning."""
        if not self.alive:
            return self.spent
        load, spent = self.engine.load(), self.spent
        return (
            spent[0] + load.preemptions,
            spent[1] + load.prefix_hit_tokens,
            spent[2] + load.prefill_chunks,
        )


def wake(at_seconds: float, subject: Instance, world: Any) -> Iterable[Event]:
    """An instance whose requests are leaving comes to a step boundary."""
    if at_seconds == subject.scheduled:
        subject.scheduled = -1.0
        world.live(subject, at_seconds)
        return subject.attend()
    return ()

"""Carrying plans out, and letting the model see at once what they did.

What a round did is in the model before anything else is decided: leases, reservations and weights from the actor's
own answer, objects from the caches (our own writes are waited for there).
"""

from __future__ import annotations

from typing import Protocol

from cluster import events as ev
from cluster.actions import Stamped
from cluster.occupancy import Reservation
from cluster.power import Lease
from cluster.reasons import Reason
from cluster.snapshot import Snapshot
from cluster.targets import AnyTarget
from controller.actor.actor import Actor, Effects
from controller.actor.outcome import Outcome
from controller.measuring import Measuring
from controller.observe.caches import Caches
from controller.observe.world import World
from controller.telling.narrator import Narrator
from runtime.clock import Clock


class Listener(Protocol):
    """Somebody who watches decisions go by (the demo's report); never part of deciding."""

    def decided(
        self, loop: str, tick: int, now_seconds: float, outcomes: list[Outcome], reasons: tuple[Reason, ...]
    ) -> None:
        """A loop's plan was carried out."""
        ...


class Acting:
    """The operator's hands: plans go to the actor, what became of them into the model, the ledger and the metrics."""

    def __init__(
        self,
        clock: Clock,
        actor: Actor,
        world: World,
        caches: Caches,
        narrator: Narrator,
        measuring: Measuring,
        listener: Listener | None,
    ) -> None:
        """Bind to the parts of one operator."""
        self._clock, self._actor, self._world, self._caches = clock, actor, world, caches
        self._narrator, self._measuring, self._listener = narrator, measuring, listener
        self._observer = world.observer

    def aim(self, targets: tuple[AnyTarget, ...], source: str, now: float) -> None:
        """Put targets in force."""
        for target in targets:
            self._observer.fold(
                ev.Aimed(source=source, observed_seconds=now, delivered_seconds=now, target=target)
            )

    async def carry_out(
        self,
        stamped: list[Stamped],
        snapshot: Snapshot,
        now: float,
        reasons: tuple[Reason, ...],
        *,
        tick: int,
        quiet: bool = False,
    ) -> None:
        """Carry out what one loop planned, checked against `snapshot`, the state of now.

        `tick` is the planner's, for who listens; of a `quiet` loop only what was dropped is written down.
        """
        self._hear_late(now)
        outcomes, effects = await self._actor.carry_out(stamped, snapshot, now)
        self._fold_effects(effects, now)
        self._narrator.happened([o for o in outcomes if not quiet or o.status == "dropped"], now)
        self._measuring.acted(outcomes)
        await self._own_writes(outcomes)
        if self._listener is not None and stamped:
            self._listener.decided(stamped[0].loop, tick, now, outcomes, reasons)

    def _hear_late(self, now: float) -> None:
        """Write down what became of earlier actions whose answer was late."""
        answered = self._actor.late.answered()
        if answered:
            self._narrator.happened(answered, now)
            self._measuring.acted(answered)

    async def end(self) -> None:
        """Wait for no late answer any more."""
        await self._actor.late.end()

    async def _own_writes(self, outcomes: list[Outcome]) -> None:
        """Let the model see our own writes before anything else is decided on it."""
        if any(o.status == "done" for o in outcomes):
            await self._caches.pump()
            self._world.apply(self._caches.changes())
            self._world.settle(self._clock.now())

    def _fold_effects(self, effects: Effects, now: float) -> None:
        granted: tuple[Lease | Reservation, ...] = (*effects.leases, *effects.reservations)
        for noun in granted:
            self._observer.fold(ev.Seen(source="own", observed_seconds=now, delivered_seconds=now, noun=noun))
        for key in effects.released:
            self._observer.fold(
                ev.Gone(
                    source="own", observed_seconds=now, delivered_seconds=now, mapping="reservations", key=key
                )
            )
        self.aim(tuple(effects.routes), "own", now)
        for weights in effects.weights.values():
            for replica, weight in weights.items():
                self._observer.instance_rows.set(replica, now, {"route_weight": weight})

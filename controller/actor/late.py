"""Writes that the API server takes long to answer (a webhook of others that hangs): nobody else waits for them."""

from __future__ import annotations

import asyncio
import logging

from cluster import actions as act
from cluster.occupancy import Reservation
from cluster.snapshot import Snapshot
from controller.actor.outcome import Outcome
from controller.actor.refusals import Slot, pods_of

log = logging.getLogger("plimsoll.actor")

PATIENCE_SECONDS = 2.0
"""How long a round waits for one write."""
MOST = 256
"""So many may be unanswered; with more than that everybody waits, as for a server that is down."""
KEPT_SECONDS = 15.0
"""How long the devices of a pod that may come are kept for it: longer than any request is waited for."""


class Late:
    """Unanswered writes and, once they are answered, what became of them. Belongs to one event loop."""

    def __init__(self) -> None:
        """Nothing is late."""
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._answered: list[Outcome] = []

    async def outcome(self, item: act.Stamped, task: asyncio.Task[Outcome]) -> Outcome:
        """What became of an action; `sent` where that is not known soon, and a later `answered` tells."""
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
        if done or len(self._tasks) >= MOST:
            return await task
        self._tasks.add(task)
        task.add_done_callback(self._over)
        why = f"the API server has not answered for {PATIENCE_SECONDS:g} s; everything else goes on meanwhile"
        return Outcome(stamped=item, status="sent", message=why)

    def _over(self, task: asyncio.Task[Outcome]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("a late action failed", exc_info=error)
        else:
            self._answered.append(task.result())

    def answered(self) -> list[Outcome]:
        """What was answered since the last call."""
        answered, self._answered = self._answered, []
        return answered

    async def end(self) -> None:
        """Wait for nothing any more."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def slot_of(action: act.Action) -> Slot | None:
    """Whose pods an action creates; None for one that creates none."""
    if isinstance(action, act.CreateReplica):
        return pods_of("ModelService", action.service)
    if isinstance(action, (act.StartGang, act.RestartGang)):
        return pods_of("TrainingJob", action.job.name)
    return None


def kept(action: act.Action, snapshot: Snapshot, now_seconds: float) -> Reservation | None:
    """The devices of pods that may come, kept from others until it is known."""
    if isinstance(action, act.CreateReplica):
        service = snapshot.services.get(action.service)
        key, owner, slots = action.name, service.ref if service else None, action.slots
    elif isinstance(action, (act.StartGang, act.RestartGang)):
        key, owner, slots = f"{action.job.name}-a{action.attempt}", action.job, action.layout.slots
    else:
        return None
    if owner is None:
        return None
    return Reservation(
        key=f"late/{key}",
        owner=owner,
        slots=slots,
        priority=0,
        starts_seconds=now_seconds,
        expires_seconds=now_seconds + KEPT_SECONDS,
    )

"""Stamps a plan's actions with ids, deadline and epoch, as the world issues them."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.actions import AnyAction, Stamped


def stamp(
    actions: Sequence[AnyAction], loop: str, epoch: int, tick: int, now_seconds: float, valid_seconds: float
) -> list[Stamped]:
    """Actions with id `epoch/loop/tick/index`."""
    return [
        Stamped(
            id=f"{epoch}/{loop}/{tick}/{index}",
            action=action,
            loop=loop,
            epoch=epoch,
            issued_seconds=now_seconds,
            deadline_seconds=now_seconds + valid_seconds,
        )
        for index, action in enumerate(actions)
    ]

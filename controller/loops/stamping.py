"""Stamps a plan's actions with ids, deadline and epoch, as the world issues them."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.actions import AnyAction, Stamped
from controller.ledger.rows import PlanId


def stamp(
    actions: Sequence[AnyAction], loop: str, plan: PlanId, now_seconds: float, valid_seconds: float
) -> list[Stamped]:
    """Actions with id `epoch/loop/tick/index`, out of their plan's own."""
    return [
        Stamped(
            id=f"{plan}/{index}",
            action=action,
            loop=loop,
            epoch=plan.epoch,
            issued_seconds=now_seconds,
            deadline_seconds=now_seconds + valid_seconds,
        )
        for index, action in enumerate(actions)
    ]

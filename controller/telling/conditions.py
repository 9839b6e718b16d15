"""Conditions, changed only when they say something new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.resources.base import Condition
from controller.telling.clock_text import rfc3339

MESSAGE_LIMIT = 1024


def condition(kind: str, holds: bool | None, reason: str, message: str, generation: int) -> Condition:
    """A condition without its transition time, which `merge` sets."""
    return Condition(
        type=kind,
        status="Unknown" if holds is None else "True" if holds else "False",
        reason=reason,
        message=message[:MESSAGE_LIMIT],
        observed_generation=generation,
        last_transition_time="1970-01-01T00:00:00Z",
    )


def merge(old: Sequence[Condition], new: Iterable[Condition], now_seconds: float) -> list[Condition]:
    """The new conditions with transition times: kept while `status` stays, now where it changed."""
    before = {c.type: c for c in old}
    merged = []
    for each in new:
        was = before.get(each.type)
        at = (
            was.last_transition_time
            if was is not None and was.status == each.status
            else rfc3339(now_seconds)
        )
        merged.append(
            Condition(
                type=each.type,
                status=each.status,
                reason=each.reason,
                message=each.message,
                observed_generation=each.observed_generation,
                last_transition_time=at,
            )
        )
    return merged

"""Instances that tell the gateway at the end of each step how that step began, and not otherwise.

So did the engines of Llumnix's paper (``_schedule`` makes the report, the step's outputs carry it; alibaba/llm-scheduling-artifact),
and no account was kept of what was sent meanwhile. While an instance computes a long prompt it goes on looking as it did before,
and everything that arrives goes where it looked freest: crowds that the pending account of the gateway's rows prevents.

A gateway reads its rows only to dispatch, so they are brought up to date then: to the present load less what was sent since
the last step that has ended began.
"""

from __future__ import annotations

from typing import Any

STEP_SECONDS = 0.05
"""Of a decode step, until one has been seen."""


class Told:
    """The last step of prompts that was seen on one instance, and the one before it."""

    __slots__ = ("_before", "_began", "_ends", "_step")

    def __init__(self) -> None:
        self._before = self._began = self._ends = -1.0
        self._step = STEP_SECONDS

    def since(self, at_seconds: float, step: tuple[float, float, bool] | None) -> float:
        """When the last step that has ended began, if at ``at_seconds`` this ``step`` (`EngineInstance.step_now`) runs.

        Of a decode step only the length counts: one half of it, on the mean, has passed of the present one.
        """
        if step is None:
            return at_seconds
        began, seconds, prompts = step
        if not prompts:
            self._step = seconds
            return at_seconds - 1.5 * seconds
        if began != self._began:
            self._before = self._began if began == self._ends else began - self._step
            self._began, self._ends = began, began + seconds
        return self._before


def hear(at_seconds: float, pool: Any, world: Any) -> None:
    """Bring the rows of a pool to what its instances have told by now."""
    for instance in pool.by_name.values():
        if instance.alive:
            world.live(instance, at_seconds)
            engine = instance.engine
            told = instance.told.since(at_seconds, engine.step_now())
            pool.rows.told(instance.row, engine.standing(), told, at_seconds)

"""The planner loop: when to run, with what budget, and what its stages' states are."""

from __future__ import annotations

from typing import Any

from cluster.plan import Context
from cluster.snapshot import Snapshot
from controller.config import OperatorConfig
from policies.planner import PlannerRun, PlannerStates, run_planner


class PlannerLoop:
    """Decides when the planner is due and keeps its states and scratch between runs."""

    def __init__(self, config: OperatorConfig) -> None:
        """Start without states."""
        self._config = config
        self._scratch: dict[str, Any] = {}
        self._changed_at: float | None = None
        self._last_run = float("-inf")
        self.states = PlannerStates()
        self.tick = 0

    def wake(self, now_seconds: float) -> None:
        """Something changed that a plan depends on."""
        if self._changed_at is None:
            self._changed_at = now_seconds

    def due(self, now_seconds: float) -> bool:
        """Whether to run now: changed and settled, or the longest pause is over."""
        if self._changed_at is not None and now_seconds - self._changed_at >= self._config.debounce_seconds:
            return True
        return now_seconds - self._last_run >= self._config.plan_seconds

    def begin(self, now_seconds: float, epoch: int) -> Context:
        """Open a run: its context, and no change pending."""
        self._changed_at = None
        self._last_run = now_seconds
        self.tick += 1
        return Context(
            now_seconds=now_seconds,
            tick=self.tick,
            epoch=epoch,
            seed=self._config.seed,
            loop="planner",
            units=self._config.plan_units,
            scratch=self._scratch,
        )

    def decide(self, snapshot: Snapshot, context: Context) -> PlannerRun:
        """Run all stages. Touches nothing of the operator, so it may run in another thread."""
        defaults = {loop: (choice.name, choice.config) for loop, choice in self._config.policies.items()}
        return run_planner(snapshot, self.states, context, defaults)

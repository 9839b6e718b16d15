"""Commit: one inventory for everybody, services and waiting jobs in order of priority (the baseline).

Each service gets the exact optimum on what those before it left over, keeping its standing mix while that is good
enough; a waiting gang of at least its priority keeps its nodes. What each pool then holds is the `Share`, what one
more GPU of a full pool would save is its `Prices`. Joint optimisation over all services comes beside this one.
"""

from __future__ import annotations

from cluster.plan import Context, Decision
from cluster.snapshot import Snapshot
from policies.commit.run import ByPriorityConfig, ByPriorityState, CommitRun

__all__ = ["ByPriority", "ByPriorityConfig", "ByPriorityState"]


class ByPriority:
    """`Policy[Snapshot, ByPriorityState]`."""

    def __init__(self, config: ByPriorityConfig | None = None) -> None:
        self._config = config or ByPriorityConfig()

    def initial(self) -> ByPriorityState:
        """Nothing was changed recently: every standing mix may be replaced."""
        return ByPriorityState()

    def decide(self, view: Snapshot, state: ByPriorityState, ctx: Context) -> Decision[ByPriorityState]:
        """Final capacity for every service, pool shares and prices."""
        run = self.commit(view, state, ctx)
        return Decision(run.draft.plan(run.objective, run.bound, run.complete), run.state())

    def commit(self, view: Snapshot, state: ByPriorityState, ctx: Context) -> CommitRun:
        """The whole decision with its working, of which `decide` returns the plan."""
        run = CommitRun(view, state, ctx, self._config)
        run.settle_all()
        run.share()
        run.price()
        return run

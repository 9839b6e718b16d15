"""Train: gangs start wholly or not at all, on whole nodes of one product inside one island (the baseline).

Jobs in order of priority and waiting time. The fastest network that holds the gang is taken (InfiniBand before RoCE
before Ethernet). A waiting gang keeps the free devices of its nodes by a reservation until the rest are free. An
attempt that lost a member restarts from the last checkpoint as the next attempt: healthy members keep their slots,
lost ones get new slots in the same island, or the whole gang moves. Old ranks are fenced by the attempt number.
"""

from __future__ import annotations

from cluster.plan import Context, Decision
from cluster.snapshot import Snapshot
from policies.train.run import IslandGangConfig, IslandGangState, TrainRun

__all__ = ["IslandGang", "IslandGangConfig", "IslandGangState"]


class IslandGang:
    """`Policy[Snapshot, IslandGangState]`."""

    def __init__(self, config: IslandGangConfig | None = None) -> None:
        self._config = config or IslandGangConfig()

    def initial(self) -> IslandGangState:
        """Nothing is known of any job."""
        return IslandGangState()

    def decide(self, view: Snapshot, state: IslandGangState, ctx: Context) -> Decision[IslandGangState]:
        """Stop, restart and start gangs, keep nodes for those that wait, and order the queues."""
        run = TrainRun(view, ctx, self._config, state)
        run.tend()
        run.start()
        run.order()
        return Decision(run.draft.plan(), run.state())

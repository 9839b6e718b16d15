"""Place: what exists follows the final mixes, one node choice at a time, best fit (the packing baseline).

Per run: settle revisions, remove what ended, create what is missing where the fewest GPUs are left over, drain what is
surplus or of another revision once its successors are ready, make room for a higher priority, move what is in the way if
that is allowed, publish route weights.
Of a service that is held only the traffic is routed. A replica's name holds an
ordinal that no live or just-gone replica had, so that a replaced pod never collides with its successor
(DESIGN §3.3). Every sequel (delete after drain, drain after the new one is ready) is decided from a later view.
"""

from __future__ import annotations

from typing import Any

from cluster.actions import SetRoutes
from cluster.plan import Context, Decision
from cluster.snapshot import Snapshot
from policies.frames import frame_of
from policies.place import moving, why
from policies.place.buying import buy, give_back
from policies.place.draining import drain
from policies.place.plans import plan_of, told
from policies.place.preempting import giving_way, make_room
from policies.place.restraint import held_cases
from policies.place.rolling import roll
from policies.place.routes import changed, weights_of
from policies.place.run import BestFitConfig, BestFitState, Run

__all__ = ["BestFit", "BestFitConfig", "BestFitState"]


class BestFit:
    """`Policy[Snapshot, BestFitState]`."""

    _run: type[Run] = Run

    def __init__(self, config: BestFitConfig | None = None) -> None:
        self._config = config or BestFitConfig()

    def initial(self) -> BestFitState:
        """Nothing remembered: ordinals start above every replica in view."""
        return BestFitState()

    def decide(self, view: Snapshot, state: BestFitState, ctx: Context) -> Decision[BestFitState]:
        """One round of removing, creating, draining and routing."""
        run = self._run(view, state, ctx, self._config)
        run.remove()
        run.create()
        run.giving_way = giving_way(run)
        moving.finish(run)
        drain(run)
        roll(run)
        make_room(run)
        moving.start(run)
        buy(run)
        give_back(run)
        _route(run, ctx.scratch)
        return Decision(run.draft.plan(), run.state())


def _route(run: Run, scratch: dict[str, Any]) -> None:
    """Publish weights and plans of services whose ready replicas or mix changed."""
    for case in [*run.cases, *held_cases(run)]:
        service = case.service
        replicas = run.groups.replicas.get(service.name, [])
        frame = frame_of(run.groups, service, scratch)
        weights, plan = weights_of(case, frame, run.going), plan_of(run, case, frame)
        routes = run.view.routes(service.name)
        before = routes.plan if routes is not None else None
        news = plan != before
        if news or changed(run.groups, replicas, weights, run.config.route_tolerance):
            reason = run.draft.because(why.routes(case, weights))
            if news and plan is not None:
                run.draft.because(told(case, frame, before, plan))
            run.draft.act(
                SetRoutes(
                    service=service.name, weights=weights, plan=plan, expects=(service.ref,), reason=reason
                )
            )

"""What placing may not do by its own choice: moves beyond a disruption budget."""

from __future__ import annotations

import math

from cluster.reasons import Reason, Verdict
from cluster.restraint import Moves
from cluster.serving import Replica
from policies.draft import quantity
from policies.place.cases import Case
from policies.place.run import Run


def may_move(run: Run, case: Case, replica: Replica) -> bool:
    """Whether a running replica may be ended now for nothing but our own choice; why not is told.

    Whoever ends it then does so by a `Drain` with `voluntary` set, applied to `run.overlay`, which charges it.
    """
    why = _spent(run, case, replica)
    if why is not None:
        run.draft.because(why)
    return why is None


def _spent(run: Run, case: Case, replica: Replica) -> Reason | None:
    """The first budget that has nothing left: the service's own, then the cluster's."""
    service = run.overlay.read("services").get(case.service.name)
    own = service.moves if service is not None else None
    for whose, moves in (("by its service's budget", own), ("by the cluster's budget", run.overlay.moves)):
        if moves is not None and not moves.left:
            return moves_spent(case, replica, whose, moves, run.now)
    return None


def moves_spent(case: Case, replica: Replica, whose: str, moves: Moves, now: float) -> Reason:
    """A budget is used up: how much there was, and when more comes."""
    return Reason(
        code="MovesSpent", subject=case.service.ref, verdict=Verdict.KEPT, choice=f"{replica.key} ({whose})",
        need=quantity("next", minutes_until(moves.next_seconds, now), "min"),
        have=quantity("made", moves.made, "moves"), limit=quantity("allowed", moves.allowed, "moves"),
        refs=(replica.ref,),
    )  # fmt: skip


def minutes_until(at_seconds: float | None, now: float) -> int:
    """Whole minutes until a moment, above ten in steps of five: a number that counts down is no news each minute."""
    left = 60 if at_seconds is None else max(1, math.ceil((at_seconds - now) / 60.0))
    return left if left <= 10 else 5 * math.ceil(left / 5)

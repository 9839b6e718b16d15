"""Which replicas go: surplus, or on a node being lost. Who gives way to a higher priority is the word of `preempting`.

A ready replica goes only when its successors are ready, so that a change of mix never opens a gap; unless the
pool is full and a replica someone wants cannot be placed, or its node is being lost anyway.
"""

from __future__ import annotations

from cluster.actions import Drain
from cluster.reasons import Reason
from cluster.serving import Replica, ReplicaPhase
from policies.place import why
from policies.place.cases import Case, Part, outstanding
from policies.place.restraint import may_end, may_move
from policies.place.run import Run


def drain(run: Run) -> None:
    """Send away what is surplus, of another revision or on a node being lost."""
    blocked = {missing.part[1] for missing in run.missing}
    for case in run.cases:
        for replica in case.leaving:
            send_away(run, case, replica, why.leaving(case, replica, node_of(run, replica)))
        for part in case.parts():
            _trim(run, case, part, blocked)


def _trim(run: Run, case: Case, part: Part, blocked: set[str]) -> None:
    live = [replica for replica in case.current.get(part, []) if replica.key not in run.going]
    # One that moves is there twice until its successor is ready.
    wanted = case.wanted.get(part, 0) + run.moving.count((case.service.name, part))
    ready = sum(1 for replica in live if replica.phase is ReplicaPhase.READY)
    free_to_go = part[1] in blocked or case.all_ready()
    floor = wanted if part[1] not in blocked else 0
    for replica in sorted(live, key=lambda r: departure(run, r))[: max(0, len(live) - wanted)]:
        if replica.phase is ReplicaPhase.READY and (not free_to_go or ready - 1 < floor):
            continue
        # What its load no longer needs goes unasked; what something else takes the place of is a move of ours.
        ours = replica.phase is ReplicaPhase.READY and case.capacity.exchanged
        if ours and not may_move(run, case, replica):
            continue
        if not ours and replica.phase is ReplicaPhase.READY and not _may_shrink(run, case, replica):
            continue
        ready -= replica.phase is ReplicaPhase.READY
        send_away(run, case, replica, why.surplus(case, part), voluntary=ours)


def _may_shrink(run: Run, case: Case, replica: Replica) -> bool:
    """What its user sizes by hand is ended as its user says; the rest only where nobody keeps it."""
    return case.capacity.owner == "user" or may_end(run, case, replica)


def departure(run: Run, replica: Replica) -> tuple[bool, bool, bool, float, int, str]:
    """Who goes first: in the way of a higher priority, never ready, then the least busy and youngest, and last of all whom
    somebody keeps.
    """
    ready = replica.phase is ReplicaPhase.READY
    kept = ready and bool(replica.kept_by)
    stays = replica.key not in run.giving_way
    return kept, stays, ready, outstanding(run.groups, replica), -replica.ordinal, replica.key


def send_away(run: Run, case: Case, replica: Replica, reason: Reason, *, voluntary: bool = False) -> None:
    """Drain what serves, delete what never did; a `voluntary` drain is charged as a move."""
    if replica.phase is not ReplicaPhase.READY:
        run.delete(case, replica, reason)
        return
    run.going.add(replica.key)
    deadline = run.now + case.service.drain_seconds
    node = run.view.nodes.get(node_of(run, replica))
    if node is not None and node.offer_until_seconds is not None and node.offer == "reclaiming":
        deadline = min(deadline, node.offer_until_seconds)
    action = Drain(
        subject=replica.ref,
        deadline_seconds=deadline,
        voluntary=voluntary,
        expects=(case.service.ref,),
        reason=run.draft.because(reason),
    )
    run.draft.act(action)
    run.overlay.apply(action)


def node_of(run: Run, replica: Replica) -> str:
    """The node a replica is on, empty when its launcher is not known."""
    launcher = run.view.launchers.get(replica.launcher)
    return launcher.slots[0].node if launcher is not None and launcher.slots else ""

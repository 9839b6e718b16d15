"""Which replicas go: surplus, outdated, on a node being lost, or in the way of a higher priority.

A ready replica goes only when its successors are ready, so that a change of mix never opens a gap; unless the
pool is full and a replica someone wants cannot be placed, or its node is being lost anyway.
"""

from __future__ import annotations

from cluster.actions import Drain
from cluster.reasons import Reason
from cluster.serving import Replica, ReplicaPhase
from policies.place import why
from policies.place.cases import Case, Part, outstanding
from policies.place.restraint import is_free_to_end, may_end, may_move
from policies.place.run import Missing, Run


def drain(run: Run) -> None:
    """Send away what is surplus, outdated or on a node being lost."""
    blocked = {missing.part[1] for missing in run.missing}
    for case in run.cases:
        for replica in case.leaving:
            _send_away(run, case, replica, why.leaving(case, replica, _node_of(run, replica)))
        for part in case.parts():
            _trim(run, case, part, blocked)


def _trim(run: Run, case: Case, part: Part, blocked: set[str]) -> None:
    live, wanted = case.live(part), case.wanted.get(part, 0)
    outdated = {replica.key for replica in case.outdated.get(part, ())}
    surplus = len(live) - wanted
    # With no room for a successor, an outdated replica makes the room itself; a service's only one stays.
    stuck_roll = bool(outdated) and surplus == 0 and wanted > 1 and _is_missing(run, case, part)
    if surplus <= 0 and not stuck_roll:
        return
    ready = case.ready(part)
    free_to_go = part[1] in blocked or stuck_roll or case.all_ready()
    floor = wanted if part[1] not in blocked and not stuck_roll else 0
    for replica in sorted(live, key=lambda r: _departure(run, r, outdated))[: max(surplus, int(stuck_roll))]:
        if replica.phase is ReplicaPhase.READY:
            if not free_to_go or ready - 1 < floor:
                continue
        elif _is_successor(replica, outdated):
            continue
        is_old = replica.key in outdated
        # What its load no longer needs goes unasked; what something else takes the place of is a move of ours.
        ours = replica.phase is ReplicaPhase.READY and (is_old or case.capacity.exchanged)
        if ours and not may_move(run, case, replica):
            continue
        if not ours and replica.phase is ReplicaPhase.READY and not _may_shrink(run, case, replica):
            continue
        ready -= replica.phase is ReplicaPhase.READY
        reason = why.outdated(case, replica) if is_old else why.surplus(case, part)
        _send_away(run, case, replica, reason, voluntary=ours)


def _may_shrink(run: Run, case: Case, replica: Replica) -> bool:
    """What its user sizes by hand is ended as its user says; the rest only where nobody keeps it."""
    return case.capacity.owner == "user" or may_end(run, case, replica)


def _is_missing(run: Run, case: Case, part: Part) -> bool:
    return any(m.case is case and m.part == part for m in run.missing)


def _is_successor(replica: Replica, outdated: set[str]) -> bool:
    """A starting replica of the new template while old ones still serve: what the roll waits for."""
    return bool(outdated) and replica.key not in outdated


def _departure(run: Run, replica: Replica, outdated: set[str]) -> tuple[bool, int, float, int, str]:
    """Who goes first: never ready, then outdated, then the least busy and youngest; then successors, and last of all
    whom somebody keeps where they are.
    """
    ready, old = replica.phase is ReplicaPhase.READY, replica.key in outdated
    if ready:
        rank = 2 if old else 3
    elif _is_successor(replica, outdated):
        rank = 4
    else:
        rank = 0 if old else 1
    kept = ready and bool(replica.kept_by)
    return kept, rank, outstanding(run.groups, replica), -replica.ordinal, replica.key


def _send_away(run: Run, case: Case, replica: Replica, reason: Reason, *, voluntary: bool = False) -> None:
    """Drain what serves, delete what never did; a `voluntary` drain is charged as a move."""
    if replica.phase is not ReplicaPhase.READY:
        run.delete(case, replica, reason)
        return
    run.going.add(replica.key)
    deadline = run.now + case.service.drain_seconds
    node = run.view.nodes.get(_node_of(run, replica))
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


def _node_of(run: Run, replica: Replica) -> str:
    launcher = run.view.launchers.get(replica.launcher)
    return launcher.slots[0].node if launcher is not None and launcher.slots else ""


def make_room(run: Run) -> None:
    """Drain replicas of strictly lower priority where a missing one of a higher priority would then fit.

    Only where what is already on its way out does not make the room by itself.
    """
    if not run.missing:
        return
    tenants = _tenants(run)
    coming = _coming(run)
    for missing in run.missing:
        pool, gpus = missing.part[1], missing.variant.gpus
        fence = run.fences.of(missing.case.service)
        nodes = sorted(
            (n.order, n.name)
            for n in run.view.nodes.values()
            if n.pool == pool and n.offer == "open" and (fence is None or fence.permits(n.name))
        )
        waited_for = next((n for _, n in nodes if run.rooms.free(n) + coming.get(n, 0) >= gpus), None)
        if waited_for is not None:
            coming[waited_for] = coming.get(waited_for, 0) - gpus
            continue
        best = _cheapest_room(run, missing, [n for _, n in nodes], tenants, coming)
        if best is None:
            continue
        node, victims = best
        for case, replica in victims:
            gone = replica.variant.gpus
            coming[node] = coming.get(node, 0) + gone
            tenants[node] = [t for t in tenants[node] if t[1].key != replica.key]
            _send_away(run, case, replica, why.preempted(case.service, missing.case.service, gone))
        coming[node] = coming.get(node, 0) - gpus


def _tenants(run: Run) -> dict[str, list[tuple[Case, Replica]]]:
    """Live replicas per node, that this round leaves alone."""
    found: dict[str, list[tuple[Case, Replica]]] = {}
    for case in run.cases:
        for part in case.parts():
            for replica in case.live(part):
                if replica.key not in run.going:
                    found.setdefault(_node_of(run, replica), []).append((case, replica))
    return found


def _coming(run: Run) -> dict[str, int]:
    """GPUs per node that are on their way out: stopping claims, draining replicas and this round's leavers."""
    going = set(run.going)
    for case in run.cases:
        going.update(replica.key for replica in case.draining)
    found: dict[str, int] = {}
    for key in sorted(run.view.claims):
        claim = run.view.claims[key]
        if claim.phase == "stopping" or key in going:
            found[claim.slot.node] = found.get(claim.slot.node, 0) + claim.slot.gpus
    return found


def _cheapest_room(
    run: Run,
    missing: Missing,
    nodes: list[str],
    tenants: dict[str, list[tuple[Case, Replica]]],
    coming: dict[str, int],
) -> tuple[str, list[tuple[Case, Replica]]] | None:
    """The node where the fewest GPUs of the lowest priorities must go."""
    priority = missing.case.service.priority
    best: tuple[int, int, str, list[tuple[Case, Replica]]] | None = None
    for rank, node in enumerate(nodes):
        lacking = missing.variant.gpus - run.rooms.free(node) - max(0, coming.get(node, 0))
        lower = sorted(
            (
                t
                for t in tenants.get(node, ())
                if t[0].service.priority < priority and is_free_to_end(run, *t)
            ),
            key=lambda t: (t[0].service.priority, outstanding(run.groups, t[1]), t[1].key),
        )
        victims: list[tuple[Case, Replica]] = []
        for tenant in lower:
            if lacking <= 0:
                break
            victims.append(tenant)
            lacking -= tenant[1].variant.gpus
        if lacking <= 0 and victims:
            cost = sum(t[1].variant.gpus for t in victims)
            if best is None or (cost, rank) < best[:2]:
                best = (cost, rank, node, victims)
    return None if best is None else (best[2], best[3])

"""Which replicas go: surplus, on a node being lost, or in the way of a higher priority.

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
    """Send away what is surplus, of another revision or on a node being lost."""
    blocked = {missing.part[1] for missing in run.missing}
    for case in run.cases:
        for replica in case.leaving:
            send_away(run, case, replica, why.leaving(case, replica, node_of(run, replica)))
        for part in case.parts():
            _trim(run, case, part, blocked)


def _trim(run: Run, case: Case, part: Part, blocked: set[str]) -> None:
    live, wanted = case.current.get(part, []), case.wanted.get(part, 0)
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


def departure(run: Run, replica: Replica) -> tuple[bool, bool, float, int, str]:
    """Who goes first: never ready, then the least busy and youngest, and last of all whom somebody keeps."""
    ready = replica.phase is ReplicaPhase.READY
    kept = ready and bool(replica.kept_by)
    return kept, ready, outstanding(run.groups, replica), -replica.ordinal, replica.key


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


def make_room(run: Run) -> None:
    """Drain replicas of strictly lower priority where a missing one of a higher priority would then fit.

    Only where what is already on its way out does not make the room by itself.
    """
    if not run.missing:
        return
    tenants = _tenants(run)
    coming = _coming(run)
    for missing in run.missing:
        if missing.variant.shares:
            continue  # nothing gives way to a share of a GPU, and no share to anything
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
            send_away(run, case, replica, why.preempted(case.service, missing.case.service, gone))
        coming[node] = coming.get(node, 0) - gpus


def _tenants(run: Run) -> dict[str, list[tuple[Case, Replica]]]:
    """Live replicas per node, that this round leaves alone."""
    found: dict[str, list[tuple[Case, Replica]]] = {}
    for case in run.cases:
        for part in case.parts():
            for replica in case.live(part):
                if replica.key not in run.going and not replica.variant.shares:
                    found.setdefault(node_of(run, replica), []).append((case, replica))
    return found


def _coming(run: Run) -> dict[str, int]:
    """GPUs per node that are on their way out: stopping claims, draining replicas and this round's leavers."""
    going = set(run.going)
    for case in run.cases:
        going.update(replica.key for replica in case.draining)
    found: dict[str, int] = {}
    for key in sorted(run.view.claims):
        claim = run.view.claims[key]
        if (claim.phase == "stopping" or key in going) and not claim.slot.shares:
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

"""What a rollout does to the replicas of another revision: away with those that have successors, or that make room."""

from __future__ import annotations

from typing import Any

from cluster.reasons import Reason
from cluster.serving import Replica, ReplicaPhase, Variant
from policies.frames import frame_of
from policies.loads import load_of
from policies.place import rollout, why
from policies.place.cases import Case, Part
from policies.place.draining import departure, node_of, send_away
from policies.place.restraint import is_free_to_end, may_end, may_move
from policies.place.run import Run
from policies.shapes import declared

STALE_SECONDS = 60.0
"""A measured load older than this is not counted on; the one that was planned for is."""


def roll(run: Run) -> None:
    """Send old replicas away, as many as have successors; one more where the next successor has no room otherwise."""
    for case in run.cases:
        old = [replica for part in sorted(case.outdated) for replica in case.outdated[part]]
        if old and case.service.name not in run.halted:
            _roll(run, case, sorted(old, key=lambda replica: departure(run, replica)))


def _roll(run: Run, case: Case, old: list[Replica]) -> None:
    run.draft.because(why.progress(case, rollout.surge_gpus(case, run.config.rollout)))
    ready = []
    for replica in old:
        if replica.phase is ReplicaPhase.READY:
            ready.append(replica)
        else:
            send_away(run, case, replica, _why(case, replica))
    if ready and _is_move(case) and run.overlay.moves_left(case.service.name) < 1:
        may_move(run, case, ready[0])  # which says what is spent
        return
    left = rollout.may_leave(case, run.trials[case.service.name])
    gone = 0
    for replica in ready:
        ours = _is_move(case)
        may = may_move if ours else may_end
        if replica.variant.gpus <= left and may(run, case, replica):
            left -= replica.variant.gpus
            gone += 1
            send_away(run, case, replica, _why(case, replica), voluntary=ours)
    blocked = run.blocked.get(case.service.name)
    if blocked is not None and not gone and not _moving(run, case):
        _make_room(run, case, ready, *blocked)


def _is_move(case: Case) -> bool:
    """Whether it is our own choice to end an old one now: not where nothing is wanted, and not on the way back."""
    return bool(case.wanted) and not case.service.rollout.given_up


def _why(case: Case, replica: Replica) -> Reason:
    given_up = replica.revision == case.service.rollout.given_up
    return why.revoked(case, replica) if given_up else why.outdated(case, replica)


def _moving(run: Run, case: Case) -> bool:
    """Whether a successor is on its way, or the room for one."""
    if case.service.name in run.tried:
        return True
    settled = (ReplicaPhase.READY, ReplicaPhase.ASLEEP)
    return any(replica.phase not in settled or replica.key in run.going for replica in run.held(case))


def _make_room(run: Run, case: Case, ready: list[Replica], part: Part, variant: Variant) -> None:
    """Drain first where no GPU is free, never the last that serves; told with what is left for the load."""
    free = [replica for replica in ready if is_free_to_end(run, case, replica)]
    fence = run.fences.of(case.service)
    if fence is not None:
        free = [replica for replica in free if fence.permits(node_of(run, replica))]
    victims = _victims(run, free, part, variant)
    serving = [r for r in run.held(case) if r.phase is ReplicaPhase.READY]
    if not victims or len(victims) >= len(serving):
        run.draft.because(why.waits_for_room(case, variant, len(serving), _most(run, part[1], variant)))
        return
    names = {replica.key for replica in victims}
    after = [replica for replica in serving if replica.key not in names]
    need, have = _load(run, case), _carried(run, case, after)
    ours = _is_move(case)
    if ours and run.overlay.moves_left(case.service.name) < len(victims):
        may_move(run, case, victims[0])  # which says what is spent
        return
    for replica in victims:
        send_away(run, case, replica, why.makes_room(case, replica, need, have), voluntary=ours)


def _most(run: Run, pool: str, variant: Variant) -> float:
    """GPUs that are free on the emptiest node, or of the emptiest device where a share is wanted."""
    return run.rooms.most_left(pool) if variant.shares else run.rooms.most_free(pool)


def _victims(run: Run, ready: list[Replica], part: Part, variant: Variant) -> list[Replica]:
    """Old replicas of one open node whose end makes room there for `variant`: of all nodes, the fewest GPUs."""
    tenants: dict[str, list[Replica]] = {}
    for replica in ready:
        # A share makes room for one that is no larger, a whole GPU for whole ones.
        if replica.variant.milli >= variant.milli and replica.variant.shares == variant.shares:
            tenants.setdefault(node_of(run, replica), []).append(replica)
    best: tuple[int, int, str, list[Replica]] | None = None
    for name in sorted(tenants):
        node = run.view.nodes.get(name)
        if node is None or node.pool != part[1] or node.offer != "open":
            continue
        lacking, chosen = variant.gpus - (0 if variant.shares else run.rooms.free(name)), []
        for replica in tenants[name]:
            if lacking > 0:
                chosen.append(replica)
                lacking -= replica.variant.gpus
        order = ready.index(chosen[0]) if chosen else 0
        if chosen and lacking <= 0 and (best is None or (rollout.gpus_of(chosen), order, name) < best[:3]):
            best = (rollout.gpus_of(chosen), order, name, chosen)
    return best[3] if best is not None else []


def _load(run: Run, case: Case) -> float:
    """Requests per second asked for now, or planned for where nothing fresh was measured."""
    load = load_of(run.groups, case.service, run.now, STALE_SECONDS)
    return load.per_second if load.seen and load.fresh else case.capacity.wanted_per_second


def _carried(run: Run, case: Case, replicas: list[Replica]) -> float:
    """Requests per second that replicas carry, by the profiles of the service's model."""
    scratch: dict[str, Any] = run.scratch
    frame = frame_of(run.groups, case.service, scratch)
    shares = frame.shares(case.capacity.shape or declared(case.service))
    rates = {key: frame.unit_rate(profile, shares) for key, profile in frame.profiles.items()}
    return float(sum(rates.get(replica.variant.key, 0.0) for replica in replicas))

"""One live move for a replica that fits nowhere though enough is free: another one is started elsewhere, and then ends here.

Off unless `moves_per_minute` says otherwise. A move is a replica of the same part on another node, and, once that is ready, a
drain that is charged to the disruption budgets like any other of our own choice: the load is carried throughout. Never more
than one move at a time for a service that lacks room. Bounds as in `placement/packing/moving.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cluster.actions import CreateReplica
from cluster.admission import Fence
from cluster.hardware import Slot
from cluster.serving import Replica, ReplicaPhase, Variant
from placement.packing.best_fit import Choice
from placement.packing.moving import NODES, PODS
from policies.commit.parts import WHOLE, is_part
from policies.frames import frame_of
from policies.place import why
from policies.place.cases import Case, Part, outstanding
from policies.place.draining import send_away
from policies.place.restraint import is_free_to_end, may_move
from policies.place.run import Missing, Move, Run

MINUTE = 60.0


class _Candidate(NamedTuple):
    """A replica that could move, by what it costs: thousandths of GPUs, how busy it is, its key."""

    milli: int
    busy: float
    key: str
    case: Case
    replica: Replica
    slot: Slot


# ---------------------------------------------------------------------------------------------- going on, ending


def finish(run: Run) -> None:
    """End what has its successor elsewhere; forget moves that came to an end or to nothing."""
    cases = {case.service.name: case for case in run.cases}
    standing: dict[str, Move] = {}
    for key, move in sorted(run.moves.items()):
        old, new = run.view.replicas.get(key), run.view.replicas.get(move.successor)
        case = cases.get(old.service) if old is not None else None
        if old is None or case is None or not _goes_on(run, case, old, new, move):
            continue
        standing[key] = move
        if new is None or new.phase is not ReplicaPhase.READY:
            run.moving.append((case.service.name, _part(old)))
        elif may_move(run, case, old):
            reason = why.moved(case, old, move.successor, run.now - move.since_seconds)
            send_away(run, case, old, reason, voluntary=True)
        else:
            run.moving.append((case.service.name, _part(old)))
    run.moves = standing
    run.moved = tuple(at for at in run.moved if at > run.now - MINUTE)


def _goes_on(run: Run, case: Case, old: Replica, new: Replica | None, move: Move) -> bool:
    """Whether a move still makes sense: both are alive, and one of them is more than is wanted."""
    age = run.now - move.since_seconds
    if old.phase is not ReplicaPhase.READY or old.key in run.going or age > run.config.move_seconds:
        return False
    if new is None:
        return age < run.config.bind_seconds  # it may not be seen yet
    starting = (ReplicaPhase.PENDING, ReplicaPhase.STARTING, ReplicaPhase.READY)
    surplus = len(case.current.get(_part(old), ())) - case.wanted.get(_part(old), 0)
    return new.phase in starting and new.key not in run.going and surplus > 0


def _part(replica: Replica) -> Part:
    return replica.variant.key, replica.pool


# ------------------------------------------------------------------------------------------------------ beginning


def start(run: Run) -> None:
    """Begin a move for each service that lacks room, as far as the budget of a minute goes."""
    if not run.config.moves_per_minute:
        return
    helped = {move.wanted_by for move in run.moves.values()}
    for wish in _wishes(run):
        name = wish.case.service.name
        if len(run.moved) >= run.config.moves_per_minute:
            return
        if name not in helped and _begin(run, wish):
            helped.add(name)


def _wishes(run: Run) -> Iterator[Missing]:
    """Who fits nowhere though enough is free in a pool: replicas that were refused, and services whose mix is short."""
    seen = set()
    for missing in run.hopeless:
        if missing.case.service.name not in seen and _is_scattered(run, missing):
            seen.add(missing.case.service.name)
            yield missing
    for case in run.cases:
        if (
            case.service.name in seen
            or case.capacity.mix.unserved_per_second <= 1e-9
            or not _is_calm(run, case)
        ):
            continue
        frame = frame_of(run.groups, case.service, run.scratch)
        for column in sorted(frame.columns, key=lambda c: (c.dollars_per_hour, c.name)):
            variant = column.profile.variant
            wish = Missing(case, (variant.key, column.pool), variant)
            if _is_scattered(run, wish):
                yield wish
                break


def _is_calm(run: Run, case: Case) -> bool:
    """Whether nothing else is under way with a service: no rollout, no pause, no refusal."""
    name = case.service.name
    rest = run.resting.get(name)
    paused = rest is not None and rest.until_seconds > run.now
    return not (
        any(case.outdated.values()) or name in run.halted or paused or case.service.refused is not None
    )


def _is_scattered(run: Run, wish: Missing) -> bool:
    """Whether a pool has enough free for one more, but not in one place, and nothing there is on its way out."""
    pool, fence = wish.part[1], run.fences.of(wish.case.service)
    nodes = _open_nodes(run, pool, fence)
    leaving = {c.slot.node for k, c in run.view.claims.items() if c.phase == "stopping" or k in run.going}
    leaving |= {_slot(run, r).node for case in run.cases for r in case.draining}
    if leaving & set(nodes) or _choose(run, wish.part, wish.variant, fence, ()) is not None:
        return False
    return _free_milli(run, wish, nodes) >= wish.variant.gpus * wish.variant.milli


def _free_milli(run: Run, wish: Missing, nodes: Iterable[str]) -> int:
    """Thousandths that are free on nodes, those of begun devices among them."""
    usable = (name for name in nodes if not wish.variant.shares or run.view.nodes[name].divisible)
    return sum(left for name in usable for _, left in run.overlay.space.free_levels(name))


def _open_nodes(run: Run, pool: str, fence: Fence | None) -> list[str]:
    """Open nodes of a pool that a fence permits, the emptiest first."""
    found = [
        node
        for node in run.view.nodes.values()
        if node.pool == pool and node.offer == "open" and (fence is None or fence.permits(node.name))
    ]
    return [node.name for node in sorted(found, key=lambda n: (-run.rooms.free(n.name), n.order, n.name))]


def _choose(
    run: Run, part: Part, variant: Variant, fence: Fence | None, avoid: Iterable[str]
) -> Choice | None:
    if variant.shares:
        return run.rooms.choose_share(part[1], variant.milli, tuple(avoid), fence)
    return run.rooms.choose(part[1], variant.gpus, tuple(avoid), fence)


def _begin(run: Run, wish: Missing) -> bool:
    """Start the successor of the replica that is cheapest to move; False where moving none helps."""
    for each in sorted(_candidates(run, wish), key=lambda c: c[:3]):
        part, fence = _part(each.replica), run.fences.of(each.case.service)
        choice = _choose(run, part, each.replica.variant, fence, (each.slot.node, *run.shunned))
        if choice is None:
            continue
        free = _free_milli(run, wish, _open_nodes(run, wish.part[1], run.fences.of(wish.case.service)))
        name, ordinal = run.name_for(each.case, part[0])
        reason = why.moves(each.case, each.replica, choice, wish, free / WHOLE, run.config.moves_per_minute)
        action = CreateReplica(
            service=each.case.service.name,
            name=name,
            variant=each.replica.variant,
            pool=part[1],
            ordinal=ordinal,
            slots=(choice.slot,),
            expects=(each.case.service.ref,),
            reason=run.draft.because(reason),
        )
        run.draft.act(action)
        run.overlay.apply(action)
        run.rooms.refresh(choice.slot.node)
        wanted_by = wish.case.service.name
        run.moves[each.key] = Move(successor=name, wanted_by=wanted_by, since_seconds=run.now)
        run.moved = (*run.moved, run.now)
        return True
    return False


def _candidates(run: Run, wish: Missing) -> Iterator[_Candidate]:
    """Ready replicas of no higher priority whose end would make the room, on the emptiest nodes."""
    tenants = _tenants(run, wish.case.service.priority)
    fence = run.fences.of(wish.case.service)
    for node in _open_nodes(run, wish.part[1], fence)[:NODES]:
        for each in sorted(tenants.get(node, ()), key=lambda c: c[:3])[:PODS]:
            if _helps(run, wish.variant, fence, each.slot):
                yield each


def _tenants(run: Run, priority: int) -> dict[str, list[_Candidate]]:
    found: dict[str, list[_Candidate]] = {}
    for case in run.cases:
        calm = case.service.priority <= priority and _is_calm(run, case)
        if not calm or run.overlay.moves_left(case.service.name) < 1:
            continue
        for part, replicas in sorted(case.current.items()):
            if len(replicas) != case.wanted.get(part, 0):
                continue
            for replica in replicas:
                slot = _slot(run, replica)
                settled = (
                    replica.phase is ReplicaPhase.READY and replica.key not in run.going | run.moves.keys()
                )
                if settled and slot.node and is_free_to_end(run, case, replica):
                    milli = slot.gpus * slot.milli_per_device
                    made = _Candidate(
                        milli, outstanding(run.groups, replica), replica.key, case, replica, slot
                    )
                    found.setdefault(slot.node, []).append(made)
    return found


def _slot(run: Run, replica: Replica) -> Slot:
    launcher = run.view.launchers.get(replica.launcher)
    return launcher.slots[0] if launcher is not None and launcher.slots else Slot(node="", devices=())


def _helps(run: Run, variant: Variant, fence: Fence | None, slot: Slot) -> bool:
    """Whether a node has the room once a slot there is free."""
    space, node = run.overlay.space, slot.node
    if fence is not None:
        cpu = space.free_cpu_millis(node) + slot.cpu_millis >= fence.who.cpu_millis
        if not cpu or space.free_memory_bytes(node) + slot.memory_bytes < fence.who.memory_bytes:
            return False
    left = space.free_milli(node, slot.devices[0]) + slot.milli_per_device if is_part(slot) else WHOLE
    if variant.shares:
        return bool(run.view.nodes[node].divisible) and left >= variant.milli
    freed = slot.gpus if not is_part(slot) else int(left >= WHOLE)
    return freed > 0 and run.rooms.free(node) + freed >= variant.gpus

"""The working memory of one round of placing, and the two steps that change what exists."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from cluster.actions import CreateReplica, DeleteReplica, Resume, SettleRevision
from cluster.admission import Fences
from cluster.overlay import Overlay
from cluster.plan import Context
from cluster.reasons import Reason
from cluster.serving import Replica, ReplicaPhase, Service, Variant
from cluster.snapshot import Snapshot
from placement.packing.best_fit import Rooms
from placement.packing.priced_rooms import Basis
from policies.draft import Draft
from policies.groups import Groups, in_scope
from policies.place import rollout, why
from policies.place.buying import awaited
from policies.place.cases import (
    Case,
    Limits,
    Part,
    case_of,
    is_empty,
    must_leave,
    outstanding,
    replica_name,
)
from policies.place.rollout import Failure, RolloutRules, Room, Trial
from policies.resting import Rest, after

Seconds = Annotated[float, msgspec.Meta(ge=0.0)]

ENDED = (ReplicaPhase.FAILED, ReplicaPhase.LOST, ReplicaPhase.GONE)
"""Phases in which a replica holds no device that could be used again by ending it."""


class BestFitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of best-fit placing.

    `bind_seconds`: a replica not bound to its node by then is deleted and replanned. `start_seconds`: so is one that
    is bound and not ready (the largest models load for minutes). `prepare_seconds`: one whose volumes are not mounted by
    then is told of. `shun_seconds`: how long the node it was meant for is
    avoided. `settle_seconds`: a report this much younger than the start of a
    drain is believed when it says empty. `route_tolerance`: weights closer than this are left alone. `plan_tolerance`: so
    is a plan by size that means no more than this share of the requests for other variants.
    `failed_grace_seconds`: grace of deleting what serves nobody. `rollout`: how boldly revisions are rolled out.
    `idle_hold_seconds`: how long a node that was bought stands empty before it is given back. `moves_per_minute`: how many
    replicas may be moved so that one that fits nowhere finds room (0: none). `move_seconds`: after how long a move is given up.
    """

    bind_seconds: Seconds = 10.0
    start_seconds: Seconds = 1_800.0
    prepare_seconds: Seconds = 60.0
    shun_seconds: Seconds = 60.0
    settle_seconds: Seconds = 2.0
    route_tolerance: Seconds = 0.005
    plan_tolerance: Seconds = 0.02
    failed_grace_seconds: Seconds = 1.0
    rollout: RolloutRules = RolloutRules()
    idle_hold_seconds: Seconds = 600.0
    moves_per_minute: Annotated[int, msgspec.Meta(ge=0)] = 0
    move_seconds: Seconds = 1_800.0


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's successor on another node, the service that lacks the room, and since when (UTC seconds)."""

    successor: str
    wanted_by: str
    since_seconds: float


class BestFitState(msgspec.Struct, frozen=True, kw_only=True):
    """Highest ordinal ever given per service, nodes that did not bind, until when (UTC seconds), services whose
    replicas do not start, what was learned of revisions that are being rolled out, since when bought nodes have
    been empty, what the prices of each pool are made from (`priced_fgd`), moves under way by replica, and when those of the
    last minute began.
    """

    schema: int = 1
    ordinals: dict[str, int] = {}
    shunned: dict[str, float] = {}
    resting: dict[str, Rest] = {}
    trials: dict[str, Trial] = {}
    idle: dict[str, float] = {}
    bases: dict[str, Basis] = {}
    moves: dict[str, Move] = {}
    moved: tuple[float, ...] = ()


class Missing(NamedTuple):
    """Replicas of one part that found no node: how many may look for one now."""

    case: Case
    part: Part
    variant: Variant
    units: int = 1


class Run:
    """One call's view, indexes and draft; steps are `remove`, `create` here and those of `draining`."""

    def __init__(self, view: Snapshot, state: BestFitState, ctx: Context, config: BestFitConfig) -> None:
        self.view, self.config, self.now, self.scratch = view, config, ctx.now_seconds, ctx.scratch
        self.draft, self.groups, self.overlay = Draft(), Groups(view), Overlay(view)
        self.bases = dict(state.bases)
        self.rooms = self._rooms()
        self.fences = Fences(view.nodes)
        self.ordinals = dict(state.ordinals)
        self.shunned = {n: t for n, t in state.shunned.items() if t > ctx.now_seconds}
        self.resting = dict(state.resting)
        self.trials: dict[str, Trial] = {}
        self.halted: dict[str, Failure] = {}
        self.blocked: dict[str, tuple[Part, Variant]] = {}
        self.idle = dict(state.idle)
        self.missing: list[Missing] = []
        self.hopeless: list[Missing] = []
        self.moves, self.moved = dict(state.moves), state.moved
        self.moving: list[tuple[str, Part]] = []
        self.going: set[str] = set()
        self.giving_way: frozenset[str] = frozenset()
        self.tried: set[str] = set()
        self.cases: list[Case] = []
        for service in in_scope(view, ctx):
            capacity = view.capacity(service.name)
            if capacity is not None and capacity.final:
                limits = Limits(config.bind_seconds, self._start_seconds(service))
                case = case_of(self.groups, service, capacity, self.now, limits)
                self.cases.append(case)
                self._judge(case, state.trials.get(service.name))

    def _rooms(self) -> Rooms:
        """What chooses nodes."""
        return Rooms(self.view.nodes, self.overlay.space)

    def _start_seconds(self, service: Service) -> float:
        """Longest start of a replica of the service: the usual one, or what its rollout allows."""
        usual, rules = self.config.start_seconds, self.config.rollout
        if not rollout.is_on_trial(service):
            return usual
        each = [rollout.start_limit(self.view, service, variant, rules) for variant in service.variants]
        return min(usual, max(each, default=rules.start_seconds))

    def _judge(self, case: Case, trial: Trial | None) -> None:
        """Settle the revision: complete, or given up; while it is neither, remember what was learned of it."""
        service = case.service
        replicas = self.groups.replicas.get(service.name, ())
        if service.rollout.complete and not case.outdated:
            return
        trial = self.trials[service.name] = rollout.learned(trial, case, replicas)
        failure = rollout.judge(self.view, case, trial, self.config.rollout, self.now)
        if failure is not None:
            self.halted[service.name] = failure
            self.resting.pop(service.name, None)
            self._settle(service, why.given_up(case, failure), complete=False)
        elif rollout.is_complete(case):
            self._settle(service, why.completed(case, self.now), complete=True)

    def _settle(self, service: Service, reason: Reason, *, complete: bool) -> None:
        self.draft.act(
            SettleRevision(
                service=service.name,
                revision=service.revision,
                complete=complete,
                code=reason.code,
                number=service.rollout.number,
                summary=f"{service.model.name}, {service.image or 'the default image'}",
                began_seconds=service.rollout.began_seconds,
                expects=(service.ref,),
                reason=self.draft.because(reason),
            )
        )

    def held(self, case: Case) -> list[Replica]:
        """Replicas of a service that hold devices, those on their way out included."""
        return [r for r in self.groups.replicas.get(case.service.name, ()) if r.phase not in ENDED]

    def ending(self, budget: str) -> int:
        """Pods under a PodDisruptionBudget that drain and that it still counts as healthy, those of this round too."""
        replicas = self.overlay.read("replicas").values()
        return sum(1 for r in replicas if r.phase is ReplicaPhase.DRAINING and budget in r.budgets)

    def state(self) -> BestFitState:
        """What is remembered."""
        return BestFitState(
            ordinals={name: self.ordinals[name] for name in sorted(self.ordinals)},
            shunned={name: self.shunned[name] for name in sorted(self.shunned)},
            resting={name: self.resting[name] for name in sorted(self.resting) if name in self.view.services},
            trials={name: self.trials[name] for name in sorted(self.trials)},
            idle={name: self.idle[name] for name in sorted(self.idle)},
            bases={pool: self.bases[pool] for pool in sorted(self.bases)},
            moves={key: self.moves[key] for key in sorted(self.moves)},
            moved=self.moved,
        )

    # ---------------------------------------------------------------------------------------------- removing

    def remove(self) -> None:
        """Delete what never bound, never started, failed, was lost, or is drained."""
        for case in self.cases:
            self._remove_drained(case)
            if case.service.name in self.halted:
                continue  # what shows that the revision fails stays until that is written down
            self._count_failures(case)
            self._tell_blocked(case)
            for replica in case.stuck:
                self._shun(replica)
                waited = self.now - replica.phase_since_seconds
                self.delete(case, replica, why.stuck(case, replica, waited, self.config.bind_seconds))
            for replica in case.late:
                waited = self.now - replica.phase_since_seconds
                limit = self._start_seconds(case.service)
                self.delete(case, replica, why.late(case, replica, waited, limit))
            for replica in case.dead:
                waited = self.now - replica.phase_since_seconds
                reason = (
                    why.lost(case, replica, waited, self.config.bind_seconds)
                    if replica.phase is ReplicaPhase.LOST
                    else why.ended(case, replica, waited, 0.0)
                )
                self.delete(case, replica, reason)

    def _remove_drained(self, case: Case) -> None:
        for replica in case.draining:
            waited = self.now - replica.phase_since_seconds
            empty = is_empty(self.groups, replica, self.config.settle_seconds)
            if (empty or waited >= case.service.drain_seconds) and not self._stays(case, replica):
                left = outstanding(self.groups, replica)
                self.delete(case, replica, why.ended(case, replica, waited, left))

    def _stays(self, case: Case, replica: Replica) -> bool:
        """What drained and may not be evicted after all serves on: a PodDisruptionBudget allows nothing any more."""
        budgets = (self.view.budgets.get(key) for key in replica.budgets)
        closed = any(budget is not None and budget.allowed < 1 for budget in budgets)
        if not closed or must_leave(self.view, replica):
            return False
        reason = self.draft.because(why.serves_on(case, replica))
        self.draft.act(Resume(subject=replica.ref, expects=(case.service.ref,), reason=reason))
        self.going.add(replica.key)
        return True

    def _tell_blocked(self, case: Case) -> None:
        """Say what keeps replicas from starting; their kubelets try again by themselves."""
        live = [r for part in case.parts() for r in case.live(part) if r.phase is ReplicaPhase.STARTING]
        for replica in live:
            waited = self.now - replica.phase_since_seconds
            if replica.blocked or (replica.unprepared and waited >= self.config.prepare_seconds):
                self.draft.because(why.blocked(case, replica, self.config.start_seconds))

    def _count_failures(self, case: Case) -> None:
        name = case.service.name
        crashed = (replica for replica in case.dead if replica.phase is ReplicaPhase.FAILED)
        failed = [r for r in (*case.stuck, *case.late, *crashed) if rollout.is_of(case.service, r)]
        rest = after(self.resting.get(name), failed, self.groups.replicas.get(name, ()), self.now)
        if rest is not None:
            self.resting[name] = rest
        else:
            self.resting.pop(name, None)

    def _shun(self, replica: Replica) -> None:
        launcher = self.view.launchers.get(replica.launcher)
        for slot in launcher.slots if launcher is not None else ():
            self.shunned[slot.node] = self.now + self.config.shun_seconds

    def delete(self, case: Case, replica: Replica, reason: Reason) -> None:
        """Delete a replica, unless its pod is being deleted already."""
        self.going.add(replica.key)
        claim = self.view.claims.get(replica.launcher)
        if claim is not None and claim.phase == "stopping":
            return
        serving = replica.phase is ReplicaPhase.DRAINING
        grace = min(case.service.drain_seconds, 5.0) if serving else 0.0
        self.draft.act(
            DeleteReplica(
                replica=replica.ref,
                grace_seconds=max(self.config.failed_grace_seconds, grace),
                evict=serving and not must_leave(self.view, replica),
                reason=self.draft.because(reason),
            )
        )

    # ---------------------------------------------------------------------------------------------- creating

    def create(self) -> None:
        """Bring back draining replicas where they are wanted again, then create what is still missing."""
        for case in self.cases:
            if case.service.name in self.halted:
                continue
            trial = self.trials.get(case.service.name)
            room = rollout.room_of(case, trial, self.held(case), self.config.rollout)
            for part, units in sorted(case.wanted.items()):
                lacking = units - len(case.current.get(part, ()))
                if lacking > 0:
                    lacking -= self._resume(case, part, lacking)
                variant = next((v for v in case.service.variants if v.key == part[0]), None)
                for made in range(max(0, lacking)):
                    if variant is None or not self._create_one(case, part, variant, room):
                        self._still_missing(case, part, lacking - made if room is None else 1)
                        break

    def _create_one(self, case: Case, part: Part, variant: Variant, room: Room | None) -> bool:
        """Create one replica, in a rollout only within its room. What fills nothing takes only what nobody else needs."""
        if room is None:
            return self._create(case, part, variant)
        if room.left < variant.gpus:
            return False
        filling = room.filling >= variant.gpus and not case.draining
        spent = self.overlay.moves_left(case.service.name) < 1 and not case.service.rollout.given_up
        if not filling and spent:
            return False  # nobody may go for it: it would only stand beside the old ones
        room.left -= variant.gpus
        room.filling = max(0, room.filling - variant.gpus)
        return self._create(case, part, variant, spare=not filling)

    def _still_missing(self, case: Case, part: Part, units: int) -> None:
        """So many replicas look for room, if the last that was tried found none."""
        if self.missing and (self.missing[-1].case.service.name, self.missing[-1].part) == (
            case.service.name,
            part,
        ):
            self.missing[-1] = self.missing[-1]._replace(units=units)

    def _resume(self, case: Case, part: Part, lacking: int) -> int:
        """Undo drains of this part; at most `lacking` of them."""
        back = [
            r
            for r in case.draining
            if (r.variant.key, r.pool) == part
            and rollout.is_of(case.service, r)
            and r.key not in self.going
            and not must_leave(self.view, r)
        ][:lacking]
        for replica in back:
            reason = self.draft.because(why.resumed(case, part, replica))
            self.draft.act(Resume(subject=replica.ref, expects=(case.service.ref,), reason=reason))
        return len(back)

    def _create(self, case: Case, part: Part, variant: Variant, *, spare: bool = False) -> bool:
        """Create one replica; False when no node has room (remembered and told, unless it would be a `spare` one), or
        the service must wait (told). A service whose pods are refused waits, and then tries one.
        """
        refused = case.service.refused
        if refused is not None and (refused.waits(self.now) or case.service.name in self.tried):
            self.draft.because(why.refused(case, refused))
            return False
        rest = self.resting.get(case.service.name)
        if rest is not None and rest.until_seconds > self.now:
            self.draft.because(why.resting(case, rest))
            return False
        fence, size = self.fences.of(case.service), variant.milli if variant.shares else variant.gpus
        choose = self.rooms.choose_share if variant.shares else self.rooms.choose
        choice = choose(part[1], size, self.shunned, fence) or choose(part[1], size, (), fence)
        if choice is None:
            self.blocked[case.service.name] = (part, variant)
            if spare:
                return False
            if (coming := awaited(self, case, part)) is not None:
                self.draft.because(coming)
                return False
            self.missing.append(Missing(case, part, variant))
            self.draft.because(why.unplaceable(case, part, variant, self.rooms, fence))
            return False
        name, ordinal = self.name_for(case, part[0])
        action = CreateReplica(
            service=case.service.name,
            name=name,
            variant=variant,
            pool=part[1],
            ordinal=ordinal,
            slots=(choice.slot,),
            expects=(case.service.ref,),
            reason=self.draft.because(why.placed(case, variant, choice)),
        )
        self.draft.act(action)
        self.tried.add(case.service.name)
        self.overlay.apply(action)
        self.rooms.refresh(choice.slot.node)
        return True

    def name_for(self, case: Case, variant: str) -> tuple[str, int]:
        """A name that no replica, launcher or claim in view has, with an ordinal above all before."""
        service = case.service.name
        known = [r.ordinal for r in self.groups.replicas.get(service, ())]
        ordinal = max([self.ordinals.get(service, 0), *known]) + 1
        name = replica_name(service, variant, ordinal)
        while name in self.view.claims or name in self.view.launchers or name in self.view.replicas:
            ordinal += 1
            name = replica_name(service, variant, ordinal)
        self.ordinals[service] = ordinal
        return name, ordinal

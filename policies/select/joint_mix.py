"""Select: one plan for all services that compete for the same GPUs, each one's part at the head of its menu.

While everybody's own optimum fits the pools, the menus are those of `cheapest_mix`. Where they do not fit together,
services of one priority are planned jointly by column generation on what higher priorities leave (research:
gpu-selection §5.1): what is shed is what is worth least, and replicas that stand are not exchanged for small savings.
`commit` keeps each part free for its service. Menus hold the other mixes as well, as usual.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from cluster.hardware import Market
from cluster.plan import Context, Decision
from cluster.reasons import Alternative, Quantity, Reason, Remedy, Verdict
from cluster.serving import ReplicaPhase, Service
from cluster.snapshot import Snapshot
from cluster.targets import Mix
from placement.selection.fleet import FleetPlan, FleetProblem, ModelNeed
from placement.selection.fleet_explain import RunnerUp, runner_up
from placement.selection.many import Memory, solve_fleet
from placement.selection.problem import RequestClass
from policies.commit.allotted import gpus_of, held_by
from policies.commit.inventory import Ints, Inventory
from policies.draft import Draft, quantity
from policies.frames import Floats, Frame, frame_of
from policies.groups import Groups, in_scope
from policies.mixes import MixOptions, demand_of, mix_of, problem_of, solved
from policies.select.cheapest_mix import CheapestMix, CheapestMixConfig, CheapestMixState, planned_rate
from policies.shapes import declared

MEMO_LIMIT = 64
"""Joint plans kept in scratch; the oldest go first."""

Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class JointMixConfig(CheapestMixConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy, beside those of `cheapest_mix`.

    `fleet_work_units`: most programmes solved for one joint plan, about a millisecond each. `start_share`: a replica
    more is charged this share of its hourly price for starting. `hold_seconds`: a replica that starts, or serves for
    no longer than this, is not given up while all such find room. `spot_share`: most of each class's requests on spot. `survive_priority`: classes
    of at least this priority must survive the loss of a replica (None: none must).
    """

    fleet_work_units: Annotated[int, msgspec.Meta(ge=1)] = 1_000
    start_share: Ratio = 0.1
    hold_seconds: Annotated[float, msgspec.Meta(ge=0.0)] = 300.0
    spot_share: Ratio = 1.0
    survive_priority: int | None = None


class Competitor(NamedTuple):
    """A service that wants something: its frame, shape of load, rate, and its need for the joint problem."""

    service: Service
    frame: Frame
    shares: Floats
    rate: float
    need: ModelNeed


class JointMix(CheapestMix):
    """`Policy[Snapshot, CheapestMixState]`."""

    def __init__(self, config: JointMixConfig | None = None) -> None:
        self._joint = config or JointMixConfig()
        super().__init__(self._joint)

    def decide(self, view: Snapshot, state: CheapestMixState, ctx: Context) -> Decision[CheapestMixState]:
        """Menus of every service of the scope, with joint mixes at the head where services compete."""
        groups, draft = Groups(view), Draft()
        inventory = Inventory(groups, ctx.now_seconds)
        taken: dict[str, float] = {}
        joint: dict[str, Mix] = {}
        services = in_scope(view, ctx)
        for priority, level in groupby(services, key=lambda service: service.priority):
            competitors = [
                found
                for each in level
                if (found := self._competitor(groups, inventory, each, ctx)) is not None
            ]
            free = _free(inventory, priority, taken)
            given = {each.service.name: self._alone(each, ctx) for each in competitors}
            if _short(given.values(), free):
                if len(competitors) == 1:
                    given = {competitors[0].service.name: self._alone(competitors[0], ctx, free)}
                elif draft.units_used < ctx.units:
                    planned = self._plan(competitors, free, ctx, draft)
                    joint.update(planned)
                    given = {
                        each.service.name: gpus_of(planned[each.service.name], each.service)
                        for each in competitors
                    }
            _take(competitors, given, inventory, taken)
        return self.menus(groups, state, ctx, draft, joint)

    def _options(self) -> MixOptions:
        return MixOptions(self._joint.headroom, self._joint.work_units, self._joint.route_by_size)

    def _competitor(
        self, groups: Groups, inventory: Inventory, service: Service, ctx: Context
    ) -> Competitor | None:
        """A service as the joint plan sees it; None when nothing could serve it, it wants nothing, or it may have
        shares of GPUs: those are counted in other units, and take what is left.
        """
        view = groups.view
        frame = frame_of(groups, service, ctx.scratch)
        capacity = view.capacity(service.name)
        idle = capacity is not None and capacity.wanted_per_second <= 0.0 and capacity.wanted_units <= 0
        if not frame.columns or frame.quantum > 1 or idle:
            return None
        shares = frame.shares((capacity.shape if capacity else None) or declared(service))
        rate = planned_rate(view, service, frame, shares)
        most = _most_units(inventory, service.priority, frame)
        problem = problem_of(frame, shares, rate, None, most, self._options())
        standing = {f"{p.variant}|{p.pool}": p.units for p in capacity.mix.parts} if capacity else {}
        young = _young(groups, service, ctx.now_seconds - self._joint.hold_seconds)
        spot = {name for name, pool in view.pools.items() if pool.market is Market.SPOT}
        variants = tuple(
            msgspec.structs.replace(
                option,
                spot=option.pool in spot,
                min_units=min(young.get(option.name, 0), most[option.name]),
                standing_units=standing.get(option.name, 0),
                startup_dollars=self._joint.start_share * option.dollars_per_hour,
            )
            for option in problem.variants
        )
        classes = self._classes(service, frame, demand_of(frame, shares, rate, self._options()).classes)
        problem = msgspec.structs.replace(problem, variants=variants, classes=classes, inventory={})
        need = ModelNeed(name=service.name, problem=problem, priority=service.priority)
        return Competitor(service, frame, shares, rate, need)

    def _classes(self, service: Service, frame: Frame, of: Ints) -> tuple[RequestClass, ...]:
        """The promises of each class that has load."""
        least = self._joint.survive_priority
        priorities = {objective.request_class: objective.priority for objective in service.objectives}
        return tuple(
            RequestClass(
                name=name,
                cells=tuple(np.flatnonzero(of == number).tolist()),
                spot_share=self._joint.spot_share,
                survives_loss=least is not None and max(priorities[name], service.priority) >= least,
            )
            for number, name in enumerate(frame.classes)
            if (of == number).any()
        )

    def _alone(self, each: Competitor, ctx: Context, free: Mapping[str, int] | None = None) -> dict[str, int]:
        """GPUs per pool that a service would take if it were alone; None: if there were plenty."""
        problem = problem_of(each.frame, each.shares, each.rate, free, None, self._options())
        counts = solved(problem, ctx.scratch).best.counts
        found: dict[str, int] = {}
        for column in each.frame.columns:
            gpus = counts.get(column.name, 0) * column.profile.variant.gpus
            found[column.pool] = found.get(column.pool, 0) + gpus
        return found

    def _plan(
        self, competitors: list[Competitor], free: dict[str, int], ctx: Context, draft: Draft
    ) -> dict[str, Mix]:
        """The joint plan of one priority, told service by service."""
        pools = sorted({column.pool for each in competitors for column in each.frame.columns})
        problem = FleetProblem(
            models=tuple(each.need for each in competitors),
            inventory={pool: free.get(pool, 0) for pool in pools},
            work_units=self._joint.fleet_work_units,
        )
        plan, others = _planned(problem, ctx.scratch)
        draft.units_used += plan.units_used
        found: dict[str, Mix] = {}
        for each in competitors:
            solution = plan.solutions[each.service.name]
            mix = mix_of(each.frame, each.shares, each.rate, solution, self._options())
            found[each.service.name] = mix
            draft.because(_allotted(each, mix, plan, others[each.service.name]))
        return found


def _most_units(inventory: Inventory, priority: int, frame: Frame) -> dict[str, int]:
    """Replicas of each column that whole nodes' devices allow, lower priorities' and equal ones' included."""
    rows = inventory.available(priority + 1)
    return {
        column.name: int((rows[inventory.pool_rows[column.pool]] // column.profile.variant.gpus).sum())
        if column.pool in inventory.pool_rows
        else 0
        for column in frame.columns
    }


def _young(groups: Groups, service: Service, since_seconds: float) -> dict[str, int]:
    """Replicas by column that start, or began to serve only just now: they are not given up again at once."""
    found: dict[str, int] = {}
    for replica in groups.replicas.get(service.name, ()):
        starts = replica.phase in (ReplicaPhase.PENDING, ReplicaPhase.STARTING)
        fresh = replica.phase is ReplicaPhase.READY and replica.phase_since_seconds > since_seconds
        if starts or fresh:
            column = f"{replica.variant.key}|{replica.pool}"
            found[column] = found.get(column, 0) + 1
    return found


def _free(inventory: Inventory, priority: int, taken: dict[str, float]) -> dict[str, int]:
    """GPUs per pool that services of a priority may share: what higher ones hold, or were given, is theirs."""
    rows = inventory.available(priority + 1)
    return {
        pool: max(0, int(rows[index].sum()) - int(taken.get(pool, 0.0)))
        for pool, index in inventory.pool_rows.items()
    }


def _short(wanted: Iterable[Mapping[str, int]], free: Mapping[str, int]) -> bool:
    """Whether what everybody would have alone does not fit the pools together."""
    total: dict[str, int] = {}
    for each in wanted:
        for pool, gpus in each.items():
            total[pool] = total.get(pool, 0) + gpus
    return any(gpus > free.get(pool, 0) for pool, gpus in total.items())


def _take(
    competitors: list[Competitor],
    given: Mapping[str, Mapping[str, int]],
    inventory: Inventory,
    taken: dict[str, float],
) -> None:
    """Notes what the services of a level get beyond what they hold: lower ones cannot count on it."""
    for each in competitors:
        held = held_by(inventory, each.service)
        for pool, gpus in given[each.service.name].items():
            taken[pool] = taken.get(pool, 0.0) + max(0, gpus - held.get(pool, 0))


Others = dict[str, RunnerUp | None]
"""What each service could run instead."""


def _planned(problem: FleetProblem, scratch: dict[str, Any]) -> tuple[FleetPlan, Others]:
    """The plan of a problem and what each could run instead, from scratch when it was solved before.

    Only whole answers are remembered: a solver that is warm may break a tie otherwise than a cold one.
    """
    memo: dict[bytes, tuple[FleetPlan, Others]] = scratch.setdefault("fleets", {})
    key = hashlib.blake2b(msgspec.json.encode(problem, order="deterministic"), digest_size=16).digest()
    if key not in memo:
        memory = Memory()
        plan = solve_fleet(problem, memory)
        others = {need.name: runner_up(problem, plan, need.name, memory) for need in problem.models}
        while len(memo) >= MEMO_LIMIT:
            del memo[next(iter(memo))]
        memo[key] = plan, others
    return memo[key]


def _allotted(each: Competitor, mix: Mix, plan: FleetPlan, other: RunnerUp | None) -> Reason:
    """A service's part of the plan, what it could run instead, and what would cure what it lacks."""
    against = []
    if other is not None:
        text = " + ".join(f"{n} {name.partition('|')[0]}" for name, n in sorted(other.counts.items()))
        against = [Alternative(choice=text or "nothing", cost=Quantity("more", other.regret_per_hour, "$/h"))]
    short = next((s for s in plan.shortages if s.model == each.service.name and s.cure), None)
    remedy = None
    if short is not None:
        pool = max(sorted(short.cure), key=lambda name: plan.prices.get(name, 0.0))
        saves = plan.prices.get(pool, 0.0)
        remedy = Remedy(
            "AddCapacity", pool, (quantity("need", short.cure[pool], "GPU"), quantity("have", saves, "$/h"))
        )
    return Reason(
        code="MixAllotted", subject=each.service.ref, verdict=Verdict.CHOSEN, choice=mix.text,
        need=quantity("services", len(plan.solutions), "services"),
        have=quantity("cost", plan.objective_per_hour, "$/h"), limit=quantity("bound", plan.bound, "$/h"),
        facts=(quantity("shed", mix.unserved_per_second, "req/s"),), against=tuple(against), remedy=remedy,
    )  # fmt: skip

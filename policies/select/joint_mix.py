"""Select: one plan for all services that compete for the same GPUs, each one's part at the head of its menu.

While everybody's own optimum fits the pools, the menus are those of `cheapest_mix`. Where they do not fit together,
services of one priority that are connected by the pools they may use are planned jointly by column generation on what
higher priorities leave (research: gpu-selection §5.1): what is shed is what is worth least, and replicas that stand
are not exchanged for small savings. `commit` keeps each part free for its service. Menus hold the other mixes as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import groupby
from typing import Annotated, Any, NamedTuple

import msgspec

from cluster.plan import Context, Decision
from cluster.serving import Service
from cluster.snapshot import Snapshot
from placement.selection.fleet import FleetPlan, FleetProblem, ModelNeed
from placement.selection.fleet_explain import RunnerUp, runners_up
from placement.selection.many import Memory, solve_fleet
from policies.commit.allotted import gpus_of
from policies.commit.inventory import Inventory
from policies.draft import Draft
from policies.frames import frame_of
from policies.groups import Groups, in_scope
from policies.mixes import mix_of, problem_of, solved
from policies.options import options_of
from policies.select.cheapest_mix import CheapestMix, CheapestMixConfig, Lead, planned_rate
from policies.select.competing import (
    Competitor,
    Gpus,
    connected,
    free_of,
    most_units,
    short_pools,
    take,
    young,
)
from policies.select.telling import allotted, scarce
from policies.select.watts import Watts, budgets, scarce_watts
from policies.shapes import declared

MEMO_LIMIT = 64
"""Joint plans kept in scratch; the oldest go first."""

Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class JointMixConfig(CheapestMixConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy, beside those of `cheapest_mix`.

    `fleet_work_units`: most programmes solved for one joint plan, about half a millisecond each. `fleet_gap`: a plan is
    good enough when it is proven to cost no more than this share above the best. `keep_share`: what runs stays as it is
    while it costs at most this share more than the best plan found, what it leaves unserved at its price. `start_share`: a replica
    more is charged this share of its hourly price for starting. `hold_seconds`: a replica that starts, or serves for no
    longer than this, is not given up while all such find room.
    """

    fleet_work_units: Annotated[int, msgspec.Meta(ge=1)] = 600
    fleet_gap: Ratio = 0.005
    keep_share: Ratio = 0.10
    start_share: Ratio = 0.5
    hold_seconds: Annotated[float, msgspec.Meta(ge=0.0)] = 300.0


class Learnt(msgspec.Struct, frozen=True, kw_only=True):
    """A joint plan's digest, the prices of pools it was begun at, and those it ended with, dollars per GPU-hour."""

    digest: str
    began: dict[str, float] = {}
    ended: dict[str, float] = {}


class JointMixState(msgspec.Struct, frozen=True, kw_only=True):
    """Prices that the last joint plans found, by priority and first pool: the next ones begin there.

    They are state and not a memo, since where a plan begins may decide which of two equally good ones is found.
    """

    schema: int = 1
    learnt: dict[str, Learnt] = {}


class Planned(NamedTuple):
    """A joint plan, and what each service could run instead."""

    plan: FleetPlan
    others: dict[str, RunnerUp | None]


class Wanted(NamedTuple):
    """What a joint plan may use: free GPUs by pool, watts, and the watts by domain that everybody's own optimum draws."""

    free: Gpus
    watts: Watts
    drawn: dict[str, float]


class JointMix:
    """`Policy[Snapshot, JointMixState]`."""

    def __init__(self, config: JointMixConfig | None = None) -> None:
        self._config = config or JointMixConfig()
        self._menus = CheapestMix(self._config)

    def initial(self) -> JointMixState:
        """Nothing is known yet."""
        return JointMixState()

    def decide(self, view: Snapshot, state: JointMixState, ctx: Context) -> Decision[JointMixState]:
        """Menus of every service of the scope, with joint mixes at the head where services compete."""
        groups, draft = Groups(view), Draft()
        inventory = Inventory(groups, ctx.now_seconds)
        taken: Gpus = {}
        joint: dict[str, Lead] = {}
        learnt: dict[str, Learnt] = {}
        for priority, level in groupby(in_scope(view, ctx), key=lambda service: service.priority):
            competitors = [
                found
                for each in level
                if (found := self._competitor(groups, inventory, each, ctx)) is not None
            ]
            free = free_of(inventory, priority, taken)
            watts = budgets(view, free)
            for group in connected(
                competitors, {pool: domain for pool, (domain, _) in watts.of_pool.items()}
            ):
                given = {each.name: self._alone(each, ctx) for each in group}
                bound = watts.short(given.values())
                if bound or short_pools(given.values(), free):
                    if len(group) == 1 and not bound:
                        given = {group[0].name: self._alone(group[0], ctx, free)}
                    elif draft.units_used < ctx.units:
                        key = f"{priority}/{min(group[0].pools)}"
                        wanted = Wanted(free, watts, watts.wanted(given.values()))
                        leads, learnt[key] = self._plan(
                            view, group, wanted, state.learnt.get(key), ctx, draft
                        )
                        joint.update(leads)
                        given = {each.name: gpus_of(leads[each.name].mix, each.service) for each in group}
                take(group, given, inventory, taken)
        return Decision(self._menus.menus(groups, ctx, draft, joint), JointMixState(learnt=learnt))

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
        most = most_units(inventory, service.priority, frame)
        options = options_of(groups, service, self._config.headroom, self._config.work_units)
        problem = problem_of(frame, shares, rate, None, most, options)
        standing = {f"{p.variant}|{p.pool}": p.units for p in capacity.mix.parts} if capacity else {}
        begun = young(groups, service, ctx.now_seconds - self._config.hold_seconds)
        variants = tuple(
            msgspec.structs.replace(
                option,
                min_units=min(begun.get(option.name, 0), most[option.name]),
                standing_units=standing.get(option.name, 0),
                startup_dollars=self._config.start_share * option.dollars_per_hour,
            )
            for option in problem.variants
        )
        problem = msgspec.structs.replace(problem, variants=variants, inventory={})
        need = ModelNeed(name=service.name, problem=problem, priority=service.priority)
        return Competitor(service, frame, shares, rate, need, options)

    def _alone(self, each: Competitor, ctx: Context, free: Mapping[str, int] | None = None) -> Gpus:
        """GPUs per pool that a service would take if it were alone; None: if there were plenty."""
        problem = problem_of(each.frame, each.shares, each.rate, free, None, each.options)
        counts = solved(problem, ctx.scratch).best.counts
        found: Gpus = {}
        for column in each.frame.columns:
            gpus = counts.get(column.name, 0) * column.profile.variant.gpus
            found[column.pool] = found.get(column.pool, 0) + gpus
        return found

    def _problem(self, group: list[Competitor], wanted: Wanted) -> FleetProblem:
        """The joint problem of services that compete."""
        pools = sorted({pool for each in group for pool in each.pools})
        domains = {wanted.watts.of_pool[pool][0] for pool in pools if pool in wanted.watts.of_pool}
        return FleetProblem(
            models=tuple(wanted.watts.bound(each.need) for each in group),
            inventory={pool: wanted.free.get(pool, 0) for pool in pools},
            budget_watts={domain: wanted.watts.left[domain] for domain in sorted(domains)},
            work_units=self._config.fleet_work_units,
            relative_gap=self._config.fleet_gap,
            keep_share=self._config.keep_share,
        )

    def _plan(
        self,
        view: Snapshot,
        group: list[Competitor],
        wanted: Wanted,
        before: Learnt | None,
        ctx: Context,
        draft: Draft,
    ) -> tuple[dict[str, Lead], Learnt]:
        """The joint plan of services that compete, told service by service, and what is to be remembered of it."""
        problem = self._problem(group, wanted)
        encoded = msgspec.json.encode(problem, order="deterministic")
        digest = hashlib.blake2b(encoded, digest_size=16).hexdigest()
        known = before or Learnt(digest="")
        began = known.began if known.digest == digest else known.ended
        plan, others = _planned(problem, began, f"{digest}{sorted(began.items())}", ctx.scratch)
        draft.units_used += plan.units_used
        saves = {pool: round(price, 2) for pool, price in plan.prices.items() if price >= 0.005}
        closed = tuple(pool for pool in problem.inventory if pool in wanted.watts.of_pool)
        for reason in (
            *scarce(group, saves, wanted.free),
            *scarce_watts(view, wanted.watts, wanted.drawn, plan),
        ):
            draft.because(reason)
        leads: dict[str, Lead] = {}
        for each in group:
            mix = mix_of(each.frame, each.shares, each.rate, plan.solutions[each.name], each.options)
            leads[each.name] = Lead(mix, saves, closed)
            draft.because(allotted(each, mix, plan, others[each.name]))
        return leads, Learnt(digest=digest, began=began, ended=dict(plan.prices))


def _planned(problem: FleetProblem, began: dict[str, float], key: str, scratch: dict[str, Any]) -> Planned:
    """The plan of a problem begun at some prices, from scratch when it was solved before.

    Only whole answers are remembered: a solver that is warm may break a tie otherwise than a cold one.
    """
    memo: dict[str, Planned] = scratch.setdefault("fleets", {})
    if key not in memo:
        memory = Memory(began)
        plan = solve_fleet(problem, memory)
        others = runners_up(problem, plan, memory)
        while len(memo) >= MEMO_LIMIT:
            del memo[next(iter(memo))]
        memo[key] = Planned(plan, others)
    return memo[key]

"""The working of one commitment: everyone in order on one inventory, then shares and prices."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec

from cluster.admission import Fences
from cluster.plan import Context
from cluster.reasons import Reason
from cluster.restraint import left_of
from cluster.serving import Service, Variant
from cluster.snapshot import Snapshot
from cluster.targets import Capacity, Mix, Prices, Scored, Share
from cluster.training import Job
from placement.training.islands import Fit, choose_island, islands_of
from policies.commit import why
from policies.commit.allotted import Allotments, joint_prices
from policies.commit.commitment import Commitment, against_of, alternatives_of, remedy_of, waits_of
from policies.commit.inventory import HELD, Ints, Inventory, Wanted, counted_on_before
from policies.commit.settling import (
    Limits,
    Rules,
    Settled,
    counts_of,
    lacking_of,
    limits_of,
    moved_units,
    settle,
    users_mix,
    wanted_rate,
)
from policies.confining import confined, inside, narrowed
from policies.draft import Draft, quantity
from policies.frames import Floats, Frame, frame_of
from policies.groups import Groups, in_scope
from policies.options import options_of
from policies.refusals import FINAL_CODES, hopeless, no_inventory
from policies.shapes import declared
from policies.train.waiting import in_queue_order, newest_gangs, waits

USER = "user"
"""Owner of a capacity whose size the user set exactly."""

TRIES = 4
"""Solves for one service when whole nodes' devices do not add up for a mix of sizes."""

NonNegative = Annotated[float, msgspec.Meta(ge=0.0)]


class ByPriorityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy.

    `keep_share`: a standing mix that still carries the load is kept unless a new one saves more than this
    share of its cost. `hold_seconds`: nor is it replaced for price alone sooner than this after its choice.
    `headroom`: keep the pool-size headroom free. `work_units`: most routing programmes for one service.
    Whether a service is planned by size follows from its dispatch policy (`policies.options`).
    """

    keep_share: NonNegative = 0.10
    hold_seconds: NonNegative = 300.0
    headroom: bool = True
    work_units: Annotated[int, msgspec.Meta(ge=1)] = 4_000


class ByPriorityState(msgspec.Struct, frozen=True, kw_only=True):
    """When each service's mix was last changed (UTC seconds)."""

    schema: int = 1
    changed_seconds: dict[str, float] = {}


class CommitRun:
    """The working memory of one call. `commitments` has one entry per service that was solved."""

    def __init__(
        self, view: Snapshot, state: ByPriorityState, ctx: Context, config: ByPriorityConfig
    ) -> None:
        self.view, self.now, self.units, self.scratch = view, ctx.now_seconds, ctx.units, ctx.scratch
        self.scope = in_scope(view, ctx)
        self.draft, self.groups = Draft(), Groups(view)
        self.inventory = Inventory(self.groups, ctx.now_seconds)
        self.allotments = Allotments(view, self.scope, self.inventory)
        self.fences = Fences(view.nodes)
        self.config = config
        self.changed = {n: t for n, t in state.changed_seconds.items() if n in view.services}
        self.commitments: list[Commitment] = []
        self.serving: dict[str, float] = {}
        self.objective, self.bound, self.complete = 0.0, 0.0, True
        self.moves_left = left_of(view.moves)

    def state(self) -> ByPriorityState:
        """What is remembered."""
        return ByPriorityState(changed_seconds=dict(sorted(self.changed.items())))

    # ---------------------------------------------------------------------------------------------- settling

    def settle_all(self) -> None:
        """Everyone in order: by priority, waiting jobs before services of the same, then by name."""
        gangs = newest_gangs(self.view)
        jobs = [
            job
            for job in in_queue_order(dict(self.view.jobs))
            if waits(self.view, job, gangs.get(job.name))
            and not (job.refused is not None and job.refused.waits(self.now))
        ]
        islands = islands_of(self.view.nodes) if jobs else []
        for service in self.scope:
            while jobs and jobs[0].priority >= service.priority:
                self._keep_for_job(jobs.pop(0), islands)
            self._settle(service)
        for job in jobs:
            self._keep_for_job(job, islands)

    def _keep_for_job(self, job: Job, islands: list[Any]) -> None:
        """A waiting job keeps its nodes: free ones if there are enough, else those of lower priorities too."""
        held = {
            slot.node
            for key in sorted(self.view.reservations)
            if self.view.reservations[key].owner.name == job.name
            for slot in self.view.reservations[key].slots
        }
        fence = self.fences.of(job)
        vacant = inside(self.inventory.by_node(self.inventory.vacant()), fence)
        found = choose_island(islands, vacant, job, self.view.accelerators, held)
        if not isinstance(found, Fit):
            free = inside(self.inventory.by_node(self.inventory.available(job.priority)), fence)
            found = choose_island(islands, free, job, self.view.accelerators, held)
        if isinstance(found, Fit):
            names = tuple(node.name for node in found.nodes)
            self.inventory.take_nodes(names, job.gpus_per_node, job.priority)
            for node in found.nodes:
                training = self.inventory.training
                training[node.pool] = training.get(node.pool, 0) + job.gpus_per_node

    def _settle(self, service: Service) -> None:
        capacity = self.view.capacity(service.name)
        if capacity is None:
            return
        frame = frame_of(self.groups, service, self.scratch)
        shares = frame.shares(capacity.shape or declared(service))
        limits = self._limits(service, frame)
        wanted = wanted_rate(frame, shares, capacity)
        if capacity.owner == USER:
            mix = users_mix(frame, shares, capacity.wanted_units, limits)
            if capacity.wanted_units and self._opens(frame, mix):
                limits = self._limits(service, frame)
                mix = users_mix(frame, shares, capacity.wanted_units, limits)
            self._size_as_asked(service, capacity, mix, limits)
            self.inventory.market = False
        elif (refused := self._refused(service, frame, wanted)) is not None:
            # What serves goes on as well as it can: a promise that cannot be kept is no reason to stop it.
            self.draft.because(refused)
            self._stand(service, capacity, capacity.mix)
        elif wanted <= 0.0:
            self.draft.because(why.nothing(service, self._in_use(service)))
            self._stand(service, capacity, Mix())
        elif not frame.profiles and capacity.mix.parts and not _impossible(frame):
            # No belief about any variant: an estimator is late. What stands, stands (SEAMS §1.4).
            self.draft.miss(f"capacity beliefs of {service.name}")
            self._stand(service, capacity, capacity.mix)
        elif self.draft.units_used >= self.units:
            self.complete = False
            self._stand(service, capacity, capacity.mix)
        else:
            self._solve(service, capacity, frame, shares, limits, wanted)

    def _refused(self, service: Service, frame: Frame, wanted: float) -> Reason | None:
        """Why nothing can serve the service at all; None while something could, or nothing is wanted."""
        total = self.inventory.gpus
        if not frame.columns:
            reason = hopeless(self.view, service, frame, total) if _impossible(frame) else None
            asked = wanted > 0.0 or service.floor_units > 0
            return reason if reason is not None and (asked or reason.code in FINAL_CODES) else None
        there = any(len(self.inventory.pool_rows.get(column.pool, ())) for column in frame.columns)
        return None if there or wanted <= 0.0 else no_inventory(self.view, service, frame, total)

    def _size_as_asked(self, service: Service, capacity: Capacity, mix: Mix, limits: Limits) -> None:
        """The user's exact size, as far as there are GPUs for it."""
        asked = mix.requests_per_second + mix.unserved_per_second
        if capacity.wanted_units == 0:
            self.draft.because(why.nothing(service, self._in_use(service)))
        elif mix.unserved_per_second > 0.0 or not mix.parts:
            self.draft.because(why.short(service, mix, asked, limits.gpus, None))
            self._tell_confined(service)
        else:
            self.draft.because(why.chosen(service, mix, asked, limits.gpus, (), None))
        self._stand(service, capacity, mix)

    def _charged(self, service: Service, counts: dict[str, Wanted]) -> dict[str, Wanted]:
        """What a mix takes of the inventory: all of it, but no more than there is already while its pods are refused.

        What is refused stays wanted; others may have the devices meanwhile.
        """
        if service.refused is None or not service.refused.waits(self.now):
            return counts
        live = self.inventory.tenants(service.name)
        return {name: (min(units, len(live.get(name, ()))), size) for name, (units, size) in counts.items()}

    def _in_use(self, service: Service) -> int:
        return sum(len(tenants) for tenants in self.inventory.tenants(service.name).values())

    def _tell_confined(self, service: Service) -> None:
        """What keeps the pods of a service that lacks capacity off nodes that are open to others."""
        fence = self.fences.of(service)
        free = self.inventory.by_node(self.inventory.available(service.priority, service.name))
        products = [variant.accelerator for variant in service.variants]
        seen = narrowed(free, fence, products, self.view.nodes)
        if fence is not None and seen is not None:
            gpus = min((variant.gpu_share for variant in service.variants), default=1)
            self.draft.because(confined(service.ref, fence, seen, quantity("gpus", gpus, "GPU")))

    def _reach(self, service: Service) -> Ints | None:
        """Devices of each node that the service may take new ones of; None: as many as are free."""
        gpus = max((variant.gpus for variant in service.variants), default=1)
        return self.inventory.reach(self.fences.of(service), gpus)

    def _rules(self, service: Service) -> Rules:
        config = self.config
        options = options_of(self.groups, service, config.headroom, config.work_units)
        return Rules(config.keep_share, config.hold_seconds, options)

    def _limits(self, service: Service, frame: Frame) -> Limits:
        rows = self.inventory.available(service.priority, service.name, self._reach(service))
        free = {pool: rows[index] for pool, index in self.inventory.pool_rows.items()}
        room = self.inventory.rooms(service.name, frame.columns, self._reach(service))
        found = limits_of(frame, free, min(service.moves_left, self.moves_left), room)
        return self.allotments.within(service, frame, found)

    def _solve(
        self,
        service: Service,
        capacity: Capacity,
        frame: Frame,
        shares: Floats,
        limits: Limits,
        wanted: float,
    ) -> None:
        """Solve on what exists; where that leaves something unserved, on what may be bought as well."""
        before = self.inventory.mark(service.name, service.priority)
        settled, limits = self._fit(service, capacity, frame, shares, limits, wanted)
        if self._opens(frame, settled.mix):
            self.inventory.undo(before)
            wider = self._limits(service, frame)
            settled, limits = self._fit(service, capacity, frame, shares, wider, wanted)
            self.inventory.market = False
        rules = self._rules(service)
        made = Commitment(service, frame, shares, limits, settled, rules)
        self.commitments.append(made)
        self.allotments.made(service, frame, settled)
        self.objective += settled.objective
        self.bound += settled.found.answer.best.bound
        self.complete = self.complete and settled.found.answer.best.optimal
        against, remedy = against_of(made, self.scratch), remedy_of(made, self.scratch)
        least = rules.keep_share * settled.objective
        saving = settled.objective - settled.found.answer.best.objective_per_hour
        if settled.kept and saving > least:
            self.draft.because(why.held(service, settled.mix, wanted, rules.hold_seconds, against))
        elif settled.kept:
            self.draft.because(why.kept(service, settled.mix, wanted, least, against))
        else:
            self.draft.because(why.chosen(service, settled.mix, wanted, limits.gpus, against, remedy))
        if settled.wish is not None:
            self.draft.because(waits_of(made, capacity))
        if settled.mix.unserved_per_second > 1e-9 * wanted:
            self.draft.because(why.short(service, settled.mix, wanted, limits.gpus, remedy))
            for reason in why.classes_shed(service, frame, shares, settled):
                self.draft.because(reason)
            self._tell_confined(service)
        if settled.exposed > 1e-6:
            self.draft.because(why.exposed(service, settled))
        self._finish(service, capacity, settled.mix, alternatives_of(made))

    def _opens(self, frame: Frame, mix: Mix) -> bool:
        """Open the market for a service that goes short on what exists, where any of its pools sells nodes.

        What exists is paid for already: nothing is bought while it carries the load, whatever it is.
        """
        short = mix.unserved_per_second > 1e-9 or not mix.parts
        self.inventory.market = short and self.inventory.sells({column.pool for column in frame.columns})
        return self.inventory.market

    def _fit(
        self,
        service: Service,
        capacity: Capacity,
        frame: Frame,
        shares: Floats,
        limits: Limits,
        wanted: float,
    ) -> tuple[Settled, Limits]:
        """Solve, and solve again with fewer units where whole nodes' devices do not add up."""
        since = self.now - self.changed.get(service.name, -1e18)
        sizes, rules = {c.name: c.profile.variant for c in frame.columns}, self._rules(service)
        tries = 0
        while True:
            settled = settle(frame, shares, wanted, capacity.mix, since, limits, rules, self.scratch)
            self.draft.units_used += settled.found.units_used
            counts = {name: (units, sizes[name]) for name, units in settled.counts.items()}
            charged = self._charged(service, counts)
            failed = self.inventory.settle(service.name, service.priority, charged, self._reach(service))
            tries += 1
            if not failed or tries == TRIES:
                return settled, limits
            fewer = {name: settled.counts[name] - count for name, count in failed.items()}
            limits = limits._replace(most_units={**limits.most_units, **fewer})

    def _stand(self, service: Service, standing: Capacity, mix: Mix) -> None:
        """A mix that was not solved for: take its devices (as far as they are there) and put it in force."""
        sizes = {variant.key: variant for variant in service.variants}
        plain = Variant(accelerator="")
        counts = {f"{p.variant}|{p.pool}": (p.units, sizes.get(p.variant, plain)) for p in mix.parts}
        charged = self._charged(service, counts)
        self.inventory.settle(service.name, service.priority, charged, self._reach(service))
        self._finish(service, standing, mix, standing.alternatives if mix.parts else ())

    def _finish(
        self, service: Service, standing: Capacity, mix: Mix, alternatives: tuple[Scored, ...]
    ) -> None:
        """Put the final capacity in force, if it differs from what stands."""
        gpus = {variant.key: variant.gpu_share for variant in service.variants}
        for part in mix.parts:
            taken = part.units * gpus.get(part.variant, 1.0)
            self.serving[part.pool] = self.serving.get(part.pool, 0) + taken
        exchanged = standing.exchanged
        if counts_of(mix) != counts_of(standing.mix):
            self.changed[service.name] = self.now
            before, after = counts_of(standing.mix) or self._live_counts(service), counts_of(mix)
            exchanged = moved_units(before, after) > 0
            self.moves_left = max(0, self.moves_left - moved_units(before, after))
        owner = USER if standing.owner == USER else "commit"
        final = msgspec.structs.replace(
            standing, owner=owner, mix=mix, alternatives=alternatives, exchanged=exchanged, final=True
        )
        if final != standing:
            self.draft.aim(msgspec.structs.replace(final, decided_seconds=self.now))

    def _live_counts(self, service: Service) -> dict[str, int]:
        """What runs, by column: the mix that stands when nobody remembers one."""
        found: dict[str, int] = {}
        for replica in self.groups.replicas.get(service.name, ()):
            if replica.phase in HELD:
                column = f"{replica.variant.key}|{replica.pool}"
                found[column] = found.get(column, 0) + 1
        return found

    # ----------------------------------------------------------------------------------------- shares, prices

    def share(self) -> None:
        """How each pool is split, where that changed."""
        bought = counted_on_before(self.view)
        for pool in sorted({*self.serving, *self.inventory.training, *bought}):
            split = Share(
                owner="commit",
                decided_seconds=self.now,
                pool=pool,
                serving_gpus=math.ceil(self.serving.get(pool, 0) - 1e-9),
                training_gpus=self.inventory.training.get(pool, 0),
                nodes_to_buy=self.inventory.counted_on(pool),
            )
            standing = self.view.targets.get(f"Share/{pool}")
            if not isinstance(standing, Share) or _without_time(standing) != _without_time(split):
                self.draft.aim(split)

    def price(self) -> None:
        """What one more GPU of a pool would save the service that lacks it most; pools with room cost nothing."""
        prices = dict.fromkeys(sorted(self.inventory.pool_rows), 0.0)
        for made in self.commitments:
            short = lacking_of(made.frame, made.settled, made.limits)
            if short is not None and short[0] in prices:
                pool, gpus, saves = short
                prices[pool] = max(prices[pool], round(saves / gpus, 6))
        for pool, dollars in joint_prices(self.view, self.scope).items():
            prices[pool] = max(prices.get(pool, 0.0), dollars)
        for pool, dollars in prices.items():
            target = Prices(owner="commit", decided_seconds=self.now, pool=pool, dollars_per_gpu_hour=dollars)
            standing = self.view.targets.get(f"Prices/{pool}")
            if not isinstance(standing, Prices) or standing.dollars_per_gpu_hour != dollars:
                self.draft.aim(target)


def _impossible(frame: Frame) -> bool:
    """Whether some variant is out for a reason that more knowledge would not change."""
    return any(refusal.code != "ProfileHole" for refusal in frame.excluded)


def _without_time(share: Share) -> tuple[str, int, int, int]:
    return share.pool, share.serving_gpus, share.training_gpus, share.nodes_to_buy

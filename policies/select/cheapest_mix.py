"""Select: the cheapest mixes for a service's planned load on the pools' whole inventory.

Fractional-routing MILP with interpolated load and pool-size headroom (research: gpu-selection §5.1), solved
exactly; the menu also holds the runner-up and each variant alone, the mixes people compare with. Variants that
cannot serve are told with the numbers that exclude them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec

from cluster.hardware import Offer
from cluster.plan import Context, Decision, Plan
from cluster.serving import Service, Variant
from cluster.snapshot import Snapshot
from cluster.targets import Menu, Mix
from policies.draft import Draft
from policies.frames import Excluded, Floats, Frame, frame_of
from policies.groups import Groups, in_scope
from policies.mixes import cheapest, mix_of, single_mix, singles
from policies.options import MixOptions, options_of
from policies.refusals import excluded, hopeless
from policies.shapes import declared

MENU_LIMIT = 50
"""Most mixes of a menu (SEAMS §2)."""


class CheapestMixConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy.

    `headroom`: keep the pool-size headroom rho(n) = 1 - 2 / sqrt(n B) free. `work_units`: most routing
    programmes solved for one service; the incumbent is kept when they are spent. Whether it is planned by size follows from the
    service's dispatch policy (`policies.options`).
    """

    headroom: bool = True
    work_units: Annotated[int, msgspec.Meta(ge=1)] = 4_000


class CheapestMixState(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is learned."""

    schema: int = 1


class Lead(NamedTuple):
    """A service's part of a joint plan, what one more GPU of each pool would save that plan ($/h), and pools of which
    nothing beyond the part may be taken.
    """

    mix: Mix
    prices: Mapping[str, float]
    closed: tuple[str, ...] = ()


class CheapestMix:
    """`Policy[Snapshot, CheapestMixState]`: a `Menu` per service, where it changed."""

    def __init__(self, config: CheapestMixConfig | None = None) -> None:
        self._config = config or CheapestMixConfig()

    def initial(self) -> CheapestMixState:
        """The one state there is."""
        return CheapestMixState()

    def decide(self, view: Snapshot, state: CheapestMixState, ctx: Context) -> Decision[CheapestMixState]:
        """Menus and refusals for every service of the scope."""
        return Decision(self.menus(Groups(view), ctx, Draft(), {}), state)

    def menus(self, groups: Groups, ctx: Context, draft: Draft, joint: Mapping[str, Lead]) -> Plan:
        """The same, with mixes of a ``joint`` plan that lead the menus of some services."""
        view = groups.view
        sizes = _node_sizes(view)
        total = sum(size * count for counts in sizes.values() for size, count in counts.items())
        complete = True
        for service in in_scope(view, ctx):
            frame = frame_of(groups, service, ctx.scratch)
            for refusal in frame.excluded:
                draft.because(excluded(service, refusal, total))
            reason = hopeless(view, service, frame, total)
            if reason is not None:
                draft.because(reason)
            if draft.units_used >= ctx.units:
                complete = False
                continue
            options = options_of(groups, service, self._config.headroom, self._config.work_units)
            mixes = self._menu(view, service, frame, sizes, options, ctx, draft) if frame.columns else ()
            lead = joint.get(service.name)
            if lead is not None:
                mixes = (lead.mix, *(mix for mix in mixes if mix.text != lead.mix.text))[:MENU_LIMIT]
            menu = Menu(
                owner="select",
                decided_seconds=ctx.now_seconds,
                service=service.name,
                mixes=mixes,
                joint=lead is not None,
                prices=dict(lead.prices) if lead is not None else {},
                closed=lead.closed if lead is not None else (),
            )
            standing = view.menu(service.name)
            if standing is None or msgspec.structs.replace(standing, decided_seconds=ctx.now_seconds) != menu:
                draft.aim(menu)
        return draft.plan(optimal=complete)

    def _menu(
        self,
        view: Snapshot,
        service: Service,
        frame: Frame,
        sizes: dict[str, dict[int, int]],
        options: MixOptions,
        ctx: Context,
        draft: Draft,
    ) -> tuple[Mix, ...]:
        """The cheapest mix, the runner-up and the single-variant plans, cheapest first, all different."""
        capacity = view.capacity(service.name)
        shares = frame.shares((capacity.shape if capacity else None) or declared(service))
        rate = planned_rate(view, service, frame, shares)
        free = {pool: frame.quantum * sum(s * n for s, n in counts.items()) for pool, counts in sizes.items()}
        most = {
            column.name: _units(sizes.get(column.pool, {}), column.profile.variant)
            for column in frame.columns
        }
        for column in frame.columns:
            if not most[column.name]:
                lacking = _no_inventory(column.name, column.profile.variant.gpu_share)
                draft.because(excluded(service, lacking, sum(free.values()) // frame.quantum))
        mixes = self._mixes(frame, shares, rate, free, most, options, ctx, draft)
        mixes.sort(key=lambda m: (m.unserved_per_second > 0.0, m.dollars_per_hour, m.text))
        return tuple(mixes[:MENU_LIMIT])

    def _mixes(
        self,
        frame: Frame,
        shares: Floats,
        rate: float,
        free: dict[str, int],
        most: dict[str, int],
        options: MixOptions,
        ctx: Context,
        draft: Draft,
    ) -> list[Mix]:
        found = cheapest(frame, shares, rate, free, most, options, ctx.scratch)
        draft.units_used += found.units_used
        ranked = [s for s in (found.answer.best, found.answer.second) if s.feasible and s.counts]
        counts = [solution.counts for solution in ranked]
        return [mix_of(frame, shares, rate, solution, options) for solution in ranked] + [
            single_mix(frame, plan, rate)
            for plan in singles(found.roomy, ctx.scratch)
            if plan.units <= most.get(plan.variant, 0) and {plan.variant: plan.units} not in counts
        ]


def _no_inventory(column: str, gpus: float) -> Excluded:
    return Excluded(column, "NoInventory", gpus, 0, "GPU")


def planned_rate(view: Snapshot, service: Service, frame: Frame, shares: Floats) -> float:
    """Requests/s to plan for: what stands, else what the user expects; one unit's worth for a service at zero."""
    reference = frame.reference
    unit = (frame.carried_by(reference, 1, shares) if reference is not None else 0.0) or LEAST_RATE
    capacity = view.capacity(service.name)
    if capacity is None:
        return service.expected_requests_per_second or unit
    units = max(capacity.wanted_units, 0)
    floor = frame.carried_by(reference, units, shares) if reference is not None and units else 0.0
    return max(capacity.wanted_per_second, floor * FLOOR_SLACK) or unit


LEAST_RATE = 1e-3
"""Requests/s of a service nothing is known of."""

FLOOR_SLACK = 1.0 - 1e-9
"""A floor of n units asks a hair less than n units carry, so that rounding never buys one more."""


def _node_sizes(view: Snapshot) -> dict[str, dict[int, int]]:
    """Per pool: how many nodes have how many healthy devices, whoever uses them; lost nodes do not count."""
    found: dict[str, dict[int, int]] = {}
    for node in view.nodes.values():
        if node.offer is not Offer.LOST:
            healthy = sum(1 for device in node.devices if device.healthy)
            counts = found.setdefault(node.pool, {})
            counts[healthy] = counts.get(healthy, 0) + 1
    return found


def _units(counts: dict[int, int], variant: Variant) -> int:
    """Replicas on one node each that nodes of these sizes hold: several to a device where they share it."""
    each = 1_000 // variant.milli
    return sum(count * (size // variant.gpus) * each for size, count in counts.items())

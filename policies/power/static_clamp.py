"""Static clamp: the caps of all nodes under a breaker never add up to more than it may plan for (the baseline).

NVIDIA Dynamo's power planner in lease form (research: power §3): no oversubscription, no forecast. Every node that
can be reached gets one grant a tick, for five seconds, renewed each tick. Headroom above the safe caps is shared in
proportion to demand, bounded by what the product can draw, down the tree of breakers, in whole watts. What a node
may still believe it has is charged until it has acknowledged less: a tick lowers first, a later one raises.
Nodes of one training group get equal caps, since the slowest sets the pace. Unknown numbers are charged at the worst.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.actions import GrantPower
from cluster.base import Ref
from cluster.plan import Context, Decision
from cluster.reasons import Reason, Verdict
from cluster.views import PowerView
from policies.draft import Draft, quantity
from policies.power.tree import Floats, Ints, Tree

Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class StaticClampConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy.

    `ttl_seconds`: life of a grant. `stale_seconds`: a node silent for longer gets no grant and counts for the
    larger of its lease and its safe watts.
    """

    ttl_seconds: Positive = 5.0
    stale_seconds: Positive = 3.0


class StaticClampState(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is learned."""

    schema: int = 1


class Rows(NamedTuple):
    """Per node, in whole watts: safe cap, most it can draw, what it is charged with now, and what it asks for.

    `reachable` is False for rows that are too old or know neither safe nor greatest watts.
    """

    safe: Ints
    most: Ints
    charged: Ints
    demand: Floats
    reachable: NDArray[np.bool_]


class StaticClamp:
    """`Policy[PowerView, StaticClampState]`; 5,000 nodes in about 20 ms."""

    def __init__(self, config: StaticClampConfig | None = None) -> None:
        self._config = config or StaticClampConfig()

    def initial(self) -> StaticClampState:
        """The one state there is."""
        return StaticClampState()

    def decide(self, view: PowerView, state: StaticClampState, ctx: Context) -> Decision[StaticClampState]:
        """One grant per reachable node, within every breaker's limit."""
        draft = Draft()
        if len(view.domain_table) and len(view.node_table):
            rows = _rows(view, ctx.now_seconds, self._config.stale_seconds)
            tree = Tree(view.domain_table.parent, view.node_domain)
            limits = _limits(view)
            watts = _grants(view, rows, tree, limits)
            self._tell(view, rows, tree, limits, watts, draft)
        return Decision(draft.plan(), state)

    def _tell(self, view: PowerView, rows: Rows, tree: Tree, limits: Ints, watts: Ints, draft: Draft) -> None:
        """Grants with one reason per domain, and a warning where even safe caps are too much."""
        safe_sums, demand_sums = tree.sums(rows.safe), tree.sums(np.ceil(rows.demand).astype(np.int64))
        for domain, name in enumerate(view.domain_table.keys):
            if safe_sums[domain] > limits[domain]:
                draft.because(_unsafe(view, name, int(safe_sums[domain]), int(limits[domain]), tree, domain))
        reasons: dict[int, int] = {}
        for row, node in enumerate(view.node_table.keys):
            if not rows.reachable[row]:
                draft.miss(f"power of {node}")
                continue
            domain = int(view.node_domain[row])
            if domain not in reasons:
                own = tree.nodes[domain]
                granted = int(watts[own].sum())
                wanted = int(np.ceil(rows.demand[own]).sum())
                reasons[domain] = draft.because(
                    _granted(view, domain, granted, wanted, int(limits[domain]), len(own))
                )
            draft.act(
                GrantPower(
                    node=node,
                    watts=int(watts[row]),
                    ttl_seconds=self._config.ttl_seconds,
                    reason=reasons[domain],
                )
            )
        draft.note(quantity("demand", float(demand_sums[tree.roots].sum()), "W"))


def _rows(view: PowerView, now: float, stale_seconds: float) -> Rows:
    """Numbers of every node, unknown ones at their worst."""
    table = view.node_table
    most = np.nan_to_num(table.max_watts, nan=0.0)
    known = np.isfinite(table.safe_watts)
    safe = np.ceil(np.where(known, table.safe_watts, most)).astype(np.int64)
    top = np.maximum(np.floor(most).astype(np.int64), safe)
    demand = np.where(np.isfinite(table.demand_watts), table.demand_watts, top)
    demand = np.clip(demand, safe, top).astype(np.float64)
    age = now - np.nan_to_num(table.observed_seconds, nan=-np.inf)
    # A lease of an earlier leader is known from its agent's report alone.
    running = (table.lease_expires_seconds > now) & np.isfinite(table.lease_watts)
    reported = np.minimum(np.where(running, table.lease_watts, 0.0), top)
    charged = np.maximum(safe, np.ceil(reported).astype(np.int64))
    for row, node in enumerate(table.keys):
        lease = view.leases.get(node)
        if lease is not None and lease.expires_seconds > now:
            charged[row] = max(int(charged[row]), int(lease.charged_watts))
    reachable = (age <= stale_seconds) & known & np.isfinite(table.max_watts)
    return Rows(safe, np.where(reachable, top, safe), charged, demand, reachable)


def _limits(view: PowerView) -> Ints:
    """Whole watts each domain may plan for: its limit, or a smaller budget."""
    limits = np.asarray(view.domain_table.limit_watts, dtype=np.int64).copy()
    for domain, name in enumerate(view.domain_table.keys):
        budget = view.budgets.get(name)
        if budget is not None:
            limits[domain] = min(int(limits[domain]), budget.watts)
    return limits


def _grants(view: PowerView, rows: Rows, tree: Tree, limits: Ints) -> Ints:
    """Watts to grant now: lower where too much is held, raise only into what is not charged to anybody.

    The aim is the fill from safe caps. Holders of more than their aim are lowered to it but stay charged with
    what they hold; the rest is raised towards the aim by filling the same tree from what is charged.
    """
    unreachable = ~rows.reachable
    held = np.where(unreachable, rows.charged, rows.safe)
    aim = tree.fill(held, np.maximum(rows.most, held), rows.demand, limits)
    aim = _equal(view, rows, aim)
    base = rows.charged
    top = np.where(rows.reachable, np.maximum(aim, base), base)
    raised = tree.fill(base, top, rows.demand, limits)
    watts = np.minimum(aim, raised)
    return np.maximum(_equal(view, rows, watts), rows.safe)


def _equal(view: PowerView, rows: Rows, watts: Ints) -> Ints:
    """Every node of a group at the group's least, groups that share a node together; never under safe watts."""
    if not view.groups:
        return watts
    at = view.node_table.index()
    groups = [
        np.array([at[node] for node in group if node in at and rows.reachable[at[node]]], dtype=np.int64)
        for group in view.groups
    ]
    levelled, before = watts.copy(), None
    while before is None or not np.array_equal(levelled, before):
        before = levelled.copy()
        for members in groups:
            if len(members) > 1:
                levelled[members] = int(levelled[members].min())
    return np.maximum(levelled, rows.safe)


def _granted(view: PowerView, domain: int, granted: int, wanted: int, limit: int, nodes: int) -> Reason:
    name = view.domain_table.keys[domain]
    clamped = granted < wanted
    return Reason(
        code="PowerClamped" if clamped else "PowerGranted",
        subject=_ref(view, name),
        verdict=Verdict.CAPPED if clamped else Verdict.CHOSEN,
        need=quantity("demand", wanted, "W"),
        have=quantity("granted", granted, "W"),
        limit=quantity("limit", limit, "W"),
        facts=(quantity("count_nodes", nodes, "nodes"),),
    )


def _unsafe(view: PowerView, name: str, safe: int, limit: int, tree: Tree, domain: int) -> Reason:
    members = len(tree.nodes[domain])
    return Reason(
        code="PowerUnsafe",
        subject=_ref(view, name),
        verdict=Verdict.BLOCKED,
        need=quantity("safe", safe, "W"),
        have=quantity("members", members, "nodes"),
        limit=quantity("limit", limit, "W"),
    )


def _ref(view: PowerView, name: str) -> Ref:
    domain = view.domains.get(name)
    return domain.ref if domain is not None else Ref("PowerDomain", name)

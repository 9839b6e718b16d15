"""Small views for the fast loops: borrowed, read-only, valid until `decide` returns.

The planner's view is `cluster.snapshot.Snapshot`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cluster.base import Noun
from cluster.beliefs import PowerBelief
from cluster.flight import InFlight
from cluster.power import Lease, PowerDomain
from cluster.size_plan import SizePlan
from cluster.snapshot import Stamp
from cluster.tables import CollectiveTable, Column, DomainTable, InstanceTable, NodeTable, SequenceTable
from cluster.targets import Budget
from cluster.training import Gang


class Request(Noun, kw_only=True, frozen=True):
    """The one request at hand. Bodies and token ids never enter the core.

    Its answer is expected to have `expected_output_tokens`, and may become `most_output_tokens` long (0: as long as expected).
    """

    id: str
    service: str
    request_class: str = "default"
    prompt_tokens: int
    expected_output_tokens: int = 0
    arrived_seconds: float
    deadline_seconds: float
    priority: int = 0
    most_output_tokens: int = 0

    @property
    def longest_tokens(self) -> int:
        """Tokens that it may come to, prompt and answer: a row needs room for them."""
        return self.prompt_tokens + (self.most_output_tokens or self.expected_output_tokens)


class DispatchView(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """One request and the rows it may go to. Optional per-request columns are None when unknown.

    `held` and `hold_limit` are counts of the service's hold queue; `wake_seconds` how long the nearest
    start takes (None = nothing is starting). `plan` is the service's plan by size (None: weights are all there is), `columns`
    the `variant|pool` of each row in the order of `instances` (empty: nobody said).
    """

    request: Request
    instances: InstanceTable
    held: int = 0
    hold_limit: int = 0
    wake_seconds: float | None = None
    prefix_hit_tokens: Column | None = None
    adapter_tier: Column | None = None
    plan: SizePlan | None = None
    columns: tuple[str, ...] = ()


class MigrationView(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Instances of one fingerprint, their sequences, bytes/s between them [n x n], moves in flight."""

    stamp: Stamp = Stamp()
    instances: InstanceTable
    sequences: SequenceTable
    bytes_per_second: Column
    moves: Mapping[str, InFlight] = {}


class PowerView(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Domains (parents before children), their nodes, leases in force, budgets and power beliefs.

    `node_domain` [nodes] is the row of each node's domain in `domain_table`. `groups` names the nodes
    that must hold equal caps (a TP or training group).
    """

    stamp: Stamp = Stamp()
    domains: Mapping[str, PowerDomain] = {}
    domain_table: DomainTable
    node_table: NodeTable
    node_domain: Column
    leases: Mapping[str, Lease] = {}
    budgets: Mapping[str, Budget] = {}
    groups: tuple[tuple[str, ...], ...] = ()
    clock_ladders: Mapping[str, tuple[int, ...]] = {}
    beliefs: Mapping[str, PowerBelief] = {}


class FaultView(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """A gang, its ranks' collectives, node health and recent isolations (node to UTC seconds)."""

    stamp: Stamp = Stamp()
    gang: Gang | None = None
    collectives: CollectiveTable
    health: Mapping[str, str] = {}
    isolated: Mapping[str, float] = {}

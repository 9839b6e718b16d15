"""Nodes under breakers, for tests of power."""

from __future__ import annotations

from typing import Any

from cluster.base import Ref
from cluster.power import Lease, PowerDomain
from cluster.snapshot import Snapshot
from cluster.tables import NodeTable
from tests.nouns.cases import NOW, cluster, node

NAN = float("nan")


def domain(name: str, *members: str, parent: str = "", rating: int = 1_000) -> PowerDomain:
    return PowerDomain(
        ref=Ref("PowerDomain", name), parent=parent, rating_watts=rating, margin=0.0, members=members
    )


def lease(of: str, watts: int, charged: int = 0, ends: float = NOW + 5, **more: Any) -> Lease:
    return Lease(
        node=of, watts=watts, charged_watts=charged or watts, issued_seconds=NOW, expires_seconds=ends, **more
    )


def powered(
    *domains: PowerDomain, nodes: str = "abc", leases: tuple[Lease, ...] = (), **columns: Any
) -> Snapshot:
    """Nodes of 300 W safe and 600 W at most under the domains given."""
    filled = {"safe_watts": [300.0] * len(nodes), "max_watts": [600.0] * len(nodes), **columns}
    return cluster(
        nodes={n: node(n) for n in nodes},
        domains={d.name: d for d in domains},
        node_table=NodeTable.build(tuple(nodes), filled),
        leases={each.node: each for each in leases},
    )

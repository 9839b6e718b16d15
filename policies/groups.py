"""Look-ups that every stage needs, built in one pass over a snapshot instead of a scan per service."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cluster.hardware import Pool
from cluster.plan import Context
from cluster.serving import LoadHistogram, Replica, Service
from cluster.snapshot import Snapshot


class Groups:
    """Loads and replicas by service, pools by product, row numbers of the tables.

    Lists are in key order, whatever the order of the snapshot's mappings.
    """

    __slots__ = ("instance_rows", "loads", "pools", "replicas", "signal_rows", "view")

    def __init__(self, view: Snapshot) -> None:
        self.view = view
        self.loads: dict[str, list[LoadHistogram]] = {}
        for key in sorted(view.loads):
            self.loads.setdefault(view.loads[key].service, []).append(view.loads[key])
        self.replicas: dict[str, list[Replica]] = {}
        for key in sorted(view.replicas):
            self.replicas.setdefault(view.replicas[key].service, []).append(view.replicas[key])
        self.pools: dict[str, list[Pool]] = {}
        for name in sorted(view.pools):
            self.pools.setdefault(view.pools[name].accelerator, []).append(view.pools[name])
        self.signal_rows: Mapping[str, int] = view.signal_table.index()
        self.instance_rows: Mapping[str, int] = view.instance_table.index()

    def signal(self, service: str, column: str) -> float:
        """A number of the service's `SignalTable` row; NaN when there is no row or no number."""
        row = self.signal_rows.get(service)
        return math.nan if row is None else float(getattr(self.view.signal_table, column)[row])

    def instance(self, replica: str, column: str) -> float:
        """A number of the replica's `InstanceTable` row; NaN when there is no row or no number."""
        row = self.instance_rows.get(replica)
        return math.nan if row is None else float(getattr(self.view.instance_table, column)[row])


def in_scope(view: Snapshot, ctx: Context) -> list[Service]:
    """The services this call may decide, by (priority descending, name); what is held is nobody's to decide."""
    names = view.services if not ctx.scope else [name for name in ctx.scope if name in view.services]
    found = (view.services[name] for name in names)
    return sorted((s for s in found if not s.held), key=lambda s: (-s.priority, s.name))


def held_services(view: Snapshot) -> list[Service]:
    """The services that are left as they are, by name: only their traffic is routed over what runs."""
    return [view.services[name] for name in sorted(view.services) if view.services[name].held]

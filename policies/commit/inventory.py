"""What each service may use: open nodes' devices less what others hold, by priority.

A service may count on devices of services of strictly lower priority (they give way), never on those of equal
or higher priority, of gangs, of reservations, of waiting jobs of at least its priority, or of other people's pods. Shares
of a device give way like whole ones: one by one to shares, and all that are on a device to whoever takes it whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.admission import Fence
from cluster.flight import InFlight
from cluster.hardware import Offer
from cluster.serving import Replica, ReplicaPhase, Variant
from cluster.snapshot import Snapshot
from cluster.targets import Share
from policies.commit.parts import Begun, Free, Holder, Parts, Room, Seeker, divides, is_part
from policies.frames import Column
from policies.groups import Groups

Ints = NDArray[np.int64]

UNBOUNDED = 2**31
"""Devices per row where nothing bounds them."""

HELD = (
    ReplicaPhase.PENDING,
    ReplicaPhase.STARTING,
    ReplicaPhase.READY,
    ReplicaPhase.SLEEPING,
    ReplicaPhase.ASLEEP,
    ReplicaPhase.WAKING,
)
"""Phases of a replica that keeps its devices; the others are on their way out."""


class Tenant(NamedTuple):
    """A live replica's devices: row of the node, GPUs, and the column it belongs to."""

    key: str
    row: int
    gpus: int
    column: str


Wanted = tuple[int, Variant]
"""Units of a column, and what one of them is."""


class Mark(NamedTuple):
    """A service's part of an inventory at one moment."""

    service: str
    priority: int
    level: Ints
    tenants: list[Tenant] | None
    begun: Begun


def on_the_market(view: Snapshot) -> list[tuple[str, int, int]]:
    """Pool, GPUs of a node, and how many nodes may be counted on beyond those that exist: ordered, or to be bought."""
    return [
        (name, pool.node_size, len(ordered(view, name)) + pool.buyable_nodes)
        for name, pool in sorted(view.pools.items())
        if pool.buyable_nodes is not None
    ]


def counted_on_before(view: Snapshot) -> set[str]:
    """Pools of which nodes are counted on by what stands."""
    shares = (target for target in view.targets.values() if isinstance(target, Share))
    return {share.pool for share in shares if share.nodes_to_buy}


def ordered(view: Snapshot, pool: str) -> list[InFlight]:
    """Nodes of a pool that were ordered and are not there yet, oldest first."""
    flights = [f for f in view.in_flight.values() if f.kind == "Provision" and f.subject.name == pool]
    return sorted(flights, key=lambda flight: (flight.issued_seconds, flight.id))


class Inventory:
    """Free devices per open node, with tenants kept by priority. Rows are open nodes in `order`."""

    def __init__(self, groups: Groups, now_seconds: float) -> None:
        view = groups.view
        nodes = sorted(
            (n for n in view.nodes.values() if n.offer is Offer.OPEN), key=lambda n: (n.order, n.name)
        )
        self._row = {node.name: row for row, node in enumerate(nodes)}
        self._real = len(nodes)
        self.market = False
        """Whether nodes count that could be bought, or were ordered and are not there yet."""
        ahead = [(pool, size, n) for pool, size, count in on_the_market(view) for n in range(count)]
        self.names = (*self._row, *(f"{pool} #{n}" for pool, _, n in ahead))
        sizes = [sum(1 for device in node.devices if device.healthy) for node in nodes]
        self.base: Ints = np.array([*sizes, *(size for _, size, _ in ahead)], dtype=np.int64)
        pools: dict[str, list[int]] = {}
        for row, pool in enumerate([*(node.pool for node in nodes), *(pool for pool, _, _ in ahead)]):
            pools.setdefault(pool, []).append(row)
        self.pool_rows: dict[str, Ints] = {pool: np.array(rows) for pool, rows in sorted(pools.items())}
        self.training: dict[str, int] = {}
        self._levels: dict[int, Ints] = {}
        self._tenants: dict[str, list[Tenant]] = {}
        self._lost: Ints = np.zeros(len(self.base), dtype=np.int64)
        """Devices that their node offers no more while somebody has them: what comes free first is nobody's."""
        self._priorities = {name: service.priority for name, service in view.services.items()}
        ours = self._take_tenants(groups)
        dividing = [pool for pool in self.pool_rows if divides(view, pool)]
        new = [row for pool in dividing for row in self.pool_rows[pool].tolist() if row >= self._real]
        self._parts = Parts(view, self._row, ours, new)
        self._take_claims(view, ours)
        self._take_reservations(view, now_seconds)

    def _take_tenants(self, groups: Groups) -> dict[str, Holder | None]:
        """Note what live replicas of known services hold; returns all launchers of those services, and whose they are
        (None: of nobody that stays).
        """
        view = groups.view
        ours: dict[str, Holder | None] = {}
        for service in sorted(groups.replicas):
            if service not in view.services or view.services[service].held:
                continue  # what they hold stays theirs, whoever is more important
            for replica in groups.replicas[service]:
                ours[replica.launcher] = None
                if replica.phase in HELD:
                    ours[replica.launcher] = Holder(replica.key, service, 0, self._priorities[service])
                    self._note(view, service, replica)
        return ours

    def _note(self, view: Snapshot, service: str, replica: Replica) -> None:
        launcher = view.launchers.get(replica.launcher)
        for slot in launcher.slots if launcher is not None else ():
            row = self._row.get(slot.node)
            if row is not None:
                column = f"{replica.variant.key}|{replica.pool}"
                whole = 0 if is_part(slot) else slot.gpus
                self._tenants.setdefault(service, []).append(Tenant(replica.key, row, whole, column))
                self._level(view.services[service].priority)[row] += whole

    def _take_claims(self, view: Snapshot, ours: Collection[str]) -> None:
        """Everything else that holds devices: gangs, other people's pods, replicas of deleted services."""
        for key in sorted(view.claims):
            claim = view.claims[key]
            row = self._row.get(claim.slot.node)
            if (
                row is None
                or claim.key in ours
                or claim.key.rpartition("/")[0] in ours
                or is_part(claim.slot)
            ):
                continue
            if claim.owner.kind == "Node":
                self._lost[row] += claim.slot.gpus
                continue
            self.base[row] -= claim.slot.gpus
            if claim.owner.kind in ("TrainingJob", "Gang"):
                pool = view.nodes[claim.slot.node].pool
                self.training[pool] = self.training.get(pool, 0) + claim.slot.gpus

    def _take_reservations(self, view: Snapshot, now_seconds: float) -> None:
        """What is kept for others. Waiting jobs' own reservations are left out: those jobs are asked anew."""
        for key in sorted(view.reservations):
            reservation = view.reservations[key]
            if reservation.owner.kind == "TrainingJob" and reservation.owner.name in view.jobs:
                continue
            if reservation.expires_seconds > now_seconds:
                for slot in reservation.slots:
                    row = self._row.get(slot.node)
                    if row is not None:
                        self.base[row] -= slot.gpus

    def _level(self, priority: int) -> Ints:
        if priority not in self._levels:
            self._levels[priority] = np.zeros(len(self.base), dtype=np.int64)
        return self._levels[priority]

    # ------------------------------------------------------------------------------------------------ asking

    def available(self, priority: int, service: str = "", reach: Ints | None = None) -> Ints:
        """Devices per row that an owner of `priority` may use; its own tenants' count as free to it.

        `reach` bounds the devices of each row; what its own tenants hold stays its own.
        """
        free = self.base - self._parts.firm(len(self.base), priority, service)
        for level, held in self._levels.items():
            if level >= priority:
                free -= held
        own = np.zeros_like(free)
        free -= np.minimum(self._lost, np.maximum(free, 0))  # nobody gives one up for it
        for tenant in self._tenants.get(service, ()):
            own[tenant.row] += tenant.gpus
        free += own
        if reach is not None:
            free = np.minimum(free, np.maximum(reach, own))
        return self._here(free)

    def contested(self, priority: int) -> Ints:
        """Devices per row that services of `priority` may share when they are planned together: what whole replicas of theirs
        have is theirs to give, but not a device that shares of that priority begun, whose services are planned apart.
        """
        firm = self._parts.firm(len(self.base), priority) - self._parts.firm(len(self.base), priority + 1)
        return np.maximum(self.available(priority + 1) - firm, 0)

    def _here(self, free: Ints) -> Ints:
        """Nothing below zero, and nothing of nodes that do not exist while the market is closed."""
        if not self.market:
            free[self._real :] = 0
        found: Ints = np.maximum(free, 0)
        return found

    def reach(self, fence: Fence | None, gpus: int) -> Ints | None:
        """Most devices per row that pods of `gpus` each may take inside a fence; None where there is none."""
        if fence is None:
            return None
        pods = [fence.pods_on(name) for name in self._row]
        # A node that is yet to come is made for the service, but no volume that is somewhere else reaches it.
        pods += [None if fence.who.confined_to is None else 0] * (len(self.names) - self._real)
        most = [UNBOUNDED if count is None else count * gpus for count in pods]
        return np.array(most, dtype=np.int64)

    def vacant(self) -> Ints:
        """Devices per row that nobody holds."""
        free = self.base - self._parts.devices(len(self.base))
        for held in self._levels.values():
            free -= held
        free -= self._lost
        return self._here(free)

    @property
    def gpus(self) -> int:
        """Devices that exist, less what others than services hold."""
        return int((self.base - self._parts.firm(len(self.base), None))[: self._real].sum())

    def sells(self, pools: Iterable[str]) -> bool:
        """Whether nodes of any of these pools could be bought, or are on their way."""
        return any((self.pool_rows[pool] >= self._real).any() for pool in pools if pool in self.pool_rows)

    def counted_on(self, pool: str) -> int:
        """Nodes of a pool beyond those that exist that somebody's mix counts on."""
        rows = self.pool_rows.get(pool, np.zeros(0, dtype=np.int64))
        ahead = rows[rows >= self._real]
        held = sum(
            (level[ahead] for level in self._levels.values()), self._parts.devices(len(self.base))[ahead]
        )
        return int((held > 0).sum())

    def tenants(self, service: str) -> dict[str, list[Tenant]]:
        """The service's live replicas by column, less the shares that gave way to others in this run."""
        found: dict[str, list[Tenant]] = {}
        for tenant in self._tenants.get(service, ()):
            if self._parts.has(tenant.key):
                found.setdefault(tenant.column, []).append(tenant)
        return found

    def by_node(self, rows: Ints) -> dict[str, int]:
        """Row values by node name, of nodes that exist."""
        return dict(zip(self._row, rows.tolist()[: self._real], strict=True))

    # ------------------------------------------------------------------------------------------------ taking

    def mark(self, service: str, priority: int) -> Mark:
        """What `settle` will change for this service, to be put back by `undo`."""
        return Mark(
            service, priority, self._level(priority).copy(), self._tenants.get(service), self._parts.begun()
        )

    def undo(self, mark: Mark) -> None:
        """Put back what was before."""
        self._level(mark.priority)[:] = mark.level
        self._parts.restore(mark.begun)
        if mark.tenants is not None:
            self._tenants[mark.service] = mark.tenants

    def take_nodes(self, nodes: tuple[str, ...], gpus: int, priority: int) -> None:
        """Keep `gpus` devices on each node for an owner of `priority` (a waiting job)."""
        for name in nodes:
            self._occupy(self._row[name], gpus, priority)

    def _occupy(self, row: int, gpus: int, priority: int) -> None:
        """Whole devices of a row go to an owner of `priority`: those that nobody has, then those of lower ones."""
        held = {p: int(level[row]) for p, level in self._levels.items()}
        # Below zero where higher ones took lower ones' place before: those are not there to be taken once more.
        vacant = int(self.base[row] - self._lost[row]) - self._parts.count(row) - sum(held.values())
        if gpus > vacant and row < self._real:
            lower = {p: count for p, count in held.items() if p < priority}
            self._parts.seize(row, gpus - vacant, priority, lower)
        self._level(priority)[row] += gpus

    def settle(
        self, service: str, priority: int, wanted: dict[str, Wanted], reach: Ints | None = None
    ) -> dict[str, int]:
        """Put a service's final counts in force: `wanted` maps a column to its units, and what one of them is.

        Live replicas stay as far as they are wanted; new ones go where nobody is, else where a lower
        priority is, best fit, largest first. When some find no place nothing changes, and how many that
        are is returned by column (whole nodes' devices may not add up for mixed sizes).
        """
        level = self._level(priority)
        before, begun = level.copy(), self._parts.begun()
        inside = None if reach is None else reach > 0
        live = self.tenants(service)
        for column, tenants in live.items():
            for tenant in tenants[wanted[column][0] if column in wanted else 0 :]:
                level[tenant.row] -= tenant.gpus
                self._parts.drop(tenant.key)
        failed: dict[str, int] = {}
        for column, (units, size) in sorted(
            wanted.items(), key=lambda item: (-item[1][1].gpu_share, item[0])
        ):
            missing, pool = units - len(live.get(column, ())), column.partition("|")[2]
            if size.shares:
                unplaced = self._place_parts(pool, Seeker(service, priority, size.milli), missing, inside)
            else:
                unplaced = self._place(pool, size.gpus, missing, priority, inside)
            if unplaced > 0:
                failed[column] = unplaced
        if failed:
            level[:] = before
            self._parts.restore(begun)
        else:
            self._tenants.pop(service, None)
        return failed

    def _place(
        self, pool: str, gpus: int, units: int, priority: int, inside: NDArray[np.bool_] | None
    ) -> int:
        """Take `units` pieces of `gpus` devices in a pool, on rows `inside`; how many found no node."""
        rows = self.pool_rows.get(pool)
        if rows is None:
            return units
        for lower in (False, True):
            free = (self.available(priority) if lower else self.vacant())[rows]
            if inside is not None:
                free = np.where(inside[rows], free, 0)
            while units > 0:
                fit = np.flatnonzero(free >= gpus)
                if not len(fit):
                    break
                best = int(fit[np.argmin(free[fit])])
                pieces = min(units, int(free[best]) // gpus)
                free[best] -= pieces * gpus
                self._occupy(int(rows[best]), pieces * gpus, priority)
                units -= pieces
        return units

    def _place_parts(self, pool: str, who: Seeker, units: int, inside: NDArray[np.bool_] | None) -> int:
        """Take `units` shares in a pool; how many found no place."""
        rows = self.pool_rows.get(pool, np.zeros(0, dtype=np.int64)).tolist()
        rows = [row for row in rows if inside is None or inside[row]]
        left = max(0, units)
        while left > 0:
            free = Free(self.vacant(), self.available(who.priority))
            if self._parts.take(rows, who, free) is None:
                break
            left -= 1
        return left

    def room(self, service: str, column: str, variant: Variant, reach: Ints | None = None) -> Room:
        """What there is for shares of a column: of begun devices what those leave that stay, and devices that are its own,
        nobody's, or of lower priorities.
        """
        rows = self.pool_rows.get(column.partition("|")[2], np.zeros(0, dtype=np.int64))
        own: dict[int, int] = {}
        for tenant in self.tenants(service).get(column, ()):
            own[tenant.row] = own.get(tenant.row, 0) + 1
        who = Seeker(service, self._priorities.get(service, 0), variant.milli)
        return self._parts.room(rows, who, self.available(who.priority, service), reach, own)

    def rooms(self, service: str, columns: Iterable[Column], reach: Ints | None = None) -> dict[str, Room]:
        """The same of those of the columns that have shares, by name."""
        return {
            column.name: self.room(service, column.name, column.profile.variant, reach)
            for column in columns
            if column.profile.variant.shares
        }

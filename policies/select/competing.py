"""Who competes with whom for which GPUs: services as the joint plan sees them, grouped by the pools they may use.

Services belong together where a chain of pools that they share connects them. What one group does is nothing to another,
so each is planned for itself, and only where what everybody would take alone does not fit the pools together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cluster.serving import ReplicaPhase, Service
from placement.selection.fleet import ModelNeed
from policies.commit.allotted import held_by
from policies.commit.inventory import Inventory
from policies.frames import Floats, Frame
from policies.groups import Groups
from policies.options import MixOptions


class Competitor(NamedTuple):
    """A service that wants something: its frame, shape of load, rate, its need for the joint problem, and how it is planned."""

    service: Service
    frame: Frame
    shares: Floats
    rate: float
    need: ModelNeed
    options: MixOptions

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def pools(self) -> frozenset[str]:
        """Pools that any of its columns is bought from."""
        return frozenset(column.pool for column in self.frame.columns)


Gpus = dict[str, int]
"""GPUs by pool."""


def connected(
    competitors: Sequence[Competitor], domains: Mapping[str, str] | None = None
) -> list[list[Competitor]]:
    """The competitors in groups that share no pool and none of the ``domains`` of pools, each in the order given;
    groups by their first pool's name.
    """
    domains = domains or {}
    of_pool: dict[str, int] = {}
    groups: dict[int, list[int]] = {}
    for number, each in enumerate(competitors):
        shared = each.pools | {f"watts/{domains[pool]}" for pool in each.pools if pool in domains}
        touched = sorted({of_pool[name] for name in shared if name in of_pool})
        members = [number]
        for other in touched:
            members = groups.pop(other) + members
        groups[number] = members
        of_pool = {name: number if group in touched else group for name, group in of_pool.items()}
        of_pool.update(dict.fromkeys(shared, number))
    found = [[competitors[number] for number in sorted(members)] for members in groups.values()]
    return sorted(found, key=lambda group: min(pool for each in group for pool in each.pools))


def most_units(inventory: Inventory, priority: int, frame: Frame) -> dict[str, int]:
    """Replicas of each column that whole nodes' devices allow, lower priorities' and equal ones' included."""
    rows = inventory.contested(priority)
    return {
        column.name: int((rows[inventory.pool_rows[column.pool]] // column.profile.variant.gpus).sum())
        if column.pool in inventory.pool_rows
        else 0
        for column in frame.columns
    }


def young(groups: Groups, service: Service, since_seconds: float) -> dict[str, int]:
    """Replicas by column that start, or began to serve only just now: they are not given up again at once."""
    found: dict[str, int] = {}
    for replica in groups.replicas.get(service.name, ()):
        starts = replica.phase in (ReplicaPhase.PENDING, ReplicaPhase.STARTING)
        fresh = replica.phase is ReplicaPhase.READY and replica.phase_since_seconds > since_seconds
        if starts or fresh:
            column = f"{replica.variant.key}|{replica.pool}"
            found[column] = found.get(column, 0) + 1
    return found


def free_of(inventory: Inventory, priority: int, taken: Mapping[str, int]) -> Gpus:
    """GPUs per pool that services of a priority may share: what higher ones hold, or were given, is theirs."""
    rows = inventory.contested(priority)
    return {
        pool: max(0, int(rows[index].sum()) - taken.get(pool, 0))
        for pool, index in inventory.pool_rows.items()
    }


def short_pools(wanted: Iterable[Mapping[str, int]], free: Mapping[str, int]) -> dict[str, int]:
    """GPUs that are lacking for what everybody would have alone, by pool; pools that lack none are left out."""
    total: Gpus = {}
    for each in wanted:
        for pool, gpus in each.items():
            total[pool] = total.get(pool, 0) + gpus
    return {
        pool: gpus - free.get(pool, 0) for pool, gpus in sorted(total.items()) if gpus > free.get(pool, 0)
    }


def take(
    competitors: Iterable[Competitor],
    given: Mapping[str, Mapping[str, int]],
    inventory: Inventory,
    taken: Gpus,
) -> None:
    """Notes what services get beyond what they hold: lower ones cannot count on it."""
    for each in competitors:
        held = held_by(inventory, each.service)
        for pool, gpus in given[each.name].items():
            taken[pool] = taken.get(pool, 0) + max(0, gpus - held.get(pool, 0))

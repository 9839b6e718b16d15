"""What is kept free for services whose menus lead with their part of one plan for all (`Menu.joint`).

A service may use what the pools offer it, less what others of its priority were allotted and do not have yet. So who
holds more than its part gives way, and who waits for it finds it; services of other priorities are not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.serving import Service
from cluster.snapshot import Snapshot
from cluster.targets import Mix
from policies.commit.inventory import Inventory
from policies.commit.settling import Limits, Settled
from policies.frames import Frame

Gpus = dict[str, int]
"""GPUs by pool."""


class Allotments:
    """Parts of joint plans, and what of them is not taken yet, by priority; services are noted as they are decided."""

    def __init__(self, view: Snapshot, services: Iterable[Service], inventory: Inventory) -> None:
        self._parts: dict[str, Gpus] = {}
        self._closed: dict[str, frozenset[str]] = {}
        self._waiting: dict[str, Gpus] = {}
        self._kept: dict[int, Gpus] = {}
        for service in services:
            part = allotment(view, service)
            if part is not None:
                self._parts[service.name] = part
                menu = view.menu(service.name)
                self._closed[service.name] = frozenset(menu.closed if menu is not None else ())
                self._wait(service, held_by(inventory, service))

    def _wait(self, service: Service, has: Mapping[str, int]) -> None:
        """Notes what a service waits for beyond what it has."""
        kept = self._kept.setdefault(service.priority, {})
        for pool, gpus in self._waiting.get(service.name, {}).items():
            kept[pool] -= gpus
        part = self._parts[service.name]
        waits = {pool: max(0, gpus - has.get(pool, 0)) for pool, gpus in part.items()}
        for pool, gpus in waits.items():
            kept[pool] = kept.get(pool, 0) + gpus
        self._waiting[service.name] = waits

    def within(self, service: Service, frame: Frame, limits: Limits) -> Limits:
        """Limits less what is kept for others of the service's priority; never below its own part."""
        own = self._parts.get(service.name)
        if own is None:
            return limits
        kept, mine = self._kept[service.priority], self._waiting[service.name]
        free = {
            pool: min(gpus, own.get(pool, 0))
            if pool in self._closed[service.name]
            else max(min(gpus, own.get(pool, 0)), gpus - kept.get(pool, 0) + mine.get(pool, 0))
            for pool, gpus in limits.free_gpus.items()
        }
        most = {
            column.name: min(
                limits.most_units.get(column.name, 0), free.get(column.pool, 0) // column.profile.variant.gpus
            )
            for column in frame.columns
        }
        return limits._replace(free_gpus=free, most_units=most)

    def made(self, service: Service, frame: Frame, settled: Settled) -> None:
        """A service was given something: for that it waits no longer."""
        if service.name not in self._parts:
            return
        given: Gpus = {}
        for column in frame.columns:
            units = settled.counts.get(column.name, 0)
            given[column.pool] = given.get(column.pool, 0) + units * column.profile.variant.gpus
        self._wait(service, given)


def allotment(view: Snapshot, service: Service) -> Gpus | None:
    """GPUs per pool of a service's part of a joint plan; None when it has none."""
    menu = view.menu(service.name)
    if menu is None or not menu.joint or not menu.mixes:
        return None
    return gpus_of(menu.mixes[0], service)


def joint_prices(view: Snapshot, services: Iterable[Service]) -> dict[str, float]:
    """What one more GPU of a pool would save the joint plans of services, dollars per hour."""
    found: dict[str, float] = {}
    for service in services:
        menu = view.menu(service.name)
        for pool, dollars in menu.prices.items() if menu is not None and menu.joint else ():
            found[pool] = max(found.get(pool, 0.0), dollars)
    return found


def gpus_of(mix: Mix, service: Service) -> Gpus:
    """GPUs that a mix of a service takes, by pool."""
    sizes = {variant.key: variant.gpus for variant in service.variants}
    found: Gpus = {}
    for part in mix.parts:
        found[part.pool] = found.get(part.pool, 0) + part.units * sizes.get(part.variant, 1)
    return found


def held_by(inventory: Inventory, service: Service) -> Gpus:
    """GPUs per pool that a service's live replicas have."""
    found: Gpus = {}
    for column, tenants in inventory.tenants(service.name).items():
        pool = column.partition("|")[2]
        found[pool] = found.get(pool, 0) + sum(tenant.gpus for tenant in tenants)
    return found

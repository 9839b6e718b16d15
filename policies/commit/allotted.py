"""What is kept free for services whose menus lead with their part of one plan for all (`Menu.joint`).

A service may use what the pools offer it, less what others of its priority were allotted and do not have yet. So who
holds more than its part gives way, and who waits for it finds it; services of other priorities are not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cluster.serving import Service
from cluster.snapshot import Snapshot
from cluster.targets import Mix
from policies.commit.inventory import Inventory
from policies.commit.settling import Limits, Settled
from policies.frames import Frame


class Made(Protocol):
    """A service that was decided already in this run."""

    @property
    def service(self) -> Service:
        """Whose."""
        ...

    @property
    def frame(self) -> Frame:
        """Its columns."""
        ...

    @property
    def settled(self) -> Settled:
        """What it got."""
        ...


class Run(Protocol):
    """What is asked of a commitment in the making."""

    @property
    def view(self) -> Snapshot:
        """The snapshot."""
        ...

    @property
    def scope(self) -> Sequence[Service]:
        """Services that are decided."""
        ...

    @property
    def inventory(self) -> Inventory:
        """Who holds what."""
        ...

    @property
    def commitments(self) -> Sequence[Made]:
        """What was decided so far."""
        ...


def within_allotment(run: Run, service: Service, frame: Frame, limits: Limits) -> Limits:
    """Limits less what is kept for others of the service's priority; never below its own part."""
    own = allotment(run.view, service)
    if own is None:
        return limits
    made = {each.service.name: each for each in run.commitments}
    kept: dict[str, int] = {}
    for other in run.scope:
        if other.name == service.name or other.priority != service.priority:
            continue
        held = _given(made[other.name]) if other.name in made else held_by(run.inventory, other)
        for pool, gpus in (allotment(run.view, other) or {}).items():
            kept[pool] = kept.get(pool, 0) + max(0, gpus - held.get(pool, 0))
    free = {
        pool: max(min(gpus, own.get(pool, 0)), gpus - kept.get(pool, 0))
        for pool, gpus in limits.free_gpus.items()
    }
    most = {
        column.name: min(
            limits.most_units.get(column.name, 0), free.get(column.pool, 0) // column.profile.variant.gpus
        )
        for column in frame.columns
    }
    return limits._replace(free_gpus=free, most_units=most)


def allotment(view: Snapshot, service: Service) -> dict[str, int] | None:
    """GPUs per pool of a service's part of a joint plan; None when it has none."""
    menu = view.menu(service.name)
    if menu is None or not menu.joint or not menu.mixes:
        return None
    return gpus_of(menu.mixes[0], service)


def gpus_of(mix: Mix, service: Service) -> dict[str, int]:
    """GPUs that a mix of a service takes, by pool."""
    sizes = {variant.key: variant.gpus for variant in service.variants}
    found: dict[str, int] = {}
    for part in mix.parts:
        found[part.pool] = found.get(part.pool, 0) + part.units * sizes.get(part.variant, 1)
    return found


def held_by(inventory: Inventory, service: Service) -> dict[str, int]:
    """GPUs per pool that a service's live replicas have."""
    found: dict[str, int] = {}
    for column, tenants in inventory.tenants(service.name).items():
        pool = column.partition("|")[2]
        found[pool] = found.get(pool, 0) + sum(tenant.gpus for tenant in tenants)
    return found


def _given(made: Made) -> dict[str, int]:
    """GPUs per pool that a service was just given."""
    found: dict[str, int] = {}
    for column in made.frame.columns:
        units = made.settled.counts.get(column.name, 0)
        found[column.pool] = found.get(column.pool, 0) + units * column.profile.variant.gpus
    return found

"""Who holds what: claims on slots, reservations of slots, quotas."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.base import Noun, Ref
from cluster.hardware import Slot


class Claim(Noun, kw_only=True, frozen=True):
    """Whatever occupies a slot: our pods and other people's alike.

    `key` is unique (the pod's `namespace/name` in the operator). `phase` is `pending`, `bound`,
    `running` or `stopping`; a stopping claim still holds its devices.
    """

    key: str
    owner: Ref
    slot: Slot
    priority: int = 0
    phase: str = "pending"
    foreign: bool = False


def devices_held(claims: Iterable[Claim]) -> int:
    """How many devices claims hold together; one that is shared counts once."""
    whole, shared = 0, set[tuple[str, int]]()
    for claim in claims:
        slot = claim.slot
        numbered = [index for index in slot.devices if index >= 0] if slot.shares else []
        shared.update((slot.node, index) for index in numbered)
        whole += slot.gpus - len(numbered)
    return whole + len(shared)


class Reservation(Noun, kw_only=True, frozen=True):
    """Slots kept for a waiting owner: a preemption's domain, a future start, a spare."""

    key: str
    owner: Ref
    slots: tuple[Slot, ...]
    priority: int = 0
    starts_seconds: float
    expires_seconds: float


class Quota(Noun, kw_only=True, frozen=True):
    """GPUs a namespace's queue may hold in a pool, and what it may borrow beyond that."""

    namespace: str
    queue: str
    pool: str
    nominal_gpus: int
    borrowable_gpus: int = 0

"""Boards that are partitioned into slices (MIG), several sizes on one machine: what is offered, and where each slice is.

A partitioned machine offers no whole board. Slices lie on boards first fit, the largest first, as `nvidia-mig-parted` lays a
configuration out; an engine on one has its part of the board's memory, bandwidth and compute.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

WHOLE = 1_000
PREFIX = "nvidia.com/mig-"


class Slices(msgspec.Struct, frozen=True, kw_only=True):
    """So many slices of a profile (`1g.10gb`), each of so many thousandths of a board. ValueError for what cannot be."""

    profile: str
    count: int
    milli: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 1 <= self.milli < WHOLE:
            raise ValueError(
                f"{self.count} slices {self.profile} of {self.milli} thousandths: at least one, of 1 to {WHOLE - 1}"
            )

    @property
    def resource(self) -> str:
        """What pods ask for it by."""
        return f"{PREFIX}{self.profile}"


class Place(NamedTuple):
    """Where a slice is: its board, and thousandths of it."""

    board: int
    milli: int


def offers(slices: Sequence[Slices], product: str) -> tuple[dict[str, str], dict[str, str]]:
    """Extended resources and labels of feature discovery that slices of a product's boards make on a node."""
    resources = {each.resource: str(each.count) for each in slices}
    marks = {f"{each.resource}.product": f"{product}-MIG-{each.profile}" for each in slices}
    marks |= {f"{each.resource}.count": str(each.count) for each in slices}
    return resources, marks


def layout(slices: Sequence[Slices], boards: int) -> dict[str, tuple[Place, ...]]:
    """Where each slice of each resource is. ValueError where the boards do not hold them all."""
    left = [WHOLE] * boards
    found: dict[str, tuple[Place, ...]] = {}
    for each in sorted(slices, key=lambda s: (-s.milli, s.profile)):
        places = []
        for number in range(each.count):
            board = next((index for index, milli in enumerate(left) if milli >= each.milli), None)
            if board is None:
                raise ValueError(
                    f"{boards} boards hold {number} of {each.count} slices {each.profile} of {each.milli} thousandths"
                )
            left[board] -= each.milli
            places.append(Place(board, each.milli))
        found[each.resource] = tuple(places)
    return found


def resource_of(requests: Mapping[str, object]) -> str:
    """The resource of slices that a pod asks for; empty where it asks for none."""
    return next((name for name in sorted(requests) if name.startswith(PREFIX)), "")


def numbered(requests: Mapping[str, object], devices: tuple[int, ...]) -> tuple[int, ...]:
    """Device numbers of a pod, made different for each resource of slices: the first of one is not the first of another."""
    resource = resource_of(requests)
    base = 1_000 * (1 + zlib.crc32(resource.encode()) % 1_000_000) if resource else 0
    return tuple(base + device for device in devices)

"""Which devices of a node each pod really has: the kubelet's word and the scheduler's, before the plan's.

A plan numbers devices so that two pods of one plan do not meet; the kubelet gives out whichever it likes. As soon as
it says which (pod-resources API), or a ResourceClaim is allocated, that is what a pod has, and a pod that was
planned onto a device another one got has *some* device: it counts without a number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from cluster.base import Ref
from cluster.hardware import Slot
from cluster.occupancy import Claim
from controller.observe.dra import WHOLE, Held

LEFTOVER_SECONDS = 30.0
"""How long the kubelet may name a pod that the API server has no more before its devices count as held: it is asked
every ten seconds, and keeps a while to itself what it says."""


class Seats(NamedTuple):
    """Who has what on one node. `real`: devices by pod key, as the kubelet or an allocation says."""

    real: Mapping[str, tuple[int, ...]]
    claims: tuple[Claim, ...] = ()
    """Devices held otherwise than by a pod's request: by ResourceClaims, by pods that only the kubelet knows."""
    sharing: frozenset[str] = frozenset()
    """Pods of `real` that have only a share of their device."""

    def of(self, key: str, planned: tuple[int, ...], *, shares: bool = False) -> tuple[int, ...]:
        """The devices of a pod that wants `planned` (negative: any): really, or as planned where nobody else is, or where
        others have `shares` as well.
        """
        real = self.real.get(key, ())
        if real and len(real) == len(planned):
            return real
        others = [o for o in self.real if o != key and not (shares and o in self.sharing)]
        taken = {index for other in others for index in self.real[other]}
        claims = [claim for claim in self.claims if not (shares and claim.slot.shares)]
        taken |= {index for claim in claims for index in claim.slot.devices}
        unknown = sum(1 for index in planned if index < 0 or index in taken)
        return tuple(range(-unknown, 0)) + tuple(
            index for index in planned if index >= 0 and index not in taken
        )


NOBODY = Seats({})


def claim_of(held: Held, node: str, devices: Iterable[int], taken: Collection[int]) -> Claim | None:
    """The devices of an allocated ResourceClaim of somebody's; None when others are counted with all of them already.

    (Several claims may have slices of one board: it is one device less for those who want whole ones. Shares of one device
    are counted each.)
    """
    shares = held.milli < WHOLE
    numbers = [index for index in devices if index < 0 or shares or index not in taken]
    unknown = sum(1 for index in numbers if index < 0)
    places = tuple(range(-unknown, 0)) + tuple(sorted({index for index in numbers if index >= 0}))
    if not places:
        return None
    return Claim(
        key=f"ResourceClaim/{held.key}",
        owner=Ref("ResourceClaim", held.key, held.uid),
        slot=Slot(node=node, devices=places, milli_per_device=held.milli),
        phase="bound",
        foreign=True,
    )


def kubelet_claim(pod: str, node: str, devices: Iterable[int], taken: Collection[int]) -> Claim | None:
    """Devices that the kubelet keeps for a pod that asked for none, or that the API server does not have.

    None when others are counted with all of them already.
    """
    places = tuple(index for index in devices if index not in taken)
    if not places:
        return None
    return Claim(
        key=f"Kubelet/{node}/{pod}",
        owner=Ref("Pod", pod),
        slot=Slot(node=node, devices=places),
        phase="bound",
        foreign=True,
    )


def lost_claim(node: str, count: int) -> Claim:
    """Devices in use beyond what the node offers: the next ones that come free are nobody's."""
    return Claim(
        key=f"Node/{node}",
        owner=Ref("Node", node),
        slot=Slot(node=node, devices=tuple(range(-count, 0))),
        phase="bound",
        foreign=True,
    )

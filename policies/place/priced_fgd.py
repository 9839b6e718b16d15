"""Place, with nodes chosen by FGD and the dual prices of the whole pool; everything else as `best_fit`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec

from cluster.hardware import Node, Offer
from cluster.snapshot import Snapshot
from placement.packing.best_fit import Rooms
from placement.packing.fleet import Shape
from placement.packing.priced_rooms import PricedRooms, basis_of
from placement.packing.rules import priced_fgd
from policies.place.best_fit import BestFit
from policies.place.run import BestFitConfig, Run

NonNegative = Annotated[float, msgspec.Meta(ge=0.0)]


class PricedFgdConfig(BestFitConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `best_fit`, and how nodes are chosen.

    `gang_milli`: thousandths of a GPU charged for each GPU of a wholly free node that a replica would break into, so that
    the largest gang keeps its nodes. `begin_milli`: for a wholly free GPU that a share would begin. `price_seconds`: how long prices stand; they are made anew sooner where a quarter of
    what a pool is wanted for came or went.
    """

    gang_milli: NonNegative = 20.0
    begin_milli: NonNegative = 10.0
    price_seconds: NonNegative = 60.0


class _PricedRun(Run):
    """A round whose rooms know what all services want."""

    def _rooms(self) -> Rooms:
        config = self.config if isinstance(self.config, PricedFgdConfig) else PricedFgdConfig()
        nodes: dict[str, list[Node]] = {}
        for name in sorted(self.view.nodes):
            node = self.view.nodes[name]
            if node.offer is Offer.OPEN:
                nodes.setdefault(node.pool, []).append(node)
        wanted = _wanted(self.view)
        self.bases = {
            pool: basis_of(found, wanted.get(pool, {}), self.now, self.bases.get(pool), config.price_seconds)
            for pool, found in sorted(nodes.items())
        }
        rule = priced_fgd.PricedFgdConfig(gang_milli=config.gang_milli, begin_milli=config.begin_milli)
        memo = self.scratch.setdefault("priced_fgd", {})
        return PricedRooms(self.view.nodes, self.overlay.space, self.bases, rule, memo)


def _wanted(view: Snapshot) -> dict[str, Counter[Shape]]:
    """Pods of each shape that the final mixes want of each pool."""
    found: dict[str, Counter[Shape]] = {}
    for name in sorted(view.services):
        service, capacity = view.services[name], view.capacity(name)
        sizes = {variant.key: variant for variant in service.variants}
        for part in capacity.mix.parts if capacity is not None and capacity.final else ():
            if part.units > 0 and part.variant in sizes:
                one = sizes[part.variant]
                shape = Shape(service.cpu_millis, one.gpus, one.milli, ())
                found.setdefault(part.pool, Counter())[shape] += part.units
    return found


class PricedFgd(BestFit):
    """`Policy[Snapshot, BestFitState]`."""

    _run = _PricedRun

    def __init__(self, config: PricedFgdConfig | None = None) -> None:
        super().__init__(config or PricedFgdConfig())

"""Place, with nodes chosen by FGD and the dual prices of the whole pool; everything else as `best_fit`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec

from placement.packing.best_fit import Rooms
from placement.packing.fleet import WHOLE, Shape
from placement.packing.fragmentation import Typical
from placement.packing.priced_rooms import PricedRooms
from placement.packing.rules import priced_fgd
from policies.place.best_fit import BestFit
from policies.place.run import BestFitConfig, Run


class PricedFgdConfig(BestFitConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `best_fit`, and how nodes are chosen.

    `gang_milli`: thousandths of a GPU charged for each GPU of a wholly free node that a replica would break into, so that
    the largest gang keeps its nodes.
    """

    gang_milli: Annotated[float, msgspec.Meta(ge=0.0)] = 20.0


class _PricedRun(Run):
    """A round whose rooms know what all services want."""

    def _rooms(self) -> Rooms:
        demand: dict[str, Counter[Shape]] = {}
        for name in sorted(self.view.services):
            service, capacity = self.view.services[name], self.view.capacity(name)
            sizes = {variant.key: variant.gpus for variant in service.variants}
            for part in capacity.mix.parts if capacity is not None and capacity.final else ():
                if part.units > 0 and part.variant in sizes:
                    shape = Shape(service.cpu_millis, sizes[part.variant], WHOLE, ())
                    demand.setdefault(part.pool, Counter())[shape] += part.units
        workload = {
            pool: [Typical(shape, number) for shape, number in sorted(found.items())]
            for pool, found in demand.items()
        }
        gang_milli = self.config.gang_milli if isinstance(self.config, PricedFgdConfig) else 0.0
        rule = priced_fgd.PricedFgdConfig(gang_milli=gang_milli)
        memo = self.scratch.setdefault("priced_fgd", {})
        return PricedRooms(self.view.nodes, self.overlay.space, workload, rule, memo)


class PricedFgd(BestFit):
    """`Policy[Snapshot, BestFitState]`."""

    _run = _PricedRun

    def __init__(self, config: PricedFgdConfig | None = None) -> None:
        super().__init__(config or PricedFgdConfig())

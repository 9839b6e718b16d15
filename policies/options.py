"""How a service's mix is planned: by size where its gateways dispatch by size, else for the blend that weights make of it."""

from __future__ import annotations

from typing import NamedTuple

from cluster.serving import Service
from policies.dispatch.choices import BY_SIZE, dispatch_of
from policies.groups import Groups


class MixOptions(NamedTuple):
    """How a mix is solved: with pool-size headroom or without, and with how many units of solver work.

    `by_size`: requests of each size are routed on their own, which is cheaper and needs gateways that do so; else every variant
    gets the same blend of sizes, as gateways do that know only weights. `spills`: a row that is behind gives requests to others, so
    pools need one deviation of their own and not two (`policies.sizing`).
    """

    headroom: bool = True
    work_units: int = 4_000
    by_size: bool = False
    spills: bool = False


def routes_by_size(groups: Groups, service: Service) -> bool:
    """Whether the service's requests go where their size was planned: its dispatch policy does so, and no gateway that reports
    is of a version that does not know plans. While none reports, none is known that does not.
    """
    return dispatch_of(service) in BY_SIZE and not groups.signal(service.name, "size_plans") < 1.0


def options_of(groups: Groups, service: Service, headroom: bool, work_units: int) -> MixOptions:
    """The options of a service: nobody sets them twice."""
    sized = routes_by_size(groups, service)
    return MixOptions(headroom, work_units, by_size=sized, spills=sized)

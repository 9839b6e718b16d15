"""Every dispatch policy with its default settings: what a gateway can be asked for, without the rest of the registry."""

from __future__ import annotations

from cluster.serving import Service
from policies.dispatch.least_outstanding import LeastOutstanding
from policies.dispatch.memory_load import InfaasPlusPlus, LlumnixDispatch
from policies.dispatch.round_robin import RoundRobin
from policies.dispatch.size_aware import SizeAware

AnyDispatch = LeastOutstanding | RoundRobin | InfaasPlusPlus | LlumnixDispatch | SizeAware

DEFAULT = "least_outstanding"
"""The policy of a service that names none; a test holds it equal to the registry's."""

BY_SIZE = frozenset({"size_aware"})
"""Policies that dispatch by a plan of sizes, where the route has one."""


def dispatch_of(service: Service) -> str:
    """The dispatch policy that a service's gateways use."""
    return service.policies.name.get("dispatch") or DEFAULT


def dispatch_policies() -> dict[str, AnyDispatch]:
    """Policies by their name in the registry; a test holds the two lists equal."""
    return {
        "least_outstanding": LeastOutstanding(),
        "round_robin": RoundRobin(),
        "infaas": InfaasPlusPlus(),
        "llumnix": LlumnixDispatch(),
        "size_aware": SizeAware(),
    }

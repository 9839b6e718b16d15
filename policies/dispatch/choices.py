"""Every dispatch policy with its default settings: what a gateway can be asked for, without the rest of the registry."""

from __future__ import annotations

from policies.dispatch.least_outstanding import LeastOutstanding
from policies.dispatch.memory_load import InfaasPlusPlus, LlumnixDispatch
from policies.dispatch.round_robin import RoundRobin
from policies.dispatch.size_aware import SizeAware

AnyDispatch = LeastOutstanding | RoundRobin | InfaasPlusPlus | LlumnixDispatch | SizeAware


def dispatch_policies() -> dict[str, AnyDispatch]:
    """Policies by their name in the registry; a test holds the two lists equal."""
    return {
        "least_outstanding": LeastOutstanding(),
        "round_robin": RoundRobin(),
        "infaas": InfaasPlusPlus(),
        "llumnix": LlumnixDispatch(),
        "size_aware": SizeAware(),
    }

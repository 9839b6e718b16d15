"""Many models on one inventory: the problem, the plan, and what a plan says where there is not enough.

    minimise    sum over models of cost(y_m) + price of what is unserved or exposed + starts  (+ nodes sold whole)
    subject to  each model's own limits and promises (`MixProblem`)
                sum of GPUs in a pool <= its free GPUs;   sum of watts in a domain <= its budget
                GPUs in a pool sold by the node <= node size x nodes bought

Units: dollars per hour, requests per second, GPUs, watts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from cluster.base import Noun
from placement.selection.problem import MixProblem, MixSolution, SelectionInputError


class ModelNeed(Noun, kw_only=True, frozen=True):
    """One model (or service) that competes: its load, variants and promises.

    Of ``problem`` the inventory and watt budgets are not used: those of the fleet hold for everybody. ``priority``
    decides only whose floors (`min_units`) are kept when not all can be; what is shed follows from the prices of
    unserved load.
    """

    name: str
    problem: MixProblem
    priority: int = 0


class NodeOffer(Noun, kw_only=True, frozen=True):
    """A pool that is paid for by the node: GPUs of a node and dollars per hour for all of it."""

    gpus: int
    dollars_per_hour: float


class FleetProblem(Noun, kw_only=True, frozen=True):
    """Models that compete for pools.

    ``inventory`` maps a pool to its free GPUs (None: without limit), ``budget_watts`` a power domain to its watts.
    In pools of ``whole_nodes`` units cost nothing by themselves: the nodes they need are paid for. ``work_units``
    bounds the linear programmes solved; the best plan so far is kept when they are spent. What runs now stays, all of it,
    while it costs at most ``keep_share`` more than the plan found, what it leaves unserved at its price.
    """

    models: tuple[ModelNeed, ...]
    inventory: dict[str, int | None]
    budget_watts: dict[str, float] = {}
    whole_nodes: dict[str, NodeOffer] = {}
    relative_gap: float = 1e-6
    keep_share: float = 0.0
    work_units: int = 60_000


class Shortage(Noun, kw_only=True, frozen=True):
    """Load of a model's class that the plan leaves unserved or exposed, what that is priced at, and its cure.

    ``cure`` maps pools to further GPUs with which the whole class could be served, given what ``besides`` names (watts,
    bounds on replicas); empty where no number of GPUs helps, as ``sentence`` then says. ``exposed`` True: it is not served
    after the loss of a replica.
    """

    model: str
    request_class: str
    requests_per_second: float
    of_requests_per_second: float
    dollars_per_hour: float
    cure: dict[str, int] = {}
    besides: tuple[str, ...] = ()
    exposed: bool = False
    sentence: str = ""


class FleetPlan(Noun, kw_only=True, frozen=True):
    """Counts and routing of every model, and how good they are together.

    ``solutions`` has one entry per model. ``nodes`` counts nodes bought in pools sold whole. ``bound`` is a proven
    lower bound of ``objective_per_hour``; ``optimal`` says that it is met within the problem's gap. ``prices`` are the
    duals: what one more GPU of a pool would save per hour in the relaxed programme ("$/h per GPU"), and
    ``watt_prices`` the same for one more watt of a domain. ``relaxed`` names models whose floors do not all fit, or have no
    variant to be kept with.
    """

    solutions: dict[str, MixSolution]
    nodes: dict[str, int] = {}
    cost_per_hour: float = 0.0
    objective_per_hour: float = 0.0
    bound: float = 0.0
    optimal: bool = False
    prices: dict[str, float] = {}
    watt_prices: dict[str, float] = {}
    shortages: tuple[Shortage, ...] = ()
    relaxed: tuple[str, ...] = ()
    units_used: int = 0

    @property
    def gap(self) -> float:
        """Relative distance of the objective from its bound."""
        return (self.objective_per_hour - self.bound) / max(abs(self.bound), 1e-9)


class Budget:
    """Work that may be done: linear programmes, and whatever clock the caller looks at (never ours)."""

    def __init__(self, units: int, interrupted: Callable[[], bool] | None = None) -> None:
        self._units = units
        self._interrupted = interrupted
        self.used = 0

    def spend(self, units: int) -> None:
        """Counts work that was done."""
        self.used += units

    @property
    def left(self) -> int:
        """Units that may still be used; 0 when the caller says stop."""
        if self._interrupted is not None and self._interrupted():
            return 0
        return max(0, self._units - self.used)


def check_fleet(problem: FleetProblem) -> None:
    """SelectionInputError unless names, inventory and budgets make sense; models are checked one by one later."""
    names = [each.name for each in problem.models]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SelectionInputError(f"model {twice[0]!r} occurs twice; give each a name of its own")
    for pool, gpus in problem.inventory.items():
        if gpus is not None and gpus < 0:
            raise SelectionInputError(f"inventory of pool {pool!r} is {gpus} GPUs; count free GPUs from 0")
    for domain, watts in problem.budget_watts.items():
        if not 0.0 <= watts < math.inf:
            raise SelectionInputError(f"budget of power domain {domain!r} is {watts} W; give 0 or more")
    for pool, offer in problem.whole_nodes.items():
        if offer.gpus < 1 or not 0.0 < offer.dollars_per_hour < math.inf:
            raise SelectionInputError(
                f"nodes of pool {pool!r} have {offer.gpus} GPUs for {offer.dollars_per_hour} $/h; give 1 or more, "
                "and a positive price"
            )


def without_floors(need: ModelNeed) -> ModelNeed:
    """The same with no least number of replicas."""
    variants = tuple(msgspec.structs.replace(each, min_units=0) for each in need.problem.variants)
    return msgspec.structs.replace(
        need, problem=msgspec.structs.replace(need.problem, variants=variants, min_units=0)
    )

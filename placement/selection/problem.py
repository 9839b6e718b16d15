"""The selection problem of one model, its solution, and the screening of columns nobody can use.

Units: demand in requests per second per cell, throughput in requests per second of one unit (replica) in that
cell, money in dollars per hour, inventory in GPUs. A *cell* is a size class of requests (a point of the profile
grid); the solver does not care what it stands for.
"""

from __future__ import annotations

import math

import msgspec

from cluster.base import Noun
from cluster.reasons import Alternative, Quantity, Unit


class SelectionInputError(ValueError):
    """The demand or the limits of a problem make no sense; the sentence says which, where and what to do."""


class Rejection(Noun, kw_only=True, frozen=True):
    """Why a variant is not in the mix: a reason code, the two numbers that decided it, and a sentence.

    ``cost_per_hour`` is what the plan would cost if one unit of it were forced in, where that was computed.
    """

    variant: str
    code: str
    need: Quantity
    have: Quantity
    sentence: str
    cost_per_hour: float | None = None

    def alternative(self) -> Alternative:
        """The same, as an alternative of a `Reason`."""
        return Alternative(choice=self.variant, code=self.code, facts=(self.need, self.have))


def rejection(variant: str, code: str, need: float, have: float, unit: Unit, sentence: str) -> Rejection:
    """A `Rejection` whose numbers share one unit."""
    return Rejection(
        variant=variant,
        code=code,
        need=Quantity("need", float(need), unit),
        have=Quantity("have", float(have), unit),
        sentence=sentence,
    )


class VariantOption(Noun, kw_only=True, frozen=True):
    """One column: a way to run the model, bought from one pool.

    ``throughput`` has one entry per cell, 0 = the objective cannot be met there. ``concurrency`` is B of the
    pool-size headroom. ``min_units`` and ``max_units`` (None: no limit) bound its count. ``spot``: the pool may be
    taken away. Each unit beyond ``standing_units`` is charged ``startup_dollars`` per hour, so that plans do not
    churn. ``risk_dollars`` per hour are charged to a unit beside its price: what may be expected to be lost with it.
    A unit draws ``watts`` in the power domain ``domain``.
    """

    name: str
    pool: str
    dollars_per_hour: float
    throughput: tuple[float, ...]
    gpus: int = 1
    concurrency: float = 1.0
    min_units: int = 0
    max_units: int | None = None
    spot: bool = False
    standing_units: int = 0
    startup_dollars: float = 0.0
    risk_dollars: float = 0.0
    watts: float = 0.0
    domain: str = ""


class RequestClass(Noun, kw_only=True, frozen=True):
    """Cells that are promised the same.

    At most ``spot_share`` of the class's requests may be routed to spot variants. ``survives_loss``: when any one
    replica is lost, the others carry the whole class (lower ones give way) at the same headroom; what they could not
    is *exposed* and priced like unserved load.
    """

    name: str
    cells: tuple[int, ...]
    spot_share: float = 1.0
    survives_loss: bool = False


class MixProblem(Noun, kw_only=True, frozen=True):
    """One model's load, the variants that might carry it, and what there is of them.

    ``inventory`` maps a pool to its free GPUs (None: without limit). ``unserved_dollars`` is the price of leaving
    one request per second unserved for an hour; ``cell_unserved_dollars`` replaces it cell by cell where cells
    belong to classes of different worth. ``min_units``/``max_units`` bound the replicas in all.
    ``excluded`` are variants ruled out before, by memory or objective: they only travel into the answer.
    ``classes`` groups cells by promise (those in none have no promise but their price); ``budget_watts`` bounds the
    watts of all units in a power domain.
    ``forbidden`` are count vectors the answer must differ from (no-good cuts; variants left out count as 0).
    ``relative_gap`` 0 asks for the exact optimum; ``work_units`` bounds the linear programmes solved.
    """

    demand: tuple[float, ...]
    variants: tuple[VariantOption, ...]
    inventory: dict[str, int | None]
    unserved_dollars: float = 1000.0
    cell_unserved_dollars: tuple[float, ...] = ()
    headroom: bool = True
    min_units: int = 0
    max_units: int | None = None
    forbidden: tuple[dict[str, int], ...] = ()
    excluded: tuple[Rejection, ...] = ()
    classes: tuple[RequestClass, ...] = ()
    budget_watts: dict[str, float] = {}
    relative_gap: float = 0.0
    work_units: int = 4000

    def unserved_prices(self) -> tuple[float, ...]:
        """Price of each cell's unserved requests, $/h per request/s."""
        return self.cell_unserved_dollars or (self.unserved_dollars,) * len(self.demand)


class MixSolution(Noun, kw_only=True, frozen=True):
    """The answer: counts and routing, with how good they are.

    ``counts`` leaves out zeros. ``routing`` maps a variant to the share of each cell's demand it gets; shares and
    ``unserved`` of a cell with demand sum to 1. ``objective_per_hour`` = ``cost_per_hour`` + price of the unserved
    load + ``startup_per_hour`` + ``risk_per_hour`` + ``exposed_per_hour`` (the most that losing one replica would leave unserved of the
    classes that must survive it); ``bound`` is a proven lower bound on it, ``optimal`` says that it is met. ``carried_per_second`` is the
    demand of this shape the mix could carry at most under the same headroom. ``binding`` names the pools that are
    used up. ``feasible`` False (with ``why``) means that no count vector keeps the limits at all.
    """

    feasible: bool
    why: str = ""
    counts: dict[str, int] = {}
    routing: dict[str, tuple[float, ...]] = {}
    unserved: tuple[float, ...] = ()
    cost_per_hour: float = 0.0
    objective_per_hour: float = 0.0
    unserved_per_second: float = 0.0
    demand_per_second: float = 0.0
    carried_per_second: float = 0.0
    startup_per_hour: float = 0.0
    risk_per_hour: float = 0.0
    exposed_per_hour: float = 0.0
    bound: float = 0.0
    optimal: bool = False
    units_used: int = 0
    binding: tuple[str, ...] = ()
    rejections: tuple[Rejection, ...] = ()


class Screened(msgspec.Struct, frozen=True):
    """Columns the solver may use, in name order, and those it may not, each with its reason."""

    options: tuple[VariantOption, ...]
    rejections: tuple[Rejection, ...]


def screen(problem: MixProblem) -> Screened:
    """Checks the problem as a whole (SelectionInputError) and takes out every column that cannot be used."""
    check_demand(problem)
    names = [option.name for option in problem.variants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SelectionInputError(f"variant {twice[0]!r} occurs twice; give each column a name of its own")
    kept: list[VariantOption] = []
    rejections: list[Rejection] = []
    for option in sorted(problem.variants, key=lambda each: each.name):
        refusal = judge(option, problem)
        if refusal is None:
            kept.append(option)
        else:
            rejections.append(refusal)
    return Screened(tuple(kept), tuple(rejections))


def check_demand(problem: MixProblem) -> None:
    """SelectionInputError unless demand, prices and limits are usable numbers."""
    for cell, rate in enumerate(problem.demand):
        if not (math.isfinite(rate) and rate >= 0.0):
            raise SelectionInputError(
                f"demand of cell {cell} is {rate} requests/s; it must be a finite number of at least 0, "
                "look at the load histogram it was made from"
            )
    prices = problem.unserved_prices()
    if len(prices) != len(problem.demand):
        raise SelectionInputError(
            f"cell_unserved_dollars has {len(prices)} entries for {len(problem.demand)} cells; give one each"
        )
    for price in (problem.unserved_dollars, *prices):
        if not 0.0 < price < math.inf:
            raise SelectionInputError(
                f"unserved_dollars is {price}; give a positive price per request/s and hour, "
                "otherwise serving nothing is the cheapest answer"
            )
    check_limits(problem)


def check_limits(problem: MixProblem) -> None:
    """SelectionInputError unless inventory and replica bounds can be kept by some count vector."""
    for pool, gpus in problem.inventory.items():
        if gpus is not None and gpus < 0:
            raise SelectionInputError(f"inventory of pool {pool!r} is {gpus} GPUs; count free GPUs from 0")
    for option in problem.variants:
        if option.max_units is not None and option.max_units < option.min_units:
            raise SelectionInputError(
                f"variant {option.name!r} allows {option.max_units} units at most and {option.min_units} at least; "
                "raise max_units or lower min_units"
            )
    _check_classes(problem)
    if problem.max_units is not None and problem.max_units < problem.min_units:
        raise SelectionInputError(
            f"max_units {problem.max_units} is below min_units {problem.min_units}; raise one or lower the other"
        )


def _check_classes(problem: MixProblem) -> None:
    """SelectionInputError unless each cell belongs to one class at most, and shares and budgets are usable."""
    taken: dict[int, str] = {}
    for each in problem.classes:
        if not 0.0 <= each.spot_share <= 1.0:
            raise SelectionInputError(f"spot_share of class {each.name!r} is {each.spot_share}; give 0 to 1")
        for cell in each.cells:
            if not 0 <= cell < len(problem.demand) or cell in taken:
                raise SelectionInputError(
                    f"cell {cell} of class {each.name!r} "
                    + (f"is in class {taken[cell]!r} too" if cell in taken else "is not in the demand")
                    + "; list each cell of the demand once"
                )
            taken[cell] = each.name
    for domain, watts in problem.budget_watts.items():
        if not 0.0 <= watts < math.inf:
            raise SelectionInputError(f"budget of power domain {domain!r} is {watts} W; give 0 or more")


def judge(option: VariantOption, problem: MixProblem) -> Rejection | None:
    """The reason why a column cannot be used, or None."""
    return _bad_numbers(option, len(problem.demand)) or _unavailable(option, problem)


def _bad_numbers(option: VariantOption, cells: int) -> Rejection | None:
    name, price = option.name, option.dollars_per_hour
    if not (math.isfinite(price) and price > 0.0):
        shown = price if math.isfinite(price) else 0.0
        text = f"price of {name} is {price} $/h; set a positive price for pool {option.pool!r}"
        return rejection(name, "PriceMissing", 0.01, shown, "$/h", text)
    if len(option.throughput) != cells:
        text = f"profile of {name} has {len(option.throughput)} cells, the demand {cells}; use the same grid"
        return rejection(name, "ProfileHole", 1.0, len(option.throughput) / max(1, cells), "ratio", text)
    bad = [cell for cell, rate in enumerate(option.throughput) if not 0.0 <= rate < math.inf]
    if bad:
        text = f"throughput of {name} in cell {bad[0]} is {option.throughput[bad[0]]} requests/s"
        text += "; measure it again, or write 0 for infeasible"
        return rejection(name, "ProfileHole", 1.0, 1.0 - len(bad) / cells, "ratio", text)
    if option.gpus < 1 or option.min_units < 0:
        text = f"{name} takes {option.gpus} GPUs and at least {option.min_units} units; use 1 GPU or more"
        return rejection(name, "ProfileHole", 1.0, option.gpus, "GPU", text)
    extra = (option.startup_dollars, option.risk_dollars, option.watts)
    if not all(0.0 <= each < math.inf for each in extra):
        text = (
            f"{name} starts for {extra[0]} $/h, risks {extra[1]} $/h and draws {extra[2]} W; give all, from 0"
        )
        return rejection(name, "ProfileHole", 1.0, 0.0, "ratio", text)
    if not 0.0 < option.concurrency < math.inf:
        text = f"concurrency of {name} is {option.concurrency}; give the running requests of one replica"
        return rejection(name, "ProfileHole", 1.0, 0.0, "ratio", text)
    return None


def _unavailable(option: VariantOption, problem: MixProblem) -> Rejection | None:
    name, need = option.name, option.gpus * max(1, option.min_units)
    if option.pool not in problem.inventory:
        text = f"pool {option.pool!r} of {name} is not in the inventory; add the pool or drop the variant"
        return rejection(name, "NoInventory", need, 0, "GPU", text)
    free = problem.inventory[option.pool]
    if free is not None and free < need:
        text = f"{name} takes {need} GPUs of pool {option.pool!r}, where {free} are free; add nodes there"
        return rejection(name, "NoInventory", need, free, "GPU", text)
    pairs = list(zip(problem.demand, option.throughput, strict=True))
    wanted = sum(1 for rate, _ in pairs if rate > 0.0)
    if wanted and not any(rate > 0.0 and throughput > 0.0 for rate, throughput in pairs):
        text = f"{name} keeps the objective in none of the {wanted} request sizes asked for; relax it"
        return rejection(name, "ProfileHole", 1.0, 0.0, "ratio", text)
    return None

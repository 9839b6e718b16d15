"""Promises beyond price: spot share, surviving a loss, starts that are charged, watts; each against enumeration."""

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from placement.selection.checker import check, exposed_dollars, usable
from placement.selection.mix import solve_mix, solve_ranked
from placement.selection.problem import MixProblem, RequestClass, SelectionInputError, VariantOption
from tests.placement.mixes import OPTIONS, problem

CHAT = RequestClass(name="chat", cells=(0, 1))
SPOT = VariantOption(
    name="spot", pool="spot", dollars_per_hour=1.0, throughput=(10.0, 5.0, 2.0), concurrency=64, spot=True
)


def enumerated(task: MixProblem, most: int) -> float:
    """Least objective over all count vectors up to ``most``, each routed by a linear programme of its own."""
    candidates = []
    for counts in itertools.product(range(most + 1), repeat=len(task.variants)):
        named = {option.name: n for option, n in zip(task.variants, counts, strict=True)}
        if _within(task, named):
            pairs = zip(counts, task.variants, strict=True)
            candidates.append((sum(_paid(n, option) for n, option in pairs), counts, named))
    found = math.inf
    for paid, counts, named in sorted(candidates, key=lambda each: each[:2]):
        if paid >= found:
            break
        found = min(found, paid + _unserved(task, counts) + exposed_dollars(task, named))
    return found


def _paid(units: int, option: VariantOption) -> float:
    return units * option.dollars_per_hour + option.startup_dollars * max(0, units - option.standing_units)


def _within(task: MixProblem, named: dict[str, int]) -> bool:
    for pool, free in task.inventory.items():
        used = sum(o.gpus * named[o.name] for o in task.variants if o.pool == pool)
        if free is not None and used > free:
            return False
    return all(
        sum(o.watts * named[o.name] for o in task.variants if o.domain == domain) <= watts
        for domain, watts in task.budget_watts.items()
    )


def _unserved(task: MixProblem, counts: tuple[int, ...]) -> float:
    cells, prices = len(task.demand), task.unserved_prices()
    pairs = [
        (b, v) for b in range(cells) for v, o in enumerate(task.variants) if o.throughput[b] > 0 and counts[v]
    ]
    cost = [prices[b] * task.demand[b] for b in range(cells)] + [0.0] * len(pairs)
    equal, below, room = np.zeros((cells, len(cost))), [], []
    equal[:, :cells] = np.eye(cells)
    busy = np.zeros((len(counts), len(cost)))
    for k, (b, v) in enumerate(pairs, start=cells):
        equal[b, k] = 1.0
        busy[v, k] = task.demand[b] / task.variants[v].throughput[b]
    below.extend(busy)
    room.extend(usable(n, o.concurrency, task.headroom) for n, o in zip(counts, task.variants, strict=True))
    for each in task.classes:
        row = np.zeros(len(cost))
        for k, (b, v) in enumerate(pairs, start=cells):
            row[k] = task.demand[b] if b in each.cells and task.variants[v].spot else 0.0
        below.append(row)
        room.append(each.spot_share * sum(task.demand[b] for b in each.cells))
    found = linprog(cost, A_ub=np.array(below), b_ub=room, A_eq=equal, b_eq=np.ones(cells), method="highs")
    return float(found.fun)


def with_spot(**changes) -> MixProblem:
    inventory = {"big": None, "mid": None, "small": None, "spot": None}
    return problem(**{"variants": (*OPTIONS, SPOT), "inventory": inventory, **changes})


def test_all_goes_to_spot_where_nobody_minds():
    found = solve_mix(with_spot())
    assert set(found.counts) == {"spot"}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_class_keeps_to_its_share_on_spot_at_the_least_cost(share):
    task = with_spot(classes=(msgspec.structs.replace(CHAT, spot_share=share),))
    found = solve_mix(task)
    assert check(task, found) == ()
    routed = sum(task.demand[cell] * found.routing.get("spot", (0, 0, 0))[cell] for cell in CHAT.cells)
    assert routed <= share * 12.0 + 1e-6
    assert found.objective_per_hour == pytest.approx(enumerated(task, 7))


def test_a_class_that_survives_a_loss_has_a_spare():
    plain = problem(demand=(4.0, 1.0, 0.0), headroom=False)
    sure = msgspec.structs.replace(plain, classes=(msgspec.structs.replace(CHAT, survives_loss=True),))
    found = solve_mix(sure)
    assert (found.exposed_per_hour, check(sure, found)) == (0.0, ())
    assert found.objective_per_hour > solve_mix(plain).objective_per_hour
    assert found.objective_per_hour == pytest.approx(enumerated(sure, 6))


def test_what_cannot_survive_is_served_all_the_same_and_told_as_exposed():
    options = tuple(msgspec.structs.replace(each, max_units=1) for each in OPTIONS[:1])
    task = problem(
        demand=(4.0, 1.0, 0.0),
        variants=options,
        classes=(msgspec.structs.replace(CHAT, survives_loss=True),),
        headroom=False,
    )
    found = solve_mix(task)
    assert found.counts == {"big": 1}
    assert found.unserved_per_second == 0.0
    assert found.exposed_per_hour == pytest.approx(5.0 * 1000.0)
    assert check(task, found) == ()


def test_starts_are_charged_so_that_a_plan_stays():
    now = solve_mix(problem())
    dearer = tuple(
        msgspec.structs.replace(each, standing_units=now.counts.get(each.name, 0), startup_dollars=2.0)
        for each in OPTIONS
    )
    more = (9.0, 4.5, 1.1)
    free, charged = solve_mix(problem(demand=more)), solve_mix(problem(demand=more, variants=dearer))
    started = sum(max(0, n - now.counts.get(name, 0)) for name, n in charged.counts.items())
    assert started <= sum(max(0, n - now.counts.get(name, 0)) for name, n in free.counts.items())
    assert charged.startup_per_hour == pytest.approx(2.0 * started)
    assert charged.objective_per_hour == pytest.approx(enumerated(problem(demand=more, variants=dearer), 6))


def test_watts_of_a_domain_are_a_limit():
    hot = tuple(
        msgspec.structs.replace(each, watts=700.0 if each.name == "big" else 200.0, domain="row")
        for each in OPTIONS
    )
    task = problem(variants=hot, budget_watts={"row": 1500.0})
    found = solve_mix(task)
    assert check(task, found) == ()
    assert found.objective_per_hour == pytest.approx(enumerated(task, 7))
    assert solve_mix(problem(variants=hot, budget_watts={"row": 0.0})).counts == {}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"classes": (RequestClass(name="a", cells=(0, 7)),)}, "cell 7 of class 'a' is not in", id="no such cell"),
        pytest.param({"classes": (CHAT, RequestClass(name="b", cells=(1,)))}, "cell 1 of class 'b' is in class 'chat' too", id="a cell in two classes"),
        pytest.param({"classes": (RequestClass(name="a", cells=(), spot_share=1.5),)}, "spot_share of class 'a' is 1.5", id="a share above 1"),
        pytest.param({"budget_watts": {"row": math.nan}}, "budget of power domain 'row' is nan", id="no number of watts"),
    ],
)  # fmt: skip
def test_promises_that_make_no_sense_are_said(changes, sentence):
    with pytest.raises(SelectionInputError, match=sentence):
        solve_mix(problem(**changes))


@st.composite
def tasks(draw):
    rates = st.sampled_from([0.0, 0.5, 1.0, 2.5, 4.0])
    speeds = st.sampled_from([0.0, 0.8, 2.0, 5.0])
    demand = tuple(draw(rates) for _ in range(3))
    options = tuple(
        VariantOption(
            name=name,
            pool="shared" if v < 2 else "own",
            dollars_per_hour=draw(st.sampled_from([0.7, 1.1, 2.0, 3.9])),
            throughput=tuple(draw(speeds) for _ in demand),
            concurrency=draw(st.sampled_from([4.0, 30.0])),
            spot=draw(st.booleans()),
            standing_units=draw(st.integers(0, 2)),
            startup_dollars=draw(st.sampled_from([0.0, 0.5])),
            watts=draw(st.sampled_from([0.0, 300.0])),
            domain="row",
        )
        for v, name in enumerate(("a", "b", "c"))
    )
    return MixProblem(
        demand=demand,
        variants=options,
        inventory={"shared": draw(st.sampled_from([1, 3, 4])), "own": draw(st.sampled_from([1, 3]))},
        unserved_dollars=draw(st.sampled_from([1.0, 6.0, 100.0])),
        headroom=draw(st.booleans()),
        classes=(
            RequestClass(
                name="x",
                cells=(0, 1),
                spot_share=draw(st.sampled_from([0.0, 0.5, 1.0])),
                survives_loss=draw(st.booleans()),
            ),
        ),
        budget_watts={"row": draw(st.sampled_from([600.0, 10_000.0]))},
    )


@settings(max_examples=25, deadline=None)
@given(task=tasks())
def test_random_promises_are_kept_at_the_enumerated_optimum(task):
    best, second = solve_ranked(task, 2)
    assert check(task, best) == ()
    assert best.optimal
    assert best.objective_per_hour == pytest.approx(enumerated(task, 4), abs=1e-6)
    assert not second.feasible or second.objective_per_hour >= best.objective_per_hour - 1e-9

"""Plans by size between planner and gateways: when a service has one, what it says, and when a new one is sent."""

import re

import msgspec
import numpy as np
import pytest

from cluster import actions as act
from cluster.checks import check
from cluster.overlay import Overlay
from cluster.reasons import render
from cluster.serving import Objective, Policies, ReplicaPhase
from cluster.size_plan import fault_of
from cluster.targets import Mix, MixPart, Routes, SizeShares
from policies.commit.by_priority import ByPriority
from policies.dispatch.choices import BY_SIZE, DEFAULT, dispatch_of, dispatch_policies
from policies.frames import frame_of
from policies.groups import Groups
from policies.mixes import demand_of, problem_of, sized_mix, solved
from policies.options import MixOptions, options_of, routes_by_size
from policies.place.best_fit import BestFit
from policies.place.plans import described, moved
from policies.registry import DEFAULTS
from policies.shapes import declared
from policies.sizing import allowed_cells
from tests.policies.builders import NOW, ClusterBuilder, context
from tests.policies.test_best_fit import SERVICE

SIZED, BLENDED = (Policies(name={"dispatch": name}) for name in ("size_aware", "least_outstanding"))
PROMISE = (Objective(ttft_seconds=2.0, tpot_seconds=0.1),)


def cluster(**more) -> ClusterBuilder:
    """Eight L4 and eight A100-80, and a service that dispatches by size."""
    made = ClusterBuilder().with_pool("l4-od", "L4").with_pool("a100-od", "A100-80")
    made.with_nodes(2, "l4-od", gpus=4).with_nodes(1, "a100-od", gpus=8)
    return made.with_service(SERVICE, "L4", "A100-80", **{"policies": SIZED, "objectives": PROMISE, **more})


def frame(made: ClusterBuilder):
    view = made.build()
    return frame_of(Groups(view), view.services[SERVICE], {})


def routed(made: ClusterBuilder, **config):
    """The one SetRoutes of a run of place, or None."""
    policy = BestFit(msgspec.convert(config, type(BestFit()._config)))
    plan = policy.decide(made.build(), policy.initial(), context()).plan
    found = [action for action in plan.actions if isinstance(action, act.SetRoutes)]
    assert len(found) <= 1
    return found[0] if found else None


def two(made: ClusterBuilder, share: float = 0.9, **more) -> ClusterBuilder:
    """One ready replica of each product; a final mix that means `share` of small sizes for L4, and the rest for A100."""
    edges = frame(made).edges
    cells = len(edges[0]) * len(edges[1])
    small = tuple(share if cell < cells // 2 else 0.0 for cell in range(cells))
    parts = (
        MixPart(variant="L4x1-bf16", pool="l4-od", units=1, weight=0.5),
        MixPart(variant="A100-80x1-bf16", pool="a100-od", units=1, weight=0.5),
    )
    shares = {
        "default|L4x1-bf16|l4-od": small, "default|A100-80x1-bf16|a100-od": tuple(round(1.0 - each, 3) for each in small)
    }  # fmt: skip
    mix = Mix(parts=parts, sizes=SizeShares(input_edges=edges[0], output_edges=edges[1], shares=shares))
    made.with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1), ("A100-80", "a100-od", 1), **more)
    capacity = made.parts["targets"][f"Capacity/{SERVICE}"]
    made.with_target(msgspec.structs.replace(capacity, mix=mix))
    made.parts.setdefault("replicas", {}).clear()
    made.with_replica(SERVICE, "L4", "l4-od-0", ordinal=1).with_replica(
        SERVICE, "A100-80", "a100-od-0", ordinal=2
    )
    return made


def standing(made: ClusterBuilder, routes: act.SetRoutes) -> ClusterBuilder:
    """The same cluster with the routes in force."""
    for key, weight in routes.weights.items():
        made.with_row(key, route_weight=weight)
    return made.with_target(
        Routes(owner="place", decided_seconds=NOW, service=SERVICE, weights=routes.weights, plan=routes.plan)
    )


# ------------------------------------------------------------------------------------------ who is planned by size


@pytest.mark.parametrize(
    ("policies", "known", "expected"),
    [
        pytest.param(SIZED, np.nan, True, id="it dispatches by size, and no gateway reports yet"),
        pytest.param(SIZED, 1.0, True, id="every gateway that reports knows plans"),
        pytest.param(SIZED, 0.0, False, id="a gateway of an older version is there still"),
        pytest.param(BLENDED, 1.0, False, id="it dispatches by weight"),
    ],
)
def test_a_service_is_planned_by_size_where_its_requests_are_dispatched_so(policies, known, expected):
    made = two(cluster(policies=policies)).with_signal(SERVICE, size_plans=known)
    view = made.build()
    groups = Groups(view)
    assert routes_by_size(groups, view.services[SERVICE]) is expected
    options = options_of(groups, view.services[SERVICE], True, 7)
    assert options == MixOptions(True, 7, by_size=expected, spills=expected)
    routes = routed(made)
    assert (routes.plan is not None) is expected


def test_the_policy_of_who_names_none_is_the_registrys():
    assert DEFAULTS["dispatch"] == DEFAULT
    assert set(dispatch_policies()) >= {DEFAULT, *BY_SIZE}
    assert dispatch_of(cluster(policies=Policies()).build().services[SERVICE]) == DEFAULT


def test_a_final_mix_says_where_each_size_goes_and_a_blend_does_not():
    for policies, sized in ((SIZED, True), (BLENDED, False)):
        made = cluster(policies=policies).with_capacity(SERVICE, 9.0, final=False).with_load(SERVICE, 9.0)
        policy = ByPriority()
        decided = policy.decide(made.build(), policy.initial(), context()).plan
        (capacity,) = (t for t in decided.targets if type(t).__name__ == "Capacity")
        assert (capacity.mix.sizes is not None) is sized
        assert all(other.mix.sizes is None for other in capacity.alternatives)


def test_sizes_of_a_mix_carry_the_shares_that_its_routing_sums():
    made = cluster()
    found = frame(made)
    shares = found.shares(declared(made.parts["services"][SERVICE]))
    options = MixOptions(by_size=True, spills=True)
    solution = solved(problem_of(found, shares, 9.0, None, None, options), {}).best
    mix = sized_mix(found, shares, 9.0, solution, options)
    demand = demand_of(found, shares, 9.0, options)
    for key, grid in mix.sizes.shares.items():
        summed = sum(
            rate * grid[int(cells[0])] for rate, cells in zip(demand.rates, demand.cells, strict=True)
        )
        assert summed / demand.rates.sum() == pytest.approx(mix.routing[key], abs=2e-3)


def test_one_deviation_is_kept_by_size_and_two_for_blends():
    made = cluster()
    found = frame(made)
    shares = found.shares(declared(made.parts["services"][SERVICE]))
    by_size = problem_of(found, shares, 9.0, None, None, MixOptions(by_size=True, spills=True))
    blend = problem_of(found, shares, 9.0, None, None, MixOptions())
    for sized, plain in zip(by_size.variants, blend.variants, strict=True):
        assert sized.concurrency > 2.0 * plain.concurrency
    masks = allowed_cells(found, shares)
    for column, option in zip(found.columns, by_size.variants, strict=True):
        demand = demand_of(found, shares, 9.0, MixOptions(by_size=True))
        mask = masks[column.profile.variant.key][[int(cells[0]) for cells in demand.cells]]
        assert all(rate == 0.0 for rate, may in zip(option.throughput, mask, strict=True) if not may)


# ------------------------------------------------------------------------------------------------ what a plan says


def test_the_plan_has_the_mixs_shares_and_what_its_columns_are_able_to():
    made = two(cluster())
    plan = routed(made).plan
    assert fault_of(plan) == ""
    assert [column.name for column in plan.columns] == ["A100-80x1-bf16|a100-od", "L4x1-bf16|l4-od"]
    own, profiles = plan.of("default"), frame(made).profiles
    sizes = made.parts["targets"][f"Capacity/{SERVICE}"].mix.sizes.shares
    assert own.shares == (sizes["default|A100-80x1-bf16|a100-od"], sizes["default|L4x1-bf16|l4-od"])
    assert own.able[1] == tuple((profiles["L4x1-bf16"].throughput > 0.0).tolist())
    assert [column.steps for column in plan.columns] == [
        profiles[k].steps for k in ("A100-80x1-bf16", "L4x1-bf16")
    ]
    assert (own.ttft_seconds, own.tpot_seconds) == (2.0, 0.1)


def test_what_follows_a_request_is_the_prompts_of_its_column_over_their_answers():
    made = two(cluster(expected_input_tokens=1_000.0, expected_output_tokens=250.0))
    plan = routed(made).plan
    for column in plan.columns:
        steps = column.steps
        one = (steps.prompt_seconds * 1_000 + steps.pair_seconds * 1_000**2) / 250
        assert column.refill_seconds == pytest.approx(one, rel=0.2)  # sizes lie between the grid's points
    shares = frame(made).shares(declared(made.parts["services"][SERVICE]))
    text = described(plan, shares)
    assert sum(int(part) for part in re.findall(r"(\d+)%", text)) == pytest.approx(100, abs=2)
    assert re.search(
        r"% \(about 9\d\d \+ 2\d\d\) to A100-80x1-bf16\|a100-od|% \(about 1\d{3} \+ 2\d\d\) to", text
    ), text


def test_people_are_told_where_sizes_go():
    made = two(cluster())
    policy = BestFit()
    plan = policy.decide(made.build(), policy.initial(), context()).plan
    (reason,) = (each for each in plan.reasons if each.code == "SizesRouted")
    assert "to L4x1-bf16|l4-od" in render(reason) or "to A100-80x1-bf16|a100-od" in render(reason)
    standing(made, routed(made))
    again = policy.decide(made.build(), policy.initial(), context()).plan
    assert [each for each in again.reasons if each.code == "SizesRouted"] == []


def test_what_is_there_beside_the_mix_is_a_column_without_shares():
    made = two(cluster()).with_pool("l4-spot", "L4", 0.3).with_nodes(1, "l4-spot", gpus=4)
    made.with_replica(SERVICE, "L4", "l4-spot-0", ordinal=3)
    plan = routed(made).plan
    assert [column.name for column in plan.columns][-1] == "L4x1-bf16|l4-spot"
    assert not any(plan.of("default").shares[-1])
    assert any(plan.of("default").able[-1])


def test_a_mix_without_sizes_is_planned_alike_for_every_size():
    made = two(cluster())
    capacity = made.parts["targets"][f"Capacity/{SERVICE}"]
    routing = {"default|L4x1-bf16|l4-od": 0.25, "default|A100-80x1-bf16|a100-od": 0.75}
    made.with_target(
        msgspec.structs.replace(
            capacity, mix=msgspec.structs.replace(capacity.mix, sizes=None, routing=routing)
        )
    )
    own = routed(made).plan.of("default")
    assert [set(grid) for grid in own.shares] == [{0.75}, {0.25}]


def test_of_several_classes_the_strictest_promise_holds_where_both_are_planned():
    classes = (
        Objective(request_class="batch", ttft_seconds=9.0, tpot_seconds=0.3),
        Objective(request_class="chat", ttft_seconds=2.0, tpot_seconds=0.1),
    )
    made = two(cluster(objectives=classes))
    capacity = made.parts["targets"][f"Capacity/{SERVICE}"]
    routing = {
        "batch|L4x1-bf16|l4-od": 1.0,
        "batch|A100-80x1-bf16|a100-od": 0.0,
        "chat|A100-80x1-bf16|a100-od": 1.0,
    }
    mix = msgspec.structs.replace(capacity.mix, sizes=None, routing=routing)
    made.with_target(msgspec.structs.replace(capacity, mix=mix))
    plan = routed(made).plan
    assert [each.request_class for each in plan.classes] == ["batch", "chat"]
    assert [column.tpot_seconds for column in plan.columns] == [0.1, 0.3]


def test_a_held_service_keeps_the_plan_that_stands():
    made = two(cluster())
    routes = routed(made)
    standing(made, routes).changing("services", SERVICE, held="paused")
    made.parts["replicas"] = {
        key: replica for key, replica in made.parts["replicas"].items() if replica.variant.accelerator == "L4"
    }
    again = routed(made)
    assert again.plan == routes.plan
    assert list(again.weights.values()) == [1.0]


def test_a_service_whose_dispatch_changes_loses_its_plan():
    made = two(cluster())
    standing(made, routed(made)).changing("services", SERVICE, policies=BLENDED)
    assert routed(made).plan is None


# --------------------------------------------------------------------------------------------- when it is sent


def test_a_plan_in_force_is_not_sent_again():
    made = two(cluster())
    assert routed(standing(made, routed(made))) is None


@pytest.mark.parametrize(
    ("share", "sent"),
    [
        pytest.param(0.89, False, id="one request in a hundred would go elsewhere: not worth a table"),
        pytest.param(0.7, True, id="one in five would: it is"),
    ],
)
def test_a_plan_that_moves_few_requests_is_left_alone(share, sent):
    made = two(cluster())
    standing(made, routed(made))
    routes = routed(two(made, share))
    assert (routes is not None) is sent


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda m: m.changing("services", SERVICE, objectives=(Objective(ttft_seconds=3.0, tpot_seconds=0.1),)),
                     "promises", id="another promise"),
        pytest.param(lambda m: m.with_pool("l4-spot", "L4", 0.3).with_nodes(1, "l4-spot", gpus=4).with_replica(
                     SERVICE, "L4", "l4-spot-0", ordinal=3), "columns", id="another column"),
    ],
)  # fmt: skip
def test_what_gateways_must_know_is_sent_at_once(change, why):
    made = two(cluster())
    before = routed(made)
    assert routed(change(standing(made, before))).plan != before.plan, why


def test_how_many_requests_two_plans_mean_for_different_columns():
    made = two(cluster())
    before = routed(made).plan
    after = routed(two(cluster(), 0.4)).plan
    shares = frame(made).shares(declared(made.parts["services"][SERVICE]))
    cells = before.cells
    assert moved(before, after, shares) == pytest.approx(0.5 * shares[: cells // 2].sum(), abs=1e-6)
    assert moved(before, before, shares) == 0.0


def test_routes_stand_once_they_are_carried_out_and_an_unsound_plan_is_not():
    made = two(cluster())
    routes, view = routed(made), made.build()
    stamped = act.Stamped(
        id="1/place/1/0", action=routes, loop="place", epoch=1, issued_seconds=NOW, deadline_seconds=NOW + 9
    )
    overlay = Overlay(view)
    assert check(overlay, stamped, NOW) is None
    overlay.apply(routes)
    assert overlay.snapshot().routes(SERVICE).plan == routes.plan
    bad = msgspec.structs.replace(routes, plan=msgspec.structs.replace(routes.plan, columns=()))
    drop = check(Overlay(view), msgspec.structs.replace(stamped, action=bad), NOW)
    assert (drop.code, "columns" in drop.what) == ("Unsafe", True)


def test_a_replica_that_goes_keeps_its_column_until_it_is_gone():
    made = two(cluster())
    key = next(key for key in made.parts["replicas"] if "l4x1" in key)
    made.changing("replicas", key, phase=ReplicaPhase.DRAINING)
    plan = routed(made).plan
    assert [column.name for column in plan.columns] == ["A100-80x1-bf16|a100-od", "L4x1-bf16|l4-od"]

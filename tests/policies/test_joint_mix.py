"""Joint selection: services that compete share the pools by worth, and commitment keeps everybody's part."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.plan import Plan
from cluster.reasons import render
from cluster.serving import Objective
from cluster.snapshot import Snapshot
from cluster.targets import Capacity, Menu, Prices
from policies.planner import PlannerStates, run_planner
from policies.select.joint_mix import JointMix, JointMixConfig
from tests.policies.builders import ClusterBuilder, a_cluster, context


def cluster(l4: int = 4, a100: int = 4) -> ClusterBuilder:
    made = a_cluster()
    for name, gpus in (("L4", l4), ("A100-80", a100)):
        made.with_pool(f"{name.lower()}-od", name).with_nodes(1, f"{name.lower()}-od", gpus=gpus)
    return made


def serving(
    made: ClusterBuilder, name: str, rate: float, dollars: float = 50.0, priority: int = 0, **promised: Any
) -> ClusterBuilder:
    promise = Objective(
        ttft_seconds=2.0, tpot_seconds=0.1, unserved_dollars=dollars, priority=priority, **promised
    )
    made.with_service(name, "L4", "A100-80", expected_requests_per_second=rate, objectives=(promise,))
    return made.with_load(name, rate)


def contested() -> ClusterBuilder:
    made = serving(cluster(), "shop/a", 16.0)
    return serving(serving(made, "shop/b", 16.0, dollars=500.0), "shop/c", 8.0)


def select(view: Snapshot, **config: Any) -> tuple[dict[str, Menu], Plan]:
    policy = JointMix(JointMixConfig(**config))
    plan = policy.decide(view, policy.initial(), context(loop="select")).plan
    for reason in plan.reasons:
        assert render(reason)
    return {t.service: t for t in plan.targets if isinstance(t, Menu)}, plan


def capacities(view: Snapshot, policy: str) -> dict[str, Capacity]:
    run = run_planner(view, PlannerStates(), context(), {"select": (policy, {})})
    return {t.service: t for t in run.snapshot.targets.values() if isinstance(t, Capacity)}


def gpus(menus: dict[str, Menu]) -> dict[str, int]:
    found: dict[str, int] = {}
    for menu in menus.values():
        for part in menu.mixes[0].parts:
            found[part.pool] = found.get(part.pool, 0) + part.units
    return found


def test_services_that_do_not_compete_have_their_own_optima():
    view = serving(serving(cluster(16, 16), "shop/a", 4.0), "shop/b", 4.0).build()
    menus, plan = select(view)
    assert {menu.joint for menu in menus.values()} == {False}
    assert [r for r in plan.reasons if r.code == "MixAllotted"] == []


def test_services_that_compete_share_the_pools_within_their_inventory():
    menus, plan = select(contested().build())
    assert {menu.joint for menu in menus.values()} == {True}
    used = gpus(menus)
    assert used["l4-od"] <= 4
    assert used["a100-80-od"] <= 4
    reasons = [r for r in plan.reasons if r.code == "MixAllotted"]
    assert {r.subject.name for r in reasons} == {"shop/a", "shop/b", "shop/c"}
    for reason in reasons:
        assert reason.have.value >= reason.limit.value - 1e-6
        assert render(reason).startswith("3 services want more GPUs than there are")
        assert reason.against[0].cost.value >= -1e-6  # the runner-up's regret


def test_what_is_shed_says_what_would_cure_it():
    _, plan = select(serving(serving(cluster(1, 1), "shop/a", 16.0), "shop/b", 16.0).build())
    remedies = [r.remedy for r in plan.reasons if r.code == "MixAllotted" and r.remedy is not None]
    assert remedies
    assert all(each.code == "AddCapacity" and each.facts[0].value >= 1 for each in remedies)


def test_the_dearer_load_is_served_where_not_all_can_be():
    made = serving(serving(cluster(0, 1), "shop/cheap", 12.0, dollars=1.0), "shop/dear", 12.0, dollars=900.0)
    menus, _ = select(made.build())
    assert menus["shop/dear"].mixes[0].text == "1 A100-80x1-bf16"
    assert menus["shop/cheap"].mixes[0].text == "nothing"


def test_a_higher_priority_is_planned_first_whatever_the_prices():
    made = serving(cluster(0, 1), "shop/first", 12.0, dollars=60.0, priority=5)
    made = serving(serving(made, "shop/dear", 12.0, dollars=900.0), "shop/other", 12.0, dollars=900.0)
    menus, _ = select(made.build())
    assert menus["shop/first"].joint is False
    assert [name for name in ("shop/dear", "shop/other") if menus[name].mixes[0].parts] == []
    final = capacities(made.build(), "joint_mix")
    assert final["shop/first"].mix.text == "1 A100-80x1-bf16"


def test_commitment_keeps_everybodys_part():
    view = contested().build()
    greedy, joint = capacities(view, "cheapest_mix"), capacities(view, "joint_mix")
    menus, _ = select(view)
    assert greedy["shop/c"].mix.parts == ()  # by name, the last one finds nothing
    for name, menu in menus.items():
        assert joint[name].mix.text == menu.mixes[0].text
    worth = {"shop/a": 50.0, "shop/b": 500.0, "shop/c": 50.0}
    lost = [sum(worth[n] * c.mix.unserved_per_second for n, c in caps.items()) for caps in (greedy, joint)]
    assert lost[1] < lost[0]


def test_who_holds_more_than_its_part_gives_way_and_who_waits_gets_it_next():
    made = contested().with_capacity("shop/a", 16.0, ("A100-80", "a100-80-od", 4))
    for number in range(4):
        made.with_replica("shop/a", "A100-80", "a100-80-od-0", devices=(number,), age=10_000.0)
    final = capacities(made.build(), "joint_mix")
    menus, _ = select(made.build())
    mine = {p.pool: p.units for p in final["shop/a"].mix.parts}
    part = {p.pool: p.units for p in menus["shop/a"].mixes[0].parts}
    assert mine.get("a100-80-od", 0) == part.get("a100-80-od", 0) < 4


def test_a_part_that_stands_is_not_told_again():
    made = contested()
    menus, _ = select(made.build())
    for menu in menus.values():
        made.with_target(menu)
    again, _ = select(made.build())
    assert again == {}


@pytest.mark.parametrize("survives", [False, True])
def test_a_class_that_must_survive_a_loss_gets_a_spare_though_gpus_are_short(survives):
    made = serving(cluster(0, 5), "shop/a", 3.0, dollars=500.0, survives_loss=survives)
    menus, _ = select(serving(made, "shop/b", 40.0, dollars=10.0).build())
    units = sum(part.units for part in menus["shop/a"].mixes[0].parts)
    assert menus["shop/a"].joint
    assert units == (2 if survives else 1)


def test_work_that_is_spent_leaves_a_complete_plan():
    menus, _ = select(contested().build(), fleet_work_units=1)
    assert {menu.joint for menu in menus.values()} == {True}
    assert all(count <= 4 for count in gpus(menus).values())


@pytest.mark.parametrize(
    ("age", "held"), [(10.0, True), (10_000.0, False)], ids=["just begun to serve", "served long enough"]
)
def test_a_replica_that_has_only_just_begun_is_not_given_up(age, held):
    made = serving(cluster(0, 2), "shop/a", 0.2, dollars=1.0).with_capacity(
        "shop/a", 0.2, ("A100-80", "a100-80-od", 1)
    )
    made.with_replica("shop/a", "A100-80", "a100-80-od-0", age=age)
    menus, _ = select(serving(made, "shop/b", 60.0, dollars=900.0).build())
    assert menus["shop/a"].joint
    assert (menus["shop/a"].mixes[0].text != "nothing") is held


def test_groups_of_gpus_need_them_on_one_node():
    made = a_cluster().with_pool("a100-80-od", "A100-80").with_nodes(2, "a100-80-od", gpus=3)
    promise = (Objective(ttft_seconds=2.0, tpot_seconds=0.1, unserved_dollars=500.0),)
    for name in ("shop/a", "shop/b"):
        made.with_service(name, "A100-80x2", expected_requests_per_second=90.0, objectives=promise)
        made.with_load(name, 90.0)
    menus, _ = select(made.build())
    units = {name: sum(part.units for part in menu.mixes[0].parts) for name, menu in menus.items()}
    assert max(units.values()) <= 2


def test_a_service_that_wants_nothing_takes_nothing():
    made = contested().with_service("shop/idle", "A100-80").with_capacity("shop/idle", 0.0)
    menus, _ = select(made.build())
    assert menus["shop/idle"].joint is False
    assert menus["shop/a"].joint is True


def test_only_services_that_share_pools_are_planned_together():
    made = serving(serving(cluster(0, 1), "shop/a", 12.0), "shop/b", 12.0)
    made.with_pool("h100-od", "H100").with_nodes(1, "h100-od", gpus=8)
    promise = (Objective(ttft_seconds=2.0, tpot_seconds=0.1),)
    made.with_service("lab/apart", "H100", expected_requests_per_second=4.0, objectives=promise)
    menus, plan = select(made.with_load("lab/apart", 4.0).build())
    assert {name: menu.joint for name, menu in menus.items()} == {
        "lab/apart": False,
        "shop/a": True,
        "shop/b": True,
    }
    assert {r.need.value for r in plan.reasons if r.code == "MixAllotted"} == {2.0}


def test_a_chain_of_shared_pools_makes_one_group():
    made = a_cluster()
    for name in ("L4", "A10G", "A100-80"):
        made.with_pool(f"{name.lower()}-od", name).with_nodes(1, f"{name.lower()}-od", gpus=1)
    promise = (Objective(ttft_seconds=2.0, tpot_seconds=0.1),)
    for name, products in (("a", ("L4", "A10G")), ("b", ("A10G", "A100-80")), ("c", ("A100-80",))):
        made.with_service(f"shop/{name}", *products, expected_requests_per_second=9.0, objectives=promise)
        made.with_load(f"shop/{name}", 9.0)
    menus, plan = select(made.build())
    assert {menu.joint for menu in menus.values()} == {True}
    assert {r.need.value for r in plan.reasons if r.code == "MixAllotted"} == {3.0}


def test_what_one_more_gpu_saves_is_in_the_menus_and_becomes_the_pools_price():
    view = serving(serving(cluster(0, 1), "shop/a", 12.0), "shop/b", 12.0).build()
    menus, _ = select(view)
    saves = menus["shop/a"].prices
    assert saves["a100-80-od"] > 1.0
    run = run_planner(view, PlannerStates(), context(), {"select": ("joint_mix", {})})
    prices = {t.pool: t.dollars_per_gpu_hour for t in run.snapshot.targets.values() if isinstance(t, Prices)}
    assert prices["a100-80-od"] >= saves["a100-80-od"]


def test_prices_are_remembered_in_the_state_and_an_unchanged_problem_begins_where_it_began():
    view, policy = contested().build(), JointMix()
    first = policy.decide(view, policy.initial(), context(loop="select"))
    (learnt,) = first.state.learnt.values()
    assert learnt.began == {}
    assert learnt.ended["a100-80-od"] > 0.0
    again = policy.decide(view, first.state, context(loop="select"))
    assert again.state == first.state
    assert [t for t in again.plan.targets if isinstance(t, Menu)] == [
        t for t in first.plan.targets if isinstance(t, Menu)
    ]
    changed = serving(contested(), "shop/c", 9.0).build()
    later = policy.decide(changed, first.state, context(loop="select")).state.learnt
    assert [each.began for each in later.values()] == [learnt.ended]

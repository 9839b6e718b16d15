"""Selection: menus, and why variants are out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.beliefs import Beliefs
from cluster.hardware import Offer
from cluster.plan import Plan
from cluster.reasons import render
from cluster.serving import Objective
from cluster.snapshot import Snapshot
from cluster.targets import Menu
from placement.models import model_spec
from placement.profiles.estimator import CapacityQuestion, RooflineCapacity, RooflineConfig
from policies.frames import frame_of
from policies.groups import Groups
from policies.mixes import cheapest, fits
from policies.options import MixOptions
from policies.select.cheapest_mix import CheapestMix, CheapestMixConfig
from policies.shapes import declared
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context, product, variant

SERVICE = "shop/chat"


def cluster(*products: str) -> ClusterBuilder:
    made = a_cluster()
    for name in products or ("L4", "A100-80"):
        made.with_pool(f"{name.lower()}-od", name).with_nodes(4, f"{name.lower()}-od", gpus=8)
    return made


def select(made: ClusterBuilder | Snapshot, **config: Any) -> tuple[Menu | None, Plan]:
    snapshot = made if isinstance(made, Snapshot) else made.build()
    policy = CheapestMix(CheapestMixConfig(**config))
    plan = policy.decide(snapshot, policy.initial(), context(loop="select")).plan
    for reason in plan.reasons:
        assert render(reason)
    return next((t for t in plan.targets if isinstance(t, Menu)), None), plan


def promise(ttft: float, tpot: float) -> dict[str, Any]:
    return {"objectives": (Objective(ttft_seconds=ttft, tpot_seconds=tpot),)}


def test_a_menu_is_cheapest_first_and_holds_each_variant_alone():
    made = cluster().with_service(SERVICE, "L4", "A100-80", expected_requests_per_second=12.0)
    menu, _ = select(made)
    costs = [mix.dollars_per_hour for mix in menu.mixes]
    assert costs == sorted(costs)
    texts = [mix.text for mix in menu.mixes]
    assert len(set(texts)) == len(texts)
    alone = [mix for mix in menu.mixes if len(mix.parts) == 1]
    assert {mix.parts[0].variant for mix in alone} == {"L4x1-bf16", "A100-80x1-bf16"}
    assert all(mix.requests_per_second >= 12.0 * (1 - 1e-6) for mix in menu.mixes)


def test_a_menu_that_stands_is_not_told_again():
    made = cluster().with_service(SERVICE, expected_requests_per_second=12.0)
    menu, _ = select(made)
    again, plan = select(made.with_target(menu))
    assert again is None
    assert plan.targets == ()


OUT = [
    # variants, service, code of the variant, need, have (None: not compared)
    pytest.param(["L4"], {"model": model_spec("llama-2-7b", {}), **promise(2.0, 0.04)}, "TpotFloor", 40.0, 45.0, id="fp16 7B on L4 at 40 ms: weights / bandwidth is 45 ms"),
    pytest.param(["L4"], promise(0.0001, 0.2), "TtftFloor", 0.1, None, id="a first token faster than light"),
    pytest.param(["L4"], {"model": model_spec("llama-3.1-70b", {})}, "MemoryTooSmall", None, None, id="70B in 24 GB"),
    pytest.param(["B300"], {}, "UnknownAccelerator", 1.0, 2.0, id="a product nobody knows"),
    pytest.param(["L4x16"], {}, "NoInventory", 16.0, 0.0, id="more GPUs than a node has"),
]  # fmt: skip


@pytest.mark.parametrize(("variants", "service", "code", "need", "have"), OUT)
def test_a_variant_is_out_with_numbers(
    variants: list[str], service: dict[str, Any], code: str, need: float | None, have: float | None
):
    _, plan = select(cluster().with_service(SERVICE, *variants, **service))
    reason = next(r for r in plan.reasons if r.code == code)
    if need is not None:
        assert reason.need.value == pytest.approx(need, abs=0.5)
    if have is not None:
        assert reason.have.value == pytest.approx(have, abs=0.5)


def test_an_impossible_objective_is_told_with_what_would_meet_it():
    made = cluster().with_service(SERVICE, "L4", model=model_spec("llama-2-7b", {}), **promise(2.0, 0.04))
    menu, plan = select(made)
    assert menu.mixes == ()
    reason = next(r for r in plan.reasons if r.code == "ObjectiveImpossible")
    assert reason.need.value == pytest.approx(45.0, abs=0.5)
    assert reason.limit.value == pytest.approx(40.0)
    assert reason.remedy.code == "RelaxObjective"
    assert "45 ms" in render(reason)


def test_no_inventory_of_any_allowed_product():
    made = cluster("L4").with_service(SERVICE, "H100")
    made.parts["accelerators"]["H100"] = product("H100")
    menu, plan = select(made)
    assert menu.mixes == ()
    whole = [r for r in plan.reasons if r.code == "NoInventory" and r.remedy is not None]
    assert whole[0].limit.value == 32
    assert whole[0].choice == "H100"


def test_a_pool_without_a_price_is_not_bought_from():
    made = cluster("L4", "A100-80")
    pool = made.parts["pools"]["l4-od"]
    made.changing("pools", "l4-od", dollars_per_gpu_hour=0.0).with_service(SERVICE, "L4", "A100-80")
    menu, plan = select(made)
    assert "PriceMissing" in [r.code for r in plan.reasons]
    assert {p.pool for mix in menu.mixes for p in mix.parts} == {"a100-80-od"}
    assert pool.dollars_per_gpu_hour > 0.0


def test_lost_nodes_are_no_inventory_but_busy_ones_are():
    made = cluster("L4").with_service(SERVICE, "L4", expected_requests_per_second=1.0)
    for node in sorted(made.parts["nodes"]):
        made.with_claim(f"other/{node}", node, *range(8))
    menu, _ = select(made)
    assert menu.mixes
    for node in sorted(made.parts["nodes"]):
        made.changing("nodes", node, offer=Offer.LOST)
    menu, plan = select(made)
    assert menu.mixes == ()
    assert "NoInventory" in [r.code for r in plan.reasons]


def test_a_variant_without_belief_is_a_hole_not_an_error():
    snapshot = cluster().with_service(SERVICE, "L4").build()
    menu, plan = select(msgspec.structs.replace(snapshot, beliefs=Beliefs()))
    assert menu.mixes == ()
    assert "ProfileHole" in [r.code for r in plan.reasons]


def test_headroom_makes_small_pools_dearer():
    made = cluster("L4").with_service(SERVICE, "L4", expected_requests_per_second=7.0)
    careful, _ = select(made)
    bold, _ = select(made, headroom=False)
    assert careful.mixes[0].dollars_per_hour > bold.mixes[0].dollars_per_hour


def test_two_services_of_one_model_may_promise_different_things():
    made = cluster("L4").with_service(
        "shop/fast", "L4", **promise(2.0, 0.08), expected_requests_per_second=5.0
    )
    made.with_service("shop/slow", "L4", **promise(10.0, 0.3), expected_requests_per_second=5.0)
    plan = select(made)[1]
    cost = {t.service: t.mixes[0].dollars_per_hour for t in plan.targets}
    assert cost["shop/fast"] > cost["shop/slow"]


def test_requests_beyond_every_profile_still_count_as_work():
    """Sizes no variant serves in time are served late, not forgotten."""
    made = cluster("L4").with_service(SERVICE, "L4", expected_requests_per_second=1.0, **promise(0.5, 0.1))
    snapshot = made.build()
    service = snapshot.services[SERVICE]
    frame = frame_of(Groups(snapshot), service, {})
    long = msgspec.structs.replace(service, expected_input_tokens=30_000.0)
    assert frame.shares(declared(service)).sum() == pytest.approx(1.0, abs=1e-4)
    shares = frame.shares(declared(long))
    assert shares.sum() > 2.0
    assert (frame.reference.throughput[shares > 0.0] > 0.0).all()


def test_limits_that_do_not_bind_do_not_make_a_new_problem():
    snapshot = cluster("L4", "A100-80").with_service(SERVICE, "L4", "A100-80").build()
    frame = frame_of(Groups(snapshot), snapshot.services[SERVICE], {})
    shares = frame.shares(declared(snapshot.services[SERVICE]))
    scratch: dict[str, Any] = {}
    for gpus in (32, 31, 900):
        free = {"l4-od": gpus, "a100-80-od": gpus}
        most = {column.name: gpus for column in frame.columns}
        found = cheapest(frame, shares, 9.0, free, most, MixOptions(), scratch)
        assert found.answer is found.roomy
    assert len(scratch["mixes"]) == 1
    tight = cheapest(
        frame, shares, 9.0, {"l4-od": 1, "a100-80-od": 0}, {"L4x1-bf16|l4-od": 1}, MixOptions(), scratch
    )
    assert tight.answer is not tight.roomy
    assert fits(tight.answer.best, frame, {"l4-od": 1, "a100-80-od": 0}, {"L4x1-bf16|l4-od": 1})
    assert tight.answer.best.unserved_per_second > 0.0


# ------------------------------------------------------------------------------------------------ the estimator


def question(text: str = "L4", **more: Any) -> CapacityQuestion:
    made = variant(text)
    fields: dict[str, Any] = {
        "model": model_spec("llama-3.1-8b", {}),
        "variant": made,
        "objective": Objective(ttft_seconds=2.0, tpot_seconds=0.1),
        "accelerator": product(made.accelerator),
    }
    return CapacityQuestion(**{**fields, **more})


def test_a_question_is_answered_once_and_under_its_promise():
    estimator = RooflineCapacity(RooflineConfig(error=0.1))
    state = estimator.fold(question(), estimator.initial())
    assert estimator.fold(question(), state) is state
    other = question(objective=Objective(ttft_seconds=2.0, tpot_seconds=0.05))
    believed = estimator.believe(estimator.fold(other, state), NOW)
    assert len(believed) == 2
    assert {b.as_of_seconds for b in believed.values()} == {NOW}
    assert {b.error for b in believed.values()} == {0.1}
    assert sum(believed[other.key].grid) < sum(believed[question().key].grid)


def test_a_question_without_an_answer_is_a_hole():
    estimator = RooflineCapacity()
    odd = question(variant=msgspec.structs.replace(variant("L4"), precision="fp3"))
    (belief,) = estimator.believe(estimator.fold(odd, estimator.initial()), NOW).values()
    assert belief.excluded == "ProfileHole"
    assert not any(belief.grid)

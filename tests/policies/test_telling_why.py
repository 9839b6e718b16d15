"""What people read about a choice of GPUs: each GPU that is not used and why, whose load is shed, and what would help."""

from __future__ import annotations

import pytest

from cluster.plan import Plan
from cluster.reasons import Alternative, Quantity, Remedy, render, render_alternative, render_remedy, sentence
from cluster.serving import Objective
from cluster.snapshot import Snapshot
from policies.planner import PlannerStates, run_planner
from tests.policies.builders import ClusterBuilder, a_cluster, context


def cluster(**gpus: int) -> ClusterBuilder:
    made = a_cluster()
    for name, count in gpus.items():
        product = {"a100": "A100-80"}.get(name, name.upper())
        made.with_pool(f"{name}-od", product).with_nodes(1, f"{name}-od", gpus=count)
    return made


def serving(
    made: ClusterBuilder, name: str, rate: float, *variants: str, dollars: float = 50.0
) -> ClusterBuilder:
    promise = Objective(ttft_seconds=2.0, tpot_seconds=0.1, unserved_dollars=dollars)
    made.with_service(name, *variants, expected_requests_per_second=rate, objectives=(promise,))
    return made.with_load(name, rate)


def told(view: Snapshot, stage: str, policy: str = "joint_mix") -> Plan:
    run = run_planner(view, PlannerStates(), context(), {"select": (policy, {})})
    return next(staged.plan for staged in run.stages if staged.stage == stage)


def test_every_gpu_that_could_serve_is_in_the_mix_or_named_with_its_numbers():
    made = cluster(l4=2, a10g=2, a100=8, h100=8)
    view = serving(made, "shop/a", 20.0, "L4", "A10G", "A100-80", "H100").build()
    (reason,) = [r for r in told(view, "commit").reasons if r.code == "MixChosen"]
    lines = [render_alternative(each) for each in reason.against]
    for product in ("L4", "A10G", "A100-80", "H100"):
        assert any(f"{product}x1" in text for text in (reason.choice, *lines)), (product, lines)
    few = [line for line in lines if "are free for it" in line]
    assert few
    assert all("in l4-od" in line or "in a10g-od" in line for line in few)


def test_a_gpu_that_keeps_the_promise_for_some_sizes_only_says_for_how_many():
    made = cluster(l4=8, a100=8)
    promise = Objective(ttft_seconds=0.3, tpot_seconds=0.1)
    made.with_service("shop/a", "L4", "A100-80", expected_requests_per_second=4.0, objectives=(promise,))
    made.with_load("shop/a", 4.0)
    (reason,) = [r for r in told(made.build(), "commit").reasons if r.code == "MixChosen"]
    partly = [each for each in reason.against if each.code == "ServesPartly"]
    assert [each.choice for each in partly] == ["L4x1-bf16 in l4-od"]
    assert 0.0 <= partly[0].facts[1].value < 1.0


def test_a_scarce_pool_says_what_one_more_gpu_saves_and_who_competes_for_it():
    made = serving(cluster(a100=1), "shop/a", 12.0, "A100-80")
    plan = told(serving(made, "shop/b", 12.0, "A100-80").build(), "select")
    (reason,) = [r for r in plan.reasons if r.code == "PoolScarce"]
    assert str(reason.subject.kind) == "Pool"
    assert {ref.name for ref in reason.refs} == {"shop/a", "shop/b"}
    text = render(reason)
    assert text.startswith("one more GPU of a100-od would save about $")
    assert text.endswith("2 services compete for its 1 GPU.")


def test_of_several_classes_those_are_told_that_go_short():
    promises = (
        Objective(request_class="chat", ttft_seconds=2.0, tpot_seconds=0.1, unserved_dollars=500.0),
        Objective(request_class="batch", ttft_seconds=2.0, tpot_seconds=0.1, unserved_dollars=5.0),
    )
    made = cluster(a100=1)
    made.with_service("shop/a", "A100-80", expected_requests_per_second=10.0, objectives=promises)
    for name in ("chat", "batch"):
        made.with_load("shop/a", 5.0, request_class=name)
    reasons = told(made.build(), "commit").reasons
    shed = [r for r in reasons if r.code == "ClassShed"]
    assert [r.choice for r in shed] == ["batch"]
    (short,) = [r for r in reasons if r.code == "ShortOfCapacity"]
    assert shed[0].have.value == pytest.approx(short.fact("shed"), rel=1e-3)
    assert "more in a100-od would save $" in sentence(short)


@pytest.mark.parametrize(
    ("alternative", "line"),
    [
        (
            Alternative("3 A100-80x1-bf16 in od", None, "TooFewGpus", (Quantity("need", 3, "GPU"), Quantity("have", 0, "GPU"))),
            "3 A100-80x1-bf16 in od would take 3 GPU, and 0 GPU are free for it.",
        ),
        (
            Alternative("9 L4 in od", None, "PriceTooHigh", (Quantity("need", 9, "$/h"), Quantity("have", 3, "$/h"))),
            "9 L4 in od would cost $9.00/h instead of $3.00/h.",
        ),
        (
            Alternative("L4x8", None, "NoInventory", (Quantity("need", 8, "GPU"), Quantity("have", 4, "GPU"))),
            "L4x8: NoInventory (need 8 GPU, have 4 GPU)",
        ),
    ],
    ids=["too few", "too dear", "a sentence that needs more numbers"],
)  # fmt: skip
def test_what_was_not_chosen_reads_as_its_codes_sentence(alternative, line):
    assert render_alternative(alternative) == line


def test_a_remedy_reads_as_its_codes_sentence():
    facts = (Quantity("need", 4, "GPU"), Quantity("have", 90, "$/h"))
    assert (
        render_remedy(Remedy("AddCapacity", "l4-od", facts))
        == "4 GPU more in l4-od would save $90.00/h, unserved load at its price."
    )
    assert render_remedy(Remedy("AddCapacity", "L4", facts[:1])) == "AddCapacity L4 need 4 GPU"

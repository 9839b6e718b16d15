"""What users want, as nouns, and sentences for what cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Market, Pool
from cluster.power import PowerDomain
from cluster.serving import Mode, Objective, Policies, Rollout, Service, Variant
from cluster.training import CheckpointSpec, Job, JobPhase
from controller.observe import intents
from controller.observe.revisions import standing_of
from placement.models import model_spec, training_shape
from tests.observe import objects as made
from tests.observe.objects import MODEL

CLASSES = {
    "L4": intents.accelerator(made.accelerator("l4", "L4"))[0],
    "H100": intents.accelerator(made.accelerator("h100", "H100", memoryBytes=80 * 2**30))[0],
}


def service(**spec: Any) -> Service:
    intent = intents.service(standing_of(made.service(**spec), []), CLASSES)
    assert intent.faults == ()
    assert isinstance(intent.noun, Service)
    return intent.noun


def job(**spec: Any) -> Job:
    intent = intents.job(made.job(**spec), CLASSES)
    assert intent.faults == ()
    assert isinstance(intent.noun, Job)
    return intent.noun


# products


def test_a_product_and_its_pools() -> None:
    pools = [
        {"name": "od", "region": "eu", "zone": "eu-1", "market": "on_demand", "dollarsPerGpuHour": 0.8, "pricedAt": "2025-01-01",
         "availableGpus": 16, "nodeSize": 8, "reclaimPerHour": 0.5},
        {"name": "spot", "market": "spot", "dollarsPerGpuHour": 0.3, "pricedAt": "2025-01-01"},
    ]  # fmt: skip
    obj = made.accelerator(
        "l4",
        "L4",
        resourceName="x.com/gpu",
        fabric="nvlink",
        linkBytesPerSecond=5,
        clocksMhz=[900, 2040],
        pools=pools,
    )
    noun, found = intents.accelerator(obj)
    assert noun == AcceleratorClass(
        ref=Ref("AcceleratorClass", "L4", "uid-l4", 1), resource_name="x.com/gpu", memory_bytes=24 * 2**30,
        bandwidth_bytes_per_second=300 * 10**9, flops={"bf16": 121e12}, min_watts=40, max_watts=72, tdp_watts=72,
        safe_watts=60, link_bytes_per_second=5, fabric="nvlink", clocks_mhz=(900, 2040), aliases=("l4", "NVIDIA-L4"),
    )  # fmt: skip
    assert found == [
        Pool(name="od", accelerator="L4", region="eu", zone="eu-1", dollars_per_gpu_hour=0.8, priced_at="2025-01-01",
             available_gpus=16, node_size=8, reclaim_per_hour=0.5),
        Pool(name="spot", accelerator="L4", market=Market.SPOT, dollars_per_gpu_hour=0.3, priced_at="2025-01-01"),
    ]  # fmt: skip


def test_a_product_without_a_display_name_goes_by_its_objects() -> None:
    assert intents.accelerator(made.accelerator("l4", "", aliases=[]))[0].name == "l4"


# services


def test_a_whole_service() -> None:
    noun = service(
        objectives=[
            {"class": "chat", "ttftSeconds": 1.5, "tpotSeconds": 0.05, "percentile": 0.99, "priority": 4, "unservedDollarsPerHour": 9.0,
             "maxSpotShare": 0.25, "surviveLoss": True},
            {"ttftSeconds": 9.0, "tpotSeconds": 0.5},
        ],
        variants=[{"accelerator": "h100", "gpus": 2, "precision": "fp8"}, {"accelerator": "l4"}],
        image="engine:1", replicas=2, minReplicas=1, maxReplicas=9,
        expectedLoad={"requestsPerSecond": 3.0, "inputTokens": 700.0, "outputTokens": 90.0},
        hold={"maxRequests": 7, "deadlineSeconds": 11.0}, keepAliveSeconds=120.0, drainSeconds=30.0, violationBudget=0.05,
        policies={"scale": {"name": "hpa", "config": {"target": 0.6}}, "warm": {"name": "fixed_keepalive"}},
    )  # fmt: skip
    assert noun == Service(
        ref=Ref("ModelService", "shop/chat", "uid-chat", 5),
        model=model_spec("llama-3-8b", {}),
        objectives=(
            Objective(request_class="chat", ttft_seconds=1.5, tpot_seconds=0.05, percentile=0.99, priority=4, unserved_dollars=9.0,
                      spot_share=0.25, survives_loss=True),
            Objective(ttft_seconds=9.0, tpot_seconds=0.5),
        ),
        variants=(
            Variant(accelerator="H100", gpus=2, tensor=2, precision="fp8"),
            Variant(accelerator="L4"),
        ),
        floor_units=2, ceiling_units=9, replicas=2,
        expected_requests_per_second=3.0, expected_input_tokens=700.0, expected_output_tokens=90.0,
        violation_budget=0.05, mode=Mode.AUTO, image="engine:1", revision=noun.revision, rollout=Rollout(number=1, complete=False), hold_requests=7, hold_seconds=11.0,
        keep_alive_seconds=120.0, drain_seconds=30.0,
        policies=Policies(name={"scale": "hpa", "warm": "fixed_keepalive"}, config={"scale": {"target": 0.6}}),
    )  # fmt: skip


def test_what_a_service_leaves_out() -> None:
    noun = service()
    assert noun.objectives == (Objective(ttft_seconds=2.0, tpot_seconds=0.1),)
    assert (noun.expected_requests_per_second, noun.expected_input_tokens, noun.expected_output_tokens) == (
        0.0,
        0.0,
        0.0,
    )
    assert (noun.floor_units, noun.ceiling_units, noun.replicas) == (0, 1_000, 0)
    assert noun.policies == Policies()


@pytest.mark.parametrize(
    ("spec", "floor"),
    [
        ({"mode": "Auto", "replicas": 3, "minReplicas": 1}, 3),
        ({"mode": "Auto", "replicas": 1, "minReplicas": 3}, 3),
        ({"mode": "Recommend", "replicas": 3, "minReplicas": 1}, 1),
        ({"mode": "Off", "replicas": 3}, 0),
        ({"mode": "Auto", "replicas": 30, "maxReplicas": 4}, 4),
    ],
    ids=[
        "in Auto spec.replicas is a floor",
        "so is spec.minReplicas",
        "in Recommend it is the user's size",
        "in Off too",
        "it is never above spec.maxReplicas",
    ],
)
def test_the_floor_of_a_service(spec: dict[str, Any], floor: int) -> None:
    assert service(**spec).floor_units == floor


@pytest.mark.parametrize(
    ("allowed", "variants"),
    [
        pytest.param([], ["H100x1-bf16", "L4x1-bf16"], id="any product that holds the model"),
        pytest.param(["l4"], ["L4x1-bf16"], id="the one that is named"),
        pytest.param(
            ["l4", "h100"], ["H100x1-bf16", "L4x1-bf16"], id="those that are named, in order of name"
        ),
    ],
)
def test_variants_that_are_not_given_are_the_smallest_that_fit(
    allowed: list[str], variants: list[str]
) -> None:
    assert [v.key for v in service(accelerators=allowed).variants] == variants


@pytest.mark.parametrize(
    ("weight_bytes", "gpus"),
    [(16 * 10**9, 1), (17.4 * 10**9, 1), (17.5 * 10**9, 2), (139 * 10**9, 8), (140 * 10**9, 0)],
    ids=["a third is left for KV", "just so", "just not", "over eight", "too large for eight"],
)
def test_the_fewest_gpus_that_hold_a_model(weight_bytes: float, gpus: int) -> None:
    fields = {f: getattr(MODEL, f) for f in type(MODEL).__struct_fields__}
    model = type(MODEL)(**{**fields, "weight_bytes": int(weight_bytes)})
    assert intents.smallest_degree(model, CLASSES["L4"]) == gpus


def test_a_large_model_takes_as_many_gpus_of_each_product_as_hold_it() -> None:
    assert [v.key for v in service(model={"name": "llama-2-70b"}).variants] == ["H100x4-bf16", "L4x8-bf16"]


WHERE = "ModelService shop/chat: "


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param({"accelerators": ["l4", "b300"]}, ["spec.accelerators names 'b300', which no AcceleratorClass describes; known are H100, L4. Apply an AcceleratorClass for it or use a known one."], id="an unknown product"),
        pytest.param({"variants": [{"accelerator": "b300"}]}, ["spec.variants names 'b300', which no AcceleratorClass describes; known are H100, L4."], id="a variant of an unknown product"),
        pytest.param({"minReplicas": 5, "maxReplicas": 4}, ["spec.minReplicas: minReplicas must not be greater than maxReplicas; lower the one or raise the other."], id="impossible bounds"),
        pytest.param({"model": {"name": "llama-3-8c"}}, ["spec.model: 'llama-3-8c' is not in the shipped catalogue"], id="an unknown model"),
        pytest.param({"model": {"name": "mine", "parameters": 10**9, "layers": 8}}, ["is not given"], id="a new model with half a shape"),
        pytest.param({"accelerators": ["x"], "variants": [{"accelerator": "y"}], "minReplicas": 2, "maxReplicas": 1, "model": {"name": "z"}}, ["spec.model", "names 'x'", "names 'y'", "spec.minReplicas", "spec.variants"], id="everything at once"),
    ],
)  # fmt: skip
def test_a_service_that_cannot_be_meant_says_where_and_what_to_do(
    spec: dict[str, Any], faults: list[str]
) -> None:
    intent = intents.service(standing_of(made.service(**spec), []), CLASSES)
    assert intent.noun is None
    assert len(intent.faults) == len(faults)
    for sentence, part in zip(intent.faults, faults, strict=True):
        assert sentence.startswith(WHERE)
        assert part in sentence


def test_a_model_too_large_for_every_product_is_asked_of_the_most_of_each() -> None:
    huge = {"name": "huge", "parameters": 10**12, "layers": 8, "hiddenSize": 512, "kvBytesPerToken": 4_096}
    assert [each.key for each in service(model=huge).variants] == ["H100x8-bf16", "L4x8-bf16"]


def test_without_any_product_none_is_known() -> None:
    intent = intents.service(standing_of(made.service(accelerators=["l4"]), []), {})
    assert "known are none" in intent.faults[0]
    assert intents.service(standing_of(made.service(), []), {}).noun.variants == ()


def test_a_new_model_with_its_whole_shape_is_served() -> None:
    shape = {
        "name": "mine",
        "parameters": 10**9,
        "layers": 8,
        "hiddenSize": 512,
        "kvBytesPerToken": 4_096,
        "weightBytes": 3 * 10**9,
        "maxContextTokens": 99,
    }
    model = service(model=shape).model
    assert (model.name, model.layers, model.weight_bytes, model.max_context_tokens) == (
        "mine",
        8,
        3 * 10**9,
        99,
    )


# jobs


def test_a_whole_job() -> None:
    noun = job(
        nodes={"min": 2, "max": 4}, accelerators=["h100", "l4"], microBatch=2, queue="night", priority=3,
        valuePerGpuHour=1.5, restartLimit=4, suspend=True, checkpoint={"intervalSeconds": 90.0, "secondsToWrite": 7.0},
        status={"attempt": 3},
    )  # fmt: skip
    assert noun == Job(
        ref=Ref("TrainingJob", "shop/train", "uid-train", 2), shape=training_shape("gpt-3-1.3b", {}), steps=100, global_batch=64,
        micro_batch=2, min_nodes=2, max_nodes=4, gpus_per_node=4, accelerators=("H100", "L4"), queue="night", priority=3,
        dollars_per_gpu_hour=1.5, restart_limit=4, suspended=True, attempt=3, revision=noun.revision,
        checkpoint=CheckpointSpec(interval_seconds=90.0, min_interval_seconds=90.0, max_interval_seconds=90.0, write_seconds=7.0),
    )  # fmt: skip


def test_a_job_without_a_greatest_size_has_its_least() -> None:
    assert (job(nodes={"min": 3}).min_nodes, job(nodes={"min": 3}).max_nodes) == (3, 3)


@pytest.mark.parametrize(
    ("told", "phase"),
    [("Succeeded", JobPhase.DONE), ("Failed", JobPhase.FAILED), ("Suspended", JobPhase.SUSPENDED), ("Running", JobPhase.WAITING), ("Pending", JobPhase.WAITING)],
)  # fmt: skip
def test_a_jobs_phase_as_its_status_has_it(told: str, phase: JobPhase) -> None:
    assert job(status={"phase": told}).phase is phase


@pytest.mark.parametrize(
    ("spec", "faults"),
    [
        pytest.param({"accelerators": ["b300"]}, ["spec.accelerators names 'b300', which no AcceleratorClass describes"], id="an unknown product"),
        pytest.param({"nodes": {"min": 4, "max": 2}}, ["spec.nodes.min: min must not be greater than max; lower the one or raise the other."], id="impossible bounds"),
        pytest.param({"model": {"name": "mine", "layers": 4}}, ["spec.model: "], id="a new model with half a shape"),
        pytest.param({"model": {"name": "mine"}, "nodes": {"min": 2, "max": 1}, "accelerators": ["x"]}, ["names 'x'", "spec.nodes.min", "spec.model: "], id="everything at once"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_be_meant_says_where_and_what_to_do(
    spec: dict[str, Any], faults: list[str]
) -> None:
    intent = intents.job(made.job(**spec), CLASSES)
    assert intent.noun is None
    assert len(intent.faults) == len(faults)
    for sentence, part in zip(intent.faults, faults, strict=True):
        assert sentence.startswith("TrainingJob shop/train: ")
        assert part in sentence


# what draws through a breaker


def test_a_breaker_with_its_members() -> None:
    obj = made.domain(
        "row",
        parent="hall",
        rating=9_000,
        marginFraction=0.2,
        servingWatts=7_000,
        policy={"name": "polca", "config": {"a": 1}},
    )
    assert intents.domain(obj, ("n1", "n2")) == PowerDomain(
        ref=Ref("PowerDomain", "row", "uid-row", 1), parent="hall", rating_watts=9_000, margin=0.2, serving_watts=7_000, members=("n1", "n2"),
        policy="polca", config={"a": 1},
    )  # fmt: skip
    plain = intents.domain(made.domain("row"), ())
    assert (plain.policy, plain.config, plain.margin, plain.parent) == ("static_clamp", {}, 0.05, "")

"""What the schema lets through and still cannot be meant: each is planned, and told with what, where and what to do.

From the object as a store hands it out, through the model and its beliefs, to the reasons of the planner.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from cluster.reasons import sentence
from cluster.targets import Capacity
from controller.beliefs import CapacityBeliefs
from policies.planner import PlannerStates, run_planner
from tests.observe.objects import NOW, Play, accelerator, node, service
from tests.policies.builders import context

LOAD = {"requestsPerSecond": 2.0}
PRICED = {"pricedAt": "2026-01-01"}


class Told(NamedTuple):
    """What a planner's run said about `shop/chat`, by code, and what it is planned to run."""

    sentences: dict[str, str]
    units: dict[str, int]


def planned(product: Any, *services: Any, gpus: int = 4, select: str = "cheapest_mix") -> Told:
    """One run on a node of a product."""
    play = Play(product, *services, node(gpus=gpus))
    assert play.world.faults == {}
    CapacityBeliefs().refresh(play.observer, NOW)
    run = run_planner(
        play.observer.snapshot(NOW), PlannerStates(), context(now=NOW), {"select": (select, {})}
    )
    told = {
        reason.code: sentence(reason)
        for staged in run.stages
        for reason in staged.plan.reasons
        if reason.subject.name == "shop/chat"
    }
    capacity = run.snapshot.targets["Capacity/shop/chat"]
    assert isinstance(capacity, Capacity)
    return Told(told, {part.variant: part.units for part in capacity.mix.parts})


def wish(name: str = "chat", **spec: Any) -> Any:
    """A service that wants two replicas at least."""
    return service(name, **{"minReplicas": 2, "expectedLoad": LOAD, **spec})


def promise(**more: Any) -> list[dict[str, Any]]:
    return [{"ttftSeconds": 2.0, "tpotSeconds": 0.1, **more}]


def pool(name: str = "od", **more: Any) -> dict[str, Any]:
    return {"name": name, "dollarsPerGpuHour": 0.8, **PRICED, **more}


NOTHING = "give a pool of its AcceleratorClass dollarsPerGpuHour."
HUGE = {"name": "huge", "parameters": 10**13, "layers": 100, "hiddenSize": 8192, "kvBytesPerToken": 10**5}

UNSERVED = [
    pytest.param(
        {"pools": [pool(dollarsPerGpuHour=0)]}, {}, "NothingPriced",
        ["L4 has $0.00/h", NOTHING], id="a GPU for nothing"),
    pytest.param(
        {"pools": []}, {}, "NothingPriced", ["L4 has $0.00/h", NOTHING], id="a GPU that nobody sells"),
    pytest.param(
        {"pools": [pool("a", dollarsPerGpuHour=0), pool("b")]}, {}, "NothingPriced",
        ["L4 has $0.00/h", NOTHING], id="a price for a pool without nodes, and nodes in one without a price"),
    pytest.param(
        {}, {"model": HUGE}, "ModelTooLarge",
        ["the nearest, L4x8-bf16, needs 20.0 TB of memory and has 185.5 GB", "a larger product"], id="a model that fits nowhere"),
    pytest.param(
        {}, {"model": HUGE, "accelerators": ["l4"]}, "ModelTooLarge",
        ["L4x8-bf16, needs 20.0 TB", "more GPUs"], id="a model that fits on none of those named"),
    pytest.param(
        {}, {"model": {"name": "llama-3.1-70b"}, "variants": [{"accelerator": "l4"}]}, "ModelTooLarge",
        ["L4x1-bf16, needs 141.2 GB of memory and has 23.2 GB", "more GPUs"], id="a variant too small"),
    pytest.param(
        {"memoryBytes": 1}, {}, "ModelTooLarge", ["L4x8-bf16"], id="a GPU of one byte"),
    pytest.param(
        {}, {"objectives": promise(tpotSeconds=1e-9)}, "ObjectiveImpossible",
        ["L4x1-bf16, needs 54 ms where 0 ms is asked"], id="a token in a nanosecond"),
    pytest.param(
        {}, {"objectives": promise(ttftSeconds=1e-9)}, "ObjectiveImpossible",
        ["L4x1-bf16, needs 129 ms where 0 ms is asked"], id="an answer before the question"),
    pytest.param(
        {"bandwidthBytesPerSecond": 1}, {}, "ObjectiveImpossible",
        ["needs 16060000000000 ms"], id="a GPU slower than paper"),
    pytest.param(
        {}, {"objectives": promise(unservedDollarsPerHour=0)}, "ShortOfCapacity",
        ["so 2.93 req/s is shed", "3 L4x1-bf16 in l4-od would serve all of it for $2.40/h", "a higher unservedDollarsPerHour"],
        id="load that is worth nothing"),
    pytest.param(
        {"pools": [pool(dollarsPerGpuHour=1e6)]}, {}, "ShortOfCapacity",
        ["3 L4x1-bf16 in od would serve all of it for $3000000.00/h, and leaving the rest unserved is priced at $146.26/h"],
        id="a GPU dearer than the load is worth"),
    pytest.param(
        {"pools": [pool(market="spot", reclaimPerHour=3600)]}, {}, "ShortOfCapacity",
        ["a higher unservedDollarsPerHour would have it served"], id="a GPU that is taken away each second"),
    pytest.param(
        {"pools": [pool(market="spot")]}, {"objectives": promise(maxSpotShare=0)}, "ShortOfCapacity",
        ["so 2.93 req/s is shed", "A maxSpotShare above 0.0 % would let od serve more of it"], id="only spot, where none is allowed"),
    pytest.param(
        {}, {"expectedLoad": {**LOAD, "inputTokens": 1e8, "outputTokens": 1e8}}, "ShortOfCapacity",
        ["would serve all of it for $", "a higher unservedDollarsPerHour"], id="requests longer than any context"),
]  # fmt: skip


@pytest.mark.parametrize(("product", "spec", "code", "says"), UNSERVED)
def test_what_cannot_be_served_says_why_and_what_would_help(
    product: dict[str, Any], spec: dict[str, Any], code: str, says: list[str]
) -> None:
    told = planned(accelerator(**product), wish(**spec))
    assert told.units == {}
    for part in says:
        assert part in told.sentences[code]


SERVED = [
    pytest.param({}, {"objectives": []}, {"L4x1-bf16": 3}, id="no promise at all: two seconds and a tenth"),
    pytest.param({}, {"objectives": promise(ttftSeconds=86_400, tpotSeconds=3_600)}, {"L4x1-bf16": 3}, id="a promise for tomorrow"),
    pytest.param({}, {"accelerators": []}, {"L4x1-bf16": 3}, id="an empty list of products means any"),
    pytest.param({}, {"objectives": promise(surviveLoss=True)}, {"L4x1-bf16": 4}, id="one pool survives the loss of a replica too"),
    pytest.param({"memoryBytes": 10**14}, {}, {"L4x1-bf16": 3}, id="memory without end"),
    pytest.param({"bandwidthBytesPerSecond": 10**15, "flops": {"bf16": 1e18}}, {}, {"L4x1-bf16": 2}, id="a GPU faster than light"),
    pytest.param({"pools": [pool(dollarsPerGpuHour=1e-12)]}, {}, {"L4x1-bf16": 3}, id="a GPU for almost nothing"),
    pytest.param({"pools": [pool(nodeSize=1_024, availableGpus=10**7)]}, {}, {"L4x1-bf16": 3}, id="a thousand GPUs at once, or none"),
    pytest.param({}, {"expectedLoad": {**LOAD, "inputTokens": 0, "outputTokens": 1e-9}}, {"L4x1-bf16": 3}, id="requests of no length"),
    pytest.param(
        {}, {"model": {"name": "odd", "parameters": 1, "layers": 1, "hiddenSize": 1, "kvBytesPerToken": 1}}, {"L4x1-bf16": 2},
        id="a model of one parameter"),
    pytest.param({}, {"objectives": promise(unservedDollarsPerHour=1e9), "minReplicas": 100}, {"L4x1-bf16": 4}, id="load worth more than the world, and too few GPUs"),
    pytest.param({}, {"expectedLoad": {"requestsPerSecond": 1e6}}, {"L4x1-bf16": 4}, id="the load of the whole world"),
]  # fmt: skip


@pytest.mark.parametrize("select", ["cheapest_mix", "joint_mix"])
@pytest.mark.parametrize(("product", "spec", "units"), SERVED)
def test_what_is_odd_and_possible_is_served(
    product: dict[str, Any], spec: dict[str, Any], units: dict[str, int], select: str
) -> None:
    assert planned(accelerator(**product), wish(**spec), select=select).units == units


@pytest.mark.parametrize("select", ["cheapest_mix", "joint_mix"])
@pytest.mark.parametrize(
    "spec", [pytest.param(case.values[1], id=case.id) for case in UNSERVED if not case.values[0]]
)
def test_what_one_asks_in_vain_keeps_nobody_else_from_being_served(spec: dict[str, Any], select: str) -> None:
    told = planned(accelerator(), wish("other", **spec), wish(), select=select)
    assert told.units == {"L4x1-bf16": 3}

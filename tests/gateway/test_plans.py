"""Plans by size on their way to a gateway: what arrives is what was sent, and what cannot be is refused with a sentence."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base import Ref
from cluster.serving import Objective, Policies, Replica, ReplicaPhase, Service, Variant
from cluster.size_plan import ClassPlan, SizePlan, fault_of
from cluster.snapshot import Snapshot
from cluster.targets import Routes
from controller.routing import ENDPOINT, RouteBook, put_plan
from gateway.codec import route_table
from gateway.plans import size_plan
from placement.models import model_spec
from tests.policies.size_plans import CHAT, PLAN, SMALL
from wire import gateway_pb2 as pb


def sent(plan: SizePlan) -> pb.SizePlan:
    message = pb.SizePlan()
    put_plan(message, plan)
    return pb.SizePlan.FromString(message.SerializeToString())


unit = st.floats(0.0, 0.5, width=32)


@st.composite
def plans(draw: st.DrawFn) -> SizePlan:
    """Sound plans of up to two columns, whose shares are numbers that the wire has."""
    inputs = tuple(sorted(draw(st.sets(st.integers(1, 65_536), min_size=1, max_size=4))))
    outputs = tuple(sorted(draw(st.sets(st.integers(1, 65_536), min_size=1, max_size=4))))
    cells, wide = len(inputs) * len(outputs), draw(st.integers(1, 2))
    columns = tuple(
        msgspec.structs.replace(SMALL, name=f"v{n}|p", tpot_seconds=0.1 + n, refill_seconds=0.25 * n)
        for n in range(wide)
    )
    names = draw(st.sets(st.text(min_size=1, max_size=5), min_size=1, max_size=2))
    classes = tuple(
        ClassPlan(
            request_class=name, ttft_seconds=1.0, tpot_seconds=0.1,
            shares=tuple(tuple(draw(st.lists(unit, min_size=cells, max_size=cells))) for _ in columns),
            able=tuple(tuple(draw(st.lists(st.booleans(), min_size=cells, max_size=cells))) for _ in columns),
        )
        for name in sorted(names)
    )  # fmt: skip
    return SizePlan(
        input_edges=inputs, output_edges=outputs, columns=columns, classes=classes, blend=draw(st.booleans())
    )  # fmt: skip


@given(plans())
def test_what_arrives_is_what_was_sent(plan: SizePlan) -> None:
    assert fault_of(plan) == ""
    assert size_plan("shop/chat", sent(plan)) == plan


def test_a_column_without_any_share_takes_no_room_and_a_plan_is_small() -> None:
    none = msgspec.structs.replace(CHAT, shares=((0.0,) * 4, CHAT.shares[1]))
    assert len(sent(msgspec.structs.replace(PLAN, classes=(none,))).classes[0].columns[0].shares) == 0
    inputs, outputs = tuple(range(32, 32 * 12, 32)), tuple(range(16, 16 * 10, 16))
    cells = len(inputs) * len(outputs)
    columns = tuple(msgspec.structs.replace(SMALL, name=f"v{n}|p") for n in range(10))
    classes = tuple(
        ClassPlan(
            request_class=f"c{n}", ttft_seconds=1.0, tpot_seconds=0.1, shares=((0.1,) * cells,) * 10, able=((True,) * cells,) * 10
        )
        for n in range(5)
    )  # fmt: skip
    large = SizePlan(input_edges=inputs, output_edges=outputs, columns=columns, classes=classes)
    assert fault_of(large) == ""
    assert sent(large).ByteSize() < 32_000


def test_a_chunk_is_tokens_and_no_time_however_large() -> None:
    steps = msgspec.structs.replace(SMALL.steps, chunk_tokens=131_072)
    columns = (msgspec.structs.replace(PLAN.columns[0], steps=steps), *PLAN.columns[1:])
    assert fault_of(msgspec.structs.replace(PLAN, columns=columns)) == ""


Spoil = Callable[[pb.SizePlan], object]


def spoil(**changes: object) -> Spoil:
    def change(message: pb.SizePlan) -> None:
        for name, value in changes.items():
            part, _, field = name.rpartition("__")
            where = {"": message, "column": message.columns[0], "class": message.classes[0],
                     "cell": message.classes[0].columns[0]}[part]  # fmt: skip
            if isinstance(value, list):
                del getattr(where, field)[:]
                getattr(where, field).extend(value)
            else:
                setattr(where, field, value)

    return change


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        pytest.param(spoil(input_edges=[100, 100]), "rise strictly", id="edges that do not rise"),
        pytest.param(spoil(output_edges=[]), "at least one", id="no sizes"),
        pytest.param(spoil(input_edges=list(range(1, 2_000))), "at most 1024", id="an absurd grid"),
        pytest.param(spoil(cell__shares=[0.5] * 3), "for every size", id="shares that do not cover the grid"),
        pytest.param(spoil(cell__able=[]), "for every size", id="nothing said of what it is able to"),
        pytest.param(spoil(cell__shares=[math.nan] * 4), "between 0 and 1", id="a share that is no number"),
        pytest.param(spoil(cell__shares=[-0.5] * 4), "between 0 and 1", id="a negative share"),
        pytest.param(spoil(cell__shares=[1.0] * 4), "times over", id="a size planned twice"),
        pytest.param(spoil(class__ttft_seconds=0.0), "above 0", id="no promise"),
        pytest.param(spoil(class__tpot_seconds=math.inf), "above 0", id="a promise without end"),
        pytest.param(spoil(column__tpot_seconds=math.nan), "above 0", id="a column's promise that is no number"),
        pytest.param(spoil(column__base_seconds=-1.0), "step figures", id="steps that go back in time"),
        pytest.param(spoil(column__pair_seconds=math.inf), "step figures", id="steps without end"),
        pytest.param(spoil(column__refill_seconds=math.nan), "prompts a step", id="what follows a request is no number"),
        pytest.param(spoil(column__chunk_tokens=0), "step figures", id="no chunk"),
        pytest.param(spoil(column__name="big|od"), "one name", id="two columns of one name"),
        pytest.param(lambda m: m.classes.append(m.classes[0]), "one name", id="two classes of one name"),
        pytest.param(lambda m: m.columns.pop(), "for 1 columns", id="a column missing"),
        pytest.param(lambda m: [m.columns.add(name=f"x{n}") for n in range(80)], "columns", id="an absurd number of columns"),
        pytest.param(lambda m: m.Clear(), "at least one", id="an empty plan"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused_and_the_route_holds_without_it(
    change: Spoil, needle: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = pb.RouteTable(epoch=1, version=1)
    route = table.services.add(service="shop/chat", dispatch_policy="size_aware")
    route.instances.add(name="shop/a", weight=1.0, state="ready", variant="small", pool="od")
    put_plan(route.size_plan, PLAN)
    change(route.size_plan)
    with caplog.at_level(logging.WARNING):
        (read,) = route_table(table).services
    assert read.size_plan is None
    assert (read.instances[0].weight, read.instances[0].column) == (1.0, "small|od")
    (record,) = caplog.records
    assert record.facts["service"] == "shop/chat"
    assert needle in record.facts["why"]


def test_a_route_of_an_older_operator_has_no_plan() -> None:
    table = pb.RouteTable(epoch=1, version=1)
    table.services.add(service="shop/chat").instances.add(name="shop/a", weight=1.0, state="ready")
    (read,) = route_table(table).services
    assert (read.size_plan, read.instances[0].column) == (None, "|")


def test_routes_that_stand_are_told_but_not_those_of_replicas_that_are_gone() -> None:
    replica = Replica(
        key="shop/a", ref=Ref("Replica", "shop/a", "u1"), service="shop/chat", launcher="shop/a", variant=Variant(accelerator="L4"),
        pool="od", phase=ReplicaPhase.READY,
    )  # fmt: skip
    service = Service(
        ref=Ref("ModelService", "shop/chat", "u0"), model=model_spec("llama-3.1-8b", {}), variants=(replica.variant,),
        objectives=(Objective(ttft_seconds=2.0, tpot_seconds=0.1),), policies=Policies(name={"dispatch": "size_aware"}),
    )  # fmt: skip
    pod = SimpleNamespace(
        metadata=SimpleNamespace(annotations={ENDPOINT: "10.0.0.1:9"}), spec=SimpleNamespace(node_name="n"),
        status=SimpleNamespace(pod_ip=""),
    )  # fmt: skip
    world: Any = SimpleNamespace(objects={"Pod": {"shop/a": pod}})

    def told(book: RouteBook, routes: Routes | None) -> pb.ServiceRoute | None:
        targets = {} if routes is None else {"Routes/shop/chat": routes}
        view = Snapshot(services={"shop/chat": service}, replicas={"shop/a": replica}, targets=targets)
        table = book.table(world, view, 1, 0.0)
        return None if table is None else table.services[0]

    book, stands = (
        RouteBook(),
        Routes(owner="place", decided_seconds=0.0, service="shop/chat", weights={}, plan=PLAN),
    )
    assert told(book, None).instances[0].weight == 1.0
    route = told(book, msgspec.structs.replace(stands, weights={"shop/a": 0.5, "shop/b": 0.5}))
    assert (route.instances[0].weight, route.instances[0].pool, route.dispatch_policy) == (
        0.5,
        "od",
        "size_aware",
    )
    assert size_plan("shop/chat", route.size_plan) == PLAN
    assert told(book, msgspec.structs.replace(stands, weights={"shop/a": 0.5, "shop/b": 0.5})) is None
    assert told(book, msgspec.structs.replace(stands, weights={"shop/b": 1.0})).instances[0].weight == 1.0

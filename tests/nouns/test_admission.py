"""Which nodes take whose pods: taints and what stands them, volumes and where they are, CPU and memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.admission import Fence, Fences, kept_out, slot_for
from cluster.base import Ref
from cluster.hardware import Device, Node, Slot
from cluster.overlay import Overlay
from cluster.serving import Model, Objective, Service, Variant
from cluster.snapshot import Snapshot
from cluster.space import Space
from cluster.taints import Taint, Toleration, unstood

RED = Taint(key="team", value="red", effect="NoSchedule")
GOING = Taint(key="spot", effect="NoExecute")
MODEL = Model(name="m", parameters=1.0, layers=1, hidden_size=1, kv_bytes_per_token=1, weight_bytes=1)

STOOD = [
    pytest.param(RED, {"key": "team", "value": "red", "effect": "NoSchedule"}, True, id="word for word"),
    pytest.param(RED, {"key": "team", "value": "red"}, True, id="whatever its effect"),
    pytest.param(RED, {"key": "team", "operator": "Exists"}, True, id="whatever its value"),
    pytest.param(RED, {"operator": "Exists"}, True, id="whatever it is"),
    pytest.param(RED, {"operator": "Exists", "effect": "NoExecute"}, False, id="whatever drives away"),
    pytest.param(RED, {"key": "team", "value": "blue"}, False, id="another value"),
    pytest.param(RED, {"key": "team"}, False, id="no value at all"),
    pytest.param(RED, {"key": "teams", "operator": "Exists"}, False, id="another key"),
    pytest.param(RED, {"value": "red"}, False, id="no key, which Equal never stands"),
    pytest.param(GOING, {"key": "spot"}, True, id="a taint without a value"),
]


@pytest.mark.parametrize(("taint", "toleration", "stood"), STOOD)
def test_a_toleration_stands_what_kubernetes_says_it_stands(
    taint: Taint, toleration: dict[str, str], stood: bool
) -> None:
    assert Toleration(**toleration).stands(taint) is stood
    assert (unstood((taint,), (Toleration(**toleration),)) is None) is stood


def test_every_taint_must_be_stood_and_the_first_that_is_not_is_named() -> None:
    assert unstood((), ()) is None
    assert unstood((RED, GOING), (Toleration(key="team", operator="Exists"),)) == GOING
    assert [str(taint) for taint in (RED, GOING)] == ["team=red:NoSchedule", "spot:NoExecute"]


def node(name: str, **more: Any) -> Node:
    return Node(
        ref=Ref("Node", name), pool="p", accelerator="L4",
        devices=tuple(Device(uuid=f"{name}{i}", index=i) for i in range(2)),
        cpu_millis=8_000, memory_bytes=64, **more,
    )  # fmt: skip


def service(**more: Any) -> Service:
    return Service(
        ref=Ref("ModelService", "shop/chat"), model=MODEL, variants=(Variant(accelerator="L4"),),
        objectives=(Objective(ttft_seconds=1.0, tpot_seconds=1.0),), **more,
    )  # fmt: skip


NODES = {n.name: n for n in (node("a"), node("b", taints=(RED,)), node("c"))}
TOLERANT = (Toleration(key="team", value="red"),)
PERMITTED = [
    pytest.param({}, "ac", id="nothing said: no taint"),
    pytest.param({"tolerates": TOLERANT}, "abc", id="a taint that is tolerated"),
    pytest.param({"confined_to": ("b", "c")}, "c", id="a volume on two, one of them tainted"),
    pytest.param({"confined_to": ("b",), "tolerates": TOLERANT}, "b", id="a volume there, and a toleration"),
    pytest.param({"confined_to": ()}, "", id="a volume that is nowhere"),
    pytest.param({"confined_to": ("z",)}, "", id="a volume where no node is"),
]


@pytest.mark.parametrize(("said", "names"), PERMITTED)
def test_a_fence_permits(said: dict[str, Any], names: str) -> None:
    fence = Fences(NODES).of(service(**said))
    assert fence is not None
    assert "".join(name for name in "abcz" if fence.permits(name)) == names


def test_a_volume_on_a_machine_is_reached_from_all_of_its_parts() -> None:
    nodes = {n.name: n for n in (node("a"), node("a/large", host="a"), node("b/large", host="b"))}
    fence = Fence(service(confined_to=("a",)), nodes)
    assert [name for name in sorted(nodes) if fence.permits(name)] == ["a", "a/large"]


def test_who_may_go_anywhere_has_no_fence() -> None:
    assert Fences({"a": node("a")}).of(service()) is None
    assert Fences({"a": node("a")}).of(service(cpu_millis=1)) is not None


def test_cpu_and_memory_must_be_free_and_are_part_of_the_slot() -> None:
    space = Space(NODES, ())
    wants = service(cpu_millis=5_000, memory_bytes=10)
    fence = Fence(wants, NODES)
    slot = slot_for(Slot(node="a", devices=(0,)), wants)
    assert (slot.cpu_millis, slot.memory_bytes) == (5_000, 10)
    assert fence.admits("a", space)
    space.take(slot)
    assert not fence.admits("a", space)
    assert (fence.pods_on("a"), fence.pods_on("b")) == (1, 0)
    assert Fence(service(), NODES).pods_on("a") is None
    assert slot_for(Slot(node="a", devices=(0,)), service()) == Slot(node="a", devices=(0,))


def test_an_action_on_a_node_that_was_tainted_since_is_dropped_with_what_closed_it() -> None:
    chat = service()
    overlay = Overlay(Snapshot(nodes=NODES, services={"shop/chat": chat}))
    assert kept_out(overlay, (Slot(node="a", devices=(0,)),), chat, "replica x") is None
    assert kept_out(overlay, (Slot(node="gone", devices=(0,)),), chat, "replica x") is None, "said elsewhere"
    drop = kept_out(overlay, (Slot(node="b", devices=(0,)),), chat, "replica x")
    assert drop is not None
    assert (drop.code, drop.need, drop.have) == ("Taken", 1, 0)
    assert drop.what == "replica x on b, closed to it by taints that its pods do not tolerate"


WORD = st.sampled_from(["", "a", "b"])


@given(
    taints=st.lists(st.builds(Taint, key=st.sampled_from("ab"), value=WORD, effect=st.sampled_from(["NoSchedule", "NoExecute"])), max_size=3),
    tolerations=st.lists(st.builds(Toleration, key=WORD, operator=st.sampled_from(["Equal", "Exists"]), value=WORD, effect=st.sampled_from(["", "NoSchedule"])), max_size=3),
    more=st.builds(Toleration, key=WORD, operator=st.sampled_from(["Equal", "Exists"]), value=WORD),
)  # fmt: skip
def test_a_further_toleration_never_closes_a_node(
    taints: list[Taint], tolerations: list[Toleration], more: Toleration
) -> None:
    if unstood(tuple(taints), tuple(tolerations)) is None:
        assert unstood(tuple(taints), (*tolerations, more)) is None

"""Replicas that share GPUs, from commitment to placing: what is counted, what is chosen, and what is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster import actions as act
from cluster.base import Ref
from cluster.check_serving import create_replica
from cluster.hardware import Slot
from cluster.occupancy import Claim
from cluster.overlay import Overlay
from cluster.plan import Plan
from cluster.reasons import render
from cluster.serving import Model, Variant
from cluster.snapshot import Snapshot
from cluster.targets import Share
from policies.commit.inventory import Inventory
from policies.commit.parts import Free, Parts, Seeker
from policies.groups import Groups
from policies.place.priced_fgd import PricedFgd
from policies.select.competing import Competitor
from policies.select.joint_mix import JointMix
from tests.policies.builders import NOW, a_cluster, context
from tests.policies.fitting import SERVICE, cluster, codes, of
from tests.policies.test_by_priority import commit

QUARTER = Variant(accelerator="L4", milli=250)
HALF = Variant(accelerator="L4", milli=500)
ONE = Variant(accelerator="L4")
COLUMN = f"{QUARTER.key}|l4-od"


def divided(nodes: int = 1, gpus: int = 2, **wanted: int) -> Snapshot:
    """Nodes whose devices may be shared, and a service that may run on quarters, halves and whole ones."""
    made = cluster(nodes=nodes, gpus=gpus)
    names = {"quarter": "L4x0.25", "half": "L4x0.5", "one": "L4"}
    parts = [(names[name], "l4-od", units) for name, units in wanted.items()]
    made.with_capacity(SERVICE, 5.0, *parts)
    snapshot = made.build()
    change = msgspec.structs.replace
    services = {n: change(s, variants=(QUARTER, HALF, ONE)) for n, s in snapshot.services.items()}
    there = {n: change(node, divisible={"memory": 24 * 2**30}) for n, node in snapshot.nodes.items()}
    return change(snapshot, services=services, nodes=there)


def held(snapshot: Snapshot, *slots: Slot, owner: str = "Pod") -> Snapshot:
    """The same with somebody on these slots."""
    claims = {
        f"other/{i}": Claim(key=f"other/{i}", owner=Ref(owner, f"other/{i}"), slot=slot, foreign=True)
        for i, slot in enumerate(slots)
    }
    return msgspec.structs.replace(snapshot, claims={**snapshot.claims, **claims})


def part(device: int, milli: int, node: str = "l4-od-0") -> Slot:
    return Slot(node=node, devices=(device,), milli_per_device=milli)


def placed(snapshot: Snapshot) -> Plan:
    policy = PricedFgd()
    plan = policy.decide(snapshot, policy.initial(), context(loop="place")).plan
    for reason in plan.reasons:
        assert render(reason)
    return plan


def slots(plan: Plan) -> list[Slot]:
    return [action.slots[0] for action in of(plan, act.CreateReplica)]


def test_quarters_fill_a_device_before_another_is_begun() -> None:
    plan = placed(divided(quarter=6))
    assert slots(plan) == [part(0, 250)] * 4 + [part(1, 250)] * 2
    (reason,) = [r for r in plan.reasons if r.code == "ReplicaPlaced"]
    assert (reason.need and reason.need.value, reason.count) == (0.25, 6)


def test_a_whole_one_beside_shares_has_its_device_alone() -> None:
    plan = placed(divided(quarter=2, one=1))
    assert sorted(slots(plan), key=str) == sorted(
        [part(0, 250), part(0, 250), Slot(node="l4-od-0", devices=(1,))], key=str
    )


def test_what_finds_no_part_is_told_with_what_is_left() -> None:
    plan = placed(held(divided(half=1), part(0, 600), part(1, 800)))
    assert not slots(plan)
    (reason,) = [r for r in plan.reasons if r.code == "ReplicaUnplaceable"]
    assert render(reason).startswith(
        "L4x0.5-bf16 in l4-od needs 0.5 GPU on one node; the best node has 0.4 GPU"
    )
    assert reason.remedy is not None
    assert reason.remedy.facts[0].value == pytest.approx(0.1)


def test_devices_that_are_given_out_whole_take_no_share() -> None:
    snapshot = divided(quarter=1)
    whole = {n: msgspec.structs.replace(node, divisible={}) for n, node in snapshot.nodes.items()}
    plan = placed(msgspec.structs.replace(snapshot, nodes=whole))
    assert not slots(plan)
    assert "ReplicaUnplaceable" in codes(plan)


@pytest.mark.parametrize(
    ("slot", "variant", "words"),
    [
        pytest.param(
            part(0, 500), QUARTER, "another share of its device than its variant's", id="more than its share"
        ),
        pytest.param(Slot(node="l4-od-0", devices=(0,)), QUARTER, "another share", id="all of it"),
        pytest.param(part(0, 250), ONE, "another share", id="a share for a whole one"),
        pytest.param(part(0, 250), QUARTER, "", id="its share"),
        pytest.param(part(1, 250), QUARTER, "on l4-od-0", id="of a device that is full"),
    ],
)
def test_the_actor_looks_again(slot: Slot, variant: Variant, words: str) -> None:
    snapshot = held(divided(), part(1, 800))
    action = act.CreateReplica(
        service=SERVICE, name="shop/x", variant=variant, pool="l4-od", ordinal=1, slots=(slot,), reason=0
    )
    drop = create_replica(Overlay(snapshot), action, NOW)
    assert (drop is not None) == bool(words)
    if drop is not None:
        assert words in drop.what


def test_a_device_given_out_whole_is_not_shared_by_the_actor_either() -> None:
    snapshot = divided()
    whole = {n: msgspec.structs.replace(node, divisible={}) for n, node in snapshot.nodes.items()}
    action = act.CreateReplica(
        service=SERVICE,
        name="shop/x",
        variant=QUARTER,
        pool="l4-od",
        ordinal=1,
        slots=(part(0, 250),),
        reason=0,
    )
    drop = create_replica(Overlay(msgspec.structs.replace(snapshot, nodes=whole)), action, NOW)
    assert drop is not None
    assert "whose devices are given out whole" in drop.what


# what commitment counts


def inventory(snapshot: Snapshot) -> Inventory:
    return Inventory(Groups(snapshot), NOW)


@pytest.mark.parametrize(
    ("slots", "milli", "units", "begun", "whole"),
    [
        pytest.param((), 250, 8, 0, 2, id="two empty devices"),
        pytest.param((part(0, 600),), 250, 5, 400, 1, id="one begun"),
        pytest.param((part(0, 600), part(0, 250)), 250, 4, 150, 1, id="one nearly full"),
        pytest.param((part(0, 600), part(1, 600)), 500, 0, 800, 0, id="what is left lies on two"),
        pytest.param((part(0, 1_000),), 250, 4, 0, 1, id="one taken whole"),
        pytest.param((part(-1, 250),), 250, 4, 0, 1, id="a share of a device that nobody numbered counts as whole"),
        pytest.param((part(0, 700), part(0, 700)), 250, 4, 0, 1, id="more than there is"),
    ],
)  # fmt: skip
def test_room_for_shares(slots: tuple[Slot, ...], milli: int, units: int, begun: int, whole: int) -> None:
    book = inventory(held(divided(), *slots))
    room = book.room(SERVICE, COLUMN, msgspec.structs.replace(QUARTER, milli=milli))
    assert (room.units, room.begun_milli) == (units, begun)
    assert book.vacant().tolist() == [whole]
    assert book.available(9).tolist() == [whole], "nobody gives a share up"


def test_taking_shares_begins_devices_and_can_be_undone() -> None:
    book = inventory(divided(nodes=2))
    mark = book.mark(SERVICE, 0)
    assert book.settle(SERVICE, 0, {COLUMN: (5, QUARTER)}) == {}
    assert book.vacant().tolist() == [0, 2], "five quarters begin two devices of one node"
    assert book.room("shop/other", COLUMN, QUARTER).units == 3 + 8
    book.undo(mark)
    assert book.vacant().tolist() == [2, 2]
    assert book.settle(SERVICE, 0, {COLUMN: (17, QUARTER)}) == {COLUMN: 1}
    assert book.vacant().tolist() == [2, 2], "and nothing is taken where not all fits"
    both = {COLUMN: (4, QUARTER), f"{ONE.key}|l4-od": (3, ONE)}
    assert book.settle(SERVICE, 0, both) == {}
    assert book.vacant().sum() == 0


def test_shares_stay_inside_a_fence_and_off_undivided_nodes() -> None:
    snapshot = divided(nodes=2)
    nodes: dict[str, Any] = dict(snapshot.nodes)
    nodes["l4-od-1"] = msgspec.structs.replace(nodes["l4-od-1"], divisible={})
    book = inventory(msgspec.structs.replace(snapshot, nodes=nodes))
    rows = book.pool_rows["l4-od"]
    who, free = Seeker(SERVICE, 0, 250), Free(book.vacant(), book.available(0))
    assert book.room(SERVICE, COLUMN, QUARTER).units == 8
    assert book.room(SERVICE, COLUMN, QUARTER, rows * 0 + 3).units == 3
    parts = Parts(
        msgspec.structs.replace(snapshot, nodes=nodes), {n: row for row, n in enumerate(book.names)}
    )
    (divided_row,) = (row for row in rows.tolist() if book.names[row] == "l4-od-0")
    assert parts.take([1 - divided_row], who, free) is None
    assert parts.take([divided_row], who, free) == divided_row
    assert parts.devices(2).sum() == 1


# what commitment decides

SMALL = Model(
    name="small", parameters=5e8, layers=24, hidden_size=1_024, kv_bytes_per_token=49_152, weight_bytes=10**9
)


def wanting(rate: float, *variants: str, units: int = 0, owner: str = "scale") -> Snapshot:
    """One node of two L4s that may be shared, and a small model that wants so much."""
    made = a_cluster().with_pool("l4-od", "L4", 1.0).with_nodes(1, "l4-od", gpus=2)
    made.with_service(SERVICE, *variants, model=SMALL)
    made.with_capacity(SERVICE, rate, units=units, owner=owner, final=False)
    snapshot = made.build()
    there = {
        n: msgspec.structs.replace(d, divisible={"memory": 24 * 2**30}) for n, d in snapshot.nodes.items()
    }
    return msgspec.structs.replace(snapshot, nodes=there)


@pytest.mark.parametrize(
    ("asked", "given", "dollars", "short"),
    [pytest.param(6, 6, 1.5, False, id="six of eight"), pytest.param(10, 8, 2.0, True, id="ten of eight")],
)
def test_a_user_has_as_many_shares_as_there_are(asked: int, given: int, dollars: float, short: bool) -> None:
    capacities, reasons, _ = commit(wanting(0.0, "L4x0.25", units=asked, owner="user"))
    mix = capacities[SERVICE].mix
    assert [(part.variant, part.units) for part in mix.parts] == [("L4x0.25-bf16", given)]
    assert mix.dollars_per_hour == pytest.approx(dollars)
    assert ((SERVICE, "ShortOfCapacity") in reasons) == short


def test_a_load_is_carried_by_shares_up_to_what_there_is() -> None:
    capacities, reasons, run = commit(wanting(1_000.0, "L4x0.25", "L4"))
    limits = run.commitments[0].limits
    assert (limits.free_gpus, limits.quantum, limits.gpus) == ({"l4-od": 2_000}, 1_000, 2)
    assert limits.most_units == {"L4x0.25-bf16|l4-od": 8, "L4x1-bf16|l4-od": 2}
    parts = {part.variant: part.units for part in capacities[SERVICE].mix.parts}
    assert 250 * parts.get("L4x0.25-bf16", 0) + 1_000 * parts.get("L4x1-bf16", 0) == 2_000
    assert (SERVICE, "ShortOfCapacity") in reasons
    share = next(t for t in run.draft.plan().targets if isinstance(t, Share))
    assert share.serving_gpus == 2


def test_a_small_load_takes_one_share_and_a_tenth_of_the_price() -> None:
    capacities, _, run = commit(wanting(0.5, "L4x0.1", "L4"))
    mix = capacities[SERVICE].mix
    assert [(part.variant, part.units) for part in mix.parts] == [("L4x0.1-bf16", 1)]
    assert mix.dollars_per_hour == pytest.approx(0.1)
    share = next(t for t in run.draft.plan().targets if isinstance(t, Share))
    assert share.serving_gpus == 1, "a begun GPU counts"


def test_joint_plans_leave_those_out_that_may_have_shares() -> None:
    made = [_competitor(wanting(5.0, *variants)) for variants in (("L4x0.25", "L4"), ("L4",))]
    assert [each is None for each in made] == [True, False]


def _competitor(snapshot: Snapshot) -> Competitor | None:
    groups, ctx = Groups(snapshot), context(loop="select")
    found: Competitor | None = JointMix()._competitor(
        groups, Inventory(groups, ctx.now_seconds), snapshot.services[SERVICE], ctx
    )
    return found

"""Shares of GPUs and priorities: who gives way to whom, never in vain, and nodes that are bought for shares."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import actions as act
from cluster.hardware import Slot
from cluster.reasons import render
from cluster.serving import Objective, ReplicaPhase
from cluster.snapshot import Snapshot
from cluster.targets import Capacity, Share
from policies.commit.by_priority import ByPriority
from policies.commit.inventory import Inventory
from policies.groups import Groups
from policies.place.preempting import chosen
from policies.place.priced_fgd import PricedFgd, PricedFgdConfig
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context, variant
from tests.policies.test_shares import SMALL, held, part

HIGH, LOW, BASE = "shop/high", "shop/low", "shop/base"
PRIORITY = {HIGH: 2, LOW: 1, BASE: 0}


def promise(priority: int) -> tuple[Objective, ...]:
    return (Objective(ttft_seconds=2.0, tpot_seconds=0.1, priority=priority),)


def cluster(nodes: int = 1, gpus: int = 2, **more: Any) -> ClusterBuilder:
    """Nodes whose devices may be shared."""
    made = a_cluster().with_pool("l4-od", "L4", 1.0)
    return made.with_nodes(nodes, "l4-od", gpus=gpus, divisible={"memory": 24 * 2**30}, **more)


def wants(made: ClusterBuilder, name: str, variants: str, units: int, **more: Any) -> ClusterBuilder:
    """A service whose user sized it; its live replicas are put there by `has`."""
    made.with_service(
        name, *variants.split(), model=SMALL, objectives=promise(PRIORITY[name]), drain_seconds=1.0, **more
    )
    return made.with_capacity(name, 0.0, units=units, owner="user", final=False)


def has(made: ClusterBuilder, name: str, of: str, *devices: int, node: str = "l4-od-0", **more: Any) -> None:
    for device in devices:
        made.with_replica(name, of, node, devices=(device,), **more)


def committed(view: Snapshot) -> Snapshot:
    policy = ByPriority()
    plan = policy.decide(view, policy.initial(), context(loop="commit")).plan
    return view.after(plan)


def placed(view: Snapshot, state: Any = None) -> Any:
    policy = PricedFgd()
    decision = policy.decide(view, state or policy.initial(), context(loop="place"))
    for reason in decision.plan.reasons:
        assert render(reason)
    return decision


def drained(decision: Any) -> list[str]:
    return sorted(a.subject.name for a in decision.plan.actions if isinstance(a, act.Drain))


def gave_way(decision: Any) -> list[tuple[str, str, float]]:
    """(loser, winner, GPUs freed) of every PreemptedFor."""
    found = [r for r in decision.plan.reasons if r.code == "PreemptedFor"]
    return sorted((r.subject.name, r.choice, r.limit.value) for r in found if r.limit is not None)


# ------------------------------------------------------------------------------------------------ who gives way


def full(*, low: str = "L4x0.5", priority_of: str = LOW) -> ClusterBuilder:
    """Two GPUs, both begun by shares of `low`: halves on each, one alone on the second."""
    made = cluster()
    wants(made, priority_of, low, 3)
    has(made, priority_of, low, 0, 0, 1)
    return made


def test_a_whole_one_takes_the_device_with_the_least_on_it_and_all_of_it() -> None:
    made = wants(full(), HIGH, "L4", 1)
    view = committed(made.build())
    assert view.capacity(HIGH).mix.parts[0].units == 1
    assert view.capacity(LOW).mix.parts[0].units == 2
    decision = placed(view)
    assert drained(decision) == ["shop/low-l4x0.5-bf16-3"], "one half goes, not two"


def test_a_whole_one_takes_all_of_a_device_or_none_of_it() -> None:
    made = cluster(gpus=1)
    wants(made, LOW, "L4x0.25", 3)
    has(made, LOW, "L4x0.25", 0, 0, 0)
    decision = placed(committed(wants(made, HIGH, "L4", 1).build()))
    assert len(drained(decision)) == 3


def standing(made: ClusterBuilder, name: str, **mix: int) -> None:
    """The service's final mix, by variant."""
    names = {"quarter": "L4x0.25", "half": "L4x0.5", "one": "L4"}
    made.with_capacity(name, 0.0, *((names[each], "l4-od", n) for each, n in mix.items()), owner="user")


def test_a_device_of_which_one_share_is_kept_by_its_user_is_left_whole() -> None:
    made = cluster(gpus=1)
    wants(made, LOW, "L4x0.25", 2)
    has(made, LOW, "L4x0.25", 0)
    has(made, LOW, "L4x0.25", 0, kept_by="plimsoll.dev/do-not-disrupt")
    wants(made, HIGH, "L4", 1)
    standing(made, LOW, quarter=2)
    standing(made, HIGH, one=1)
    assert not drained(placed(made.build()))


def test_a_device_of_which_one_share_is_of_the_same_priority_is_left_whole() -> None:
    made = cluster(gpus=1)
    wants(made, LOW, "L4x0.25", 1)
    has(made, LOW, "L4x0.25", 0)
    wants(made, HIGH, "L4x0.25", 1)
    has(made, HIGH, "L4x0.25", 0)
    made.with_service("shop/whole", "L4", objectives=promise(2))
    made.with_capacity("shop/whole", 0.0, units=1, owner="user", final=False)
    view = committed(made.build())
    assert not view.capacity("shop/whole").mix.parts, "no device can be had whole"
    assert not drained(placed(view))


@pytest.mark.parametrize(
    ("there", "wanted", "goes"),
    [
        pytest.param({LOW: "half quarter quarter"}, "quarter", ["0.25"], id="no more than is enough"),
        pytest.param({LOW: "half quarter quarter"}, "half", ["0.5"], id="one half rather than two quarters"),
        pytest.param(
            {BASE: "half", LOW: "quarter quarter"}, "quarter", ["0.5"], id="the lowest priority first"
        ),
        pytest.param({LOW: "quarter quarter"}, "half", [], id="there is room"),
    ],
)
def test_a_share_takes_the_place_of_the_shares_that_are_just_enough(
    there: dict[str, str], wanted: str, goes: list[str]
) -> None:
    names = {"quarter": "L4x0.25", "half": "L4x0.5"}
    made = cluster(gpus=1)
    for name, live in there.items():
        wants(made, name, "L4x0.25 L4x0.5", 0)
        for each in live.split():
            has(made, name, names[each], 0)
        standing(made, name, **Counter(live.split()))
    wants(made, HIGH, names[wanted], 1)
    standing(made, HIGH, **{wanted: 1})
    found = drained(placed(made.build()))
    assert [part for key in found for part in goes if part in key] == goes
    assert len(found) == len(goes)


def test_a_share_takes_the_place_of_a_whole_one() -> None:
    made = cluster(gpus=1)
    wants(made, LOW, "L4", 1)
    has(made, LOW, "L4", 0)
    view = committed(wants(made, HIGH, "L4x0.25", 4).build())
    assert [p.units for p in view.capacity(HIGH).mix.parts] == [4]
    assert not view.capacity(LOW).mix.parts
    assert drained(placed(view)) == ["shop/low-l4x1-bf16-1"]


def test_nobody_gives_way_to_the_same_priority_or_a_lower_one() -> None:
    made = full(priority_of=HIGH)
    wants(made, LOW, "L4", 2)
    view = committed(made.build())
    assert not view.capacity(LOW).mix.parts
    assert not drained(placed(view))


def test_other_peoples_shares_stay() -> None:
    made = wants(cluster(gpus=1), HIGH, "L4", 1)
    view = committed(held(made.build(), part(0, 100)))
    assert not view.capacity(HIGH).mix.parts
    assert not drained(placed(view))


def test_what_is_on_its_way_out_is_waited_for() -> None:
    made = cluster(gpus=1)
    wants(made, LOW, "L4x0.5", 2)
    has(made, LOW, "L4x0.5", 0, phase=ReplicaPhase.DRAINING, age=0.1)
    has(made, LOW, "L4x0.5", 0)
    view = committed(wants(made, HIGH, "L4x0.5", 1).build())
    assert not drained(placed(view))


def test_the_loser_is_told_how_much_it_gave() -> None:
    made = cluster(gpus=1)
    wants(made, LOW, "L4x0.5", 2)
    has(made, LOW, "L4x0.5", 0, 0)
    made.with_capacity(LOW, 0.0, ("L4x0.5", "l4-od", 2), owner="user")
    wants(made, HIGH, "L4x0.5", 1)
    made.with_capacity(HIGH, 0.0, ("L4x0.5", "l4-od", 1), owner="user")
    assert gave_way(placed(made.build())) == [(LOW, HIGH, 0.5)]


def test_a_share_without_the_cpu_for_it_ends_nobody() -> None:
    made = cluster(gpus=1, cpu_millis=4_000)
    wants(made, LOW, "L4x0.5", 2, cpu_millis=1_000)
    has(made, LOW, "L4x0.5", 0, 0)
    made.with_capacity(LOW, 0.0, ("L4x0.5", "l4-od", 2), owner="user")
    wants(made, HIGH, "L4x0.5", 1, cpu_millis=5_000)
    made.with_capacity(HIGH, 0.0, ("L4x0.5", "l4-od", 1), owner="user")
    assert not drained(placed(made.build()))


def test_cpu_that_comes_free_on_another_part_of_the_machine_is_waited_for() -> None:
    """The device of the first machine and CPU of its other part are on their way out: nobody ends on the second one."""
    made = cluster(2, gpus=1, cpu_millis=8_000).with_pool("a10g-od", "A10G", 1.0)
    made.with_nodes(1, "a10g-od", gpus=1, cpu_millis=8_000)
    made.changing("nodes", "a10g-od-0", host="l4-od-0")
    made.with_claim("other/gpu", "l4-od-0", 0, phase="stopping")
    made.with_claim("other/cpu", "a10g-od-0", 0, phase="stopping")
    made.changing("claims", "other/cpu", slot=Slot(node="a10g-od-0", devices=(0,), cpu_millis=6_000))
    wants(made, LOW, "L4", 1)
    has(made, LOW, "L4", 0, node="l4-od-1")
    made.with_capacity(LOW, 0.0, ("L4", "l4-od", 1), owner="user")
    wants(made, HIGH, "L4", 1, cpu_millis=5_000)
    made.with_capacity(HIGH, 0.0, ("L4", "l4-od", 1), owner="user")
    assert not drained(placed(made.build()))


# ------------------------------------------------------------------------------------------------ buying


def market(rate: int, *, divided: bool = True, buyable: int = 4) -> Snapshot:
    """One node of two GPUs, full of shares that stay, more nodes to be bought, and a service that wants shares."""
    made = cluster()
    made.changing("pools", "l4-od", available_gpus=8, node_size=2, buyable_nodes=buyable)
    shared = {"sharing": "dra", "share_capacities": ("memory",)} if divided else {}
    made.changing("accelerators", "L4", **shared)
    wants(made, HIGH, "L4x0.5", 4)
    has(made, HIGH, "L4x0.5", 0, 0, 1, 1)
    return wants(made, LOW, "L4x0.25", rate).build()


@pytest.mark.parametrize(
    ("units", "bought", "given"),
    [
        pytest.param(0, 0, 0, id="nothing wanted"),
        pytest.param(1, 1, 1, id="one quarter, one node"),
        pytest.param(8, 1, 8, id="eight quarters on the two GPUs of one node"),
        pytest.param(9, 2, 9, id="a ninth on the next"),
        pytest.param(100, 4, 32, id="as many as may be bought"),
    ],
)
def test_shares_buy_nodes_together(units: int, bought: int, given: int) -> None:
    view = committed(market(units))
    share = view.targets.get("Share/l4-od")
    assert (share.nodes_to_buy if isinstance(share, Share) else 0) == bought
    assert sum(part.units for part in view.capacity(LOW).mix.parts) == given
    orders = [a for a in placed(view).plan.actions if isinstance(a, act.Provision)]
    assert sum(order.count for order in orders) == bought


def test_nothing_is_bought_for_shares_of_a_product_that_is_given_out_whole() -> None:
    view = committed(market(4, divided=False))
    share = view.targets["Share/l4-od"]
    assert isinstance(share, Share)
    assert share.nodes_to_buy == 0


def test_a_bought_node_that_does_not_divide_its_devices_is_not_bought_again() -> None:
    view = market(4)
    nodes: dict[str, Any] = dict(view.nodes)
    bare = msgspec.structs.replace(nodes["l4-od-0"], divisible={}, bought=True)
    nodes["l4-od-1"] = msgspec.structs.replace(bare, ref=msgspec.structs.replace(bare.ref, name="l4-od-1"))
    after = committed(msgspec.structs.replace(view, nodes=nodes))
    share = after.targets["Share/l4-od"]
    assert isinstance(share, Share)
    assert share.nodes_to_buy == 0


# ------------------------------------------------------------------------------------------------ whatever happens


SIZES = ("L4x0.25", "L4x0.5", "L4x0.3", "L4", "L4x2")
PEOPLE = st.lists(
    st.tuples(st.sampled_from(SIZES), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)),
    min_size=1,
    max_size=4,
)


def drawn(people: list[tuple[str, int, int, int]], nodes: int, gpus: int) -> Snapshot:
    """Services of any size and priority that have some replicas, where they fit, and want others."""
    made = cluster(nodes=nodes, gpus=gpus)
    free = {(f"l4-od-{n}", d): 1_000 for n in range(nodes) for d in range(gpus)}
    for number, (size, live, wanted, priority) in enumerate(people):
        name, one = f"shop/s{number}", variant(size)
        made.with_service(name, size, model=SMALL, objectives=promise(priority), drain_seconds=0.0)
        for _ in range(live):
            for node in sorted({node for node, _ in free}):
                fits = [d for (n, d), left in sorted(free.items()) if n == node and left >= one.milli]
                if len(fits) >= one.gpus:
                    made.with_replica(name, size, node, devices=tuple(fits[: one.gpus]))
                    for device in fits[: one.gpus]:
                        free[node, device] -= one.milli
                    break
        made.with_capacity(name, 0.0, units=wanted, owner="user", final=False)
    return made.build()


def used(view: Snapshot) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    for claim in view.claims.values():
        for device in claim.slot.devices:
            found[claim.slot.node, device] += claim.slot.milli_per_device
    return found


def later(view: Snapshot) -> Snapshot:
    """What a moment later is there: what drained is gone, what was created is ready."""
    replicas: dict[str, Any] = {}
    for key, replica in view.replicas.items():
        if replica.phase not in (ReplicaPhase.DRAINING, ReplicaPhase.STOPPING):
            replicas[key] = msgspec.structs.replace(replica, phase=ReplicaPhase.READY)
    return msgspec.structs.replace(
        view,
        replicas=replicas,
        claims={key: claim for key, claim in view.claims.items() if key in replicas},
        launchers={key: each for key, each in view.launchers.items() if key in replicas},
    )


def resized(view: Snapshot) -> Snapshot:
    """Commitment decides anew, on what is there."""
    targets = {
        key: msgspec.structs.replace(target, final=False) if isinstance(target, Capacity) else target
        for key, target in view.targets.items()
    }
    return committed(msgspec.structs.replace(view, targets=targets))


def live(view: Snapshot, service: str) -> int:
    serving = (ReplicaPhase.READY, ReplicaPhase.PENDING, ReplicaPhase.STARTING)
    return sum(1 for r in view.replicas.values() if r.service == service and r.phase in serving)


@settings(max_examples=60)
@given(PEOPLE, st.integers(1, 2), st.integers(1, 3))
def test_no_device_is_over_full_no_priority_inverted_and_it_comes_to_rest(
    people: list[tuple[str, int, int, int]], nodes: int, gpus: int
) -> None:
    view, state = drawn(people, nodes, gpus), None
    priority = {name: service.priority for name, service in view.services.items()}
    acted = True
    for _ in range(14):
        view = resized(view)
        decision = placed(view, state)
        state = decision.state
        for loser, winner, freed in gave_way(decision):
            assert priority[loser] < priority[winner]
            assert freed > 0.0
        acted = any(not isinstance(a, act.SetRoutes) for a in decision.plan.actions)
        view = view.after(decision.plan)
        assert max(used(view).values(), default=0) <= 1_000
        view = later(view)
    assert not acted, "it comes to rest"
    for name, service in view.services.items():
        capacity = view.capacity(name)
        assert live(view, name) == sum(part.units for part in capacity.mix.parts)
        short = capacity.mix.unserved_per_second > 1e-9 or (capacity.wanted_units and not capacity.mix.parts)
        if short:
            assert not _could_have(view, service, priority), "nobody of lower priority has what it wants"


def _could_have(view: Snapshot, service: Any, priority: dict[str, int]) -> bool:
    """Whether one more of the service would fit if all of lower priority went."""
    stay = {k: c for k, c in view.claims.items() if priority[view.replicas[k].service] >= service.priority}
    taken = used(msgspec.structs.replace(view, claims=stay))
    one = service.variants[0]
    return any(
        sum(1 for device in node.devices if 1_000 - taken[name, device.index] >= one.milli) >= one.gpus
        for name, node in view.nodes.items()
    )


@settings(max_examples=60)
@given(PEOPLE, st.integers(1, 2), st.integers(1, 3))
def test_nobody_gives_way_in_vain(people: list[tuple[str, int, int, int]], nodes: int, gpus: int) -> None:
    view = committed(drawn(people, nodes, gpus))
    run = PricedFgd._run(view, PricedFgd().initial(), context(loop="place"), PricedFgdConfig())
    run.create()
    first = next(((m, victims) for m, victims in chosen(run) if victims), None)
    if first is None:
        return
    missing, victims = first
    node, one = victims[0].slot.node, missing.variant
    after = run.overlay.snapshot()
    for spared in (None, *victims):
        gone = {v.replica.key for v in victims if v is not spared}
        taken = used(
            msgspec.structs.replace(after, claims={k: c for k, c in after.claims.items() if k not in gone})
        )
        room = sum(1 for device in view.nodes[node].devices if 1_000 - taken[node, device.index] >= one.milli)
        assert (room >= one.gpus) == (spared is None), "all of them suffice, none can be left out"


def test_a_joint_plan_leaves_devices_alone_that_shares_of_its_priority_began() -> None:
    made = full()
    wants(made, BASE, "L4", 0)
    has(made, BASE, "L4", 2, node="l4-od-1")
    made.with_nodes(1, "l4-od", gpus=2)
    book = Inventory(Groups(made.build()), NOW)
    assert [int(book.contested(priority).sum()) for priority in (2, 1, 0)] == [4, 2, 2]
    assert int(book.available(2).sum()) == 4


def test_the_inventory_counts_what_gives_way() -> None:
    made = full()
    wants(made, HIGH, "L4 L4x0.25", 0)
    wants(made, BASE, "L4 L4x0.25", 0)
    book = Inventory(Groups(made.build()), NOW)
    assert [int(book.available(priority).sum()) for priority in (2, 1, 0)] == [2, 0, 0]
    quarter = variant("L4x0.25")
    rooms = [book.room(name, f"{quarter.key}|l4-od", quarter) for name in (HIGH, BASE)]
    assert [(room.units, room.begun_milli) for room in rooms] == [(8, 0), (2, 500)]
    assert book.settle(HIGH, 2, {f"{quarter.key}|l4-od": (5, quarter)}) == {}
    assert sum(len(found) for found in book.tenants(LOW).values()) == 1, (
        "two halves gave way to five quarters less two"
    )


def test_whole_ones_of_two_services_do_not_count_on_the_same_lower_ones() -> None:
    """The first takes the place of the two of the lowest priority, so that the second has to take the shares'."""
    made = cluster(gpus=4)
    wants(made, BASE, "L4", 2)
    wants(made, LOW, "L4x0.5", 4)
    has(made, BASE, "L4", 0, 1)
    has(made, LOW, "L4x0.5", 2, 2, 3, 3)
    book, whole = Inventory(Groups(made.build()), NOW), variant("L4")
    left = []
    for name in (HIGH, "shop/higher"):
        assert book.settle(name, 2, {f"{whole.key}|l4-od": (2, whole)}) == {}
        left.append(sum(len(found) for found in book.tenants(LOW).values()))
    assert left == [4, 0]

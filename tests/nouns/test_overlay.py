"""What a plan will have done: pure, the same one by one or at once, one effect per kind of action."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import actions as act
from cluster import targets as aim
from cluster.base import Ref
from cluster.codec import to_json
from cluster.hardware import Offer
from cluster.occupancy import Claim, Reservation
from cluster.overlay import Overlay, gang_key
from cluster.plan import Plan
from cluster.power import Lease, LeasePhase
from cluster.serving import Launcher, LoadHistogram, Replica, ReplicaPhase, Role, Rollout, Tier
from cluster.snapshot import Snapshot, Stamp
from cluster.training import Gang, GangPhase, JobPhase, Layout
from tests.nouns.cases import (
    L4,
    NOW,
    cluster,
    gang,
    job,
    node,
    replica,
    service,
    slot,
    with_replicas,
)

LAYOUT = Layout(tensor=4, data=2, slots=(slot("b", 0, 1, 2, 3), slot("c", 0, 1, 2, 3)))
JOB = Ref("TrainingJob", "lab/train", "uid-job", 3)
SLOT = slot("a", 0)


def plan(*actions: Any, targets: tuple[Any, ...] = ()) -> Plan:
    return Plan(actions=actions, targets=targets)


def changed(before: Snapshot, after: Snapshot) -> set[str]:
    """Fields whose object is another one; what is not named here is shared."""
    names = Snapshot.__struct_fields__
    return {name for name in names if getattr(before, name) is not getattr(after, name)}


def effect(snapshot: Snapshot, *actions: Any) -> Snapshot:
    return snapshot.after(plan(*actions))


# one effect a kind


def test_a_launcher_holds_its_slots_at_once() -> None:
    before = cluster()
    two = (slot("a", 0), slot("b", 1))
    after = effect(before, act.CreateLauncher(reason=0, name="shop/l", slots=two, variant=L4))
    made = Ref("Launcher", "shop/l")
    assert changed(before, after) == {"launchers", "claims"}
    assert after.launchers == {"shop/l": Launcher(key="shop/l", ref=made, slots=two, variant=L4)}
    assert after.claims == {
        "shop/l": Claim(key="shop/l", owner=made, slot=two[0]),
        "shop/l/1": Claim(key="shop/l/1", owner=made, slot=two[1]),
    }


def test_a_replica_brings_its_own_launcher_and_claims() -> None:
    served = service(ref=Ref("ModelService", "shop/chat", "uid-svc", 4), revision="one", objectives=())
    before = cluster(services={"shop/chat": served})
    two = (slot("a", 0), slot("b", 1))
    create = act.CreateReplica(
        reason=0, service="shop/chat", name="shop/r0", variant=L4, pool="l4-od", ordinal=7, slots=two, tier=Tier.ASLEEP_HOST
    )  # fmt: skip
    after = effect(before, create)
    assert changed(before, after) == {"launchers", "claims", "replicas"}
    assert after.replicas == {
        "shop/r0": Replica(
            key="shop/r0", ref=Ref("Replica", "shop/r0", "", 4), service="shop/chat", launcher="shop/r0", variant=L4,
            pool="l4-od", ordinal=7, revision="one", tier=Tier.ASLEEP_HOST, phase_since_seconds=NOW,
        )
    }  # fmt: skip
    assert after.launchers["shop/r0"] == Launcher(
        key="shop/r0", ref=Ref("Launcher", "shop/r0"), slots=two, variant=L4
    )
    assert [(c.key, c.owner, c.slot, c.priority) for c in after.claims.values()] == [
        ("shop/r0", Ref("Replica", "shop/r0"), two[0], 0),
        ("shop/r0/1", Ref("Replica", "shop/r0"), two[1], 0),
    ]


def test_a_replicas_claims_have_the_priority_of_its_service() -> None:
    kind = type(service().objectives[0])
    urgent = service(
        objectives=(
            kind(ttft_seconds=1, tpot_seconds=1, priority=3),
            kind(ttft_seconds=1, tpot_seconds=1, priority=8),
        )
    )
    create = act.CreateReplica(reason=0, service="shop/chat", name="r", variant=L4, slots=(SLOT,))
    assert effect(cluster(services={"shop/chat": urgent}), create).claims["r"].priority == 8
    orphan = effect(cluster(services={}), create)
    assert orphan.claims["r"].priority == 0
    assert (orphan.replicas["r"].ref.version, orphan.replicas["r"].revision) == (0, "")


ON_TRIAL = service(
    revision="two", rollout=Rollout(number=2, began_seconds=NOW, complete=False, back_to="one")
)


@pytest.mark.parametrize(
    ("action", "revision", "rollout"),
    [
        pytest.param(act.SettleRevision(reason=0, service="shop/chat", revision="two", complete=True), "two", Rollout(number=2, began_seconds=NOW, back_to="one"), id="complete"),
        pytest.param(act.SettleRevision(reason=0, service="shop/chat", revision="two", complete=False), "one", Rollout(number=2, began_seconds=NOW, given_up="two"), id="given up: the one before comes back"),
        pytest.param(act.SettleRevision(reason=0, service="shop/chat", revision="three", complete=False), "two", ON_TRIAL.rollout, id="another revision"),
        pytest.param(act.SettleRevision(reason=0, service="shop/other", revision="two", complete=True), "two", ON_TRIAL.rollout, id="another service"),
    ],
)  # fmt: skip
def test_a_revision_is_settled(action: act.SettleRevision, revision: str, rollout: Rollout) -> None:
    after = effect(cluster(services={"shop/chat": ON_TRIAL}), action).services["shop/chat"]
    assert (after.revision, after.rollout) == (revision, rollout)


def test_with_nothing_to_go_back_to_a_revision_stays() -> None:
    alone = service(revision="one", rollout=Rollout(number=1, complete=False))
    before = cluster(services={"shop/chat": alone})
    action = act.SettleRevision(reason=0, service="shop/chat", revision="one", complete=False)
    assert effect(before, action).services["shop/chat"] == alone


def test_a_replica_in_a_launcher_that_is_there_claims_nothing_more() -> None:
    before = cluster(launchers={"l": Launcher(key="l", ref=Ref("Launcher", "l"), slots=(SLOT,))})
    after = effect(
        before, act.CreateReplica(reason=0, service="shop/chat", name="r", variant=L4, launcher="l")
    )
    assert changed(before, after) == {"replicas"}
    assert after.replicas["r"].launcher == "l"


REPLICAS = with_replicas(replica("r0"), replica("r1"))
GANGS = cluster(gangs={"lab/train-a1": gang()}, jobs={"lab/train": job(attempt=1, priority=6)})
HELD = Reservation(
    key="k", owner=JOB, slots=(SLOT,), priority=2, starts_seconds=NOW, expires_seconds=NOW + 60
)


@pytest.mark.parametrize(
    ("before", "action", "mapping", "key", "fields"),
    [
        pytest.param(REPLICAS, act.Drain(reason=0, subject=Ref("Replica", "r0"), deadline_seconds=NOW), "replicas", "r0", {"phase": ReplicaPhase.DRAINING}, id="a replica drains"),
        pytest.param(REPLICAS, act.Drain(reason=0, subject=Ref("Node", "a"), deadline_seconds=NOW), "nodes", "a", {"offer": Offer.CORDONED}, id="a node drains"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.DRAINING)), act.Resume(reason=0, subject=Ref("Replica", "r0")), "replicas", "r0", {"phase": ReplicaPhase.READY}, id="a replica resumes"),
        pytest.param(cluster(nodes={"a": node("a", offer=Offer.CORDONED)}), act.Resume(reason=0, subject=Ref("Node", "a")), "nodes", "a", {"offer": Offer.OPEN}, id="a node resumes"),
        pytest.param(REPLICAS, act.DeleteReplica(reason=0, replica=Ref("Replica", "r1"), grace_seconds=1), "replicas", "r1", {"phase": ReplicaPhase.STOPPING}, id="a deleted replica stops, and keeps its devices until it is gone"),
        pytest.param(REPLICAS, act.SetTier(reason=0, replica=Ref("Replica", "r0"), tier=Tier.ASLEEP_HOST), "replicas", "r0", {"tier": Tier.ASLEEP_HOST, "phase": ReplicaPhase.SLEEPING}, id="a replica falls asleep"),
        pytest.param(REPLICAS, act.SetTier(reason=0, replica=Ref("Replica", "r0"), tier=Tier.ASLEEP_DISCARD), "replicas", "r0", {"tier": Tier.ASLEEP_DISCARD, "phase": ReplicaPhase.SLEEPING}, id="a replica falls asleep without its weights"),
        pytest.param(with_replicas(msgspec.structs.replace(replica("r0", ReplicaPhase.ASLEEP), tier=Tier.ASLEEP_HOST)), act.SetTier(reason=0, replica=Ref("Replica", "r0"), tier=Tier.AWAKE), "replicas", "r0", {"tier": Tier.AWAKE, "phase": ReplicaPhase.WAKING}, id="a replica wakes"),
        pytest.param(REPLICAS, act.SetRole(reason=0, replica=Ref("Replica", "r0"), role=Role.DECODE), "replicas", "r0", {"role": Role.DECODE}, id="a replica changes its role"),
        pytest.param(GANGS, act.StopGang(reason=0, gang=Ref("Gang", "lab/train-a1"), attempt=1, grace_seconds=5), "gangs", "lab/train-a1", {"phase": GangPhase.STOPPING}, id="a gang stops"),
        pytest.param(REPLICAS, act.Isolate(reason=0, subject=Ref("Node", "b"), level="node", until_seconds=NOW + 60), "nodes", "b", {"offer": Offer.ISOLATED, "offer_until_seconds": NOW + 60}, id="a node is isolated"),
    ],
)  # fmt: skip
def test_an_action_changes_these_fields_of_one_object_and_nothing_else(
    before: Snapshot, action: Any, mapping: str, key: str, fields: dict[str, Any]
) -> None:
    after = effect(before, action)
    assert changed(before, after) == {mapping}
    was = getattr(before, mapping)
    assert getattr(after, mapping) == {**was, key: msgspec.structs.replace(was[key], **fields)}


@pytest.mark.parametrize(
    "action",
    [
        act.Drain(reason=0, subject=Ref("Replica", "z"), deadline_seconds=NOW),
        act.SetRole(reason=0, replica=Ref("Replica", "z"), role=Role.DECODE),
        act.StopGang(reason=0, gang=Ref("Gang", "z"), attempt=1, grace_seconds=5),
        act.Isolate(reason=0, subject=Ref("Node", "z"), level="node", until_seconds=NOW),
        act.Scale(reason=0, subject=Ref("ModelService", "shop/chat"), replicas=1),
        act.StageWeights(reason=0, model="m", node="a", tier="nvme", source="s", bytes=1),
        act.DropWeights(reason=0, model="m", node="a", tier="nvme"),
        act.Checkpoint(reason=0, job=JOB, interval_seconds=60),
        act.PaceGang(reason=0, gang=Ref("Gang", "lab/train-a1"), period_seconds=1, offset_seconds=0),
        act.ShapePrefill(reason=0, domain="row", request_class="c", tokens_per_second=1, burst_tokens=1),
        act.Migrate(reason=0, sequence="s", epoch=1, source="r0", target="r1", mode="kv", reserve_tokens=1, deadline_seconds=NOW),
        act.Dispatch(reason=0, request="q", instance="r0", code="c", score=1.0),
        act.Hold(reason=0, request="q"),
        act.Reject(reason=0, request="q", retry_after_seconds=1),
        act.Probe(reason=0, source="a", target="b", seconds=1),
    ],
    ids=lambda action: action.kind,
)  # fmt: skip
def test_what_has_no_effect_on_the_snapshot_shares_every_object(action: Any) -> None:
    before = with_replicas(replica("r0"))
    assert changed(before, effect(before, action)) == set()


def test_ordered_nodes_are_on_their_way_at_once_and_leave_less_to_be_bought() -> None:
    before = cluster()
    pools = {n: msgspec.structs.replace(p, buyable_nodes=3) for n, p in before.pools.items()}
    before = msgspec.structs.replace(before, pools=pools)
    after = effect(before, act.Provision(reason=0, pool="l4-od", count=2))
    assert changed(before, after) == {"in_flight", "pools"}
    assert [(f.kind, f.subject.name) for f in after.in_flight.values()] == [("Provision", "l4-od")] * 2
    assert after.pools["l4-od"].buyable_nodes == 1


def test_a_node_that_is_given_back_takes_no_new_work() -> None:
    before = cluster()
    parts = {**before.nodes, "b": msgspec.structs.replace(before.nodes["b"], host="c")}
    after = effect(msgspec.structs.replace(before, nodes=parts), act.ReleaseNode(reason=0, node="c"))
    offers = [after.nodes[name].offer for name in "abc"]
    assert offers == [Offer.OPEN, Offer.RECLAIMING, Offer.RECLAIMING], "a part of the machine goes with it"


def test_a_reservation_is_kept_and_given_up() -> None:
    reserve = act.Reserve(
        reason=0, key="k", owner=JOB, slots=(SLOT,), priority=2, starts_seconds=NOW, expires_seconds=NOW + 60
    )
    before = cluster()
    after = effect(before, reserve)
    assert changed(before, after) == {"reservations"}
    assert after.reservations == {"k": HELD}
    assert effect(after, act.Release(reason=0, key="k")).reservations == {}
    assert effect(before, reserve, act.Release(reason=0, key="k")).reservations == {}
    assert effect(before, act.Release(reason=0, key="none")).reservations == {}


def test_space_follows_every_action() -> None:
    working = Overlay(cluster(reservations={"k": HELD}))
    assert working.space.free_devices("a") == [1, 2, 3]
    working.apply(act.Release(reason=0, key="k"))
    assert working.space.free_devices("a") == [0, 1, 2, 3]
    working.apply(
        act.CreateReplica(reason=0, service="shop/chat", name="r", variant=L4, slots=(slot("a", 2),))
    )
    assert working.space.free_devices("a") == [0, 1, 3]
    working.apply(
        act.Reserve(
            reason=0, key="j", owner=JOB, slots=(slot("a", 3),), priority=2, starts_seconds=NOW, expires_seconds=NOW + 1
        )
    )  # fmt: skip
    assert working.space.free_devices("a") == [0, 1]
    assert working.space.free_devices("a", JOB) == [0, 1, 3]


def test_a_gang_takes_all_its_slots_and_makes_its_job_active() -> None:
    before = cluster(jobs={"lab/train": job(attempt=4, priority=6)})
    after = effect(before, act.StartGang(reason=0, job=JOB, attempt=5, layout=LAYOUT))
    assert changed(before, after) == {"claims", "gangs", "jobs"}
    made = Ref("Gang", "lab/train-a5")
    assert after.gangs == {
        "lab/train-a5": Gang(
            key="lab/train-a5", ref=made, job="lab/train", attempt=5, rendezvous="lab/train-a5", layout=LAYOUT,
            phase_since_seconds=NOW,
        )
    }  # fmt: skip
    assert after.claims == {
        f"lab/train-a5-r{i}": Claim(key=f"lab/train-a5-r{i}", owner=made, slot=LAYOUT.slots[i], priority=6) for i in (0, 1)
    }  # fmt: skip
    assert (after.jobs["lab/train"].attempt, after.jobs["lab/train"].phase) == (5, JobPhase.ACTIVE)
    assert gang_key("lab/train", 5) == "lab/train-a5"


def test_a_gang_of_a_job_that_is_gone_has_no_priority() -> None:
    after = effect(cluster(jobs={}), act.StartGang(reason=0, job=JOB, attempt=1, layout=LAYOUT))
    assert {c.priority for c in after.claims.values()} == {0}
    assert after.jobs == {}


def test_a_restart_replaces_the_attempt_from_its_restore_point() -> None:
    restart = act.RestartGang(
        reason=0, gang=Ref("Gang", "lab/train-a1"), job=JOB, attempt=2, layout=LAYOUT, restore_step=40
    )
    after = effect(GANGS, restart)
    assert after.gangs["lab/train-a1"].phase is GangPhase.RESTARTING
    assert after.gangs["lab/train-a1"].attempt == 1
    new = after.gangs["lab/train-a2"]
    assert (new.phase, new.step, new.checkpoint_step, new.attempt) == (GangPhase.FORMING, 40, 40, 2)
    assert after.jobs["lab/train"].attempt == 2
    assert set(after.claims) == {"lab/train-a2-r0", "lab/train-a2-r1"}


def test_a_grant_is_charged_until_it_is_answered() -> None:
    before = cluster()
    after = effect(before, act.GrantPower(reason=0, node="a", watts=500, clock_mhz=1_200, ttl_seconds=5.0))
    assert changed(before, after) == {"leases"}
    assert after.leases == {
        "a": Lease(
            node="a", watts=500, charged_watts=500, clock_mhz=1_200, issued_seconds=NOW, expires_seconds=NOW + 10,
            phase=LeasePhase.SENT,
        )
    }  # fmt: skip
    lower = effect(after, act.GrantPower(reason=0, node="a", watts=400))
    assert (lower.leases["a"].watts, lower.leases["a"].charged_watts, lower.leases["a"].clock_mhz) == (
        400,
        500,
        0,
    )


def test_targets_replace_those_of_the_same_key() -> None:
    def capacity(service_name: str, quantile: float) -> aim.Capacity:
        return aim.Capacity(
            owner="scale",
            decided_seconds=NOW,
            service=service_name,
            mix=aim.Mix(),
            wanted_per_second=1.0,
            quantile=quantile,
        )

    before = cluster(targets={"Capacity/a": capacity("a", 0.5), "Capacity/b": capacity("b", 0.5)})
    after = before.after(
        plan(
            targets=(
                capacity("a", 0.9),
                aim.Budget(owner="power", decided_seconds=NOW, domain="row", watts=9),
            )
        )
    )
    assert set(after.targets) == {"Capacity/a", "Capacity/b", "Budget/row"}
    assert after.capacity("a") == capacity("a", 0.9)
    assert after.capacity("b") is before.capacity("b")
    assert (after.capacity("c"), after.menu("a"), after.warm("a")) == (None, None, None)


def test_a_target_of_another_kind_under_the_key_is_not_taken_for_it() -> None:
    menu = aim.Menu(owner="select", decided_seconds=NOW, service="a", mixes=())
    warm = aim.Warm(owner="warm", decided_seconds=NOW, service="a", copies={"dram": 1})
    swapped = cluster(targets={"Capacity/a": menu, "Menu/a": warm, "Warm/a": menu})
    assert (swapped.capacity("a"), swapped.menu("a"), swapped.warm("a")) == (None, None, None)
    right = cluster(targets={aim.target_key(t): t for t in (menu, warm)})
    assert (right.menu("a"), right.warm("a")) == (menu, warm)


def test_what_belongs_to_a_service_comes_by_key() -> None:
    mixed = with_replicas(replica("r1"), replica("r0"), replica("x", of="shop/other"))
    assert [r.key for r in mixed.replicas_of("shop/chat")] == ["r0", "r1"]
    assert mixed.replicas_of("nobody") == []
    histogram = {
        f"{name}|{cls}": _histogram(name, cls) for name, cls in (("shop/chat", "z"), ("shop/chat", "a"), ("shop/other", "a"))
    }  # fmt: skip
    assert [h.request_class for h in cluster(loads=histogram).loads_of("shop/chat")] == ["a", "z"]


def _histogram(name: str, cls: str) -> Any:
    return LoadHistogram(
        service=name,
        request_class=cls,
        input_edges=(1,),
        output_edges=(1,),
        cells=(1.0,),
        window_seconds=10.0,
    )


# purity


NODES, NAMES = ("a", "b", "c"), ("r0", "r1", "r2", "r3")
ACTIONS = st.one_of(
    st.builds(act.CreateReplica, reason=st.just(0), service=st.just("shop/chat"), name=st.sampled_from(NAMES),
              variant=st.just(L4), slots=st.builds(lambda n, i: (slot(n, i),), st.sampled_from(NODES), st.integers(0, 3))),
    st.builds(act.Drain, reason=st.just(0), subject=st.builds(Ref, st.sampled_from(("Replica", "Node")), st.sampled_from(NAMES + NODES)),
              deadline_seconds=st.just(NOW)),
    st.builds(act.DeleteReplica, reason=st.just(0), replica=st.builds(Ref, st.just("Replica"), st.sampled_from(NAMES)),
              grace_seconds=st.just(1.0)),
    st.builds(act.Resume, reason=st.just(0), subject=st.builds(Ref, st.just("Replica"), st.sampled_from(NAMES))),
    st.builds(act.GrantPower, reason=st.just(0), node=st.sampled_from(NODES), watts=st.integers(300, 600)),
    st.builds(act.StartGang, reason=st.just(0), job=st.just(JOB), attempt=st.integers(1, 3), layout=st.just(LAYOUT)),
    st.builds(act.Reserve, reason=st.just(0), key=st.sampled_from(("k", "l")), owner=st.just(JOB), slots=st.just((SLOT,)),
              priority=st.integers(0, 3), starts_seconds=st.just(NOW), expires_seconds=st.just(NOW + 60)),
    st.builds(act.Release, reason=st.just(0), key=st.sampled_from(("k", "l"))),
)  # fmt: skip
PLANS = st.builds(
    Plan,
    actions=st.lists(ACTIONS, max_size=8).map(tuple),
    targets=st.lists(st.builds(aim.Budget, owner=st.just("power"), decided_seconds=st.just(NOW), domain=st.sampled_from("xy"), watts=st.integers(0, 9)), max_size=2).map(tuple),
)  # fmt: skip


@given(PLANS)
def test_a_snapshot_never_changes_and_a_plan_has_one_outcome(decided: Plan) -> None:
    before = with_replicas(replica("r0"))
    digest = to_json(before)
    after = before.after(decided)
    assert to_json(before) == digest
    assert to_json(before.after(decided)) == to_json(after)


@given(PLANS, st.integers(0, 8))
def test_a_plan_at_once_does_what_its_parts_do_one_after_the_other(decided: Plan, cut: int) -> None:
    before = with_replicas(replica("r0"))
    halves = Plan(actions=decided.actions[:cut]), Plan(actions=decided.actions[cut:], targets=decided.targets)
    assert to_json(before.after(halves[0]).after(halves[1])) == to_json(before.after(decided))
    single = before
    for action in decided.actions:
        single = single.after(plan(action))
    assert to_json(single) == to_json(before.after(Plan(actions=decided.actions)))


@given(PLANS)
def test_space_after_actions_is_the_space_of_the_outcome(decided: Plan) -> None:
    before = with_replicas(replica("r0"))
    working = Overlay(before)
    assert working.space.free_devices("a") == [1, 2, 3]
    for action in decided.actions:
        if isinstance(action, act.CreateReplica | act.StartGang):
            working.apply(action)
    fresh = Overlay(msgspec.structs.replace(working.snapshot(), stamp=Stamp(taken_seconds=NOW)))
    replaced = len(
        {a.name for a in decided.actions if isinstance(a, act.CreateReplica)} & {"r0"}
    ) or _repeats(decided)
    if not replaced:
        assert [fresh.space.free_devices(n) for n in NODES] == [working.space.free_devices(n) for n in NODES]


def _repeats(decided: Plan) -> bool:
    names = [
        getattr(a, "name", getattr(a, "attempt", None))
        for a in decided.actions
        if isinstance(a, act.CreateReplica | act.StartGang)
    ]
    return len(set(names)) < len(names)


def test_an_empty_plan_shares_everything() -> None:
    before = with_replicas(replica("r0"))
    assert changed(before, before.after(Plan())) == set()

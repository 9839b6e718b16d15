"""What the actor re-checks: each kind of action, passing and refused, with its code and numbers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster import actions as act
from cluster.base import Ref
from cluster.checks import check, subject_of
from cluster.hardware import Offer
from cluster.occupancy import Claim, Reservation
from cluster.overlay import Overlay
from cluster.owners import OWNERS, SUPPORTED
from cluster.reasons import render
from cluster.serving import Launcher, Mode, ReplicaPhase, Role, Rollout, Tier, WeightCopy
from cluster.snapshot import Snapshot
from cluster.training import GangPhase, JobPhase, Layout
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
    stamped,
    with_replicas,
)

LAYOUT = Layout(slots=(slot("a", 0, 1, 2, 3), slot("b", 0, 1, 2, 3)))
JOB = Ref("TrainingJob", "lab/train", "uid-job", 3)
TRIED = service(revision="two", rollout=Rollout(number=2, complete=False, back_to="one"))
SERVICE = Ref("ModelService", "shop/chat", "uid-svc", 1)
CREATE = act.CreateReplica(
    reason=0, expects=(SERVICE,), service="shop/chat", name="shop/r0", variant=L4, slots=(slot("a", 0),)
)
START = act.StartGang(reason=0, expects=(JOB,), job=JOB, attempt=1, layout=LAYOUT)
FULL = {
    f"x{i}": Claim(key=f"x{i}", owner=Ref("Pod", f"x{i}"), slot=slot("a", i), foreign=True) for i in range(4)
}
RUNNING = {"lab/train-a1": gang(checkpoint_step=40)}
HELD = Reservation(
    key="res",
    owner=Ref("TrainingJob", "lab/other"),
    slots=(slot("a", 0),),
    priority=5,
    starts_seconds=NOW,
    expires_seconds=NOW + 60,
)
COPIES = {
    "m|a|nvme": WeightCopy(model="m", node="a", tier="nvme", bytes=10),
    "m|b|nvme": WeightCopy(model="m", node="b", tier="nvme", bytes=10),
}


def verdict(snapshot: Snapshot, action: Any, loop: str, now: float = NOW) -> str:
    drop = check(Overlay(snapshot), stamped(action, loop), now)
    if drop is not None:
        assert render(drop.reason(subject_of(action)))
    return drop.code if drop is not None else "accepted"


def market(buyable: int | None = None) -> Snapshot:
    """The cluster with so many nodes to be bought, and node c bought before."""
    view = cluster()
    pools = {n: msgspec.structs.replace(p, buyable_nodes=buyable) for n, p in view.pools.items()}
    nodes = {n: msgspec.structs.replace(each, bought=n == "c") for n, each in view.nodes.items()}
    return msgspec.structs.replace(view, pools=pools, nodes=nodes)


def parted(**mappings: Any) -> Snapshot:
    """The same, node c having been bought and node a being a part of it."""
    view = market()
    nodes = {**view.nodes, "a": msgspec.structs.replace(view.nodes["a"], host="c")}
    return msgspec.structs.replace(view, nodes=nodes, **mappings)


@pytest.mark.parametrize(
    ("snapshot", "action", "loop", "code"),
    [
        pytest.param(cluster(), CREATE, "place", "accepted", id="a replica on a free device"),
        pytest.param(cluster(), CREATE, "scale", "NotOwner", id="a replica from a loop that does not own existence"),
        pytest.param(cluster(claims=FULL), CREATE, "place", "Taken", id="a replica on a device somebody else's pod holds"),
        pytest.param(cluster(reservations={"res": HELD}), CREATE, "place", "Taken", id="a replica on a reserved device"),
        pytest.param(cluster(nodes={"a": node("a", offer=Offer.CORDONED)}), CREATE, "place", "Taken", id="a replica on a cordoned node"),
        pytest.param(cluster(nodes={}), CREATE, "place", "Taken", id="a replica on a node that is gone"),
        pytest.param(cluster(services={"shop/chat": service(ref=Ref("ModelService", "shop/chat", "uid-svc", 2))}), CREATE, "place", "Stale", id="a replica of a spec that changed"),
        pytest.param(cluster(services={"shop/chat": service(ref=Ref("ModelService", "shop/chat", "other", 1))}), CREATE, "place", "Stale", id="a replica of a service that was deleted and made anew"),
        pytest.param(cluster(services={}), CREATE, "place", "Stale", id="a replica of a service that is gone"),
        pytest.param(with_replicas(replica("shop/r0"), on="b"), CREATE, "place", "Taken", id="a replica whose name is used"),
        pytest.param(cluster(), act.CreateReplica(reason=0, service="shop/chat", name="shop/r1", variant=L4, launcher="none"), "place", "Taken", id="a replica in a launcher that is gone"),
        pytest.param(cluster(launchers={"l": Launcher(key="l", ref=Ref("Launcher", "l"), slots=(slot("a", 0),))}), act.CreateReplica(reason=0, service="shop/chat", name="shop/r1", variant=L4, launcher="l"), "place", "accepted", id="a replica in a launcher that is there"),
        pytest.param(cluster(), act.CreateReplica(reason=0, service="shop/chat", name="x", variant=L4, slots=(slot("a", 0, cpu=9_000),)), "place", "Taken", id="a replica that wants more CPU than the node has"),
        pytest.param(cluster(), act.CreateLauncher(reason=0, name="l", slots=(slot("a", 0),)), "place", "Unsupported", id="a launcher without an engine is not carried out yet"),
        pytest.param(cluster(claims=FULL), act.CreateLauncher(reason=0, name="l", slots=(slot("a", 0),)), "place", "Taken", id="a launcher on a taken device"),
        pytest.param(cluster(launchers={"l": Launcher(key="l", ref=Ref("Launcher", "l"), slots=())}), act.CreateLauncher(reason=0, name="l", slots=()), "place", "Taken", id="a launcher whose name is used"),
        pytest.param(with_replicas(replica("r0"), replica("r1")), act.Drain(reason=0, subject=Ref("Replica", "r0"), deadline_seconds=NOW), "place", "accepted", id="a drain that leaves one"),
        pytest.param(with_replicas(replica("r0"), services={"shop/chat": service(floor_units=1)}), act.Drain(reason=0, subject=Ref("Replica", "r0"), deadline_seconds=NOW), "place", "Unsafe", id="a drain of the last ready replica above a floor of one"),
        pytest.param(with_replicas(replica("r0"), services={"shop/chat": service(floor_units=0)}), act.Drain(reason=0, subject=Ref("Replica", "r0"), deadline_seconds=NOW), "place", "accepted", id="a drain of the last replica of a service that may go to zero"),
        pytest.param(with_replicas(replica("r0"), services={"shop/chat": service(mode=Mode.OFF, replicas=1)}), act.Drain(reason=0, subject=Ref("Replica", "r0"), deadline_seconds=NOW), "place", "Unsafe", id="a drain below what the user asked for with mode Off"),
        pytest.param(with_replicas(replica("r0"), services={"shop/chat": service(floor_units=1)}, nodes={"a": node("a", offer=Offer.RECLAIMING)}), act.Drain(reason=0, subject=Ref("Replica", "r0"), deadline_seconds=NOW), "place", "accepted", id="a drain of the last replica on a node that is being taken away"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.STARTING)), act.Drain(reason=0, subject=Ref("Replica", "r0"), deadline_seconds=NOW), "place", "Stale", id="a drain of what is not ready"),
        pytest.param(cluster(), act.Drain(reason=0, subject=Ref("Replica", "r0"), deadline_seconds=NOW), "place", "Stale", id="a drain of what is gone"),
        pytest.param(with_replicas(replica("r0"), replica("r1")), act.Drain(reason=0, subject=Ref("Replica", "r0", "other"), deadline_seconds=NOW), "place", "Stale", id="a drain of another pod of the same name"),
        pytest.param(cluster(), act.Drain(reason=0, subject=Ref("Node", "a"), deadline_seconds=NOW), "place", "accepted", id="a drain of a node"),
        pytest.param(cluster(), act.Drain(reason=0, subject=Ref("Node", "z"), deadline_seconds=NOW), "place", "Stale", id="a drain of a node that is gone"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.DRAINING)), act.Resume(reason=0, subject=Ref("Replica", "r0")), "place", "accepted", id="a resume of what drains"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.STOPPING)), act.Resume(reason=0, subject=Ref("Replica", "r0")), "place", "Stale", id="a resume after stopping began"),
        pytest.param(cluster(), act.Resume(reason=0, subject=Ref("Replica", "r0")), "place", "Stale", id="a resume of what is gone"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.DRAINING)), act.DeleteReplica(reason=0, replica=Ref("Replica", "r0"), grace_seconds=1), "place", "accepted", id="a deletion of what drained"),
        pytest.param(with_replicas(replica("r0")), act.DeleteReplica(reason=0, replica=Ref("Replica", "r0"), grace_seconds=1), "place", "Unsafe", id="a deletion of a ready replica"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.WAKING)), act.DeleteReplica(reason=0, replica=Ref("Replica", "r0"), grace_seconds=1), "place", "Unsafe", id="a deletion of a replica that wakes"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.GONE)), act.DeleteReplica(reason=0, replica=Ref("Replica", "r0"), grace_seconds=1), "place", "Stale", id="a deletion of what is gone already"),
        pytest.param(cluster(), act.DeleteReplica(reason=0, replica=Ref("Replica", "r0"), grace_seconds=1), "place", "Stale", id="a deletion of what never was"),
        pytest.param(with_replicas(replica("r0")), act.SetTier(reason=0, replica=Ref("Replica", "r0"), tier=Tier.ASLEEP_HOST), "warm", "Unsupported", id="sleep is checked, then not carried out yet"),
        pytest.param(with_replicas(replica("r0")), act.SetTier(reason=0, replica=Ref("Replica", "r0"), tier=Tier.AWAKE), "warm", "Stale", id="waking what is awake"),
        pytest.param(cluster(), act.SetTier(reason=0, replica=Ref("Replica", "r0"), tier=Tier.AWAKE), "warm", "Stale", id="waking what is gone"),
        pytest.param(with_replicas(replica("r0")), act.SetRole(reason=0, replica=Ref("Replica", "r0"), role=Role.PREFILL), "place", "Unsupported", id="a role"),
        pytest.param(cluster(), act.SetRole(reason=0, replica=Ref("Replica", "r0"), role=Role.PREFILL), "place", "Stale", id="a role of what is gone"),
        pytest.param(with_replicas(replica("r0"), replica("r1")), act.SetRoutes(reason=0, service="shop/chat", weights={"r0": 0.25, "r1": 0.75}), "place", "accepted", id="routes that sum to one"),
        pytest.param(with_replicas(replica("r0")), act.SetRoutes(reason=0, service="shop/chat", weights={}), "place", "accepted", id="no routes at all"),
        pytest.param(with_replicas(replica("r0"), replica("r1")), act.SetRoutes(reason=0, service="shop/chat", weights={"r0": 0.25, "r1": 0.5}), "place", "Unsafe", id="routes that do not sum to one"),
        pytest.param(with_replicas(replica("r0"), replica("r1")), act.SetRoutes(reason=0, service="shop/chat", weights={"r0": -0.5, "r1": 1.5}), "place", "Unsafe", id="a negative route"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.DRAINING)), act.SetRoutes(reason=0, service="shop/chat", weights={"r0": 1.0}), "place", "Stale", id="routes to what is not ready"),
        pytest.param(cluster(services={}), act.SetRoutes(reason=0, service="shop/chat", weights={}), "place", "Stale", id="routes of a service that is gone"),
        pytest.param(cluster(services={"shop/chat": TRIED}), act.SettleRevision(reason=0, service="shop/chat", revision="two", complete=True), "place", "accepted", id="a revision that is complete"),
        pytest.param(cluster(services={"shop/chat": TRIED}), act.SettleRevision(reason=0, service="shop/chat", revision="two", complete=False), "place", "accepted", id="a revision that is given up"),
        pytest.param(cluster(services={"shop/chat": TRIED}), act.SettleRevision(reason=0, service="shop/chat", revision="one", complete=False), "place", "Stale", id="giving up a revision that is no more"),
        pytest.param(cluster(services={"shop/chat": service(revision="two", rollout=Rollout(back_to="one"))}), act.SettleRevision(reason=0, service="shop/chat", revision="two", complete=False), "place", "Unsafe", id="giving up a revision that was complete"),
        pytest.param(cluster(services={"shop/chat": service(revision="one", rollout=Rollout(complete=False))}), act.SettleRevision(reason=0, service="shop/chat", revision="one", complete=False), "place", "Unsafe", id="giving up the only revision there is"),
        pytest.param(cluster(services={}), act.SettleRevision(reason=0, service="shop/chat", revision="one", complete=True), "place", "Stale", id="a revision of a service that is gone"),
        pytest.param(cluster(services={"shop/chat": service(mode=Mode.RECOMMEND)}), act.Scale(reason=0, subject=Ref("ModelService", "shop/chat"), replicas=1), "place", "Unsafe", id="scale of a service that is not Auto"),
        pytest.param(cluster(), act.Scale(reason=0, subject=Ref("ModelService", "shop/chat"), replicas=1), "place", "Unsupported", id="scale of an Auto service"),
        pytest.param(cluster(), act.StageWeights(reason=0, model="m", node="z", tier="nvme", source="s", bytes=1), "warm", "Stale", id="weights to a node that is gone"),
        pytest.param(cluster(nodes={"a": node("a", nvme_bytes=15)}, weights=COPIES), act.StageWeights(reason=0, model="n", node="a", tier="nvme", source="s", bytes=6), "warm", "Taken", id="weights that do not fit beside others"),
        pytest.param(cluster(nodes={"a": node("a", nvme_bytes=15)}, weights=COPIES), act.StageWeights(reason=0, model="n", node="a", tier="nvme", source="s", bytes=5), "warm", "Unsupported", id="weights that just fit"),
        pytest.param(cluster(nodes={"a": node("a", dram_cache_bytes=5)}, weights=COPIES), act.StageWeights(reason=0, model="n", node="a", tier="dram", source="s", bytes=5), "warm", "Unsupported", id="another tier has its own quota"),
        pytest.param(cluster(weights=COPIES), act.DropWeights(reason=0, model="m", node="a", tier="nvme"), "warm", "Unsupported", id="dropping one of two copies"),
        pytest.param(cluster(weights={"m|a|nvme": COPIES["m|a|nvme"]}), act.DropWeights(reason=0, model="m", node="a", tier="nvme"), "warm", "Unsafe", id="dropping the last copy"),
        pytest.param(cluster(weights=COPIES), act.DropWeights(reason=0, model="m", node="c", tier="nvme"), "warm", "Stale", id="dropping what is not there"),
        pytest.param(cluster(), act.Reserve(reason=0, key="k", owner=JOB, slots=LAYOUT.slots, priority=1, starts_seconds=NOW, expires_seconds=NOW + 60), "train", "accepted", id="a reservation of free slots"),
        pytest.param(cluster(claims=FULL), act.Reserve(reason=0, key="k", owner=JOB, slots=LAYOUT.slots, priority=1, starts_seconds=NOW, expires_seconds=NOW + 60), "train", "Taken", id="a reservation of taken slots"),
        pytest.param(cluster(jobs={}), act.Reserve(reason=0, key="k", owner=JOB, slots=(), priority=1, starts_seconds=NOW, expires_seconds=NOW + 60), "train", "Stale", id="a reservation for nobody"),
        pytest.param(cluster(reservations={"res": HELD}), act.Release(reason=0, key="res"), "train", "accepted", id="a release"),
        pytest.param(cluster(), act.Release(reason=0, key="res"), "train", "Stale", id="a release of nothing"),
        pytest.param(cluster(), START, "train", "accepted", id="a gang on free slots"),
        pytest.param(cluster(claims=FULL), START, "train", "Taken", id="a gang that lacks one slot starts not at all"),
        pytest.param(cluster(jobs={"lab/train": job(attempt=1)}), START, "train", "Stale", id="a gang with an attempt number that was used"),
        pytest.param(cluster(jobs={"lab/train": job(phase=JobPhase.DONE)}), START, "train", "Stale", id="a gang of a finished job"),
        pytest.param(cluster(jobs={"lab/train": job(suspended=True)}), START, "train", "Stale", id="a gang of a suspended job"),
        pytest.param(cluster(jobs={}), START, "train", "Stale", id="a gang of a job that is gone"),
        pytest.param(cluster(jobs={"lab/train": job(attempt=1)}, gangs=RUNNING), act.RestartGang(reason=0, gang=Ref("Gang", "lab/train-a1"), job=JOB, attempt=2, layout=LAYOUT, restore_step=40), "train", "accepted", id="a restart from the checkpoint"),
        pytest.param(cluster(jobs={"lab/train": job(attempt=1)}, gangs=RUNNING), act.RestartGang(reason=0, gang=Ref("Gang", "lab/train-a1"), job=JOB, attempt=2, layout=LAYOUT, restore_step=41), "train", "Unsafe", id="a restart from a step nobody saved"),
        pytest.param(cluster(jobs={"lab/train": job(attempt=1)}), act.RestartGang(reason=0, gang=Ref("Gang", "lab/train-a1"), job=JOB, attempt=2, layout=LAYOUT, restore_step=0), "train", "Stale", id="a restart of a gang that is gone"),
        pytest.param(cluster(jobs={"lab/train": job(attempt=1)}, gangs=RUNNING, claims=FULL), act.RestartGang(reason=0, gang=Ref("Gang", "lab/train-a1"), job=JOB, attempt=2, layout=LAYOUT, restore_step=0), "train", "accepted", id="a restart in place is not refused for its own old members"),
        pytest.param(cluster(gangs=RUNNING), act.StopGang(reason=0, gang=Ref("Gang", "lab/train-a1"), attempt=1, grace_seconds=5), "train", "accepted", id="a stop"),
        pytest.param(cluster(gangs=RUNNING), act.StopGang(reason=0, gang=Ref("Gang", "lab/train-a1"), attempt=2, grace_seconds=5), "train", "Stale", id="a stop of another attempt"),
        pytest.param(cluster(), act.StopGang(reason=0, gang=Ref("Gang", "lab/train-a1"), attempt=1, grace_seconds=5), "train", "Stale", id="a stop of nothing"),
        pytest.param(cluster(gangs=RUNNING), act.StopGang(reason=0, gang=Ref("Gang", "lab/train-a1"), attempt=1, grace_seconds=5, reservation="res"), "train", "Stale", id="a preemption whose reservation is gone"),
        pytest.param(cluster(), act.Checkpoint(reason=0, job=JOB, interval_seconds=60), "train", "Unsupported", id="a checkpoint interval inside the bounds"),
        pytest.param(cluster(), act.Checkpoint(reason=0, job=JOB, interval_seconds=10), "train", "Unsafe", id="a checkpoint interval below the user's bounds"),
        pytest.param(cluster(), act.Checkpoint(reason=0, job=JOB, interval_seconds=121), "train", "Unsafe", id="a checkpoint interval above them"),
        pytest.param(cluster(jobs={}), act.Checkpoint(reason=0, job=JOB, interval_seconds=60), "train", "Stale", id="a checkpoint of nobody"),
        pytest.param(cluster(gangs=RUNNING), act.PaceGang(reason=0, gang=Ref("Gang", "lab/train-a1"), period_seconds=1, offset_seconds=0), "train", "Unsupported", id="pacing a running gang"),
        pytest.param(cluster(gangs={"lab/train-a1": gang(phase=GangPhase.FORMING)}), act.PaceGang(reason=0, gang=Ref("Gang", "lab/train-a1"), period_seconds=1, offset_seconds=0), "train", "Stale", id="pacing a gang that forms"),
        pytest.param(cluster(), act.Isolate(reason=0, subject=Ref("Node", "a"), level="node", until_seconds=NOW + 60), "faults", "Unsupported", id="the first isolation of the hour"),
        pytest.param(cluster(nodes={"a": node("a"), "b": node("b", offer=Offer.ISOLATED, offer_until_seconds=NOW + 60)}), act.Isolate(reason=0, subject=Ref("Node", "a"), level="node", until_seconds=NOW + 60), "faults", "Unsafe", id="an isolation beyond two percent of the nodes"),
        pytest.param(cluster(nodes={"a": node("a"), "b": node("b", offer=Offer.ISOLATED, offer_until_seconds=NOW - 60)}), act.Isolate(reason=0, subject=Ref("Node", "a"), level="node", until_seconds=NOW + 60), "faults", "Unsupported", id="an isolation after the last one ended"),
        pytest.param(cluster(), act.Isolate(reason=0, subject=Ref("Node", "z"), level="node", until_seconds=NOW + 60), "faults", "Stale", id="an isolation of nothing"),
        pytest.param(cluster(), act.GrantPower(reason=0, node="a", watts=600), "power", "accepted", id="a grant inside range and rating"),
        pytest.param(cluster(), act.GrantPower(reason=0, node="a", watts=601), "power", "Unsafe", id="a grant above the product's range"),
        pytest.param(cluster(), act.GrantPower(reason=0, node="a", watts=299), "power", "Unsafe", id="a grant below the safe cap"),
        pytest.param(cluster(), act.GrantPower(reason=0, node="z", watts=300), "power", "Stale", id="a grant to a node that is gone"),
        pytest.param(cluster(), act.ShapePrefill(reason=0, domain="row", request_class="default", tokens_per_second=100.0, burst_tokens=1), "power", "Unsupported", id="prefill shaping"),
        pytest.param(cluster(), act.ShapePrefill(reason=0, domain="row", request_class="default", tokens_per_second=0.0, burst_tokens=1), "power", "Unsafe", id="prefill shaping that starves a class"),
        pytest.param(cluster(), act.ShapePrefill(reason=0, domain="x", request_class="default", tokens_per_second=1.0, burst_tokens=1), "power", "Stale", id="prefill shaping of nothing"),
        pytest.param(with_replicas(replica("r0"), replica("r1")), act.Migrate(reason=0, sequence="s", epoch=1, source="r0", target="r1", mode="kv", reserve_tokens=1, deadline_seconds=NOW), "migration", "Unsupported", id="a move"),
        pytest.param(with_replicas(replica("r0"), replica("r1", ReplicaPhase.DRAINING)), act.Migrate(reason=0, sequence="s", epoch=1, source="r0", target="r1", mode="kv", reserve_tokens=1, deadline_seconds=NOW), "migration", "Stale", id="a move to what is not ready"),
        pytest.param(cluster(), act.Provision(reason=0, pool="l4-od", count=2), "place", "Unsafe", id="buying what the pool offers"),
        pytest.param(cluster(), act.Provision(reason=0, pool="l4-od", count=3), "place", "Taken", id="buying more than the pool offers"),
        pytest.param(market(1), act.Provision(reason=0, pool="l4-od", count=1), "place", "accepted", id="buying where nodes can be ordered"),
        pytest.param(market(1), act.Provision(reason=0, pool="l4-od", count=2), "place", "Taken", id="buying more than the budget allows"),
        pytest.param(market(), act.ReleaseNode(reason=0, node="c"), "place", "accepted", id="giving back a node that was bought"),
        pytest.param(cluster(), act.Provision(reason=0, pool="none", count=1), "place", "Taken", id="buying from a pool that is unknown"),
        pytest.param(cluster(), act.ReleaseNode(reason=0, node="c"), "place", "Unsafe", id="giving an empty node back"),
        pytest.param(cluster(claims=FULL), act.ReleaseNode(reason=0, node="a"), "place", "Unsafe", id="giving a used node back"),
        pytest.param(cluster(reservations={"res": HELD}), act.ReleaseNode(reason=0, node="a"), "place", "Unsafe", id="giving a reserved node back"),
        pytest.param(parted(), act.ReleaseNode(reason=0, node="c"), "place", "accepted", id="giving a machine back with all of its parts"),
        pytest.param(parted(claims=FULL), act.ReleaseNode(reason=0, node="c"), "place", "Unsafe", id="giving a machine back of which a part is used"),
        pytest.param(parted(reservations={"res": HELD}), act.ReleaseNode(reason=0, node="c"), "place", "Unsafe", id="giving a machine back of which a part is reserved"),
        pytest.param(cluster(), act.ReleaseNode(reason=0, node="z"), "place", "Stale", id="giving nothing back"),
        pytest.param(cluster(), act.Probe(reason=0, source="a", target="b", seconds=1), "faults", "Unsupported", id="a probe"),
        pytest.param(cluster(), act.Probe(reason=0, source="a", target="z", seconds=1), "faults", "Stale", id="a probe to nowhere"),
        pytest.param(cluster(), act.Dispatch(reason=0, request="q", instance="r0", code="c", score=1.0), "dispatch", "accepted", id="a dispatch is the gateway's to check"),
        pytest.param(cluster(), act.Hold(reason=0, request="q"), "dispatch", "accepted", id="a hold"),
        pytest.param(cluster(), act.Reject(reason=0, request="q", retry_after_seconds=1), "dispatch", "accepted", id="a rejection"),
    ],
)  # fmt: skip
def test_an_action_is_checked_against_the_state_of_now(
    snapshot: Snapshot, action: Any, loop: str, code: str
) -> None:
    assert verdict(snapshot, action, loop) == code


def test_an_action_past_its_deadline_is_dropped_and_says_how_old_it_is() -> None:
    drop = check(Overlay(cluster()), stamped(CREATE, "place", valid=30.0), NOW + 31.0)
    assert drop is not None
    assert (drop.code, drop.have, drop.limit) == ("Expired", 31.0, 30.0)
    assert check(Overlay(cluster()), stamped(CREATE, "place", valid=30.0), NOW + 30.0) is None


def test_every_kind_has_an_owner_and_a_kind_not_carried_out_says_unsupported() -> None:
    assert set(OWNERS) == set(act.KINDS)
    assert set(act.KINDS) > SUPPORTED


def test_an_accepted_action_is_charged_before_its_sibling_is_checked() -> None:
    working = Overlay(cluster())
    first = stamped(CREATE, "place")
    second = stamped(
        act.CreateReplica(reason=0, service="shop/chat", name="shop/r1", variant=L4, slots=(slot("a", 0),)),
        "place",
    )
    assert check(working, first, NOW) is None
    working.apply(first.action)
    drop = check(working, second, NOW)
    assert drop is not None
    assert (drop.code, drop.need, drop.have) == ("Taken", 1, 0)


@pytest.mark.parametrize(
    ("action", "subject"),
    [
        (CREATE, Ref("ModelService", "shop/chat")),
        (START, JOB),
        (act.GrantPower(reason=0, node="a", watts=1), Ref("Node", "a")),
        (act.Provision(reason=0, pool="p", count=1), Ref("Pool", "p")),
        (act.Release(reason=0, key="k"), Ref("Release", "k")),
        (act.ShapePrefill(reason=0, domain="row", request_class="c", tokens_per_second=1, burst_tokens=1), Ref("PowerDomain", "row")),
    ],
    ids=["a replica is about its service", "a gang about its job", "a grant about its node", "a purchase about its pool", "a release about its key", "shaping about its domain"],
)  # fmt: skip
def test_an_action_names_what_it_is_about(action: Any, subject: Ref) -> None:
    assert subject_of(action) == subject

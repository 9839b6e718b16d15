"""What a dropped action tells: the sentence of every refusal in the table of checks, with its numbers."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import actions as act
from cluster.base import Ref
from cluster.checks import check, subject_of
from cluster.drops import current, gone, slots_taken
from cluster.hardware import Offer, Slot
from cluster.occupancy import Reservation
from cluster.overlay import Overlay
from cluster.reasons import render
from cluster.serving import Launcher, Mode, Replica, ReplicaPhase, Role, Tier
from cluster.snapshot import Snapshot
from cluster.tables import InstanceTable
from tests.nouns import test_checks
from tests.nouns.cases import (
    L4,
    MODEL,
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

TABLE = {
    param.id: param.values
    for param in test_checks.test_an_action_is_checked_against_the_state_of_now.pytestmark[0].args[1]
}

SENTENCES = {
    "giving up a revision that is no more": "revision one of shop/chat, which is at two: 1 object expected, 0 objects found",
    "giving up a revision that was complete": "giving up revision two of shop/chat, with nothing to go back to: 1 object against a limit of 1 object (0 objects now)",
    "giving up the only revision there is": "giving up revision one of shop/chat, with nothing to go back to: 1 object against a limit of 1 object (0 objects now)",
    "a revision of a service that is gone": "revision of ModelService shop/chat, which is gone: 1 object expected, 0 objects found",
    "a replica from a loop that does not own existence": "CreateReplica from scale: not its field (1 loop may set it, 1 loop asked)",
    "a replica on a device somebody else's pod holds": "replica shop/r0 on a: 1 GPU needed, 0 GPU still free",
    "a replica on a reserved device": "replica shop/r0 on a: 1 GPU needed, 0 GPU still free",
    "a replica on a cordoned node": "replica shop/r0 on a: 1 GPU needed, 0 GPU still free",
    "a replica on a node that is gone": "replica shop/r0 on a: 1 GPU needed, 0 GPU still free",
    "a replica of a spec that changed": "CreateReplica for ModelService shop/chat: version 1 expected, version 2 found",
    "a replica of a service that was deleted and made anew": "CreateReplica for ModelService shop/chat: version 1 expected, version 0 found",
    "a replica of a service that is gone": "CreateReplica for ModelService shop/chat: version 1 expected, version 0 found",
    "a replica whose name is used": "replica name shop/r0: 1 name needed, 0 names still free",
    "a replica in a launcher that is gone": "launcher none of shop/r1, which is gone: 1 object needed, 0 objects still free",
    "a replica that wants more CPU than the node has": "replica x on a: 1 GPU needed, 0 GPU still free",
    "a launcher on a taken device": "launcher l on a: 1 GPU needed, 0 GPU still free",
    "a launcher whose name is used": "launcher name l: 1 name needed, 0 names still free",
    "a drain of the last ready replica above a floor of one": "drain of the last ready replica of shop/chat: 0 replicas against a limit of 1 replica (1 replica now)",
    "a drain below what the user asked for with mode Off": "drain of the last ready replica of shop/chat: 0 replicas against a limit of 1 replica (1 replica now)",
    "a drain of what is not ready": "drain of r0, which is starting: 1 object expected, 0 objects found",
    "a drain of what is gone": "drain of Replica r0, which is gone: 1 object expected, 0 objects found",
    "a drain of another pod of the same name": "drain of Replica r0, which is gone: 1 object expected, 0 objects found",
    "a drain of a node that is gone": "drain of Node z, which is gone: 1 object expected, 0 objects found",
    "a resume after stopping began": "resume of r0, which is stopping: 1 object expected, 0 objects found",
    "a resume of what is gone": "resume of Replica r0, which is gone: 1 object expected, 0 objects found",
    "a deletion of a ready replica": "deletion of r0, which is ready and not drained: 1 replica against a limit of 0 replicas (1 replica now)",
    "a deletion of a replica that wakes": "deletion of r0, which is waking and not drained: 1 replica against a limit of 0 replicas (1 replica now)",
    "a deletion of what is gone already": "deletion of Replica r0, which is gone: 1 object expected, 0 objects found",
    "a deletion of what never was": "deletion of Replica r0, which is gone: 1 object expected, 0 objects found",
    "waking what is awake": "tier change of r0, which is ready: 1 object expected, 0 objects found",
    "waking what is gone": "tier change of Replica r0, which is gone: 1 object expected, 0 objects found",
    "a role of what is gone": "role change of Replica r0, which is gone: 1 object expected, 0 objects found",
    "routes that do not sum to one": "routes of shop/chat that do not sum to 1: 75.0 % against a limit of 100.0 % (75.0 % now)",
    "a negative route": "a negative route of shop/chat: -50.0 % against a limit of 0.0 % (100.0 % now)",
    "routes to what is not ready": "routes to r0, which is no ready replica of shop/chat: 1 replica expected, 0 replicas found",
    "routes of a service that is gone": "routes of ModelService shop/chat, which is gone: 1 object expected, 0 objects found",
    "scale of a service that is not Auto": "scale of shop/chat, whose mode is Recommend: 1 replica against a limit of 0 replicas (0 replicas now)",
    "weights to a node that is gone": "weights of Node z, which is gone: 1 object expected, 0 objects found",
    "weights that do not fit beside others": "nvme of a for n: 6 B needed, 5 B still free",
    "dropping the last copy": "removal of the last copy of m: 0 copies against a limit of 1 copy (1 copy now)",
    "dropping what is not there": "weights of m on c, which are gone: 1 copy expected, 0 copies found",
    "a reservation of taken slots": "reservation k on a, b: 8 GPU needed, 4 GPU still free",
    "a reservation for nobody": "reservation of TrainingJob lab/train, which is gone: 1 object expected, 0 objects found",
    "a release of nothing": "release of Reservation res, which is gone: 1 object expected, 0 objects found",
    "a gang that lacks one slot starts not at all": "gang lab/train-a1 on a, b: 8 GPU needed, 4 GPU still free",
    "a gang with an attempt number that was used": "an attempt of lab/train: 2 expected, 1 found",
    "a gang of a finished job": "attempt 1 of lab/train, which is done: 1 object expected, 0 objects found",
    "a gang of a suspended job": "attempt 1 of lab/train, which is suspended: 1 object expected, 0 objects found",
    "a gang of a job that is gone": "StartGang for TrainingJob lab/train: version 3 expected, version 0 found",
    "a restart from a step nobody saved": "restore point of lab/train-a1: 41 steps against a limit of 40 steps (40 steps now)",
    "a restart of a gang that is gone": "restart of Gang lab/train-a1, which is gone: 1 object expected, 0 objects found",
    "a stop of another attempt": "stop of an attempt of lab/train: 1 expected, 2 found",
    "a stop of nothing": "stop of Gang lab/train-a1, which is gone: 1 object expected, 0 objects found",
    "a preemption whose reservation is gone": "preemption for res, which is gone: 1 object expected, 0 objects found",
    "a checkpoint interval below the user's bounds": "checkpoint interval of lab/train: 10 s against a limit of 30 s (60 s now)",
    "a checkpoint interval above them": "checkpoint interval of lab/train: 121 s against a limit of 120 s (60 s now)",
    "a checkpoint of nobody": "checkpoint of TrainingJob lab/train, which is gone: 1 object expected, 0 objects found",
    "pacing a gang that forms": "pacing of Gang lab/train-a1, which is gone: 1 object expected, 0 objects found",
    "an isolation beyond two percent of the nodes": "isolation of a: 2 nodes against a limit of 1 node (1 node now)",
    "an isolation of nothing": "isolation of Node z, which is gone: 1 object expected, 0 objects found",
    "a grant above the product's range": "grant to a, outside its range: 601 W against a limit of 600 W (300 W now)",
    "a grant below the safe cap": "grant to a, outside its range: 299 W against a limit of 300 W (300 W now)",
    "a grant to a node that is gone": "grant of Node z, which is gone: 1 object expected, 0 objects found",
    "prefill shaping that starves a class": "prefill share of default: 0 tokens/s against a limit of 1 tokens/s (0 tokens/s now)",
    "prefill shaping of nothing": "prefill shaping of PowerDomain x, which is gone: 1 object expected, 0 objects found",
    "a move to what is not ready": "move of s to r1, which is not ready: 1 object expected, 0 objects found",
    "buying more than the pool offers": "nodes of l4-od: 3 nodes needed, 2 nodes still free",
    "buying more than the budget allows": "nodes of l4-od: 2 nodes needed, 1 node still free",
    "buying from a pool that is unknown": "nodes of none: 1 node needed, 0 nodes still free",
    "buying what the pool offers": "nodes of l4-od, without a provisioner: 2 nodes against a limit of 0 nodes (0 nodes now)",
    "giving an empty node back": "giving back c, which was not ordered here: 1 node against a limit of 0 nodes (0 nodes now)",
    "giving a used node back": "giving back a: 4 claims against a limit of 0 claims (4 claims now)",
    "giving a machine back of which a part is used": "giving back c: 4 claims against a limit of 0 claims (4 claims now)",
    "giving a reserved node back": "giving back a: 1 claim against a limit of 0 claims (1 claim now)",
    "giving a machine back of which a part is reserved": "giving back c: 1 claim against a limit of 0 claims (1 claim now)",
    "giving nothing back": "release of Node z, which is gone: 1 object expected, 0 objects found",
    "a probe to nowhere": "probe of Node z, which is gone: 1 object expected, 0 objects found",
}  # fmt: skip


def sentence(snapshot: Snapshot, action: Any, loop: str, now: float = NOW) -> str:
    """What is told of a dropped action, or nothing when it is carried out."""
    drop = check(Overlay(snapshot), stamped(action, loop), now)
    return (
        ""
        if drop is None
        else render(drop.reason(subject_of(action))).removeprefix("dropped ").removesuffix(".")
    )


def test_every_refusal_of_the_table_has_its_sentence() -> None:
    refused = {name for name, (_, _, _, code) in TABLE.items() if code not in {"accepted", "Unsupported"}}
    assert refused == set(SENTENCES)


@pytest.mark.parametrize("name", SENTENCES)
def test_a_refusal_says_what_it_was_about_and_which_numbers_spoke_against_it(name: str) -> None:
    snapshot, action, loop, _ = TABLE[name]
    assert sentence(snapshot, action, loop) == SENTENCES[name]


@pytest.mark.parametrize("name", [name for name, values in TABLE.items() if values[3] == "Unsupported"])
def test_what_this_version_does_not_carry_out_says_how_much_it_does(name: str) -> None:
    snapshot, action, loop, _ = TABLE[name]
    said = "not among the 17 kinds of action that this version carries out (29 kinds exist)"
    assert sentence(snapshot, action, loop) == f"{action.kind}: {said}"


def create(*slots: Slot, gpus: int = 1, name: str = "shop/r0") -> act.CreateReplica:
    variant = type(L4)(accelerator="L4", gpus=gpus)
    return act.CreateReplica(reason=0, service="shop/chat", name=name, variant=variant, slots=slots)


def start(*slots: Slot, attempt: int = 1) -> act.StartGang:
    layout = type(gang().layout)(slots=slots)
    return act.StartGang(reason=0, job=test_checks.JOB, attempt=attempt, layout=layout)


def on_island(*islands: str, restart: bool = False) -> Any:
    layout = type(gang().layout)(slots=(slot("a", 0), slot("b", 0)), islands=islands)
    if restart:
        return act.RestartGang(
            reason=0, gang=Ref("Gang", "lab/train-a1"), job=test_checks.JOB, attempt=2, layout=layout, restore_step=0
        )  # fmt: skip
    return act.StartGang(reason=0, job=test_checks.JOB, attempt=1, layout=layout)


ISLANDS = {"nodes": {"a": node("a", island="x"), "b": node("b", island="y")}}
AGAIN = {"jobs": {"lab/train": job(attempt=1)}, "gangs": test_checks.RUNNING}


def reserve(priority: int, *slots: Slot) -> act.Reserve:
    return act.Reserve(
        reason=0, key="k", owner=test_checks.JOB, slots=slots, priority=priority, starts_seconds=NOW, expires_seconds=NOW + 9
    )  # fmt: skip


def busy(**columns: float) -> InstanceTable:
    return InstanceTable.build(("r0",), {name: [value] for name, value in columns.items()})


def draining(since: float = NOW, **more: Any) -> Snapshot:
    leaving = replica("r0", ReplicaPhase.DRAINING)
    changed = {f: getattr(leaving, f) for f in Replica.__struct_fields__}
    return with_replicas(Replica(**{**changed, "phase_since_seconds": since}), **more)


DELETE = act.DeleteReplica(reason=0, replica=Ref("Replica", "r0"), grace_seconds=1)
DRAIN = act.Drain(reason=0, subject=Ref("Replica", "r0"), deadline_seconds=NOW)
FLOOR = {"services": {"shop/chat": service(floor_units=3)}}
OTHERS = {"services": {"shop/chat": service(), "shop/other": service("shop/other")}}


def move(mode: str = "kv", source: str = "r0", target: str = "r1") -> act.Migrate:
    return act.Migrate(
        reason=0, sequence="s", epoch=1, source=source, target=target, mode=mode, reserve_tokens=1, deadline_seconds=NOW
    )  # fmt: skip


def printed(name: str, fingerprint: str) -> Any:
    fields = {f: getattr(MODEL, f) for f in type(MODEL).__struct_fields__}
    return service(name, model=type(MODEL)(**{**fields, "fingerprint": fingerprint}))


UNSUPPORTED = "not among the 17 kinds"


@pytest.mark.parametrize(
    ("snapshot", "action", "loop", "said"),
    [
        pytest.param(cluster(), create(), "place", "Unsafe replica shop/r0 on a number of devices other than its variant's: 0 GPU against a limit of 1 GPU (0 GPU now)", id="a replica on no device at all"),
        pytest.param(cluster(), create(slot("a", 0, 1)), "place", "Unsafe replica shop/r0 on a number of devices other than its variant's: 2 GPU against a limit of 1 GPU (0 GPU now)", id="a replica on more devices than its variant has"),
        pytest.param(cluster(), create(slot("a", 0), slot("b", 0), gpus=2), "place", "", id="a replica over two nodes"),
        pytest.param(cluster(), create(slot("a", 0), slot("a", 0), gpus=2), "place", "Taken replica shop/r0 on a: 2 GPU needed, 1 GPU still free", id="a replica on one device twice"),
        pytest.param(cluster(), start(slot("a", 0), slot("b", 0), slot("a", 0, 1)), "train", "Taken gang lab/train-a1 on a, b: 4 GPU needed, 3 GPU still free", id="a gang with two ranks on one device"),
        pytest.param(cluster(), start(slot("a", 0, cpu=5_000), slot("a", 1, cpu=5_000)), "train", "Taken gang lab/train-a1 on a: 2 GPU needed, 1 GPU still free", id="a gang whose ranks together want more CPU than there is"),
        pytest.param(cluster(**ISLANDS), on_island("x", "y"), "train", "", id="a gang over the two islands it was laid out for"),
        pytest.param(cluster(**ISLANDS), on_island(), "train", "", id="a gang that was laid out for no island"),
        pytest.param(cluster(**ISLANDS), on_island("x"), "train", "Stale gang lab/train-a1 on x, whose nodes are now on x and y: 1 object expected, 1 object found", id="a gang of which a node moved to another island"),
        pytest.param(cluster(**ISLANDS), on_island("z"), "train", "Stale gang lab/train-a1 on z, whose nodes are now on x and y: 1 object expected, 0 objects found", id="a gang whose nodes all moved"),
        pytest.param(cluster(**ISLANDS, **AGAIN), on_island("x", restart=True), "train", "Stale gang lab/train-a2 on x, whose nodes are now on x and y: 1 object expected, 1 object found", id="a restart of which a node moved to another island"),
        pytest.param(cluster(nodes={"a": node("a", island="x")}), on_island("x"), "train", "Taken gang lab/train-a1 on a, b: 2 GPU needed, 1 GPU still free", id="a gang of which a node is gone"),
        pytest.param(cluster(reservations={"res": test_checks.HELD}), reserve(5, slot("a", 0)), "train", "Taken reservation k on a: 1 GPU needed, 0 GPU still free", id="a reservation over one of equal priority"),
        pytest.param(cluster(reservations={"res": test_checks.HELD}), reserve(6, slot("a", 0)), "train", "", id="a reservation over one of lower priority"),
        pytest.param(cluster(claims=test_checks.FULL), reserve(6, slot("a", 0)), "train", "Taken reservation k on a: 1 GPU needed, 0 GPU still free", id="a reservation of a device in use, whatever its priority"),
        pytest.param(draining(instance_table=busy(running=2, waiting=1, pending=0)), DELETE, "place", "Unsafe deletion of r0, which still drains: 3 requests against a limit of 0 requests (3 requests now)", id="a deletion of what still answers"),
        pytest.param(draining(instance_table=busy(running=0, waiting=0, pending=4)), DELETE, "place", "Unsafe deletion of r0, which still drains: 4 requests against a limit of 0 requests (4 requests now)", id="a deletion of what requests are on their way to"),
        pytest.param(draining(instance_table=busy(running=2, waiting=0, pending=2)), DELETE, "place", "Unsafe deletion of r0, which still drains: 2 requests against a limit of 0 requests (2 requests now)", id="requests that gateway and engine both count are counted once"),
        pytest.param(draining(instance_table=busy(running=0, waiting=0)), DELETE, "place", "", id="a deletion of what is empty"),
        pytest.param(draining(since=NOW - 59.9, instance_table=busy(running=1)), DELETE, "place", "Unsafe deletion of r0, which still drains: 1 request against a limit of 0 requests (1 request now)", id="a deletion just before the time to drain is over"),
        pytest.param(draining(since=NOW - 60.0, instance_table=busy(running=1)), DELETE, "place", "", id="a deletion when the time to drain is over"),
        pytest.param(draining(services={}, instance_table=busy(running=1)), DELETE, "place", "", id="a deletion of what a deleted service left behind"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.FAILED), instance_table=busy(running=1)), DELETE, "place", "", id="a deletion of what failed, whatever its last report said"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.PENDING)), DELETE, "place", "", id="a deletion of what never was bound"),
        pytest.param(with_replicas(replica("r0"), replica("r1", of="shop/other"), **OTHERS), act.SetRoutes(reason=0, service="shop/chat", weights={"r0": 0.5, "r1": 0.5}), "place", "Stale routes to r1, which is no ready replica of shop/chat: 2 replicas expected, 1 replica found", id="routes to another service's replica"),
        pytest.param(with_replicas(replica("r0")), act.SetRoutes(reason=0, service="shop/chat", weights={"r0": 0.5, "z": 0.25, "y": 0.25}), "place", "Stale routes to y, which is no ready replica of shop/chat: 3 replicas expected, 1 replica found", id="routes to replicas that are gone name the first of them"),
        pytest.param(with_replicas(replica("r0")), act.SetRoutes(reason=0, service="shop/chat", weights={"r0": 1.0 + 9e-7}), "place", "", id="routes that sum to one but for rounding"),
        pytest.param(with_replicas(replica("r0")), act.SetRoutes(reason=0, service="shop/chat", weights={"r0": 1.0 + 2e-6}), "place", "Unsafe routes of shop/chat that do not sum to 1: 100.0 % against a limit of 100.0 % (100.0 % now)", id="routes that sum to more than one"),
        pytest.param(with_replicas(replica("r0"), replica("r1")), act.SetRoutes(reason=0, service="shop/chat", weights={"r0": 0.0, "r1": 1.0}), "place", "", id="a ready replica without traffic"),
        pytest.param(with_replicas(replica("r0"), replica("r1"), **FLOOR), DRAIN, "place", "", id="a drain above one ready, whatever the floor in units"),
        pytest.param(with_replicas(replica("r0"), replica("r1", ReplicaPhase.STARTING), **FLOOR), DRAIN, "place", "Unsafe drain of the last ready replica of shop/chat: 0 replicas against a limit of 1 replica (1 replica now)", id="a drain while the successor starts"),
        pytest.param(with_replicas(replica("r0"), replica("r1", of="shop/other"), **FLOOR), DRAIN, "place", "Unsafe drain of the last ready replica of shop/chat: 0 replicas against a limit of 1 replica (1 replica now)", id="another service's replicas do not count"),
        pytest.param(with_replicas(replica("r0"), services={}), DRAIN, "place", "", id="a drain of what a deleted service left behind"),
        pytest.param(with_replicas(replica("r0", ReplicaPhase.ASLEEP), **FLOOR), DRAIN, "place", "", id="a drain of what sleeps takes nothing from the ready"),
        pytest.param(with_replicas(replica("r0"), services={"shop/chat": service(mode=Mode.OFF, floor_units=1, replicas=0)}), DRAIN, "place", "", id="with mode Off the user's size counts, not the floor"),
        pytest.param(with_replicas(replica("r0"), nodes={"a": node("a", offer=Offer.LOST)}, **FLOOR), DRAIN, "place", "", id="a drain on a lost node"),
        pytest.param(with_replicas(replica("r0"), nodes={"a": node("a", offer=Offer.ISOLATED)}, **FLOOR), DRAIN, "place", "", id="a drain on an isolated node"),
        pytest.param(with_replicas(replica("r0"), nodes={}, **FLOOR), DRAIN, "place", "", id="a drain on a node that is gone"),
        pytest.param(with_replicas(replica("r0"), nodes={"a": node("a", offer=Offer.CORDONED)}, **FLOOR), DRAIN, "place", "Unsafe drain of the last ready replica of shop/chat: 0 replicas against a limit of 1 replica (1 replica now)", id="a cordon takes no node away"),
        pytest.param(cluster(), act.Resume(reason=0, subject=Ref("Node", "a")), "faults", "", id="a resume of a node"),
        pytest.param(cluster(launchers={"l": Launcher(key="l", ref=Ref("Launcher", "l"), slots=())}), act.CreateReplica(reason=0, service="none", name="x", variant=L4, launcher="l"), "place", "Stale replica of ModelService none, which is gone: 1 object expected, 0 objects found", id="a replica of a service nobody asked for"),
        pytest.param(cluster(), act.Scale(reason=0, subject=Ref("ModelService", "none"), replicas=1), "place", "Stale scale of ModelService none, which is gone: 1 object expected, 0 objects found", id="scale of a service that is gone"),
        pytest.param(cluster(), act.Scale(reason=0, subject=Ref("Deployment", "x/y"), replicas=1), "place", f"Unsupported Scale: {UNSUPPORTED}", id="scale of something owned elsewhere"),
        pytest.param(with_replicas(replica("r0"), replica("r1", of="shop/other"), services={"shop/chat": printed("shop/chat", "x"), "shop/other": printed("shop/other", "y")}), move(), "migration", "Unsafe KV move of s between different fingerprints: 2 objects against a limit of 1 object (1 object now)", id="KV between different models"),
        pytest.param(with_replicas(replica("r0"), replica("r1", of="shop/other"), services={"shop/chat": printed("shop/chat", "x"), "shop/other": printed("shop/other", "x")}), move(), "migration", f"Unsupported Migrate: {UNSUPPORTED}", id="KV between services of one model"),
        pytest.param(with_replicas(replica("r0"), replica("r1", of="shop/other"), services={"shop/chat": printed("shop/chat", "x"), "shop/other": printed("shop/other", "y")}), move("replay"), "migration", f"Unsupported Migrate: {UNSUPPORTED}", id="a replay needs no common KV"),
        pytest.param(with_replicas(replica("r0"), replica("r1", of="shop/other"), services={}), move(), "migration", "Unsafe KV move of s between different fingerprints: 2 objects against a limit of 1 object (1 object now)", id="KV of services that are gone"),
        pytest.param(with_replicas(replica("r1")), move(), "migration", "Stale move of s to r1, which is not ready: 1 object expected, 0 objects found", id="a move from what is gone"),
        pytest.param(with_replicas(replica("r0")), move(), "migration", "Stale move of s to r1, which is not ready: 1 object expected, 0 objects found", id="a move to what is gone"),
        pytest.param(cluster(jobs={"lab/train": job(attempt=1)}, gangs=test_checks.RUNNING), start(attempt=3), "train", "Stale an attempt of lab/train: 2 expected, 3 found", id="a gang that skips an attempt"),
        pytest.param(cluster(), act.Probe(reason=0, source="y", target="z", seconds=1), "faults", "Stale probe of Node y, which is gone: 1 object expected, 0 objects found", id="a probe from nowhere"),
        pytest.param(cluster(), act.Isolate(reason=0, subject=Ref("Device", "a-0"), level="device", until_seconds=NOW), "faults", f"Unsupported Isolate: {UNSUPPORTED}", id="the isolation of a device"),
        pytest.param(cluster(nodes={"a": node("a"), "b": node("b", offer=Offer.ISOLATED)}), act.Isolate(reason=0, subject=Ref("Node", "a"), level="node", until_seconds=NOW), "faults", "Unsafe isolation of a: 2 nodes against a limit of 1 node (1 node now)", id="an isolation without end counts"),
        pytest.param(cluster(nodes={f"n{i}": node(f"n{i}", offer=Offer.ISOLATED if i < 2 else Offer.OPEN) for i in range(150)}), act.Isolate(reason=0, subject=Ref("Node", "n9"), level="node", until_seconds=NOW), "faults", f"Unsupported Isolate: {UNSUPPORTED}", id="the third isolation of 150 nodes"),
        pytest.param(cluster(nodes={f"n{i}": node(f"n{i}", offer=Offer.ISOLATED if i < 3 else Offer.OPEN) for i in range(150)}), act.Isolate(reason=0, subject=Ref("Node", "n9"), level="node", until_seconds=NOW), "faults", "Unsafe isolation of n9: 4 nodes against a limit of 3 nodes (3 nodes now)", id="the fourth isolation of 150 nodes"),
    ],
)  # fmt: skip
def test_further_refusals(snapshot: Snapshot, action: Any, loop: str, said: str) -> None:
    drop = check(Overlay(snapshot), stamped(action, loop), NOW)
    assert (drop.code if drop else "") == said.partition(" ")[0]
    assert sentence(snapshot, action, loop).startswith(said.partition(" ")[2])


# what the checks share


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        pytest.param(Ref("Node", "a"), True, id="by name"),
        pytest.param(Ref("Node", "a", "uid-a"), True, id="by name and uid"),
        pytest.param(Ref("Node", "a", "uid-b"), False, id="another one of the same name"),
        pytest.param(Ref("Node", "z"), False, id="nobody"),
        pytest.param(Ref("Pod", "a"), False, id="a kind that is not looked up"),
        pytest.param(Ref("ModelService", "shop/chat", "uid-svc", 9), True, id="the version is not looked at"),
        pytest.param(Ref("TrainingJob", "lab/train"), True, id="a job"),
        pytest.param(Ref("PowerDomain", "row", "whatever"), True, id="what has no uid is known by its name"),
    ],
)
def test_an_object_is_the_same_by_name_and_uid(ref: Ref, found: bool) -> None:
    assert (current(Overlay(cluster()), ref) is not None) is found


def test_what_is_gone_is_stale_and_named() -> None:
    drop = gone("drain", Ref("Replica", "shop/r0", "u", 7))
    assert (drop.code, drop.what, drop.need, drop.have, drop.unit) == (
        "Stale", "drain of Replica shop/r0, which is gone", 1, 0, "objects",
    )  # fmt: skip


def test_looking_for_room_leaves_the_room_as_it_was() -> None:
    working = Overlay(cluster())
    wanted = (slot("a", 0, cpu=3_000), slot("b", 1))
    assert slots_taken(working, wanted, None, "x") is None
    assert slots_taken(working, wanted, None, "x") is None
    assert working.space.free_devices("a") == [0, 1, 2, 3]
    assert working.space.free_cpu_millis("a") == 8_000


def test_an_expired_reservation_keeps_nobody_out() -> None:
    old = Reservation(
        key="r", owner=Ref("TrainingJob", "lab/other"), slots=(slot("a", 0),), starts_seconds=0.0, expires_seconds=NOW
    )  # fmt: skip
    assert sentence(cluster(reservations={"r": old}), create(slot("a", 0)), "place") == ""


RUN, NOBODY = Ref("Gang", "lab/train-a1", "g"), Ref("Replica", "r0", "u")


@pytest.mark.parametrize(
    ("action", "subject"),
    [
        (act.CreateLauncher(reason=0, name="l", slots=()), Ref("CreateLauncher", "l")),
        (create(slot("a", 0)), Ref("ModelService", "shop/chat")),
        (act.Drain(reason=0, subject=NOBODY, deadline_seconds=1), NOBODY),
        (act.Resume(reason=0, subject=NOBODY), NOBODY),
        (act.DeleteReplica(reason=0, replica=NOBODY, grace_seconds=1), NOBODY),
        (act.SetTier(reason=0, replica=NOBODY, tier=Tier.AWAKE), NOBODY),
        (act.SetRole(reason=0, replica=NOBODY, role=Role.MIXED), NOBODY),
        (act.SetRoutes(reason=0, service="shop/chat", weights={}), Ref("ModelService", "shop/chat")),
        (act.SettleRevision(reason=0, service="shop/chat", revision="r", complete=True), Ref("ModelService", "shop/chat")),
        (act.Scale(reason=0, subject=NOBODY, replicas=1), NOBODY),
        (act.StageWeights(reason=0, model="m", node="a", tier="dram", source="s", bytes=1), Ref("Node", "a")),
        (act.DropWeights(reason=0, model="m", node="a", tier="dram"), Ref("Node", "a")),
        (reserve(1), test_checks.JOB),
        (act.Release(reason=0, key="k"), Ref("Release", "k")),
        (start(), test_checks.JOB),
        (on_island(restart=True), Ref("Gang", "lab/train-a1")),
        (act.StopGang(reason=0, gang=RUN, attempt=1, grace_seconds=1), RUN),
        (act.Checkpoint(reason=0, job=test_checks.JOB, interval_seconds=1), test_checks.JOB),
        (act.PaceGang(reason=0, gang=RUN, period_seconds=1, offset_seconds=0), RUN),
        (act.Isolate(reason=0, subject=NOBODY, level="node", until_seconds=1), NOBODY),
        (act.GrantPower(reason=0, node="a", watts=1), Ref("Node", "a")),
        (act.ShapePrefill(reason=0, domain="row", request_class="c", tokens_per_second=1, burst_tokens=1), Ref("PowerDomain", "row")),
        (move(), Ref("Migrate", "s")),
        (act.Dispatch(reason=0, request="q", instance="r0", code="c", score=1.0), Ref("Dispatch", "q")),
        (act.Hold(reason=0, request="q"), Ref("Hold", "q")),
        (act.Reject(reason=0, request="q", retry_after_seconds=1), Ref("Reject", "q")),
        (act.Provision(reason=0, pool="p", count=1), Ref("Pool", "p")),
        (act.ReleaseNode(reason=0, node="a"), Ref("Node", "a")),
        (act.Probe(reason=0, source="a", target="b", seconds=1), Ref("Probe", "a")),
    ],
    ids=lambda value: getattr(value, "kind", "") if isinstance(value, act.Action) else "",
)  # fmt: skip
def test_every_kind_of_action_is_about_something(action: Any, subject: Ref) -> None:
    assert subject_of(action) == subject

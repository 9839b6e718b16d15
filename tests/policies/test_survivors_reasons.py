"""Every builder of a reason, in full: the sentence, and the numbers, names, references and cures behind it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from cluster.actions import Dispatch, Hold, Reject
from cluster.base import Ref
from cluster.hardware import Device, Node, Slot
from cluster.occupancy import Reservation
from cluster.reasons import Reason, render
from cluster.serving import Objective, Replica, ReplicaPhase, Service
from cluster.snapshot import Snapshot
from cluster.space import Space
from cluster.tables import InstanceTable
from cluster.targets import Capacity, Mix, MixPart
from cluster.training import Gang, Job, Layout, TrainingShape
from cluster.views import DispatchView, Request
from placement.models import model_spec
from placement.packing.best_fit import Choice, Rooms
from placement.training.degrees import Degrees
from placement.training.islands import Fit, Shortage, islands_of
from policies import refusals
from policies.commit import why as commit_why
from policies.dispatch.least_outstanding import LeastOutstanding, LeastOutstandingConfig, explain
from policies.frames import Excluded, Frame
from policies.place import why as place_why
from policies.place.cases import Case
from policies.planner import PlannerStates, run_planner
from policies.registry import PolicyConfigError, build, config_of, row_of
from policies.train import why as train_why
from tests.policies.builders import NOW, a_cluster, context, variant
from tests.policies.stories import reason_line

CHAT = Service(
    ref=Ref("ModelService", "shop/chat", "u", 5), model=model_spec("mistral-7b", {}),
    objectives=(Objective(ttft_seconds=2.0, tpot_seconds=0.1, priority=2),), variants=(variant("L4"), variant("H100x2")),
    floor_units=1, drain_seconds=45.0,
)  # fmt: skip
VIP = msgspec.structs.replace(
    CHAT,
    ref=Ref("ModelService", "shop/vip"),
    objectives=(Objective(ttft_seconds=2.0, tpot_seconds=0.1, priority=7),),
)
PART = ("L4x1-bf16", "l4-od")
MIX = Mix(
    parts=(MixPart(variant="L4x1-bf16", pool="l4-od", units=2), MixPart(variant="H100x2-bf16", pool="h100-od", units=1)),
    dollars_per_hour=9.25, requests_per_second=12.5, unserved_per_second=1.5,
)  # fmt: skip
OTHER = Mix(parts=(MixPart(variant="H100x2-bf16", pool="h100-od", units=2),))


def replica(name: str, version: int = 3) -> Replica:
    return Replica(
        key=name, ref=Ref("Replica", name, "", version), service="shop/chat", launcher=name, variant=variant("L4"),
        pool="l4-od", phase=ReplicaPhase.READY,
    )  # fmt: skip


CASE = Case(
    CHAT, Capacity(owner="commit", decided_seconds=0.0, service="shop/chat", mix=MIX, wanted_per_second=9.0),
    {PART: 4, ("H100x2-bf16", "h100-od"): 2}, {PART: [replica("a"), replica("b")]}, {PART: [replica("c")]},
    [replica("d"), replica("e")], [], [], [], [],
)  # fmt: skip


def node(name: str, gpus: int = 4) -> Node:
    return Node(
        ref=Ref("Node", name, f"uid-{name}"), pool="l4-od", accelerator="L4", island="fabric-a",
        devices=tuple(Device(uuid=f"{name}{i}", index=i) for i in range(gpus)),
    )  # fmt: skip


NODES = {name: node(name) for name in ("n1", "n2", "n3")}
ROOMS = Rooms(NODES, Space(NODES, []))
JOB = Job(
    ref=Ref("TrainingJob", "lab/train", "j", 2), shape=TrainingShape(layers=24, hidden_size=2048, sequence_length=2048),
    steps=100, global_batch=48, min_nodes=2, max_nodes=3, gpus_per_node=4, attempt=4, restart_limit=3,
)  # fmt: skip
ISLAND = islands_of(NODES)[0]
FIT = Fit(ISLAND, ISLAND.nodes[:2], Degrees(1, 1, 8, (24,)), 3)
GANG = Gang(
    key="lab/train-a4", ref=Ref("Gang", "lab/train-a4", "r"), job="lab/train", attempt=4, rendezvous="r", layout=Layout(),
    step=37, checkpoint_step=30,
)  # fmt: skip
YOUNG = msgspec.structs.replace(GANG, step=-1, checkpoint_step=5)
KEPT = Reservation(
    key="lab/train", owner=JOB.ref, slots=(Slot(node="n1", devices=(0, 1)), Slot(node="n2", devices=(0,))),
    starts_seconds=0.0, expires_seconds=9.0,
)  # fmt: skip
SLOW = Excluded("L4x1-bf16", "TpotFloor", 40.0, 45.0, "ms")
SLOWER = Excluded("A10Gx1-bf16", "TpotFloor", 40.0, 60.0, "ms")
LARGE = Excluded("T4x1-bf16", "MemoryTooSmall", 30e9, 16e9, "B")
NONE = Excluded("B300x1-bf16", "UnknownAccelerator", 1.0, 3.0, "products")
EMPTY = Excluded("L4x4-bf16", "NoInventory", 4.0, 1.0, "GPU")


def frame(*excluded: Excluded) -> Frame:
    none = np.zeros(0)
    return Frame((), ((), ()), {}, (), excluded, (), none.astype(np.int64), none)


def line(reason: Reason | None) -> str:
    assert reason is not None
    return f"{render(reason)} {reason_line(reason)}"


REASONS: dict[str, Any] = {
    "a replica is placed": lambda: place_why.placed(CASE, variant("H100x2"), Choice(Slot(node="n1", devices=(0, 1)), 4, 2, 3, 1_250, "n2", 1_500)),
    "a replica finds no place": lambda: place_why.unplaceable(CASE, ("L4x8-bf16", "l4-od"), variant("L4x8"), ROOMS),
    "a draining replica stays": lambda: place_why.resumed(CASE, PART, replica("x")),
    "a replica was never bound": lambda: place_why.stuck(CASE, replica("x"), 61.0, 60.0),
    "a replica went with its node": lambda: place_why.lost(CASE, replica("x"), 12.0, 10.0),
    "a replica is empty": lambda: place_why.ended(CASE, replica("x"), 7.0, 2.0),
    "replicas too many": lambda: place_why.surplus(CASE, PART),
    "replicas of a part nobody wants": lambda: place_why.surplus(CASE, ("T4x1-bf16", "t4-od")),
    "a replica of an older spec": lambda: place_why.outdated(CASE, replica("x")),
    "a replica leaves its node": lambda: place_why.leaving(CASE, replica("x"), "n2"),
    "a service gives way": lambda: place_why.preempted(CHAT, VIP, 6),
    "routes": lambda: place_why.routes(CASE, {"a": 0.25, "b": 0.75}),
    "no routes": lambda: place_why.routes(CASE, {}),
    "a new mix": lambda: commit_why.chosen(CHAT, MIX, 11.0, 17, [commit_why.other(OTHER, 3.75)], commit_why.more_capacity("l4-od", 1, 2.5)),
    "a mix stays": lambda: commit_why.kept(CHAT, MIX, 11.0, 0.5, [SLOW.alternative()]),
    "a mix is too new to change": lambda: commit_why.held(CHAT, MIX, 11.0, 300.0, commit_why.ruled_out(frame(SLOW, NONE))),
    "not all is carried": lambda: commit_why.short(CHAT, MIX, 11.0, 17, None),
    "less than nothing is not carried": lambda: commit_why.short(CHAT, MIX, 1.0, 0, commit_why.more_capacity("h100-od", 2, 9.5)),
    "nothing is wanted": lambda: commit_why.nothing(CHAT, 3),
    "a gang starts": lambda: train_why.started(JOB, FIT),
    "a gang waits": lambda: train_why.waiting(JOB, Shortage("fabric-a (L4, none)", 1, 3, 4)),
    "a gang waits for a node that is free": lambda: train_why.waiting(JOB, Shortage("fabric-a (L4, none)", 4, 4, 4)),
    "a gang waits for a batch that divides": lambda: train_why.waiting(JOB, Shortage("fabric-a (L4, none)", 3, 3, 2, divides=False)),
    "a gang waits for its nodes": lambda: train_why.making_room(JOB, FIT, 0),
    "a gang waits a moment": lambda: train_why.making_room(JOB, FIT, 2),
    "a gang restarts": lambda: train_why.restarted(JOB, GANG, 5),
    "a gang restarts from ahead": lambda: train_why.restarted(JOB, YOUNG, 5),
    "a gang stops": lambda: train_why.stopped(JOB, GANG, 30.0),
    "a job is done": lambda: train_why.done(JOB, GANG, 600.0),
    "a job is done without a step": lambda: train_why.done(JOB, YOUNG, 600.0),
    "no more restarts": lambda: train_why.limit_reached(JOB, 30, 4),
    "a cadence": lambda: train_why.cadence(JOB, 120.0),
    "nodes are kept": lambda: train_why.reserved(JOB, FIT, 5),
    "nodes are given up": lambda: train_why.released(KEPT),
    "a variant is too slow": lambda: refusals.excluded(CHAT, SLOW, 9),
    "a variant has no GPU": lambda: refusals.excluded(CHAT, EMPTY, 9),
    "nothing keeps the objective": lambda: refusals.hopeless(Snapshot(), CHAT, frame(SLOWER, SLOW, LARGE, NONE), 9),
    "nothing is large enough": lambda: refusals.hopeless(Snapshot(), CHAT, frame(LARGE, NONE), 9),
    "nothing is there": lambda: refusals.hopeless(Snapshot(), CHAT, frame(EMPTY, NONE), 9),
    "nothing is allowed": lambda: refusals.no_inventory(Snapshot(), msgspec.structs.replace(CHAT, variants=()), frame(), 0),
    "a configuration": lambda: PolicyConfigError("no field x").reason(CHAT.ref),
    "a dispatch": lambda: explain(Dispatch(reason=-1, request="q", instance="a", code="LeastOutstanding", score=2.0, runner_up="b", runner_up_score=3.5), "shop/chat"),
    "a dispatch without a rival": lambda: explain(Dispatch(reason=-1, request="q", instance="a", code="LeastOutstanding", score=2.0), "shop/chat"),
}  # fmt: skip

GOLDEN = {
    "a replica is placed": "n1: 2 GPU needed, 4 GPU free there, 2 GPU left after it, at a cost of 1.25 GPU; 3 nodes were fit. Next best: n2, 0.25 GPU more. {against:[{choice:n2,cost:{name:cost,unit:GPU,value:0.25}}],choice:n1,code:ReplicaPlaced,facts:[left 2.0 GPU,cost 1.25 GPU],have:free 4.0 GPU,limit:fit_nodes 3.0 nodes,need:gpus 2.0 GPU,refs:[Node/n1],subject:ModelService/shop/chat@5,verdict:chosen}",
    "a replica finds no place": "L4x8-bf16 in l4-od needs 8 GPU on one node; the best node has 4 GPU (3 nodes of the pool are open). {choice:L4x8-bf16 in l4-od,code:ReplicaUnplaceable,have:free 4.0 GPU,limit:open_nodes 3.0 nodes,need:gpus 8.0 GPU,refs:[Pool/l4-od],remedy:{choice:l4-od,code:AddCapacity,facts:[{name:need,unit:GPU,value:4.0}]},subject:ModelService/shop/chat@5,verdict:blocked}",
    "a draining replica stays": "x is wanted again and stays: 4 replicas wanted, 3 replicas run; its drain of 45 s is undone. {choice:x,code:ReplicaResumed,have:live 3.0 replicas,limit:drain 45.0 s,need:wanted 4.0 replicas,refs:[Replica/x@3],subject:ModelService/shop/chat@5,verdict:kept}",
    "a replica was never bound": "x was not bound to its node within 60 s (waited 61 s, 60 s expected); it is replanned. {choice:x,code:ReplicaStuck,have:waited 61.0 s,limit:limit 60.0 s,need:expected 60.0 s,refs:[Replica/x@3],subject:ModelService/shop/chat@5,verdict:rejected}",
    "a replica went with its node": "x is lost: its node has been silent for 12 s, limit 10 s; 1 replica replaced. {choice:x,code:ReplicaLost,have:silent 12.0 s,limit:limit 10.0 s,need:replaced 1.0 replicas,refs:[Replica/x@3],subject:ModelService/shop/chat@5,verdict:rejected}",
    "a replica is empty": "x is empty or failed and is removed: 2 requests running, 6 replicas wanted, 7 s waited. {choice:x,code:ReplicaEnded,have:outstanding 2.0 req,limit:waited 7.0 s,need:wanted 6.0 replicas,refs:[Replica/x@3],subject:ModelService/shop/chat@5,verdict:chosen}",
    "replicas too many": "L4x1-bf16 in l4-od is surplus: 3 replicas run, 4 replicas wanted; drained within 45 s. {choice:L4x1-bf16 in l4-od,code:ReplicaSurplus,have:live 3.0 replicas,limit:drain 45.0 s,need:wanted 4.0 replicas,subject:ModelService/shop/chat@5,verdict:chosen}",
    "replicas of a part nobody wants": "T4x1-bf16 in t4-od is surplus: 0 replicas run, 0 replicas wanted; drained within 45 s. {choice:T4x1-bf16 in t4-od,code:ReplicaSurplus,have:live 0.0 replicas,limit:drain 45.0 s,need:wanted 0.0 replicas,subject:ModelService/shop/chat@5,verdict:chosen}",
    "a replica of an older spec": "x was made from an older spec (version 3, now version 5); drained within 45 s. {choice:x,code:ReplicaOutdated,have:made_from 3.0 versions,limit:drain 45.0 s,need:generation 5.0 versions,refs:[Replica/x@3],subject:ModelService/shop/chat@5,verdict:chosen}",
    "a replica leaves its node": "x leaves its node, which is being lost (2 replicas leave, 6 replicas wanted); drained within 45 s. {choice:x,code:ReplicaLeaving,have:leaving 2.0 replicas,limit:drain 45.0 s,need:wanted 6.0 replicas,refs:[Replica/x@3,Node/n2],subject:ModelService/shop/chat@5,verdict:moved}",
    "a service gives way": "gives way to shop/vip: priority 2 against priority 7, 6 GPU freed. {choice:shop/vip,code:PreemptedFor,have:own_priority 2.0 priority,limit:freed 6.0 GPU,need:priority 7.0 priority,refs:[ModelService/shop/vip],subject:ModelService/shop/chat@5,verdict:shed}",
    "routes": "traffic is split over 2 replicas of 6 replicas wanted, largest share 75.0 %. {code:RoutesSet,have:ready 2.0 replicas,limit:largest 0.75 ratio,need:wanted 6.0 replicas,subject:ModelService/shop/chat@5,verdict:chosen}",
    "no routes": "traffic is split over 0 replicas of 6 replicas wanted, largest share 0.0 %. {code:RoutesSet,have:ready 0.0 replicas,limit:largest 0.0 ratio,need:wanted 6.0 replicas,subject:ModelService/shop/chat@5,verdict:chosen}",
    "a new mix": "2 L4x1-bf16 + 1 H100x2-bf16 carry 12.50 req/s for a demand of 11.00 req/s at $9.25/h; 17 GPU of the pools were free. Next best: 2 H100x2-bf16, $3.75/h more. {against:[{choice:2 H100x2-bf16,cost:{name:more,unit:$/h,value:3.75}}],choice:2 L4x1-bf16 + 1 H100x2-bf16,code:MixChosen,facts:[cost 9.25 $/h],have:capacity 12.5 req/s,limit:free 17.0 GPU,need:demand 11.0 req/s,refs:[Pool/h100-od,Pool/l4-od],remedy:{choice:l4-od,code:AddCapacity,facts:[{name:need,unit:GPU,value:1.0},{name:have,unit:$/h,value:2.5}]},subject:ModelService/shop/chat@5,verdict:chosen}",
    "a mix stays": "2 L4x1-bf16 + 1 H100x2-bf16 still carry 12.50 req/s for a demand of 11.00 req/s at $9.25/h; changing would save less than $0.50/h. {against:[{choice:L4x1-bf16,code:TpotFloor,facts:[{name:need,unit:ms,value:40.0},{name:have,unit:ms,value:45.0}]}],choice:2 L4x1-bf16 + 1 H100x2-bf16,code:MixKept,facts:[cost 9.25 $/h],have:capacity 12.5 req/s,limit:least_saving 0.5 $/h,need:demand 11.0 req/s,refs:[Pool/h100-od,Pool/l4-od],subject:ModelService/shop/chat@5,verdict:kept}",
    "a mix is too new to change": "2 L4x1-bf16 + 1 H100x2-bf16 still carry 12.50 req/s for a demand of 11.00 req/s at $9.25/h; a mix is not changed for its price within 300 s of its choice. {against:[{choice:L4x1-bf16,code:TpotFloor,facts:[{name:need,unit:ms,value:40.0},{name:have,unit:ms,value:45.0}]},{choice:B300x1-bf16,code:UnknownAccelerator,facts:[{name:need,unit:products,value:1.0},{name:have,unit:products,value:3.0}]}],choice:2 L4x1-bf16 + 1 H100x2-bf16,code:MixHeld,facts:[cost 9.25 $/h],have:capacity 12.5 req/s,limit:hold 300.0 s,need:demand 11.0 req/s,refs:[Pool/h100-od,Pool/l4-od],subject:ModelService/shop/chat@5,verdict:kept}",
    "not all is carried": "only 9.50 req/s of 11.00 req/s can be carried: 17 GPU were free in the allowed pools, so 1.50 req/s is shed. {choice:2 L4x1-bf16 + 1 H100x2-bf16,code:ShortOfCapacity,facts:[shed 1.5 req/s],have:carried 9.5 req/s,limit:free 17.0 GPU,need:demand 11.0 req/s,refs:[Pool/h100-od,Pool/l4-od],subject:ModelService/shop/chat@5,verdict:shed}",
    "less than nothing is not carried": "only 0.00 req/s of 1.00 req/s can be carried: 0 GPU were free in the allowed pools, so 1.50 req/s is shed. {choice:2 L4x1-bf16 + 1 H100x2-bf16,code:ShortOfCapacity,facts:[shed 1.5 req/s],have:carried 0.0 req/s,limit:free 0.0 GPU,need:demand 1.0 req/s,refs:[Pool/h100-od,Pool/l4-od],remedy:{choice:h100-od,code:AddCapacity,facts:[{name:need,unit:GPU,value:2.0},{name:have,unit:$/h,value:9.5}]},subject:ModelService/shop/chat@5,verdict:shed}",
    "nothing is wanted": "no replica is wanted: demand 0.00 req/s, floor 1 replica, 3 replicas in use. {code:NothingWanted,have:in_use 3.0 replicas,limit:floor 1.0 replicas,need:demand 0.0 req/s,subject:ModelService/shop/chat@5,verdict:chosen}",
    "a gang starts": "starts on fabric-a (L4, none): 2 nodes needed, 3 nodes free in the island, best network 0 Mbit/s. {choice:fabric-a (L4, none),code:GangStarted,have:free 3.0 nodes,limit:rate 0.0 bit/s,need:nodes 2.0 nodes,refs:[Node/n1,Node/n2],subject:TrainingJob/lab/train@2,verdict:chosen}",
    "a gang waits": "waits for 4 nodes with 4 GPU each on one network; the best island has 1 node free of 3 nodes. {choice:fabric-a (L4, none),code:GangWaiting,facts:[gpus 4.0 GPU],have:free 1.0 nodes,limit:in_island 3.0 nodes,need:nodes 4.0 nodes,remedy:{choice:fabric-a (L4, none),code:FreeNodes,facts:[{name:need,unit:nodes,value:3.0}]},subject:TrainingJob/lab/train@2,verdict:blocked}",
    "a gang waits for a node that is free": "waits for 4 nodes with 4 GPU each on one network; the best island has 4 nodes free of 4 nodes. {choice:fabric-a (L4, none),code:GangWaiting,facts:[gpus 4.0 GPU],have:free 4.0 nodes,limit:in_island 4.0 nodes,need:nodes 4.0 nodes,remedy:{choice:fabric-a (L4, none),code:FreeNodes,facts:[{name:need,unit:nodes,value:1.0}]},subject:TrainingJob/lab/train@2,verdict:blocked}",
    "a gang waits for a batch that divides": "no number of nodes from 2 nodes to 3 nodes divides a batch of 48 samples and holds the model; 3 nodes are free in fabric-a (L4, none). {choice:fabric-a (L4, none),code:GangIndivisible,facts:[batch 48.0 samples],have:free 3.0 nodes,limit:most 3.0 nodes,need:least 2.0 nodes,subject:TrainingJob/lab/train@2,verdict:blocked}",
    "a gang waits for its nodes": "waits for 2 nodes with 4 GPU each on one network; the best island has 0 nodes free of 3 nodes. {choice:fabric-a (L4, none),code:GangWaiting,facts:[gpus 4.0 GPU],have:free 0.0 nodes,limit:in_island 3.0 nodes,need:nodes 2.0 nodes,remedy:{choice:fabric-a (L4, none),code:FreeNodes,facts:[{name:need,unit:nodes,value:2.0}]},subject:TrainingJob/lab/train@2,verdict:blocked}",
    "a gang waits a moment": "waits for 2 nodes with 4 GPU each on one network; the best island has 2 nodes free of 3 nodes. {choice:fabric-a (L4, none),code:GangWaiting,facts:[gpus 4.0 GPU],have:free 2.0 nodes,limit:in_island 3.0 nodes,need:nodes 2.0 nodes,remedy:{choice:fabric-a (L4, none),code:FreeNodes,facts:[{name:need,unit:nodes,value:1.0}]},subject:TrainingJob/lab/train@2,verdict:blocked}",
    "a gang restarts": "attempt 5 restarts from a checkpoint of 30 steps; 7 steps since then are lost (3 attempts allowed). {choice:lab/train-a4,code:GangRestarted,facts:[lost 7.0 steps],have:checkpoint 30.0 steps,limit:restarts 3.0 attempts,need:attempt 5.0 attempt,refs:[Gang/lab/train-a4],subject:TrainingJob/lab/train@2,verdict:moved}",
    "a gang restarts from ahead": "attempt 5 restarts from a checkpoint of 5 steps; 0 steps since then are lost (3 attempts allowed). {choice:lab/train-a4,code:GangRestarted,facts:[lost 0.0 steps],have:checkpoint 5.0 steps,limit:restarts 3.0 attempts,need:attempt 5.0 attempt,refs:[Gang/lab/train-a4],subject:TrainingJob/lab/train@2,verdict:moved}",
    "a gang stops": "attempt 4 is stopped with 30 s grace; 0 nodes were asked for. {choice:lab/train-a4,code:GangStopped,have:attempt 4.0 attempt,limit:grace 30.0 s,need:wanted 0.0 nodes,refs:[Gang/lab/train-a4],subject:TrainingJob/lab/train@2,verdict:chosen}",
    "a job is done": "finished 37 steps of 100 steps after 600 s. {choice:lab/train-a4,code:GangDone,have:done 37.0 steps,limit:since 600.0 s,need:asked 100.0 steps,refs:[Gang/lab/train-a4],subject:TrainingJob/lab/train@2,verdict:chosen}",
    "a job is done without a step": "finished 0 steps of 100 steps after 600 s. {choice:lab/train-a4,code:GangDone,have:done 0.0 steps,limit:since 600.0 s,need:asked 100.0 steps,refs:[Gang/lab/train-a4],subject:TrainingJob/lab/train@2,verdict:chosen}",
    "no more restarts": "not restarted: 4 attempts failed, limit 3 attempts; 30 steps done. {code:RestartLimitReached,have:failures 4.0 attempts,limit:restarts 3.0 attempts,need:done 30.0 steps,subject:TrainingJob/lab/train@2,verdict:rejected}",
    "a cadence": "checkpoints every 120 s (asked 600 s, bounds up to 3600 s). {code:CadenceSet,have:interval 120.0 s,limit:most 3600.0 s,need:asked 600.0 s,subject:TrainingJob/lab/train@2,verdict:chosen}",
    "nodes are kept": "5 GPU of 8 GPU are kept in fabric-a (L4, none) until all of its 2 nodes are free. {choice:fabric-a (L4, none),code:NodesReserved,have:kept 5.0 GPU,limit:nodes 2.0 nodes,need:gpus 8.0 GPU,refs:[Island/fabric-a],subject:TrainingJob/lab/train@2,verdict:chosen}",
    "nodes are given up": "3 GPU that were kept are given up. {choice:lab/train,code:NodesReleased,have:kept 3.0 GPU,need:waiting 0.0 nodes,subject:TrainingJob/lab/train@2,verdict:chosen}",
    "a variant is too slow": "L4x1-bf16 cannot be faster than 45 ms a token, 40 ms is asked. {choice:L4x1-bf16,code:TpotFloor,have:have 45.0 ms,need:need 40.0 ms,subject:ModelService/shop/chat@5,verdict:rejected}",
    "a variant has no GPU": "4 GPU wanted, but the cluster has 1 GPU of the allowed products (9 GPU in all). {choice:L4x4-bf16,code:NoInventory,have:have 1.0 GPU,limit:in_all 9.0 GPU,need:need 4.0 GPU,subject:ModelService/shop/chat@5,verdict:rejected}",
    "nothing keeps the objective": "no allowed GPU can keep the objective: the nearest, L4x1-bf16, needs 45 ms where 40 ms is asked (3 variants were tried). {against:[{choice:A10Gx1-bf16,code:TpotFloor,facts:[{name:need,unit:ms,value:40.0},{name:have,unit:ms,value:60.0}]},{choice:L4x1-bf16,code:TpotFloor,facts:[{name:need,unit:ms,value:40.0},{name:have,unit:ms,value:45.0}]},{choice:T4x1-bf16,code:MemoryTooSmall,facts:[{name:need,unit:B,value:30000000000.0},{name:have,unit:B,value:16000000000.0}]}],choice:L4x1-bf16,code:ObjectiveImpossible,have:tried 3.0 variants,limit:asked 40.0 ms,need:needs 45.0 ms,remedy:{choice:L4x1-bf16,code:RelaxObjective,facts:[{name:need,unit:ms,value:45.0}]},subject:ModelService/shop/chat@5,verdict:blocked}",
    "nothing is large enough": "no allowed GPU holds the model: the nearest, T4x1-bf16, needs 30.0 GB of memory and has 16.0 GB (1 variant tried); name a variant with more GPUs, a narrower precision, or a larger product. {against:[{choice:T4x1-bf16,code:MemoryTooSmall,facts:[{name:need,unit:B,value:30000000000.0},{name:have,unit:B,value:16000000000.0}]}],choice:T4x1-bf16,code:ModelTooLarge,have:tried 1.0 variants,limit:asked 16000000000.0 B,need:needs 30000000000.0 B,subject:ModelService/shop/chat@5,verdict:blocked}",
    "nothing is there": "1 GPU wanted, but the cluster has 0 GPU of the allowed products (9 GPU in all). {against:[{choice:L4x4-bf16,code:NoInventory,facts:[{name:need,unit:GPU,value:4.0},{name:have,unit:GPU,value:1.0}]},{choice:B300x1-bf16,code:UnknownAccelerator,facts:[{name:need,unit:products,value:1.0},{name:have,unit:products,value:3.0}]}],choice:L4 or H100,code:NoInventory,have:have 0.0 GPU,limit:in_all 9.0 GPU,need:gpus 1.0 GPU,remedy:{choice:L4 or H100,code:AddCapacity,facts:[{name:need,unit:GPU,value:1.0}]},subject:ModelService/shop/chat@5,verdict:blocked}",
    "nothing is allowed": "1 GPU wanted, but the cluster has 0 GPU of the allowed products (0 GPU in all). {choice:any product,code:NoInventory,have:have 0.0 GPU,limit:in_all 0.0 GPU,need:gpus 1.0 GPU,remedy:{choice:any product,code:AddCapacity,facts:[{name:need,unit:GPU,value:1.0}]},subject:ModelService/shop/chat@5,verdict:blocked}",
    "a configuration": "no field x; the last good configuration stays in force (1 fault, 0 faults allowed). {choice:no field x,code:PolicyConfigInvalid,have:found 1.0 faults,need:allowed 0.0 faults,subject:ModelService/shop/chat@5,verdict:rejected}",
    "a dispatch": "a had 2 requests outstanding, the runner-up 3.5 requests. Next best: b, 1.5 requests more. {against:[{choice:b,cost:{name:more,unit:req,value:1.5}}],choice:a,code:LeastOutstanding,have:score 2.0 req,need:runner_up_score 3.5 req,subject:ModelService/shop/chat,verdict:chosen}",
    "a dispatch without a rival": "a had 2 requests outstanding, the runner-up 0 requests. {choice:a,code:LeastOutstanding,have:score 2.0 req,need:runner_up_score 0.0 req,subject:ModelService/shop/chat,verdict:chosen}",
}  # fmt: skip


@pytest.mark.parametrize("name", REASONS)
def test_a_reason_in_full(name: str) -> None:
    assert line(REASONS[name]()) == GOLDEN[name]


def test_something_that_can_serve_is_not_hopeless() -> None:
    assert refusals.hopeless(Snapshot(), CHAT, frame()._replace(columns=(None,)), 9) is None  # type: ignore[arg-type]


def test_knowledge_that_is_missing_is_not_an_impossible_objective() -> None:
    profiled = frame(SLOW)._replace(profiles={"H100x2-bf16": None})  # type: ignore[dict-item]
    found = refusals.hopeless(Snapshot(), CHAT, profiled, 9)
    assert found is not None
    assert found.code == "NoInventory"


# a request that no row takes


def rows(**columns: list[float]) -> InstanceTable:
    size = len(next(iter(columns.values()), []))
    plain = {
        "ready": [1.0] * size,
        "route_weight": [1.0] * size,
        "running": [0.0] * size,
        "waiting": [0.0] * size,
        "pending": [0.0] * size,
    }
    return InstanceTable.build([f"r{i}" for i in range(size)], {**plain, **columns})


def asked(table: InstanceTable, now: float = 100.0, wake: float | None = None, **more: int) -> Any:
    request = Request(
        id="q",
        service="shop/chat",
        prompt_tokens=600,
        expected_output_tokens=400,
        arrived_seconds=90.0,
        deadline_seconds=120.0,
    )
    view = DispatchView(
        request=request, instances=table, wake_seconds=wake, **{"held": 3, "hold_limit": 8, **more}
    )
    policy = LeastOutstanding(LeastOutstandingConfig(retry_after_seconds=4.0))
    return policy.decide(view, policy.initial(), context(now=now, loop="dispatch")).plan


NO_ROW = rows()
SMALL = rows(kv_capacity_tokens=[999.0, 500.0, np.nan], ready=[1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("plan", "action", "said"),
    [
        pytest.param(asked(NO_ROW), Hold(reason=0, request="q"), "held: no instance is ready (3 requests held, cap 8 requests, 1 replica needed). {choice:hold,code:HoldNoInstance,have:held 3 req,limit:hold_limit 8 req,need:ready 1 replicas,subject:ModelService/shop/chat,verdict:blocked}", id="nothing is ready"),
        pytest.param(asked(NO_ROW, held=8), Reject(reason=0, request="q", retry_after_seconds=4.0), "rejected: 8 requests are held, cap 8 requests; retry in 4 s. {choice:reject,code:RejectCap,have:held 8 req,limit:hold_limit 8 req,need:retry_after 4.0 s,subject:ModelService/shop/chat,verdict:rejected}", id="too many wait"),
        pytest.param(asked(NO_ROW, held=9, wake=33.0), Reject(reason=0, request="q", retry_after_seconds=33.0), "rejected: 9 requests are held, cap 8 requests; retry in 33 s. {choice:reject,code:RejectCap,have:held 9 req,limit:hold_limit 8 req,need:retry_after 33.0 s,subject:ModelService/shop/chat,verdict:rejected}", id="too many wait, and something starts"),
        pytest.param(asked(NO_ROW, now=120.0), Reject(reason=0, request="q", retry_after_seconds=4.0, code="RejectDeadline"), "rejected: waited 30 s, deadline 30 s; 1 replica needed. {choice:reject,code:RejectDeadline,have:waited 30.0 s,limit:deadline 30.0 s,need:ready 1 replicas,subject:ModelService/shop/chat,verdict:rejected}", id="it waited too long"),
        pytest.param(asked(SMALL), Reject(reason=0, request="q", retry_after_seconds=0.0, code="RejectTooLong"), "rejected: 1000 tokens wanted, no instance holds more than 999 tokens (2 replicas ready). {choice:reject,code:RejectTooLong,have:instances 2 replicas,limit:kv_capacity 999.0 tokens,need:tokens 1000 tokens,subject:ModelService/shop/chat,verdict:rejected}", id="it is too long for all"),
    ],
)  # fmt: skip
def test_a_request_that_is_not_dispatched_is_told_why(plan: Any, action: Any, said: str) -> None:
    assert plan.actions == (action,)
    assert line(plan.reasons[0]) == said


def test_a_request_goes_to_the_least_loaded_for_its_weight() -> None:
    busy = rows(
        running=[2.0, 1.0, 0.0],
        pending=[1.0, 0.0, 0.0],
        waiting=[0.0, 1.0, 0.0],
        route_weight=[1.0, 0.5, 0.1],
    )
    assert asked(busy).actions == (
        Dispatch(reason=-1, request="q", instance="r0", code="LeastOutstanding", score=4.0, runner_up="r1", runner_up_score=6.0),
    )  # fmt: skip
    alone = rows(running=[2.0, 0.0], ready=[1.0, 0.0])
    assert asked(alone).actions[0].runner_up == ""
    assert asked(alone).actions[0].runner_up_score == 0.0


# choices of policies that cannot be meant


@pytest.mark.parametrize(
    ("call", "said"),
    [
        pytest.param(lambda: row_of("dreams", "x"), "no loop is called 'dreams'; loops with policies are ", id="an unknown loop"),
        pytest.param(lambda: row_of("scale", "magic"), "no scale policy is called 'magic'; use one of hpa", id="an unknown policy"),
        pytest.param(lambda: config_of("scale", "hpa", {"target": "much"}), "config of scale policy 'hpa': Expected `float`, got `str` - at `config.target`; its fields are target, ", id="a number in words"),
        pytest.param(lambda: build("scale", "hpa", {"speed": 1}), "config of scale policy 'hpa': Object contains unknown field `speed`; its fields are target, ", id="an unknown field"),
    ],
)  # fmt: skip
def test_a_choice_of_policy_that_cannot_be_meant_says_what_there_is(call: Any, said: str) -> None:
    with pytest.raises(PolicyConfigError) as raised:
        call()
    assert str(raised.value).startswith(said)


def test_a_state_of_another_schema_is_begun_anew_and_told() -> None:
    snapshot = (
        a_cluster().with_pool("l4-od", "L4").with_nodes(1, "l4-od").with_service("shop/chat", "L4").build()
    )
    first = run_planner(snapshot, PlannerStates(), context(now=NOW), {})
    key = next(key for key in first.states.states if key.startswith("scale/"))
    old = msgspec.structs.replace(first.states, states={**first.states.states, key: {"schema": 0}})
    found = run_planner(snapshot, old, context(now=NOW), {})
    reset = [r for staged in found.stages for r in staged.plan.reasons if r.code == "StateReset"]
    said = (
        f"{key}: started from the initial state (schema version 0, wanted version 1). "
        f"{{choice:{key},code:StateReset,have:stored 0.0 versions,need:schema 1.0 versions,"
        "subject:Policy/scale/hpa,verdict:rejected}"
    )
    assert [line(r) for r in reset] == [said]

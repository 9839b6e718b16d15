"""A small cluster in nouns, for tests of the core."""

from __future__ import annotations

from typing import Any

from cluster import actions as act
from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Device, Nic, Node, Pool, Slot
from cluster.occupancy import Claim
from cluster.overlay import Overlay
from cluster.power import PowerDomain
from cluster.serving import Launcher, Model, Objective, Replica, ReplicaPhase, Service, Variant
from cluster.snapshot import Snapshot, Stamp
from cluster.tables import NodeTable
from cluster.training import CheckpointSpec, Gang, GangPhase, Job, Layout, TrainingShape

NOW = 1_000.0
L4 = Variant(accelerator="L4")
MODEL = Model(
    name="m",
    parameters=8e9,
    layers=32,
    hidden_size=4096,
    kv_bytes_per_token=131_072,
    weight_bytes=16_000_000_000,
)


def slot(node: str, *devices: int, cpu: int = 0) -> Slot:
    """A slot of whole devices."""
    return Slot(node=node, devices=devices, cpu_millis=cpu)


def node(name: str, gpus: int = 4, **more: Any) -> Node:
    """An open node with `gpus` healthy devices."""
    return Node(
        ref=Ref("Node", name, f"uid-{name}"),
        pool="l4-od",
        accelerator="L4",
        devices=tuple(Device(uuid=f"{name}-{i}", index=i) for i in range(gpus)),
        nics=(Nic(name="eth0", link="ethernet", rate_bits_per_second=25_000_000_000),),
        cpu_millis=8_000,
        memory_bytes=64 << 30,
        **more,
    )


def service(name: str = "shop/chat", **more: Any) -> Service:
    """A service with one objective."""
    fields: dict[str, Any] = {
        "ref": Ref("ModelService", name, "uid-svc", 1),
        "model": MODEL,
        "objectives": (Objective(ttft_seconds=2.0, tpot_seconds=0.1),),
        "variants": (L4,),
    }
    return Service(**{**fields, **more})


def replica(
    name: str, phase: ReplicaPhase = ReplicaPhase.READY, of: str = "shop/chat", uid: str = ""
) -> Replica:
    """A replica with its own launcher of the same name."""
    return Replica(
        key=name,
        ref=Ref("Replica", name, uid or f"uid-{name}"),
        service=of,
        launcher=name,
        variant=L4,
        phase=phase,
    )


def job(name: str = "lab/train", **more: Any) -> Job:
    """A waiting job of two nodes."""
    fields: dict[str, Any] = {
        "ref": Ref("TrainingJob", name, "uid-job", 3),
        "shape": TrainingShape(layers=24, hidden_size=2048, sequence_length=2048),
        "steps": 100,
        "global_batch": 64,
        "min_nodes": 2,
        "max_nodes": 2,
        "gpus_per_node": 4,
        "checkpoint": CheckpointSpec(
            interval_seconds=60.0, min_interval_seconds=30.0, max_interval_seconds=120.0
        ),
    }
    return Job(**{**fields, **more})


def gang(of: str = "lab/train", attempt: int = 1, phase: GangPhase = GangPhase.RUNNING, **more: Any) -> Gang:
    """An attempt on nodes a and b."""
    key = f"{of}-a{attempt}"
    layout = Layout(slots=(slot("a", 0, 1, 2, 3), slot("b", 0, 1, 2, 3)))
    return Gang(
        key=key,
        ref=Ref("Gang", key),
        job=of,
        attempt=attempt,
        rendezvous=key,
        layout=layout,
        phase=phase,
        **more,
    )


def cluster(**mappings: Any) -> Snapshot:
    """Three nodes a, b, c of four L4s, one service, one job, one power domain over a and b."""
    fields: dict[str, Any] = {
        "stamp": Stamp(taken_seconds=NOW),
        "accelerators": {
            "L4": AcceleratorClass(
                ref=Ref("AcceleratorClass", "L4"),
                memory_bytes=24 << 30,
                bandwidth_bytes_per_second=300_000_000_000,
                flops={"bf16": 121e12},
                min_watts=40,
                max_watts=72,
                tdp_watts=72,
                safe_watts=60,
            )
        },
        "pools": {
            "l4-od": Pool(
                name="l4-od", accelerator="L4", dollars_per_gpu_hour=0.8, available_gpus=8, node_size=4
            )
        },
        "nodes": {n: node(n) for n in ("a", "b", "c")},
        "services": {"shop/chat": service()},
        "jobs": {"lab/train": job()},
        "domains": {
            "row": PowerDomain(
                ref=Ref("PowerDomain", "row"), rating_watts=1_000, margin=0.0, members=("a", "b")
            )
        },
        "node_table": NodeTable.build(
            ("a", "b", "c"),
            {
                "observed_seconds": [NOW] * 3,
                "safe_watts": [300.0] * 3,
                "min_watts": [200.0] * 3,
                "max_watts": [600.0] * 3,
                "watts": [250.0] * 3,
            },
        ),
    }
    return Snapshot(**{**fields, **mappings})


def with_replicas(*replicas: Replica, on: str = "a", **mappings: Any) -> Snapshot:
    """The cluster with replicas, one device each on node `on`."""
    launchers = {
        r.key: Launcher(key=r.key, ref=Ref("Launcher", r.key), slots=(slot(on, i),), variant=L4)
        for i, r in enumerate(replicas)
    }
    claims = {r.key: Claim(key=r.key, owner=r.ref, slot=slot(on, i)) for i, r in enumerate(replicas)}
    return cluster(replicas={r.key: r for r in replicas}, launchers=launchers, claims=claims, **mappings)


def stamped(action: act.AnyAction, loop: str, issued: float = NOW, valid: float = 30.0) -> act.Stamped:
    """An action as the world would issue it."""
    return act.Stamped(
        id=f"1/{loop}/1/0",
        action=action,
        loop=loop,
        epoch=1,
        issued_seconds=issued,
        deadline_seconds=issued + valid,
    )


def overlay(snapshot: Snapshot) -> Overlay:
    """A working copy."""
    return Overlay(snapshot)

"""Objects as a store would hand them out, for tests of the projection."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.codec import to_json
from cluster.hardware import Slot
from cluster.launch import EngineLaunch, RankLaunch
from cluster.observer import Observer
from cluster.serving import Model, Variant
from cluster.training import TrainingShape
from controller.hub.messages import DeviceSeen, InventorySeen, NicSeen
from controller.observe import labels
from controller.observe.world import Change, World
from controller.resources import core
from controller.resources.acceleratorclass import AcceleratorClass
from controller.resources.modelservice import ModelService
from controller.resources.powerdomain import PowerDomain
from controller.resources.trainingjob import TrainingJob

NOW = 1_000.0
MODEL = Model(
    name="m", parameters=8e9, layers=32, hidden_size=4096, kv_bytes_per_token=131_072, weight_bytes=16 * 10**9
)
L4 = Variant(accelerator="L4")
SHAPE = TrainingShape(layers=24, hidden_size=2048, sequence_length=2048)


def accelerator(name: str = "l4", display: str = "L4", **spec: Any) -> AcceleratorClass:
    """A product with one pool."""
    facts = {
        "displayName": display, "memoryBytes": 24 * 2**30, "bandwidthBytesPerSecond": 300 * 10**9,
        "flops": {"bf16": 121e12}, "minWatts": 40, "maxWatts": 72, "tdpWatts": 72, "safeWatts": 60,
        "aliases": [f"NVIDIA-{display}"],
        "pools": [{"name": f"{name}-od", "dollarsPerGpuHour": 0.8, "pricedAt": "2025-01-01"}],
    }  # fmt: skip
    return msgspec.convert(
        {"metadata": {"name": name, "uid": f"uid-{name}", "generation": 1}, "spec": {**facts, **spec}},
        AcceleratorClass,
    )


def node(
    name: str = "n1", *, gpus: int | str = 4, product: str = "NVIDIA-L4", ready: str = "True", **more: Any
) -> core.Node:
    """A ready node that offers GPUs."""
    marks = {labels.PRODUCT: product} if product else {}
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "labels": {**marks, **more.pop("labels", {})},
        **more.pop("metadata", {}),
    }
    allocatable = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": gpus, **more.pop("allocatable", {})}
    capacity = more.pop("capacity", {})
    status = {
        "allocatable": allocatable,
        "capacity": capacity,
        "conditions": [{"type": "Ready", "status": ready}],
    }
    return msgspec.convert({"metadata": metadata, "spec": more.pop("spec", {}), "status": status}, core.Node)


def device(index: int, healthy: bool = True, product: str = "NVIDIA-L4") -> DeviceSeen:
    """A GPU as its driver tells it."""
    return DeviceSeen(
        uuid=f"GPU-{index}", index=index, product=product, memory_bytes=24 * 2**30, min_watts=40, max_watts=72,
        default_watts=72, max_clock_mhz=2040, numa=index // 2, clique=0, pci_address="", healthy=healthy, fault="",
        clock_ladder_mhz=(),
    )  # fmt: skip


def nic(name: str = "eth0", link: str = "ethernet", *, up: bool = True, numa: int = 0) -> NicSeen:
    """A network port."""
    return NicSeen(
        name=name, link=link, rate_bits_per_second=25 * 10**9, gid_types=("RoCE v2",), numa=numa, pci_address="",
        subnet="10.0.0.0/24", up=up, interface=name, port=1,
    )  # fmt: skip


def inventory(*devices: DeviceSeen, nics: tuple[NicSeen, ...] = ()) -> InventorySeen:
    """What an agent found."""
    return InventorySeen(
        devices=devices, nics=nics, cpu_millis=8_000, memory_bytes=2**36, dram_cache_bytes=7, nvme_cache_bytes=9,
        base_watts=100, safe_watts=340, driver_version="",
    )  # fmt: skip


def pod(
    name: str = "p",
    *,
    at: str = "n1",
    gpus: int | str = 1,
    phase: str = "Running",
    ready: bool = True,
    **more: Any,
) -> core.Pod:
    """A pod on a node; anybody's unless it carries marks of ours."""
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", **more.pop("metadata", {})}
    limits = {"nvidia.com/gpu": gpus} if gpus else {}
    container = {"name": "c", "resources": {"limits": limits, "requests": more.pop("requests", {})}}
    spec = {"nodeName": at, "containers": [container], **more.pop("spec", {})}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    status = {"phase": phase, "conditions": conditions, **more.pop("status", {})}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": status}, core.Pod)


def pinned(to: str) -> dict[str, Any]:
    """The part of a pod's spec that pins it to a node, before it is bound."""
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [to]}]}]
    return {
        "nodeName": "",
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        },
    }


def engine_pod(
    name: str = "chat-0",
    *,
    devices: tuple[int, ...] = (0,),
    milli: int = 1_000,
    annotations: dict[str, str] | None = None,
    **more: Any,
) -> core.Pod:
    """A replica's pod as the actor makes it."""
    variant = msgspec.structs.replace(L4, milli=milli)
    launch = EngineLaunch(
        service="shop/chat", model=MODEL, variant=variant, pool="l4-od", ordinal=3, devices=devices
    )
    marks = {labels.SERVICE: "chat", labels.GENERATION: "5"}
    notes = {labels.LAUNCH: to_json(launch).decode(), **(annotations or {})}
    metadata = {
        "labels": {**marks, **more.pop("labels", {})},
        "annotations": notes,
        **more.pop("metadata", {}),
    }
    return pod(name, metadata=metadata, **more)


def rank_pod(
    rank: int, *, attempt: int = 1, nodes: int = 2, at: str = "", restore_step: int = 0, **more: Any
) -> core.Pod:
    """The pod of one node of a gang."""
    launch = RankLaunch(
        job="shop/train", job_uid="uid-train", attempt=attempt, rendezvous=f"uid-train-a{attempt}", node_rank=rank,
        nodes=nodes, gpus=4, shape=SHAPE, network="roce", steps=100, global_batch=64, micro_batch=2, tensor=4, data=2,
        restore_step=restore_step, devices=(0, 1, 2, 3),
    )  # fmt: skip
    metadata = {
        "labels": {labels.JOB: "train", labels.ATTEMPT: str(attempt)},
        "annotations": {labels.LAUNCH: to_json(launch).decode()},
        **more.pop("metadata", {}),
    }
    return pod(f"train-a{attempt}-r{rank}", at=at or f"n{rank + 1}", gpus=4, metadata=metadata, **more)


def slot(of: str, *devices: int, **more: int) -> Slot:
    """A slot of whole devices."""
    return Slot(node=of, devices=devices, **more)


def service(name: str = "chat", **spec: Any) -> ModelService:
    """A service of a catalogued model."""
    facts = {"model": {"name": "llama-3-8b"}, **spec}
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "generation": 5},
            "spec": facts,
        },
        ModelService,
    )


def job(name: str = "train", status: dict[str, Any] | None = None, **spec: Any) -> TrainingJob:
    """A job of two nodes."""
    facts = {
        "model": {"name": "gpt-3-1.3b"}, "nodes": {"min": 2}, "gpusPerNode": 4, "steps": 100, "globalBatch": 64, **spec,
    }  # fmt: skip
    whole = {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "generation": 2},
        "spec": facts,
    }
    return msgspec.convert({**whole, "status": status or {}}, TrainingJob)


def domain(name: str, *members: str, parent: str = "", rating: int = 1_000, **spec: Any) -> PowerDomain:
    """A breaker."""
    chosen = {"nodes": list(members), **spec.pop("members", {})}
    facts = {"ratingWatts": rating, "parent": parent, "members": chosen, **spec}
    return msgspec.convert(
        {"metadata": {"name": name, "uid": f"uid-{name}", "generation": 1}, "spec": facts}, PowerDomain
    )


class Play:
    """A world with its observer, told of objects as a cache would tell it."""

    def __init__(self, *objects: Any, accounts: tuple[str, ...] = ()) -> None:
        self.observer = Observer()
        self.world = World(self.observer, 7, started_seconds=NOW, accounts=accounts)
        self.now = NOW
        self.tell(accelerator(), *objects)

    def tell(self, *objects: Any, after: float = 0.0) -> bool:
        """Apply objects as they are now and settle."""
        self.now += after
        self.world.apply(Change(type(each).__name__, each.metadata.key, each) for each in objects)
        return self.world.settle(self.now)

    def gone(self, kind: str, key: str, after: float = 0.0) -> bool:
        """Apply a deletion and settle."""
        self.now += after
        self.world.apply([Change(kind, key, None)])
        return self.world.settle(self.now)

    def live(self, mapping: str) -> dict[str, Any]:
        """A mapping of the model."""
        return self.observer.live(mapping)

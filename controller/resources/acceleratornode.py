"""AcceleratorNode: what a node really has, as its agent reports it. Status only (DESIGN §4)."""

from __future__ import annotations

from typing import Annotated, Literal

from controller.resources.base import (
    API_VERSION,
    ApiStruct,
    Conditions,
    ObjectMeta,
    about,
    items,
    number,
    text,
    whole,
)


class NodeGpu(ApiStruct, frozen=True, kw_only=True):
    """One GPU of a node."""

    index: Annotated[int, whole("Index on the node.", 0, 1_023)]
    uuid: Annotated[str, text("The GPU's own identity.", 128)]
    product: Annotated[str, text("Product name as the driver reports it.", 128)] = ""
    memory_bytes: Annotated[int, whole("Bytes of device memory.", 0, 10**14)] = 0
    numa: Annotated[int, whole("NUMA node it hangs on.", 0, 1_023)] = 0
    clique: Annotated[int, whole("Number of its NVLink island on the node.", 0, 1_023)] = 0
    healthy: Annotated[bool, about("False when the driver reports a fault.")] = True
    offered: Annotated[bool, about("False when the kubelet gives the GPU to no pod.")] = True
    pods: Annotated[
        list[Annotated[str, text("A pod, NAMESPACE/NAME.", 317, 3)]],
        items("Pods that have the GPU or a part of it, as the kubelet says: anybody's.", 16),
    ] = []


class NodeNic(ApiStruct, frozen=True, kw_only=True):
    """One network port of a node."""

    name: Annotated[str, text("Name of the port.", 64, 1)]
    link: Annotated[Literal["infiniband", "roce", "ethernet"], about("Link layer.")] = "ethernet"
    rate_bits_per_second: Annotated[int, whole("Rate of the port.", 0, 10**15)] = 0
    gid_types: Annotated[
        list[Annotated[str, text("A GID type.", 32)]], items("GID types of the port.", 8)
    ] = []
    subnet: Annotated[str, text("Subnet of the port.", 64)] = ""
    numa: Annotated[int, whole("NUMA node it hangs on.", 0, 1_023)] = 0


class CachedWeights(ApiStruct, frozen=True, kw_only=True):
    """Weights of a model kept on the node."""

    model: Annotated[str, text("Name of the model.", 128, 1)]
    tier: Annotated[Literal["dram", "nvme"], about("Where they lie.")] = "nvme"
    bytes: Annotated[int, whole("How many bytes.", 0, 10**14)] = 0


class AcceleratorNodeStatus(ApiStruct, frozen=True, kw_only=True):
    """The node as its agent sees it."""

    phase: Annotated[Literal["Online", "Silent", "Faulty"], about("State in one word.")] = "Silent"
    accelerator: Annotated[str, text("AcceleratorClass the GPUs belong to; empty when none fits.", 63)] = ""
    gpus: Annotated[list[NodeGpu], items("GPUs of the node.", 64, keys=("index",))] = []
    gpu_count: Annotated[int, whole("How many healthy GPUs.", 0, 1_024)] = 0
    nics: Annotated[list[NodeNic], items("Network ports of the node.", 64, keys=("name",))] = []
    fabric: Annotated[str, text("Island of the node's fastest NIC.", 128)] = ""
    watts: Annotated[float, number("Power drawn at the last report.", 0.0, 1e7)] = 0.0
    cap_watts: Annotated[int, whole("Power cap in force, all GPUs together.", 0, 10**7)] = 0
    weights: Annotated[list[CachedWeights], items("Weights kept on the node.", 256)] = []
    agent_version: Annotated[str, text("Version of the agent.", 64)] = ""
    boot_id: Annotated[str, text("The node's boot, new after each restart.", 64)] = ""
    last_report: Annotated[str, text("When the agent last reported, RFC 3339 in UTC.", 32)] | None = None
    conditions: Conditions = []


class AcceleratorNode(ApiStruct, frozen=True, kw_only=True):
    """What a node really has: GPUs, NICs and their fabric, power, weights kept, health."""

    api_version: str = API_VERSION
    kind: str = "AcceleratorNode"
    metadata: ObjectMeta = ObjectMeta()
    status: Annotated[AcceleratorNodeStatus, about("What is, reported by the node's agent.")] = (
        AcceleratorNodeStatus()
    )

"""AcceleratorClass: a GPU product, how to recognise it and what it can and costs (DESIGN §4)."""

from __future__ import annotations

from typing import Annotated, Literal

from controller.resources.base import (
    API_VERSION,
    NAME_PATTERN,
    ApiStruct,
    Conditions,
    ObjectMeta,
    about,
    date,
    entries,
    items,
    number,
    text,
    whole,
)

Market = Literal["on_demand", "spot", "reserved"]


class PricePool(ApiStruct, frozen=True, kw_only=True):
    """Where GPUs of the product come from at one price."""

    name: Annotated[str, text("Name of the pool; one entry a name.", 63, 1, NAME_PATTERN)]
    region: Annotated[str, text("Region of the pool.", 63)] = ""
    zone: Annotated[str, text("Zone of the pool.", 63)] = ""
    market: Annotated[Market, about("How the capacity is bought.")] = "on_demand"
    dollars_per_gpu_hour: Annotated[float, number("Price of one GPU for one hour.", 0.0, 1e6)]
    priced_at: Annotated[str, date("Date of the price, YYYY-MM-DD.")]
    source: Annotated[str, text("Where the price was read.", 512)] = ""
    available_gpus: Annotated[
        int, whole("GPUs the pool would still give beyond the nodes that exist.", 0, 10**7)
    ] = 0
    node_size: Annotated[int, whole("GPUs that come together as one node.", 1, 1_024)] = 1
    reclaim_per_hour: Annotated[float, number("Rate at which a node is taken back.", 0.0, 3_600.0)] = 0.0


class RdmaPart(ApiStruct, frozen=True, kw_only=True):
    """What the pods of a gang ask for beside GPUs, to reach each other past the kernel."""

    resource_name: Annotated[
        str,
        text(
            "Resource of an RDMA device, such as `rdma/hca_shared_devices_a`.", 317, 1, r"^[a-zA-Z0-9./_-]+$"
        ),
    ]
    count: Annotated[
        int, whole("How many a pod asks for; 0 means one for each RDMA port of its node.", 0, 64)
    ] = 0
    networks: Annotated[
        list[
            Annotated[str, text("A network attachment, NAME or NAMESPACE/NAME.", 127, 1, r"^[a-z0-9./@-]+$")]
        ],
        items("Network attachments of the pod, for Multus (`k8s.v1.cni.cncf.io/networks`).", 16),
    ] = []
    ipc_lock: Annotated[
        bool,
        about(
            "Give the pod the capability IPC_LOCK, to pin memory for RDMA. Namespaces that enforce the pod security"
            " levels `restricted` or `baseline` refuse it: there, set false and raise the nodes' memlock limit."
        ),
    ] = True


class DraPart(ApiStruct, frozen=True, kw_only=True):
    """What a pod's ResourceClaim asks for (`sharing: dra`)."""

    device_class: Annotated[str, text("DeviceClass of whole GPUs.", 253, 1, r"^[a-z0-9.-]+$")] = (
        "gpu.nvidia.com"
    )
    driver: Annotated[str, text("Driver whose ResourceSlices announce them.", 63, 1, r"^[a-z0-9.-]+$")] = (
        "gpu.nvidia.com"
    )
    share_capacities: Annotated[
        list[Annotated[str, text("A capacity of its devices.", 95, 1, r"^[a-zA-Z0-9./_-]+$")]],
        items(
            "Capacities of a device, such as `memory` and `cores`, of which a replica's `gpuMilli` is asked for. Devices are"
            " shared where their driver announces these with `allowMultipleAllocations`; empty: given out whole.",
            8,
            unique=True,
        ),
    ] = []


class AcceleratorClassSpec(ApiStruct, frozen=True, kw_only=True):
    """Facts of the product, as its data sheet has them, and its prices."""

    display_name: Annotated[str, text("Name as people write it; empty means the object's name.", 63)] = ""
    resource_name: Annotated[
        str,
        text(
            "Resource a pod requests for it; that of a MIG profile with `sharing: mig`.",
            317,
            1,
            r"^[a-z0-9./-]+$",
        ),
    ] = "nvidia.com/gpu"
    aliases: Annotated[
        list[Annotated[str, text("A product name as GPU feature discovery labels nodes.", 128, 1)]],
        items("Names under which nodes and drivers report the product.", 32, unique=True),
    ] = []
    memory_bytes: Annotated[int, whole("Bytes of device memory.", 1, 10**14)]
    bandwidth_bytes_per_second: Annotated[int, whole("Memory bandwidth.", 1, 10**15)]
    flops: Annotated[
        dict[str, Annotated[float, number("Dense FLOP/s.", 1.0, 1e18)]],
        entries("Dense FLOP/s by precision, such as `bf16: 312.0e12`.", 8, 1),
    ]
    min_watts: Annotated[int, whole("Lowest cap the product accepts.", 1, 100_000)]
    max_watts: Annotated[int, whole("Highest cap the product accepts.", 1, 100_000)]
    tdp_watts: Annotated[int, whole("Thermal design power.", 1, 100_000)]
    safe_watts: Annotated[int, whole("Cap a node falls back to by itself when nobody leads it.", 1, 100_000)]
    link_bytes_per_second: Annotated[
        int, whole("Bandwidth between two GPUs of a node, one direction.", 1, 10**14)
    ] = 32_000_000_000
    fabric: Annotated[Literal["nvlink", "pcie"], about("What connects the GPUs of a node.")] = "pcie"
    clocks_mhz: Annotated[
        list[Annotated[int, whole("A clock.", 1, 100_000)]],
        items("Clocks the product can be locked to, rising.", 512, unique=True),
    ] = []
    sharing: Annotated[
        Literal["none", "mig", "timeSlicing", "dra"],
        about(
            "How one GPU may be shared. `mig`, `timeSlicing`: a device of this class is a part of one, with its memory and"
            " speed; engines have one each, and no gang runs on it. `dra`: GPUs by ResourceClaim, whole or in shares."
        ),
    ] = "none"
    dra: Annotated[DraPart, about("What pods claim with `sharing: dra`.")] = DraPart()
    rdma: Annotated[RdmaPart, about("What gangs ask for beside GPUs; absent: nothing.")] | None = None
    shared_memory_bytes: Annotated[
        int,
        whole("Most of /dev/shm of a pod with several GPUs, in its memory limit; 0: 2 GiB a GPU.", 0, 10**13),
    ] = 0
    pools: Annotated[list[PricePool], items("Where it is bought, and for how much.", 64, keys=("name",))] = []


class AcceleratorClassStatus(ApiStruct, frozen=True, kw_only=True):
    """Where the product is in this cluster."""

    nodes: Annotated[int, whole("Nodes that have it.", 0, 10**6)] = 0
    gpus: Annotated[int, whole("GPUs of it in the cluster.", 0, 10**8)] = 0
    free_gpus: Annotated[int, whole("GPUs of it that nobody uses.", 0, 10**8)] = 0
    conditions: Conditions = []
    observed_generation: Annotated[int, whole("metadata.generation this status answers.")] = 0


class AcceleratorClass(ApiStruct, frozen=True, kw_only=True):
    """A GPU product: how to recognise it, what it can do and what it costs."""

    api_version: str = API_VERSION
    kind: str = "AcceleratorClass"
    metadata: ObjectMeta = ObjectMeta()
    spec: Annotated[AcceleratorClassSpec, about("Facts of the product.")]
    status: Annotated[AcceleratorClassStatus, about("What is, written by the operator.")] = (
        AcceleratorClassStatus()
    )

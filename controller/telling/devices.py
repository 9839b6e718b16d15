"""What is said of devices: where API server and node disagree, with both numbers; what a class's nodes offer."""

from __future__ import annotations

from typing import NamedTuple

from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Node
from cluster.reasons import Quantity, Reason, Verdict
from controller.observe.devices import SLICED
from controller.observe.nodes import RDMA
from controller.observe.quantities import quantity_of
from controller.observe.world import World
from controller.resources.base import Condition
from controller.telling.conditions import condition

NFD_RDMA = "feature.node.kubernetes.io/rdma.capable"
"""Node feature discovery's word on RDMA; `pci-15b3.present` (a Mellanox card) is its evidence."""
NFD_CARD = "feature.node.kubernetes.io/pci-15b3.present"
GFD_COUNT = "nvidia.com/gpu.count"
GFD_MEMORY = "nvidia.com/gpu.memory"
MIB = 2**20
LEAST_MEMORY = 0.9
"""Share of a class's memory below which a board is another one (drivers keep some of it to themselves)."""
MESSAGE_LIMIT = 1_000


class Disagreement(NamedTuple):
    """What API server (or a label) and node say, and the sentence."""

    said: int
    found: int
    sentence: str


def disagreements(name: str, world: World) -> list[Disagreement]:
    """Where a node's devices are another number by the API server than by the node itself."""
    facts = world.facts.get(name)
    if facts is None or facts.node is None or facts.devices is None:
        return []
    accelerator = world.classes.get(facts.node.accelerator)
    obj = world.objects["Node"].get(name)
    if accelerator is None or obj is None:
        return []
    found = []
    if facts.mismatch:
        found.append(Disagreement(facts.gpus, facts.gpus, f"Its {facts.mismatch}."))
    if accelerator.sharing not in SLICED:
        found += _counts(name, accelerator, world)
    found += _labels(name, facts.node, accelerator, world)
    found += _strangers(name, world)
    found += _network(name, facts.node, accelerator, world)
    return found


def _counts(name: str, accelerator: AcceleratorClass, world: World) -> list[Disagreement]:
    devices = world.facts[name].devices
    inventory = world.inventories.get(name)
    if devices is None:
        return []
    told = world.told.get(name)
    held = told.holders if told is not None else None
    said, there, what = devices.allocatable, devices.present, _offer_of(accelerator)
    found = []
    if said != there:
        lost = devices.lost
        rest = f"; all are in use, and the next {lost} that come free are given to nobody" if lost else ""
        smaller = min(said, there)
        found.append(
            Disagreement(said, there, f"{what} {said}, the node has {there} GPUs: {smaller} count{rest}.")
        )
    if inventory is not None and inventory.devices:
        healthy = sum(device.healthy for device in inventory.devices)
        if healthy < min(said, there):
            faults = sorted({device.fault for device in inventory.devices if not device.healthy} - {""})
            why = f" ({faults[0]})" if faults else ""
            sentence = f"{what} {said}, the driver calls {healthy} healthy{why}: {healthy} count."
            found.append(Disagreement(said, healthy, sentence))
    if (
        held is not None
        and held.offered is not None
        and accelerator.sharing == "none"
        and len(held.offered) != said
    ):
        sentence = f"{what} {said}, its kubelet would give out {len(held.offered)}."
        found.append(Disagreement(said, len(held.offered), sentence))
    labelled = world.objects["Node"][name].metadata.labels.get(GFD_COUNT, "")
    if labelled.isdecimal() and int(labelled) != there:
        sentence = f"Its label {GFD_COUNT} says {labelled}, the node has {there} GPUs: the node is believed."
        found.append(Disagreement(int(labelled), there, sentence))
    return found


def _labels(name: str, node: Node, accelerator: AcceleratorClass, world: World) -> list[Disagreement]:
    """What GPU feature discovery counted, where it is another number: slices of a profile, memory of a board."""
    obj = world.objects["Node"][name]
    marks = obj.metadata.labels
    found = []
    own = [accelerator.resource_name] if accelerator.sharing == "mig" else []
    for profile in (*own, *(part.resource_name for part in world.machines.parts(name).values())):
        counted = marks.get(f"{profile}.count", "")
        offered = quantity_of(obj.status.allocatable, profile)
        if counted.isdecimal() and int(counted) != offered:
            sentence = f"Its label {profile}.count says {counted}, {offered} are offered: {offered} count."
            found.append(Disagreement(int(counted), offered, sentence))
    memory = marks.get(GFD_MEMORY, "")
    if memory.isdecimal() and accelerator.sharing in ("none", "dra"):
        has, wants = int(memory) * MIB, accelerator.memory_bytes
        if has < LEAST_MEMORY * wants:
            sentence = (
                f"Its label {GFD_MEMORY} says {memory} MiB, AcceleratorClass {node.accelerator} has {wants // MIB} MiB:"
                " models may not fit; correct the class or its aliases."
            )
            found.append(Disagreement(wants // MIB, int(memory), sentence))
    return found


def _offer_of(accelerator: AcceleratorClass) -> str:
    if accelerator.sharing == "dra":
        return f"ResourceSlices of {accelerator.device_driver} announce"
    return f"The API server offers {accelerator.resource_name}:"


def _strangers(name: str, world: World) -> list[Disagreement]:
    """Pods that the kubelet gave devices and the API server knows nothing of."""
    pods = sorted(world.seating.leftovers.get(name, ()))
    told = world.told.get(name)
    if not pods or told is None:
        return []
    held = len({device for pod in pods for device in told.devices_of(pod)})
    sentence = (
        f"Its kubelet says that {held} GPUs belong to {len(pods)} pods that the API server does not have, such as"
        f" {pods[0]}: they count as taken."
    )
    return [Disagreement(0, held, sentence)]


def _network(name: str, node: Node, accelerator: AcceleratorClass, world: World) -> list[Disagreement]:
    """RDMA ports by node feature discovery, by the agent, and as pods can have them."""
    inventory = world.inventories.get(name)
    if inventory is None:
        return []
    ports = sum(nic.up and nic.link in RDMA for nic in inventory.nics)
    marks = world.objects["Node"][name].metadata.labels
    found = []
    if ports == 0 and "true" in (marks.get(NFD_RDMA), marks.get(NFD_CARD)):
        sentence = "Its labels of node feature discovery say that it has RDMA, its agent finds 0 such ports that are up."
        found.append(Disagreement(1, 0, sentence))
    if accelerator.rdma_resource and ports and not node.rdma_devices:
        sentence = f"It has {ports} RDMA ports that are up and offers 0 {accelerator.rdma_resource}: gangs there talk over Ethernet."
        found.append(Disagreement(0, ports, sentence))
    return found


def agreement(name: str, world: World) -> Condition:
    """The condition of an AcceleratorNode: whether the API server says of its devices what the node has."""
    found = disagreements(name, world)
    if found:
        text = " ".join((*(each.sentence for each in found), *_parts(name, world)))[:MESSAGE_LIMIT]
        return condition("DevicesAgree", False, "DevicesDisagree", text, 0)
    facts = world.facts.get(name)
    if facts is None or facts.devices is None or facts.node is None:
        return condition("DevicesAgree", True, "NotCounted", "No AcceleratorClass describes its GPUs.", 0)
    says = f"{facts.devices.allocatable} devices are offered and {facts.devices.present} are there."
    return condition("DevicesAgree", True, "DevicesAgree", " ".join((says, *_parts(name, world))), 0)


def _parts(name: str, world: World) -> list[str]:
    """A sentence for each class of slices that a machine has beside the one in its status."""
    nodes, allocatable = world.observer.live("nodes"), world.objects["Node"][name].status.allocatable
    found = []
    for accelerator, part in sorted(world.machines.parts(name).items()):
        count = quantity_of(allocatable, part.resource_name)
        found.append(f"Of {accelerator} {count} are offered and {len(nodes[part.node].devices)} are there.")
    return found


def disagreement_reasons(world: World) -> list[Reason]:
    """One reason for each node whose devices are another number by the API server than by itself."""
    reasons = []
    for name in sorted(world.facts):
        found = disagreements(name, world)
        if found:
            reasons.append(
                Reason(
                    code="DevicesDisagree",
                    subject=Ref("AcceleratorNode", name),
                    verdict=Verdict.CAPPED,
                    choice=" ".join(each.sentence for each in found)[:MESSAGE_LIMIT],
                    need=Quantity("said", found[0].said, "GPU"),
                    have=Quantity("found", found[0].found, "GPU"),
                )
            )
    return reasons


def offered(accelerator: AcceleratorClass | None, nodes: list[Node], generation: int) -> Condition:
    """The condition of an AcceleratorClass: whether its nodes offer what pods would ask for."""
    if accelerator is None or not nodes:
        return condition("Offered", False, "NoNodes", "0 nodes have this product.", generation)
    having = sum(any(device.healthy for device in node.devices) for node in nodes)
    rdma = sum(node.rdma_devices > 0 for node in nodes)
    count = f"{len(nodes)} nodes have this product"
    if not having:
        what = (
            f"ResourceSlices of {accelerator.device_driver}"
            if accelerator.sharing == "dra"
            else accelerator.resource_name
        )
        text = f"{count}, 0 offer {what}: correct spec.resourceName, or the device plugin or driver on the nodes."
        return condition("Offered", False, "ResourceNotOffered", text, generation)
    if accelerator.rdma_resource and not rdma:
        text = f"{count}, 0 offer {accelerator.rdma_resource}: gangs talk over Ethernet. Correct spec.rdma.resourceName."
        return condition("Offered", False, "RdmaNotOffered", text, generation)
    divided = sum(bool(node.divisible) for node in nodes)
    if accelerator.share_capacities and divided < len(nodes):
        text = (
            f"{count}, {len(nodes) - divided} of them give their GPUs out whole: {accelerator.device_driver} does not announce"
            f" {' and '.join(accelerator.share_capacities)} with allowMultipleAllocations there. Correct"
            " spec.dra.shareCapacities, or the driver."
        )
        return condition("Offered", False, "SharesNotOffered", text, generation)
    more = f", {rdma} of them {accelerator.rdma_resource}" if accelerator.rdma_resource else ""
    return condition(
        "Offered", True, "Offered", f"{having} of {len(nodes)} nodes offer it{more}.", generation
    )

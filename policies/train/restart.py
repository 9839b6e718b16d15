"""Where the next attempt of a broken gang goes: the same slots where healthy, new ones for lost members."""

from __future__ import annotations

from typing import NamedTuple

from cluster.admission import Fences, slot_for
from cluster.hardware import Node, Offer, Slot
from cluster.snapshot import Snapshot
from cluster.space import Space
from cluster.training import Gang, GangPhase, Job, Layout
from placement.packing.best_fit import pick_devices
from placement.training.degrees import Degrees, degrees_for
from placement.training.islands import Fit, Island, Shortage, choose_island


class Successor(NamedTuple):
    """The next attempt's layout, and how many slots it keeps."""

    layout: Layout
    kept: int


def broken_slots(view: Snapshot, gang: Gang) -> tuple[Slot, ...]:
    """Slots whose node is gone, not to be used any more, or whose devices are not healthy."""
    return tuple(slot for slot in gang.layout.slots if not _usable(view.nodes.get(slot.node), slot))


def _usable(node: Node | None, slot: Slot) -> bool:
    # A cordon keeps new work away; it does not chase away what runs.
    if node is None or node.offer not in (Offer.OPEN, Offer.CORDONED):
        return False
    healthy = {device.index for device in node.devices if device.healthy}
    return all(index in healthy for index in slot.devices)


def is_stuck(view: Snapshot, job: Job, gang: Gang) -> set[str]:
    """Nodes of members that are not bound, or of members that were never created."""
    stuck = {
        claim.slot.node
        for member in gang.members
        if (claim := view.claims.get(member.partition("#")[0])) is not None and claim.phase == "pending"
    }
    layout = gang.layout
    lacking = len(layout.slots) * job.gpus_per_node < layout.tensor * layout.pipeline * layout.data
    if (
        lacking and gang.phase is GangPhase.FORMING
    ):  # later on a member that lacks was removed: its node is fine
        stuck.update(slot.node for slot in layout.slots)
    return stuck


def successor(
    view: Snapshot, space: Space, islands: list[Island], job: Job, gang: Gang
) -> Successor | Shortage:
    """The next attempt's layout: as little changed as possible, else anywhere it fits, else why not."""
    lost = {slot.node for slot in broken_slots(view, gang)}
    stuck = is_stuck(view, job, gang) - lost
    fence = Fences(view.nodes).of(job)
    keep = {
        slot.node: slot
        for slot in gang.layout.slots
        if slot.node not in lost | stuck
        and view.nodes[slot.node].offer is Offer.OPEN
        and (fence is None or fence.permits(slot.node))
        and slot.gpus == job.gpus_per_node
    }
    free = {
        node.name: len(space.free_devices(node.name, job.ref))
        for island in islands
        for node in island.nodes
        if node.name not in stuck and (fence is None or fence.admits(node.name, space))
    }
    patched = _patched(view, islands, free, job, gang, keep)
    if patched is not None:
        return _layout(space, job, patched[0], patched[1], keep)
    for name, slot in keep.items():
        free[name] = free.get(name, 0) + slot.gpus
    found = choose_island(islands, free, job, view.accelerators, set(keep))
    if isinstance(found, Fit):
        return _layout(space, job, found, found.degrees, keep)
    return found


def _patched(
    view: Snapshot, islands: list[Island], free: dict[str, int], job: Job, gang: Gang, keep: dict[str, Slot]
) -> tuple[Fit, Degrees] | None:
    """The same island with as many nodes as before, lost ones replaced in their rank's place."""
    first = next((view.nodes[name] for name in keep), None)
    island = next((i for i in islands if first is not None and first in i.nodes), None)
    count = len(gang.layout.slots)
    if island is None or not job.min_nodes <= count <= job.max_nodes:
        return None
    spare = [
        n
        for n in sorted(island.nodes, key=lambda n: (free.get(n.name, 0), n.order, n.name))
        if n.name not in keep and free.get(n.name, 0) >= job.gpus_per_node
    ]
    if len(spare) < count - len(keep):
        return None
    members = [view.nodes[slot.node] if slot.node in keep else spare.pop(0) for slot in gang.layout.slots]
    product = view.accelerators.get(island.accelerator)
    degrees = degrees_for(job, count, product.memory_bytes if product else 0, any_cut=True)
    return None if degrees is None else (Fit(island, tuple(members), degrees, len(spare)), degrees)


def _layout(space: Space, job: Job, fit: Fit, degrees: Degrees, keep: dict[str, Slot]) -> Successor:
    slots = tuple(
        slot_for(
            keep.get(node.name)
            or Slot(
                node=node.name,
                devices=pick_devices(node, space.free_devices(node.name, job.ref), job.gpus_per_node),
            ),
            job,
        )
        for node in fit.nodes
    )
    layout = Layout(
        tensor=degrees.tensor,
        pipeline=degrees.pipeline,
        data=degrees.data,
        micro_batch=job.micro_batch,
        layers_per_stage=degrees.layers_per_stage,
        slots=slots,
        network=fit.island.link,
        islands=(fit.island.name,),
    )
    return Successor(layout, sum(1 for node in fit.nodes if node.name in keep))

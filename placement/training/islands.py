"""Which island takes a gang: whole nodes of one product on one network, the fastest kind of network first.

An island is a set of nodes that share one network of one NIC type. A gang never mixes products, and never spans
islands here: the slowest link of a data parallel group sets the pace of all (research: training-placement §1.1).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from cluster.hardware import AcceleratorClass, Node, Offer
from cluster.training import Job
from placement.training.degrees import Degrees, degrees_for

LINKS = ("infiniband", "roce", "ethernet")
"""Network classes, fastest first; any other comes last."""


class Island(NamedTuple):
    """Nodes of one product on one network; `rate` is the slowest member's fastest NIC in bit/s.

    `members` has each node's name and number of devices, in the order of `nodes`.
    """

    name: str
    accelerator: str
    link: str
    rate: int
    nodes: tuple[Node, ...]
    members: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        """For people: `fabric-a (H100, infiniband)`."""
        return f"{self.name or 'no island'} ({self.accelerator}, {self.link})"


class Fit(NamedTuple):
    """A gang's place: the island, its nodes in rank order, the cut, and how many nodes were free there."""

    island: Island
    nodes: tuple[Node, ...]
    degrees: Degrees
    free_nodes: int


class Shortage(NamedTuple):
    """Why nothing fits: the island that came closest, its free and all suitable nodes, and what is needed.

    `divides` False: nodes were there, but no allowed number of them divides the batch and holds the model.
    """

    island: str
    free_nodes: int
    nodes: int
    needed: int
    divides: bool = True


def islands_of(nodes: Mapping[str, Node]) -> list[Island]:
    """Every island of open nodes, best network first, then by name. Nodes are in topology order."""
    groups: dict[tuple[str, str, str], list[Node]] = {}
    for name in sorted(nodes):
        node = nodes[name]
        if node.offer is Offer.OPEN:
            groups.setdefault((node.island, node.accelerator, node.link), []).append(node)
    found = []
    for (island, accelerator, link), members in groups.items():
        ordered = tuple(sorted(members, key=lambda n: (n.topology, n.order, n.name)))
        rate = min(max((nic.rate_bits_per_second for nic in node.nics), default=0) for node in members)
        sizes = tuple((node.name, len(node.devices)) for node in ordered)
        found.append(Island(island, accelerator, link, rate, ordered, sizes))
    return sorted(found, key=lambda i: (link_rank(i.link), -i.rate, i.name, i.accelerator))


def link_rank(link: str) -> int:
    """Place of a network class, 0 the fastest."""
    return LINKS.index(link) if link in LINKS else len(LINKS)


def choose_island(
    islands: list[Island],
    free_gpus: Mapping[str, int],
    job: Job,
    accelerators: Mapping[str, AcceleratorClass],
    prefer: Collection[str] = (),
) -> Fit | Shortage:
    """The best place for a gang, or the shortage nearest to one.

    Among islands of the best network class that can hold `min_nodes`: most nodes up to `max_nodes`, then most
    of the nodes to `prefer` (those it holds already), then the fewest left over. `free_gpus` maps a node to
    its free GPUs for this job.
    """
    best: tuple[tuple[int, int, int, int, int], Fit] | None = None
    near = Shortage("any network", 0, 0, job.min_nodes)
    for place, island in enumerate(islands):
        if job.accelerators and island.accelerator not in job.accelerators:
            continue
        gpus = job.gpus_per_node
        big = sum(1 for _, size in island.members if size >= gpus)
        free = [i for i, (name, _) in enumerate(island.members) if free_gpus.get(name, 0) >= gpus]
        product = accelerators.get(island.accelerator)
        cut = _most_nodes(job, len(free), product.memory_bytes if product else 0)
        if cut is None:
            if (len(free), big) > (near.free_nodes, near.nodes):
                enough = len(free) >= job.min_nodes
                near = Shortage(island.text, len(free), big, job.min_nodes, divides=not enough)
            continue
        count, degrees = cut
        if best is not None and (link_rank(island.link), -count) > best[0][:2]:
            continue
        picked = _pick(island, free, free_gpus, count, prefer)
        held = sum(1 for node in picked if node.name in prefer)
        rank = (link_rank(island.link), -count, -held, len(free) - count, place)
        if best is None or rank < best[0]:
            best = (rank, Fit(island, picked, degrees, len(free)))
    return best[1] if best is not None else near


def _most_nodes(job: Job, free: int, memory_bytes: int) -> tuple[int, Degrees] | None:
    """The largest allowed number of nodes that divides the batch and holds the model, with no needless cut if any."""
    for any_cut in (False, True):
        for count in range(min(job.max_nodes, free), job.min_nodes - 1, -1):
            degrees = degrees_for(job, count, memory_bytes, any_cut)
            if degrees is not None:
                return count, degrees
    return None


def _pick(
    island: Island, free: list[int], free_gpus: Mapping[str, int], count: int, prefer: Collection[str]
) -> tuple[Node, ...]:
    """`count` nodes: those to prefer, then the least left over, then neighbours; in topology order."""
    names = [island.members[i][0] for i in free]
    keys = sorted(
        zip([name not in prefer for name in names], [free_gpus[n] for n in names], free, strict=True)
    )
    return tuple(island.nodes[i] for i in sorted(index for _, _, index in keys[:count]))

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
    """Nodes of one product on one network; `rate` is the slowest member's fastest NIC in bit/s."""

    name: str
    accelerator: str
    link: str
    rate: int
    nodes: tuple[Node, ...]

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
    found = [
        Island(
            island,
            accelerator,
            link,
            min(max((nic.rate_bits_per_second for nic in node.nics), default=0) for node in members),
            tuple(sorted(members, key=lambda n: (n.topology, n.order, n.name))),
        )
        for (island, accelerator, link), members in groups.items()
    ]
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
        big = [n for n in island.nodes if len(n.devices) >= job.gpus_per_node]
        free = [n for n in big if free_gpus.get(n.name, 0) >= job.gpus_per_node]
        product = accelerators.get(island.accelerator)
        cut = _most_nodes(job, len(free), product.memory_bytes if product else 0)
        if cut is None:
            if (len(free), len(big)) > (near.free_nodes, near.nodes):
                enough = len(free) >= job.min_nodes
                near = Shortage(island.text, len(free), len(big), job.min_nodes, divides=not enough)
            continue
        count, degrees = cut
        picked = _pick(free, free_gpus, count, prefer)
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
    free: list[Node], free_gpus: Mapping[str, int], count: int, prefer: Collection[str]
) -> tuple[Node, ...]:
    """`count` nodes: those to prefer, then the least left over, then neighbours; in topology order."""
    rank = {node.name: place for place, node in enumerate(free)}
    order = sorted(free, key=lambda n: (n.name not in prefer, free_gpus.get(n.name, 0), rank[n.name]))
    chosen = order[:count]
    return tuple(sorted(chosen, key=lambda n: rank[n.name]))

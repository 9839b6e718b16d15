"""Water-filling of watts down a tree of breakers, in exact integers.

A domain's budget is shared among its own nodes and its child domains in proportion to demand, each bounded by what
it can use; what one cannot use goes to the others. Children are bounded by their own limits and then share what
they got in the same way, so the sum under every domain stays within its limit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def share(total: int, weights: Floats, most: Ints) -> Ints:
    """Split `total` in proportion to `weights`, entry i at most `most[i]`; uses all of it where bounds allow.

    Exact in integers: the remainder of rounding goes to the largest fractions, then to the lower index.
    Zero weights share what the others leave, evenly.
    """
    given = np.zeros(len(most), dtype=np.int64)
    left = int(min(max(total, 0), int(most.sum())))
    open_ = most > 0
    while left > 0 and open_.any():
        weight = np.where(open_, weights, 0.0)
        if weight.sum() <= 0.0:
            weight = open_.astype(np.float64)
        ideal = left * (weight / weight.sum())
        room = (most - given).astype(np.float64)
        full = open_ & (ideal >= room) & (weight > 0.0)
        if full.any():
            left -= int((most[full] - given[full]).sum())
            given[full] = most[full]
            open_ &= ~full
            continue
        whole = np.floor(ideal).astype(np.int64)
        given += whole
        left -= int(whole.sum())
        if left > 0:
            fraction = np.where(open_ & (most > given) & (weight > 0.0), ideal - whole, -1.0)
            order = np.lexsort((np.arange(len(most)), -fraction))[:left]
            order = order[fraction[order] >= 0.0]
            given[order] += 1
            left -= len(order)
        open_ &= most > given
    return given


class Tree:
    """Domains (parents before children) with their nodes; rows as in the view's tables."""

    def __init__(self, parent: Ints, node_domain: Ints) -> None:
        self.parent = parent
        self.count = len(parent)
        self.nodes: list[Ints] = [np.flatnonzero(node_domain == d) for d in range(self.count)]
        self.children: list[list[int]] = [[] for _ in range(self.count)]
        self.roots: list[int] = []
        for domain in range(self.count):
            above = int(parent[domain])
            (self.children[above] if 0 <= above < domain else self.roots).append(domain)

    def sums(self, values: Ints) -> Ints:
        """Per domain: the sum of node values in its whole subtree."""
        total = np.array([int(values[nodes].sum()) for nodes in self.nodes], dtype=np.int64)
        for domain in range(self.count - 1, -1, -1):
            above = int(self.parent[domain])
            if 0 <= above < domain:
                total[above] += total[domain]
        return total

    def fill(self, base: Ints, most: Ints, weights: Floats, limits: Ints) -> Ints:
        """Watts per node: `base` plus a share of each domain's headroom, at most `most` (>= base).

        A domain whose bases alone exceed its limit gets nothing above them, nor does anything below it.
        """
        room = np.maximum(most - base, 0)
        bases = self.sums(base)
        usable = self._usable(room, bases, limits)
        demand = np.array([float(weights[nodes].sum()) for nodes in self.nodes])
        for domain in range(self.count - 1, -1, -1):
            above = int(self.parent[domain])
            if 0 <= above < domain:
                demand[above] += demand[domain]
        given = base.astype(np.int64).copy()
        budget = {root: int(usable[root]) for root in self.roots}
        for domain in range(self.count):
            nodes, children = self.nodes[domain], self.children[domain]
            bounds = np.concatenate([room[nodes], usable[children] if children else np.zeros(0, np.int64)])
            shares = np.concatenate([weights[nodes], demand[children] if children else np.zeros(0)])
            got = share(budget.get(domain, 0), shares, bounds)
            given[nodes] += got[: len(nodes)]
            budget.update(zip(children, got[len(nodes) :].tolist(), strict=True))
        return given

    def _usable(self, room: Ints, bases: Ints, limits: Ints) -> Ints:
        """Per domain: watts above its bases that it can use and may have."""
        usable = np.zeros(self.count, dtype=np.int64)
        for domain in range(self.count - 1, -1, -1):
            wanted = int(room[self.nodes[domain]].sum()) + int(usable[self.children[domain]].sum())
            usable[domain] = max(0, min(wanted, int(limits[domain] - bases[domain])))
        return usable

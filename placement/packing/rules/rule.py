"""What a packing rule is: it scores nodes for a pod; the highest score wins, ties by the fleet's order."""

from __future__ import annotations

from typing import Protocol

from placement.packing.fleet import Fleet, Floats, Ints, Shape

TOP = 100
"""Highest score of the published rules, which score in whole numbers as the Kubernetes scheduler does."""

LARGEST_CPU_MILLIS = 128_000
LARGEST_GPU_MILLIS = 8_000
"""What the published rules divide CPU and GPU by."""


class Rule(Protocol):
    """A packing rule. `lasting` scores depend on nothing but the node's own state, so they may be kept until it changes."""

    lasting: bool

    def scores(self, fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
        """Score of each of the rows (on all of which the shape fits) and the device a share would take, else -1."""
        ...

"""Where a node is in the network, by the labels that Topograph, cloud and administrator put on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from controller.observe import labels

_TIER = re.compile(r"fabric\.topograph\.run/tier-(\d{1,2})")
DOMAIN = "accelerator.topograph.run/domain"
SUB_DOMAIN = "accelerator.topograph.run/sub-domain"
"""NVLink domain across nodes, and its part, as Topograph names them now."""
OLD = "network.topology.nvidia.com/"
OLD_FABRIC = ("datacenter", "spine", "block")
"""Topograph's older names, outermost first; `accelerator` is the NVLink domain."""
CLIQUE = "nvidia.com/gpu.clique"
"""GPU feature discovery's `ClusterUUID.CliqueID` of a multi-node NVLink domain."""


class Place(NamedTuple):
    """`topology` outermost first; `fabric` is the outermost part of the network that any label names."""

    topology: tuple[str, ...]
    fabric: str


def place_of(marks: Mapping[str, str]) -> Place:
    """Zone, then the fabric's tiers from the outermost in, then the NVLink domain.

    Topograph's newer labels come before its older ones, those before `topology.kubernetes.io/block` and `rack`: one
    source is read, since two that disagree about names would split what is one.
    """
    found = _fabric(marks)
    link = [marks[key] for key in (DOMAIN, SUB_DOMAIN) if marks.get(key)]
    link = link or [marks[key] for key in (OLD + "accelerator", CLIQUE) if marks.get(key)][:1]
    zone = [marks[labels.ZONE]] if marks.get(labels.ZONE) else []
    named = [marks[key] for key in (labels.BLOCK, labels.RACK) if marks.get(key)]
    return Place(tuple(zone + (found or named) + link), found[0] if found else "")


def _fabric(marks: Mapping[str, str]) -> list[str]:
    tiers = {int(m[1]): value for key, value in marks.items() if (m := _TIER.fullmatch(key)) and value}
    if tiers:
        return [tiers[tier] for tier in sorted(tiers, reverse=True)]
    return [marks[OLD + name] for name in OLD_FABRIC if marks.get(OLD + name)]


def island_of(marks: Mapping[str, str], fabric: str, link: str) -> str:
    """The set of nodes on one network: as labelled, else the outermost fabric by the NICs' link layer."""
    named = marks.get(labels.ISLAND, "")
    return named or (f"{fabric}/{link}" if fabric else "")

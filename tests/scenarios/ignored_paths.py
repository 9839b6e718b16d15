"""In what the two tiers may differ, each with its reason. The list is short, and stays so: see MOST."""

from __future__ import annotations

from typing import NamedTuple

MOST = 12
"""More entries than these would hide defects."""


class Ignored(NamedTuple):
    """A regular expression over paths (`tests/scenarios/left.py`) whose values may differ; `absent`: on one tier there
    may be none.
    """

    pattern: str
    why: str
    absent: bool = False


IGNORED = [
    Ignored(
        r"^objects \S+ \.metadata\.managedFields",
        "the embedded store keeps them apart from the object",
        absent=True,
    ),
    Ignored(r"^objects \S+ \.metadata\.resourceVersion$", "each store counts its own"),
    Ignored(r"^objects \S+ \.metadata\.creationTimestamp$", "the API server's own clock"),
    Ignored(r"^objects \S+ \.metadata\.deletionTimestamp$", "the API server's own clock"),
    Ignored(r"^objects Node/\S+ .*\.timeAdded$", "the node life cycle controller's clock"),
    Ignored(
        r"^objects Node/\S+ \.status\.conditions\[\w+\]\.lastHeartbeatTime$",
        "a node that was bought beats from when its pods could bind, which the real controllers take seconds over",
    ),
    Ignored(
        r"^objects (Node|Pod)/\S+ \.status\.conditions\[\w+\]\.lastTransitionTime$",
        "the node life cycle controller's clock, where a node fell silent",
    ),
    Ignored(
        r"^objects Node/\S+ \.metadata\.annotations\[node\.alpha\.kubernetes\.io/ttl\]$",
        "of a controller that only large real clusters need",
        absent=True,
    ),
    Ignored(
        r"^objects Pod/\S+ \.metadata\.generation$",
        "the embedded store counts it for our own kinds alone",
        absent=True,
    ),
    Ignored(
        r"^objects Pod/\S+ \.metadata\.annotations\[plimsoll\.dev/endpoint\]$", "a free port of this machine"
    ),
]

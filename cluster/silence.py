"""When a node that is not heard of counts as lost, and when the fault is rather ours."""

from __future__ import annotations

from collections.abc import Mapping

SILENT_SECONDS = 10.0
"""A node whose agent has not reported for this long gives no capacity (two lease lifetimes)."""


def silent_nodes(quiet: Mapping[str, float]) -> frozenset[str] | None:
    """Nodes that count as lost, of the seconds for which each was not heard; None when several are and nobody is heard.

    Then the fault is rather ours (a hub, a network): what serves is left to serve, and everybody gets the time anew that
    they get after a restart.
    """
    if len(quiet) > 1 and min(quiet.values()) > SILENT_SECONDS:
        return None
    return frozenset(node for node, seconds in quiet.items() if seconds > SILENT_SECONDS)

"""Annotations by which we mark a pod that drains, for others to read and for our own successor."""

from __future__ import annotations

from typing import Any

from cluster.actions import Drain
from cluster.serving import Replica
from controller.observe import labels

UNDISTURBED = {labels.DO_NOT_DISRUPT: "true", labels.SAFE_TO_EVICT: "false"}
"""What keeps Karpenter and the cluster autoscaler from taking the node under a pod: gangs carry it always, replicas
while their requests end.
"""
DRAINING = "drain"


def drain_notes(action: Drain, replica: Replica | None, now_seconds: float) -> dict[str, Any]:
    """What a drain writes on its pod. A user's own annotations are left alone."""
    notes: dict[str, Any] = {labels.DRAIN_UNTIL: repr(action.deadline_seconds)}
    if action.voluntary:
        notes[labels.MOVED_AT] = repr(now_seconds)
    if replica is not None and not replica.kept_by:
        notes |= {labels.KEPT: DRAINING, **UNDISTURBED}
    return notes


def resume_notes(replica: Replica | None) -> dict[str, Any]:
    """What a resumed pod loses; that it was moved stays counted."""
    notes: dict[str, Any] = {labels.DRAIN_UNTIL: None}
    if replica is not None and not replica.kept_by:
        notes |= dict.fromkeys((labels.KEPT, *UNDISTURBED))
    return notes

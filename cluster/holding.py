"""What is left as it is: actions on objects that are held, whatever was planned before they were."""

from __future__ import annotations

from typing import Any

from cluster import actions as act
from cluster.drops import Drop
from cluster.overlay import Overlay

PERMITTED: tuple[type[act.Action], ...] = (act.SetRoutes, act.Release, act.GrantPower)
"""Kinds that touch nothing that runs: traffic over what is ready, our own reservations, watts."""


def held(overlay: Overlay, action: act.Action) -> Drop | None:
    """Why an action is not carried out: its service or job is held; None when it is not, or the kind is permitted."""
    if isinstance(action, PERMITTED):
        return None
    found = subject(overlay, action)
    if found is None or not found.held:
        return None
    return Drop("Held", f"{action.kind} for {found.name}, which is held ({found.held})", 1, 1, 0, "objects")


def subject(overlay: Overlay, action: act.Action) -> Any | None:
    """The service or job an action is about; None for one about neither, or about one that is gone."""
    name = getattr(action, "service", "")
    if not name:
        for field in ("job", "gang", "replica", "subject", "owner"):
            ref = getattr(action, field, None)
            if ref is not None:
                name, kind = ref.name, ref.kind
                if kind == "TrainingJob":
                    return overlay.read("jobs").get(name)
                if kind == "Gang":
                    gang = overlay.read("gangs").get(name)
                    return overlay.read("jobs").get(gang.job) if gang is not None else None
                if kind == "Replica":
                    replica = overlay.read("replicas").get(name)
                    return overlay.read("services").get(replica.service) if replica is not None else None
                return overlay.read("services").get(name) if kind == "ModelService" else None
    return overlay.read("services").get(name)

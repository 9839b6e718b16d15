"""Whose an object is, and whether its user changed it: asked by the book of refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OURS = frozenset({"ModelService", "TrainingJob"})
ENDED = frozenset({"Succeeded", "Failed"})
"""Phases of a job after which nothing is wanted for it any more."""


class ObjectOwners:
    """Reads the raw objects of the model, by kind and `namespace/name`."""

    def __init__(self, objects: Mapping[str, Mapping[str, Any]]) -> None:
        """Bind to the model's objects."""
        self._objects = objects

    def owner_of(self, kind: str, key: str) -> tuple[str, str]:
        """The object of the user's that an object belongs to; itself where there is none."""
        obj = self._objects.get(kind, {}).get(key)
        for owner in obj.metadata.owner_references if obj is not None and kind not in OURS else ():
            if owner.kind in OURS:
                namespace = key.rpartition("/")[0]
                return owner.kind, f"{namespace}/{owner.name}" if namespace else owner.name
        return kind, key

    def version_of(self, kind: str, key: str) -> str:
        """uid, generation (which changes with the specification alone) and whether a job has ended; empty for what is not
        followed.
        """
        obj = self._objects.get(kind, {}).get(key)
        if obj is None:
            return ""
        ended = kind == "TrainingJob" and obj.status.phase in ENDED
        return f"{obj.metadata.uid}@{obj.metadata.generation}{' ended' if ended else ''}"

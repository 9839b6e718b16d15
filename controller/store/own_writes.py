"""Own writes that a cache has not seen yet: what they touched must not be decided on."""

from __future__ import annotations

from typing import Any


class OwnWrites:
    """For each object that was written, what the cache has to have seen before it knows of it."""

    def __init__(self) -> None:
        """Nothing is waited for."""
        self._waiting: dict[str, tuple[int, str]] = {}

    @property
    def awaited(self) -> tuple[str, ...]:
        """Keys of the objects that are waited for."""
        return tuple(self._waiting)

    def wait(self, key: str, *, version: int = 0, gone_uid: str = "") -> None:
        """Wait until `version` was seen, or the object of that uid is gone or marked as going."""
        before = self._waiting.get(key, (0, ""))
        self._waiting[key] = (max(before[0], version), gone_uid or before[1])

    def fresh(self, key: str, current: Any, position: int) -> bool:
        """Whether the cache has seen our writes to an object.

        `current` is the object as the cache has it, or None; `position` the version it has seen everything up to.
        """
        awaited = self._waiting.get(key)
        if awaited is None:
            return True
        version, uid = awaited
        seen = position >= version or (
            current is not None and version_number(current.metadata.resource_version) >= version
        )
        going = not uid or (
            current is None or current.metadata.uid != uid or current.metadata.deletion_timestamp is not None
        )
        if seen and going:
            del self._waiting[key]
            return True
        return False


def object_key(namespace: str, name: str) -> str:
    """`namespace/name`, or the name alone of what belongs to the cluster."""
    return f"{namespace}/{name}" if namespace else name


def version_number(version: str) -> int:
    """Versions of one kind are comparable integers (the API guarantees it since 1.35); others count as 0."""
    return int(version) if version.isdigit() else 0

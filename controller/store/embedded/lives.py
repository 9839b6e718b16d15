"""An embedded store lives as long as its process; whoever follows it from another process lives longer."""

from __future__ import annotations

from controller.store.embedded.store import EmbeddedStore

STEPS_PER_SECOND = 1_000_000
"""Versions that one second of a life may give out before a later life could begin below it."""


def begin_life(store: EmbeddedStore, now_seconds: float) -> int:
    """Let the versions of this life be above those of any earlier one; returns where they begin.

    A follower that asks for what came after a version of an earlier life is then told 410 and lists anew, instead
    of being believed and missing everything. `now_seconds` is wall time.
    """
    objects = store.objects
    version = max(objects.version, int(now_seconds * STEPS_PER_SECOND))
    for resource in objects.resources:
        objects.table(resource).compact(version)
    objects.version = version
    return version

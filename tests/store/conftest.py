"""What the store's tests share: a clock that stands still, a store, and objects to put into it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from controller.resources.core import NODE, POD
from controller.resources.kinds import MODEL_SERVICE
from controller.store.embedded import EmbeddedStore, open_store
from runtime.clock import VirtualClock

ORIGIN = 1_790_000_000.0


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run one coroutine to its end."""
    return asyncio.run(work)


def inventory(store: Any) -> list[tuple[str, str, str, str]]:
    """What there is: to show that a refused request changed nothing. Nodes without versions: others write them too."""
    found = []
    for resource in (NODE, POD, MODEL_SERVICE):
        for each in run(store.list(resource)).items:
            meta = each["metadata"]
            version = "" if resource is NODE else meta["resourceVersion"]
            found.append((resource.kind, meta["name"], meta["uid"], version))
    return sorted(found)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(ORIGIN)


@pytest.fixture
def store(clock: VirtualClock) -> EmbeddedStore:
    return open_store(clock, seed=7)

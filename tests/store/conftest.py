"""What the store's tests share: a clock that stands still, a store, and objects to put into it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from controller.store.embedded import EmbeddedStore, open_store
from runtime.clock import VirtualClock

ORIGIN = 1_790_000_000.0


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run one coroutine to its end."""
    return asyncio.run(work)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(ORIGIN)


@pytest.fixture
def store(clock: VirtualClock) -> EmbeddedStore:
    return open_store(clock, seed=7)

"""The store's own tests, put to a store that is reached over mutual TLS: same verbs, same words, same watches."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from controller.store.embedded import open_store
from runtime.clock import VirtualClock
from tests.store import test_apply, test_reads, test_writes
from tests.store.remote import Door, FarStore, far_store

LOCAL_ONLY = {
    "test_two_stores_of_one_seed_give_the_same_identities",
    "test_a_page_too_old_is_gone",
    "test_from_a_version_no_longer_kept_is_gone",
    "test_a_reader_too_slow_loses_the_stream_and_can_resume",
    "test_ends_by_age_where_the_server_limits_it",
    "test_a_burst_costs_no_more_than_its_events",
    "test_waiting_ends_when_something_happens",
}
"""They make a store of their own, or count turns of one event loop."""


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@pytest.fixture
def store(door: Door, clock: VirtualClock) -> Iterator[FarStore]:
    with far_store(door, open_store(clock, seed=7)) as made:
        yield made


def _contract(module: ModuleType) -> dict[str, Any]:
    """A module's tests of a given store, named after it."""
    part = module.__name__.rpartition("_")[2]
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if inspect.isclass(value) and name.startswith("Test"):
            kept = {
                key: each
                for key, each in vars(value).items()
                if key.startswith("test_") and key not in LOCAL_ONLY
            }
            found[f"{name}Of{part.title()}"] = type(name, (), {**kept, "__module__": __name__})
        elif name.startswith("test_") and name not in LOCAL_ONLY:
            found[f"test_{part}_{name.removeprefix('test_')}"] = value
    return found


for _module in (test_apply, test_reads, test_writes):
    globals().update(_contract(_module))

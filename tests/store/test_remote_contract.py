"""The store's own tests, put to a store that is reached over mutual TLS: same verbs, same words, same watches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controller.store.embedded import open_store
from runtime.clock import VirtualClock
from tests.store.contract import contract_for
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


globals().update(contract_for(__name__, LOCAL_ONLY))

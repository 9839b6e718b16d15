"""The store's own tests, put to a real API server: same verbs, same errors, same watches.

A test that is left out stands in `ELSEWHERE` with what differs: there the embedded store is the one that is simpler.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from console.controlplane import ControlPlane
from controller.store.kube import KubeStore
from tests.store.contract import contract_for
from tests.store.kube import FarKube, Loop, far_kube, sweep

ELSEWHERE: dict[str, str] = {
    "test_two_stores_of_one_seed_give_the_same_identities": "a server draws its uids itself",
    "test_a_page_too_old_is_gone": "makes a store of its own; pages too old are in test_kube_server",
    "test_from_a_version_no_longer_kept_is_gone": "makes a store of its own; compaction is in test_kube_server",
    "test_after_compaction_is_gone_before_it_and_works_after": "compacts a table; etcd's is in test_kube_server",
    "test_a_reader_too_slow_loses_the_stream_and_can_resume": "makes a store of its own; in test_kube_faults",
    "test_ends_by_age_where_the_server_limits_it": "makes a store of its own",
    "test_a_burst_costs_no_more_than_its_events": "counts turns of one event loop",
    "test_waiting_ends_when_something_happens": "counts turns of one event loop",
    "test_an_idle_watch_is_told_the_version_each_minute": "the minute is a real one; in test_kube_server",
    "test_from_the_future_gets_no_answer": "the server opens such a watch and sends nothing until then",
    "test_a_second_deletion_can_only_shorten_the_grace": "moves a virtual clock",
    "test_the_store_says_what_it_does_not_do": "it does everything",
}


@pytest.fixture(scope="module")
def far(control_plane: ControlPlane) -> Iterator[tuple[Loop, KubeStore]]:
    with far_kube(control_plane.kubeconfig) as made:
        yield made


@pytest.fixture
def store(far: tuple[Loop, KubeStore]) -> FarKube:
    loop, inner = far
    loop.now(sweep(inner))
    inner.requests.clear()
    return FarKube(loop, inner)


globals().update(contract_for(__name__, ELSEWHERE))

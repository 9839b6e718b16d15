"""The disturbed store disturbs as told, and a killed process writes nothing more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.resources.core import POD
from controller.resources.kinds import MODEL_SERVICE
from controller.store.embedded import EmbeddedStore
from controller.store.errors import Conflict, Gone, TooManyRequests, Unavailable
from controller.store.faults import CrashPoint, FaultRates, FaultyStore, KillableStore, Killed
from controller.store.interposed import InterposedStore, Request
from runtime.clock import VirtualClock
from tests.store.conftest import ORIGIN, run
from tests.store.following import now
from tests.store.objects import pod, service

WRITER = "tester"


@pytest.fixture
def faulty(store: EmbeddedStore, clock: VirtualClock) -> FaultyStore:
    return FaultyStore(store, clock, seed=1)


def create(store: Any, name: str) -> Any:
    return now(store.create(POD, pod(name), field_manager=WRITER))


def scenario(store: Any) -> None:
    """Every verb once; what a small operator might do."""
    made = now(store.create(MODEL_SERVICE, service(), field_manager=WRITER))
    made["spec"]["mode"] = "Off"
    now(store.replace(MODEL_SERVICE, made, field_manager=WRITER))
    now(store.patch(MODEL_SERVICE, "chat", {"spec": {"image": "a"}}, "default", field_manager=WRITER))
    status = {**service(), "spec": {}, "status": {"phase": "Serving"}}
    now(store.apply(MODEL_SERVICE, status, field_manager=WRITER, subresource="status"))
    now(store.put_scale(MODEL_SERVICE, "chat", "default", replicas=1, field_manager=WRITER))
    assert now(store.get_scale(MODEL_SERVICE, "chat", "default")).spec_replicas == 1
    assert now(store.get(MODEL_SERVICE, "chat", "default"))["status"]["phase"] == "Serving"
    assert len(now(store.list(MODEL_SERVICE)).raw_items) == 1
    now(store.watch(MODEL_SERVICE, resource_version="")).close()
    now(store.delete(MODEL_SERVICE, "chat", "default"))


def test_a_store_in_front_passes_every_verb_on_and_sees_it(store: EmbeddedStore) -> None:
    seen: list[str] = []

    class Noting(InterposedStore):
        async def send(self, request: Request, answer: Any) -> Any:
            seen.append(str(request))
            return await answer()

    scenario(Noting(store))
    assert seen == [
        "create ModelService default/chat",
        "replace ModelService default/chat",
        "patch ModelService default/chat",
        "apply ModelService/status default/chat",
        "replace ModelService/scale default/chat",
        "get ModelService/scale default/chat",
        "get ModelService default/chat",
        "list ModelService",
        "watch ModelService",
        "delete ModelService default/chat",
    ]
    assert Noting(store).capabilities == store.capabilities


def test_without_faults_nothing_is_disturbed(faulty: FaultyStore) -> None:
    scenario(faulty)
    assert not faulty.counts


def test_an_outage_refuses_everything_for_its_time(faulty: FaultyStore, clock: VirtualClock) -> None:
    watch = now(faulty.watch(POD, resource_version=""))
    faulty.outage(60)
    with pytest.raises(Unavailable, match="the connection was reset"):
        watch.drain()
    assert watch.ended
    for _ in range(3):
        with pytest.raises(Unavailable, match="no answer to create Pod default/a: connection refused"):
            create(faulty, "a")
    clock.advance_to(ORIGIN + 60)
    create(faulty, "a")
    assert faulty.counts["outage"] == 3


def test_a_storm_refuses_so_many_writes_but_no_creation(faulty: FaultyStore) -> None:
    create(faulty, "a")
    faulty.conflict_storm(2)
    create(faulty, "b")
    for _ in range(2):
        with pytest.raises(Conflict, match="the object has been modified"):
            now(faulty.delete(POD, "a", "default"))
    now(faulty.delete(POD, "a", "default"))


def test_throttling_says_when_to_come_back(faulty: FaultyStore, clock: VirtualClock) -> None:
    faulty.throttle(10)
    clock.advance_to(ORIGIN + 4)
    with pytest.raises(TooManyRequests) as caught:
        create(faulty, "a")
    assert caught.value.retry_after_seconds == 6
    clock.advance_to(ORIGIN + 10)
    create(faulty, "a")


def test_a_lost_answer_leaves_the_write_done(store: EmbeddedStore, clock: VirtualClock) -> None:
    faulty = FaultyStore(store, clock, rates=FaultRates(lost_answer=1.0))
    with pytest.raises(Unavailable, match="the answer to create Pod default/a was lost"):
        create(faulty, "a")
    assert now(store.get(POD, "a", "default"))["metadata"]["name"] == "a"


@pytest.mark.parametrize(
    ("rates", "error"),
    [
        pytest.param(FaultRates(unavailable=1.0), Unavailable, id="no answer"),
        pytest.param(FaultRates(throttled=1.0), TooManyRequests, id="throttled"),
        pytest.param(FaultRates(conflict=1.0), Conflict, id="conflict"),
    ],
)
def test_a_refused_write_is_not_done(
    store: EmbeddedStore, clock: VirtualClock, rates: FaultRates, error: type[Exception]
) -> None:
    create(store, "a")
    before = store.objects.version
    with pytest.raises(error):
        now(FaultyStore(store, clock, rates=rates).delete(POD, "a", "default"))
    assert store.objects.version == before


def test_two_stores_of_one_seed_fail_alike(store: EmbeddedStore, clock: VirtualClock) -> None:
    def outcomes(seed: int) -> list[bool]:
        faulty = FaultyStore(store, clock, seed=seed, rates=FaultRates(unavailable=0.5))
        results = []
        for _ in range(50):
            try:
                now(faulty.list(POD))
                results.append(True)
            except Unavailable:
                results.append(False)
        return results

    assert outcomes(1) == outcomes(1)
    assert outcomes(1) != outcomes(2)


class TestStreams:
    def open(self, faulty: FaultyStore) -> Any:
        return now(faulty.watch(POD, resource_version=str(faulty.inner.objects.version)))  # type: ignore[attr-defined]

    def names(self, watch: Any) -> list[str]:
        return [event.object["metadata"]["name"] for event in watch.drain()]

    def test_a_delay_keeps_order_and_loses_nothing(self, faulty: FaultyStore, clock: VirtualClock) -> None:
        watch = self.open(faulty)
        faulty.rates = FaultRates(delayed=1.0, delay_seconds=5.0)
        watch.drain()
        faulty.rates = FaultRates()
        create(faulty, "a")
        assert self.names(watch) == []
        clock.advance_to(ORIGIN + 3)
        create(faulty, "b")
        assert self.names(watch) == []
        clock.advance_to(ORIGIN + 5)
        assert self.names(watch) == ["a", "b"]

    def test_a_duplicate_comes_after_the_original(self, store: EmbeddedStore, clock: VirtualClock) -> None:
        faulty = FaultyStore(store, clock, seed=3, rates=FaultRates(duplicated=1.0))
        watch = self.open(faulty)
        create(faulty, "a")
        create(faulty, "b")
        names = self.names(watch)
        assert names[:2] == ["a", "b"]
        assert len(names) > 2

    def test_a_cut_delivers_a_beginning_then_the_error_then_ends(
        self, store: EmbeddedStore, clock: VirtualClock
    ) -> None:
        faulty = FaultyStore(store, clock, seed=3, rates=FaultRates(cut=1.0))
        watch = self.open(faulty)
        for name in "abcdef":
            create(faulty, name)
        got = self.names(watch)
        assert "abcdef".startswith("".join(got))
        assert not watch.ended
        with pytest.raises(Unavailable, match="cut half way"):
            watch.drain()
        assert watch.ended
        assert watch.drain() == []

    def test_410_ends_a_stream(self, faulty: FaultyStore) -> None:
        watch = self.open(faulty)
        faulty.expire()
        with pytest.raises(Gone):
            watch.drain()
        assert watch.ended

    def test_silence_looks_like_nothing_at_all(self, faulty: FaultyStore, clock: VirtualClock) -> None:
        watch = self.open(faulty)
        faulty.silence()
        create(faulty, "a")
        clock.advance_to(ORIGIN + 600)
        faulty.outage(10)
        assert watch.drain() == []
        assert not watch.ended
        watch.close()
        assert watch.ended

    def test_waiting_passes_through(self, faulty: FaultyStore) -> None:
        async def scene() -> bool:
            watch = await faulty.watch(POD, resource_version=str(faulty.inner.objects.version))  # type: ignore[attr-defined]
            waiting = asyncio.create_task(watch.wait())
            await asyncio.sleep(0)
            await faulty.create(POD, pod("a"), field_manager=WRITER)
            await asyncio.wait_for(waiting, 1)
            faulty.cut()
            await asyncio.wait_for(watch.wait(), 1)
            return True

        assert run(scene())


class TestKilling:
    def mutations(self, store: EmbeddedStore) -> int:
        killable = KillableStore(store)
        scenario(killable)
        assert all(request.mutating for request in killable.mutations)
        return len(killable.mutations)

    def test_counts_only_what_changes_something(self, store: EmbeddedStore) -> None:
        assert self.mutations(store) == 6

    @pytest.mark.parametrize("call", range(1, 7))
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_dies_at_each_call_and_stays_dead(self, store: EmbeddedStore, call: int, when: Any) -> None:
        killable = KillableStore(store, CrashPoint(call, when))
        with pytest.raises(Killed, match=f"killed {when} mutating call {call}"):
            scenario(killable)
        done = sum(
            count for (verb, _), count in store.requests.items() if verb not in {"get", "list", "watch"}
        )
        assert done == (call - 1 if when == "before" else call)
        for request in (killable.get(POD, "x", "default"), killable.delete(POD, "x", "default")):
            with pytest.raises(Killed, match="is never sent"):
                now(request)

    def test_a_crash_point_beyond_the_last_call_is_never_reached(self, store: EmbeddedStore) -> None:
        killable = KillableStore(store, CrashPoint(7, "before"))
        scenario(killable)
        assert not killable.dead

    def test_no_ordinary_handler_survives_it(self, store: EmbeddedStore) -> None:
        killable = KillableStore(store, CrashPoint(1, "before"))

        def stubborn() -> None:
            try:
                create(killable, "a")
            except Exception:  # noqa: BLE001 - the point of the test
                pytest.fail("a handler of errors caught the end of the process")

        with pytest.raises(Killed):
            stubborn()

    def test_it_dies_after_a_refused_call_too(self, store: EmbeddedStore) -> None:
        killable = KillableStore(store, CrashPoint(1, "after"))
        with pytest.raises(Killed):
            now(killable.delete(POD, "nobody", "default"))
        assert killable.dead

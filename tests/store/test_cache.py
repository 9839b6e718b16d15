"""The cache ends equal to the store, whatever happens between them."""

from __future__ import annotations

import random
from typing import Literal

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from controller.resources.base import ObjectMeta
from controller.resources.core import POD
from controller.store.cache import SOUND, Defects, Reflector
from controller.store.errors import Unavailable
from controller.store.faults import FaultRates
from tests.store.following import COMMANDS, Follower, Step, begun, follow, now
from tests.store.objects import pod

STEPS = st.lists(
    st.tuples(st.sampled_from(COMMANDS), st.floats(0.0, 1.0, exclude_max=True, width=32)), max_size=40
)


def random_steps(seed: int, length: int = 40) -> list[Step]:
    rng = random.Random(seed)
    return [(rng.choice(COMMANDS), rng.random()) for _ in range(length)]


def check_property(examples: int, defects: Defects = SOUND, *, shrink: bool = True) -> None:
    """The property: after any sequence of writes, faults and time the cache equals the store."""
    phases = [phase for phase in Phase if shrink or phase is Phase.generate]

    @settings(max_examples=examples, phases=phases)
    @given(steps=STEPS, seed=st.integers(0, 2**16))
    def ends_equal(steps: list[Step], seed: int) -> None:
        assert follow(steps, seed, defects) == ""

    ends_equal()


def test_after_any_sequence_of_faults_the_cache_equals_the_store() -> None:
    check_property(200)


@pytest.mark.slow
def test_after_any_of_ten_thousand_sequences_the_cache_equals_the_store() -> None:
    check_property(10_000)


@pytest.mark.parametrize(
    ("defects", "words"),
    [
        pytest.param(Defects(drop_delete=True), "the cache holds", id="a dropped delete"),
        pytest.param(Defects(lose_bookmark=True), "bookmarks did not move", id="a lost bookmark"),
        pytest.param(Defects(stale_relist=True), "the cache holds", id="a relist that forgets nothing"),
    ],
)
def test_a_planted_defect_makes_that_very_property_fail(defects: Defects, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_property(200, defects, shrink=False)


def test_without_defects_the_same_sequences_are_sound() -> None:
    assert [problem for seed in range(60) if (problem := follow(random_steps(seed), seed))] == []


def test_the_sequences_really_contain_faults() -> None:
    counts: dict[str, int] = {}
    for seed in range(100):
        follower = begun(seed)
        for step in random_steps(seed, 80):
            follower.do(step)
            follower.pump()
        for fault, count in follower.faulty.counts.items():
            counts[fault] = counts.get(fault, 0) + count
    missing = {
        "outage",
        "throttled",
        "unavailable",
        "gone",
        "stale",
        "cut",
        "duplicated",
        "silent",
        "delayed",
    }
    assert missing - counts.keys() == set()


def test_the_first_pump_lists_in_pages_and_then_watches() -> None:
    follower = begun(page=2)
    assert follower.cache.has_synced
    assert follower.store.requests["list", "Pod"] == 2
    follower.write("patch", 0.3)
    (delta,) = follower.pump()
    assert (delta.old is None, delta.new is None) == (False, False)
    assert follower.store.requests["list", "Pod"] == 2


def test_a_cache_that_never_reached_the_store_says_so() -> None:
    follower = Follower()
    follower.faulty.outage(1e9)
    for _ in range(20):
        follower.pump()
        follower.tick(5)
    assert not follower.cache.has_synced
    assert follower.cache.last_event_age_seconds == 100
    assert follower.store.requests["list", "Pod"] == 0


def test_an_outage_of_a_minute_loses_nothing_and_is_not_hammered() -> None:
    follower = begun()
    follower.faulty.outage(60)
    before = follower.faulty.counts["outage"]
    for _ in range(600):
        follower.tick(0.1)
        follower.write("patch", 0.3)
        follower.pump()
    assert len(follower.cache.objects) == 4
    assert follower.faulty.counts["outage"] - before < 30
    follower.settle(5)
    assert follower.difference() == ""
    assert follower.cache.lists == 1


def test_a_storm_of_410_makes_less_than_one_list_a_second() -> None:
    follower = begun()
    follower.faulty.rates = FaultRates(gone=1.0)
    before = follower.cache.lists
    for _ in range(6_000):
        follower.tick(0.01)
        follower.pump()
    assert 0 < follower.cache.lists - before <= 60
    follower.settle(5)
    assert follower.difference() == ""


def test_retry_after_is_honoured() -> None:
    follower = begun()
    follower.faulty.cut()
    follower.faulty.throttle(50)
    follower.pump()
    follower.tick(2)
    follower.pump()
    requests = follower.faulty.counts["throttled"]
    for _ in range(40):
        follower.tick(1)
        follower.pump()
    assert follower.faulty.counts["throttled"] == requests == 1


def test_a_half_open_watch_is_noticed_by_its_silence_and_opened_again() -> None:
    follower = begun()
    follower.faulty.silence()
    follower.write("delete", 0.3)
    follower.tick(69)
    follower.pump()
    assert follower.difference() != ""
    follower.tick(2)
    follower.pump()
    follower.pump()
    assert follower.difference() == ""
    assert follower.cache.lists == 1


def test_a_healthy_quiet_watch_is_left_alone() -> None:
    follower = begun()
    opened = follower.store.requests["watch", "Pod"]
    for _ in range(60):
        follower.tick(10)
        follower.pump()
    assert follower.store.requests["watch", "Pod"] == opened


def test_a_list_older_than_what_was_seen_is_not_taken() -> None:
    follower = begun()
    follower.write("patch", 0.3)
    follower.pump()
    follower.faulty.expire()
    follower.faulty.rates = FaultRates(stale=1.0)
    for _ in range(3):
        follower.tick(30)
        follower.pump()
    assert follower.went_back == 0
    follower.settle(3)
    assert follower.difference() == ""


def test_a_store_that_went_back_for_good_is_believed_in_the_end() -> None:
    follower = begun()
    follower.cache._position = "999999"
    follower.faulty.expire()
    follower.settle(20)
    assert follower.difference() == ""


def test_a_watch_that_ends_at_once_is_not_opened_in_a_loop() -> None:
    follower = begun()
    follower.store._watch_seconds = 1e-9
    opened = follower.store.requests["watch", "Pod"]
    follower.cache.close()
    for _ in range(1_000):
        follower.tick(0.01)
        follower.pump()
    assert follower.store.requests["watch", "Pod"] - opened < 15


class TestOwnWrites:
    """An object is not decided on before the cache has seen what we wrote to it."""

    def test_a_write_is_awaited_until_its_event_is_here(self) -> None:
        follower = begun()
        answer = now(
            follower.faulty.patch(
                POD, "p2", {"metadata": {"labels": {"app": "x"}}}, "default", field_manager="operator"
            )
        )
        follower.cache.wrote(answer)
        assert not follower.cache.fresh("default/p2")
        assert follower.cache.fresh("default/p0")
        follower.pump()
        assert follower.cache.fresh("default/p2")

    def test_a_creation_is_awaited(self) -> None:
        follower = begun()
        follower.cache.wrote(now(follower.faulty.create(POD, pod("mine"), field_manager="operator")))
        assert not follower.cache.fresh("default/mine")
        follower.pump()
        assert follower.cache.fresh("default/mine")

    def test_a_deletion_is_awaited(self) -> None:
        follower = begun()
        uid = follower.cache.objects["default/p2"].metadata.uid
        now(follower.faulty.delete(POD, "p2", "default", uid=uid))
        follower.cache.deleted("default/p2", uid)
        assert not follower.cache.fresh("default/p2")
        follower.pump()
        assert follower.cache.fresh("default/p2")

    def test_a_relist_that_contains_the_write_makes_it_fresh(self) -> None:
        follower = begun()
        follower.faulty.expire()
        answer = now(
            follower.store.patch(
                POD, "p2", {"metadata": {"labels": {"app": "x"}}}, "default", field_manager="operator"
            )
        )
        follower.cache.wrote(answer)
        follower.pump()
        assert not follower.cache.fresh("default/p2")
        follower.settle(3)
        assert follower.cache.fresh("default/p2")
        assert follower.cache.lists == 2

    def test_an_object_deleted_by_somebody_else_meanwhile_is_fresh_again(self) -> None:
        follower = begun()
        answer = now(
            follower.store.patch(
                POD, "p2", {"metadata": {"labels": {"app": "x"}}}, "default", field_manager="operator"
            )
        )
        follower.cache.wrote(answer)
        now(follower.store.delete(POD, "p2", "default"))
        follower.pump()
        assert follower.cache.fresh("default/p2")


class Strict(msgspec.Struct, frozen=True):
    """A projection that is stricter than what the store accepts, as after a change of a definition."""

    metadata: ObjectMeta
    team: Literal["a", "b"] = "a"


def test_an_unreadable_object_is_named_and_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    follower = begun()
    cache = Reflector(follower.store, POD, Strict, follower.clock)
    now(cache.pump())
    now(follower.store.create(POD, pod("odd") | {"team": "c"}, field_manager="user"))
    now(cache.pump())
    assert "Invalid enum value 'c'" in cache.undecodable["default/odd"]
    assert "Pod default/odd cannot be read and is left out" in caplog.text
    assert len(cache.objects) == 4
    now(follower.store.delete(POD, "odd", "default"))
    follower.write("patch", 0.3)
    assert len(now(cache.pump())) == 1


def test_the_cache_survives_any_answer_of_a_store_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    follower = begun()
    follower.faulty.cut(Unavailable("etcdserver: leader changed"))
    follower.pump()
    assert "watch of pods failed (503 etcdserver: leader changed)" in caplog.text

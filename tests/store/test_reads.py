"""Lists, pages, selectors and watches of the embedded store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.resources.core import EVENT, POD
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.errors import BadRequest, Gone, Unavailable
from runtime.clock import VirtualClock
from tests.store.conftest import ORIGIN, run
from tests.store.objects import pod

WRITER = "tester"


def fill(store: EmbeddedStore, *names: str, **metadata: Any) -> None:
    for name in names:
        run(store.create(POD, pod(name, **metadata), field_manager=WRITER))


def names(result: Any) -> list[str]:
    return [item["metadata"]["name"] for item in result.items]


def seen(watch: Any) -> list[tuple[str, str]]:
    return [(e.type.value, e.object["metadata"].get("name", "")) for e in watch.drain()]


def test_a_list_is_ordered_by_namespace_and_name(store: EmbeddedStore) -> None:
    fill(store, "b", "a")
    fill(store, "c", namespace="kube-system")
    fill(store, "z", namespace="kube-node-lease")
    assert names(run(store.list(POD))) == ["a", "b", "z", "c"]
    assert names(run(store.list(POD, "default"))) == ["a", "b"]


def test_pages_show_one_version_whatever_happens_between_them(store: EmbeddedStore) -> None:
    fill(store, "a", "b", "c", "d", "e")
    first = run(store.list(POD, limit=2))
    run(store.delete(POD, "c", "default"))
    fill(store, "bb")
    second = run(store.list(POD, limit=2, continue_token=first.continue_token))
    last = run(store.list(POD, limit=2, continue_token=second.continue_token))
    assert names(first) + names(second) + names(last) == ["a", "b", "c", "d", "e"]
    assert {first.resource_version, second.resource_version, last.resource_version} == {
        first.resource_version
    }
    assert last.continue_token == ""
    assert names(run(store.list(POD))) == ["a", "b", "bb", "d", "e"]


def test_an_exact_last_page_says_that_it_is_the_last(store: EmbeddedStore) -> None:
    fill(store, "a", "b")
    assert run(store.list(POD, limit=2)).continue_token == ""


def test_a_page_too_old_is_gone(clock: VirtualClock) -> None:
    store = open_store(clock, window=3)
    fill(store, "a", "b", "c")
    page = run(store.list(POD, limit=1))
    fill(store, "d", "e", "f", "g")
    with pytest.raises(Gone, match="continue parameter is too old"):
        run(store.list(POD, limit=1, continue_token=page.continue_token))


@pytest.mark.parametrize("token", ["nonsense", "", "e30="], ids=["no token of ours", "none", "wrong shape"])
def test_a_foreign_continue_token(store: EmbeddedStore, token: str) -> None:
    fill(store, "a")
    if not token:
        assert names(run(store.list(POD, continue_token=token))) == ["a"]
        return
    with pytest.raises(BadRequest, match="continue key is not valid"):
        run(store.list(POD, continue_token=token))


LABELS = {
    "a": {"app": "chat", "tier": "gold"},
    "b": {"app": "chat"},
    "c": {"app": "code", "tier": "lead"},
    "d": {},
}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=chat", "ab"),
        ("app==chat", "ab"),
        ("app!=chat", "cd"),
        ("app=chat,tier", "a"),
        ("!tier", "bd"),
        ("app in (chat, code)", "abc"),
        ("app notin (chat),tier=lead", "c"),
        ("", "abcd"),
    ],
)
def test_label_selectors(store: EmbeddedStore, selector: str, expected: str) -> None:
    for name, labels in LABELS.items():
        fill(store, name, labels=labels)
    assert names(run(store.list(POD, label_selector=selector))) == list(expected)


@pytest.mark.parametrize("selector", ["a b", "in (x)", "a=b=c", "(a)"])
def test_a_malformed_label_selector_is_refused(store: EmbeddedStore, selector: str) -> None:
    with pytest.raises(BadRequest, match=r"unable to parse|^found '"):
        run(store.list(POD, label_selector=selector))


def test_field_selectors_know_the_fields_of_the_kind(store: EmbeddedStore) -> None:
    run(store.create(POD, pod("a", node="n1"), field_manager=WRITER))
    run(store.create(POD, pod("b"), field_manager=WRITER))
    assert names(run(store.list(POD, field_selector="spec.nodeName=n1"))) == ["a"]
    assert names(run(store.list(POD, field_selector="spec.nodeName!=n1,metadata.name=b"))) == ["b"]
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.hostname"):
        run(store.list(POD, field_selector="spec.hostname=x"))
    with pytest.raises(BadRequest, match=r"unable to parse|invalid selector"):
        run(store.list(EVENT, field_selector="reason"))


def going(event: Any) -> bool:
    """Marked for deletion: a server with controllers says so before an object is gone, the embedded store need not."""
    return "deletionTimestamp" in event.object["metadata"]


class TestWatch:
    def test_shows_every_change_after_its_version_in_order(self, store: EmbeddedStore) -> None:
        fill(store, "a")
        listed = run(store.list(POD))
        watch = run(store.watch(POD, resource_version=listed.resource_version))
        fill(store, "b")
        run(store.patch(POD, "a", {"metadata": {"labels": {"x": "y"}}}, "default", field_manager=WRITER))
        run(store.delete(POD, "b", "default"))
        events = [e for e in watch.drain() if e.type != "MODIFIED" or not going(e)]
        assert [(e.type, e.object["metadata"]["name"]) for e in events] == [
            ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b"),
        ]  # fmt: skip
        versions = [int(e.resource_version) for e in events]
        assert versions == sorted(set(versions))
        assert all(e.object["metadata"]["resourceVersion"] == e.resource_version for e in events)
        assert watch.drain() == []

    def test_catches_up_on_what_it_missed(self, store: EmbeddedStore) -> None:
        start = str(store.objects.version)
        fill(store, "a", "b")
        assert seen(run(store.watch(POD, resource_version=start))) == [("ADDED", "a"), ("ADDED", "b")]

    def test_without_a_version_starts_with_everything_and_a_bookmark(self, store: EmbeddedStore) -> None:
        fill(store, "b", "a")
        watch = run(store.watch(POD, resource_version=""))
        assert seen(watch) == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "")]

    def test_of_one_namespace_sees_only_it(self, store: EmbeddedStore) -> None:
        watch = run(store.watch(POD, "default", resource_version=str(store.objects.version)))
        fill(store, "a", namespace="kube-system")
        fill(store, "b")
        assert seen(watch) == [("ADDED", "b")]

    def test_a_selector_turns_leaving_into_deletion_and_entering_into_addition(
        self, store: EmbeddedStore
    ) -> None:
        fill(store, "a", labels={"app": "chat"})
        version = str(store.objects.version)
        watch = run(store.watch(POD, resource_version=version, label_selector="app=chat"))
        for value in ("code", "chat"):
            patch = {"metadata": {"labels": {"app": value}}}
            run(store.patch(POD, "a", patch, "default", field_manager=WRITER))
        assert seen(watch) == [("DELETED", "a"), ("ADDED", "a")]

    def test_from_a_version_no_longer_kept_is_gone(self, clock: VirtualClock) -> None:
        store = open_store(clock, window=2)
        start = str(store.objects.version)
        fill(store, "a", "b", "c", "d")
        with pytest.raises(Gone, match="too old resource version"):
            run(store.watch(POD, resource_version=start))

    def test_after_compaction_is_gone_before_it_and_works_after(self, store: EmbeddedStore) -> None:
        start = str(store.objects.version)
        fill(store, "a", "b")
        store.objects.table(POD).compact(store.objects.version)
        with pytest.raises(Gone):
            run(store.watch(POD, resource_version=start))
        assert run(store.watch(POD, resource_version=str(store.objects.version))).drain() == []

    def test_from_the_future_gets_no_answer(self, store: EmbeddedStore) -> None:
        with pytest.raises(Unavailable, match="Too large resource version"):
            run(store.watch(POD, resource_version="999999"))

    def test_a_version_of_somebody_else_is_refused(self, store: EmbeddedStore) -> None:
        with pytest.raises(BadRequest, match=r"invalid resource version|resourceVersion: Invalid value"):
            run(store.watch(POD, resource_version="abc"))

    def test_an_idle_watch_is_told_the_version_each_minute(
        self, store: EmbeddedStore, clock: VirtualClock
    ) -> None:
        watch = run(store.watch(POD, "kube-system", resource_version=str(store.objects.version)))
        fill(store, "a")
        clock.advance_to(ORIGIN + 59)
        assert watch.drain() == []
        clock.advance_to(ORIGIN + 60)
        (mark,) = watch.drain()
        assert (mark.type, mark.resource_version) == ("BOOKMARK", str(store.objects.version))
        assert set(mark.object) == {"kind", "apiVersion", "metadata"}
        assert watch.drain() == []

    def test_a_reader_too_slow_loses_the_stream_and_can_resume(self, clock: VirtualClock) -> None:
        store = open_store(clock)
        store._watch_capacity = 2
        watch = run(store.watch(POD, resource_version=str(store.objects.version)))
        fill(store, "a", "b", "c", "d")
        assert not watch.ended
        events = watch.drain()
        assert [e.object["metadata"]["name"] for e in events] == ["a", "b"]
        assert watch.ended
        resumed = run(store.watch(POD, resource_version=events[-1].resource_version))
        assert seen(resumed) == [("ADDED", "c"), ("ADDED", "d")]

    def test_ends_by_age_where_the_server_limits_it(self, clock: VirtualClock) -> None:
        store = open_store(clock, watch_seconds=30)
        watch = run(store.watch(POD, resource_version=str(store.objects.version)))
        clock.advance_to(ORIGIN + 30)
        watch.drain()
        assert watch.ended

    def test_closed_hears_nothing_more(self, store: EmbeddedStore) -> None:
        watch = run(store.watch(POD, resource_version=str(store.objects.version)))
        watch.close()
        watch.close()
        fill(store, "a")
        assert watch.drain() == []
        assert watch.ended

    def test_waiting_ends_when_something_happens(self, store: EmbeddedStore) -> None:
        async def scene() -> list[str]:
            watch = await store.watch(POD, resource_version=str(store.objects.version))
            waiting = asyncio.create_task(watch.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
            await store.create(POD, pod("a"), field_manager=WRITER)
            await asyncio.wait_for(waiting, 1)
            again = asyncio.create_task(watch.wait())
            await asyncio.sleep(0)
            assert again.done()
            watch.drain()
            last = asyncio.create_task(watch.wait())
            await asyncio.sleep(0)
            watch.close()
            await asyncio.wait_for(last, 1)
            return ["done"]

        assert run(scene()) == ["done"]

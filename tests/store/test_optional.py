"""Kinds that a cluster may not serve cost one request in ten minutes, and come and go without a restart."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from controller.resources.coredra import RESOURCE_CLAIM, ResourceClaim
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.errors import Forbidden, NotFound, StoreError
from controller.store.interposed import InterposedStore, Request
from controller.store.optional import ABSENT_SECONDS, OptionalReflector
from runtime.clock import VirtualClock
from tests.store.following import now

T = TypeVar("T")
MISSING = NotFound("the server could not find the requested resource")
REFUSED = Forbidden("resourceclaims.resource.k8s.io is forbidden")


class Server(InterposedStore):
    """Answers with `error` while there is one; `asked` counts."""

    def __init__(self, inner: EmbeddedStore, error: StoreError | None) -> None:
        super().__init__(inner)
        self.error = error
        self.asked = 0

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        """The error, or the answer."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        return await answer()


class Play:
    """A cache of claims behind a server that has one, which may not be served."""

    def __init__(self, error: StoreError | None) -> None:
        self.clock = VirtualClock(1_000.0)
        store = open_store(self.clock)
        claim = {
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "c", "namespace": "default"}, "spec": {},
        }  # fmt: skip
        now(store.create(RESOURCE_CLAIM, claim, field_manager="t"))
        self.server = Server(store, error)
        self.cache = OptionalReflector(self.server, RESOURCE_CLAIM, ResourceClaim, self.clock)

    def pump(self, seconds: float = 0.0) -> list[str]:
        """Keys that changed, `-` before those that went, a while later."""
        self.clock.advance_to(self.clock.now() + seconds)
        return [delta.key if delta.new is not None else f"-{delta.key}" for delta in now(self.cache.pump())]


@pytest.mark.parametrize("error", [MISSING, REFUSED], ids=["not served", "not allowed"])
def test_an_absent_kind_counts_as_synced_and_is_hardly_asked_for(error: StoreError) -> None:
    play = Play(error)
    for _ in range(1_000):
        assert play.pump(1.0) == []
        assert (play.cache.has_synced, play.cache.absent) == (True, True)
    assert play.server.asked <= 4, "two lists, each of which may be tried as a stream first"


def test_one_that_is_served_later_is_found() -> None:
    play = Play(MISSING)
    play.pump()
    play.server.error = None
    assert play.pump(1.0) == []
    assert play.pump(ABSENT_SECONDS) == ["default/c"]
    assert not play.cache.absent


def test_a_kind_that_goes_away_takes_its_objects_with_it() -> None:
    play = Play(None)
    assert play.pump() == ["default/c"]
    play.server.error = MISSING
    play.cache.close()
    assert play.pump(1.0) == ["-default/c"]
    assert play.pump(1.0) == []
    play.server.error = None
    assert play.pump(ABSENT_SECONDS) == ["default/c"]


def test_what_was_read_before_is_not_forgotten_because_it_is_refused_now() -> None:
    """Else somebody's GPUs would be given away for as long as a role is wrong."""
    play = Play(None)
    play.pump()
    play.server.error = REFUSED
    play.cache.close()
    assert play.pump(1.0) == []
    assert sorted(play.cache.objects) == ["default/c"]


def test_who_may_not_read_them_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    play = Play(REFUSED)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            play.pump(ABSENT_SECONDS)
    assert caplog.text.count("may not be read and count as absent") == 1

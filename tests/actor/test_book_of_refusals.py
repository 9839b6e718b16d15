"""The book of refusals: what was refused waits by itself, ever longer, and in the server's own words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.refused import Refused
from controller.actor.answers import CONTESTED, REFUSED, UNANSWERED, WEBHOOK, Pace, pace_of, reason_word
from controller.actor.consulting import ConsultingStore
from controller.actor.refusals import (
    CALM_SECONDS,
    CLOSED_SECONDS,
    HURRY_SECONDS,
    Refusals,
    pods_of,
    sentences,
)
from controller.leadership import NotLeading
from controller.resources.core import EVENT, POD
from controller.resources.kinds import MODEL_SERVICE
from controller.store.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    HeldBack,
    Invalid,
    NotFound,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from controller.store.interposed import InterposedStore
from runtime.clock import VirtualClock

QUOTA = (
    'pods "chat-{}" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, '
    "used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
)
SECURITY = (
    'pods "chat-1" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true (pod or '
    'container "engine" must set securityContext.runAsNonRoot=true)'
)
GOING = 'pods "chat-1" is forbidden: unable to create new content in namespace shop because it is being terminated'
WEBHOOK_DOWN = (
    'Internal error occurred: failed calling webhook "gate.example.org": failed to call webhook: Post '
    '"https://127.0.0.1:9/deny?timeout=1s": context deadline exceeded'
)
BOUNDS = 'pods "chat-1" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi'
DENIED = 'admission webhook "gate.example.org" denied the request: not on a Friday'
POLICY = "pods \"chat-1\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"
RIGHTS = 'pods is forbidden: User "op" cannot create resource "pods" in API group "" in the namespace "shop"'

CHAT = pods_of("ModelService", "shop/chat")
DRAFT = pods_of("ModelService", "shop/draft")


class Hands(VirtualClock):
    """A clock that is moved by hand."""

    def advance(self, seconds: float) -> None:
        self.advance_to(self.now() + seconds)


class Objects:
    """The world, as far as the book asks."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], str] = {}

    def owner_of(self, kind: str, key: str) -> tuple[str, str]:
        return ("ModelService", "shop/chat") if kind == "Pod" else (kind, key)

    def version_of(self, kind: str, key: str) -> str:
        return self.versions.get((kind, key), "")


def made() -> tuple[Refusals, Hands, Objects]:
    clock, objects = Hands(1_024.0), Objects()
    return Refusals(clock, objects), clock, objects


def waits(book: Refusals, slot: Any = CHAT, **more: Any) -> float:
    """How long a write would be held back; 0.0 when it would be sent."""
    try:
        book.check(slot, **more)
    except HeldBack as held:
        return held.retry_after_seconds
    return 0.0


SPACED: list[tuple[str, StoreError, Pace | None, str]] = [
    ("a quota is full", Forbidden(QUOTA.format(1)), REFUSED, "QuotaExceeded"),
    ("pod security", Forbidden(SECURITY), REFUSED, "PodSecurity"),
    ("the namespace goes", Forbidden(GOING), REFUSED, "NamespaceTerminating"),
    ("bounds of a LimitRange", Forbidden(BOUNDS), REFUSED, "LimitRange"),
    ("no right", Forbidden(RIGHTS), REFUSED, "NotAllowed"),
    ("a policy denies", Invalid(POLICY), REFUSED, "DeniedByPolicy"),
    ("a webhook denies", Forbidden(DENIED), REFUSED, "DeniedByWebhook"),
    ("a webhook denies in its own way", BadRequest(DENIED), REFUSED, "DeniedByWebhook"),
    ("a rule of the schema", Invalid("spec.x: Invalid value"), REFUSED, "Invalid"),
    ("too large", TooLarge("etcdserver: request is too large"), REFUSED, "TooLarge"),
    ("a webhook is down", StoreError(WEBHOOK_DOWN), WEBHOOK, "WebhookFailed"),
    ("a webhook is slow", Unavailable(WEBHOOK_DOWN), WEBHOOK, "WebhookFailed"),
    ("a defect of the server", StoreError("Internal error occurred"), WEBHOOK, "ServerError"),
    ("no answer", Unavailable("gave no answer in time"), UNANSWERED, "NoAnswer"),
    ("too many requests", TooManyRequests("later"), UNANSWERED, "TooManyRequests"),
    ("another wrote meanwhile", Conflict("the object has been modified"), CONTESTED, "Conflict"),
    ("it is there", AlreadyExists("exists"), None, ""),
    ("it is not there", NotFound("not found"), None, ""),
    ("we do not lead", NotLeading("not sent"), None, ""),
    ("held back by ourselves", HeldBack("no", 3.0), None, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "pace", "word"), [row[1:] for row in SPACED], ids=[row[0] for row in SPACED]
)
def test_each_sort_of_refusal_has_its_pace_and_its_word(
    error: StoreError, pace: Pace | None, word: str
) -> None:
    assert pace_of(error) == pace
    if pace is not None:
        assert reason_word(error) == word


def test_what_is_refused_waits_ever_longer_and_what_is_not_goes_on() -> None:
    book, clock, _ = made()
    seen = []
    for _ in range(8):
        assert waits(book) == 0.0
        book.failed(CHAT, Forbidden(QUOTA.format(1)))
        assert waits(book, DRAFT) == 0.0, "another object's pods are not concerned"
        assert waits(book, CHAT._replace(what="apply ModelService/status")) == 0.0
        seen.append(waits(book))
        clock.advance(seen[-1])
    assert [pytest.approx(w, rel=0.11) for w in (20, 40, 80, 160, 300, 300, 300, 300)] == seen
    book.succeeded(CHAT)
    assert waits(book) == 0.0
    book.failed(CHAT, Forbidden(QUOTA.format(1)))
    assert waits(book) == pytest.approx(20, rel=0.11), "a success begins anew"


def test_at_most_two_tries_a_minute_against_a_rule_that_stands() -> None:
    book, clock, _ = made()
    tries = []
    while clock.monotonic() < 3_600.0:
        if waits(book) == 0.0:
            tries.append(clock.monotonic())
            book.failed(CHAT, Forbidden(QUOTA.format(len(tries))))
        clock.advance(0.5)
    most = max(sum(at <= t < at + 60.0 for t in tries) for at in tries)
    assert most <= 3
    assert max(sum(at <= t < at + 60.0 for t in tries) for at in tries[1:]) <= 2
    assert len(tries) <= 17


def test_a_conflict_and_a_lost_answer_are_tried_once_more_at_once() -> None:
    for error in (Conflict("modified"), Unavailable("no answer")):
        book, _, _ = made()
        book.failed(CHAT, error)
        assert waits(book) == 0.0
        assert book.entries() == [], "nothing to tell either"
        book.failed(CHAT, error)
        assert waits(book) > 0.0


def test_the_server_says_how_long() -> None:
    book, _, _ = made()
    book.failed(CHAT, TooManyRequests("later", 42.0))
    assert waits(book) == 42.0


def test_a_change_of_the_object_ends_its_refusal() -> None:
    book, _, objects = made()
    objects.versions[CHAT.of] = "u@1"
    book.failed(CHAT, Invalid("bad image"))
    told: list[Any] = []
    book.tell(lambda *row: told.append(row))
    assert told[0][2].sentence == "bad image"
    objects.versions[CHAT.of] = "u@2"
    assert waits(book) == 0.0
    book.tell(lambda *row: told.append(row))
    assert told[1:] == [("ModelService", "shop/chat", None)]


def test_room_brings_the_next_try_forward_but_not_again_and_again() -> None:
    book, clock, _ = made()
    for _ in range(5):
        book.failed(CHAT, Forbidden(QUOTA.format(1)))
    before = waits(book)
    assert before > 250
    book.loosened("lab")
    assert waits(book) == before, "another namespace"
    book.loosened("shop")
    assert waits(book) == HURRY_SECONDS
    clock.advance(HURRY_SECONDS)
    book.failed(CHAT, Forbidden(QUOTA.format(1)))
    book.loosened("shop")
    assert waits(book) > 250, "a quota under churn does not make a hot loop"


def test_nothing_is_created_in_a_namespace_that_goes() -> None:
    book, clock, _ = made()
    book.failed(CHAT, Forbidden(GOING), creates_in="shop")
    assert waits(book, DRAFT, creates_in="shop") == CLOSED_SECONDS
    assert waits(book, pods_of("TrainingJob", "lab/bert"), creates_in="lab") == 0.0
    with pytest.raises(HeldBack, match="namespace shop is being deleted"):
        book.check(DRAFT, creates_in="shop")
    clock.advance(CLOSED_SECONDS)
    assert waits(book, DRAFT, creates_in="shop") == 0.0


def test_what_nobody_tries_any_more_is_forgotten() -> None:
    book, clock, _ = made()
    book.failed(CHAT, Forbidden(QUOTA.format(1)))
    clock.advance(waits(book) + CALM_SECONDS - 1.0)
    book.tidy()
    assert book.entries()
    clock.advance(2.0)
    book.tidy()
    assert book.entries() == []


def test_the_same_refusal_of_another_pod_is_told_in_the_same_words() -> None:
    book, _, _ = made()
    book.failed(CHAT, Forbidden(QUOTA.format(1)))
    book.failed(CHAT, Forbidden(QUOTA.format(2)))
    (entry,) = book.entries()
    assert entry.refused.sentence == QUOTA.format(1)
    assert "2 tries" in sentences([entry])
    assert QUOTA.format(1) in sentences([entry])
    book.failed(CHAT, Forbidden(SECURITY))
    assert book.entries()[0].refused.sentence == SECURITY


ANSWERS = st.sampled_from(
    [
        Forbidden(QUOTA.format(1)),
        Invalid("no"),
        StoreError(WEBHOOK_DOWN),
        Unavailable("no"),
        Conflict("no"),
        None,
    ]
)


@given(st.lists(st.tuples(ANSWERS, st.floats(0.0, 400.0)), max_size=60))
def test_whatever_is_answered_the_wait_is_bounded_and_counted(
    story: list[tuple[StoreError | None, float]],
) -> None:
    book, clock, _ = made()
    held: list[Refused | None] = []
    failures = 0
    for error, later in story:
        if waits(book) == 0.0:
            if error is None:
                book.succeeded(CHAT)
            else:
                failures += 1
                book.failed(CHAT, error)
        assert 0.0 <= waits(book) <= 330.0
        book.tell(lambda _kind, _key, refused: held.append(refused))
        clock.advance(later)
    assert sum(book.refused.values()) == failures


# ------------------------------------------------------------------------------------------- through the store


class Refusing:
    """A store that answers every creation and patch with the error it is told to."""

    def __init__(self) -> None:
        self.error: StoreError | None = None
        self.asked = 0

    async def _answer(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return {"metadata": {"name": "x"}}

    create = patch = apply = delete = _answer


def pod(service: str, number: int) -> Any:
    owner = {"kind": "ModelService", "name": service, "uid": "u"}
    return {"metadata": {"name": f"{service}-{number}", "namespace": "shop", "ownerReferences": [owner]}}


def test_a_write_is_held_back_by_owner_and_never_sent() -> None:
    async def story() -> None:
        book, clock, _ = made()
        inner = Refusing()
        store = ConsultingStore(inner, book)  # type: ignore[arg-type]
        assert isinstance(store, InterposedStore)
        inner.error = Forbidden(QUOTA.format(1))
        with pytest.raises(Forbidden):
            await store.create(POD, pod("chat", 1), field_manager="op")
        with pytest.raises(HeldBack, match="exceeded quota"):
            await store.create(POD, pod("chat", 2), field_manager="op")
        assert inner.asked == 1
        inner.error = None
        await store.create(POD, pod("draft", 1), field_manager="op")
        await store.patch(MODEL_SERVICE, "chat", {}, "shop", field_manager="op", subresource="status")
        event = {
            "metadata": {"name": "e", "namespace": "shop"},
            "involvedObject": {"kind": "ModelService", "namespace": "shop", "name": "chat"},
        }
        await store.create(EVENT, event, field_manager="op")
        clock.advance(25.0)
        await store.create(POD, pod("chat", 3), field_manager="op")
        assert waits(book) == 0.0
        assert inner.asked == 5
        assert book.held_back == {"Pod": 1}
        assert book.refused == {("Pod", 403): 1}

    asyncio.run(story())


def test_a_pod_that_cannot_be_deleted_is_told_to_its_owner() -> None:
    async def story() -> None:
        book, _, _ = made()
        inner = Refusing()
        store = ConsultingStore(inner, book)  # type: ignore[arg-type]
        inner.error = Forbidden(RIGHTS)
        with pytest.raises(Forbidden):
            await store.delete(POD, "chat-1", "shop")
        assert list(book.about()) == [("ModelService", "shop/chat")]

    asyncio.run(story())

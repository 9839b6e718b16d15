"""The parts of the API-server store that need no server: answers, budget, paths, lists and lines."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.resources.core import NODE, POD
from controller.resources.kinds import MODEL_SERVICE, POWER_DOMAIN
from controller.store.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from controller.store.kube import paths
from controller.store.kube.answers import refusal, seconds, status_of
from controller.store.kube.budget import Budget
from controller.store.kube.objects import addressed, conditioned
from controller.store.kube.splitting import Lines, line_of, page_of
from runtime.clock import VirtualClock
from tests.store.conftest import ORIGIN

ANSWERS: list[tuple[str, int, str, str, type[StoreError]]] = [
    ("a name that is taken", 409, "AlreadyExists", 'pods "a" already exists', AlreadyExists),
    ("an old version", 409, "Conflict", "the object has been modified", Conflict),
    ("a version too old", 410, "Expired", "too old resource version", Gone),
    ("a continue token too old, by its older name", 410, "Gone", "gone", Gone),
    ("an unknown field", 400, "BadRequest", "strict decoding error", BadRequest),
    ("a rule broken", 422, "Invalid", "is invalid", Invalid),
    ("an absent object", 404, "NotFound", 'pods "a" not found', NotFound),
    ("no right", 403, "Forbidden", "cannot list resource", Forbidden),
    ("nobody", 401, "Unauthorized", "Unauthorized", Forbidden),
    ("a request too large", 413, "RequestEntityTooLarge", "limit is 3145728", TooLarge),
    ("an object too large for etcd", 500, "", "etcdserver: request is too large", TooLarge),
    ("not now", 429, "TooManyRequests", "please try again later", TooManyRequests),
    ("a server that stops", 503, "ServiceUnavailable", "apiserver is shutting down", Unavailable),
    ("a server's own time-out", 504, "Timeout", "request did not complete", Unavailable),
    ("a time-out told as 500", 500, "ServerTimeout", "could not be completed at this time", Unavailable),
    ("etcd that elects", 500, "", "etcdserver: leader changed", Unavailable),
    ("a proxy without a back end", 502, "", "bad gateway", Unavailable),
    ("a defect of the server", 500, "InternalError", "unexpected", StoreError),
    ("a method nobody has", 405, "MethodNotAllowed", "not allowed", BadRequest),
]  # fmt: skip


class TestAnswers:
    @pytest.mark.parametrize(("code", "reason", "message", "kind"), [
        pytest.param(*row[1:], id=row[0]) for row in ANSWERS
    ])  # fmt: skip
    def test_have_a_class_each_and_keep_their_words(
        self, code: int, reason: str, message: str, kind: type[StoreError]
    ) -> None:
        body = json.dumps({"kind": "Status", "message": message, "reason": reason, "code": code}).encode()
        error = refusal(status_of(body, code), "do something")
        assert type(error) is kind
        assert message in error.message

    def test_tell_the_causes(self) -> None:
        causes = [{"reason": "FieldValueInvalid", "message": "Invalid value: -1", "field": "spec.replicas"}]
        body = json.dumps({"message": "is invalid", "code": 422, "details": {"causes": causes}}).encode()
        error = refusal(status_of(body, 422), "x")
        assert error.causes == (Cause("spec.replicas", "FieldValueInvalid", "Invalid value: -1"),)

    @pytest.mark.parametrize(("code", "header", "detail", "wanted"), [
        pytest.param(429, 7.0, 0, 7.0, id="by the header"),
        pytest.param(429, 0.0, 9, 9.0, id="by the details"),
        pytest.param(429, 3.0, 9, 9.0, id="the longer of both"),
        pytest.param(429, 0.0, 0, 1.0, id="a second when it does not say"),
        pytest.param(503, 12.0, 0, 12.0, id="of a server that restarts"),
        pytest.param(503, 0.0, 0, 0.0, id="nothing said of a server that is gone"),
    ])  # fmt: skip
    def test_say_when_to_come_back(self, code: int, header: float, detail: int, wanted: float) -> None:
        body = json.dumps({"message": "later", "code": code, "details": {"retryAfterSeconds": detail}})
        error = refusal(status_of(body.encode(), code), "x", header)
        assert isinstance(error, TooManyRequests | Unavailable)
        assert error.retry_after_seconds == wanted

    def test_that_are_no_status_are_quoted(self) -> None:
        error = refusal(status_of(b"<html>gateway</html>", 502), "list pods")
        assert isinstance(error, Unavailable)
        assert error.message == "list pods: <html>gateway</html>"

    def test_of_an_unknown_path_say_what_was_asked(self) -> None:
        error = refusal(status_of(b"404 page not found\n", 404), "get powerdomains.plimsoll.dev/scale 'x'")
        assert "powerdomains.plimsoll.dev/scale" in error.message

    @pytest.mark.parametrize(("header", "wanted"), [
        (None, 0.0), ("", 0.0), ("2", 2.0), ("-1", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)
    ])  # fmt: skip
    def test_retry_after(self, header: str | None, wanted: float) -> None:
        assert seconds(header) == wanted

    @given(st.binary(max_size=200), st.integers(300, 599))
    def test_any_body_has_a_meaning(self, body: bytes, code: int) -> None:
        assert isinstance(refusal(status_of(body, code), "x"), StoreError)


class TestBudget:
    def test_a_burst_is_free_and_the_rest_waits_its_turn(self) -> None:
        clock = VirtualClock(ORIGIN)
        budget = Budget(clock, per_second=10.0, burst=3)
        assert [budget.take() for _ in range(5)] == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2])
        clock.advance_to(ORIGIN + 1.0)
        assert [budget.take() for _ in range(4)] == pytest.approx([0.0, 0.0, 0.0, 0.1])

    def test_what_was_not_sent_is_given_back(self) -> None:
        budget = Budget(VirtualClock(ORIGIN), per_second=1.0, burst=1)
        assert budget.take() == 0.0
        assert budget.take() == 1.0
        budget.give_back()
        assert budget.take() == 1.0

    @given(st.lists(st.floats(0.0, 2.0), max_size=60))
    def test_never_more_than_burst_and_rate(self, gaps: list[float]) -> None:
        clock = VirtualClock(ORIGIN)
        budget = Budget(clock, per_second=5.0, burst=4)
        sent = []
        for gap in gaps:
            clock.advance_to(clock.now() + gap)
            sent.append(clock.monotonic() + budget.take())
        for first, start in enumerate(sent):
            for last in range(first, len(sent)):
                assert last - first + 1 <= 4 + 5.0 * (sent[last] - start) + 1 + 1e-6


class TestPaths:
    def test_lead_to_the_kind(self) -> None:
        assert paths.collection(POD) == "/api/v1/pods"
        assert paths.collection(POD, "shop") == "/api/v1/namespaces/shop/pods"
        assert paths.member(NODE, "n1") == "/api/v1/nodes/n1"
        wanted = "/apis/plimsoll.dev/v1alpha1/namespaces/shop/modelservices/chat/status"
        assert paths.member(MODEL_SERVICE, "chat", "shop", "status") == wanted

    @pytest.mark.parametrize("name", ["", ".", ".."])
    def test_a_name_that_leads_elsewhere_is_refused(self, name: str) -> None:
        with pytest.raises(BadRequest):
            paths.member(POD, name, "default")
        if name:
            with pytest.raises(BadRequest):
                paths.collection(POD, name)

    def test_odd_characters_stay_in_their_segment(self) -> None:
        assert paths.member(NODE, "a/b?c#d") == "/api/v1/nodes/a%2Fb%3Fc%23d"

    def test_a_namespaced_object_needs_its_namespace(self) -> None:
        with pytest.raises(BadRequest, match="empty namespace"):
            paths.member(POD, "a")


class TestObjects:
    def test_preconditions_travel_in_the_patch_and_leave_it_alone(self) -> None:
        patch = {"metadata": {"labels": {"a": "1"}}}
        sent = conditioned(patch, "u", "7")
        assert sent == {"metadata": {"labels": {"a": "1"}, "uid": "u", "resourceVersion": "7"}}
        assert patch == {"metadata": {"labels": {"a": "1"}}}
        assert conditioned(patch, "", "") is patch

    def test_a_kind_left_out_is_added(self) -> None:
        body, namespace = addressed(POWER_DOMAIN, {"metadata": {"name": "row"}})
        assert (body["apiVersion"], body["kind"], namespace) == ("plimsoll.dev/v1alpha1", "PowerDomain", "")


class TestPages:
    def test_items_get_the_kind_that_lists_leave_out(self) -> None:
        body = b'{"kind":"PodList","metadata":{"resourceVersion":"9","continue":"c"},"items":[{"metadata":{"name":"a"}},{"metadata":{}}]}'
        page = page_of(body, POD)
        assert (page.resource_version, page.continue_token) == ("9", "c")
        assert page.items[0] == {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}
        assert page.items[1] == {"kind": "Pod", "apiVersion": "v1", "metadata": {}}

    def test_items_that_say_their_kind_stay_as_they_came(self) -> None:
        item = b'{"apiVersion":"plimsoll.dev/v1alpha1","kind":"ModelService","metadata":{"name":"a"}}'
        page = page_of(b'{"metadata":{"resourceVersion":"1"},"items":[' + item + b"]}", MODEL_SERVICE)
        assert page.raw_items == (item,)

    @pytest.mark.parametrize("body", [
        pytest.param(b'{"metadata":{"resourceVersion":"1"},"items":null}', id="null"),
        pytest.param(b'{"metadata":{"resourceVersion":"1"},"items":[]}', id="an empty list"),
        pytest.param(b'{"metadata":{"resourceVersion":"1"}}', id="nothing at all"),
    ])  # fmt: skip
    def test_no_items(self, body: bytes) -> None:
        assert page_of(body, POD).raw_items == ()

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b"<html>", b'{"items":[{]}', b'{"metadata":{},"items":[{"a":']
    )
    def test_what_is_no_list_is_no_answer(self, body: bytes) -> None:
        with pytest.raises(Unavailable, match="is no list"):
            page_of(body, POD)


class TestLines:
    @given(st.lists(st.text("ab", max_size=9), max_size=12), st.lists(st.integers(1, 7), max_size=40))
    def test_are_the_same_however_they_are_cut(self, words: list[str], cuts: list[int]) -> None:
        stream = "".join(f"{word}\n" for word in words).encode()
        lines, found, at = Lines(), [], 0
        for size in [*cuts, len(stream)]:
            if at < len(stream):
                found += lines.feed(stream[at : at + size])
                at += size
        assert [line.decode() for line in found] == [word for word in words if word]
        assert lines.pending_bytes == 0

    def test_a_long_line_in_many_chunks_is_joined_once(self) -> None:
        lines = Lines()
        for _ in range(1000):
            assert lines.feed(b"x" * 100) == []
        assert lines.pending_bytes == 100_000
        assert [len(line) for line in lines.feed(b"\n{}")] == [100_000]
        assert lines.feed(b"\n") == [b"{}"]


def test_the_unavailable_of_the_seam_keeps_its_shape() -> None:
    error: Any = Unavailable("gone")
    assert (error.message, error.causes, error.retry_after_seconds) == ("gone", (), 0.0)
    assert msgspec.json.encode(error.message) == b'"gone"'


class TestLinesOfAWatch:
    """Taken apart in one walk where they are as the server writes them, and right however they are written."""

    OBJECT = b'{"metadata":{"name":"a","resourceVersion":"7"},"x":"}}\\"object\\":"}'

    @pytest.mark.parametrize(
        ("line", "kind", "version"),
        [
            pytest.param(b'{"type":"ADDED","object":%s}', "ADDED", "7", id="as the server writes it"),
            pytest.param(b'{"object":%s,"type":"ADDED"}', "ADDED", "7", id="the other way round"),
            pytest.param(b'{"type":"ADDED","object":%s,"more":{}}', "ADDED", "7", id="with a member more"),
            pytest.param(b'{"type": "ADDED", "object": %s}', "ADDED", "7", id="with blanks"),
            pytest.param(b'{"type":"ADDED","object":%s}\r', "ADDED", "7", id="with a carriage return"),
            pytest.param(b'{"type":"ERROR","object":%s}', "ERROR", "7", id="an error with a version"),
            pytest.param(b'{"type":"NEW","object":%s}', "NEW", "7", id="a type nobody knows"),
        ],
    )
    def test_any_writing(self, line: bytes, kind: str, version: str) -> None:
        told = line_of(line % self.OBJECT)
        assert (told.type, told.version, told.raw) == (kind, version, self.OBJECT)

    @pytest.mark.parametrize("status", [b'{"code":410}', b'{"metadata":{},"code":410}', b'"text"', b"null"])
    def test_an_error_of_any_shape(self, status: bytes) -> None:
        told = line_of(b'{"type":"ERROR","object":%s}' % status)
        assert (told.type, told.version, told.raw) == ("ERROR", "", status)

    @pytest.mark.parametrize(
        "line", [b"", b"{", b"[]", b'{"type":"ADDED"}', b'{"type":"ADDED","object":3}', b"\xff"]
    )
    def test_what_is_none(self, line: bytes) -> None:
        with pytest.raises((msgspec.MsgspecError, ValueError)):
            line_of(line)

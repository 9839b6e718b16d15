"""The review asked of an API server that answers oddly, slowly, or not at all."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from controller.enrolment.review import Review, ReviewFailed
from controller.enrolment.reviewer import KubeReviewer
from tests.enrolment.support import SECRET, token_of
from tests.hub.support import run

TOKEN = token_of({"aud": "plimsoll-enrolment"})
PATH = "/apis/authentication.k8s.io/v1/tokenreviews"


def echo(status: dict[str, Any] | None) -> dict[str, Any]:
    """As the API server answers: with what it was sent."""
    made: dict[str, Any] = {
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {},
        "spec": {"token": TOKEN, "audiences": ["plimsoll-enrolment"]},
    }
    return made if status is None else made | {"status": status}


@asynccontextmanager
async def api_server(status: int, body: Any, *, hangs: bool = False) -> AsyncIterator[tuple[str, list[Any]]]:
    """Answers every review alike, on plain HTTP: what is tried here is what comes over the connection."""
    asked: list[Any] = []
    gate = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        asked.append(await request.json())
        if hangs:
            await gate.wait()
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type="application/json")

    app = web.Application()
    app.router.add_post(PATH, answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}", asked
    finally:
        gate.set()
        await runner.cleanup()


async def review(host: str, deadline_seconds: float = 5.0) -> Review:
    async with client.ApiClient(client.Configuration(host=host)) as api:
        return await KubeReviewer(api, deadline_seconds).review(TOKEN, "plimsoll-enrolment")


def test_an_answer_is_taken_as_it_is():
    async def scenario() -> None:
        told = {
            "authenticated": True,
            "user": {"username": "u", "extra": {"a": ["1", "2"]}},
            "audiences": ["plimsoll-enrolment"],
        }
        async with api_server(201, echo(told)) as (host, asked):
            assert await review(host) == Review(
                authenticated=True,
                username="u",
                audiences=("plimsoll-enrolment",),
                extra={"a": ("1", "2")},
            )
            assert asked[0]["spec"] == {"token": TOKEN, "audiences": ["plimsoll-enrolment"]}

    run(scenario)


def test_a_refusal_has_no_user():
    async def scenario() -> None:
        told = {"authenticated": False, "error": "invalid bearer token" + "x" * 1_000, "user": {}}
        async with api_server(201, echo(told)) as (host, _asked):
            found = await review(host)
            assert not found.authenticated
            assert (found.username, found.audiences, len(found.error)) == ("", (), 512)

    run(scenario)


ODD = [
    pytest.param(401, {"message": TOKEN}, "right to create tokenreviews", id="it does not know the operator"),
    pytest.param(403, {"message": TOKEN}, "right to create tokenreviews", id="the operator may not ask"),
    pytest.param(422, {"message": f"Invalid value: {TOKEN}"}, "status 422", id="an error that repeats the token"),
    pytest.param(429, {"message": "slow down"}, "status 429", id="it has too much to do"),
    pytest.param(500, TOKEN, "status 500", id="it fails and repeats the token"),
    pytest.param(503, "", "status 503", id="it ends"),
    pytest.param(201, echo(None), "no status", id="no status"),
    pytest.param(201, "{", "cannot be read", id="half an answer"),
    pytest.param(201, {"status": {"authenticated": "perhaps"}}, "cannot be read", id="neither yes nor no"),
    pytest.param(201, '{"status": 7}', "cannot be read", id="a number"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "says"), ODD)
def test_an_odd_answer_is_no_review_and_repeats_no_token(status: int, body: Any, says: str):
    async def scenario() -> None:
        async with api_server(status, body) as (host, asked):
            with pytest.raises(ReviewFailed, match=says) as caught:
                await review(host)
            assert SECRET not in "".join(traceback.format_exception(caught.value))
            assert len(asked) == 1  # no retries of its own: the agent comes again

    run(scenario)


def test_one_that_hangs_has_a_deadline():
    async def scenario() -> None:
        async with api_server(201, {}, hangs=True) as (host, _asked):
            with pytest.raises(ReviewFailed, match=r"did not answer a TokenReview in 0\.1 s"):
                await review(host, 0.1)

    run(scenario)


def test_one_that_is_not_there_is_said():
    async def scenario() -> None:
        async with api_server(201, {}) as (host, _asked):
            pass
        with pytest.raises(ReviewFailed, match="cannot be reached"):
            await review(host)

    run(scenario)

"""The enrolment service over real TLS on loopback: who gets a certificate, who none, and what it costs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509

from agent.bootstrap import BootstrapError
from controller.enrolment.refusals import AGAIN, REFUSAL, Reason
from controller.enrolment.review import Review
from controller.hub.server import HubServer
from controller.hub.service import Hub
from runtime.authority import Authority, AuthorityError, Credentials, Identity, Role, identity_of
from runtime.channels import NODE_PLANE, channel_options
from runtime.clock import VirtualClock, WallClock
from runtime.tls import certificate_free_credentials
from tests.enrolment.support import (
    DAY,
    HUB,
    NODE,
    SECRET,
    Door,
    Serving,
    TokenBook,
    door,
    greets,
    request_for,
    token_of,
)
from tests.hub.support import run, until
from wire import agent_pb2_grpc, enrolment_pb2_grpc
from wire import enrolment_pb2 as pb


async def ask(made: Door, request: pb.EnrolRequest, **more: Any) -> pb.EnrolResponse:
    """One raw call, as anybody could make it."""
    roots = certificate_free_credentials(made.authority.trusted_pem)
    async with grpc.aio.secure_channel(
        made.server.endpoint, roots, options=channel_options(NODE_PLANE, HUB)
    ) as channel:
        stub: Any = enrolment_pb2_grpc.EnrolmentStub(channel)
        return await stub.Enrol(request, timeout=10.0, **more)


def test_an_agent_gets_a_certificate_that_opens_the_hub(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            agent = made.agent()
            found = await agent.enrol()
            assert agent.credentials() is found
            certificate = x509.load_pem_x509_certificate(found.certificate_pem)
            assert identity_of(certificate) == Identity(Role.NODE, NODE)
            left = certificate.not_valid_after_utc.timestamp() - made.clock.now()
            assert DAY - 60 < left <= DAY
            renewal = agent.renew_at_seconds - made.clock.now()
            assert (2 / 3 - 0.05) * DAY - 60 < renewal <= 2 / 3 * DAY
            hub = Hub(made.clock, epoch=1)
            held = made.authority.issue(HUB)
            async with Serving(HubServer(hub, lambda: held)) as server:
                await greets(hub, server, found)
            assert made.servicer.outcomes == {"signed": 1}
            assert made.counted == ["signed"]

    run(scenario)


REFUSED = [
    pytest.param({"audiences": ("kubernetes",)}, {}, "wrong_audience", "set audience", id="a token for the API server"),
    pytest.param({"audiences": ("plimsoll-enrolment", "kubernetes")}, {}, "wrong_audience", "alone", id="a token for us and for others"),
    pytest.param({"username": "system:serviceaccount:shop:web"}, {}, "other_account", "serviceAccountName", id="a tenant's pod"),
    pytest.param({"without": ("node-name", "node-uid", "pod-name", "pod-uid")}, {}, "unbound", "kubelet projects", id="an unbound token, which authenticates"),
    pytest.param({"without": ("pod-uid",)}, {}, "unbound", "pod-uid missing", id="a token without the pod's uid"),
    pytest.param({"node": "gpu-node-2"}, {}, "other_node", "its own node only", id="a token of another node's agent"),
    pytest.param({"lives_seconds": -30.0}, {}, "expired", "ended 3", id="a token that has ended"),
]  # fmt: skip


@pytest.mark.parametrize(("token", "config", "reason", "says"), REFUSED)
def test_the_agent_is_told_why_it_gets_none(
    tmp_path: Path, token: dict[str, Any], config: dict[str, Any], reason: str, says: str
):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            agent = made.agent(token=made.book.issue(**token), **config)
            with pytest.raises(BootstrapError) as caught:
                await agent.enrol()
            assert caught.value.reason == reason
            sentence = str(caught.value)
            assert says in sentence
            assert NODE in sentence
            assert made.server.endpoint in sentence
            assert made.counted == [reason]
            assert agent.refused == {reason: 1}
            with pytest.raises(AuthorityError, match="no certificate yet"):
                agent.credentials()

    run(scenario)


RAW = [
    pytest.param(pb.EnrolRequest(), Reason.MALFORMED_TOKEN, "no", id="an empty request"),
    pytest.param(pb.EnrolRequest(token="x" * 10_000), Reason.OVERSIZE, "no", id="a long token"),
    pytest.param(
        pb.EnrolRequest(token=token_of({"aud": "plimsoll-enrolment"}), signing_request=b"x" * 6_000),
        Reason.OVERSIZE,
        "no",
        id="a long signing request",
    ),
    pytest.param(
        pb.EnrolRequest(token=token_of({"aud": "plimsoll-enrolment"}), signing_request=b"junk"),
        Reason.MALFORMED_REQUEST,
        "no",
        id="a signing request of noise",
    ),
    pytest.param(
        pb.EnrolRequest(token=token_of({"aud": "plimsoll-enrolment"}), signing_request=request_for()),
        Reason.NOT_AUTHENTICATED,
        "no",
        id="a token that nobody issued",
    ),
    pytest.param(
        pb.EnrolRequest(token=token_of({"aud": "other"}), signing_request=request_for()),
        Reason.WRONG_AUDIENCE,
        "no",
        id="a token made up for another audience",
    ),
]


@pytest.mark.parametrize(("request_", "reason", "again"), RAW)
def test_junk_is_refused_with_its_reason(
    tmp_path: Path, request_: pb.EnrolRequest, reason: Reason, again: str
):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(made, request_)
            trailing = dict(caught.value.trailing_metadata())  # type: ignore[arg-type]
            assert (trailing[REFUSAL], trailing[AGAIN]) == (reason.value, again)
            # Only what could be a token of ours costs the API server a question.
            assert len(made.book.asked) == (reason is Reason.NOT_AUTHENTICATED)

    run(scenario)


def test_a_message_larger_than_any_request_is_not_read(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(made, pb.EnrolRequest(token="x" * 100_000))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert not made.counted

    run(scenario)


def test_a_source_that_asks_too_often_waits(tmp_path: Path):
    async def scenario() -> None:
        clock = VirtualClock(WallClock().now())
        async with door(tmp_path, clock=clock, source_burst=2.0, source_per_second=0.5) as made:
            agent = made.agent()
            for expected in (None, None, "too_many", "too_many"):
                if expected is None:
                    await agent.enrol()
                    continue
                with pytest.raises(BootstrapError) as caught:
                    await agent.enrol()
                assert caught.value.reason == expected
            clock.advance_to(clock.now() + 2.0)
            await agent.enrol()
            assert len(made.book.asked) == 3

    run(scenario)


class Slow(TokenBook):
    """Answers only when it is let."""

    def __init__(self, clock: WallClock) -> None:
        super().__init__(clock)
        self.gate = asyncio.Event()

    async def review(self, token: str, audience: str) -> Review:
        self.asked.append(token)
        await self.gate.wait()
        self.asked.pop()
        return await super().review(token, audience)


def test_only_so_many_reviews_wait_at_once(tmp_path: Path):
    async def scenario() -> None:
        clock = WallClock()
        slow = Slow(clock)
        async with door(tmp_path, reviewer=slow, in_flight=3) as made:
            agents = [made.agent(token=slow.issue()) for _ in range(5)]
            tries = [asyncio.create_task(each.enrol()) for each in agents]
            await until(lambda: made.servicer.outcomes["busy"] == 2)
            assert len(slow.asked) == 3
            slow.gate.set()
            done = await asyncio.gather(*tries, return_exceptions=True)
            assert sum(isinstance(each, Credentials) for each in done) == 3
            assert {each.reason for each in done if isinstance(each, BootstrapError)} == {"busy"}

    run(scenario)


def test_an_api_server_that_hangs_costs_a_try_not_the_operator(tmp_path: Path):
    async def scenario() -> None:
        slow = Slow(WallClock())
        async with door(tmp_path, reviewer=slow, review_seconds=0.05) as made:
            agent = made.agent(token=slow.issue())
            with pytest.raises(BootstrapError, match=r"did not review the token in 0\.05 s") as caught:
                await agent.enrol()
            assert caught.value.reason == "api_server"
            slow.gate.set()
            await agent.enrol()
            assert made.servicer._in_flight == 0

    run(scenario)


def test_the_agent_tries_until_the_api_server_answers(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            made.book.failing = "The API server cannot be reached for a TokenReview (ClientConnectorError)."
            agent = made.agent()
            stop = asyncio.Event()
            keeping = asyncio.create_task(agent.run(stop))
            await until(lambda: agent.refused.get("api_server", 0) >= 3)
            made.book.failing = ""
            await until(lambda: agent.enrolled == 1)
            stop.set()
            await keeping

    run(scenario)


def test_only_the_leader_signs(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            made.leads = False
            agent = made.agent()
            with pytest.raises(BootstrapError, match="does not lead") as caught:
                await agent.enrol()
            assert caught.value.reason == "not_leader"
            assert not made.book.asked
            made.leads = True
            await agent.enrol()

    run(scenario)


def test_a_pod_that_the_operator_does_not_see_gets_none_though_its_token_is_good(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            made.presence.why = "the pod plimsoll-agents/agent-1 is leaving"
            agent = made.agent()
            with pytest.raises(BootstrapError, match="is leaving") as caught:
                await agent.enrol()
            assert caught.value.reason == "gone"
            made.presence.why = ""
            await agent.enrol()

    run(scenario)


def test_a_defect_of_the_operator_is_a_status_and_nothing_of_the_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    class Broken(TokenBook):
        async def review(self, token: str, audience: str) -> Review:
            raise ZeroDivisionError

    async def scenario() -> None:
        async with door(tmp_path, reviewer=Broken(WallClock())) as made:
            agent = made.agent()
            with pytest.raises(BootstrapError) as caught:
                await agent.enrol()
            assert caught.value.reason == "internal"
            assert SECRET not in str(caught.value)
            assert SECRET not in caplog.text
            assert made.servicer._in_flight == 0

    run(scenario)


# ------------------------------------------------------------------------------------------------ no token is told


def texts_in(folder: Path) -> list[str]:
    return [file.read_text() for file in folder.rglob("*") if file.is_file()]


@pytest.mark.parametrize("fate", ["signed", "unbound", "api_server", "gone", "not_authenticated"])
def test_no_part_of_a_token_is_logged_kept_or_answered(
    tmp_path: Path, fate: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        async with door(tmp_path) as made:
            token = made.book.issue(without=("pod-uid",) if fate == "unbound" else ())
            made.book.failing = "It is away." if fate == "api_server" else ""
            made.presence.why = "nobody is there" if fate == "gone" else ""
            if fate == "not_authenticated":
                made.book.reviews.clear()
            agent = made.agent(token=token, folder=tmp_path / "kept")
            told = ""
            try:
                await agent.enrol()
            except BootstrapError as error:
                told = f"{error} {error.reason} {error.__cause__} {error.__context__}"
            assert made.counted == [fate]
            made.book.reviews.clear()
            made.book.asked.clear()
            (tmp_path / "token").unlink()
            seen = [caplog.text, told, repr(vars(made.servicer)), repr(vars(agent))]
            seen += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
            seen += texts_in(tmp_path)
            assert caplog.records
            assert not [each for each in seen if SECRET in each or token in each]

    run(scenario)


# ------------------------------------------------------------------------------------------------ the transport


def test_tls_1_2_is_not_spoken_at_this_door_either(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cadata=made.authority.trusted_pem.decode())
            context.set_alpn_protocols(["h2"])
            host, _, port = made.server.endpoint.partition(":")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(host, int(port), ssl=context, server_hostname=HUB.dns)

    run(scenario)


def test_a_plaintext_caller_is_not_answered(tmp_path: Path):
    async def scenario() -> None:
        async with (
            door(tmp_path) as made,
            grpc.aio.insecure_channel(made.server.endpoint) as channel,
        ):
            stub: Any = enrolment_pb2_grpc.EnrolmentStub(channel)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Enrol(pb.EnrolRequest(), timeout=1.0)
            assert not made.counted

    run(scenario)


def test_nothing_but_enrolment_is_behind_this_door(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            roots = certificate_free_credentials(made.authority.trusted_pem)
            async with grpc.aio.secure_channel(
                made.server.endpoint, roots, options=channel_options(NODE_PLANE, HUB)
            ) as channel:
                stub: Any = agent_pb2_grpc.HubStub(channel)
                call = stub.Connect()
                assert await call.code() is grpc.StatusCode.UNIMPLEMENTED

    run(scenario)


def test_the_hub_still_demands_a_certificate(tmp_path: Path):
    async def scenario() -> None:
        authority = Authority.create(WallClock())
        held = authority.issue(HUB)
        async with Serving(HubServer(Hub(WallClock(), epoch=1), lambda: held)) as server:
            roots = certificate_free_credentials(authority.trusted_pem)
            async with grpc.aio.secure_channel(
                server.endpoint, roots, options=channel_options(NODE_PLANE, HUB)
            ) as channel:
                stub: Any = agent_pb2_grpc.HubStub(channel)
                call = stub.Connect(timeout=2.0)
                assert await call.code() in {
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                }

    run(scenario)


def test_a_token_is_never_sent_to_who_is_not_the_operator(tmp_path: Path):
    """A server of another root, and a node that poses as the operator under ours: neither hears a word."""

    async def scenario() -> None:
        async with door(tmp_path) as made, door(tmp_path) as stranger:
            agent = made.agent(endpoint=stranger.server.endpoint)
            with pytest.raises(BootstrapError, match="of a root in") as caught:
                await agent.enrol()
            assert caught.value.reason == "unreachable"
            posing = made.agent(hub=Identity(Role.OPERATOR, "other"))
            with pytest.raises(BootstrapError):
                await posing.enrol()
            assert not made.counted
            assert not stranger.counted

    run(scenario)

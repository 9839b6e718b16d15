"""The agent's side of enrolment: its files, its renewals, and answers that cannot be right."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.bootstrap import Bootstrap, BootstrapError
from agent.node.daemon import Agent, AgentConfig
from agent.node.drivers.simulated import SimulatedDriver
from controller.enrolment.server import EnrolmentServer
from controller.hub.server import HubServer
from controller.hub.service import Hub
from runtime.authority import Authority, AuthorityError, Identity, Role
from runtime.clock import VirtualClock, WallClock
from tests.enrolment.support import (
    DAY,
    HUB,
    NODE,
    Door,
    Serving,
    door,
)
from tests.hub.support import TwoGpus, run, until
from wire import enrolment_pb2 as pb

# ------------------------------------------------------------------------------------------------ files


FILES = [
    pytest.param("token", None, "--token-file", id="no token file"),
    pytest.param("token", b"", "is empty", id="an empty token file"),
    pytest.param("token", b"x" * 20_000, "larger than", id="a large token file"),
    pytest.param("token", b"\xff\xfe", "holds no token", id="a token file that is no text"),
    pytest.param("roots.pem", None, "--ca-file", id="no bundle"),
    pytest.param("roots.pem", b"hello", "bundle of roots", id="a bundle without a certificate"),
]


@pytest.mark.parametrize(("name", "content", "says"), FILES)
def test_a_file_that_is_not_there_or_odd_is_said_and_tried_again(
    tmp_path: Path, name: str, content: bytes | None, says: str
):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            agent = made.agent()
            good = (tmp_path / name).read_bytes()
            (tmp_path / name).unlink()
            if content is not None:
                (tmp_path / name).write_bytes(content)
            with pytest.raises(BootstrapError, match=says) as caught:
                await agent.enrol()
            assert caught.value.reason == "files"
            assert str(tmp_path / name) in str(caught.value)
            (tmp_path / name).write_bytes(good)
            await agent.enrol()

    run(scenario)


def test_the_token_is_read_anew_at_each_use(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            agent = made.agent()
            await agent.enrol()
            made.put_token(made.book.issue())
            await agent.enrol()
            assert len(set(made.book.asked)) == 2

    run(scenario)


def test_the_key_is_new_for_each_certificate_and_kept_for_its_owner_alone(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            folder = tmp_path / "kept"
            agent = made.agent(folder=folder)
            first, second = await agent.enrol(), await agent.enrol()
            assert first.key_pem != second.key_pem
            assert (folder / "key.pem").read_bytes() == second.key_pem
            assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
            again = made.agent(folder=folder)
            assert again.credentials().key_pem == second.key_pem
            assert again.renew_at_seconds > made.clock.now()
            other = made.agent("gpu-node-2", folder=folder)
            with pytest.raises(AuthorityError):
                other.credentials()
            memory = made.agent()
            await memory.enrol()
            assert (folder / "key.pem").read_bytes() == second.key_pem

    run(scenario)


def test_what_was_kept_and_has_ended_is_not_used(tmp_path: Path):
    clock = VirtualClock(WallClock().now())

    async def scenario() -> None:
        async with door(tmp_path, clock=clock) as made:
            await made.agent(folder=tmp_path / "kept").enrol()
            clock.advance_to(clock.now() + 2 * DAY)
            with pytest.raises(AuthorityError):
                made.agent(folder=tmp_path / "kept").credentials()

    run(scenario)


# ------------------------------------------------------------------------------------------------ renewal


def test_it_is_renewed_at_two_thirds_and_goes_on_while_the_operator_is_away(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path, validity_seconds=3.0) as made:
            agent = made.agent()
            stop = asyncio.Event()
            keeping = asyncio.create_task(agent.run(stop))
            await until(lambda: agent.enrolled == 1)
            first = agent.credentials()
            made.leads = False
            await until(lambda: agent.refused.get("not_leader", 0) >= 2, 10.0)
            assert agent.credentials() is first
            assert first.expires_seconds > made.clock.now()
            made.leads = True
            await until(lambda: agent.enrolled == 2)
            assert agent.credentials().certificate_pem != first.certificate_pem
            stop.set()
            await keeping

    run(scenario)


def test_a_renewal_breaks_no_stream_and_the_next_one_uses_it(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            hub = Hub(made.clock, epoch=1)
            held = made.authority.issue(HUB)
            async with Serving(HubServer(hub, lambda: held)) as server:
                bootstrap = made.agent()
                config = AgentConfig(node=NODE, endpoint=server.endpoint, boot_id="b1", heartbeat_seconds=0.5)
                driver = SimulatedDriver(TwoGpus(NODE, now=made.clock.now()))
                agent = Agent(config, driver, bootstrap.credentials, made.clock, random.Random(1).uniform)
                assert not await agent.tick(made.clock.now())  # no certificate yet: not a crash
                assert agent.counters.connect_failures == 1
                await bootstrap.enrol()
                await agent.connect()
                reports = hub.stats.reports
                await bootstrap.enrol()
                assert await agent.tick(made.clock.now() + 1)
                await until(lambda: hub.stats.reports == reports + 1)
                assert hub.stats.opened == 1
                await agent.abandon()
                await agent.connect()
                await until(lambda: hub.stats.opened == 2)
                await agent.close("done")

    run(scenario)


def test_no_certificate_outlives_its_root(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            agent = made.agent()
            made.authority = Authority.create(WallClock(), validity_seconds=3_600.0)
            found = await agent.enrol()
            assert found.expires_seconds <= made.clock.now() + 3_600.0
            assert agent.renew_at_seconds - made.clock.now() <= 2 / 3 * 3_600.0

    run(scenario)


@pytest.mark.parametrize("renews", [True, False], ids=["renewed meanwhile", "refused meanwhile"])
def test_a_stream_outlives_its_certificate_only_if_the_node_got_another(tmp_path: Path, renews: bool):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            wall = VirtualClock(WallClock().now())
            hub = Hub(made.clock, epoch=1, wall=wall, heartbeat_seconds=0.5)
            made.signed = hub.renewed
            held = made.authority.issue(HUB)
            async with Serving(HubServer(hub, lambda: held)) as server:
                bootstrap = made.agent()
                first = await bootstrap.enrol()
                config = AgentConfig(node=NODE, endpoint=server.endpoint, boot_id="b1", heartbeat_seconds=0.5)
                driver = SimulatedDriver(TwoGpus(NODE, now=made.clock.now()))
                agent = Agent(config, driver, lambda: first, made.clock, random.Random(1).uniform)
                await agent.connect()
                if renews:
                    hub.renewed(NODE, first.expires_seconds + DAY)
                    hub.renewed("stranger", first.expires_seconds + DAY)
                wall.advance_to(first.expires_seconds - 1)
                assert await agent.tick(made.clock.now() + 1)
                await until(lambda: hub.stats.reports == 1)
                wall.advance_to(first.expires_seconds + 1)
                await agent.tick(made.clock.now() + 2)
                if renews:
                    await until(lambda: hub.stats.reports == 2)
                    assert hub.connected(NODE)
                else:
                    await until(lambda: not hub.connected(NODE))
                    await until(lambda: not agent.connected)
                    assert hub.stats.reports == 1
                assert set(hub._validity._until) == ({NODE} if renews else set())
                await agent.abandon()

    run(scenario)


def test_each_certificate_that_is_signed_is_told_to_the_hub(tmp_path: Path):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            told: list[tuple[str, float]] = []
            made.signed = lambda node, until_seconds: told.append((node, until_seconds))
            agent = made.agent()
            found = await agent.enrol()
            assert told == [(NODE, found.expires_seconds)]
            made.presence.why = "it is gone"
            with pytest.raises(BootstrapError):
                await agent.enrol()
            assert len(told) == 1

    run(scenario)


# ------------------------------------------------------------------------------------------------ odd answers


class Odd:
    """An operator that answers what it should not."""

    def __init__(self, made: Door, how: str) -> None:
        self._made = made
        self._how = how

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolResponse:
        made = self._made
        other = made.authority.issue(Identity(Role.NODE, "gpu-node-9"))
        key = x509.load_der_x509_csr(request.signing_request).public_key()
        mine = made.authority.sign(Identity(Role.NODE, NODE), key).public_bytes(  # type: ignore[arg-type]
            serialization.Encoding.PEM
        )
        same_name = made.authority.issue(Identity(Role.NODE, NODE))
        roots = made.authority.certificate_pem
        return {
            "nothing": pb.EnrolResponse(),
            "another node": pb.EnrolResponse(certificate=other.certificate_pem, roots=roots),
            "another key": pb.EnrolResponse(certificate=same_name.certificate_pem, roots=roots),
            "another root": pb.EnrolResponse(
                certificate=mine, roots=Authority.create(WallClock()).certificate_pem
            ),
        }[self._how]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        pytest.param("nothing", "cannot be read", id="an empty answer"),
        pytest.param("another node", "gpu-node-9", id="another node's certificate"),
        pytest.param("another key", "not for the key", id="a certificate for another key"),
        pytest.param("another root", "none of the roots", id="roots that did not sign it"),
    ],
)
def test_an_odd_answer_is_not_used(tmp_path: Path, how: str, says: str):
    async def scenario() -> None:
        async with door(tmp_path) as made:
            made.servicer.Enrol = Odd(made, how).Enrol  # type: ignore[method-assign]

            held = made.authority.issue(HUB)
            odd = EnrolmentServer(made.servicer, lambda: held)
            await odd.start()
            agent: Bootstrap = made.agent(endpoint=odd.endpoint)
            with pytest.raises(BootstrapError, match=says) as caught:
                await agent.enrol()
            assert caught.value.reason == "answer"
            await odd.stop()

    run(scenario)

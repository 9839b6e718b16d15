"""Leadership on a real API server: two electors on one Lease, and two operator processes with agents and load."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.failover import late_writes, stale_commands, terms
from benchmarks.failover_arena import Arena, arena
from benchmarks.failover_sides import NAMES, SPACE, OperatorProcess, audited
from console.controlplane import ControlPlane
from controller.leadership import LEASE_NAME, Elector, LeaseSettings
from controller.leadership.campaign import Campaign
from controller.leadership.lease import read
from controller.observe import labels
from controller.resources.core import LEASE
from controller.store.kube import KubeStore
from runtime.clock import WallClock
from tests.controlplane import Started

SHORT = LeaseSettings(lease_seconds=3.0, renew_deadline_seconds=2.0, retry_seconds=0.4)
PATIENCE_SECONDS = 60.0


class Two:
    """Two candidates for the Lease of one namespace, each with its own way to the API server."""

    def __init__(self, stores: list[KubeStore], namespace: str) -> None:
        self.namespace = namespace
        self.store = stores[0]
        self.campaigns = [self.candidate(store, f"p{index}") for index, store in enumerate(stores)]

    def candidate(self, store: KubeStore, name: str) -> Campaign:
        clock = WallClock()
        elector = Elector(
            store, clock, SHORT, namespace=self.namespace, identity=name, rng=random.Random(name)
        )
        return Campaign(elector, store, clock, namespace=self.namespace, seed=1)

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert sum(each.elector.leads for each in self.campaigns) <= 1, "two lead"
            told = [each.elector.told() for each in self.campaigns]
            assert time.monotonic() < deadline, f"not in {PATIENCE_SECONDS} s: {what}; {told}"
            await asyncio.sleep(0.02)

    async def one_leads(self) -> tuple[Elector, Elector]:
        self.campaigns[0].start()
        await self.until(lambda: self.campaigns[0].elector.leads, "the first leads")
        self.campaigns[1].start()
        await self.until(lambda: self.campaigns[1].elector.waits, "the other waits")
        return self.campaigns[0].elector, self.campaigns[1].elector


async def gives_back(two: Two) -> None:
    first, other = await two.one_leads()
    assert await first.release()
    await two.until(lambda: other.leads, "the other takes over")
    assert other.epoch == first.epoch + 1


async def dies(two: Two) -> None:
    first, other = await two.one_leads()
    await two.campaigns[0].stop()
    await two.until(lambda: other.leads, "the other takes over once it ran out")
    assert other.epoch == first.epoch + 1


async def deleted(two: Two) -> None:
    first, other = await two.one_leads()
    await two.store.delete(LEASE, LEASE_NAME, two.namespace)
    await asyncio.sleep(2 * SHORT.lease_seconds)
    found = read(await two.store.get(LEASE, LEASE_NAME, two.namespace))
    assert (found.holder, found.epoch) == (first.identity, 1)
    assert first.leads
    assert not other.leads


async def edited(two: Two) -> None:
    first, other = await two.one_leads()
    patch = {"metadata": {"annotations": {labels.EPOCH: "12"}}}
    await two.store.patch(LEASE, LEASE_NAME, patch, two.namespace, field_manager="kubectl-edit")
    await two.until(lambda: first.epoch == 13, "it leads above what was written by hand")
    theft = {"spec": {"holderIdentity": "nobody-we-know"}}
    await two.store.patch(LEASE, LEASE_NAME, theft, two.namespace, field_manager="kubectl-edit")
    await two.until(lambda: first.over, "it has lost the Lease")
    await two.until(lambda: other.leads, "the other takes over once that ran out")
    assert other.epoch == 14


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(gives_back, id="the leader gives the Lease back"),
        pytest.param(dies, id="the leader dies"),
        pytest.param(deleted, id="the Lease is deleted under the leader"),
        pytest.param(edited, id="epoch and holder are written by hand"),
    ],
)
def test_two_electors_on_one_lease(
    control_plane: ControlPlane, namespace: str, scene: Callable[[Two], Awaitable[None]]
) -> None:
    async def play() -> None:
        stores = [await KubeStore.connect(control_plane.kubeconfig, seed=index) for index in range(2)]
        two = Two(stores, namespace)
        try:
            await scene(two)
        finally:
            for campaign in two.campaigns:
                await campaign.stop()
            for store in stores:
                await store.close()

    asyncio.run(play())


# --------------------------------------------------------------------------------------------- operator processes


async def _epoch(made: Arena) -> int:
    record = await made.lease()
    return record.epoch if record else 0


async def _taken_over(made: Arena, epoch: int, since: float) -> None:
    await made.until("a new leader is obeyed", lambda: made.first_accepted(epoch, since) is not None)


async def _killed(made: Arena) -> None:
    leader, other = await made.roles()
    epoch, since = await _epoch(made), time.time()
    leader.signal(signal.SIGKILL)
    await _taken_over(made, epoch, since)
    assert made.service.leader == other.name, "the Service's selector has found it"
    await leader.ended()
    await made.start_operator(leader.name)


async def _told_to_stop(made: Arena) -> None:
    leader, _ = await made.roles()
    epoch, since = await _epoch(made), time.time()
    leader.signal(signal.SIGTERM)
    await _taken_over(made, epoch, since)
    assert await leader.ended() == 0
    assert f"gave the lease of epoch {epoch} back" in leader.told()
    await made.start_operator(leader.name)


async def _paused(made: Arena) -> None:
    leader, other = await made.roles()
    epoch, since = await _epoch(made), time.time()
    leader.signal(signal.SIGSTOP)
    await _taken_over(made, epoch, since)
    leader.signal(signal.SIGCONT)
    await made.until("the sleeper stands by", lambda: _standby(leader))
    assert leader.runs
    assert "no longer leading" in leader.told()
    assert made.service.leader == other.name
    assert (await leader.page("/healthz"))[0] == 200


async def _standby(process: OperatorProcess) -> bool:
    status, text = await process.page("/readyz")
    return status == 200 and text.startswith("standby: ")


async def _lease_deleted(made: Arena) -> None:
    leader, other = await made.roles()
    epoch = await _epoch(made)
    await made.store.delete(LEASE, LEASE_NAME, SPACE)
    await made.until("the Lease is there again", lambda: _there(made))
    await asyncio.sleep(2 * SHORT.lease_seconds)
    assert await _epoch(made) == epoch, "the same leadership goes on: nobody is locked out"
    assert made.service.leader == leader.name
    assert made.obeyed(epoch) == len(made.fleet.nodes)
    assert await _standby(other)


async def _there(made: Arena) -> bool:
    return await made.lease() is not None


async def _holder_edited(made: Arena) -> None:
    leader, _ = await made.roles()
    epoch, since = await _epoch(made), time.time()
    patch: dict[str, Any] = {"spec": {"holderIdentity": "nobody-we-know"}}
    await made.store.patch(LEASE, LEASE_NAME, patch, SPACE, field_manager="kubectl-edit")
    await _taken_over(made, epoch, since)
    assert leader.runs
    await made.roles()


@pytest.mark.slow  # two operators, six nodes, five changes of leader
def test_two_operators_whatever_happens_to_the_leader(new_control_plane: Started, tmp_path: Path) -> None:
    plane = new_control_plane(extra=audited(tmp_path))
    short = {"lease_seconds": 6.0, "renew_deadline_seconds": 4.0, "retry_seconds": 0.8}

    async def play() -> None:
        async with arena(tmp_path, plane, nodes=4, lease=short) as made:
            made.begin_load()
            for chapter in (_killed, _told_to_stop, _paused, _lease_deleted, _holder_edited):
                await chapter(made)
            await made.end_load()
            leaderships = terms(made.writes())
            assert len(leaderships) == 5
            assert {term.user for term in leaderships} == set(NAMES)
            assert stale_commands(made.accepted, leaderships) == 0
            assert late_writes(made.writes(), leaderships) == []
            assert "Traceback" not in "".join(each.told() for each in made.operators.values())

    asyncio.run(play())

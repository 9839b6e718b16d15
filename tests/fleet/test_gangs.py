"""Gangs on the fleet: they meet wholly or not at all, one attempt a rendezvous, and old ranks stay out."""

from __future__ import annotations

import pytest

from simulator.fleet.specs import uniform_fleet
from simulator.physics.failures import Failure, FailureKind
from tests.fleet.worlds import QUICK, Cluster, cluster, rank_pod, run

PAIR = ("node-0000", "node-0001")


async def start(made: Cluster, attempt: int, nodes: tuple[str, ...] = PAIR, steps: int = 400) -> list[str]:
    """Creates every pod of an attempt; their keys."""
    for rank in range(len(nodes)):
        await made.create(rank_pod("bert", attempt, rank, nodes, steps=steps))
    return [f"default/bert-a{attempt}-r{rank}" for rank in range(len(nodes))]


def step_of(made: Cluster) -> int:
    """Step of the attempt that runs; -1 when none does."""
    return max((m.gang.step for m in made.fleet.gangs.running() if m.gang is not None), default=-1)


def test_a_gang_meets_trains_and_succeeds_on_every_node() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            keys = await start(made, 1)
            await made.seconds(3)
            assert [await made.phase(key) for key in keys] == ["Running", "Running"]
            assert step_of(made) == -1  # processes still start: nobody has met
            await made.seconds(3)
            assert made.fleet.gangs.attempts("uid-bert") == [1]

            async def done() -> bool:
                return [await made.phase(key) for key in keys] == ["Succeeded", "Succeeded"]

            await made.until(done, 2000)
            assert made.fleet.gangs.doubled == made.fleet.gangs.fenced == 0
            [meeting] = made.fleet.gangs.meetings
            assert meeting.rendezvous.joins == 16
            assert meeting.rendezvous.refusals == 0
            assert not list(made.fleet.nodes[PAIR[0]].machine.physics.gangs())

    run(scenario)


def test_nobody_leaves_the_rendezvous_before_all_are_there() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(rank_pod("bert", 1, 0, PAIR))
            await made.seconds(30)
            [meeting] = made.fleet.gangs.meetings
            assert (meeting.rendezvous.joins, meeting.gang) == (8, None)
            await made.create(rank_pod("bert", 1, 1, PAIR))
            began = made.clock.now()
            await made.seconds(5)
            assert meeting.rendezvous.joins == 16
            # The last rank's start, exact to the event: container 1.5 s and process 2 s.
            assert meeting.rendezvous.complete_seconds == pytest.approx(began + 3.5)

    run(scenario)


def test_the_last_rank_to_come_says_when_the_gang_began_whatever_the_order_of_the_nodes() -> None:
    async def scenario(first: int) -> float:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(rank_pod("bert", 1, first, PAIR))
            await made.seconds(1)
            await made.create(rank_pod("bert", 1, 1 - first, PAIR))
            await made.seconds(6)
            [meeting] = made.fleet.gangs.meetings
            assert meeting.rendezvous.complete_seconds is not None
            return meeting.rendezvous.complete_seconds

    assert run(lambda: scenario(0)) == run(lambda: scenario(1))


def test_a_lost_node_ends_the_gang_and_the_next_attempt_goes_on_from_the_last_checkpoint() -> None:
    async def scenario() -> None:
        async with cluster(uniform_fleet(3, start=QUICK)) as made:
            await made.seconds(2)
            old = await start(made, 1, steps=100_000)
            await made.seconds(100)
            book = made.fleet.gangs
            saved = book.vault.latest("uid-bert")
            assert saved is not None
            crash_at = made.clock.now() + 0.5
            made.fleet.schedule(Failure(crash_at, PAIR[1], FailureKind.NODE_CRASH))
            await made.seconds(2)
            assert not list(book.running())
            assert await made.phase(old[0]) == "Running"  # its collective has not timed out yet
            await made.seconds(16)
            status = (await made.pod(old[0]))["status"]
            assert (status["phase"], status["reason"]) == ("Failed", "PeerLost")
            assert PAIR[1] in status["message"]
            for key in old:
                await made.delete(key, 1)
            await made.seconds(1)
            new = await start(made, 2, ("node-0000", "node-0002"), steps=100_000)
            await made.seconds(6)
            assert [await made.phase(key) for key in new] == ["Running", "Running"]
            assert book.attempts("uid-bert") == [1, 2]
            [running] = book.running()
            assert running.gang is not None
            saved = book.vault.latest("uid-bert")
            assert saved is not None
            assert running.gang.step == saved.step > 0
            assert book.doubled == 0

    run(scenario)


def test_ranks_of_an_old_attempt_are_fenced_once_a_newer_one_has_come() -> None:
    async def scenario() -> None:
        async with cluster(uniform_fleet(3, start=QUICK)) as made:
            await made.seconds(2)
            await start(made, 2)
            await made.seconds(6)
            # The same job's first attempt, delayed on its way: it must neither meet nor disturb.
            await made.create(rank_pod("bert", 1, 0, ("node-0002", "node-0002"), gpus=4))
            await made.seconds(6)
            status = (await made.pod("default/bert-a1-r0"))["status"]
            assert (status["phase"], status["reason"]) == ("Failed", "Fenced")
            assert "attempt 2" in status["message"]
            book = made.fleet.gangs
            assert (book.fenced, book.doubled, book.attempts("uid-bert")) == (1, 0, [2])
            assert len(list(book.running())) == 1

    run(scenario)


def test_a_wrong_rendezvous_id_is_refused() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(rank_pod("bert", 1, 0, PAIR))
            await made.seconds(5)
            await made.create(rank_pod("bert", 1, 1, PAIR, rendezvous="somebody-elses"))
            await made.seconds(6)
            status = (await made.pod("default/bert-a1-r1"))["status"]
            assert (status["phase"], status["reason"]) == ("Failed", "RendezvousRefused")
            assert made.fleet.gangs.attempts("uid-bert") == []

    run(scenario)


def test_two_gangs_of_one_job_at_once_are_counted() -> None:
    async def scenario() -> None:
        async with cluster(uniform_fleet(4, start=QUICK)) as made:
            await made.seconds(2)
            await start(made, 1, steps=100_000)
            await made.seconds(10)
            await start(made, 2, ("node-0002", "node-0003"), steps=100_000)
            await made.seconds(10)
            book = made.fleet.gangs
            assert book.doubled == 1
            await made.seconds(60)
            assert book.vault.fenced > 0  # what the old one saves is refused
            latest = book.vault.latest("uid-bert")
            assert latest is not None
            assert latest.attempt == 2

    run(scenario)


def test_stopping_a_gang_removes_its_pods_and_frees_its_devices_at_once() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            keys = await start(made, 1, steps=100_000)
            await made.seconds(20)
            for key in keys:
                await made.delete(key, 10)
            await made.seconds(1)
            assert [await made.gone(key) for key in keys] == [True, True]
            assert not list(made.fleet.gangs.running())
            again = await start(made, 2, steps=100_000)
            await made.seconds(6)
            assert [await made.phase(key) for key in again] == ["Running", "Running"]
            assert made.fleet.gangs.doubled == 0

    run(scenario)


def test_a_broken_gpu_ends_its_pod_at_once_and_its_peers_after_they_noticed() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            keys = await start(made, 1, steps=100_000)
            await made.seconds(20)
            made.fleet.schedule(Failure(made.clock.now() + 0.25, PAIR[0], FailureKind.GPU_XID, 3))
            await made.seconds(1)
            status = (await made.pod(keys[0]))["status"]
            assert (status["phase"], status["reason"]) == ("Failed", "GpuFault")
            assert await made.phase(keys[1]) == "Running"
            await made.seconds(16)
            assert await made.phase(keys[1]) == "Failed"

    run(scenario)

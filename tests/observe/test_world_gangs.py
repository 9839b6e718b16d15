"""Jobs and their gangs in the world: attempts, loss, progress, the end, and what is remembered of them."""

from __future__ import annotations

from typing import Any

from cluster.base import Ref
from cluster.training import GangPhase, JobPhase
from controller.observe.gangs import Progress
from tests.observe import objects as made
from tests.observe.objects import NOW, Play, node, rank_pod


def gang(play: Play, attempt: int = 1) -> Any:
    return play.live("gangs").get(f"shop/train-a{attempt}")


def job(play: Play) -> Any:
    return play.live("jobs")["shop/train"]


def up(*ranks: int, **more: Any) -> list[Any]:
    return [rank_pod(rank, **more) for rank in ranks]


def running() -> Play:
    play = Play(node("n1"), node("n2"), node("n3"), made.job(), *up(0, 1))
    for of in ("n1", "n2"):
        play.world.workloads.progress("shop/train-a1", of, Progress(4, 10, 5, "running"))
    play.tell()
    assert gang(play).phase is GangPhase.RUNNING
    return play


def test_a_gang_that_is_half_created_forms_until_it_is_whole() -> None:
    play = Play(node("n1"), node("n2"), made.job(), rank_pod(0))
    assert (gang(play).phase, gang(play).members_up, len(gang(play).members)) == (GangPhase.FORMING, 1, 1)
    assert (job(play).phase, job(play).attempt) == (JobPhase.ACTIVE, 1)
    play.tell(rank_pod(1), after=3.0)
    assert (gang(play).phase, gang(play).phase_since_seconds) == (GangPhase.VERIFYING, NOW + 3)
    assert {c.owner for c in play.live("claims").values()} == {Ref("TrainingJob", "shop/train")}


def test_progress_of_every_node_makes_a_gang_run() -> None:
    play = running()
    assert (gang(play).step, gang(play).checkpoint_step) == (10, 5)
    play.world.workloads.progress("shop/train-a1", "n1", Progress(4, 30, 20, "running"))
    assert play.tell() is False, "steps go by without a decision"
    assert gang(play).step == 10
    assert play.world.checkpoint_of("shop/train") == 5
    play.world.workloads.progress("shop/train-a1", "n2", Progress(4, 31, 21, "running"))
    play.tell()
    assert (gang(play).step, play.world.checkpoint_of("shop/train")) == (30, 20)


def test_a_lost_node_fails_the_gang_and_its_job_may_start_the_next_attempt() -> None:
    play = running()
    play.tell(node("n2", ready="Unknown"))
    assert gang(play).phase is GangPhase.FAILED
    assert (job(play).phase, job(play).attempt) == (JobPhase.WAITING, 1)


def test_a_deleted_node_fails_the_gang_too() -> None:
    play = running()
    play.gone("Node", "n2")
    assert gang(play).phase is GangPhase.FAILED


def test_an_older_attempt_is_on_its_way_out_as_soon_as_a_newer_one_has_a_pod() -> None:
    play = running()
    play.tell(rank_pod(0, attempt=2))
    assert gang(play).phase is GangPhase.STOPPING
    assert gang(play, 2).phase is GangPhase.FORMING
    assert job(play).attempt == 2
    for rank in (0, 1):
        play.gone("Pod", f"shop/train-a1-r{rank}")
    assert gang(play) is None
    assert (job(play).attempt, job(play).phase) == (2, JobPhase.ACTIVE)


def test_a_gang_that_is_done_ends_its_job() -> None:
    play = running()
    play.tell(*up(0, 1, phase="Succeeded"))
    assert (gang(play).phase, job(play).phase) == (GangPhase.DONE, JobPhase.DONE)
    assert play.live("claims") == {}
    for rank in (0, 1):
        play.gone("Pod", f"shop/train-a1-r{rank}")
    assert gang(play) is None
    assert job(play).phase is JobPhase.DONE, (
        "a finished job does not start again when its pods are cleared away"
    )


def test_what_was_told_of_a_gang_is_forgotten_with_its_pods() -> None:
    play = running()
    for rank in (0, 1):
        play.gone("Pod", f"shop/train-a1-r{rank}")
    play.world.workloads.progress("shop/train-a1", "n1", Progress(4, 99, 90, "running"))
    play.tell()
    assert play.live("gangs") == {}
    assert (
        dict(play.world.workloads.reported),
        play.world.workloads._memory,
        dict(play.world.workloads.gang_pods),
    ) == ({}, {}, {})


def test_the_attempt_in_the_status_counts_though_no_pod_was_ever_seen() -> None:
    play = Play(made.job(status={"attempt": 3, "checkpointStep": 44}))
    assert (job(play).attempt, job(play).phase) == (3, JobPhase.WAITING)
    assert play.world.checkpoint_of("shop/train") == 44
    assert play.world.checkpoint_of("shop/none") == 0


def test_a_job_waits_since_it_was_first_seen_and_its_namesake_anew() -> None:
    play = Play(made.job())
    play.tell(made.job(priority=5), after=10.0)
    assert job(play).waiting_since_seconds == NOW
    play.gone("TrainingJob", "shop/train", after=1.0)
    assert play.live("jobs") == {}
    play.tell(made.job(), after=1.0)
    assert job(play).waiting_since_seconds == NOW + 12
    other = made.job()
    renamed = type(other)(
        **{
            **{f: getattr(other, f) for f in other.__struct_fields__},
            "metadata": type(other.metadata)(name="train", namespace="shop", uid="other", generation=1),
        }
    )
    play.tell(renamed, after=1.0)
    assert job(play).waiting_since_seconds == NOW + 13


def test_a_job_that_becomes_invalid_is_not_decided_on() -> None:
    play = Play(made.job())
    play.tell(made.job(nodes={"min": 4, "max": 2}))
    assert play.live("jobs") == {}
    assert (
        "spec.nodes.min: min must not be greater than max"
        in play.world.faults["TrainingJob", "shop/train"][0]
    )

"""Training: whole gangs on one island, restarts from the checkpoint, nodes kept for who waits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster import actions as act
from cluster.hardware import Device, Offer, Slot
from cluster.plan import Plan
from cluster.reasons import render
from cluster.targets import Cadence, Queue
from cluster.training import CheckpointSpec, GangPhase, Job, JobPhase
from placement.training.degrees import degrees_for, state_bytes
from policies.train.island_gang import IslandGang, IslandGangConfig
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context

JOB = "lab/job"
GIB = 2**30


def train(made: ClusterBuilder, **config: Any) -> Plan:
    policy = IslandGang(IslandGangConfig(**config))
    plan = policy.decide(made.build(), policy.initial(), context(loop="train")).plan
    for reason in plan.reasons:
        assert render(reason)
    return plan


def of(plan: Plan, kind: type) -> list[Any]:
    return [action for action in plan.actions if isinstance(action, kind)]


def codes(plan: Plan) -> list[str]:
    return [reason.code for reason in plan.reasons]


def nodes_of(action: Any) -> list[str]:
    return [slot.node for slot in action.layout.slots]


def cluster(nodes: int = 4, gpus: int = 8, link: str = "infiniband") -> ClusterBuilder:
    return a_cluster().with_pool("h100-od", "H100").with_nodes(nodes, "h100-od", gpus=gpus, link=link)


# ------------------------------------------------------------------------------------------------------- islands

ISLANDS = [
    pytest.param(["ethernet", "roce", "infiniband"], "infiniband", id="InfiniBand before everything"),
    pytest.param(["ethernet", "roce"], "roce", id="RoCE before Ethernet"),
    pytest.param(["ethernet"], "ethernet", id="Ethernet when there is nothing else"),
]


@pytest.mark.parametrize(("links", "taken"), ISLANDS)
def test_the_fastest_kind_of_network_is_taken(links: list[str], taken: str):
    made = a_cluster().with_pool("h100-od", "H100")
    for link in links:
        made.with_nodes(3, "h100-od", link=link)
    (start,) = of(train(made.with_job(nodes=(2, 2))), act.StartGang)
    assert start.layout.network == taken
    assert start.attempt == 1
    assert start.expects[0].name == JOB
    assert len(start.layout.slots) == 2
    assert all(slot.gpus == 8 for slot in start.layout.slots)
    assert start.layout.tensor * start.layout.pipeline * start.layout.data == 16


def test_a_gang_never_mixes_products_or_islands():
    made = a_cluster()
    for pool, name in (("a100-od", "A100-80"), ("h100-od", "H100")):
        made.with_pool(pool, name).with_nodes(1, pool, link="infiniband", island="fabric")
    made.with_nodes(1, "h100-od", link="infiniband", island="other")
    plan = train(made.with_job(nodes=(2, 2)))
    assert of(plan, act.StartGang) == []
    waiting = next(r for r in plan.reasons if r.code == "GangWaiting")
    assert (waiting.need.value, waiting.have.value, waiting.limit.value) == (2, 1, 1)
    assert waiting.fact("gpus") == 8
    assert waiting.remedy.code == "FreeNodes"
    assert waiting.remedy.facts[0].value == 1


def test_only_allowed_products_are_taken():
    made = cluster().with_pool("a100-od", "A100-80").with_nodes(2, "a100-od", link="ethernet")
    (start,) = of(train(made.with_job(nodes=(2, 2), accelerators=("A100-80",))), act.StartGang)
    assert all(name.startswith("a100") for name in nodes_of(start))


def test_as_many_nodes_as_allowed_and_free_that_divide_the_batch():
    made = cluster(nodes=4).with_claim("other/pod", "h100-od-3", 0)
    (start,) = of(train(made.with_job(nodes=(1, 4), global_batch=512)), act.StartGang)
    assert len(start.layout.slots) == 2, "three nodes would be 24 ranks, which do not divide 512"
    (start,) = of(train(cluster(nodes=3).with_job(nodes=(1, 4), global_batch=480)), act.StartGang)
    assert len(start.layout.slots) == 3


def test_a_batch_that_nothing_divides_is_told():
    plan = train(cluster().with_job(nodes=(2, 3), global_batch=7, micro_batch=2))
    assert codes(plan) == ["GangIndivisible"]


def test_a_finer_cut_than_needed_is_taken_only_where_nothing_else_divides():
    (start,) = of(train(cluster().with_job(nodes=(3, 3), global_batch=512)), act.StartGang)
    assert (start.layout.pipeline, start.layout.data) == (3, 8)


def test_partly_used_nodes_serve_small_gangs_and_whole_ones_are_left():
    made = cluster(nodes=3).with_claim("other/a", "h100-od-0", 0, 1, 2, 3).with_job(nodes=(1, 1), gpus=4)
    (start,) = of(train(made), act.StartGang)
    assert nodes_of(start) == ["h100-od-0"]
    assert start.layout.slots[0].devices == (4, 5, 6, 7)


ABSENT = [
    pytest.param({"suspended": True}, id="suspended"),
    pytest.param({"phase": JobPhase.DONE}, id="done"),
    pytest.param({"phase": JobPhase.FAILED}, id="failed"),
    pytest.param({"failures": 11}, id="out of attempts"),
]


@pytest.mark.parametrize("job", ABSENT)
def test_not_started_when(job: dict[str, Any]):
    assert of(train(cluster().with_job(**job)), act.StartGang) == []


def test_jobs_start_in_order_of_priority_then_waiting_then_name():
    made = cluster(nodes=2)
    made.with_job("lab/young", nodes=(1, 1)).with_job(
        "lab/old", nodes=(1, 1), waiting_since_seconds=NOW - 999.0
    )
    made.with_job("lab/urgent", nodes=(1, 1), priority=5)
    plan = train(made)
    assert [a.job.name for a in of(plan, act.StartGang)] == ["lab/urgent", "lab/old"]
    (queue,) = (t for t in plan.targets if isinstance(t, Queue))
    assert queue.order == ("lab/young",)


# --------------------------------------------------------------------------------------------------------- degrees

CUTS = [
    pytest.param(8, 1, (1, 1, 8), id="a small model is only copied"),
    pytest.param(8, 2, (1, 1, 16), id="on two nodes as well"),
]


@pytest.mark.parametrize(("gpus", "nodes", "wanted"), CUTS)
def test_a_model_is_cut_no_more_than_its_state_demands(gpus: int, nodes: int, wanted: tuple[int, int, int]):
    job: Job = cluster().with_job(nodes=(1, 4), gpus=gpus).parts["jobs"][JOB]
    found = degrees_for(job, nodes, 80 * GIB)
    assert found is not None
    assert (found.tensor, found.pipeline, found.data) == wanted


def test_a_large_model_is_cut_until_it_fits():
    job = cluster().with_job(nodes=(1, 4)).parts["jobs"][JOB]
    big = msgspec.structs.replace(job, shape=msgspec.structs.replace(job.shape, layers=80, hidden_size=8_192))
    found = degrees_for(big, 4, 80 * GIB)
    assert found is not None
    assert found.tensor * found.pipeline > 1
    assert found.tensor * found.pipeline * found.data == 32
    assert sum(found.layers_per_stage) == 80
    assert state_bytes(big.shape, found.tensor * found.pipeline, found.data) <= 0.8 * 80 * GIB
    assert degrees_for(big, 1, 16 * GIB) is None


# -------------------------------------------------------------------------------------------------------- restarts


def gang(phase: GangPhase = GangPhase.RUNNING, nodes: int = 4, **job: Any) -> ClusterBuilder:
    made = cluster(nodes=nodes).with_job(nodes=(2, 2), **job)
    return made.with_gang(JOB, ("h100-od-0", "h100-od-1"), phase)


LOSSES = [
    pytest.param({"offer": Offer.LOST}, id="its node is lost"),
    pytest.param({"offer": Offer.ISOLATED}, id="its node is isolated"),
    pytest.param({"offer": Offer.RECLAIMING}, id="its node is being reclaimed"),
    pytest.param(
        {"devices": tuple(Device(uuid=str(i), index=i, healthy=i != 3) for i in range(8))},
        id="one of its GPUs is ill",
    ),
]


@pytest.mark.parametrize("change", LOSSES)
def test_a_gang_restarts_on_a_new_node_when_a_member_is_gone_because(change: dict[str, Any]):
    made = gang().changing("nodes", "h100-od-1", **change)
    (restart,) = of(train(made), act.RestartGang)
    assert restart.attempt == 2
    assert restart.restore_step == 100
    assert restart.gang.name == f"{JOB}-a1"
    assert nodes_of(restart)[0] == "h100-od-0", "the healthy member keeps its rank and slot"
    assert nodes_of(restart)[1] in {"h100-od-2", "h100-od-3"}


def test_a_restart_tells_how_much_work_is_lost():
    plan = train(gang().changing("nodes", "h100-od-1", offer=Offer.LOST))
    (reason,) = (r for r in plan.reasons if r.code == "GangRestarted")
    assert reason.fact("lost") == 20
    assert reason.have.value == 100


def test_a_cordon_chases_no_gang_away():
    made = gang().changing("nodes", "h100-od-1", offer=Offer.CORDONED)
    assert of(train(made), act.RestartGang) == []


def test_a_failed_attempt_restarts_where_it_was():
    (restart,) = of(train(gang(GangPhase.FAILED)), act.RestartGang)
    assert nodes_of(restart) == ["h100-od-0", "h100-od-1"]


def test_a_gang_with_no_spare_in_its_island_moves_as_a_whole():
    made = (
        gang(nodes=2).with_nodes(2, "h100-od", link="roce").changing("nodes", "h100-od-1", offer=Offer.LOST)
    )
    (restart,) = of(train(made), act.RestartGang)
    assert sorted(nodes_of(restart)) == ["h100-od-2", "h100-od-3"]
    assert restart.layout.network == "roce"


def test_an_elastic_gang_goes_on_with_fewer():
    made = cluster(nodes=2).with_job(nodes=(1, 2)).with_gang(JOB, ("h100-od-0", "h100-od-1"))
    (restart,) = of(train(made.changing("nodes", "h100-od-1", offer=Offer.LOST)), act.RestartGang)
    assert nodes_of(restart) == ["h100-od-0"]
    assert restart.layout.data == 8


def test_with_nowhere_to_go_the_rest_is_freed_and_the_job_waits():
    plan = train(gang(nodes=2).changing("nodes", "h100-od-1", offer=Offer.LOST))
    assert of(plan, act.RestartGang) == []
    (stop,) = of(plan, act.StopGang)
    assert not stop.checkpoint_first
    assert "GangWaiting" in codes(plan)


def test_the_restart_limit_ends_it():
    made = gang(GangPhase.FAILED, restart_limit=0)
    plan = train(made)
    assert of(plan, act.RestartGang) == []
    assert "RestartLimitReached" in codes(plan)
    assert len(of(plan, act.StopGang)) == 1


def test_what_was_suspended_does_not_count_towards_the_limit():
    waiting = cluster().with_job(attempt=30, failures=1, restart_limit=1)
    assert [start.attempt for start in of(train(waiting), act.StartGang)] == [31]


def test_an_attempt_that_failed_is_counted_once():
    counted = gang(GangPhase.FAILED, restart_limit=1).changing("jobs", JOB, failures=1, failed_attempt=1)
    (restart,) = of(train(counted), act.RestartGang)
    after = counted.build().after(msgspec.structs.replace(train(counted), actions=(restart,)))
    assert (after.jobs[JOB].failures, after.jobs[JOB].failed_attempt) == (1, 1)
    fresh = gang(GangPhase.FAILED, restart_limit=1)
    after = fresh.build().after(train(fresh))
    assert (after.jobs[JOB].failures, after.jobs[JOB].failed_attempt) == (1, 1)


def test_what_was_never_bound_whole_is_no_failure_of_the_job():
    made = gang(GangPhase.FORMING, restart_limit=0)
    made.changing("gangs", f"{JOB}-a1", phase_since_seconds=NOW - 11.0)
    made.changing("claims", f"{JOB}-a1-r1", phase="pending")
    (restart,) = of(train(made), act.RestartGang)
    assert not restart.failed


STUCK = [
    pytest.param(GangPhase.FORMING, 9.0, "pending", False, id="not bound, but not late"),
    pytest.param(GangPhase.FORMING, 10.0, "pending", True, id="not bound in time"),
    pytest.param(GangPhase.FORMING, 300.0, "running", False, id="bound, still loading"),
    pytest.param(GangPhase.FORMING, 600.0, "running", True, id="forming for too long"),
    pytest.param(GangPhase.VERIFYING, 299.0, "running", False, id="checking its network"),
    pytest.param(GangPhase.VERIFYING, 300.0, "running", True, id="checking its network for too long"),
]


@pytest.mark.parametrize(("phase", "age", "claim", "restarts"), STUCK)
def test_a_gang_is_replanned_when(phase: GangPhase, age: float, claim: str, restarts: bool):
    made = gang(phase).changing("gangs", f"{JOB}-a1", phase_since_seconds=NOW - age)
    made.changing("claims", f"{JOB}-a1-r1", phase=claim)
    found = of(train(made), act.RestartGang)
    assert bool(found) is restarts
    if restarts and claim == "pending":
        assert "h100-od-1" not in nodes_of(found[0])


def test_an_attempt_with_members_missing_is_replanned():
    """The operator died between two pods of the gang: all or nothing."""
    made = gang(GangPhase.FORMING)
    layout = made.parts["gangs"][f"{JOB}-a1"].layout
    made.changing(
        "gangs", f"{JOB}-a1", layout=msgspec.structs.replace(layout, slots=layout.slots[:1]), members=()
    )
    (restart,) = of(train(made), act.RestartGang)
    assert len(restart.layout.slots) == 2


def test_only_the_newest_attempt_counts():
    made = gang().with_gang(JOB, ("h100-od-2", "h100-od-3"), attempt=2)
    made.changing("gangs", f"{JOB}-a1", phase=GangPhase.STOPPING).changing(
        "nodes", "h100-od-0", offer=Offer.LOST
    )
    assert of(train(made), act.RestartGang) == []


# -------------------------------------------------------------------------------------------- stops and checkpoints


def test_a_suspended_job_is_stopped_with_a_checkpoint_once():
    made = gang(suspended=True)
    (stop,) = of(train(made), act.StopGang)
    assert stop.checkpoint_first
    assert stop.attempt == 1
    for rank in range(2):
        made.changing("claims", f"{JOB}-a1-r{rank}", phase="stopping")
    assert of(train(made), act.StopGang) == []


def test_a_running_job_saves_as_often_as_asked_within_its_bounds():
    made = gang(
        checkpoint=CheckpointSpec(interval_seconds=5.0, min_interval_seconds=30.0, max_interval_seconds=900.0)
    )
    plan = train(made)
    (checkpoint,) = of(plan, act.Checkpoint)
    assert checkpoint.interval_seconds == 30.0
    (cadence,) = (t for t in plan.targets if isinstance(t, Cadence))
    assert of(train(made.with_target(cadence)), act.Checkpoint) == []


def test_a_finished_job_is_told_and_left_alone():
    plan = train(gang(GangPhase.DONE))
    assert plan.actions == ()
    assert codes(plan) == ["GangDone"]


# ------------------------------------------------------------------------------------------------------ reservations


def busy() -> ClusterBuilder:
    """Two nodes; a replica of lower priority sits on one of them."""
    made = cluster(nodes=2).with_service("shop/chat", "H100")
    made.with_replica("shop/chat", "H100", "h100-od-0").with_job(nodes=(2, 2), priority=3)
    return made


def test_what_is_free_of_a_waiting_jobs_nodes_is_kept_for_it():
    plan = train(busy())
    assert of(plan, act.StartGang) == []
    (reserve,) = of(plan, act.Reserve)
    assert {slot.node: slot.gpus for slot in reserve.slots} == {"h100-od-0": 7, "h100-od-1": 8}
    assert reserve.owner.name == JOB
    assert "GangWaiting" in codes(plan)


def test_a_reservation_is_renewed_only_when_it_changes_or_runs_out():
    (reserve,) = of(train(busy()), act.Reserve)
    made = busy().with_reservation(reserve.key, JOB, *reserve.slots, seconds=100.0)
    assert of(train(made), act.Reserve) == []
    made = busy().with_reservation(reserve.key, JOB, *reserve.slots, seconds=50.0)
    assert len(of(train(made), act.Reserve)) == 1


def test_the_owner_starts_on_what_was_kept_for_it_and_gives_the_rest_back():
    made = cluster(nodes=2).with_job(nodes=(2, 2))
    slots = tuple(Slot(node=n, devices=tuple(range(8))) for n in ("h100-od-0", "h100-od-1"))
    plan = train(made.with_reservation(f"train/{JOB}", JOB, *slots))
    assert [action.kind for action in plan.actions] == ["StartGang", "Release"]


def test_nobody_else_starts_on_what_is_kept():
    made = cluster(nodes=1).with_job("lab/other", nodes=(1, 1)).with_job(JOB, nodes=(1, 1), suspended=True)
    made.with_reservation("spare/keep", JOB, Slot(node="h100-od-0", devices=(0,)))
    assert of(train(made), act.StartGang) == []


def test_reservations_of_jobs_that_are_gone_are_released():
    made = cluster(nodes=1).with_reservation(
        "train/lab/gone", "lab/gone", Slot(node="h100-od-0", devices=(0,))
    )
    plan = train(made)
    assert [action.kind for action in plan.actions] == ["Release"]

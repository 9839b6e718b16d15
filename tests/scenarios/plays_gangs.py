"""Gangs in trouble: members that are not bound, nodes that come back with old ranks; one attempt a rendezvous."""

from __future__ import annotations

from tests.scenarios.plays_training import BERT, BERT_JOB, BLOCKER, attempts, job_uid, over, step
from tests.scenarios.props import fleet, job, manifests
from tests.scenarios.scenario import Scenario
from tests.scenarios.seen import node_of
from tests.scenarios.stage import Stage

BIND_SECONDS = 10
"""A gang not wholly bound by then is taken away (DESIGN §3.3)."""


async def room_for_pods(stage: Stage, node: str, pods: int) -> None:
    """A kubelet offers so many pods: the scheduler counts them, the planner does not."""
    patch = {"status": {"allocatable": {"pods": str(pods)}}}
    await stage.patch("Node", node, patch, subresource="status")


def joins(stage: Stage, attempt: int) -> int:
    """Ranks of an attempt that were let in at its rendezvous."""
    counted = stage.cluster.fleet.gangs.attendance.let_in
    return sum(n for (identity, of), n in counted.items() if of == attempt and job_uid(stage) in identity)


# --------------------------------------------------------------------------------------------- bound only in part


async def _partial(stage: Stage) -> None:
    for name in ("h100-00", "h100-01", "h100-02"):
        await room_for_pods(stage, name, 0)
    await stage.apply(job("bert", steps=300))
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 20, "both pods of the first attempt")
    first, second = (pod["spec"]["affinity"] for pod in stage.seen.pods(BERT))
    bound, waits = (
        each["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0][
            "matchFields"
        ][0]["values"][0]
        for each in (first, second)
    )
    for name in {"h100-00", "h100-01", "h100-02"} - {waits}:
        await room_for_pods(stage, name, 110)
    await stage.until(
        lambda _: joins(stage, 1) == 2, BIND_SECONDS - 2, f"the ranks on {bound} wait for the others"
    )
    assert not attempts(stage), "nobody leaves the rendezvous before all are there"
    names = {pod["metadata"]["name"] for pod in stage.seen.pods(BERT)}
    await stage.until(
        lambda seen: not names & {p["metadata"]["name"] for p in seen.pods(BERT)},
        2 * BIND_SECONDS,
        "the attempt that was bound in part is gone as a whole",
    )
    await stage.until(lambda _: attempts(stage) == [2], 60, "the next attempt has met, elsewhere")
    assert waits not in {node_of(pod) for pod in stage.seen.pods(BERT)}
    assert (joins(stage, 1), joins(stage, 2)) == (2, 4)
    await room_for_pods(stage, waits, 110)
    await stage.until(over, 200, "it has succeeded")
    assert stage.seen.status("TrainingJob", BERT)["restarts"] == 0, "what was never bound whole is no failure"


PARTIAL = Scenario(
    name="gang bound in part",
    fleet=fleet(h100=3),
    manifests=manifests(),
    script=_partial,
    final={BERT_JOB: {"status.phase": "Succeeded", "status.attempt": 2, "status.restarts": 0}},
    events={BERT: frozenset({"GangUnbound", "GangRestarted", "GangDone"})},
    actions={"StartGang": 1, "RestartGang": 1},
    converges=False,  # the script counts attempts
)


# ------------------------------------------------------------------------- a node comes back with ranks still alive


async def _comes_back(stage: Stage) -> None:
    """A node is cut off before its ranks have met the others; they come when the next attempt has met long ago."""
    nodes = stage.cluster.fleet.nodes
    await stage.until(
        lambda seen: len([p for p in seen.pods(BERT) if node_of(p) and nodes[node_of(p)].kubelet.runs]) == 2,
        20,
        "both kubelets have their pod",
    )
    silent = node_of(stage.seen.pods(BERT)[1])
    await stage.cut_off(silent)
    await stage.until(lambda _: attempts(stage) == [2], 90, "the next attempt has met elsewhere")
    assert joins(stage, 1) == 2, "the ranks of the node that was left waited alone"
    await stage.until(lambda _: step(stage) >= 20, 60, "it works")
    stage.rejoin(silent)
    await stage.seconds(3)
    assert stage.cluster.fleet.gangs.fenced, "the old ranks came, and were turned away"
    assert (joins(stage, 1), joins(stage, 2)) == (2, 4)
    await stage.until(over, 200, "it has succeeded")
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 60, "only the attempt that succeeded is left")


COMES_BACK = Scenario(
    name="gang member comes back with old ranks",
    fleet=fleet(h100=3),
    manifests=manifests(job("bert", steps=300)),
    script=_comes_back,
    final={BERT_JOB: {"status.phase": "Succeeded", "status.attempt": 2, "status.restarts": 1}},
    events={BERT: frozenset({"GangRestarted", "GangDone"})},
    actions={"StartGang": 1, "RestartGang": 1},
    converges=False,
)


# ------------------------------------------------------------------- suspended again and again: no failure of the job


async def _paused(stage: Stage) -> None:
    for _ in range(2):
        met = len(attempts(stage))
        await stage.until(lambda _, met=met: len(attempts(stage)) > met, 60, "it runs")
        await stage.seconds(8)
        await stage.patch("TrainingJob", BERT, {"spec": {"suspend": True}})
        await stage.until(lambda seen: not seen.pods(BERT), 60, "it is suspended")
        await stage.patch("TrainingJob", BERT, {"spec": {"suspend": False}})
    await stage.until(over, 300, "it goes on, though it may not fail even once")


PAUSED = Scenario(
    name="suspended twice without a restart to spare",
    fleet=fleet(h100=2),
    manifests=manifests(job("bert", "restartLimit: 0", steps=300)),
    script=_paused,
    final={BERT_JOB: {"status.phase": "Succeeded", "status.attempt": 3, "status.restarts": 0}},
    never=frozenset({"RestartLimitReached", "GangRestarted"}),
    actions={"StartGang": 3, "StopGang": 2},
    converges=False,
)


# ------------------------------------------------------------------------ no room for the next attempt: counted once


async def _counted(stage: Stage) -> None:
    await stage.until(lambda _: step(stage) >= 30, 90, "it works")
    lost = node_of(stage.seen.pods(BERT)[1])
    stage.fail(lost)
    await stage.until(
        lambda seen: seen.status("TrainingJob", BERT).get("restarts") == 1, 90, "the lost attempt is counted"
    )
    await stage.seconds(30)
    assert stage.seen.status("TrainingJob", BERT)["restarts"] == 1, "and counted once"
    await stage.delete("Pod", "lab/blocker")
    await stage.until(over, 300, "it goes on where there is room again")
    await stage.recover(lost)
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 60, "nothing of the lost attempt is left")


COUNTED = Scenario(
    name="gang that must wait after a failure",
    fleet=fleet(h100=3),
    manifests=manifests(BLOCKER.replace("h100-01", "h100-00"), job("bert", "restartLimit: 1", steps=200)),
    script=_counted,
    final={BERT_JOB: {"status.phase": "Succeeded", "status.restarts": 1}},
    converges=False,
)

ALL = [PARTIAL, COMES_BACK, PAUSED, COUNTED]

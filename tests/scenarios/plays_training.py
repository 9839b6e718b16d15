"""Training: gangs that start whole, lose nodes, wait, are suspended, and give up."""

from __future__ import annotations

import re

from tests.scenarios.props import fleet, job, manifests, service
from tests.scenarios.scenario import Scenario
from tests.scenarios.seen import Seen, node_of
from tests.scenarios.stage import Stage

BERT = "lab/bert"
BERT_JOB = f"TrainingJob/{BERT}"
CHAT = "shop/chat"


BLOCKER = """
apiVersion: v1
kind: Pod
metadata: {name: blocker, namespace: lab}
spec:
  nodeName: h100-01
  containers:
    - name: main
      image: busybox:1
      resources: {limits: {nvidia.com/gpu: "1"}}
"""


def job_uid(stage: Stage) -> str:
    """The job's uid."""
    return str(stage.seen.objects["TrainingJob"][BERT]["metadata"]["uid"])


def attempts(stage: Stage) -> list[int]:
    """Attempts of the job whose ranks all met."""
    return stage.cluster.fleet.gangs.attempts(job_uid(stage))


def step(stage: Stage) -> int:
    """The step of the gang that runs now, -1 when none does."""
    running = [m.gang for m in stage.cluster.fleet.gangs.running() if m.gang is not None]
    return max((gang.progress_at(stage.now).step for gang in running), default=-1)


def over(seen: Seen) -> bool:
    """Whether the job has succeeded, and its pods too."""
    return seen.phase("TrainingJob", BERT) == "Succeeded"


def environment(pod: dict) -> dict[str, str]:
    """What the ranks of a pod are told."""
    return {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}


# --------------------------------------------------------------------------------------------------- one gang


async def _gang(stage: Stage) -> None:
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 20, "both pods, at once")
    pods = stage.seen.pods(BERT)
    told = [environment(pod) for pod in pods]
    attempt = told[0]["PLIMSOLL_ATTEMPT"]
    assert [e["NODE_RANK"] for e in told] == ["0", "1"]
    assert [e["RANK"] for e in told] == ["0", "2"]
    assert {(e["NNODES"], e["NPROC_PER_NODE"], e["WORLD_SIZE"]) for e in told} == {("2", "2", "4")}
    assert {e["RDZV_ID"] for e in told} == {f"{job_uid(stage)}-a{attempt}"}
    assert {e["RDZV_ENDPOINT"] for e in told} == {f"bert-a{attempt}-r0.bert-ranks.lab.svc:29400"}
    assert len({pod["metadata"]["name"] for pod in pods}) == 2
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 30, "it runs")
    assert stage.seen.status("TrainingJob", BERT)["gpus"] == 4
    await stage.until(over, 120, "it has succeeded")


GANG = Scenario(
    name="gang",
    fleet=fleet(h100=2),
    manifests=manifests(job("bert")),
    script=_gang,
    final={
        BERT_JOB: {
            "status.phase": "Succeeded",
            "status.step": 60,
            "status.gpus": 0,
            "conditions.Succeeded.status": "True",
            "conditions.Succeeded.message": "Step 60 of 60.",
            "conditions.Planned.message": re.compile(r"^finished 60 steps of 60 steps after"),
        }
    },
    events={BERT: frozenset({"GangStarted", "GangDone"})},
    actions={"StartGang": 1},
    never=frozenset({"GangRestarted", "GangWaiting"}),
)


# ----------------------------------------------------------------------------------------------- a node is lost


async def _node_loss(stage: Stage) -> None:
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 40, "it runs")
    await stage.until(lambda _: step(stage) >= 60, 60, "it has saved some steps")
    before = stage.seen.pods(BERT)
    rendezvous = environment(before[0])["RDZV_ID"]
    met = attempts(stage)
    lost = node_of(before[1])
    stage.fail(lost)
    await stage.until(lambda _: len(attempts(stage)) > len(met), 90, "another attempt has met")
    after = [p for p in stage.seen.pods(BERT) if environment(p)["RDZV_ID"] != rendezvous]
    assert len(after) == 2
    assert not {p["metadata"]["name"] for p in before} & {p["metadata"]["name"] for p in after}
    assert lost not in {node_of(pod) for pod in after}
    resumed = int(environment(after[0])["PLIMSOLL_RESTORE_STEP"])
    assert resumed > 0, "the work since the last checkpoint is lost, the work before is not"
    await stage.recover(lost)
    await stage.until(over, 200, "it has succeeded")
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 60, "nothing of the lost attempt is left")
    assert attempts(stage) == sorted(set(attempts(stage)))


NODE_LOSS = Scenario(
    name="gang loses a node",
    fleet=fleet(h100=3),
    manifests=manifests(job("bert", steps=400)),
    script=_node_loss,
    final={BERT_JOB: {"status.phase": "Succeeded", "status.step": 400}},
    events={BERT: frozenset({"GangStarted", "GangRestarted", "GangDone"})},
    actions={"StartGang": 1, "RestartGang": 1},
)


# ------------------------------------------------------------------------- no other node, and the lost one stays away


async def _no_spare(stage: Stage) -> None:
    """What is left of the attempt lies on a dead node for ever; the job goes on as soon as another node is free."""
    await stage.until(lambda _: step(stage) >= 60, 90, "it has saved some steps")
    met = attempts(stage)
    stage.fail(node_of(stage.seen.pods(BERT)[1]))
    await stage.seconds(60)
    assert attempts(stage) == met, "there is no node for another attempt"
    await stage.restart()
    await stage.seconds(5)
    await stage.delete("Pod", "lab/blocker")
    await stage.until(over, 300, "another attempt has met on the node that became free, and succeeded")


NO_SPARE = Scenario(
    name="gang without a spare node",
    fleet=fleet(h100=3),
    manifests=manifests(BLOCKER.replace("h100-01", "h100-00"), job("bert", steps=300)),
    script=_no_spare,
    final={BERT_JOB: {"status.phase": "Succeeded"}},
    events={BERT: frozenset({"GangStarted", "GangDone"})},
    converges=False,
)


# ---------------------------------------------------------------------------------------- old ranks stay outside


async def _fenced(stage: Stage) -> None:
    """The network of one node breaks: its ranks go on alone, and may not come back into the next attempt."""
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 40, "it runs")
    await stage.until(lambda _: step(stage) >= 30, 60, "it works")
    met = attempts(stage)
    silent = node_of(stage.seen.pods(BERT)[1])
    await stage.partition(silent)
    await stage.until(lambda _: len(attempts(stage)) > len(met), 90, "another attempt has met elsewhere")
    stage.heal(silent)
    await stage.until(over, 200, "it has succeeded")
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 60, "only the attempt that succeeded is left")


FENCED = Scenario(
    name="gang member partitioned",
    fleet=fleet(h100=3),
    manifests=manifests(job("bert", steps=400)),
    script=_fenced,
    final={BERT_JOB: {"status.phase": "Succeeded"}},
    events={BERT: frozenset({"GangRestarted"})},
    converges=False,  # an operator that never heard of the node does not miss it: its kubelet says it is well
)


# -------------------------------------------------------------------------------------------- it does not fit yet


async def _waits(stage: Stage) -> None:
    await stage.until(
        lambda seen: seen.condition("TrainingJob", BERT, "Planned").get("reason") == "GangWaiting",
        30,
        "it waits",
    )
    await stage.seconds(10)
    assert not stage.seen.pods(BERT), "half a gang was started"
    text = stage.seen.condition("TrainingJob", BERT, "Planned")["message"]
    assert re.search(
        r"waits for 2 (whole )?nodes.* with 2 GPU each on one network; the best island has 1 nodes? free of 2",
        text,
    ), text
    await stage.delete("Pod", "lab/blocker")
    await stage.until(over, 200, "it starts when the node is free, and succeeds")


WAITS = Scenario(
    name="gang that does not fit waits",
    fleet=fleet(h100=2),
    manifests=manifests(BLOCKER, job("bert")),
    script=_waits,
    final={BERT_JOB: {"status.phase": "Succeeded"}},
    events={BERT: frozenset({"GangWaiting", "GangStarted", "GangDone"})},
    actions={"StartGang": 1},
)


# ---------------------------------------------------------------------------------------------------- suspended


async def _suspended(stage: Stage) -> None:
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 40, "it runs")
    await stage.until(lambda _: step(stage) >= 60, 60, "it has saved some steps")
    await stage.patch("TrainingJob", BERT, {"spec": {"suspend": True}})
    await stage.until(
        lambda seen: not seen.pods(BERT) and seen.phase("TrainingJob", BERT) == "Suspended",
        60,
        "it is suspended",
    )
    saved = int(stage.seen.status("TrainingJob", BERT)["checkpointStep"])
    assert saved > 0
    await stage.seconds(15)
    assert not stage.seen.pods(BERT)
    await stage.patch("TrainingJob", BERT, {"spec": {"suspend": False}})
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 30, "it goes on")
    assert int(environment(stage.seen.pods(BERT)[0])["PLIMSOLL_RESTORE_STEP"]) == saved
    await stage.until(over, 200, "it has succeeded")


SUSPENDED = Scenario(
    name="suspend",
    fleet=fleet(h100=2),
    manifests=manifests(job("bert", steps=300)),
    script=_suspended,
    final={BERT_JOB: {"status.phase": "Succeeded"}},
    events={BERT: frozenset({"GangStopped", "GangStarted", "GangDone"})},
    actions={"StartGang": 2, "StopGang": 1},
)


# ------------------------------------------------------------------------------------------------ restart limit


async def _limit(stage: Stage) -> None:
    """Whatever it starts on breaks, until it may not start again."""
    for _ in range(2):
        met = len(attempts(stage))
        await stage.until(lambda _, met=met: len(attempts(stage)) > met, 90, "an attempt has met")
        await stage.seconds(3)
        running = [p for p in stage.seen.pods(BERT) if p["status"].get("phase") == "Running"]
        lost = node_of(running[-1])
        stage.fail(lost)
        await stage.seconds(2)
        await stage.recover(lost)
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Failed", 120, "it has failed")
    await stage.seconds(15)
    assert stage.seen.phase("TrainingJob", BERT) == "Failed"
    assert {pod["status"]["phase"] for pod in stage.seen.pods(BERT)} == {"Failed"}
    assert not stage.operator.observer.live("claims")
    assert max(attempts(stage)) == 2


LIMIT = Scenario(
    name="restart limit",
    fleet=fleet(h100=2),
    manifests=manifests(job("bert", "restartLimit: 1", steps=5000)),
    script=_limit,
    final={BERT_JOB: {"status.phase": "Failed", "status.gpus": 0, "conditions.Succeeded.status": "False"}},
    events={BERT: frozenset({"GangRestarted", "RestartLimitReached"})},
    actions={"StartGang": 1, "RestartGang": 1},
    converges=False,
)


# --------------------------------------------------------------------------------------------------- deleted


async def _deleted(stage: Stage) -> None:
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 40, "it runs")
    await stage.delete("TrainingJob", BERT)
    await stage.until(lambda seen: not seen.pods(BERT), 60, "its pods are gone")
    assert not stage.operator.observer.live("gangs")
    await stage.until(lambda seen: seen.ready(CHAT) == 1, 60, "the service that waited has its GPU")


DELETED = Scenario(
    name="job deleted",
    fleet=fleet(h100=2),
    manifests=manifests(
        job("bert", "priority: 20", steps=5000), service("chat", "minReplicas: 1", on="h100")
    ),
    script=_deleted,
    final={"ModelService/shop/chat": {"status.phase": "Serving"}},
    actions={"StartGang": 1, "CreateReplica": 1},
)


# --------------------------------------------------------------------------------------------- a member is evicted


async def _evicted(stage: Stage) -> None:
    """Somebody deletes one pod of the gang: the gang starts again, whole."""
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 40, "it runs")
    await stage.until(lambda _: step(stage) >= 30, 60, "it works")
    met = len(attempts(stage))
    await stage.delete("Pod", f"lab/{stage.seen.pods(BERT)[0]['metadata']['name']}")
    await stage.until(lambda _: len(attempts(stage)) > met, 90, "the next attempt has met")
    await stage.until(over, 200, "it has succeeded")


EVICTED = Scenario(
    name="gang member evicted",
    fleet=fleet(h100=2),
    manifests=manifests(job("bert", steps=300)),
    script=_evicted,
    final={BERT_JOB: {"status.phase": "Succeeded"}},
    events={BERT: frozenset({"GangRestarted"})},
    actions={"StartGang": 1, "RestartGang": 1},
)


# --------------------------------------------------------------------------------- on GPUs that lesser services have


async def _preempts(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready(CHAT) == 3, 60, "the service has three of four GPUs")
    await stage.apply(job("bert", "priority: 50"))
    await stage.until(over, 200, "the gang got its nodes, and has succeeded")
    await stage.until(lambda seen: seen.ready(CHAT) == 3, 90, "the service has them back")


PREEMPTS = Scenario(
    name="gang before a lesser service",
    fleet=fleet(h100=2),
    manifests=manifests(service("chat", "minReplicas: 3", on="h100")),
    script=_preempts,
    final={BERT_JOB: {"status.phase": "Succeeded"}, "ModelService/shop/chat": {"status.phase": "Serving"}},
    events={BERT: frozenset({"GangStarted", "GangWaiting"})},
)

ALL = [GANG, NODE_LOSS, NO_SPARE, FENCED, WAITS, SUSPENDED, LIMIT, DELETED, EVICTED, PREEMPTS]

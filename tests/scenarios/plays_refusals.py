"""What a quota refuses: told in the server's sentence, tried rarely, a gang taken back wholly; and what comes of room."""

from __future__ import annotations

from collections import Counter

from controller.resources.core_bounds import RESOURCE_QUOTA
from tests.scenarios.plays_serving import settled
from tests.scenarios.props import fleet, job, manifests, service
from tests.scenarios.scenario import Scenario
from tests.scenarios.stage import Stage

CHAT, BERT = "shop/chat", "lab/bert"
WATCHED_SECONDS = 120
MOST_TRIES = 6
"""Pods asked for in the first two minutes of a refusal: the first two together, then after 20, 40 and 80 s."""


async def allow(stage: Stage, namespace: str, gpus: int) -> None:
    """A quota of so many GPUs, made or changed, and counted where somebody counts it."""
    store, hard = stage.cluster.store, {"requests.nvidia.com/gpu": str(gpus)}
    quotas = (await store.list(RESOURCE_QUOTA, namespace)).items
    if quotas:
        await store.patch(RESOURCE_QUOTA, "gpus", {"spec": {"hard": hard}}, namespace, field_manager="user")
    else:
        made = {"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": hard}}
        await store.create(
            RESOURCE_QUOTA,
            made | {"metadata": {"name": "gpus", "namespace": namespace}},
            field_manager="user",
        )
    for _ in range(100 if store.capabilities.runs_controllers else 0):
        found = await store.get(RESOURCE_QUOTA, "gpus", namespace)
        if found.get("status", {}).get("hard") == hard:
            return
        await stage.second()


def made_pods(stage: Stage) -> int:
    """Pods asked for so far."""
    return sum(call.startswith("create Pod ") for call in stage.mutating_calls)


async def _service(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one replica ready")
    await allow(stage, "shop", 1)
    before = made_pods(stage)
    await stage.scale(CHAT, 3)
    await stage.until(
        lambda seen: (
            "exceeded quota: gpus" in seen.condition("ModelService", CHAT, "Admitted").get("message", "")
        ),
        60,
        "the server's sentence",
    )
    assert stage.seen.condition("ModelService", CHAT, "Admitted")["reason"] == "QuotaExceeded"
    await stage.seconds(WATCHED_SECONDS)
    assert 2 <= made_pods(stage) - before <= MOST_TRIES, made_pods(stage) - before
    assert stage.seen.ready(CHAT) == 1, "what serves goes on"
    await allow(stage, "shop", 8)
    await stage.until(lambda _: settled(stage, CHAT, 3), 400, "three, once there is room")
    await stage.until(
        lambda seen: not seen.condition("ModelService", CHAT, "Admitted"), 30, "no word of it any more"
    )


QUOTA = Scenario(
    name="a quota that is full, and then is not",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "replicas: 1\nmaxReplicas: 4")),
    script=_service,
    final={f"ModelService/{CHAT}": {"status.phase": "Serving", "status.ready": 3}},
    events={CHAT: frozenset({"ReplicaRefused", "ReplicaPlaced"})},
)


async def _gang(stage: Stage) -> None:
    await stage.seconds(2)
    await allow(stage, "lab", 3)
    await stage.patch("TrainingJob", BERT, {"spec": {"suspend": False}})
    await stage.until(
        lambda seen: (
            "exceeded quota: gpus" in seen.condition("TrainingJob", BERT, "Admitted").get("message", "")
        ),
        60,
        "the server's sentence",
    )
    await stage.until(lambda seen: not seen.pods(BERT), 30, "no half of a gang")
    await stage.seconds(WATCHED_SECONDS)
    status = stage.seen.status("TrainingJob", BERT)
    assert status.get("restarts", 0) == 0, status
    assert 1 <= status["attempt"] <= MOST_TRIES, status
    assert not stage.seen.pods(BERT)
    await allow(stage, "lab", 8)
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 400, "the gang runs")
    owners: Counter[str] = Counter(
        p["metadata"]["labels"]["plimsoll.dev/attempt"] for p in stage.seen.pods(BERT)
    )
    assert list(owners.values()) == [2], "one attempt, whole"
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Succeeded", 400, "it ends")


QUOTA_GANG = Scenario(
    name="a quota with room for half of a gang",
    fleet=fleet(h100=2),
    manifests=manifests(job("bert", "suspend: true")),
    script=_gang,
    final={f"TrainingJob/{BERT}": {"status.phase": "Succeeded", "status.restarts": 0}},
    events={BERT: frozenset({"GangRefused", "GangStarted"})},
)

ALL = [QUOTA, QUOTA_GANG]

"""The user's part of a pod: what is missing, what never comes, where volumes are, and taints that come later."""

from __future__ import annotations

import asyncio
import re

from controller.resources.core import CLAIM
from tests.scenarios.plays_serving import CHAT, CHAT_SERVICE, DRAFT, DRAFT_SERVICE, settled
from tests.scenarios.props import fleet, job, manifests, service
from tests.scenarios.scenario import Scenario
from tests.scenarios.seen import Seen, node_of
from tests.scenarios.stage import Stage

BERT = "lab/bert"
BERT_JOB = f"TrainingJob/{BERT}"
FROM_SECRET = """
minReplicas: 1
pod:
  env:
    - name: TOKEN
      valueFrom: {secretKeyRef: {name: hub, key: token}}
"""
SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: hub, namespace: shop}
stringData: {token: not-a-real-one}
"""


def said(seen: Seen, service_key: str) -> str:
    """What a service's condition Ready says."""
    return str(seen.condition("ModelService", service_key, "Ready").get("message", ""))


def pods_of(seen: Seen, service_key: str) -> dict[str, str]:
    """Nodes by uid of the service's pods that stay."""
    found = (pod for pod in seen.pods(service_key) if "deletionTimestamp" not in pod["metadata"])
    return {pod["metadata"]["uid"]: node_of(pod) for pod in found}


# ------------------------------------------------------------------------------------------------ a missing Secret


async def _secret(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, DRAFT, 1), 60, "the other service goes on")
    await stage.until(
        lambda seen: 'CreateContainerConfigError: secret "hub" not found' in said(seen, CHAT),
        60,
        "the missing Secret is named",
    )
    blocked = set(pods_of(stage.seen, CHAT))
    await stage.seconds(20)
    assert set(pods_of(stage.seen, CHAT)) == blocked, "the same pod waits: nothing is gained by another one"
    await stage.apply(SECRET)
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "it serves when its Secret is there")
    assert set(pods_of(stage.seen, CHAT)) == blocked


MISSING_SECRET = Scenario(
    name="a Secret that is missing",
    fleet=fleet(l4=1),
    manifests=manifests(service("chat", FROM_SECRET), service("draft", "minReplicas: 1")),
    script=_secret,
    final={CHAT_SERVICE: {"status.phase": "Serving"}, DRAFT_SERVICE: {"status.phase": "Serving"}},
    events={CHAT: frozenset({"ReplicaBlocked"})},
    never=frozenset({"ReplicaStuck", "ReplicaHeldBack"}),
)


# ------------------------------------------------------------------------------------------ an image that never pulls


async def _image(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, DRAFT, 1), 60, "the other service goes on")
    for word in ("ErrImagePull", "ImagePullBackOff"):
        await stage.until(lambda seen, word=word: word in said(seen, CHAT), 60, f"{word} is told")  # type: ignore[misc]
    blocked = set(pods_of(stage.seen, CHAT))
    await stage.seconds(30)
    assert set(pods_of(stage.seen, CHAT)) == blocked, "no pod is made in vain"


NO_IMAGE = Scenario(
    name="an image that never pulls",
    fleet=fleet(l4=1),
    manifests=manifests(
        service("chat", "minReplicas: 1\nimage: registry.invalid/engine:1"),
        service("draft", "minReplicas: 1"),
    ),
    script=_image,
    final={
        CHAT_SERVICE: {
            "status.phase": "Starting",
            "conditions.Ready.status": "False",
            "conditions.Ready.message": re.compile(r"registry\.invalid.*its kubelet tries on"),
        },
        DRAFT_SERVICE: {"status.phase": "Serving"},
    },
    events={CHAT: frozenset({"ReplicaBlocked"})},
    converges=False,
)


# ----------------------------------------------------------------------------------------------- a gang without its Secret


SECRET_SECONDS = 30
"""When the Secret comes, after the play's begin: told it has been by then."""


async def _gang(stage: Stage) -> None:
    def planned(seen: Seen) -> str:
        return str(seen.condition("TrainingJob", BERT, "Planned").get("message", ""))

    begun = stage.now
    await stage.until(lambda seen: 'secret "hub" not found: 0 nodes of 2' in planned(seen), 60, "it is told")
    # A busy machine may tell it some ticks later on one tier, and the kubelet's next try depends on when the Secret comes.
    await stage.seconds(max(0, round(begun + SECRET_SECONDS - stage.now)))
    await stage.apply(SECRET.replace("namespace: shop", "namespace: lab"))
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 60, "it runs")
    assert stage.seen.status("TrainingJob", BERT)["attempt"] == 1, "the first attempt still"
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Succeeded", 120, "it is done")


GANG_SECRET = Scenario(
    name="a gang whose Secret comes late",
    fleet=fleet(h100=2),
    manifests=manifests(job("bert", "pod: {envFrom: [{secretRef: {name: hub}}]}", steps=20)),
    script=_gang,
    final={BERT_JOB: {"status.phase": "Succeeded", "status.restarts": 0}},
    events={BERT: frozenset({"GangBlocked", "GangStarted"})},
    never=frozenset({"GangRestarted"}),
)


# -------------------------------------------------------------------------------------------------- where a volume is

CLAIMING = """
minReplicas: 1
maxReplicas: 1
pod:
  volumes: [{name: weights, persistentVolumeClaim: {claimName: weights}}]
  volumeMounts: [{name: weights, mountPath: /models}]
"""
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: weights-pv}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  persistentVolumeReclaimPolicy: Retain
  claimRef: {kind: PersistentVolumeClaim, namespace: shop, name: weights}
  local: {path: /mnt/weights}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [l4-02]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: weights, namespace: shop}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
  storageClassName: ""
  volumeName: weights-pv
"""


async def _bound(stage: Stage) -> None:
    """Wait for the controller that binds claims; on the embedded store, do its work."""
    key = "shop/weights"
    if stage.session.tier == "embedded":
        await stage.patch("PersistentVolumeClaim", key, {"status": {"phase": "Bound"}}, "status")
    async with asyncio.timeout(30.0):
        while (await stage.cluster.store.get(CLAIM, "weights", "shop"))["status"].get("phase") != "Bound":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    # An own write is heard by all before it returns, and so is what came before it.
    await stage.patch("PersistentVolumeClaim", key, {"metadata": {"annotations": {"example.com/seen": "1"}}})


async def _volume(stage: Stage) -> None:
    await stage.until(
        lambda seen: (
            "PersistentVolumeClaim shop/weights, which does not exist: 0 nodes of 3 nodes" in said(seen, CHAT)
        ),
        60,
        "the missing claim is named",
    )
    assert not stage.seen.pods(CHAT)
    await stage.until(lambda _: settled(stage, DRAFT, 2), 60, "the other service goes on")
    await stage.apply(VOLUME)
    await _bound(stage)
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "it serves where its volume is")
    assert list(pods_of(stage.seen, CHAT).values()) == ["l4-02"]


VOLUME_OF_A_NODE = Scenario(
    name="a volume that one node has",
    fleet=fleet(l4=3),
    manifests=manifests(service("chat", CLAIMING), service("draft", "minReplicas: 2")),
    script=_volume,
    final={CHAT_SERVICE: {"status.phase": "Serving"}, DRAFT_SERVICE: {"status.phase": "Serving"}},
    events={CHAT: frozenset({"PlacesConfined", "ReplicaPlaced"})},
    never=frozenset({"ReplicaStuck"}),
)


# ------------------------------------------------------------------------------------------------------ later taints


async def _taint(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas on one node")
    before = pods_of(stage.seen, CHAT)
    assert len(set(before.values())) == 1
    (node,) = set(before.values())
    await stage.patch(
        "Node", node, {"spec": {"taints": [{"key": "team", "value": "red", "effect": "NoSchedule"}]}}
    )
    await stage.seconds(15)
    assert pods_of(stage.seen, CHAT) == before, "what runs stays"
    await stage.scale(CHAT, 3)
    await stage.until(lambda _: settled(stage, CHAT, 3), 60, "the third goes elsewhere")
    assert sorted(pods_of(stage.seen, CHAT).values()).count(node) == 2
    await stage.patch(
        "Node", node, {"spec": {"taints": [{"key": "team", "value": "red", "effect": "NoExecute"}]}}
    )
    await stage.until(
        lambda seen: settled(stage, CHAT, 3) and node not in pods_of(seen, CHAT).values(),
        90,
        "all have moved",
    )
    await stage.apply(service("draft", TOLERANT))
    await stage.until(lambda _: settled(stage, DRAFT, 2), 60, "who tolerates it is served there")
    assert node in pods_of(stage.seen, DRAFT).values()


TOLERANT = """
minReplicas: 2
maxReplicas: 2
pod:
  tolerations: [{key: team, value: red, effect: NoExecute}]
"""
LATER_TAINT = Scenario(
    name="a taint that comes later",
    fleet=fleet(l4=3),
    manifests=manifests(service("chat", "replicas: 2\nmaxReplicas: 3")),
    script=_taint,
    final={
        CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 3},
        DRAFT_SERVICE: {"status.phase": "Serving"},
    },
    accepts_loss=True,
)

# ---------------------------------------------------------------------------------------------- an account of others


async def _account(stage: Stage) -> None:
    await stage.until(lambda seen: seen.phase("ModelService", CHAT) == "Refused", 30, "it is refused")
    await stage.until(lambda _: settled(stage, DRAFT, 1), 60, "the other service goes on")
    assert not stage.seen.pods(CHAT)
    await stage.patch("ModelService", CHAT, {"spec": {"pod": {"serviceAccountName": "default"}}})
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "it serves as the namespace's own account")


ACCOUNT = Scenario(
    name="an account that is not lent",
    fleet=fleet(l4=1),
    manifests=manifests(
        service("chat", "minReplicas: 1\npod: {serviceAccountName: admin}"),
        service("draft", "minReplicas: 1"),
    ),
    script=_account,
    final={CHAT_SERVICE: {"status.phase": "Serving"}, DRAFT_SERVICE: {"status.phase": "Serving"}},
    events={CHAT: frozenset({"SpecInvalid"})},
)

ALL = [MISSING_SECRET, NO_IMAGE, GANG_SECRET, VOLUME_OF_A_NODE, LATER_TAINT, ACCOUNT]

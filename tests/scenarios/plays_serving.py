"""Serving: placed, loaded, scaled, changed, deleted, at zero and back."""

from __future__ import annotations

import re

import msgspec

from cluster.size_plan import SizePlan
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.scenario import Scenario
from tests.scenarios.seen import Seen, owner_of
from tests.scenarios.stage import Stage, exists

CHAT, DRAFT = "shop/chat", "shop/draft"
CHAT_SERVICE, DRAFT_SERVICE = f"ModelService/{CHAT}", f"ModelService/{DRAFT}"
CARRY = re.compile(r"^2 L4x1-bf16 (still )?carry [\d.]+ req/s for a demand of [\d.]+ req/s at \$1\.61/h")
SHORT_MEMORY = "policies: {scale: {name: hpa, config: {sync_seconds: 2.0, stabilisation_seconds: 4.0}}}"
SHORT_ASKS = "expectedLoad: {requestsPerSecond: 0.5, inputTokens: 200, outputTokens: 40}"
"""The load that `Stage.load` makes: prompts on which an L4 does not lose the time that it has for its answers."""


def settled(stage: Stage, service_key: str, ready: int) -> bool:
    """So many ready, routed, and nobody else left."""
    pods = stage.seen.pods(service_key)
    return stage.seen.ready(service_key) == len(pods) == len(stage.routes.get(service_key, {})) == ready


# ------------------------------------------------------------------------------------------------------- serve


async def _serve(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready(CHAT) == 2, 60, "two replicas ready")
    stage.load(CHAT, 1.0, 8)
    await stage.until(lambda _: len(stage.traffic.ended("served")) == 8, 30, "eight requests served")


SERVE = Scenario(
    name="serve",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "minReplicas: 2")),
    script=_serve,
    final={
        CHAT_SERVICE: {
            "status.phase": "Serving",
            "status.ready": 2,
            "status.gpus": 2,
            "status.mix": "2 L4x1-bf16",
            "status.costPerHour": 1.61,
            "status.selector": "plimsoll.dev/service=chat",
            "conditions.Accepted.status": "True",
            "conditions.Planned.status": "True",
            "conditions.Planned.message": CARRY,
            "conditions.Ready.status": "True",
            "conditions.Ready.message": "2 of 2 wanted replicas take requests.",
        },
    },
    events={CHAT: frozenset({"MixChosen", "ReplicaPlaced", "RoutesSet"})},
    actions={"CreateReplica": 2, "SetRoutes": 1},
    never=frozenset({"ShortOfCapacity", "ReplicaLost", "ReplicaUnplaceable"}),
)


# ------------------------------------------------------------------------------------------- up by load, and down


async def _grow(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready(CHAT) == 1, 60, "one replica ready")
    stage.load(CHAT, 6.0, 20)
    await stage.until(lambda seen: seen.ready(CHAT) >= 4, 60, "four replicas for six requests a second")
    await stage.until(lambda _: stage.now > began(stage) + 20 and not stage.traffic.open, 90, "all served")
    await stage.until(lambda _: settled(stage, CHAT, 1), 150, "one replica again")


def began(stage: Stage) -> float:
    """When the first load began."""
    return stage.traffic.begins


GROW = Scenario(
    name="scale up by load, and down again",
    fleet=fleet(l4=3),
    manifests=manifests(service("chat", f"minReplicas: 1\n{SHORT_MEMORY}")),
    script=_grow,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.mix": "1 L4x1-bf16"}},
    events={CHAT: frozenset({"ScaledUp", "MixChosen", "ScaledDown", "ReplicaSurplus", "ReplicaEnded"})},
    actions={"CreateReplica": 4, "Drain": 3, "DeleteReplica": 3},
)


# ---------------------------------------------------------------------------------------------------- user scale


async def _user_scale(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one replica ready")
    await stage.scale(CHAT, 3)
    await stage.until(lambda _: settled(stage, CHAT, 3), 60, "three replicas, as the user asked")
    await stage.scale(CHAT, 1)
    await stage.until(lambda _: settled(stage, CHAT, 1), 120, "one replica again")


USER_SCALE = Scenario(
    name="user scale",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", f"replicas: 1\n{SHORT_MEMORY}")),
    script=_user_scale,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 1, "spec.replicas": 1}},
    events={CHAT: frozenset({"ReplicaPlaced", "ReplicaSurplus", "ReplicaEnded"})},
    actions={"CreateReplica": 3, "Drain": 2, "DeleteReplica": 2},
)


# --------------------------------------------------------------------------------------------------- spec change


def _of_image(seen: Seen, image: str) -> list[str]:
    return [
        pod["metadata"]["name"] for pod in seen.pods(CHAT) if pod["spec"]["containers"][0]["image"] == image
    ]


def roll(name: str, patch: dict, image: str = "", ends: dict | None = None) -> Scenario:
    """A service whose spec changes under load: replicas are replaced, and no request notices."""

    async def script(stage: Stage) -> None:
        await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
        before = {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)}
        stage.load(CHAT, 1.5, 40)
        await stage.seconds(3)
        await stage.patch("ModelService", CHAT, {"spec": patch})
        least = 2
        while not settled(stage, CHAT, 2) or before & {p["metadata"]["uid"] for p in stage.seen.pods(CHAT)}:
            await stage.second()
            least = min(least, stage.seen.ready(CHAT))
            assert stage.now < began(stage) + 120, f"after 120 s still not rolled\n{stage.told()}"
        assert least >= 1, "there was a moment without a ready replica"
        if image:
            assert len(_of_image(stage.seen, image)) == 2
        await stage.until(
            lambda _: stage.now > began(stage) + 40 and not stage.traffic.open, 90, "all served"
        )

    return Scenario(
        name=name,
        fleet=fleet(l4=2),
        manifests=manifests(service("chat", "minReplicas: 2\nimage: engine:1\nmaxReplicas: 2")),
        script=script,
        final={
            CHAT_SERVICE: {
                "status.phase": "Serving",
                "status.ready": 2,
                "status.observedGeneration": 2,
                **(ends or {}),
            }
        },
        events={CHAT: frozenset({"ReplicaOutdated", "ReplicaEnded"})},
        actions={"CreateReplica": 4, "Drain": 2, "DeleteReplica": 2},
    )


NEW_IMAGE = roll("a new image rolls without a gap", {"image": "engine:2"}, "engine:2")
NEW_MODEL = roll("a new model rolls without a gap", {"model": {"name": "mistral-7b"}})


async def _objective(stage: Stage) -> None:
    """A promise that L4 cannot keep, A10G can: the mix moves over under load."""
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one L4 ready")
    assert stage.seen.status("ModelService", CHAT)["mix"] == "1 L4x1-bf16", stage.told()
    stage.load(CHAT, 0.5, 30)
    await stage.seconds(3)
    objective = {"class": "default", "ttftSeconds": 3.0, "tpotSeconds": 0.045}
    await stage.patch("ModelService", CHAT, {"spec": {"objectives": [objective]}})
    await stage.until(
        lambda seen: settled(stage, CHAT, 1) and seen.status("ModelService", CHAT)["mix"] == "1 A10Gx1-bf16",
        90,
        "one A10G instead",
    )
    await stage.until(lambda _: stage.now > began(stage) + 30 and not stage.traffic.open, 60, "all served")
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one A10G in the end")


NEW_OBJECTIVE = Scenario(
    name="a harder objective moves the mix without a gap",
    fleet=fleet(l4=1, a10g=1),
    manifests=manifests(service("chat", f"minReplicas: 1\n{SHORT_ASKS}", on="l4, a10g")),
    script=_objective,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.mix": "1 A10Gx1-bf16"}},
    events={CHAT: frozenset({"MixChosen", "ReplicaSurplus"})},
    actions={"CreateReplica": 2, "Drain": 1, "DeleteReplica": 1},
)


# ------------------------------------------------------------------------------------------------------- deletion


async def _delete(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2) and settled(stage, DRAFT, 1), 60, "both serve")
    await stage.delete("ModelService", CHAT)
    await stage.until(
        lambda seen: not seen.pods(CHAT) and CHAT not in stage.routes and settled(stage, DRAFT, 1),
        60,
        "no pod and no route of the deleted service is left",
    )
    assert not await exists(stage, "ModelService", CHAT)

    def forgotten() -> bool:
        known = stage.operator.observer
        return CHAT not in known.live("services") and f"Capacity/{CHAT}" not in known.live("targets")

    await stage.until(
        lambda _: forgotten(),
        20,
        "nothing of it is remembered",
    )


DELETE = Scenario(
    name="deletion",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "minReplicas: 2"), service("draft", "minReplicas: 1")),
    script=_delete,
    final={DRAFT_SERVICE: {"status.phase": "Serving", "status.ready": 1}},
    actions={"CreateReplica": 3},
)


# --------------------------------------------------------------------------------------------------- zero and back


async def _zero(stage: Stage) -> None:
    await stage.until(lambda seen: seen.phase("ModelService", CHAT) == "AtZero", 60, "at zero")
    assert not stage.seen.pods(CHAT)
    stage.load(CHAT, 2.0, 3)
    await stage.until(
        lambda _: len(stage.traffic.ended("served")) == 6, 60, "held requests are served after the start"
    )
    assert max(r.first_token_seconds for r in stage.traffic.ended("served")) > stage.traffic.begins + 3.0
    await stage.until(
        lambda seen: seen.phase("ModelService", CHAT) == "AtZero" and not seen.pods(CHAT), 90, "at zero again"
    )


ZERO = Scenario(
    name="zero and back",
    fleet=fleet(l4=2),
    manifests=manifests(
        service(
            "chat", f"keepAliveSeconds: 10\nhold: {{maxRequests: 50, deadlineSeconds: 120}}\n{SHORT_MEMORY}"
        )
    ),
    script=_zero,
    final={CHAT_SERVICE: {"status.phase": "AtZero", "status.ready": 0, "status.gpus": 0}},
    events={CHAT: frozenset({"ScaledFromZero", "ScaledToZero", "MixChosen"})},
    actions={"CreateReplica": 1, "Drain": 1, "DeleteReplica": 1},
)


async def _hold_caps(stage: Stage) -> None:
    """Five places and three seconds to wait, on a cluster where a start takes longer."""
    await stage.until(lambda seen: seen.phase("ModelService", CHAT) == "AtZero", 30, "at zero")
    stage.load(CHAT, 20.0, 1)
    await stage.seconds(2)
    rejected = stage.traffic.ended("rejected")
    assert len(rejected) == 15
    assert {r.code for r in rejected} == {"RejectCap"}
    assert all(r.retry_after_seconds >= 1.0 and "try again in" in r.message for r in rejected)
    await stage.until(lambda _: not stage.traffic.open, 30, "the rest has ended too")
    late = [r for r in stage.traffic.ended("rejected") if r.code == "RejectDeadline"]
    assert len(late) == 5
    assert all(r.retry_after_seconds >= 1.0 for r in late)
    await stage.until(
        lambda seen: seen.phase("ModelService", CHAT) == "Serving", 60, "the service they woke is ready"
    )


HOLD_CAPS = Scenario(
    name="hold caps and deadline",
    fleet=msgspec.structs.replace(
        fleet(l4=1), start=msgspec.structs.replace(fleet(l4=1).start, engine_seconds=8.0)
    ),
    manifests=manifests(service("chat", "keepAliveSeconds: 300\nhold: {maxRequests: 5, deadlineSeconds: 3}")),
    script=_hold_caps,
    events={CHAT: frozenset({"ScaledFromZero"})},
    accepts_loss=True,
)


# ------------------------------------------------------------------------------------------ modes, and others' pods


async def _advice(stage: Stage) -> None:
    await stage.seconds(12)
    assert not stage.seen.pods(CHAT)
    stage.load(CHAT, 2.0, 5)
    await stage.seconds(20)
    assert not [pod for pod in stage.seen.pods() if owner_of(pod) == CHAT]
    told = await stage.told_codes(CHAT)
    assert told & {"ScaledFromZero", "ScaledUp"}, f"what it would do is not shown: {told}"


RECOMMEND = Scenario(
    name="mode Recommend shows and does nothing",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "mode: Recommend\nhold: {maxRequests: 50, deadlineSeconds: 5}")),
    script=_advice,
    final={CHAT_SERVICE: {"status.replicas": 0, "status.gpus": 0}},
    never=frozenset({"ReplicaPlaced"}),
    accepts_loss=True,
)


async def _off(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "the one replica its user asked for")
    stage.load(CHAT, 6.0, 10)
    await stage.seconds(25)
    assert settled(stage, CHAT, 1)
    await stage.scale(CHAT, 2)
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two, because the user says so")


OFF = Scenario(
    name="mode Off serves what its user asks for",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", 'mode: "Off"\nreplicas: 1')),
    script=_off,
    final={CHAT_SERVICE: {"status.ready": 2, "status.phase": "Serving"}},
    events={CHAT: frozenset({"SizedByUser"})},
    never=frozenset({"ScaledUp", "ScaledFromZero"}),
)


FOREIGN_POD = """
apiVersion: v1
kind: Pod
metadata: {name: notebook, namespace: lab}
spec:
  nodeName: l4-00
  containers:
    - name: main
      image: jupyter:1
      resources: {limits: {nvidia.com/gpu: "2"}}
"""


async def _foreign(stage: Stage) -> None:
    await stage.until(lambda seen: len(seen.pods(CHAT)) == 2, 30, "as many replicas as are left room for")
    await stage.until(lambda seen: seen.ready(CHAT) == 2, 30, "they are ready")
    await stage.seconds(10)
    assert {pod["spec"]["nodeName"] for pod in stage.seen.pods(CHAT)} == {"l4-01"}
    claims = stage.operator.observer.live("claims")
    assert claims["lab/notebook"].foreign
    assert stage.seen.condition("ModelService", CHAT, "Planned")["reason"] == "ShortOfCapacity"
    await stage.delete("Pod", "lab/notebook")
    await stage.until(lambda seen: seen.ready(CHAT) == 3, 60, "a third one where the notebook was")


FOREIGN = Scenario(
    name="somebody else's pod is counted",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "minReplicas: 3"), FOREIGN_POD),
    script=_foreign,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 3}},
    events={CHAT: frozenset({"ShortOfCapacity", "MixChosen"})},
)


# --------------------------------------------------------------------------------------------------- two priorities


async def _priorities(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, DRAFT, 2), 60, "the lower one has both GPUs")
    await stage.apply(service("chat", "minReplicas: 1", priority=10))
    await stage.until(
        lambda _: settled(stage, CHAT, 1) and settled(stage, DRAFT, 1),
        90,
        "the higher one has got one of them",
    )


PRIORITIES = Scenario(
    name="two priorities on scarce inventory",
    fleet=fleet(l4=1),
    manifests=manifests(service("draft", "minReplicas: 2", priority=1)),
    script=_priorities,
    final={
        CHAT_SERVICE: {"status.phase": "Serving"},
        DRAFT_SERVICE: {"status.ready": 1, "conditions.Planned.reason": "ShortOfCapacity"},
    },
    events={DRAFT: frozenset({"ShortOfCapacity"})},
)

# ------------------------------------------------------------------------------------------------------ by size


def planned(stage: Stage) -> SizePlan | None:
    """The plan by size that the gateway dispatches by."""
    service = stage.cluster.gateway.core.services.get(CHAT)
    return service.route.size_plan if service is not None else None


async def _by_size(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    await stage.until(lambda _: planned(stage) is not None, 20, "the gateway has the plan")
    before = planned(stage)
    assert before is not None
    assert {column.name.partition("|")[0] for column in before.columns} == {"L4x1-bf16"}
    stage.load(CHAT, 2.0, 10)
    await stage.seconds(5)
    await stage.halt()
    assert planned(stage) == before, "without an operator the last plan holds"
    await stage.resume()
    for _ in range(15):
        await stage.second()
        assert planned(stage) == before, "a successor tells the same until it decides otherwise"
    await stage.until(lambda _: len(stage.traffic.ended("served")) == 20, 60, "all are served")
    await stage.patch(
        "ModelService", CHAT, {"spec": {"policies": {"dispatch": {"name": "least_outstanding"}}}}
    )
    await stage.until(lambda _: planned(stage) is None, 20, "the plan is taken back with the policy")
    await stage.patch("ModelService", CHAT, {"spec": {"policies": {"dispatch": {"name": "size_aware"}}}})
    await stage.until(lambda _: planned(stage) is not None, 20, "and comes back with it")


BY_SIZE = Scenario(
    name="a plan by size outlives its operator",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "minReplicas: 2\npolicies: {dispatch: {name: size_aware}}")),
    script=_by_size,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 2}},
    events={CHAT: frozenset({"RoutesSet", "SizesRouted"})},
    never=frozenset({"ShortOfCapacity", "ReplicaLost", "ReplicaUnplaceable"}),
)

ALL = [
    SERVE,
    BY_SIZE,
    GROW,
    USER_SCALE,
    NEW_IMAGE,
    NEW_MODEL,
    NEW_OBJECTIVE,
    DELETE,
    ZERO,
    HOLD_CAPS,
    RECOMMEND,
    OFF,
    FOREIGN,
    PRIORITIES,
]

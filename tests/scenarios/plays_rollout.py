"""Rollouts: paced, interrupted, without room, and those that go back by themselves. No request is lost in any."""

from __future__ import annotations

import re

import msgspec

from controller.config import OperatorConfig, PolicyDefault
from simulator.fleet.specs import FleetSpec
from tests.scenarios.plays_serving import CHAT, CHAT_SERVICE, settled
from tests.scenarios.plays_training import BERT, over, step
from tests.scenarios.props import fleet, job, manifests, service
from tests.scenarios.scenario import CONFIG, Scenario
from tests.scenarios.seen import Seen
from tests.scenarios.stage import Stage

BROKEN = {
    "engine:crash": "CrashLoopBackOff",
    "engine:slow": "PodInitializing",
}
IMPATIENT: OperatorConfig = msgspec.structs.replace(
    CONFIG,
    policies={**CONFIG.policies, "place": PolicyDefault("priced_fgd", {"rollout": {"start_seconds": 20.0}})},
)
"""Gives a new revision twenty seconds to start."""
GUARD_SECONDS = 240


def nodes(**counts: int) -> FleetSpec:
    """A fleet on which some images never run."""
    made = fleet(**counts)
    return msgspec.structs.replace(made, start=msgspec.structs.replace(made.start, broken_images=BROKEN))


def chat(replicas: int, more: str = "") -> str:
    return service("chat", f"minReplicas: {replicas}\nmaxReplicas: {replicas}\nimage: engine:1\n{more}")


def images(seen: Seen) -> list[str]:
    """Images of the service's pods, one each."""
    return sorted(pod["spec"]["containers"][0]["image"] for pod in seen.pods(CHAT))


def rolled(stage: Stage, image: str, count: int) -> bool:
    """All of one image, ready and routed, and told so."""
    progress = stage.seen.condition("ModelService", CHAT, "Progressing")
    return (
        settled(stage, CHAT, count)
        and images(stage.seen) == [image] * count
        and progress.get("reason") == "RolloutComplete"
    )


async def begin(stage: Stage, replicas: int, rate: float = 1.0) -> None:
    """So many replicas of the first image under load, complete."""
    await stage.until(lambda _: rolled(stage, "engine:1", replicas), 90, "the first revision is complete")
    stage.load(CHAT, rate, GUARD_SECONDS)
    await stage.seconds(2)


async def change(stage: Stage, image: str) -> None:
    await stage.patch("ModelService", CHAT, {"spec": {"image": image}})


async def guarded(stage: Stage, image: str, count: int, most_pods: int, least: int) -> None:
    """Until all are of one image; meanwhile never more pods, nor fewer ready ones."""
    began = stage.now
    while not rolled(stage, image, count):
        await stage.second()
        assert len(stage.seen.pods(CHAT)) <= most_pods, f"{len(stage.seen.pods(CHAT))} pods\n{stage.told()}"
        assert len(stage.routes.get(CHAT, {})) >= least, f"fewer than {least} serve\n{stage.told()}"
        assert stage.now < began + 180, f"after 180 s not all of {image}\n{stage.told()}"


async def finish(stage: Stage) -> None:
    """The load ends, and everybody was served."""
    ends = stage.traffic.begins + GUARD_SECONDS
    await stage.until(lambda _: stage.now > ends and not stage.traffic.open, 2 * GUARD_SECONDS, "all served")


# ------------------------------------------------------------------------------------------------------ it comes


async def _paced(stage: Stage) -> None:
    await begin(stage, 3)
    await change(stage, "engine:2")
    await guarded(stage, "engine:2", 3, most_pods=4, least=3)
    await finish(stage)


PACED = Scenario(
    name="a rollout holds one GPU more and never serves with fewer",
    fleet=nodes(l4=3),
    manifests=manifests(chat(3)),
    script=_paced,
    final={
        CHAT_SERVICE: {
            "status.ready": 3,
            "status.rollout.old": 0,
            "status.rollout.ready": 3,
            "status.rollout.revision": 2,
            "conditions.Available.status": "True",
            "conditions.Progressing.message": re.compile(r"^Revision 2 \([0-9a-f]{16}\) is complete: 3 of 3 wanted are ready"),
        }
    },
    events={CHAT: frozenset({"RolloutProgressing", "RolloutComplete", "ReplicaOutdated"})},
    actions={"CreateReplica": 6, "Drain": 3, "SettleRevision": 2},
    never=frozenset({"RolloutFaulty", "RolloutTimedOut", "ReplicaUnplaceable"}),
)  # fmt: skip


async def _no_room(stage: Stage) -> None:
    await begin(stage, 2, rate=0.5)
    await change(stage, "engine:2")
    await guarded(stage, "engine:2", 2, most_pods=2, least=1)
    await finish(stage)


NO_ROOM = Scenario(
    name="a rollout on a full cluster drains one first",
    fleet=nodes(l4=1),
    manifests=manifests(chat(2)),
    script=_no_room,
    final={CHAT_SERVICE: {"status.ready": 2, "conditions.Progressing.reason": "RolloutComplete"}},
    events={CHAT: frozenset({"RolloutProgressing", "RolloutComplete"})},
    actions={"CreateReplica": 4, "Drain": 2},
)


async def _only_one(stage: Stage) -> None:
    await begin(stage, 2, rate=0.5)
    await stage.patch("ModelService", CHAT, {"spec": {"minReplicas": 1, "maxReplicas": 1}})
    await stage.until(lambda _: settled(stage, CHAT, 1), 90, "one alone")
    await stage.apply(service("draft", "minReplicas: 1"))
    await stage.until(lambda _: settled(stage, "shop/draft", 1), 60, "the cluster is full")
    await change(stage, "engine:2")
    waits = "RolloutWaiting"
    await stage.until(
        lambda seen: seen.condition("ModelService", CHAT, "Progressing").get("reason") == waits,
        30,
        "it says that it waits",
    )
    await stage.seconds(20)
    assert images(stage.seen) == ["engine:1"], "the only one was given up"
    await stage.delete("ModelService", "shop/draft")
    await guarded(stage, "engine:2", 1, most_pods=2, least=1)
    await finish(stage)


ONLY_ONE = Scenario(
    name="the only replica waits for room instead of making it",
    fleet=nodes(l4=1),
    manifests=manifests(chat(2)),
    script=_only_one,
    final={CHAT_SERVICE: {"status.ready": 1, "conditions.Progressing.reason": "RolloutComplete"}},
    events={CHAT: frozenset({"RolloutWaiting", "RolloutComplete"})},
)


# ------------------------------------------------------------------------------------------------- it goes back


def goes_back(name: str, image: str, code: str, within: int, config: OperatorConfig = CONFIG) -> Scenario:
    """A change that does not come, under load; then one that does."""

    async def script(stage: Stage) -> None:
        await begin(stage, 2)
        before = {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)}
        await change(stage, image)
        await stage.until(
            lambda seen: seen.condition("ModelService", CHAT, "Progressing").get("status") == "False",
            within,
            "it says that it goes back",
        )
        await stage.until(lambda _: settled(stage, CHAT, 2), 30, "two as before")
        assert images(stage.seen) == ["engine:1"] * 2
        assert {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)} == before, "an old one was replaced"
        await stage.patch("ModelService", CHAT, {"spec": {"minReplicas": 3, "maxReplicas": 3}})
        await stage.until(lambda _: settled(stage, CHAT, 3), 60, "a third one of the revision before")
        await stage.seconds(40)
        assert images(stage.seen) == ["engine:1"] * 3, "what was given up was tried again"
        await finish(stage)

    return Scenario(
        name=name,
        fleet=nodes(l4=2),
        manifests=manifests(chat(2)),
        script=script,
        final={
            CHAT_SERVICE: {
                "status.ready": 3,
                "spec.image": image,
                "status.rollout.old": 3,
                "status.rollout.updated": 0,
                "conditions.Progressing.reason": code,
                "conditions.Progressing.status": "False",
                "conditions.Available.status": "True",
            }
        },
        events={CHAT: frozenset({code, "ReplicaRevoked"})},
        actions={"SettleRevision": 2, "DeleteReplica": 1},
        config=config,
    )


NEVER_PULLS = goes_back("an image that never pulls goes back", "gone.invalid/engine:2", "RolloutFaulty", 90)
CRASHES = goes_back("an image that crashes goes back", "engine:crash", "RolloutFaulty", 60)
TOO_SLOW = goes_back(
    "an image that starts too slowly goes back", "engine:slow", "RolloutTimedOut", 40, IMPATIENT
)


async def _mended(stage: Stage) -> None:
    await begin(stage, 2)
    await change(stage, "gone.invalid/engine:2")
    await stage.until(
        lambda seen: seen.condition("ModelService", CHAT, "Progressing").get("status") == "False",
        90,
        "it goes back",
    )
    await change(stage, "engine:2")
    await guarded(stage, "engine:2", 2, most_pods=3, least=2)
    await change(stage, "engine:1")
    await guarded(stage, "engine:1", 2, most_pods=3, least=2)
    await finish(stage)


MENDED = Scenario(
    name="after going back the next change is tried, and an older one is again",
    fleet=nodes(l4=2),
    manifests=manifests(chat(2)),
    script=_mended,
    final={CHAT_SERVICE: {"status.ready": 2, "conditions.Progressing.reason": "RolloutComplete"}},
    actions={"SettleRevision": 4},
)


# ------------------------------------------------------------------------------------------------- interrupted


async def _second(stage: Stage) -> None:
    await begin(stage, 3)
    await change(stage, "engine:2")
    await stage.until(lambda seen: "engine:2" in images(seen), 30, "the first change has begun")
    await stage.seconds(8)
    await change(stage, "engine:3")
    await guarded(stage, "engine:3", 3, most_pods=4, least=2)
    await finish(stage)


SECOND = Scenario(
    name="a second change in the middle of the first",
    fleet=nodes(l4=3),
    manifests=manifests(chat(3)),
    script=_second,
    final={CHAT_SERVICE: {"status.ready": 3, "status.rollout.revision": 3}},
)


async def _scaled(stage: Stage) -> None:
    await begin(stage, 2)
    await change(stage, "engine:2")
    await stage.until(lambda seen: "engine:2" in images(seen), 30, "the change has begun")
    await stage.patch("ModelService", CHAT, {"spec": {"minReplicas": 4, "maxReplicas": 4}})
    await guarded(stage, "engine:2", 4, most_pods=5, least=2)
    await change(stage, "engine:3")
    await stage.until(lambda seen: "engine:3" in images(seen), 30, "the next change has begun")
    await stage.patch("ModelService", CHAT, {"spec": {"minReplicas": 2, "maxReplicas": 2}})
    await guarded(stage, "engine:3", 2, most_pods=6, least=2)
    await finish(stage)


SCALED = Scenario(
    name="scaled up and down in the middle of a change",
    fleet=nodes(l4=3),
    manifests=manifests(chat(2)),
    script=_scaled,
    final={CHAT_SERVICE: {"status.ready": 2, "status.rollout.old": 0}},
)


async def _node_lost(stage: Stage) -> None:
    await begin(stage, 3)
    await change(stage, "engine:2")
    await stage.until(lambda seen: "engine:2" in images(seen), 30, "the change has begun")
    node = next(pod["spec"]["nodeName"] for pod in stage.seen.pods(CHAT) if images_of(pod) == "engine:1")
    stage.fail(node)
    await stage.until(
        lambda seen: (
            seen.status("ModelService", CHAT).get("rollout", {}).get("ready") == 3
            and seen.condition("ModelService", CHAT, "Progressing")["reason"] == "RolloutComplete"
        ),
        180,
        "all of the new one, on the nodes that are left",
    )
    await stage.recover(node)
    await stage.until(lambda _: rolled(stage, "engine:2", 3), 90, "and nothing left of the node's own")
    await finish(stage)


def images_of(pod: dict) -> str:
    """The image of one pod."""
    return str(pod["spec"]["containers"][0]["image"])


NODE_LOST = Scenario(
    name="a node is lost in the middle of a change",
    fleet=nodes(l4=3),
    manifests=manifests(chat(3)),
    script=_node_lost,
    final={CHAT_SERVICE: {"status.ready": 3, "conditions.Progressing.reason": "RolloutComplete"}},
)


async def _namesake(stage: Stage) -> None:
    """Another service of the same name, while the first one's revisions may still be there: none of it is believed."""
    await begin(stage, 2)
    await finish(stage)
    await stage.delete("ModelService", CHAT)
    await stage.apply(chat(2))
    await stage.until(lambda _: rolled(stage, "engine:1", 2), 120, "the namesake's revision is complete")
    assert stage.seen.status("ModelService", CHAT)["rollout"]["revision"] == 1


NAMESAKE = Scenario(
    name="a namesake begins its own history",
    fleet=nodes(l4=2),
    manifests=manifests(chat(2)),
    script=_namesake,
    final={CHAT_SERVICE: {"status.ready": 2, "conditions.Progressing.reason": "RolloutComplete"}},
    actions={"SettleRevision": 2},
)


# --------------------------------------------------------------------------------------------------- a job's change


async def _job(stage: Stage) -> None:
    """Whose ranks run is left alone; the next attempt is started from what is asked for by then."""
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 40, "it runs")
    before = {pod["metadata"]["uid"] for pod in stage.seen.pods(BERT)}
    await stage.until(lambda _: step(stage) >= 60, 60, "it has saved some steps")
    await stage.patch("TrainingJob", BERT, {"spec": {"image": "trainer:2"}})
    await stage.until(
        lambda seen: seen.condition("TrainingJob", BERT, "Planned").get("reason") == "GangOutdated",
        30,
        "it is said",
    )
    assert {pod["metadata"]["uid"] for pod in stage.seen.pods(BERT)} == before
    await stage.patch("TrainingJob", BERT, {"spec": {"suspend": True}})
    await stage.until(lambda seen: not seen.pods(BERT), 60, "it is suspended")
    await stage.patch("TrainingJob", BERT, {"spec": {"suspend": False}})
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 60, "it goes on")
    assert {images_of(pod) for pod in stage.seen.pods(BERT)} == {"trainer:2"}
    assert stage.seen.status("TrainingJob", BERT).get("restarts", 0) == 0, "a change was counted as a failure"
    await stage.until(over, 250, "it has succeeded")


JOB = Scenario(
    name="a job's change takes effect with the next attempt",
    fleet=nodes(h100=2),
    manifests=manifests(job("bert", "image: trainer:1", steps=400)),
    script=_job,
    final={f"TrainingJob/{BERT}": {"status.phase": "Succeeded"}},
    events={BERT: frozenset({"GangOutdated", "GangDone"})},
)

ALL = [
    PACED,
    NO_ROOM,
    ONLY_ONE,
    NEVER_PULLS,
    CRASHES,
    TOO_SLOW,
    MENDED,
    SECOND,
    SCALED,
    NODE_LOST,
    NAMESAKE,
    JOB,
]

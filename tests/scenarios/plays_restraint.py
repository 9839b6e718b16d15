"""Restraint: paused, recommended, not opted in, within budgets, under others' budgets, drained by others."""

from __future__ import annotations

import re

import msgspec

from controller.config import OperatorConfig, RestraintSettings
from tests.scenarios.plays_serving import CHAT, CHAT_SERVICE, SHORT_MEMORY, settled
from tests.scenarios.props import fleet, job, manifests, service
from tests.scenarios.scenario import CONFIG, Scenario
from tests.scenarios.seen import Seen, node_of
from tests.scenarios.stage import Stage

PAUSE = "plimsoll.dev/paused"
BERT = "lab/bert"


def restrained(seen: Seen, kind: str = "ModelService", key: str = CHAT) -> tuple[str, str, str]:
    """Status, reason and sentence of the condition."""
    told = seen.condition(kind, key, "Restrained")
    return told.get("status", ""), told.get("reason", ""), told.get("message", "")


def uids(seen: Seen) -> set[str]:
    return {pod["metadata"]["uid"] for pod in seen.pods(CHAT)}


def restraint(**settings: object) -> OperatorConfig:
    return msgspec.structs.replace(CONFIG, restraint=RestraintSettings(**settings))


# ------------------------------------------------------------------------------------------------------- paused


async def _pause(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    before = uids(stage.seen)
    await stage.patch("ModelService", CHAT, {"metadata": {"annotations": {PAUSE: "true"}}})
    await stage.until(lambda seen: restrained(seen)[1] == "Paused", 20, "the pause is told")
    await stage.patch("ModelService", CHAT, {"spec": {"minReplicas": 3}})
    stage.load(CHAT, 1.0, 10)
    await stage.seconds(20)
    assert uids(stage.seen) == before, "something of a paused service was touched"
    since = stage.seen.condition("ModelService", CHAT, "Restrained")["lastTransitionTime"]
    assert f"since {since}" in restrained(stage.seen)[2]
    assert "2 replicas run and stay as they are" in restrained(stage.seen)[2]
    await stage.patch("ModelService", CHAT, {"spec": {"minReplicas": 1}})
    await stage.seconds(15)
    assert uids(stage.seen) == before, "something of a paused service was touched"
    await stage.patch(
        "ModelService", CHAT, {"metadata": {"annotations": {PAUSE: None}}, "spec": {"minReplicas": 3}}
    )
    await stage.until(lambda _: settled(stage, CHAT, 3), 60, "three, now that nothing holds it")
    await stage.until(lambda seen: restrained(seen)[:2] == ("False", "Free"), 20, "and that is told")


PAUSED = Scenario(
    name="a paused service is left as it is, and caught up with when it is not any more",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", f"minReplicas: 2\n{SHORT_MEMORY}")),
    script=_pause,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 3}},
    actions={"CreateReplica": 3},
)


async def _pause_namespace(stage: Stage) -> None:
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Running", 90, "the gang runs")
    await stage.patch("Namespace", "lab", {"metadata": {"annotations": {PAUSE: "true"}}})
    await stage.until(
        lambda seen: restrained(seen, "TrainingJob", BERT)[1] == "Paused", 20, "the pause is told"
    )
    assert "its namespace lab" in restrained(stage.seen, "TrainingJob", BERT)[2]
    lost = node_of(stage.seen.pods(BERT)[0])
    stage.fail(lost)
    await stage.until(
        lambda seen: any(p["status"].get("phase") != "Running" for p in seen.pods(BERT)) or len(seen.pods(BERT)) < 2
        or seen.condition("Node", lost, "Ready").get("status") != "True", 90, "a member is lost"
    )  # fmt: skip
    await stage.seconds(20)
    assert stage.seen.status("TrainingJob", BERT)["attempt"] == 1, "a paused job was started again"
    await stage.patch("Namespace", "lab", {"metadata": {"annotations": {PAUSE: None}}})
    await stage.until(
        lambda seen: (
            seen.status("TrainingJob", BERT).get("attempt") == 2
            and seen.phase("TrainingJob", BERT) == "Running"
        ),
        120,
        "the next attempt, now that nothing holds it",
    )
    await stage.recover(lost)
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 60, "the old attempt is gone")


PAUSED_NAMESPACE = Scenario(
    name="a job in a paused namespace is not started again before the pause is over",
    fleet=fleet(h100=3),
    manifests=manifests(job("bert", steps=4000)),
    script=_pause_namespace,
    actions={"StartGang": 1, "RestartGang": 1},
    converges=False,
)


# -------------------------------------------------------------------------------------------------- recommended


async def _recommend_cluster(stage: Stage) -> None:
    await stage.until(lambda seen: restrained(seen)[1] == "Recommend", 30, "the mode is told")
    await stage.until(lambda seen: "CreateReplica" in restrained(seen)[2], 30, "and what would be done")
    await stage.until(
        lambda seen: "StartGang" in restrained(seen, "TrainingJob", BERT)[2], 30, "of the job too"
    )
    await stage.seconds(15)
    ledger = stage.cluster.ledger
    assert ledger is not None
    assert ledger.flush(force=True)
    for kind, key in (("ModelService", CHAT), ("TrainingJob", BERT)):
        explained = ledger.reader.latest_decision(kind, key)
        assert explained is not None
        assert "Recommended" in {stored.row.code for stored in explained.reasons}, "explain does not show it"
    assert not stage.seen.pods(), "a pod was made in mode Recommend"
    assert not stage.operator.observer.live("leases"), "a lease was granted in mode Recommend"
    assert not [c for c in stage.mutating_calls if " Pod" in c or " Service" in c], stage.mutating_calls


RECOMMENDED_CLUSTER = Scenario(
    name="a cluster in mode Recommend is told everything and nothing is done",
    fleet=fleet(l4=2, h100=2),
    manifests=manifests(service("chat", "minReplicas: 2"), job("bert")),
    script=_recommend_cluster,
    final={
        CHAT_SERVICE: {
            "status.replicas": 0,
            "conditions.Planned.reason": "MixChosen",
            "conditions.Restrained.message": re.compile(r"by the configuration of the operator\."),
        },
        f"TrainingJob/{BERT}": {"conditions.Restrained.status": "True"},
    },
    events={CHAT: frozenset({"MixChosen", "Recommended"}), BERT: frozenset({"Recommended"})},
    never=frozenset({"ReplicaPlaced", "GangStarted"}),
    config=restraint(mode="Recommend"),
)


async def _recommend_later(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    before = uids(stage.seen)
    for _ in range(20):  # what is settled before the mode turns is settled
        if "RolloutComplete" in await stage.told_codes(CHAT):
            break
        await stage.second()
    await stage.patch("ModelService", CHAT, {"spec": {"mode": "Recommend", "minReplicas": 4}})
    await stage.until(lambda seen: restrained(seen)[1] == "Recommend", 20, "the mode is told")
    stage.load(CHAT, 1.0, 30)
    await stage.seconds(5)
    await stage.restart()
    await stage.until(
        lambda _: stage.now > stage.traffic.begins + 30 and not stage.traffic.open, 60, "all served"
    )
    assert uids(stage.seen) == before
    assert len(stage.routes[CHAT]) == 2, "what runs is routed to, by a new operator too"
    assert "CreateReplica" in restrained(stage.seen)[2]


RECOMMENDED_LATER = Scenario(
    name="what runs when a service turns to Recommend serves on, under the next operator too",
    fleet=fleet(l4=3),
    manifests=manifests(service("chat", "minReplicas: 2")),
    script=_recommend_later,
    final={CHAT_SERVICE: {"status.ready": 2, "conditions.Restrained.reason": "Recommend"}},
    converges=False,
)


# ---------------------------------------------------------------------------------------------------- opted in


MANAGED = "plimsoll.dev/managed"


async def _opt_in(stage: Stage) -> None:
    await stage.until(lambda seen: restrained(seen)[1] == "NotManaged", 30, "that nobody opted in is told")
    await stage.seconds(8)
    assert not stage.seen.pods(CHAT)
    await stage.patch("Namespace", "shop", {"metadata": {"labels": {MANAGED: "true"}}})
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "served, since the namespace is opted in")
    before = uids(stage.seen)
    await stage.patch("Namespace", "shop", {"metadata": {"labels": {MANAGED: None}}})
    await stage.until(lambda seen: restrained(seen)[1] == "NotManaged", 30, "that it is opted out is told")
    await stage.patch("ModelService", CHAT, {"spec": {"minReplicas": 2}})
    stage.load(CHAT, 1.0, 8)
    await stage.seconds(20)
    assert uids(stage.seen) == before
    assert "1 replicas run and stay as they are" in restrained(stage.seen)[2]


OPTED_IN = Scenario(
    name="only labelled namespaces are managed, and what runs in one that is opted out stays",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "minReplicas: 1")),
    script=_opt_in,
    final={CHAT_SERVICE: {"status.ready": 1, "status.phase": "Serving"}},
    config=restraint(namespaces="labelled"),
)


# ----------------------------------------------------------------------------------------------------- budgets


async def _budget(stage: Stage) -> None:
    """A better mix within a budget of one move an hour: two L4 are to become A10G, one may."""
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two ready")
    old = uids(stage.seen)
    stage.load(CHAT, 0.5, 60)
    await stage.patch("ModelService", CHAT, {"spec": {"image": "engine:2"}})
    await stage.until(
        lambda seen: restrained(seen)[1] == "MovesSpent", 60, "the budget is used up, and it is told"
    )
    assert "1 move of 1 move an hour" in restrained(stage.seen)[2]
    await stage.until(lambda seen: len(uids(seen) & old) == 1, 40, "one was moved")
    await stage.restart()  # the next operator counts what this one moved
    await stage.seconds(30)
    assert len(uids(stage.seen) & old) == 1, "a second one was moved within the hour"
    assert len(stage.seen.pods(CHAT)) == 2, "a successor waits beside what may not be moved"
    [made] = stage.seen.status("ModelService", CHAT)["moves"]
    assert made["count"] == 1
    await stage.patch("ModelService", CHAT, {"spec": {"disruption": {"movesPerHour": 2}}})
    await stage.until(
        lambda seen: settled(stage, CHAT, 2) and not uids(seen) & old, 60, "the other one follows"
    )
    await stage.until(
        lambda _: stage.now > stage.traffic.begins + 60 and not stage.traffic.open, 60, "all served"
    )


BUDGET = Scenario(
    name="a new revision rolls within the disruption budget, which a new operator counts on",
    fleet=fleet(l4=2),
    manifests=manifests(
        service("chat", "minReplicas: 2\nimage: engine:1\nmaxReplicas: 2\ndisruption: {movesPerHour: 1}")
    ),
    script=_budget,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 2}},
    actions={"Drain": 2},
    converges=False,
)


PDB = """
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: chat, namespace: shop}
spec:
  minAvailable: 2
  selector: {matchLabels: {plimsoll.dev/service: chat}}
"""


async def _pdb(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    before = uids(stage.seen)
    await stage.patch("ModelService", CHAT, {"spec": {"minReplicas": 1}})
    await stage.until(lambda seen: restrained(seen)[1] == "PodGuarded", 60, "what guards it is told")
    assert "PodDisruptionBudget shop/chat" in restrained(stage.seen)[2]
    assert "2 pods of it are healthy, 2 pods must be" in restrained(stage.seen)[2]
    await stage.seconds(20)
    assert uids(stage.seen) == before
    assert len(stage.routes[CHAT]) == 2
    await stage.delete("PodDisruptionBudget", "shop/chat")
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one, since nothing guards it any more")
    await stage.until(lambda seen: restrained(seen)[:2] == ("False", "Free"), 60, "and that is told")


GUARDED = Scenario(
    name="a PodDisruptionBudget keeps what falling load no longer needs",
    fleet=fleet(l4=2),
    manifests=manifests(PDB, service("chat", f"minReplicas: 2\n{SHORT_MEMORY}")),
    script=_pdb,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 1}},
    events={CHAT: frozenset({"PodGuarded", "ReplicaSurplus"})},
)


async def _kept(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    kept = [f"shop/{pod['metadata']['name']}" for pod in stage.seen.pods(CHAT)]
    for key in kept:
        await stage.patch("Pod", key, {"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}})
    before = uids(stage.seen)
    await stage.patch("ModelService", CHAT, {"spec": {"minReplicas": 1}})
    await stage.until(lambda seen: restrained(seen)[1] == "PodKept", 60, "what keeps it is told")
    assert "karpenter.sh/do-not-disrupt" in restrained(stage.seen)[2]
    await stage.seconds(10)
    assert uids(stage.seen) == before
    await stage.patch("Pod", kept[1], {"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": None}}})
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "the other one goes")
    assert [f"shop/{pod['metadata']['name']}" for pod in stage.seen.pods(CHAT)] == kept[:1]


KEPT = Scenario(
    name="a pod that its user keeps where it is goes last, and not by our choice",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", f"minReplicas: 2\n{SHORT_MEMORY}")),
    script=_kept,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 1}},
    events={CHAT: frozenset({"PodKept"})},
    converges=False,
)


# ------------------------------------------------------------------------------------------------ others drain


async def _drained(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    node = node_of(stage.seen.pods(CHAT)[0])
    stage.load(CHAT, 1.5, 40, output=120)
    await stage.seconds(4)
    left = await stage.drain(node)
    assert left
    await stage.until(
        lambda seen: settled(stage, CHAT, 2) and not any(node_of(p) == node for p in seen.pods(CHAT)),
        90,
        "both serve elsewhere",
    )
    made = [c for c in stage.mutating_calls if c.startswith("create Pod shop/")]
    assert len(made) == 2 + len(left), f"more was made than was evicted: {made}"
    await stage.until(
        lambda _: stage.now > stage.traffic.begins + 40 and not stage.traffic.open, 60, "all served"
    )


DRAINED = Scenario(
    name="a node that somebody drains loses its replicas to others, and no request",
    fleet=fleet(l4=3),
    manifests=manifests(service("chat", "minReplicas: 2")),
    script=_drained,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 2}},
    events={CHAT: frozenset({"PodDisrupted", "ReplicaPlaced"})},
    converges=False,
)


ALL = [
    PAUSED, PAUSED_NAMESPACE, RECOMMENDED_CLUSTER, RECOMMENDED_LATER, OPTED_IN, BUDGET, GUARDED, KEPT, DRAINED,
]  # fmt: skip

"""What breaks: nodes, agents, the store, its watches; and what cannot be: products, objectives, inventory."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from controller.store.errors import Unavailable
from controller.store.faults import CALM, FaultRates
from controller.store.interposed import Request
from simulator.physics.catalogue import L4
from tests.scenarios.plays_serving import SHORT_MEMORY, began, settled
from tests.scenarios.props import fleet, job, manifests, service
from tests.scenarios.scenario import Scenario
from tests.scenarios.seen import node_of
from tests.scenarios.stage import Stage

CHAT, DRAFT, BERT = "shop/chat", "shop/draft", "lab/bert"
CHAT_SERVICE, DRAFT_SERVICE = f"ModelService/{CHAT}", f"ModelService/{DRAFT}"


# -------------------------------------------------------------------------------------------------- nodes that fail


async def _under_load(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 4), 60, "four replicas ready")
    stage.load(CHAT, 2.0, 40, output=150)
    await stage.seconds(12)
    busiest = stage.cluster.fleet.busiest()
    in_flight = stage.cluster.fleet.inflight()[busiest]
    assert in_flight > 0
    stage.fail(busiest)
    await stage.until(
        lambda _: stage.now > began(stage) + 40 and not stage.traffic.open, 120, "all have ended"
    )
    served = stage.traffic.ended("served")
    assert len(served) == 80
    assert all(result.output_tokens == 150 for result in served)
    assert sum(result.retries > 0 for result in served) >= in_flight
    await stage.until(lambda seen: seen.ready(CHAT) == 4, 60, "four are ready again, on other nodes")
    alive = [pod for pod in stage.seen.pods(CHAT) if node_of(pod) != busiest]
    assert len(alive) == 4


NODE_FAILS = Scenario(
    name="node failure under load",
    fleet=fleet(l4=3),
    manifests=manifests(service("chat", "replicas: 4\nmaxReplicas: 4")),
    script=_under_load,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 4}},
    events={CHAT: frozenset({"ReplicaLost", "ReplicaPlaced"})},
    actions={"CreateReplica": 5, "DeleteReplica": 1},
)


async def _recovery(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "both GPUs of the only node serve")
    stage.fail("l4-00")
    await stage.until(lambda seen: seen.ready(CHAT) == 0, 60, "nothing is ready any more")
    await stage.seconds(20)
    await stage.recover("l4-00")
    await stage.until(lambda _: settled(stage, CHAT, 2), 90, "both serve again")
    stage.load(CHAT, 1.0, 5)
    await stage.until(lambda _: len(stage.traffic.ended("served")) == 5, 40, "requests are served again")


NODE_RECOVERS = Scenario(
    name="node recovery",
    fleet=fleet(l4=1),
    manifests=manifests(service("chat", "replicas: 2\nmaxReplicas: 2")),
    script=_recovery,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 2}},
    events={CHAT: frozenset({"ReplicaLost"})},
)


async def _cordon(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one replica ready")
    node = node_of(stage.seen.pods(CHAT)[0])
    before = stage.seen.pods(CHAT)[0]["metadata"]["uid"]
    await stage.patch("Node", node, {"spec": {"unschedulable": True}})
    await stage.scale(CHAT, 2)
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "a second one elsewhere")
    placed = {pod["metadata"]["uid"]: node_of(pod) for pod in stage.seen.pods(CHAT)}
    assert placed.pop(before) == node, "a cordon does not chase away what runs"
    assert node not in placed.values()
    await stage.patch("Node", node, {"spec": {"unschedulable": None}})
    await stage.scale(CHAT, 4)
    await stage.until(lambda _: settled(stage, CHAT, 4), 60, "four, the cordoned node's GPU too")


CORDON = Scenario(
    name="cordon",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "replicas: 1\nmaxReplicas: 4")),
    script=_cordon,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 4}},
)


# ---------------------------------------------------------------------------------------------- agents that fall silent


async def _one_silent(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    stage.load(CHAT, 1.0, 40)
    node = node_of(stage.seen.pods(CHAT)[0])
    await stage.partition(node)
    await stage.until(
        lambda seen: len([p for p in seen.pods(CHAT) if node_of(p) != node]) == 2 == seen.ready(CHAT),
        60,
        "two replicas elsewhere",
    )
    stage.heal(node)
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "only those two are left")
    await stage.until(
        lambda _: stage.now > began(stage) + 40 and not stage.traffic.open, 60, "all have ended"
    )
    assert len(stage.traffic.ended("served")) == 40


ONE_SILENT = Scenario(
    name="one agent silent",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "replicas: 2\nmaxReplicas: 2")),
    script=_one_silent,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 2}},
    events={CHAT: frozenset({"ReplicaLost"})},
)


async def _all_silent(stage: Stage) -> None:
    """When nobody can be heard the fault is rather ours: nothing that serves is touched."""
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    before = {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)}
    stage.load(CHAT, 1.0, 30)
    for node in stage.cluster.fleet.nodes:
        await stage.partition(node)
    await stage.seconds(25)
    assert {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)} == before
    for node in stage.cluster.fleet.nodes:
        stage.heal(node)
    await stage.seconds(10)
    assert settled(stage, CHAT, 2)
    assert {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)} == before
    await stage.until(lambda _: not stage.traffic.open, 60, "all have ended")
    assert len(stage.traffic.ended("served")) == 30


ALL_SILENT = Scenario(
    name="all agents silent",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "replicas: 2\nmaxReplicas: 2")),
    script=_all_silent,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 2}},
    never=frozenset({"ReplicaLost"}),
)


# --------------------------------------------------------------------------------------------------- what cannot be


def _strange(count: int) -> object:
    """A fleet with one node of a product that no AcceleratorClass describes."""
    made = fleet(l4=count)
    strange = msgspec.structs.replace(L4, product="NVIDIA-B999")
    nodes = (*made.nodes[:-1], msgspec.structs.replace(made.nodes[-1], gpu=strange))
    return msgspec.structs.replace(made, nodes=nodes)


async def _serves_one(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready(DRAFT) == 1, 60, "the other service is served")
    await stage.seconds(6)


UNKNOWN_PRODUCT = Scenario(
    name="unknown GPU product",
    fleet=_strange(2),  # type: ignore[arg-type]
    manifests=manifests(service("draft", "minReplicas: 1"), service("chat", "minReplicas: 1", on="b999")),
    script=_serves_one,
    final={
        DRAFT_SERVICE: {"status.phase": "Serving"},
        CHAT_SERVICE: {
            "status.phase": "Refused",
            "conditions.Accepted.status": "False",
            "conditions.Accepted.message": re.compile(
                r"spec\.accelerators names 'b999', which no AcceleratorClass describes; known are A100-80, A10G, H100, L4\. Apply"
            ),
        },
    },
    events={"l4-01": frozenset({"NodeUnknownProduct"}), CHAT: frozenset({"SpecInvalid"})},
)


async def _spoiled(stage: Stage) -> None:
    """What serves goes on serving under a specification that became invalid, whoever leads."""
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    before = {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)}
    stage.load(CHAT, 0.8, 50)
    await stage.patch("ModelService", CHAT, {"spec": {"accelerators": ["b999"]}})
    await stage.seconds(15)
    await stage.restart()
    await stage.until(lambda _: not stage.traffic.open, 90, "all have ended")
    assert len(stage.traffic.ended("served")) == 40
    assert {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)} == before
    await stage.patch("ModelService", CHAT, {"spec": {"accelerators": ["l4"], "replicas": 1}})
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one replica, as the mended specification says")
    await stage.delete("ModelService", CHAT)
    await stage.until(lambda seen: not seen.pods(CHAT) and CHAT not in stage.routes, 60, "nothing is left")
    await stage.restart()
    await stage.seconds(10)
    assert CHAT not in stage.operator.observer.live("services")


SPOILED = Scenario(
    name="a specification that becomes invalid",
    fleet=fleet(l4=1),
    manifests=manifests(service("chat", "replicas: 2\nmaxReplicas: 2")),
    script=_spoiled,
    events={CHAT: frozenset({"SpecInvalid"})},
    converges=False,
)

IMPOSSIBLE = Scenario(
    name="impossible objective",
    fleet=fleet(l4=2),
    manifests=manifests(
        service("draft", "minReplicas: 1"), service("chat", "minReplicas: 1", model="llama-2-7b", tpot=0.040)
    ),
    script=_serves_one,
    final={
        DRAFT_SERVICE: {"status.phase": "Serving"},
        CHAT_SERVICE: {
            "status.phase": "Refused",
            "conditions.Planned.status": "False",
            "conditions.Planned.reason": "ObjectiveImpossible",
            "conditions.Planned.message": re.compile(r"L4x1-bf16, needs 45 ms where 40 ms is asked"),
        },
    },
    events={CHAT: frozenset({"ObjectiveImpossible"})},
)

NO_INVENTORY = Scenario(
    name="no inventory",
    fleet=fleet(l4=1),
    manifests=manifests(service("draft", "minReplicas: 1"), service("chat", "minReplicas: 2", on="a10g")),
    script=_serves_one,
    final={
        DRAFT_SERVICE: {"status.phase": "Serving"},
        CHAT_SERVICE: {
            "status.phase": "Pending",
            "conditions.Planned.status": "False",
            "conditions.Planned.reason": "NoInventory",
            "conditions.Planned.message": re.compile(r"\d"),
        },
    },
    events={CHAT: frozenset({"NoInventory"})},
)


# ------------------------------------------------------------------------------------------ a policy told nonsense


async def _bad_policy(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one replica ready")
    await stage.patch(
        "ModelService", CHAT, {"spec": {"policies": {"scale": {"name": "hpa", "config": {"target": 7}}}}}
    )
    await stage.seconds(8)
    kept = stage.operator.planner.states.good[f"scale|{CHAT}"]
    assert kept.config["stabilisation_seconds"] == 4.0, "the last good configuration stays in force"
    stage.load(CHAT, 3.0, 8)
    await stage.until(
        lambda _: len(stage.traffic.ended("served")) == 24, 60, "it scales and serves as before"
    )


BAD_POLICY = Scenario(
    name="a policy that is configured wrongly",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", f"minReplicas: 1\n{SHORT_MEMORY}")),
    script=_bad_policy,
    final={
        CHAT_SERVICE: {
            "conditions.Accepted.status": "False",
            "conditions.Accepted.reason": "PolicyConfigInvalid",
            "conditions.Accepted.message": re.compile(
                r"config of scale policy 'hpa': .*target.*last good configuration"
            ),
        }
    },
    events={CHAT: frozenset({"PolicyConfigInvalid"})},
)


# --------------------------------------------------------------------------------------------------- the store


async def _outage(stage: Stage) -> None:
    """A minute without the store: what serves goes on serving, and what was asked for meanwhile comes after."""
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one replica ready")
    stage.load(CHAT, 0.5, 60)
    stage.faults.outage(60.0)
    await stage.seconds(5)
    await stage.scale(CHAT, 3)
    await stage.seconds(50)
    assert len(stage.seen.pods(CHAT)) == 1, "nothing can be done while the store does not answer"
    await stage.until(lambda _: settled(stage, CHAT, 3), 90, "three replicas, as was asked in the outage")
    await stage.until(
        lambda _: stage.now > began(stage) + 60 and not stage.traffic.open, 60, "all have ended"
    )
    assert len(stage.traffic.ended("served")) == 30


OUTAGE = Scenario(
    name="store outage of a minute",
    fleet=fleet(l4=2),
    manifests=manifests(service("chat", "replicas: 1")),
    script=_outage,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 3}},
)


def disturbed(name: str, disturb: str, rates: FaultRates = CALM) -> Scenario:
    """Serve, train, scale, lose a node, all while the store misbehaves; then it is calm again."""

    async def script(stage: Stage) -> None:
        stage.faults.rates = rates
        _disturb(stage, disturb)
        await stage.until(lambda seen: seen.ready(CHAT) == 2, 120, "two replicas ready")
        _disturb(stage, disturb)
        await stage.scale(CHAT, 3)
        await stage.until(lambda seen: seen.ready(CHAT) == 3, 120, "three replicas ready")
        _disturb(stage, disturb)
        await stage.apply(job("bert"))
        await stage.until(
            lambda seen: seen.phase("TrainingJob", BERT) == "Succeeded", 300, "the gang succeeds"
        )
        _disturb(stage, disturb)
        await stage.scale(CHAT, 1)
        await stage.until(lambda seen: seen.ready(CHAT) == 1, 200, "one replica")
        stage.faults.rates = CALM
        await stage.seconds(35)  # the longest pause between two attempts of a cache
        await stage.until(lambda _: settled(stage, CHAT, 1), 120, "one replica, and nothing else")
        assert sum(stage.faults.counts.values()) or disturb == "expire"

    return Scenario(
        name=name,
        fleet=fleet(l4=2, h100=2),
        manifests=manifests(service("chat", f"replicas: 2\n{SHORT_MEMORY}")),
        script=script,
        final={
            CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 1},
            f"TrainingJob/{BERT}": {"status.phase": "Succeeded"},
        },
        converges=False,
    )


def _disturb(stage: Stage, how: str) -> None:
    match how:
        case "expire":
            stage.faults.expire()
        case "conflicts":
            stage.faults.conflict_storm(20)
        case "throttle":
            stage.faults.throttle(8.0)
        case "cut":
            stage.faults.cut()
            stage.faults.counts["cut"] += 1
        case "silence":
            stage.faults.silence()
            stage.faults.counts["silent"] += 1


def _lose_first_answer(stage: Stage, owner: str) -> None:
    """The first pod of an owner is created, its answer is lost, and nobody hears of it for some seconds."""
    store, send, lost = stage.faults, stage.faults.send, []

    async def losing(request: Request, answer: Callable[[], Awaitable[Any]]) -> Any:
        result = await send(request, answer)
        if request.verb == "create" and request.resource.kind == "Pod" and owner in request.name and not lost:
            lost.append(request.name)
            stage.operator.caches.reflectors["Pod"]._watch.delay(8.0)  # type: ignore[union-attr]
            raise Unavailable(f"the answer to {request} was lost")
        return result

    store.send = losing  # type: ignore[method-assign]


async def _unheard(stage: Stage) -> None:
    _lose_first_answer(stage, "chat")
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    made = [line for line in stage.mutating_calls if line.startswith("create Pod")]
    assert len(made) == 2, made
    _lose_first_answer(stage, "bert")
    await stage.apply(job("bert"))
    await stage.until(lambda seen: seen.phase("TrainingJob", BERT) == "Succeeded", 200, "the gang succeeds")
    await stage.until(lambda seen: len(seen.pods(BERT)) == 2, 60, "nothing of a half-made attempt is left")


UNHEARD = Scenario(
    name="a pod is made and nobody hears of it",
    fleet=fleet(l4=1, h100=2),
    manifests=manifests(service("chat", "replicas: 2\nmaxReplicas: 2")),
    script=_unheard,
    final={CHAT_SERVICE: {"status.phase": "Serving"}, f"TrainingJob/{BERT}": {"status.phase": "Succeeded"}},
    converges=False,
)


STAGED = [
    UNHEARD,
    disturbed("watches end with 410", "expire"),
    disturbed("storms of 409", "conflicts"),
    disturbed("storms of 429", "throttle"),
    disturbed("watches are cut", "cut"),
    disturbed("watches fall silent", "silence"),
]
"""Stores that misbehave at a stated moment."""
DRAWN = [
    disturbed("events late and doubled", "", FaultRates(delayed=0.3, duplicated=0.3)),
    disturbed("events lost with their stream", "", FaultRates(cut=0.1, gone=0.05, stale=0.2)),
    disturbed("answers lost", "", FaultRates(lost_answer=0.15, unavailable=0.1)),
    disturbed("everything at once", "cut", FaultRates(
        unavailable=0.05, lost_answer=0.1, throttled=0.03, conflict=0.1, gone=0.02, stale=0.1, cut=0.03, delayed=0.2,
        duplicated=0.2,
    )),
]  # fmt: skip
"""Stores that misbehave at random: a fault is drawn for each request and each batch of events, so that which ones it
hits hangs on how many there are."""
DISTURBED = [*STAGED, *DRAWN]
ALL = [
    NODE_FAILS,
    NODE_RECOVERS,
    CORDON,
    ONE_SILENT,
    ALL_SILENT,
    UNKNOWN_PRODUCT,
    SPOILED,
    IMPOSSIBLE,
    NO_INVENTORY,
    BAD_POLICY,
    OUTAGE,
]

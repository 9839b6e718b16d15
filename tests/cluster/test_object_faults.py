"""What may happen to objects under an operator, on the real server: it converges, asks little, and says why.

Each play is followed by the same questions: no orphan, no two attempts of a job, no pod asked for again and again, and
few requests once nothing changes any more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from console.controlplane import ControlPlane
from controller.config import PolicyDefault
from controller.observe import labels
from controller.resources.core import NAMESPACE, POD
from controller.resources.kinds import MODEL_SERVICE, TRAINING_JOB
from controller.store.errors import NotFound
from controller.store.interface import JsonObject
from controller.store.interposed import Request
from tests.cluster.operating import Cluster, config_of, operating
from tests.cluster.test_pods import here
from tests.scenarios.props import job, service

QUIET_SECONDS = 3
"""Wall time for which an operator with nothing to do is watched: it is requests that are counted, not time."""
MOST_QUIET_WRITES = 15
"""Writes in it: readings that moved, an event counted up, the Lease. A hot loop makes hundreds."""
MOST_TRIES = 12
"""Most pods made for one replica, or attempts for one gang, whatever happens."""


async def apply(cluster: Cluster, text: str) -> None:
    await cluster.kubectl("apply", "-f", "-", stdin=here(text, cluster.namespace))


async def ready(cluster: Cluster, count: int, what: str) -> None:
    async def holds() -> bool:
        return len(await cluster.ready()) == len(await cluster.pods()) == count

    await cluster.until(holds, what)


async def condition(cluster: Cluster, resource: Any, name: str, kind: str) -> JsonObject:
    obj = await cluster.admin.get(resource, name, cluster.namespace)
    found = (c for c in obj.get("status", {}).get("conditions", []) if c["type"] == kind)
    return next(found, {})


CHAT = service("chat", "minReplicas: 1\nmaxReplicas: 1")


# ----------------------------------------------------------------------------------------------------- the plays


async def meddler(cluster: Cluster) -> None:
    """A foreign controller writes a field of the status again and again."""
    await apply(cluster, CHAT)
    await ready(cluster, 1, "a replica")
    stop = asyncio.Event()

    async def meddle() -> None:
        while not stop.is_set():
            patch = {"status": {"phase": "Refused"}}
            await cluster.admin.patch(
                MODEL_SERVICE, "chat", patch, cluster.namespace, field_manager="meddler", subresource="status"
            )
            await asyncio.sleep(0.2)

    meddling = asyncio.create_task(meddle())
    before = cluster.recorder.asked["apply", MODEL_SERVICE, "status"]

    async def named() -> bool:
        told = await condition(cluster, MODEL_SERVICE, "chat", "Contested")
        return "meddler" in told.get("message", "") and "status.phase" in told["message"]

    await cluster.until(named, "a condition that names who also writes the field")
    await asyncio.sleep(QUIET_SECONDS)
    assert cluster.recorder.asked["apply", MODEL_SERVICE, "status"] - before <= 10, "a fight"
    stop.set()
    await meddling

    async def over() -> bool:
        obj = await cluster.admin.get(MODEL_SERVICE, "chat", cluster.namespace)
        return bool(obj["status"]["phase"] == "Serving")

    await cluster.until(over, "our own value, once the other has stopped")


async def edited(cluster: Cluster) -> None:
    """The user changes the image between the decision and the first pod."""
    done: list[str] = []

    async def edit(request: Request) -> None:
        if request.verb == "create" and request.resource is POD and not done:
            done.append(request.name)
            patch = {"spec": {"image": "example.org/engine:2"}}
            await cluster.admin.patch(MODEL_SERVICE, "chat", patch, cluster.namespace, field_manager="user")

    cluster.recorder.before = edit
    await apply(cluster, CHAT)

    async def rolled() -> bool:
        images = [p["spec"]["containers"][0]["image"] for p in await cluster.ready()]
        return images == ["example.org/engine:2"] and len(await cluster.pods()) == 1

    await cluster.until(rolled, "one replica, of the image the user wants now")
    assert done


async def edited_job(cluster: Cluster) -> None:
    """Somebody takes the next attempt's number between the decision and its claim: never two gangs of one number."""
    done: list[str] = []

    async def take(request: Request) -> None:
        if (
            request.resource == TRAINING_JOB
            and request.subresource == "status"
            and request.verb == "patch"
            and not done
        ):
            done.append(request.name)
            patch = {"status": {"attempt": 1}}
            await cluster.admin.patch(
                TRAINING_JOB, "bert", patch, cluster.namespace, field_manager="rival", subresource="status"
            )

    cluster.recorder.before = take
    await apply(cluster, job("bert", steps=10_000))
    await ready(cluster, 2, "both ranks")
    assert {p["metadata"]["labels"][labels.ATTEMPT] for p in await cluster.pods()} == {"2"}
    assert done


async def namespace_gone(cluster: Cluster) -> None:
    """The namespace of a running gang is deleted."""
    name = f"{cluster.namespace}-gone"
    await asyncio.to_thread(cluster.plane.create_namespace, name)
    text = "\n---\n".join((here(job("bert", steps=10_000), name), here(CHAT, name)))
    await asyncio.to_thread(cluster.plane.kubectl, "apply", "-f", "-", stdin=text)

    async def pods() -> list[JsonObject]:
        return list((await cluster.admin.list(POD, name)).items)

    async def up() -> bool:
        return [p["status"]["phase"] for p in await pods()] == ["Running"] * 3

    await cluster.until(up, "a gang and a replica that run")
    made = cluster.recorder.asked["create", POD, ""]
    await cluster.admin.delete(NAMESPACE, name)

    async def gone() -> bool:
        try:
            await cluster.admin.get(NAMESPACE, name)
        except NotFound:
            return True
        return False

    await cluster.until(gone, "the namespace gone, with all that was in it")
    tried = cluster.recorder.asked["create", POD, ""] - made
    assert tried <= 6, f"{tried} pods were asked for in a namespace that goes"


async def never_starts(cluster: Cluster) -> None:
    """Pods are bound, and their kubelet never brings them up."""
    for node in cluster.fleet.nodes.values():
        node.alive = False  # its lease is renewed no more either, but that takes the controllers 40 s to see
    await apply(cluster, CHAT)
    await cluster.until(
        lambda: cluster.events("ReplicaNotStarted", "chat"), "an event that says what did not start"
    )

    async def told() -> bool:
        said = await condition(cluster, MODEL_SERVICE, "chat", "Ready")
        return said.get("status") == "False" and "did not" in said.get("message", "")

    await cluster.until(told, "the condition that says why")


async def finalizer_left(cluster: Cluster) -> None:
    """A killed operator left finalizers on a service, a job and a pod, and all are deleted."""
    await apply(cluster, CHAT)
    await apply(cluster, job("bert", steps=10_000))
    await ready(cluster, 3, "a replica and two ranks")
    left = {"metadata": {"finalizers": ["plimsoll.dev/left"]}}
    for resource, name in ((MODEL_SERVICE, "chat"), (TRAINING_JOB, "bert")):
        await cluster.admin.patch(resource, name, left, cluster.namespace, field_manager="killed")
    for pod in await cluster.pods():
        await cluster.admin.patch(
            POD, pod["metadata"]["name"], left, cluster.namespace, field_manager="killed"
        )
    await cluster.kubectl("delete", "msvc/chat", "--timeout=90s")
    await cluster.kubectl("delete", "tjob/bert", "--timeout=90s", "--cascade=foreground")
    await ready(cluster, 0, "nothing left")


async def deleted_by_hand(cluster: Cluster) -> None:
    """Pods are deleted behind the operator's back, and the service in the foreground."""
    await apply(cluster, CHAT)
    await ready(cluster, 1, "a replica")
    (pod,) = await cluster.pods()
    await cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")

    async def replaced() -> bool:
        found = await cluster.ready()
        return len(found) == 1 and found[0]["metadata"]["name"] != pod["metadata"]["name"]

    await cluster.until(replaced, "a successor of another name")
    await cluster.kubectl("delete", "msvc/chat", "--cascade=foreground", "--timeout=90s")
    await ready(cluster, 0, "nothing left")


# --------------------------------------------------------------------------------------------------- the questions


async def no_orphans(cluster: Cluster) -> None:
    owners = {
        obj["metadata"]["uid"]
        for resource in (MODEL_SERVICE, TRAINING_JOB)
        for obj in (await cluster.admin.list(resource)).items
    }

    async def none() -> bool:
        found = [p for p in await cluster.pods() if labels.MANAGED_BY in p["metadata"].get("labels", {})]
        return all(o["uid"] in owners for p in found for o in p["metadata"]["ownerReferences"])

    await cluster.until(none, "no pod whose owner is gone")


async def one_attempt(cluster: Cluster) -> None:
    attempts: Counter[str] = Counter()
    for pod in await cluster.pods():
        marks = pod["metadata"].get("labels", {})
        if labels.JOB in marks and "deletionTimestamp" not in pod["metadata"]:
            attempts[marks[labels.JOB], marks[labels.ATTEMPT]] += 1  # type: ignore[index]
    assert len(attempts) <= 1, attempts


async def few_requests(cluster: Cluster) -> None:
    tried = Counter(
        name.partition(" Pod ")[2].rpartition("-")[0]
        for name in cluster.recorder.requests.elements()
        if name.startswith("create Pod ")
    )
    assert all(count <= MOST_TRIES for count in tried.values()), tried
    before = cluster.recorder.mutations
    await asyncio.sleep(QUIET_SECONDS)
    asked = cluster.recorder.mutations - before
    assert asked <= MOST_QUIET_WRITES, f"{asked} writes in {QUIET_SECONDS} s in which nothing happened"


@dataclass(frozen=True)
class Play:
    """What happens, on which nodes, under which policies."""

    script: Callable[[Cluster], Awaitable[None]]
    nodes: dict[str, int] = field(default_factory=lambda: {"l4": 1})
    policies: dict[str, PolicyDefault] = field(default_factory=dict)


BOTH = {"l4": 1, "h100": 2}
SOON = {"place": PolicyDefault("priced_fgd", {"bind_seconds": 5.0, "start_seconds": 3.0})}
PLAYS = [
    pytest.param(Play(meddler), id="a foreign controller fights over a field", marks=pytest.mark.slow),
    pytest.param(Play(edited), id="a service is edited between decide and act"),
    pytest.param(Play(edited_job, {"h100": 2}), id="an attempt's number is taken between decide and act"),
    pytest.param(Play(namespace_gone, BOTH), id="a namespace is deleted under a running gang"),
    pytest.param(Play(never_starts, policies=SOON), id="a pod that never starts"),
    pytest.param(
        Play(finalizer_left, BOTH), id="finalizers that a killed operator left", marks=pytest.mark.slow
    ),
    pytest.param(
        Play(deleted_by_hand),
        id="pods deleted by hand, their service in the foreground",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("play", PLAYS)
def test_it_converges_asks_little_and_says_why(control_plane: ControlPlane, namespace: str, play: Play):
    async def scenario() -> None:
        config = config_of(namespace)
        config = msgspec.structs.replace(config, policies={**config.policies, **play.policies})
        async with operating(control_plane, namespace, config=config, **play.nodes) as cluster:
            await play.script(cluster)
            cluster.recorder.before = None
            await no_orphans(cluster)
            await one_attempt(cluster)
            await few_requests(cluster)

    asyncio.run(scenario())

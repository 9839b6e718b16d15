"""A fleet in accelerated time on a store whose controllers work by themselves, by wall time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from controller.resources.core import POD
from controller.resources.kinds import MODEL_SERVICE
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.interface import Capabilities
from controller.store.interposed import InterposedStore
from runtime.authority import Authority
from runtime.clock import VirtualClock, WallClock
from simulator.fleet import fleet as fleets
from simulator.fleet import settling
from simulator.fleet.barrier import Conductor
from simulator.fleet.feed import Feed
from simulator.fleet.fleet import Fleet
from simulator.fleet.index import PodIndex
from simulator.fleet.lifecycle import NodeLifecycle
from simulator.fleet.objects import LEASE, NODE, Lease, Node, Pod
from simulator.fleet.objects import POD as FLEET_POD
from simulator.fleet.scheduler import Scheduler
from simulator.fleet.settling import NotSettled, Settling
from simulator.fleet.specs import uniform_fleet
from simulator.physics.failures import Failure, FailureKind
from tests.fleet.worlds import ORIGIN, QUICK, Cluster, Idle, engine_pod, plain_pod, run

HASTE = 100.0
"""So many of the controllers' seconds pass in a second of wall time."""
PAUSE_SECONDS = 0.005


class Busy(InterposedStore):
    """A store that says that its controllers run by themselves."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            runs_cel=False,
            runs_controllers=True,
            shows_managed_fields=False,
            strict_fields=True,
            durable=False,
        )


class Controllers:
    """Scheduler, garbage collector and node life cycle, each in its own time."""

    def __init__(self, store: EmbeddedStore, clock: VirtualClock) -> None:
        self._wall = WallClock()
        self._index = PodIndex()
        self._pods = Feed(store, clock, FLEET_POD, Pod)
        self._nodes = Feed(store, clock, NODE, Node)
        self._leases = Feed(store, clock, LEASE, Lease, "kube-node-lease")
        self._scheduler = Scheduler(store, self._index, self._nodes.objects)
        self._lifecycle = NodeLifecycle(store, store, self._index, self._nodes.objects)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            now = self._wall.monotonic() * HASTE
            self._index.take(await self._pods.pump())
            await self._nodes.pump()
            self._lifecycle.heard(await self._leases.pump(), now)
            await self._lifecycle.step(now)
            await self._scheduler.step()


@asynccontextmanager
async def settled(monkeypatch: pytest.MonkeyPatch, *, busy: bool = True) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(fleets, "LEASE_WALL_SECONDS", 0.02)
    clock = VirtualClock(ORIGIN)
    store = open_store(clock)
    spec = uniform_fleet(2, start=QUICK)
    fleet = Fleet(
        spec,
        Busy(store),
        clock,
        Authority.create(WallClock()),
        settling=Settling((MODEL_SERVICE,), (), partial(asyncio.sleep, 0)),
    )
    operator = Idle()
    working = asyncio.create_task(Controllers(store, clock).run() if busy else asyncio.sleep(0))
    try:
        await fleet.start()
        yield Cluster(clock, store, fleet, Conductor(clock, fleet, operator), operator)
    finally:
        await fleet.stop()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


def played(story: Callable[[Cluster], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with settled(monkeypatch) as made:
            await story(made)

    run(scenario)


def test_a_pod_is_bound_before_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(made: Cluster) -> None:
        for number in range(3):
            await made.create(engine_pod(f"chat-{number}", "node-0000", (number,)))
            await made.seconds(1)
            assert (await made.pod(f"default/chat-{number}"))["spec"]["nodeName"] == "node-0000"
        assert made.fleet.settler is not None
        assert made.fleet.settler.waits >= 3

    played(story, monkeypatch)


def test_nothing_is_waited_for_where_nothing_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(made: Cluster) -> None:
        settler = made.fleet.settler
        assert settler is not None
        before = settler.waits
        await made.seconds(30)
        assert settler.waits == before

    played(story, monkeypatch)


def test_a_pod_that_fits_nowhere_waits_for_its_scheduler_s_word(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(made: Cluster) -> None:
        pod = engine_pod("chat-0", "node-0000")
        pod["spec"]["nodeSelector"] = {"zone": "nowhere"}
        await made.create(pod)
        monkeypatch.setattr(settling, "PATIENCE_SECONDS", 0.1)
        with pytest.raises(
            NotSettled, match="pod default/chat-0 fits nowhere, and the scheduler has not said so"
        ):
            await made.seconds(1)
        said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        patch = {"status": {"conditions": [said]}}
        await made.store.patch(
            POD, "chat-0", patch, "default", field_manager="kube-scheduler", subresource="status"
        )
        await made.seconds(1)

    played(story, monkeypatch)


def test_pods_of_a_deleted_owner_go_before_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(made: Cluster) -> None:
        service = {
            "apiVersion": "plimsoll.dev/v1alpha1",
            "kind": "ModelService",
            "metadata": {"name": "chat", "namespace": "default"},
            "spec": {"model": {"name": "llama-3.1-8b"}},
        }
        owner = await made.store.create(MODEL_SERVICE, service, field_manager="test")
        pod = engine_pod("chat-0", "node-0000")
        pod["metadata"]["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": "ModelService",
                "name": "chat",
                "uid": owner["metadata"]["uid"],
            }
        ]
        await made.create(pod)
        await made.seconds(20)
        await made.store.delete(MODEL_SERVICE, "chat", "default")
        await made.seconds(1)
        assert await made.gone("default/chat-0"), "an idle engine stops at once"

    played(story, monkeypatch)


def test_a_silent_node_is_judged_in_the_very_second_in_which_it_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(made: Cluster) -> None:
        await made.create(engine_pod("chat-0", "node-0000"))
        await made.until(lambda: made.ready("default/chat-0"))
        node = made.fleet.nodes["node-0000"]
        made.fleet.schedule(Failure(made.clock.now() + 0.5, "node-0000", FailureKind.NODE_CRASH, 0))
        await made.seconds(1)
        lasts = node.renewed_seconds + 40.0

        async def ready() -> str:
            conditions = (await made.node("node-0000"))["status"]["conditions"]
            return next(str(c["status"]) for c in conditions if c["type"] == "Ready")

        while made.clock.now() < lasts:
            await made.seconds(1)
            assert await ready() == "True"
        await made.seconds(1)
        assert await ready() == "Unknown"
        assert not await made.ready("default/chat-0")
        taints = {(t["key"], t["effect"]) for t in (await made.node("node-0000"))["spec"]["taints"]}
        unreachable = "node.kubernetes.io/unreachable"
        assert taints == {(unreachable, "NoSchedule"), (unreachable, "NoExecute")}
        await made.fleet.recover("node-0000", made.clock.now())
        await made.seconds(1)
        assert await ready() == "True"
        assert not (await made.node("node-0000"))["spec"].get("taints")

    played(story, monkeypatch)


def test_who_does_not_do_its_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(settling, "PATIENCE_SECONDS", 0.1)
        async with settled(monkeypatch, busy=False):
            pass

    with pytest.raises(NotSettled, match=r"node node-0000 has the taints .*not-ready.* and should have"):
        run(scenario)


def test_a_pod_without_an_owner_of_ours_is_nobody_s_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(made: Cluster) -> None:
        pod = plain_pod("notebook")
        pod["metadata"]["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "u", "controller": True}
        ]
        await made.create(pod)
        await made.seconds(2)

    played(story, monkeypatch)

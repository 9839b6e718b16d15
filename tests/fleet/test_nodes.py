"""Nodes in the store: registered, kept alive by leases, silent, evicted, back, gone for good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller import routing
from controller.observe import labels
from controller.resources import core
from controller.resources.core import NODE, POD
from controller.store.embedded import open_store
from controller.store.errors import NotFound
from controller.store.faults import FaultyStore
from controller.store.interposed import InterposedStore
from simulator.fleet import objects
from simulator.fleet.cloud import node_object
from simulator.fleet.specs import PRODUCT_LABELS, demo_fleet, uniform_fleet
from simulator.physics.failures import Failure, FailureKind
from tests.fleet.worlds import QUICK, Cluster, cluster, engine_pod, plain_pod, run

Scenario = Callable[[], Awaitable[None]]
GONE_IN_30 = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    for key in ("unreachable", "not-ready")
]


def readiness(node: dict[str, Any]) -> tuple[str, str]:
    condition = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
    return condition["status"], condition["reason"]


def taints(node: dict[str, Any]) -> set[tuple[str, str]]:
    return {(taint["key"], taint["effect"]) for taint in node["spec"].get("taints", [])}


async def crash(made: Cluster, name: str) -> None:
    made.fleet.schedule(Failure(made.clock.now() + 0.5, name, FailureKind.NODE_CRASH))
    await made.seconds(1)


def test_a_node_is_registered_with_labels_and_capacity_and_loses_its_taint_once_it_is_ready() -> None:
    async def scenario() -> None:
        async with cluster(demo_fleet(start=QUICK)) as made:
            spec = made.fleet.nodes["h100-02"].spec
            assert taints(node_object(spec)) == {("node.kubernetes.io/not-ready", "NoSchedule")}
            await made.seconds(1)
            node = await made.node("h100-02")
            assert taints(node) == set()
            assert readiness(node) == ("True", "KubeletReady")
            labels = node["metadata"]["labels"]
            assert labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
            assert labels["plimsoll.dev/island"] == "h100-infiniband-0"
            assert labels["topology.kubernetes.io/zone"] == "zone-b"
            assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"

    run(scenario)


def test_leases_are_renewed_every_ten_seconds_and_not_all_at_once() -> None:
    async def scenario() -> None:
        async with cluster(uniform_fleet(10, start=QUICK)) as made:
            await made.seconds(10)
            before = made.store.requests["replace", "Lease"]
            times: dict[str, set[str]] = {name: set() for name in made.fleet.nodes}
            most = 0
            for _ in range(30):
                at = made.store.requests["replace", "Lease"]
                await made.seconds(1)
                most = max(most, made.store.requests["replace", "Lease"] - at)
                for name, renewals in times.items():
                    renewals.add((await made.lease(name))["spec"]["renewTime"])
            assert made.store.requests["replace", "Lease"] - before == 30
            assert most == 1
            assert {len(each) for each in times.values()} <= {3, 4}

    run(scenario)


def test_a_crashed_node_is_not_ready_after_forty_seconds_and_its_pods_go_when_their_toleration_ends() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000", tolerations=GONE_IN_30))
            await made.until(lambda: made.ready("default/chat-0"))
            crashed = made.now
            await crash(made, "node-0000")

            async def silent() -> bool:
                return readiness(await made.node("node-0000"))[0] == "Unknown"

            took = await made.until(silent) - crashed
            assert 30 < took <= 42  # 40 s after the last renewal, which is up to 10 s old
            await made.seconds(1)
            node = await made.node("node-0000")
            assert taints(node) == {
                ("node.kubernetes.io/unreachable", "NoSchedule"),
                ("node.kubernetes.io/unreachable", "NoExecute"),
            }
            # Its kubelet cannot say otherwise, so the life cycle does.
            assert not await made.ready("default/chat-0")

            async def terminating() -> bool:
                return "deletionTimestamp" in (await made.pod("default/chat-0"))["metadata"]

            assert await made.until(terminating) - crashed - took == pytest.approx(30, abs=2)
            await made.seconds(60)
            assert not await made.gone("default/chat-0")  # Terminating until a kubelet or an operator ends it

    run(scenario)


def test_when_every_node_is_silent_nothing_is_evicted() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000", tolerations=GONE_IN_30))
            await made.seconds(2)
            for name in made.fleet.nodes:
                made.fleet.schedule(Failure(made.clock.now() + 0.5, name, FailureKind.NODE_CRASH))
            await made.seconds(120)
            assert readiness(await made.node("node-0001"))[0] == "Unknown"
            assert "deletionTimestamp" not in (await made.pod("default/chat-0"))["metadata"]
            assert made.fleet.lifecycle is not None
            assert made.fleet.lifecycle.evicted == 0

    run(scenario)


def test_a_node_that_comes_back_is_ready_again_finishes_deletions_and_starts_its_pods_anew() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("kept", "node-0000", (0,), tolerations=[]))
            await made.create(engine_pod("going", "node-0000", (1,)))
            await made.until(lambda: made.ready("default/going"))
            first = (await made.pod("default/kept"))["metadata"]["annotations"]["plimsoll.dev/endpoint"]
            await crash(made, "node-0000")
            await made.delete("default/going", 5)
            await made.seconds(60)
            await made.fleet.recover("node-0000", made.clock.now())
            await made.seconds(3)
            assert await made.gone("default/going")
            node = await made.node("node-0000")
            assert (readiness(node)[0], taints(node)) == ("True", set())
            assert not await made.ready("default/kept")
            await made.until(lambda: made.ready("default/kept"))
            again = (await made.pod("default/kept"))["metadata"]["annotations"]["plimsoll.dev/endpoint"]
            assert again != first

    run(scenario)


def test_pods_of_a_node_that_is_gone_for_good_are_removed_without_a_kubelet() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000"))
            await made.create(plain_pod("theirs", "node-0001"))
            await made.until(lambda: made.ready("default/chat-0"))
            await crash(made, "node-0000")
            await made.store.delete(NODE, "node-0000")
            await made.seconds(2)
            assert await made.gone("default/chat-0")
            assert not await made.gone("default/theirs")

    run(scenario)


def test_a_living_machine_whose_node_object_is_deleted_stops_its_pods_and_does_not_come_back_by_itself() -> (
    None
):
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000"))
            await made.until(lambda: made.ready("default/chat-0"))
            await made.store.delete(NODE, "node-0000")
            await made.seconds(30)
            assert await made.gone("default/chat-0")
            assert made.fleet.nodes["node-0000"].host.engines() == ()
            for lookup in (made.node, made.lease):
                with pytest.raises(NotFound):
                    await lookup("node-0000")

    run(scenario)


def test_a_store_that_began_anew_meets_the_whole_fleet_again() -> None:
    class Exchangeable(InterposedStore):
        """Another store behind the same door, as when a process that keeps its objects in memory restarts."""

    doors: list[Exchangeable] = []

    def in_front(store: Any, clock: Any) -> Exchangeable:
        doors.append(Exchangeable(store))
        return doors[0]

    async def scenario() -> None:
        async with cluster(store_of=in_front) as made:
            await made.seconds(2)
            await made.create(engine_pod("old", "node-0000"))
            await made.until(lambda: made.ready("default/old"))
            doors[0].inner = made.store = open_store(made.clock, seed=7)
            made.fleet.meet_new_store()
            await made.seconds(2)
            for name in made.fleet.nodes:
                assert readiness(await made.node(name))[0] == "True"
            assert made.fleet.nodes["node-0000"].host.engines() == ()
            await made.create(engine_pod("new", "node-0001", nodeName="node-0001"))
            await made.until(lambda: made.ready("default/new"))

    run(scenario)


def test_the_out_of_service_taint_lets_terminating_pods_go() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("going", "node-0000", (0,)))
            await made.create(engine_pod("staying", "node-0000", (1,)))
            await made.until(lambda: made.ready("default/staying"))
            await crash(made, "node-0000")
            await made.delete("default/going", 5)
            await made.seconds(10)
            assert not await made.gone("default/going")
            taint = {
                "key": "node.kubernetes.io/out-of-service",
                "value": "nodeshutdown",
                "effect": "NoExecute",
            }
            patch = {"spec": {"taints": [taint]}}
            await made.store.patch(NODE, "node-0000", patch, field_manager="test")
            await made.seconds(2)
            assert await made.gone("default/going")
            await made.seconds(2)
            assert await made.gone("default/staying"), (
                "the taint drives away what does not stand it, as any NoExecute"
            )

    run(scenario)


def test_owned_pods_follow_their_owner() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            owner = await made.create(plain_pod("owner", "node-0000", 1))
            owned = plain_pod("owned", "node-0001", 1)
            meta = owner["metadata"]
            owned["metadata"]["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Pod", "name": "owner", "uid": meta["uid"]}
            ]
            await made.create(owned)
            await made.seconds(2)
            await made.delete("default/owner", 1)
            await made.seconds(4)
            assert await made.gone("default/owner")
            assert await made.gone("default/owned")

    run(scenario)


def test_an_outage_of_the_store_costs_no_node_and_no_pod() -> None:
    faulty: list[FaultyStore] = []

    def in_front(store: Any, clock: Any) -> FaultyStore:
        faulty.append(FaultyStore(store, clock, seed=1))
        return faulty[0]

    async def scenario() -> None:
        async with cluster(store_of=in_front) as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000"))
            await made.seconds(2)
            faulty[0].outage(60.0)
            await made.seconds(59)
            assert not await made.ready("default/chat-0")  # it is up, but nobody can say so
            await made.seconds(4)
            assert await made.ready("default/chat-0")
            for name in made.fleet.nodes:
                assert readiness(await made.node(name))[0] == "True"
            assert made.fleet.writer.failures > 0

    run(scenario)


@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(lambda store: store.conflict_storm(20), id="a storm of 409"),
        pytest.param(lambda store: store.expire(), id="watches end with 410"),
        pytest.param(lambda store: store.throttle(5.0), id="429 for five seconds"),
        pytest.param(lambda store: store.cut(), id="streams cut"),
    ],
)
def test_faults_of_the_store_delay_and_lose_nothing(disturb: Callable[[FaultyStore], None]) -> None:
    faulty: list[FaultyStore] = []

    def in_front(store: Any, clock: Any) -> FaultyStore:
        faulty.append(FaultyStore(store, clock, seed=1))
        return faulty[0]

    async def scenario() -> None:
        async with cluster(store_of=in_front) as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000"))
            await made.create(engine_pod("chat-1", "node-0001"))
            disturb(faulty[0])
            await made.seconds(5)
            await made.delete("default/chat-1", 1)
            disturb(faulty[0])
            await made.seconds(25)
            assert await made.ready("default/chat-0")
            assert await made.gone("default/chat-1")

    run(scenario)


def test_a_broken_gpu_ends_the_engine_on_it_and_no_other() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("hit", "node-0000", (0, 1)))
            await made.create(engine_pod("spared", "node-0000", (2,)))
            await made.until(lambda: made.ready("default/spared"))
            made.fleet.schedule(Failure(made.clock.now() + 0.5, "node-0000", FailureKind.GPU_XID, 1))
            await made.seconds(1)
            status = (await made.pod("default/hit"))["status"]
            assert (status["phase"], status["reason"]) == ("Failed", "GpuFault")
            assert await made.ready("default/spared")
            devices = made.fleet.nodes["node-0000"].machine.inventory().devices
            assert [device.healthy for device in devices] == [True, False] + [True] * 6
            assert "Xid" in devices[1].fault
            assert (await made.node("node-0000"))["status"]["allocatable"]["nvidia.com/gpu"] == "7"

    run(scenario)


def test_an_unknown_node_cannot_be_made_to_fail() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            with pytest.raises(KeyError, match="no node 'nowhere'"):
                made.fleet.schedule(Failure(made.clock.now(), "nowhere", FailureKind.NODE_CRASH))

    run(scenario)


def test_the_fleet_and_the_operator_mean_the_same_kinds_and_annotations() -> None:
    assert (objects.POD, objects.NODE, objects.LEASE) == (core.POD, core.NODE, core.LEASE)
    assert (objects.LAUNCH, objects.ENDPOINT) == (labels.LAUNCH, routing.ENDPOINT)
    assert objects.POD == POD


def test_product_names_of_the_demo_are_those_of_feature_discovery() -> None:
    spec = demo_fleet()
    assert len(spec.nodes) == 24
    assert {node.gpu.product for node in spec.nodes} == {"L4", "A10G", "A100-80", "H100"}
    assert {node.product for node in spec.nodes} == {PRODUCT_LABELS[node.gpu.product] for node in spec.nodes}
    assert {node.nic.nic.value for node in spec.nodes} == {"infiniband", "roce", "ethernet"}

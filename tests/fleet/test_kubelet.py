"""Pods on simulated nodes: bound where they fit, up through their stages, down with grace and uid."""

from __future__ import annotations

import msgspec
import pytest

from cluster.codec import to_json
from cluster.launch import EngineLaunch
from cluster.serving import Model, Variant
from controller.resources.core import NODE, POD
from controller.store.errors import Conflict
from simulator.fleet.specs import uniform_fleet
from tests.fleet.worlds import ORIGIN, QUICK, Cluster, cluster, engine_pod, plain_pod, run


async def stages_of(made: Cluster, key: str, seconds: int) -> list[tuple[str, str]]:
    """(phase, reason) of a pod each time they change."""
    seen: list[tuple[str, str]] = []
    for _ in range(seconds):
        status = (await made.pod(key))["status"]
        shown = (status["phase"], status.get("reason", ""))
        if not seen or seen[-1] != shown:
            seen.append(shown)
        await made.seconds(1)
    return seen


def test_an_engine_goes_through_its_stages_at_the_times_of_the_physics() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000"))
            began = made.now
            seen = await stages_of(made, "default/chat-0", 12)
            assert seen == [
                ("Pending", ""),
                ("Pending", "container"),
                ("Running", "weights"),
                ("Running", "engine"),
                ("Running", "warm_up"),
                ("Running", ""),
            ]
            pod = await made.pod("default/chat-0")
            ready = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")
            # container 1.5 s, weights 13.48 GB at 3.1 GB/s (longer than the process' 2 s), engine and warm-up 1 s each
            took = 1.5 + 13.48 / 3.1 + 2.0
            assert ready["lastTransitionTime"] == f"2023-11-14T22:13:{20 + int(began + took):02d}Z"
            assert pod["spec"]["nodeName"] == "node-0000"
            assert pod["status"]["podIP"].startswith(("198.18.", "198.19."))
            host, _, port = pod["metadata"]["annotations"]["plimsoll.dev/endpoint"].partition(":")
            assert (host, int(port) > 0) == ("127.0.0.1", True)

    run(scenario)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"spec": {"unschedulable": True}}, "it is cordoned", id="node is cordoned"),
        pytest.param(
            {"spec": {"taints": [{"key": "team", "value": "a", "effect": "NoSchedule"}]}},
            "its taint team:NoSchedule is not tolerated",
            id="node has a taint the pod does not tolerate",
        ),
        pytest.param(
            {"status": {"allocatable": {"cpu": "1"}}},
            "4 of cpu are asked for, 1 are free",
            id="node has too little cpu",
        ),
        pytest.param(
            {"status": {"allocatable": {"nvidia.com/gpu": "0"}}},
            "1 of nvidia.com/gpu are asked for, 0 are free",
            id="node has no GPU left",
        ),
    ],
)
def test_a_pod_stays_pending_while_its_node_cannot_have_it_and_is_bound_when_it_can(
    change: dict[str, object], why: str
) -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            before = await made.node("node-0000")
            part = "status" if "status" in change else ""
            await made.store.patch(NODE, "node-0000", change, field_manager="test", subresource=part)  # type: ignore[arg-type]
            await made.seconds(1)
            await made.create(engine_pod("chat-0", "node-0000"))
            await made.seconds(3)
            assert "nodeName" not in (await made.pod("default/chat-0"))["spec"]
            assert made.fleet.scheduler is not None
            assert made.fleet.scheduler.why == {"default/chat-0": f"not on node node-0000: {why}"}
            back = (
                {"spec": {"unschedulable": None, "taints": None}}
                if not part
                else {"status": before["status"]}
            )
            await made.store.patch(NODE, "node-0000", back, field_manager="test", subresource=part)  # type: ignore[arg-type]
            await made.seconds(3)
            assert (await made.pod("default/chat-0"))["spec"]["nodeName"] == "node-0000"
            assert made.fleet.scheduler.why == {}

    run(scenario)


def test_devices_by_number_are_waited_for_even_when_the_count_would_fit() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("first", "node-0000", (0, 1)))
            await made.seconds(1)
            await made.create(engine_pod("second", "node-0000", (1, 2)))
            await made.create(engine_pod("third", "node-0000", (2, 3)))
            await made.seconds(2)
            bound = {name for name in ("first", "second", "third") if await is_bound(made, name)}
            assert bound == {"first", "third"}
            await made.delete("default/first", 1)
            await made.delete("default/third", 1)
            await made.seconds(4)
            assert await is_bound(made, "second")

    run(scenario)


async def is_bound(made: Cluster, name: str) -> bool:
    return "nodeName" in (await made.pod(f"default/{name}"))["spec"]


def test_more_important_pods_are_bound_first_and_seats_are_not_given_twice() -> None:
    async def scenario() -> None:
        async with cluster(uniform_fleet(1, start=QUICK)) as made:
            await made.seconds(2)
            for name, priority in (("low", 0), ("high", 10)):
                await made.create(plain_pod(name, "node-0000", 6, priority=priority))
            await made.seconds(1)
            assert (await is_bound(made, "high"), await is_bound(made, "low")) == (True, False)

    run(scenario)


def test_a_pod_of_somebody_else_runs_at_once_and_keeps_its_devices() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(plain_pod("theirs", "node-0000", 2))
            await made.seconds(1)
            assert await made.ready("default/theirs")
            await made.create(engine_pod("ours", "node-0000", (0,)))
            await made.seconds(3)
            assert not await is_bound(made, "ours")
            await made.delete("default/theirs", 5)
            await made.seconds(3)
            assert await is_bound(made, "ours")

    run(scenario)


def test_an_unpinned_pod_goes_to_the_first_node_that_has_room() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(plain_pod("big", "node-0000", 8))
            await made.seconds(1)
            await made.create(plain_pod("anywhere", "", 1))
            await made.seconds(1)
            assert (await made.pod("default/anywhere"))["spec"]["nodeName"] == "node-0001"

    run(scenario)


def test_an_idle_engine_that_is_deleted_goes_at_once_and_frees_its_devices() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000"))
            await made.until(lambda: made.ready("default/chat-0"))
            await made.delete("default/chat-0", 30)
            await made.seconds(1)
            assert await made.gone("default/chat-0")
            assert made.fleet.nodes["node-0000"].host.engines() == ()
            assert not list(made.fleet.nodes["node-0000"].machine.physics.replicas())

    run(scenario)


@pytest.mark.parametrize(
    ("tokens", "grace", "goes_after"),
    [
        pytest.param(200, 30, 5, id="a running request that fits into the grace is finished first"),
        pytest.param(100_000, 6, 6, id="one that does not is lost when the grace is over"),
    ],
)
def test_an_engine_with_a_running_request_uses_its_grace(tokens: int, grace: int, goes_after: int) -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000"))
            await made.until(lambda: made.ready("default/chat-0"))
            physics = made.fleet.nodes["node-0000"].machine.physics
            assert physics.submit("default/chat-0", 1, 100, tokens, made.clock.now()) is None
            await made.delete("default/chat-0", grace)
            asked = made.now
            refused = physics.submit
            await made.seconds(1)
            assert not await made.gone("default/chat-0")
            assert refused("default/chat-0", 2, 100, 10, made.clock.now()) is not None
            gone_at = await made.until(lambda: made.gone("default/chat-0"))
            assert gone_at - asked <= goes_after + 1
            assert (gone_at - asked >= grace) == (tokens > 1000)

    run(scenario)


def test_a_second_shorter_grace_shortens_the_first() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            await made.create(engine_pod("chat-0", "node-0000"))
            await made.until(lambda: made.ready("default/chat-0"))
            made.fleet.nodes["node-0000"].machine.physics.submit(
                "default/chat-0", 1, 100, 30_000, made.clock.now()
            )
            await made.delete("default/chat-0", 300)
            await made.seconds(5)
            await made.delete("default/chat-0", 2)
            await made.seconds(4)
            assert await made.gone("default/chat-0")

    run(scenario)


def test_the_final_delete_carries_the_uid_and_spares_a_successor_of_the_same_name() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            old = await made.create(engine_pod("chat-0", "node-0000"))
            await made.until(lambda: made.ready("default/chat-0"))
            # Somebody removes the pod by force and makes another, all between two looks of the kubelet.
            await made.delete("default/chat-0", 0)
            new = await made.create(engine_pod("chat-0", "node-0001"))
            with pytest.raises(Conflict):
                await made.store.delete(POD, "chat-0", "default", uid=old["metadata"]["uid"], grace_seconds=0)
            await made.until(lambda: made.ready("default/chat-0"))
            pod = await made.pod("default/chat-0")
            assert (pod["metadata"]["uid"], pod["spec"]["nodeName"]) == (new["metadata"]["uid"], "node-0001")
            assert made.fleet.nodes["node-0000"].host.engines() == ()

    run(scenario)


def test_a_model_too_large_for_its_gpus_fails_with_a_sentence_and_harms_nobody() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(2)
            huge = Model(
                name="huge",
                parameters=400e9,
                layers=80,
                hidden_size=8192,
                kv_bytes_per_token=327_680,
                weight_bytes=800 * 10**9,
            )
            launch = EngineLaunch(
                service="a/b", model=huge, variant=Variant(accelerator="H100"), devices=(0,)
            )
            pod = engine_pod("huge", "node-0000")
            pod["metadata"]["annotations"]["plimsoll.dev/launch"] = to_json(launch).decode()
            await made.create(pod)
            await made.create(engine_pod("fine", "node-0000", (1,)))
            await made.seconds(2)
            status = (await made.pod("default/huge"))["status"]
            assert (status["phase"], status["reason"]) == ("Failed", "CannotStart")
            assert "huge" in status["message"]
            assert "larger GPU" in status["message"]
            await made.until(lambda: made.ready("default/fine"))

    run(scenario)


def test_images_are_pulled_once_per_node_when_they_are_not_there() -> None:
    async def scenario() -> None:
        profile = msgspec.structs.replace(QUICK, images_present=False, image_bytes=560_000_000)  # about 10 s
        async with cluster(uniform_fleet(1, start=profile)) as made:
            await made.seconds(2)
            await made.create(engine_pod("first", "node-0000", (0,)))
            await made.seconds(5)
            status = (await made.pod("default/first"))["status"]
            assert (status["phase"], status["reason"]) == ("Pending", "image")
            first = await made.until(lambda: made.ready("default/first")) - 2
            began = made.now
            await made.create(engine_pod("second", "node-0000", (1,)))
            second = await made.until(lambda: made.ready("default/second")) - began
            assert 9.0 <= first - second <= 12.0

    run(scenario)


def test_times_are_those_of_the_virtual_clock() -> None:
    async def scenario() -> None:
        async with cluster() as made:
            await made.seconds(3)
            assert made.clock.now() == ORIGIN + 3
            assert made.operator.steps == 3

    run(scenario)

"""Which pod has which GPU, asked of a recorded kubelet over a real socket; and what becomes of it in the report."""

from __future__ import annotations

import asyncio
import socket as sockets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.node.drivers.base import Device
from agent.node.holders import MOST_HOLDERS, NOBODY, DeviceNames, Holder, Holders, holders_of, put_holders
from agent.podresources import MOST_BYTES, PodResources, PodResourcesConfig
from controller.hub.decode import Decoder
from controller.hub.messages import HolderSeen, HoldersSeen
from runtime.clock import VirtualClock
from tests.agent.kubelet import UUIDS, RecordedKubelet, allocatable, bytes_of_upstream, listed, serving
from tests.hub.support import ORIGIN, TwoGpus, run, until, world
from wire import agent_pb2 as wire
from wire import podresources_pb2 as pb

MIG = "MIG-c2a1b7f0-1111-5222-8333-944455556666"


def devices(count: int = 4, **slices: tuple[str, ...]) -> tuple[Device, ...]:
    return tuple(
        Device(
            uuid=UUIDS[index],
            index=index,
            product="NVIDIA H100 80GB HBM3",
            memory_bytes=80 << 30,
            min_watts=200,
            max_watts=700,
            default_watts=700,
            slices=slices.get(f"gpu{index}", ()),
        )
        for index in range(count)
    )


@pytest.fixture
def socket() -> Iterator[Path]:
    """In a short folder: the name of a unix socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="pr-", dir="/tmp") as folder:
        yield Path(folder) / "kubelet.sock"


def asking(
    socket: Path, clock: VirtualClock | None = None, found: tuple[Device, ...] = (), **config: Any
) -> PodResources:
    made = PodResourcesConfig(socket=socket, **({"deadline_seconds": 2.0} | config))
    return PodResources(lambda: found or devices(), clock or VirtualClock(ORIGIN), made)


def holder(device: int, device_id: str, pod: str, resource: str = "nvidia.com/gpu") -> Holder:
    return Holder(device=device, device_id=device_id, pod=pod, container="main", resource=resource)


def test_everybodys_pods_are_told_with_the_devices_they_have(socket: Path):
    async def scenario() -> None:
        record = listed(
            ("shop/chat-0", "nvidia.com/gpu", [UUIDS[2]]),
            ("other/notebook", "nvidia.com/gpu", [UUIDS[0], UUIDS[3]]),
            ("other/ingress", "example.com/nic", ["eth0"]),
        )
        async with serving(RecordedKubelet(record, allocatable(gpu=list(UUIDS))), socket) as kubelet:
            found = await asking(socket).refresh()
            assert found == Holders(
                rows=(
                    holder(0, UUIDS[0], "other/notebook"),
                    holder(2, UUIDS[2], "shop/chat-0"),
                    holder(3, UUIDS[3], "other/notebook"),
                ),
                known=True,
                offered=(0, 1, 2, 3),
            )
            assert len(kubelet.asked) == 2

    run(scenario)


def test_the_bytes_of_upstreams_contract_are_read(socket: Path):
    async def scenario() -> None:
        record = bytes_of_upstream("shop", "chat-0", "main", "nvidia.com/gpu", UUIDS[1], "x" * 200)
        async with serving(RecordedKubelet(record), socket):
            found = await asking(socket).refresh()
            assert [(row.device, row.pod) for row in found.rows] == [
                (NOBODY, "shop/chat-0"),
                (1, "shop/chat-0"),
            ]

    run(scenario)


NAMES = [
    pytest.param("nvidia.com/gpu", UUIDS[1], 1, id="a whole GPU"),
    pytest.param("nvidia.com/gpu", f"{UUIDS[1]}::3", 1, id="a share of one in time"),
    pytest.param("nvidia.com/gpu.shared", f"{UUIDS[1]}::3", 1, id="a share under its own name"),
    pytest.param("nvidia.com/mig-1g.10gb", MIG, 2, id="a MIG slice by its UUID"),
    pytest.param("nvidia.com/gpu", MIG, 2, id="a MIG slice under the single strategy"),
    pytest.param("nvidia.com/gpu", f"{MIG}::1", 2, id="a share of a MIG slice"),
    pytest.param("nvidia.com/mig-1g.5gb", f"MIG-{UUIDS[3]}/7/0", 3, id="a MIG slice named in the old way"),
    pytest.param("nvidia.com/mig-1g.5gb", "MIG-00000000-dead", NOBODY, id="a MIG slice made a moment ago"),
    pytest.param("nvidia.com/gpu", "2", 2, id="an index"),
    pytest.param("nvidia.com/mig-1g.10gb", "2:5", 2, id="a slice by index"),
    pytest.param("nvidia.com/gpu", "9", NOBODY, id="an index beyond the devices"),
    pytest.param("nvidia.com/gpu", "GPU-unheard-of", NOBODY, id="a GPU that the driver lost"),
    pytest.param("amd.com/gpu", "0000:03:00.0", NOBODY, id="another maker's GPU"),
    pytest.param("example.com/odd", UUIDS[0], 0, id="an odd resource with a GPU's name"),
    pytest.param("example.com/nic", "2", None, id="another plugin that counts"),
    pytest.param("hugepages-2Mi", "0", None, id="no plugin at all"),
]


@pytest.mark.parametrize(("resource", "device_id", "place"), NAMES)
def test_a_devices_name(resource: str, device_id: str, place: int | None):
    answer = pb.ListPodResourcesResponse.FromString(listed(("a/b", resource, [device_id])))
    rows, more = holders_of(answer, DeviceNames(devices(gpu2=(MIG,))))
    assert [row.device for row in rows] == ([] if place is None else [place])
    assert more == 0


CLAIMS = [
    pytest.param("gpu.nvidia.com", "gpu-2", [2], id="a whole GPU"),
    pytest.param("gpu.nvidia.com", "gpu-2-mig-1g10gb-19-0", [2], id="a slice"),
    pytest.param("gpu.nvidia.com", "gpu-77", [NOBODY], id="one that is not there"),
    pytest.param("gpu.nvidia.com", "something", [NOBODY], id="a name of another form"),
    pytest.param("dra.net", "gpu-2", [], id="a network device"),
]


@pytest.mark.parametrize(("driver", "name", "places"), CLAIMS)
def test_devices_of_resource_claims_count_too(driver: str, name: str, places: list[int]):
    answer = pb.ListPodResourcesResponse()
    container = answer.pod_resources.add(name="b", namespace="a").containers.add(name="main")
    claim = container.dynamic_resources.add(claim_name="c", claim_namespace="a")
    claim.claim_resources.add(driver_name=driver, pool_name="n1", device_name=name)
    rows, _ = holders_of(answer, DeviceNames(devices()))
    assert [row.device for row in rows] == places
    assert all(row.resource == "gpu.nvidia.com (a/c)" and row.device_id == f"n1/{name}" for row in rows)


def test_two_containers_of_a_pod_and_two_pods_on_a_gpu_are_told_apart():
    answer = pb.ListPodResourcesResponse()
    for name in ("one", "two"):
        pod = answer.pod_resources.add(name=name, namespace="a")
        for container in ("x", "y", "y"):
            pod.containers.add(name=container).devices.add(
                resource_name="nvidia.com/gpu", device_ids=[f"{UUIDS[0]}::1"]
            )
    rows, _ = holders_of(answer, DeviceNames(devices()))
    assert [(row.pod, row.container) for row in rows] == [
        ("a/one", "x"), ("a/one", "y"), ("a/two", "x"), ("a/two", "y"),
    ]  # fmt: skip


def test_more_holders_than_can_be_told_are_said_to_be_left_out(socket: Path):
    async def scenario() -> None:
        many = [
            (f"a/p{index}", "nvidia.com/gpu", [f"{UUIDS[0]}::{index}"]) for index in range(MOST_HOLDERS + 7)
        ]
        async with serving(RecordedKubelet(listed(*many)), socket):
            found = await asking(socket).refresh()
            assert len(found.rows) == MOST_HOLDERS
            assert found.known
            assert "7 more holders" in found.fault

    run(scenario)


OFFERED = [
    pytest.param(allocatable(gpu=[UUIDS[0], UUIDS[2]]), (0, 2), id="a plugin that holds a sick one back"),
    pytest.param(allocatable(gpu=[]), (), id="a plugin that offers none"),
    pytest.param(allocatable(gpu=[UUIDS[0], "GPU-unheard-of"]), None, id="one that the driver does not know"),
    pytest.param(allocatable(nic=["0", "1"]), (), id="only devices of others"),
    pytest.param(None, None, id="a kubelet that does not say"),
]


@pytest.mark.parametrize(("record", "offered"), OFFERED)
def test_what_the_kubelet_would_give_to_pods(
    socket: Path, record: bytes | None, offered: tuple[int, ...] | None
):
    async def scenario() -> None:
        async with serving(RecordedKubelet(listed(), record), socket):
            found = await asking(socket).refresh()
            assert (found.known, found.offered) == (True, offered)

    run(scenario)


# ------------------------------------------------------------------------------------------------------ faults


def test_no_socket_is_said(socket: Path):
    async def scenario() -> None:
        found = await asking(socket).refresh()
        assert not found.known
        assert "mount the folder" in found.fault
        assert str(socket) in found.fault

    run(scenario)


def test_a_file_in_place_of_the_socket_is_said(socket: Path):
    socket.write_text("")

    async def scenario() -> None:
        found = await asking(socket).refresh()
        assert "is no socket" in found.fault

    run(scenario)


def test_a_kubelet_that_restarts_is_found_again_and_what_it_said_counts_meanwhile(socket: Path):
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        asked = asking(socket, clock)
        async with serving(RecordedKubelet(listed(("a/b", "nvidia.com/gpu", [UUIDS[0]]))), socket):
            before = await asked.refresh()
        assert not await asyncio.to_thread(socket.exists)
        clock.advance_to(ORIGIN + 59)
        away = await asked.refresh()
        assert away.rows == before.rows
        assert away.known
        assert away.fault
        clock.advance_to(ORIGIN + 61)
        assert (await asked.refresh()) == Holders(fault=away.fault)
        async with serving(RecordedKubelet(listed(("a/c", "nvidia.com/gpu", [UUIDS[1]]))), socket):
            after = await asked.refresh()
            assert [row.pod for row in after.rows] == ["a/c"]
            assert (after.known, after.fault) == (True, "")
        assert asked.failures == 2

    run(scenario)


def test_a_dead_kubelets_socket_is_said(socket: Path):
    async def scenario() -> None:
        with sockets.socket(sockets.AF_UNIX) as left:
            left.bind(str(socket))
        found = await asking(socket).refresh()
        assert "does not answer (UNAVAILABLE" in found.fault

    run(scenario)


def test_a_kubelet_that_hangs_has_a_deadline(socket: Path):
    async def scenario() -> None:
        kubelet = RecordedKubelet(listed())
        kubelet.hangs = True
        async with serving(kubelet, socket):
            found = await asking(socket, deadline_seconds=0.1).refresh()
            assert "DEADLINE_EXCEEDED" in found.fault

    run(scenario)


ODD = [
    pytest.param(b"\xff" * 40, "cannot be read", id="bytes that are no message"),
    pytest.param(
        listed(("a/b", "nvidia.com/gpu", ["x" * 1_000] * (MOST_BYTES // 1_000))), "is refused", id="an oversized answer"
    ),
    pytest.param(None, "does not speak the pod-resources API v1", id="something else that listens there"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "says"), ODD)
def test_an_answer_that_cannot_be_used(socket: Path, record: bytes | None, says: str):
    async def scenario() -> None:
        async with serving(RecordedKubelet(record), socket):
            found = await asking(socket).refresh()
            assert not found.known
            assert says in found.fault

    run(scenario)


def test_a_kubelet_that_is_asked_too_often_says_so(socket: Path):
    async def scenario() -> None:
        kubelet = RecordedKubelet(listed())
        kubelet.code = grpc.StatusCode.RESOURCE_EXHAUSTED
        async with serving(kubelet, socket):
            assert "rejected by rate limit" in (await asking(socket).refresh()).fault

    run(scenario)


@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader(record: bytes):
    try:
        answer = pb.ListPodResourcesResponse.FromString(record)
    except Exception:  # noqa: BLE001 - what protobuf refuses never reaches us
        return
    rows, _ = holders_of(answer, DeviceNames(devices()))
    assert all(-1 <= row.device < 4 and "/" in row.pod for row in rows)


# ---------------------------------------------------------------------------------------------- on its way up


def test_it_reaches_the_hub_when_it_changes_and_on_a_new_stream(socket: Path):
    held = Holders(rows=(holder(1, "GPU-n1-1", "other/notebook"),), known=True, offered=(0, 1))

    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made:
            now = [held]
            agent = made.agent("n1", TwoGpus("n1"))
            agent._holders = lambda: now[0]
            await agent.connect()
            told = []
            for second, (changed, again) in enumerate(
                [(held, False), (held, False), (Holders(fault="gone"), False), (held, True)]
            ):
                now[0] = changed
                if again:
                    await agent.connect()
                clock.advance_to(ORIGIN + second + 1)
                before = made.hub.stats.reports
                assert await agent.tick(clock.now())
                await until(lambda before=before: made.hub.stats.reports > before)  # type: ignore[misc]
                told += [report.holders for report in made.hub.inbox.drain()]
            row = HolderSeen(
                device=1,
                device_id="GPU-n1-1",
                pod="other/notebook",
                container="main",
                resource="nvidia.com/gpu",
            )
            seen = HoldersSeen(rows=(row,), known=True, fault="", offered=(0, 1))
            assert told == [seen, None, HoldersSeen(rows=(), known=False, fault="gone", offered=None), seen]

    run(scenario)


ROWS = [
    pytest.param({"device": 0, "pod": "a/b"}, 1, id="sound"),
    pytest.param({"device": -1, "pod": "a/b"}, 1, id="a device that the driver does not know"),
    pytest.param({"device": 2, "pod": "a/b"}, 0, id="a device beyond the inventory"),
    pytest.param({"device": -2, "pod": "a/b"}, 0, id="less than nobody"),
    pytest.param({"device": 0, "pod": "b"}, 0, id="no namespace"),
    pytest.param({"device": 0, "pod": "/b"}, 0, id="an empty namespace"),
    pytest.param({"device": 0, "pod": ""}, 0, id="no pod"),
    pytest.param({"device": 0, "pod": "a/" + "b" * 600}, 0, id="an endless name"),
]


@pytest.mark.parametrize(("row", "kept"), ROWS)
def test_the_hub_keeps_what_can_be_true(row: dict[str, Any], kept: int):
    decoder = Decoder("n1", "boot", "v" * 1_000)
    message = wire.AgentMessage(observed_seconds=ORIGIN)
    for index in range(2):
        message.report.inventory.devices.add(uuid=f"GPU-{index}", index=index)
    message.report.telemetry.holders.rows.add(**row)
    message.report.telemetry.holders.offered.extend([1, 1, 7])
    message.report.telemetry.holders.offered_known = True
    report = decoder.report(message, ORIGIN)
    assert report.holders is not None
    assert (len(report.holders.rows), decoder.rejected) == (kept, 1 - kept)
    assert report.holders.offered == (1,)
    assert len(report.version) == 512


def test_the_hub_keeps_a_bounded_number_of_rows():
    decoder = Decoder("n1", "boot")
    message = wire.AgentMessage(observed_seconds=ORIGIN)
    message.report.inventory.devices.add(uuid="GPU-0")
    rows = tuple(holder(0, f"GPU-0::{index}", f"a/p{index}") for index in range(2_000))
    put_holders(message.report.telemetry.holders, Holders(rows=rows, known=True))
    report = decoder.report(message, ORIGIN)
    assert report.holders is not None
    assert len(report.holders.rows) == 512
    assert decoder.rejected == 2_000 - 512

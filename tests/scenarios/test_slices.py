"""A machine whose board is partitioned into slices of two sizes, on a whole cluster: both serve, each by its own resource."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from cluster.codec import from_json
from cluster.launch import EngineLaunch
from controller.observe import labels
from controller.resources.kinds import ACCELERATOR_CLASS
from simulator.fleet.slices import Place, Slices, layout, numbered, offers
from simulator.fleet.specs import INFINIBAND, FleetSpec, NodeSpec, demo_fleet
from simulator.physics.catalogue import A100_80
from tests.scenarios.plays_serving import settled
from tests.scenarios.props import NAMESPACES, QUICK, service
from tests.scenarios.scenario import Scenario, play
from tests.scenarios.stage import Stage
from tests.scenarios.test_shares import SMALL

TINY, MID, MORE = "shop/tiny", "shop/mid", "shop/more"
ONE = Slices(profile="1g.10gb", count=4, milli=125)
THREE = Slices(profile="3g.40gb", count=1, milli=500)
BOARD = "NVIDIA-A100-SXM4-80GB"


def partitioned() -> FleetSpec:
    node = NodeSpec(
        name="a100-00", gpu=A100_80, gpus=1, nic=INFINIBAND, cpu_millis=32_000, memory_bytes=2**38,
        nvme_bytes=2**41, slices=(ONE, THREE),
    )  # fmt: skip
    return msgspec.structs.replace(demo_fleet(groups=(), start=QUICK), nodes=(node,))


def slice_class(name: str, profile: str, eighths: int) -> str:
    return f"""
apiVersion: plimsoll.dev/v1alpha1
kind: AcceleratorClass
metadata: {{name: {name}}}
spec:
  displayName: {name.upper()}
  aliases: [{BOARD}-MIG-{profile}]
  sharing: mig
  resourceName: nvidia.com/mig-{profile}
  memoryBytes: {eighths * 10 * 2**30}
  bandwidthBytesPerSecond: {eighths * 254_000_000_000}
  flops: {{bf16: {eighths * 39.0}e12}}
  minWatts: 20
  maxWatts: 400
  tdpWatts: 400
  safeWatts: 280
  pools: [{{name: {name}-od, dollarsPerGpuHour: {eighths * 0.43}, pricedAt: "2026-07-20"}}]
"""


CLASSES = "\n---\n".join(
    (NAMESPACES, slice_class("a100-1g", "1g.10gb", 1), slice_class("a100-3g", "3g.40gb", 4))
)


async def _both(stage: Stage) -> None:
    await stage.apply(service("tiny", "replicas: 3\nmaxReplicas: 4", model=SMALL, on="a100-1g"))
    await stage.apply(service("mid", "replicas: 1\nmaxReplicas: 2", model=SMALL, on="a100-3g"))
    await stage.until(
        lambda _: settled(stage, TINY, 3) and settled(stage, MID, 1), 90, "three small and one large"
    )
    asked: Counter[str] = Counter()
    for pod in (*stage.seen.pods(TINY), *stage.seen.pods(MID)):
        assert pod["spec"]["nodeName"] == "a100-00"
        limits = pod["spec"]["containers"][0]["resources"]["limits"]
        asked.update(name for name in limits if name.startswith("nvidia.com/"))
        launch = from_json(pod["metadata"]["annotations"][labels.LAUNCH], EngineLaunch)
        assert len(launch.devices) == 1
    assert asked == {ONE.resource: 3, THREE.resource: 1}
    stage.load(TINY, 2.0, 5)
    stage.load(MID, 2.0, 5)
    await stage.until(lambda _: len(stage.traffic.ended("served")) == 20, 40, "both serve")
    await stage.apply(service("more", "replicas: 2\nmaxReplicas: 2", model=SMALL, on="a100-1g, a100-3g"))
    await stage.until(lambda _: settled(stage, MORE, 1), 60, "the last small one is taken")
    await stage.seconds(10)
    assert len(stage.seen.pods(MORE)) == 1, "and nothing is made that could not be bound"
    for name, gpus in (("a100-1g", 4), ("a100-3g", 1)):
        status = (await stage.cluster.store.get(ACCELERATOR_CLASS, name))["status"]
        assert (status["nodes"], status["gpus"], status["freeGpus"]) == (1, gpus, 0)


BOTH = Scenario(
    name="slices of two sizes on one machine",
    fleet=partitioned(),
    manifests=CLASSES,
    script=_both,
    final={
        f"ModelService/{TINY}": {"status.phase": "Serving", "status.ready": 3},
        f"ModelService/{MID}": {"status.phase": "Serving", "status.ready": 1},
    },
    never=frozenset({"ReplicaLost", "ReplicaStuck"}),
    converges=False,
)


def test_slices_of_two_sizes_serve_on_one_machine(tmp_path: Path) -> None:
    play(BOTH, tmp_path)


def test_where_slices_are_and_what_is_offered() -> None:
    assert layout((ONE, THREE), 1) == {
        THREE.resource: (Place(0, 500),),
        ONE.resource: (Place(0, 125),) * 4,
    }
    more = msgspec.structs.replace(ONE, count=9)
    assert [place.board for place in layout((more,), 2)[ONE.resource]] == [0] * 8 + [1]
    resources, marks = offers((ONE, THREE), BOARD)
    assert resources == {ONE.resource: "4", THREE.resource: "1"}
    assert marks[f"{THREE.resource}.product"] == f"{BOARD}-MIG-3g.40gb"


def test_slices_that_the_boards_do_not_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 boards hold 1 of 2 slices 3g\.40gb of 600 thousandths"):
        layout((Slices(profile="3g.40gb", count=2, milli=600),), 1)
    with pytest.raises(ValueError, match="at least one"):
        Slices(profile="1g.10gb", count=0, milli=125)


def test_the_first_slice_of_one_size_is_not_the_first_of_another() -> None:
    one, three = numbered({ONE.resource: 1.0}, (0,)), numbered({THREE.resource: 1.0}, (0,))
    assert one != three
    assert numbered({"nvidia.com/gpu": 1.0}, (0, 3)) == (0, 3)

"""What fleets are made of, and what pods are turned into for the physics."""

from __future__ import annotations

import msgspec
import pytest

from cluster.codec import from_json
from cluster.launch import EngineLaunch, RankLaunch
from cluster.serving import Variant
from placement.profiles.belief import step_time
from placement.profiles.steptime import GpuFigures
from simulator.fleet.specs import FleetSpec, demo_fleet, uniform_fleet
from simulator.physics.catalogue import GPU_SPECS, H100
from simulator.physics.power import server_watts
from simulator.physics.roofline import kv_capacity_tokens, step_cost
from simulator.physics.shapes import engine_of, model_of, training_of
from simulator.physics.specs import EngineSpec, GpuSpec
from tests.fleet.worlds import MODEL, SHAPE, rank_pod


def test_the_demo_has_every_product_and_every_kind_of_network_on_islands_of_their_own() -> None:
    spec = demo_fleet()
    islands: dict[str, set[str]] = {}
    for node in spec.nodes:
        islands.setdefault(node.island, set()).add(node.nic.nic.value)
    assert all(len(kinds) == 1 for kinds in islands.values())
    assert {kind for kinds in islands.values() for kind in kinds} == {"infiniband", "roce", "ethernet"}
    assert sum(node.gpus for node in spec.nodes) == 144


def test_counts_of_the_demo_can_be_changed_and_a_wrong_prefix_is_named() -> None:
    assert [
        n.name for n in demo_fleet(counts={"l4": 1, "a10g": 0, "a100-ib": 0, "a100-roce": 0, "h100": 1}).nodes
    ] == [
        "l4-00",
        "h100-00",
    ]
    with pytest.raises(KeyError, match="no group of nodes is called b200"):
        demo_fleet(counts={"b200": 3})


def test_a_uniform_fleet_of_a_thousand_has_a_thousand_names_on_islands_of_32() -> None:
    spec = uniform_fleet(1000)
    assert len({node.name for node in spec.nodes}) == 1000
    sizes = [
        sum(node.island == island for node in spec.nodes) for island in {node.island for node in spec.nodes}
    ]
    assert max(sizes) == 32


def test_two_machines_of_one_name_are_refused() -> None:
    nodes = uniform_fleet(2).nodes
    with pytest.raises(ValueError, match="node-0001 are named twice"):
        FleetSpec(nodes=(*nodes, nodes[1]))


@pytest.mark.parametrize(
    "change", [pytest.param({"gpus": 0}, id="no GPU"), pytest.param({"speed": 0.0}, id="no speed")]
)
def test_an_impossible_machine_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="both must be positive"):
        msgspec.structs.replace(uniform_fleet(1).nodes[0], **change)


@pytest.mark.parametrize(
    "product", [pytest.param(name, id=name) for name in ("L4", "A10G", "A100-80", "H100")]
)
def test_safe_watts_cover_what_the_server_draws_with_every_gpu_at_its_safe_limit(product: str) -> None:
    gpu = GPU_SPECS[product]
    node = uniform_fleet(1, gpu=gpu, gpus=4).nodes[0]
    each = (gpu.min_watts + gpu.max_watts) // 2
    assert server_watts(4 * each, 4) <= node.safe_watts
    limited = msgspec.structs.replace(node, safe_gpu_watts=10)
    assert limited.safe_watts == node.safe_watts - 4 * (each - gpu.min_watts)  # never below the least limit


def figures(gpu: GpuSpec) -> GpuFigures:
    return GpuFigures(
        name=gpu.product,
        memory_bytes=gpu.memory_bytes,
        bandwidth_bytes_per_second=gpu.bandwidth_bytes_per_second,
        flops_16bit_per_second=gpu.flops_per_second,
        flops_8bit_per_second=gpu.flops_8bit_per_second,
        link_bytes_per_second=gpu.link_bytes_per_second,
        fabric=gpu.link,
    )


@pytest.mark.parametrize(
    ("product", "gpus", "precision"),
    [
        pytest.param("L4", 1, "fp8", id="a small card with 8-bit weights"),
        pytest.param("A100-80", 2, "bf16", id="two cards over NVLink"),
        pytest.param("H100", 1, "bf16", id="one large card"),
    ],
)
def test_an_engine_runs_as_fast_as_the_planner_believes_of_the_same_launch(
    product: str, gpus: int, precision: str
) -> None:
    variant = Variant(accelerator=product, gpus=gpus, tensor=gpus, precision=precision)
    launch = EngineLaunch(service="a/b", model=MODEL, variant=variant, devices=tuple(range(gpus)))
    gpu = GPU_SPECS[product]
    believed = step_time(figures(gpu), MODEL, variant)
    engine = engine_of(launch, EngineSpec())
    cost = step_cost(gpu, model_of(launch), engine)
    assert cost.seconds(16, 0, 16 * 800, 0.0) == pytest.approx(believed.seconds(16, 0, 16 * 800), rel=1e-9)
    capacity = kv_capacity_tokens(gpu, model_of(launch), engine)
    assert capacity == pytest.approx(believed.kv_capacity_tokens(), abs=engine.block_tokens)


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        pytest.param(Variant(accelerator="H100", pipeline=2), "2 pipeline stages", id="pipeline parallelism"),
        pytest.param(Variant(accelerator="H100", precision="fp4"), "'fp4' of a/b is not modelled", id="fp4"),
    ],
)
def test_what_the_physics_cannot_run_is_refused_with_a_sentence(variant: Variant, says: str) -> None:
    launch = EngineLaunch(service="a/b", model=MODEL, variant=variant, devices=(0,))

    def both() -> None:
        model_of(launch)
        engine_of(launch, EngineSpec())

    with pytest.raises(ValueError, match=says):
        both()


def test_a_training_step_takes_the_flops_of_the_published_formula() -> None:
    pod = rank_pod("bert", 1, 0, ("n",))
    launch = from_json(pod["metadata"]["annotations"]["plimsoll.dev/launch"], RankLaunch)
    spec = training_of(launch)
    hidden, layers, length = SHAPE.hidden_size, SHAPE.layers, SHAPE.sequence_length
    wanted = (
        96
        * length
        * layers
        * hidden**2
        * (1 + length / (6 * hidden) + SHAPE.vocabulary / (16 * layers * hidden))
    )
    assert spec.flops_per_parameter_token * spec.parameters * spec.tokens_per_step == pytest.approx(
        launch.global_batch * wanted
    )
    assert spec.parameters == pytest.approx(1.27e9, rel=0.01)
    assert (spec.steps, spec.checkpoint_interval_seconds, spec.checkpoint_seconds) == (40, 30.0, 2.0)


def test_a_server_draws_no_more_than_its_highest_limit() -> None:
    server = uniform_fleet(1).nodes[0].server()
    assert server.base_watts + 8 * H100.max_watts == server.max_watts

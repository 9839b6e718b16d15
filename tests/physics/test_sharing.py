"""GPUs that several engines share: who fits beside whom, how fast each is, and what the board draws."""

import msgspec
import numpy as np
import pytest

from simulator.physics.node import NodePhysics
from simulator.physics.power import PhaseShares
from simulator.physics.server import NodeSpec
from simulator.physics.sharing import part_of, together
from simulator.physics.specs import EngineSpec, ModelSpec
from tests.physics.test_node import IB
from tests.physics.worlds import A100

SMALL = ModelSpec(
    name="small",
    parameters=1e9,
    weight_bytes=2_000_000_000,
    layers=24,
    hidden=2048,
    kv_bytes_per_token=98_304,
)


def server() -> NodePhysics:
    return NodePhysics(NodeSpec(name="n", gpu=A100, gpus=2, nic=IB), np.random.Generator(np.random.PCG64(1)))


def engine(milli: int) -> EngineSpec:
    return EngineSpec(gpu_milli=milli)


def test_a_part_has_its_share_of_memory_bandwidth_and_compute():
    half = part_of(A100, 500)
    assert half.memory_bytes == A100.memory_bytes // 2
    assert half.bandwidth_bytes_per_second == A100.bandwidth_bytes_per_second / 2
    assert half.flops_per_second == A100.flops_per_second / 2
    assert (half.max_watts, half.product) == (A100.max_watts, A100.product)
    assert part_of(A100, 1_000) is A100


def test_a_board_is_as_busy_as_its_parts_together():
    quarter = PhaseShares(prefill=0.4, decode=0.4, decode_compute=0.5)
    found = together([(250, quarter), (500, PhaseShares(decode=1.0, decode_compute=0.2))])
    assert found.prefill == pytest.approx(0.1)
    assert found.decode == pytest.approx(0.6)
    assert found.decode_compute == pytest.approx((0.1 * 0.5 + 0.5 * 0.2) / 0.6)
    assert together([]) == PhaseShares()


def test_shares_fit_up_to_a_whole_gpu_and_no_further():
    made = server()
    for number in range(4):
        made.place(f"quarter-{number}", SMALL, engine(250), (0,))
    with pytest.raises(ValueError, match="GPU 0 of node n, which quarter-3 holds; remove that first"):
        made.place("fifth", SMALL, engine(250), (0,))
    with pytest.raises(ValueError, match="holds; remove that first"):
        made.place("whole", SMALL, engine(1_000), (0,))
    made.place("whole", SMALL, engine(1_000), (1,))
    with pytest.raises(ValueError, match="GPU 1 of node n, which whole holds"):
        made.place("late", SMALL, engine(250), (1,))
    made.remove("quarter-0")
    made.place("fifth", SMALL, engine(250), (0,))


@pytest.mark.parametrize(
    "spec", [{"gpu_milli": 0}, {"gpu_milli": 1_001}, {"gpu_milli": 500, "tensor_parallel": 2}]
)
def test_a_share_that_cannot_be_is_refused(spec):
    with pytest.raises(ValueError, match="gpu_milli"):
        EngineSpec(**spec)


def test_a_quarter_is_slower_and_holds_less_whoever_is_beside_it():
    def finish(milli: int, beside: int) -> float:
        made = server()
        made.place("mine", SMALL, engine(milli), (0,))
        for number in range(beside):
            made.place(f"other-{number}", SMALL, engine(milli), (0,))
        made.submit("mine", 1, 2_000, 200, 0.0)
        events = [event for _, event in made.advance_to(120.0).requests]
        return max(event.at_seconds for event in events)

    assert finish(250, 0) == finish(250, 3)
    assert finish(250, 0) > 1.5 * finish(1_000, 0)
    made = server()
    made.place("mine", SMALL, engine(250), (0,))
    large = msgspec.structs.replace(SMALL, weight_bytes=30_000_000_000, parameters=15e9)
    with pytest.raises(ValueError, match="leaves no room for KV cache on 1 x A100-80"):
        made.place("too large", large, engine(250), (1,))


def test_engines_that_share_draw_what_they_do_together():
    made = server()
    for number in range(2):
        made.place(f"half-{number}", SMALL, engine(500), (0,))
        for request in range(50):
            made.submit(f"half-{number}", request, 1_500, 400, 0.0)
    made.advance_to(5.0)
    gpus = made.read().gpus
    assert A100.idle_watts < gpus[0].watts <= A100.max_watts
    assert gpus[1].watts == pytest.approx(A100.idle_watts)
    assert gpus[0].utilisation <= 1.0

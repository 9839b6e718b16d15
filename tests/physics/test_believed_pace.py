"""What the planner believes a replica carries, against the engine that serves it: the promise is kept, and not by much."""

import math

import numpy as np
import pytest

from placement.profiles.figures import GpuFigures, ModelFigures
from placement.profiles.grid import Grid
from placement.profiles.roofline import Limits, throughput_grid
from placement.profiles.steptime import StepTime
from simulator.physics.catalogue import GPU_SPECS
from simulator.physics.engine import EngineInstance
from simulator.physics.sequence import EventKind
from simulator.physics.specs import EngineSpec, ModelSpec

EIGHT_B = ModelFigures("llama-3.1-8b", 8.03e9, 131_072, 4096, 32)
SERVED = ModelSpec(
    name="llama-3.1-8b", parameters=8.03e9, weight_bytes=16_060_000_000, layers=32, hidden=4096, kv_bytes_per_token=131_072,
    precision="bf16",
)  # fmt: skip
ROUNDS = 4


def mean_tpot(product: str, clients: int, inputs: int, outputs: int, apart: float) -> float:
    """Seconds per further token of clients that ask again when they are answered, the first of each left out."""
    engine = EngineInstance(GPU_SPECS[product], SERVED, EngineSpec())
    for client in range(clients):
        engine.submit(client, inputs, outputs, apart * client)
    first: dict[int, float] = {}
    spent: list[float] = []
    while (now := engine.next_event_seconds()) < math.inf:
        for event in engine.advance_to(now):
            number, at = event.request_id, event.at_seconds
            if event.kind is EventKind.FIRST_TOKEN:
                first[number] = at
            elif event.kind is EventKind.FINISHED:
                if number >= clients:
                    spent.append((at - first[number]) / (outputs - 1))
                if number + clients < ROUNDS * clients:
                    engine.submit(number + clients, inputs, outputs, at)
    return float(np.mean(spent))


@pytest.mark.parametrize(
    ("product", "inputs", "outputs", "promise"),
    [
        pytest.param("L4", 1000, 100, 0.1, id="prompts as long as ten answers: spread over all steps, 24 % over"),
        pytest.param("L4", 2000, 250, 0.1, id="long prompts on a small GPU: spread, 15 % over"),
        pytest.param("A100-80", 2000, 250, 0.04, id="long prompts, tight promise"),
        pytest.param("A100-80", 500, 250, 0.04, id="conversation"),
        pytest.param("H100", 4000, 250, 0.04, id="prompts of two chunks"),
        pytest.param("H100", 8000, 500, 0.04, id="prompts of four chunks"),
    ],
)  # fmt: skip
def test_an_engine_with_as_many_requests_as_are_planned_keeps_the_promise(product, inputs, outputs, promise):
    gpu = GPU_SPECS[product]
    figures = GpuFigures(
        product, gpu.memory_bytes, gpu.bandwidth_bytes_per_second, gpu.flops_per_second, gpu.flops_8bit_per_second,
        gpu.link_bytes_per_second, gpu.link,
    )  # fmt: skip
    found = throughput_grid(
        StepTime(figures, EIGHT_B, 1, "bf16"), Grid((inputs,), (outputs,)), Limits(promise)
    )
    clients, rate = int(found.concurrency[0, 0]), float(found.requests_per_second[0, 0])
    seen = mean_tpot(product, clients, inputs, outputs, 1.0 / rate)
    assert 0.85 * promise <= seen <= promise

"""Starts, jobs and runs that the tests of the world's mechanisms share."""

from __future__ import annotations

from typing import Any

from simulator.physics.loading import StartSpec, WeightTier
from simulator.physics.network import NicClass, NicSpec
from simulator.physics.training import TrainingSpec
from simulator.world.parts import Parts, Training
from simulator.world.spec import Group
from simulator.world.world import World
from tests.physics.worlds import A100, LLAMA_7B
from tests.world.test_world import ENGINE, spec

KV = LLAMA_7B.kv_bytes_per_token
FAST = StartSpec(
    weight_bytes=10**9, tier=WeightTier.DRAM, jitter=0.0, container_seconds=1.0, process_seconds=0.0,
    engine_seconds=1.0, warm_up_seconds=0.0,
)  # fmt: skip
IB = NicSpec(NicClass.INFINIBAND, 200e9, 4)
STEP = TrainingSpec(
    parameters=1e9, tokens_per_step=65_536, steps=20, start_seconds=5.0, checkpoint_interval_seconds=1e6,
    checkpoint_seconds=3.0, restore_seconds=4.0,
)  # fmt: skip
ONE = Group(gpu=A100, engine=ENGINE)


def job(**changes: Any) -> Training:
    given = {"name": "llm", "spec": STEP, "nodes": ("t0", "t1"), "gpu": A100, "nic": IB}
    return Training(**(given | changes))


def run(*groups: Group, requests: Any = (), parts: Parts | None = None, **more: Any) -> World:
    world = World(spec(*groups, parts=parts or Parts(), **more), requests)
    assert world.run().complete
    return world

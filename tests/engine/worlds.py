"""Real engines of the physics for the tests of whatever carries requests to them."""

from __future__ import annotations

from simulator.physics.engine import EngineInstance
from tests.physics.worlds import A100, LLAMA_7B, engine_for

ORIGIN = 1_700_000_000.0


def engine(kv_tokens: int = 40_000, started: float = ORIGIN) -> EngineInstance:
    return EngineInstance(A100, LLAMA_7B, engine_for(kv_tokens), started)

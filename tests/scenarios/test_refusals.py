"""Nonsense is refused by the store with a sentence, whoever sends it, and the rest of the cluster goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.resources.base import API_VERSION
from controller.resources.kinds import BY_KIND
from controller.store.errors import StoreError
from tests.scenarios.plays_serving import settled
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.soundness import assert_sound
from tests.scenarios.stage import Stage
from tests.scenarios.tiers import WALL_SECONDS

MODEL = {"name": "llama-3.1-8b"}
MEGABYTE = "a" * 1_000_000

# kind, name, spec, what the sentence must name
NONSENSE: list[tuple[str, str, dict[str, Any], str]] = [
    ("ModelService", "negative", {"model": MODEL, "replicas": -1}, "spec.replicas"),
    ("ModelService", "absurd", {"model": MODEL, "maxReplicas": 10**18}, "spec.maxReplicas"),
    ("ModelService", MEGABYTE, {"model": MODEL}, "metadata.name"),
    ("ModelService", "long-model", {"model": {"name": MEGABYTE}}, "spec.model.name"),
    ("ModelService", "never", {"model": MODEL, "objectives": [{"ttftSeconds": -1.0, "tpotSeconds": 0.1}]}, "ttftSeconds"),
    ("ModelService", "text", {"model": MODEL, "replicas": "three"}, "spec.replicas"),
    ("ModelService", "huge-rate", {"model": MODEL, "expectedLoad": {"requestsPerSecond": 1e300}}, "requestsPerSecond"),
    ("TrainingJob", "no-gpus", {"model": MODEL, "gpusPerNode": 0, "steps": 1, "globalBatch": 1}, "spec.gpusPerNode"),
    ("TrainingJob", "for-ever", {"model": MODEL, "gpusPerNode": 1, "steps": 10**30, "globalBatch": 1}, "spec.steps"),
    ("PowerDomain", "dark", {"ratingWatts": 0}, "spec.ratingWatts"),
    ("PowerDomain", "star", {"ratingWatts": 10**15}, "spec.ratingWatts"),
    ("PowerDomain", "sliver", {"ratingWatts": 1000, "marginFraction": 1.5}, "spec.marginFraction"),
]  # fmt: skip


def test_nonsense_is_refused_while_the_rest_is_served(tmp_path: Path) -> None:
    async def story() -> None:
        async with asyncio.timeout(WALL_SECONDS), Stage(fleet(l4=1), tmp_path) as stage:
            await stage.apply(manifests(service("chat", "replicas: 1")))
            for kind, name, spec, named in NONSENSE:
                said = await refusal(stage, kind, name, spec)
                assert named in said, said[:300]
                assert len(said) < 5_000, "a sentence, not the megabyte again"
                await stage.second()
            await stage.until(lambda _: settled(stage, "shop/chat", 1), 60, "the sound one is served")
            assert set(stage.seen.objects["ModelService"]) == {"shop/chat"}
            await assert_sound(stage)

    asyncio.run(story())


async def refusal(stage: Stage, kind: str, name: str, spec: dict[str, Any]) -> str:
    resource = BY_KIND[kind].resource
    metadata = {"name": name} | ({"namespace": "shop"} if resource.namespaced else {})
    obj = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    with pytest.raises(StoreError) as refused:
        await stage.cluster.store.apply(resource, obj, field_manager="user", force=True)
    assert refused.value.code in {400, 413, 422}
    return refused.value.message

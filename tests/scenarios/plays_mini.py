"""A small demo: two minutes of a seeded trace over two services, a gang, a breaker, and a node that fails half way."""

from __future__ import annotations

from controller.config import OperatorConfig, PolicyDefault
from tests.scenarios.plays_serving import SHORT_MEMORY
from tests.scenarios.props import domain, fleet, job, manifests, service
from tests.scenarios.scenario import Scenario
from tests.scenarios.stage import Stage

CHAT, DRAFT, BERT = "shop/chat", "shop/draft", "lab/bert"
TRACE_SECONDS = 120
MINI_CONFIG = OperatorConfig(
    records_kept=10_000, policies={"commit": PolicyDefault("by_priority", {"hold_seconds": 20.0})}
)


async def _mini(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready(CHAT) >= 1, 60, "the service with a floor is ready")
    begins = stage.now
    stage.traffic.trace(CHAT, 3.0, begins, begins + TRACE_SECONDS, seed=7)
    stage.traffic.trace(DRAFT, 1.0, begins + 20, begins + 80, seed=8)
    for second in range(TRACE_SECONDS):
        if second == TRACE_SECONDS // 2:
            stage.fail(stage.cluster.fleet.busiest())
        await stage.second()
    await stage.until(lambda _: not stage.traffic.open, 120, "all requests have ended")
    await stage.until(
        lambda seen: seen.phase("TrainingJob", BERT) == "Succeeded", 120, "the gang has succeeded"
    )
    assert any(result.retries for result in stage.traffic.ended("served")), "the failure hit nobody"


MINI = Scenario(
    name="mini demo",
    fleet=fleet(l4=3, a10g=2, h100=2),
    manifests=manifests(
        service("chat", f"minReplicas: 1\n{SHORT_MEMORY}", on="l4, a10g", priority=5),
        service("draft", f"keepAliveSeconds: 20\n{SHORT_MEMORY}", on="l4, a10g"),
        job("bert", steps=300),
        domain("row-a", 12_000),
    ),
    script=_mini,
    final={f"TrainingJob/{BERT}": {"status.phase": "Succeeded"}},
    config=MINI_CONFIG,
    converges=False,
)

"""Services of one priority that compete for too few GPUs are planned together, also when a pool is lost."""

from __future__ import annotations

import msgspec

from controller.config import PolicyDefault
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.scenario import CONFIG, Scenario
from tests.scenarios.seen import node_of
from tests.scenarios.stage import Stage

CHAT, DRAFT = "shop/chat", "shop/draft"
GPUS = 6
TOGETHER = msgspec.structs.replace(
    CONFIG, policies={**CONFIG.policies, "select": PolicyDefault("joint_mix", {"hold_seconds": 5.0})}
)


def worth(name: str, dollars: float, more: str) -> str:
    """A service on L4 and A10G whose requests are worth so much."""
    promise = f"priority: 0, unservedDollarsPerHour: {dollars}"
    return service(name, more, on="l4, a10g").replace("priority: 0", promise)


async def _lost(stage: Stage) -> None:
    """The larger pool dies at once, all of it: what is left goes to whom it is worth more, and who goes short is told."""
    await stage.until(
        lambda seen: seen.ready(DRAFT) >= 1 and seen.ready(CHAT) + seen.ready(DRAFT) == GPUS,
        90,
        "both serve on all that there is",
    )
    pool = {node for node in stage.cluster.fleet.nodes if node.startswith("l4")}
    assert {node_of(pod) for pod in stage.seen.pods(DRAFT)} - pool, "the cheaper one has what will be left"
    for node in sorted(pool):
        stage.fail(node)
    await stage.until(
        lambda seen: seen.ready(CHAT) == 2 and seen.ready(DRAFT) == 0, 90, "the dearer one has what is left"
    )
    await stage.until(
        lambda seen: all(node_of(pod) in pool for pod in seen.pods(DRAFT)),
        60,
        "the cheaper one has given way",
    )


POOL_LOST = Scenario(
    name="a pool is lost while two services compete",
    fleet=fleet(l4=2, a10g=1),
    manifests=manifests(
        worth("chat", 500.0, "minReplicas: 3"),
        worth("draft", 10.0, "minReplicas: 3"),
    ),
    script=_lost,
    final={
        f"ModelService/{CHAT}": {"status.ready": 2, "conditions.Planned.reason": "ShortOfCapacity"},
        f"ModelService/{DRAFT}": {"status.ready": 0, "conditions.Planned.reason": "ShortOfCapacity"},
    },
    events={DRAFT: frozenset({"ShortOfCapacity", "MixAllotted"}), CHAT: frozenset({"MixAllotted"})},
    config=TOGETHER,
)

ALL = [POOL_LOST]

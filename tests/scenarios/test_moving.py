"""A move for a replica that fits nowhere in one piece, on a whole cluster: nobody who serves stops for it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from controller.config import PolicyDefault
from tests.scenarios.plays_serving import settled
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.scenario import CONFIG, Scenario, play
from tests.scenarios.seen import node_of
from tests.scenarios.stage import Stage

ONE, TWO, PAIR = "shop/one", "shop/two", "shop/pair"
MOVING = msgspec.structs.replace(
    CONFIG, policies={**CONFIG.policies, "place": PolicyDefault("priced_fgd", {"moves_per_minute": 1})}
)


def sized(replicas: int) -> str:
    return f"replicas: {replicas}\nmaxReplicas: 4"


async def _scattered(stage: Stage) -> None:
    """One replica on each of two nodes of two GPUs, and a service that wants two GPUs of one node."""
    await stage.apply(service("one", sized(2)))
    await stage.until(lambda _: settled(stage, ONE, 2), 90, "two on the first node")
    await stage.apply(service("two", sized(2)))
    await stage.until(lambda _: settled(stage, TWO, 2), 90, "two on the other")
    await stage.scale(ONE, 1)
    await stage.scale(TWO, 1)
    await stage.until(lambda _: settled(stage, ONE, 1) and settled(stage, TWO, 1), 90, "one on each")
    assert len({node_of(pod) for key in (ONE, TWO) for pod in stage.seen.pods(key)}) == 2
    stage.load(ONE, 1.0, 60)
    stage.load(TWO, 1.0, 60)
    await stage.apply(service("pair", "variants: [{accelerator: l4, gpus: 2}]\n" + sized(1)))


async def _moved(stage: Stage) -> None:
    await _scattered(stage)
    await stage.until(lambda _: settled(stage, PAIR, 1), 120, "the pair has a node of its own")
    await stage.until(
        lambda _: settled(stage, ONE, 1) and settled(stage, TWO, 1), 30, "and the others share one"
    )
    assert len({node_of(pod) for key in (ONE, TWO) for pod in stage.seen.pods(key)}) == 1
    await stage.seconds(70)


async def _stays(stage: Stage) -> None:
    await _scattered(stage)
    await stage.seconds(60)
    assert not stage.seen.pods(PAIR)


MOVES = Scenario(
    name="a replica moves so that another fits",
    fleet=fleet(l4=2),
    manifests=manifests(),
    script=_moved,
    final={f"ModelService/{key}": {"status.phase": "Serving", "status.ready": 1} for key in (ONE, TWO, PAIR)},
    actions={"CreateReplica": 6, "Drain": 3},
    never=frozenset({"ReplicaLost", "ReplicaStuck", "PreemptedFor"}),
    config=MOVING,
    converges=False,
)
STAYS = Scenario(
    name="nothing moves unless that is asked for",
    fleet=fleet(l4=2),
    manifests=manifests(),
    script=_stays,
    final={f"ModelService/{PAIR}": {"status.ready": 0}},
    actions={"CreateReplica": 4, "Drain": 2},
    never=frozenset({"ReplicaMoves"}),
    converges=False,
)


@pytest.mark.parametrize("scenario", [MOVES, STAYS], ids=lambda each: each.name)
def test_it_ends_as_it_should(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)

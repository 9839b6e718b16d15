"""Readiness gates: opened when kubelet and agent agree, once, and by nobody while no operator runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.actor.gates import RETRY_SECONDS, Gates
from controller.observe import labels
from controller.resources import core
from controller.store.errors import Conflict, StoreError, Unavailable
from controller.store.interface import JsonObject
from tests.observe.objects import NOW, Play, engine_pod

GATE = {"readinessGates": [{"conditionType": labels.REGISTERED}]}
KEY = "shop/chat-0"


class Taken:
    """A store of which only `apply` is asked; it answers, or fails as told."""

    def __init__(self, failure: StoreError | None = None) -> None:
        self.applied: list[JsonObject] = []
        self.failure = failure

    async def apply(self, _: Any, obj: JsonObject, **how: Any) -> JsonObject:
        assert how == {"field_manager": labels.MANAGER, "subresource": "status"}
        self.applied.append(obj)
        if self.failure is not None:
            raise self.failure
        return obj


def up(**more: Any) -> core.Pod:
    """A replica's pod whose containers are ready, and nobody has opened its gate."""
    conditions = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]
    spec = {**GATE, **more.pop("spec", {})}
    return engine_pod(spec=spec, status={"conditions": more.pop("conditions", conditions)}, **more)


def opened(play: Play, store: Taken, *, confirmed: bool = True, at: float = NOW) -> list[Any]:
    gates = Gates(store, confirmed=confirmed)  # type: ignore[arg-type]
    return asyncio.run(gates.open(play.world, at))


@pytest.mark.parametrize(
    ("told", "opens"),
    [
        pytest.param(None, False, id="an agent that was not heard yet may know better"),
        pytest.param({KEY: ("uid-chat-0", "starting")}, False, id="the engine still warms up"),
        pytest.param({KEY: ("uid-chat-0", "ready")}, True, id="the engine is warm"),
        pytest.param({KEY: ("uid-other", "ready")}, False, id="an engine of another life of that name"),
        pytest.param({}, True, id="an agent that knows no engines leaves it to their own probes"),
    ],
)
def test_a_gate_opens_when_the_agent_says_so_too(
    told: dict[str, tuple[str, str]] | None, opens: bool
) -> None:
    play, store = Play(up()), Taken()
    if told is not None:
        play.world.workloads.engines["n1"] = told
    assert bool(opened(play, store)) is opens
    assert len(store.applied) == int(opens)


def test_without_a_hub_the_kubelets_word_is_all_there_is() -> None:
    assert opened(Play(up()), Taken(), confirmed=False)


TRUE = {"status": "True"}


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(up(conditions=[]), id="its containers are not ready"),
        pytest.param(up(conditions=[{"type": "ContainersReady", **TRUE}, {"type": labels.REGISTERED, **TRUE}]), id="it is open"),
        pytest.param(up(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), id="it is being deleted"),
        pytest.param(up(phase="Failed"), id="it has ended"),
        pytest.param(up(spec={"readinessGates": []}), id="it has no gate"),
        pytest.param(up(spec={"readinessGates": [{"conditionType": "example.org/theirs"}]}), id="the gate is somebody else's"),
    ],
)  # fmt: skip
def test_nothing_is_written_for_a_pod_when(pod: core.Pod) -> None:
    store = Taken()
    assert opened(Play(pod), store, confirmed=False) == []
    assert store.applied == []


def test_what_is_written_is_one_condition_under_the_pods_uid() -> None:
    store = Taken()
    opened(Play(up()), store, confirmed=False)
    (wanted,) = store.applied
    assert wanted["metadata"] == {"name": "chat-0", "namespace": "shop", "uid": "uid-chat-0"}
    (condition,) = wanted["status"]["conditions"]
    assert (condition["type"], condition["status"]) == (labels.REGISTERED, "True")


@pytest.mark.parametrize(
    "failure", [Unavailable("away"), Conflict("somebody else's")], ids=["no answer", "contested"]
)
def test_a_gate_that_could_not_be_opened_is_left_alone_for_a_while(failure: StoreError) -> None:
    play, store = Play(up()), Taken(failure)
    gates = Gates(store, confirmed=False)  # type: ignore[arg-type]

    async def tries() -> None:
        for at in (0.0, 0.1, RETRY_SECONDS - 0.1):
            assert await gates.open(play.world, NOW + at) == []
        assert len(store.applied) == 1
        await gates.open(play.world, NOW + RETRY_SECONDS + 0.1)
        assert len(store.applied) == 2

    asyncio.run(tries())


def test_a_replica_serves_from_the_moment_its_gate_is_open_not_from_the_kubelets_next_look() -> None:
    play = Play(up())
    assert play.live("replicas")[KEY].phase == "starting"
    both = [{"type": t, **TRUE} for t in ("ContainersReady", labels.REGISTERED)]
    play.tell(up(conditions=[*both, {"type": "Ready", "status": "False"}]))
    assert play.live("replicas")[KEY].phase == "ready"
    assert play.world.workloads.ungated == set()

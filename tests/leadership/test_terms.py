"""An operator and its leadership: what it may do before, during and after, and what it leaves to others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cluster.actions import GrantPower, Stamped
from controller import life
from controller.config import OperatorConfig
from controller.hub.commands import AgentCommand
from controller.hub.service import Hub
from controller.leadership import LEASE_NAME, Gate, GatedStore, LeaseSettings, NotLeading
from controller.leadership.mark import LEADER, POD_NAME, POD_NAMESPACE, LeaderMark
from controller.ledger import Ledger, LedgerReader
from controller.operator import Operator
from controller.power_sender import PowerSender
from controller.resources.core import LEASE, NAMESPACE, POD
from controller.resources.kinds import MODEL_SERVICE
from controller.store import permits
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.faults import FaultyStore
from controller.store.interface import JsonObject, Store
from controller.store.interposed import InterposedStore, Request
from runtime.clock import VirtualClock, WallClock

SPACE = "plimsoll-system"
QUICK = OperatorConfig(
    threaded=True,
    plan_seconds=0.2,
    debounce_seconds=0.0,
    lease=LeaseSettings(lease_seconds=1.0, renew_deadline_seconds=0.6, retry_seconds=0.1),
)
TICK = 0.01


def scene(play: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await play()

    asyncio.run(limited())


class Counting(InterposedStore):
    """Keeps the mutating requests that got through."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.written: list[str] = []

    async def send(self, request: Request, answer: Callable[[], Awaitable[object]]) -> object:  # type: ignore[override]
        result = await answer()
        if request.mutating and request.resource not in {LEASE, NAMESPACE}:
            self.written.append(str(request))
        return result


def a_service(name: str) -> JsonObject:
    return {
        "apiVersion": MODEL_SERVICE.api_version,
        "kind": "ModelService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"name": "llama-3.1-8b"}, "objectives": [{"ttftSeconds": 2.0, "tpotSeconds": 0.1}]},
    }


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the scene has a limit
        await asyncio.sleep(TICK)


# ------------------------------------------------------------------------------------------------------ the gate


def test_a_gate_once_closed_stays_closed() -> None:
    clock = VirtualClock(1e9)
    gate = Gate(clock)
    assert not gate.open
    assert gate.extend(10.0)
    assert gate.left_seconds == 10.0
    clock.advance_to(1e9 + 10.0)
    assert not gate.open
    assert not gate.extend(20.0), "a renewal that comes too late opens nothing"
    assert not gate.open
    assert gate.left_seconds == 0.0


def test_writes_behind_a_closed_gate_are_not_sent_and_counted() -> None:
    async def play() -> None:
        clock = VirtualClock(1e9)
        gate, inner = Gate(clock), Counting(open_store(clock))
        store = GatedStore(inner, gate)
        with pytest.raises(NotLeading, match="create ModelService default/chat was not sent"):
            await store.create(MODEL_SERVICE, a_service("chat"), field_manager="test")
        assert not inner.written
        gate.extend(5.0)
        await store.create(MODEL_SERVICE, a_service("chat"), field_manager="test")
        clock.advance_to(1e9 + 6.0)
        with pytest.raises(NotLeading):
            await store.delete(MODEL_SERVICE, "chat", "default")
        assert (await store.get(MODEL_SERVICE, "chat", "default"))["metadata"]["name"] == "chat", "reads pass"
        assert gate.refused == {"create": 1, "delete": 1}

    scene(play)


def test_a_write_that_waited_for_its_turn_is_not_sent_after_the_gate_closed() -> None:
    """What a client with a budget and retries does: it asks for leave when its turn has come."""

    class Late(InterposedStore):
        async def send(self, request: Request, answer: Callable[[], Awaitable[object]]) -> object:  # type: ignore[override]
            clock.advance_to(clock.now() + 20.0)
            permits.ask()
            return await answer()

    clock = VirtualClock(1e9)

    async def play() -> None:
        gate, inner = Gate(clock), Counting(open_store(clock))
        gate.extend(10.0)
        with pytest.raises(NotLeading):
            await GatedStore(Late(inner), gate).create(MODEL_SERVICE, a_service("chat"), field_manager="test")
        assert not inner.written
        permits.ask()  # outside of the call nothing is asked for

    scene(play)


# ---------------------------------------------------------------------------------------------------- the operator


def test_one_that_stands_by_has_warm_caches_and_writes_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        store, clock = open_store(WallClock()), WallClock()
        leader = Operator(store, clock, QUICK)
        await leader.start()
        leader.campaign.start()
        counting = Counting(store)
        other = Operator(counting, clock, QUICK)
        stop, rounds = asyncio.Event(), 0

        def beat() -> None:
            nonlocal rounds
            rounds += 1

        standing = asyncio.create_task(life.stand_by(other, stop, TICK, beat))
        await store.create(MODEL_SERVICE, a_service("chat"), field_manager="user")
        await until(lambda: "default/chat" in other.world.objects["ModelService"])
        await until(lambda: other.elector.waits)
        seen = rounds
        await until(lambda: rounds > seen + 20)
        assert other.caches.synced
        assert not counting.written
        assert other.epoch == 0
        assert f"{leader.elector.identity} holds the Lease under epoch 1" in other.elector.told()
        await leader.stop()
        assert await standing
        assert other.epoch == 2
        await other.stop()

    scene(play)


def test_one_that_loses_the_lease_stops_at_once_and_its_epoch_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")

    async def play() -> None:
        clock = WallClock()
        faulty = FaultyStore(open_store(clock), clock)
        counting = Counting(faulty)
        hub, ledger = Hub(clock), Ledger(path, now=clock.now)
        operator = Operator(counting, clock, QUICK, hub=hub, ledger=ledger)
        await operator.start()
        running = asyncio.create_task(operator.run(asyncio.Event(), TICK))
        await faulty.create(MODEL_SERVICE, a_service("chat"), field_manager="user")
        await until(lambda: bool(counting.written))
        faulty.outage(60.0)
        await running
        assert operator.elector.over
        assert "not renewed in time" in operator.elector.lost
        faulty.outage(0.0)
        written = len(counting.written)
        with pytest.raises(NotLeading):
            await operator.step()
        await operator.narrator.publish(operator.world.uids(), clock.now(), operator.epoch)
        assert len(counting.written) == written
        await operator.stop()
        lease = await faulty.get(LEASE, LEASE_NAME, SPACE)
        assert lease["spec"]["holderIdentity"] == operator.elector.identity, (
            "not its own any more: left alone"
        )
        ledger.close()

    scene(play)
    reader = LedgerReader(path)
    (row,) = reader.epochs()
    assert row.ended_seconds is not None
    reader.close()


def test_commands_stop_with_the_lease() -> None:
    sent: list[AgentCommand] = []

    class Heard(Hub):
        def send(self, node: str, command: AgentCommand, command_id: str, deadline_seconds: float) -> int:
            sent.append(command)
            return len(sent)

    clock = VirtualClock(1e9)
    gate = Gate(clock)
    gate.extend(10.0)
    sender = PowerSender(Heard(clock, epoch=3), gate)
    action = GrantPower(reason=0, node="n", watts=500, clock_mhz=0, ttl_seconds=5.0)
    item = Stamped(
        id="3/power/1/0", action=action, loop="power", epoch=3, issued_seconds=1e9, deadline_seconds=1e9 + 5
    )
    assert sender.grant(item, 5.0) == (3, 1)
    clock.advance_to(1e9 + 10.0)
    assert sender.grant(item, 5.0) is None
    assert len(sent) == 1
    assert gate.refused == {"command": 1}


def test_a_successor_in_the_same_process_need_not_wait() -> None:
    async def play() -> None:
        store, clock = open_store(WallClock()), WallClock()
        first = Operator(store, clock, OperatorConfig())
        await first.start()
        first.elector.gate.shut()
        second = Operator(store, clock, OperatorConfig(), dead=[first.elector.identity])
        await second.start()
        assert second.epoch == 2
        assert first.elector.identity != second.elector.identity

    scene(play)


def test_a_lease_deleted_while_nobody_led_locks_no_agent_out(tmp_path: Path) -> None:
    """The ledger knows the epoch that the Lease would have said."""

    async def play() -> None:
        store, clock = open_store(WallClock()), WallClock()
        ledger = Ledger(str(tmp_path / "ledger.db"), now=clock.now)
        first = Operator(store, clock, OperatorConfig(), ledger=ledger)
        await first.start()
        await first.stop()
        await store.delete(LEASE, LEASE_NAME, SPACE)
        second = Operator(store, clock, OperatorConfig(), ledger=ledger)
        await second.start()
        assert second.epoch == 2
        await second.stop()
        ledger.close()

    scene(play)


# -------------------------------------------------------------------------------------------------------- the mark


async def pods(store: EmbeddedStore) -> dict[str, str]:
    listed = await store.list(POD, "default")
    return {p["metadata"]["name"]: (p["metadata"].get("labels") or {}).get(LEADER, "") for p in listed.items}


def test_the_mark_is_on_the_leaders_pod_alone() -> None:
    async def play() -> None:
        clock = VirtualClock(1e9)
        store = open_store(clock)
        for name in ("op-0", "op-1", "other"):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
                   "spec": {"containers": [{"name": "main", "image": "x"}]}}  # fmt: skip
            await store.create(POD, pod, field_manager="test")
        old, new = Gate(clock), Gate(clock)
        old.extend(10.0)
        former = LeaderMark(store, old, "default", "op-0")
        assert await former.set()
        assert await pods(store) == {"op-0": "true", "op-1": "", "other": ""}
        clock.advance_to(1e9 + 20.0)
        new.extend(40.0)
        mark = LeaderMark.from_environment(store, new, {POD_NAME: "op-1", POD_NAMESPACE: "default"})
        assert mark is not None
        assert await mark.set()
        assert await pods(store) == {"op-0": "", "op-1": "true", "other": ""}
        assert not await former.set(), "one that woke up takes nothing back"
        assert await former.clear()
        assert await pods(store) == {"op-0": "", "op-1": "true", "other": ""}
        assert await mark.clear()
        assert set((await pods(store)).values()) == {""}
        await store.delete(POD, "op-1", "default", grace_seconds=0)
        assert await mark.clear(), "a pod that is gone has no mark"
        assert not await LeaderMark(store, new, "default", "no-such-pod").set()
        assert LeaderMark.from_environment(store, new, {}) is None

    scene(play)

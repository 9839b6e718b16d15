"""The same plan in both worlds: the operator on the embedded store with the fleet, and the same scenario in the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from cluster.actions import GrantPower
from cluster.checks import subject_of
from cluster.reasons import render
from cluster.snapshot import Snapshot
from simulator.fleet.specs import FleetSpec
from simulator.world.operated.log import Decided, detail_of
from simulator.world.operated.spec import Outage
from simulator.world.operated.world import OperatedWorld
from tests.scenarios.plays_serving import SHORT_MEMORY
from tests.scenarios.props import domain, fleet, job, manifests, service
from tests.scenarios.scenario import CONFIG, Scenario, play
from tests.scenarios.stage import Stage
from tests.world.mirrored import mirrored, plain, steady

TICK_SECONDS = 1.0


class Surge(NamedTuple):
    """Steady requests for a service; `at` counts from the operator's first look."""

    service: str
    at: int
    per_second: float
    seconds: int
    output: int = 40


class Situation(NamedTuple):
    """What happens in both worlds. `crash`: a node, when, and when it is back (None: never)."""

    fleet: FleetSpec
    services: tuple[str, ...]
    surges: tuple[Surge, ...]
    seconds: int
    kinds: frozenset[str]
    crash: tuple[str, int, int | None] | None = None


SITUATIONS = {
    "steady serving": Situation(
        fleet(l4=2), (service("chat", "minReplicas: 2"),), (Surge("shop/chat", 8, 1.0, 20),), 40,
        frozenset({"CreateReplica", "SetRoutes", "SettleRevision"}),
    ),
    "a load step scales up and down again": Situation(
        fleet(l4=3), (service("chat", f"minReplicas: 1\n{SHORT_MEMORY}"),), (Surge("shop/chat", 3, 5.0, 20),), 90,
        frozenset({"CreateReplica", "Drain", "DeleteReplica", "SetRoutes"}),
    ),
    "a node dies under load and comes back": Situation(
        fleet(l4=3), (service("chat", "replicas: 4\nmaxReplicas: 4"),), (Surge("shop/chat", 5, 2.0, 40, 150),), 90,
        frozenset({"CreateReplica", "DeleteReplica", "SetRoutes"}), ("l4-02", 17, 60),
    ),
    "two services share what there is, and one has nothing at first": Situation(
        fleet(l4=2),
        (
            service("chat", f"minReplicas: 1\n{SHORT_MEMORY}", priority=5),
            service("draft", f"keepAliveSeconds: 10\nhold: {{maxRequests: 50, deadlineSeconds: 120}}\n{SHORT_MEMORY}"),
        ),
        (Surge("shop/draft", 4, 2.0, 3), Surge("shop/chat", 10, 6.0, 20)), 80,
        frozenset({"CreateReplica", "Drain", "DeleteReplica", "SetRoutes"}),
    ),
    "a gang trains to its end beside a service": Situation(
        fleet(l4=1, h100=3), (service("chat", "minReplicas: 1"), job("bert", steps=40)), (Surge("shop/chat", 8, 1.0, 10),),
        40, frozenset({"CreateReplica", "StartGang"}),
    ),
    "a gang loses a node and goes on from its checkpoint elsewhere": Situation(
        fleet(l4=1, h100=3), (service("chat", "minReplicas: 1"), job("bert", steps=200)), (Surge("shop/chat", 8, 1.0, 10),),
        100, frozenset({"StartGang", "RestartGang"}), ("h100-01", 20, 60),
    ),
    "a service and a gang under a breaker": Situation(
        fleet(l4=2, h100=2),
        (service("chat", f"minReplicas: 1\n{SHORT_MEMORY}"), job("bert", steps=60), domain("row", 4_000)),
        (Surge("shop/chat", 6, 4.0, 15),), 50, frozenset({"CreateReplica", "StartGang", "Drain", "GrantPower"}),
    ),
    "a mix of two products": Situation(
        fleet(l4=1, a10g=1),
        (service("chat", f"minReplicas: 1\n{SHORT_MEMORY}", on="l4, a10g", tpot=0.045),),
        (Surge("shop/chat", 5, 5.0, 15),), 60, frozenset({"CreateReplica", "SetRoutes"}),
    ),
    "a mix of two products, dispatched by a plan of sizes": Situation(
        fleet(l4=1, a10g=1),
        (service("chat", "minReplicas: 2\npolicies: {dispatch: {name: size_aware}}", on="l4, a10g", tpot=0.1),),
        (Surge("shop/chat", 12, 3.0, 15),), 60, frozenset({"CreateReplica", "SetRoutes"}),
    ),
}  # fmt: skip


class Operated(NamedTuple):
    """What the operator did: rows as the simulator keeps them, seconds from its first look, and its first snapshot."""

    rows: list[Decided]
    origin: float
    snapshot: Snapshot


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_operator_and_the_simulator_act_alike(name: str, tmp_path: Path) -> None:
    situation = SITUATIONS[name]
    real = operated(situation, tmp_path)
    world = simulated(situation, real.origin)
    grants = _watched(world)
    outcome = world.run()
    assert outcome.complete
    said = [row for row in world.log.rows if row.kind]
    done = [row for row in real.rows if row.kind != "GrantPower"]
    assert [_what(row) for row in said] == [_what(row) for row in done]
    assert max(abs(a.seconds - b.seconds) for a, b in zip(said, done, strict=True)) <= TICK_SECONDS
    granted = [(r.seconds, r.subject, r.detail) for r in real.rows if r.kind == "GrantPower"]
    assert grants == granted, "each second's watts of each node"
    assert {row.kind for row in real.rows} >= situation.kinds, "the situation must show what it is there for"
    assert outcome.arrived == sum(s.per_second * s.seconds for s in situation.surges) == outcome.completed


def _watched(world: OperatedWorld) -> list[tuple[float, str, str]]:
    """Grants of power, which no log of the world keeps: second, node and watts."""
    found: list[tuple[float, str, str]] = []
    grant = world.handlers.get(GrantPower)

    def watch(at, action, overlay, world):
        found.append((at, action.node, detail_of(action)))
        return grant(at, action, overlay, world)

    if grant is not None:
        world.handlers[GrantPower] = watch
    return found


def test_the_first_snapshots_of_the_two_worlds_are_the_same(tmp_path: Path) -> None:
    services = SITUATIONS["two services share what there is, and one has nothing at first"].services
    situation = Situation(fleet(l4=2, a10g=1, h100=2), (*services, job("bert")), (), 1, frozenset())
    real = operated(situation, tmp_path)
    mine = simulated(situation, real.origin).observer.snapshot(real.origin, 1)
    for mapping in ("nodes", "services", "jobs", "pools"):
        theirs = {key: plain(noun) for key, noun in getattr(real.snapshot, mapping).items()}
        assert {key: plain(noun) for key, noun in getattr(mine, mapping).items()} == theirs
    assert mine.accelerators.keys() == real.snapshot.accelerators.keys()


def simulated(situation: Situation, origin: float) -> OperatedWorld:
    """The situation in the simulator."""
    outages = ()
    if situation.crash is not None:
        node, at, back = situation.crash
        outages = (
            Outage(node=node, at_seconds=at + 0.5, back_seconds=None if back is None else float(back)),
        )
    text = manifests(*situation.services)
    spec = mirrored(situation.fleet, text, CONFIG, origin, situation.seconds + 0.5, outages=outages)
    streams = {
        each.service: steady(each.per_second, each.at, each.seconds, output=each.output)
        for each in situation.surges
    }
    return OperatedWorld(spec, streams)


def operated(situation: Situation, folder: Path) -> Operated:
    """The situation on the embedded tier."""
    rows: list[Decided] = []
    origin: list[float] = []
    snapshots: list[Snapshot] = []

    def decided(loop, tick, now, outcomes, reasons) -> None:
        for outcome in outcomes:
            action = outcome.stamped.action
            subject = getattr(action, "name", "") or subject_of(action).name
            rows.append(
                Decided(
                    seconds=now - origin[0], loop=loop, tick=tick, kind=action.kind, subject=subject,
                    detail=detail_of(action), outcome=outcome.status, code=reasons[action.reason].code,
                    why=render(reasons[action.reason]),
                )
            )  # fmt: skip

    async def script(stage: Stage) -> None:
        origin.append(stage.now + 1.0)
        stage.diary.decided = decided  # type: ignore[method-assign]
        operator = stage.operator
        decide = operator.planner.decide

        def watched(snapshot, context):
            snapshots.append(snapshot)
            return decide(snapshot, context)

        operator.planner.decide = watched  # type: ignore[method-assign]
        await stage.second()
        for second in range(situation.seconds):
            for surge in situation.surges:
                if surge.at == second:
                    stage.load(surge.service, surge.per_second, surge.seconds, output=surge.output)
            if situation.crash is not None and situation.crash[1] == second:
                stage.fail(situation.crash[0])
            if situation.crash is not None and situation.crash[2] == second:
                await stage.recover(situation.crash[0])
            await stage.second()
        rows[:] = [row for row in rows if row.seconds <= situation.seconds]
        stage.diary.decided = lambda *_: None  # type: ignore[method-assign]

    scenario = Scenario(
        name="same plan", fleet=situation.fleet, manifests=manifests(*situation.services), script=script,
        accepts_loss=True,
    )  # fmt: skip
    play(scenario, folder)
    return Operated(rows, origin[0], snapshots[0])


def _what(row: Decided) -> tuple[str, ...]:
    return row.loop.partition(".")[0], row.kind, row.subject, row.detail, row.outcome, row.code

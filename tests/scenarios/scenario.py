"""A scenario: a fleet, manifests, what happens, and what must have come of it; and how one is played."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from controller.config import OperatorConfig, PolicyDefault
from controller.store.faults import CrashPoint
from simulator.fleet.karpenter import Market
from simulator.fleet.specs import FleetSpec
from tests.scenarios.left import Left, left_by
from tests.scenarios.seen import Seen, owner_of
from tests.scenarios.soundness import assert_sound
from tests.scenarios.stage import Script, Stage
from tests.scenarios.stage import field as field_of
from tests.scenarios.tiers import EMBEDDED, Session, Tier

CONFIG = OperatorConfig(
    records_kept=10_000,
    plan_seconds=5.0,
    policies={"commit": PolicyDefault("by_priority", {"hold_seconds": 5.0})},
)
"""Plans twice as often as the default, and lets a mix be replaced for its price after seconds, not minutes."""
TELL_SECONDS = 3
"""Virtual seconds after a script in which what happened last is told."""
CONVERGE_SECONDS = 90
"""Virtual seconds after its script in which a run with a killed operator must reach the undisturbed run's end."""


@dataclass(frozen=True)
class Scenario:
    """One play. `final` maps `Kind/key` to dotted paths and their values (a compiled pattern matches a text);
    `events` an object's key to codes that must have been told about it; `actions` kinds to how often they must at
    least have been done, by the ledger; `never` codes of events that must not have been told about anybody.

    `accepts_loss`: requests may end otherwise than served. `converges`: how it ends does not hang on when things
    happened, so that a run with a killed operator must end the same. `market`: nodes are sold.
    """

    name: str
    fleet: FleetSpec
    manifests: str
    script: Script
    final: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: Mapping[str, frozenset[str]] = field(default_factory=dict)
    actions: Mapping[str, int] = field(default_factory=dict)
    never: frozenset[str] = frozenset()
    config: OperatorConfig = CONFIG
    accepts_loss: bool = False
    converges: bool = True
    market: Market | None = None


class Ending(msgspec.Struct, frozen=True):
    """How a run ended: what it left (without what may legally differ), its logs, and how many calls it made."""

    final: dict[str, Any]
    left: Left
    decision_log: tuple[bytes, ...]
    diary: tuple[str, ...]
    mutating_calls: tuple[str, ...]
    records: tuple[bytes, ...]
    kills: int


def play(
    scenario: Scenario,
    folder: Path,
    *,
    crash: CrashPoint | None = None,
    expected: Mapping[str, Any] | None = None,
    seed: int = 1,
    tier: Tier = EMBEDDED,
) -> Ending:
    """Play it on an event loop of its own. With `expected`, let it converge to that end, else check its own."""

    async def limited() -> Ending:
        async with asyncio.timeout(tier.wall_seconds), tier.session() as session:
            return await _played(scenario, folder, crash, expected, seed, session)

    return asyncio.run(limited())


async def _played(
    scenario: Scenario,
    folder: Path,
    crash: CrashPoint | None,
    expected: Mapping[str, Any] | None,
    seed: int,
    session: Session,
) -> Ending:
    config = replace_seed(scenario.config, seed)
    stage = Stage(
        scenario.fleet, folder, config=config, crash=crash, seed=seed, session=session, market=scenario.market
    )
    async with stage:
        await stage.apply(scenario.manifests)
        await scenario.script(stage)
        await stage.seconds(TELL_SECONDS)
        if expected is not None:
            await stage.until(
                lambda seen: final_of(seen, stage.routes) == expected,
                CONVERGE_SECONDS,
                f"the same end as without a kill, {_difference(expected, final_of(stage.seen, stage.routes))}",
            )
        await assert_sound(stage)
        _check_final(scenario, stage.seen)
        if not scenario.accepts_loss:
            assert not stage.traffic.ended("lost"), stage.traffic.ended("lost")[0]
            assert not stage.traffic.ended("rejected"), stage.traffic.ended("rejected")[0]
        if crash is None:
            await _check_told(scenario, stage)
        return await _ending(stage)


def replace_seed(config: OperatorConfig, seed: int) -> OperatorConfig:
    """The same settings under another seed."""
    return msgspec.structs.replace(config, seed=seed)


async def _ending(stage: Stage) -> Ending:
    ledger = stage.cluster.ledger
    assert ledger is not None
    assert ledger.flush(force=True)
    return Ending(
        final=final_of(stage.seen, stage.routes),
        left=await left_by(stage),
        decision_log=tuple(ledger.reader.decision_log()),
        diary=tuple(stage.diary.text),
        mutating_calls=tuple(stage.mutating_calls),
        records=tuple(stage.operator.recorder.latest),
        kills=stage.kills,
    )


# ------------------------------------------------------------------------------------------------ expectations


def _check_final(scenario: Scenario, seen: Seen) -> None:
    for name, paths in scenario.final.items():
        kind, _, key = name.partition("/")
        assert key in seen.objects[kind], f"{scenario.name}: {name} is not there"
        for path, wanted in paths.items():
            has = _value(seen.objects[kind][key], path)
            if isinstance(wanted, re.Pattern):
                assert wanted.search(str(has)), (
                    f"{scenario.name}: {name} {path} is {has!r}, not {wanted.pattern}"
                )
            else:
                assert has == wanted, f"{scenario.name}: {name} {path} is {has!r}, not {wanted!r}"


def _value(obj: dict[str, Any], path: str) -> Any:
    """A dotted path; `conditions.NAME.field` looks into the status' conditions."""
    if path.startswith("conditions."):
        _, name, inner = path.split(".")
        conditions = obj.get("status", {}).get("conditions", [])
        return next((c.get(inner) for c in conditions if c["type"] == name), None)
    return field_of(obj, path)


async def _check_told(scenario: Scenario, stage: Stage) -> None:
    for about, codes in scenario.events.items():
        told = await stage.told_codes(about)
        assert codes <= told, (
            f"{scenario.name}: nobody was told {sorted(codes - told)} about {about}; told: {sorted(told)}"
        )
    every = await stage.told_codes()
    assert not scenario.never & every, (
        f"{scenario.name}: {sorted(scenario.never & every)} should never be told"
    )
    ledger = stage.cluster.ledger
    assert ledger is not None
    assert ledger.flush(force=True)
    done: Counter[str] = Counter()
    for line in ledger.reader.decision_log():
        row = msgspec.json.decode(line)
        if row["table"] == "actuations" and row["outcome"] in ("done", "issued"):
            done[row["kind"]] += 1
    for kind, least in scenario.actions.items():
        assert done[kind] >= least, (
            f"{scenario.name}: the ledger has {done[kind]} {kind}, at least {least} were due"
        )


# ------------------------------------------------------------------------------------------------- the same end


def final_of(seen: Seen, routes: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What a run leaves, without what a kill may change: names' ordinals, uids, attempts, times, and the numbers in
    sentences.
    """
    return {
        "services": {k: _told(o, SERVICE_FIELDS) for k, o in sorted(seen.objects["ModelService"].items())},
        "jobs": {k: _told(o, JOB_FIELDS) for k, o in sorted(seen.objects["TrainingJob"].items())},
        "domains": {k: _told(o, DOMAIN_FIELDS) for k, o in sorted(seen.objects["PowerDomain"].items())},
        "pods": _pods(seen),
        "routes": {
            name: sorted(round(w, 4) for w in weights.values()) for name, weights in sorted(routes.items())
        },
    }


SERVICE_FIELDS = ("phase", "ready", "replicas", "gpus", "mix", "costPerHour")
JOB_FIELDS = ("phase", "gpus", "costPerHour")
DOMAIN_FIELDS = ("phase", "nodes", "limitWatts")


def _told(obj: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    status = obj.get("status", {})
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    return {name: status.get(name) for name in fields} | {"conditions": conditions}


def _pods(seen: Seen) -> list[tuple[str, str, str, int]]:
    """Pods by owner, what they run, phase, with how many there are."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for pod in seen.pods():
        marks = pod["metadata"].get("labels", {})
        what = marks.get("plimsoll.dev/variant") or f"rank {marks.get('plimsoll.dev/node-rank', '-')}"
        going = " going" if pod["metadata"].get("deletionTimestamp") else ""
        counted[owner_of(pod), what, str(pod.get("status", {}).get("phase", "")) + going] += 1
    return [(*key, count) for key, count in sorted(counted.items())]


def _difference(expected: Mapping[str, Any], has: Mapping[str, Any]) -> str:
    parts = [
        f"{name}: expected {expected[name]}, has {has[name]}"
        for name in expected
        if expected[name] != has[name]
    ]
    return "; ".join(parts) or "which it has already"


def named(scenarios: list[Scenario]) -> dict[str, Scenario]:
    """Scenarios by name. AssertionError for two of one name."""
    found = {scenario.name: scenario for scenario in scenarios}
    assert len(found) == len(scenarios)
    return found


__all__ = ["CrashPoint", "Ending", "Scenario", "final_of", "named", "play", "replace"]

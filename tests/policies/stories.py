"""Stories of random clusters over three runs of the planner, and every decision of them as lines people can read.

First the cluster as it is found; then half a minute later, when what was begun is done; then seven minutes later with
another load and the first node lost. Numbers have seven figures, so that another build's rounding does not show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cluster import targets as aim
from cluster.codec import from_json, to_builtins, to_json
from cluster.hardware import Offer
from cluster.reasons import Reason, render
from cluster.seeds import stable_hash
from cluster.serving import ReplicaPhase
from cluster.snapshot import Snapshot, Stamp
from cluster.tables import InstanceTable, SignalTable
from cluster.training import GangPhase
from policies.planner import PlannerRun, PlannerStates, run_planner
from tests.policies.builders import NOW, context
from tests.policies.random_snapshots import random_snapshot

FOLDER = Path(__file__).parent / "corpus"
SEEDS = (0, 1, 2, 3, 5, 7, 8, 11, 12, 13)
LATER = ((30.0, 1.0), (450.0, 0.35))
"""Seconds and the factor of the load of the second and third run."""


def story(seed: int) -> str:
    """Every decision of three runs."""
    snapshot, states, lines = random_snapshot(seed), PlannerStates(), []
    now = NOW
    for number in range(1 + len(LATER)):
        if number:
            seconds, factor = LATER[number - 1]
            now += seconds
            snapshot = later(snapshot, now, factor, lose=number == len(LATER))
        found = run_planner(snapshot, states, context(now=now, tick=number), {})
        lines += [f"run {number + 1}", *told(found)]
        states = from_json(to_json(found.states), PlannerStates)
        snapshot = found.snapshot
    return "\n".join(lines) + "\n"


def later(snapshot: Snapshot, now: float, factor: float, lose: bool) -> Snapshot:
    """The cluster some time on: what was begun is done, loads are measured anew, maybe a node is lost."""
    change = msgspec.structs.replace
    done = {ReplicaPhase.PENDING: ReplicaPhase.READY, ReplicaPhase.STARTING: ReplicaPhase.READY}
    replicas = {
        key: change(each, phase=done.get(each.phase, each.phase), phase_since_seconds=now - 20.0)
        for key, each in snapshot.replicas.items()
        if each.phase not in (ReplicaPhase.STOPPING, ReplicaPhase.FAILED)
    }
    live = {
        key: each for key, each in snapshot.claims.items() if key in replicas or key not in snapshot.replicas
    }
    gangs = {
        k: change(g, phase=GangPhase.RUNNING, members_up=len(g.layout.slots))
        for k, g in snapshot.gangs.items()
    }
    loads = {
        key: change(
            each, cells=tuple(factor * c for c in each.cells), held_per_second=0.0, observed_seconds=now
        )
        for key, each in snapshot.loads.items()
    }
    nodes = dict(snapshot.nodes)
    if lose:
        nodes |= {name: change(nodes[name], offer=Offer.LOST) for name in sorted(nodes)[:1]}
    signals = {name: getattr(snapshot.signal_table, name) for name in SignalTable.columns()}
    seen = np.full(len(snapshot.signal_table), now)
    busy = np.isfinite(signals["last_arrival_seconds"])
    arrivals = np.where(busy, now, signals["last_arrival_seconds"])
    ready = sorted(
        key for key, each in replicas.items() if each.phase in (ReplicaPhase.READY, ReplicaPhase.DRAINING)
    )
    zeros = np.zeros(len(ready))
    return change(
        snapshot,
        stamp=Stamp(taken_seconds=now), replicas=replicas, claims=live, gangs=gangs, loads=loads, nodes=nodes,
        signal_table=SignalTable.build(
            snapshot.signal_table.keys, {**signals, "observed_seconds": seen, "last_arrival_seconds": arrivals}
        ),
        instance_table=InstanceTable.build(
            ready, {"observed_seconds": zeros + now, "running": zeros, "waiting": zeros, "pending": zeros, "ready": zeros + 1}
        ),
    )  # fmt: skip


def told(found: PlannerRun) -> Iterator[str]:
    """One line a reason, action and target, by stage."""
    for staged in found.stages:
        plan = staged.plan
        yield f"{staged.stage} {staged.policy} {_line(to_builtins(plan.evidence))}"
        for reason in plan.reasons:
            again = from_json(to_json(reason), Reason)
            assert again == reason, "every reason has numbers that JSON can carry, in units that exist"
            yield f"  {render(reason)} {reason_line(reason)}"
        for action in plan.actions:
            held = "" if action in staged.actions else "(recommended) "
            yield f"  {held}{action.kind} {_line(to_builtins(action))}"
        for target in plan.targets:
            held = "" if target in staged.targets else "(recommended) "
            yield f"  {held}{aim.target_key(target)} {_target(target)}"


def reason_line(reason: Reason) -> str:
    """What the sentence does not show: names of the numbers, what was weighed, what would cure it."""
    plain = to_builtins(reason)
    for slot in ("need", "have", "limit"):
        if slot in plain:
            plain[slot] = _number(plain[slot])
    plain["facts"] = [_number(each) for each in plain.get("facts", ())]
    plain["subject"] = f"{reason.subject}"
    plain["refs"] = [f"{ref}" for ref in reason.refs]
    return _line({name: value for name, value in plain.items() if value})


def _number(quantity: dict[str, Any]) -> str:
    return f"{quantity['name']} {rounded(quantity['value'])} {quantity['unit']}"


def _target(target: aim.AnyTarget) -> str:
    """A target on one line; the mixes of a long list as a count, the cheapest, and a digest of all."""
    plain = rounded(to_builtins(target))
    for name in ("mixes", "alternatives"):
        if len(found := plain.get(name, ())) > 1:
            plain[name] = {"count": len(found), "first": found[0], "digest": _digest(found)}
    if "shape" in plain:
        plain["shape"] = _digest(plain["shape"])
    del plain["type"], plain["decided_seconds"]
    return _line(plain)


def _digest(value: Any) -> str:
    return f"{stable_hash(json.dumps(value, sort_keys=True)):016x}"


def _line(value: Any) -> str:
    return json.dumps(rounded(value), sort_keys=True, separators=(",", ":")).replace('"', "")


def rounded(value: Any) -> Any:
    """Plain values with floats of seven figures; what is smaller than a billionth is nothing."""
    if isinstance(value, float):
        return float(f"{value:.7g}") + 0.0 if abs(value) > 1e-9 else 0.0
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value


def main() -> None:
    """Write the corpus anew: for a change of decisions that is meant."""
    FOLDER.mkdir(exist_ok=True)
    for seed in SEEDS:
        (FOLDER / f"seed-{seed:02}.txt").write_text(story(seed), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Replay records: everything a planner run depended on and what it decided, as one JSON document.

The same record replays to the same plans (bit for bit on the same build, SEAMS §6.7).
"""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.actions import AnyAction
from cluster.codec import from_json, to_json
from cluster.plan import Context, Plan
from cluster.snapshot import Snapshot
from cluster.targets import AnyTarget
from controller.config import OperatorConfig
from controller.ledger.ledger import Ledger
from controller.ledger.rows import PlanId
from policies.planner import PlannerRun, PlannerStates, run_planner

SCHEMA = 1


class StageRecord(msgspec.Struct, frozen=True):
    """What one stage decided: its plan, and the part of it that was to be carried out (mode applied)."""

    stage: str
    policy: str
    plan: Plan
    actions: tuple[AnyAction, ...]
    targets: tuple[AnyTarget, ...]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One planner run. `policies` are the defaults that were in force, by loop: (name, config)."""

    schema: int = SCHEMA
    snapshot: Snapshot
    states: PlannerStates
    now_seconds: float
    tick: int
    epoch: int
    seed: int
    units: int
    policies: dict[str, tuple[str, dict[str, Any]]] = {}
    stages: tuple[StageRecord, ...] = ()


def stages_of(run: PlannerRun) -> tuple[StageRecord, ...]:
    """The stages of a run as they are recorded."""
    return tuple(
        StageRecord(s.stage, s.policy, s.plan, tuple(s.actions), tuple(s.targets)) for s in run.stages
    )


def replay(record: Record) -> PlannerRun:
    """Decide again from the record alone: no scratch, no clock, nothing else."""
    context = Context(
        now_seconds=record.now_seconds,
        tick=record.tick,
        epoch=record.epoch,
        seed=record.seed,
        loop="planner",
        units=record.units,
        scratch={},
    )
    return run_planner(record.snapshot, record.states, context, record.policies)


def differences(record: Record, run: PlannerRun) -> list[str]:
    """Sentences about stages that decided otherwise than recorded; empty when the replay agrees."""
    found = []
    for old, new in zip(record.stages, stages_of(run), strict=False):
        if to_json(old) != to_json(new):
            found.append(
                f"stage {old.stage} decided otherwise: {len(old.actions)} actions recorded, {len(new.actions)} now"
            )
    if len(record.stages) != len(run.stages):
        found.append(f"{len(record.stages)} stages were recorded, {len(run.stages)} ran")
    return found


def read_record(data: bytes) -> Record:
    """Decode a record.

    Raises msgspec.ValidationError naming the path of the first fault.
    """
    return from_json(data, Record)


class Recorder:
    """Keeps the last few runs that did something, in the ledger and in memory."""

    def __init__(self, ledger: Ledger | None, keep: int) -> None:
        """Keep at most `keep` records in memory (0: do not record at all)."""
        self._ledger = ledger
        self._keep = keep
        self.latest: list[bytes] = []

    def keep(
        self,
        snapshot: Snapshot,
        states: PlannerStates,
        context: Context,
        run: PlannerRun,
        config: OperatorConfig,
    ) -> str:
        """Record a run that decided something; the record's name, or empty when it was not kept."""
        if not self._keep or not any(stage.plan.actions for stage in run.stages):
            return ""
        record = Record(
            snapshot=snapshot,
            states=states,
            now_seconds=context.now_seconds,
            tick=context.tick,
            epoch=context.epoch,
            seed=context.seed,
            units=context.units,
            policies={loop: (choice.name, choice.config) for loop, choice in config.policies.items()},
            stages=stages_of(run),
        )
        body = to_json(record)
        self.latest = [*self.latest, body][-self._keep :]
        plan_id = PlanId(context.epoch, "planner", context.tick)
        if self._ledger is None or not self._ledger.record(plan_id, context.now_seconds, body):
            return ""
        return str(plan_id)

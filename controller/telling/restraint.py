"""What is said of restraint: the condition `Restrained`, and in a service's status the moves of the last hour."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.reasons import Quantity, Reason, Verdict, sentence
from cluster.restraint import Hold
from cluster.snapshot import Snapshot
from controller.observe import labels
from controller.observe.restraint import MINUTE_SECONDS, TRUE
from controller.observe.world import World
from controller.resources.base import Condition
from controller.resources.modelservice import Moved
from controller.telling.clock_text import rfc3339
from controller.telling.conditions import condition, merge
from controller.telling.memory import Sayings

RESTRAINED = "Restrained"
"""True while something of an object is left as it is that would be changed otherwise; absent where it never was."""
SAID_SECONDS = 45.0
"""How long a word about restraint holds: some runs of the planner, each of which repeats what still is so."""
CODES = frozenset({"MovesSpent", "PodKept", "PodGuarded", "EvictionRefused", "MixWaits"})
_MAPPINGS = {"ModelService": "services", "TrainingJob": "jobs"}
_RUNNING = {"ModelService": "replicas", "TrainingJob": "gpus"}
MOVES_TOLD = 64


def with_restraint(
    kind: str, obj: Any, status: Any, world: World, snapshot: Snapshot, sayings: Sayings, now_seconds: float
) -> Any:
    """A status of a service or job with what holds it back; any other kind's as it is."""
    if kind not in _MAPPINGS or status.phase in ("Succeeded", "Failed"):
        return status
    key = obj.metadata.key
    if kind == "ModelService":
        made = world.restraint.made(key, now_seconds)
        moves = [
            Moved(at=rfc3339(m * MINUTE_SECONDS), count=n) for m, n in sorted(made.items())[-MOVES_TOLD:]
        ]
        status = msgspec.structs.replace(status, moves=moves)
    noun = getattr(snapshot, _MAPPINGS[kind]).get(key)
    before = next((c for c in obj.status.conditions if c.type == RESTRAINED), None)
    told = _told(
        kind, obj, noun.held if noun is not None else Hold.NONE, status, sayings, before, now_seconds
    )
    if told is None:
        return status
    # Another reason is another restraint: `lastTransitionTime` says since when this one holds.
    same = [before] if before is not None and before.reason == told.reason else []
    return msgspec.structs.replace(status, conditions=[*status.conditions, *merge(same, [told], now_seconds)])


def disrupted_reasons(world: World) -> list[Reason]:
    """Pods of ours that others began to end since the last call, for their owners to read."""
    ended, world.restraint.disrupted = world.restraint.disrupted, {}
    return [
        Reason(
            code="PodDisrupted",
            subject=world.subject(found.kind, found.owner),
            verdict=Verdict.MOVED,
            choice=f"{key} is ended by others ({found.reason}: {found.message.rstrip('.')})",
            need=Quantity("replaced", 1.0, "pods"),
            have=Quantity("grace", float(found.grace_seconds), "s"),
        )
        for key, found in sorted(ended.items())
    ]


def _told(
    kind: str,
    obj: Any,
    hold: Hold,
    status: Any,
    sayings: Sayings,
    before: Condition | None,
    now: float,
) -> Condition | None:
    meta = obj.metadata
    if hold is not Hold.NONE:
        reason = hold.value
        kept = before is not None and before.status == "True" and before.reason == reason
        since = before.last_transition_time if kept and before is not None else rfc3339(now)
        runs = getattr(status, _RUNNING[kind])
        what = "replicas" if kind == "ModelService" else "GPUs"
        text = f"Nothing of it is touched since {since}: {_why(obj, hold)} {runs} {what} run and stay as they are."
        if hold is Hold.RECOMMEND:
            text += _would(kind, meta.key, sayings, now)
        return condition(RESTRAINED, True, reason, text, meta.generation)
    said = sayings.latest(kind, meta.key, CODES)
    if said is not None and now - said.at_seconds <= SAID_SECONDS:
        return condition(RESTRAINED, True, said.reason.code, sentence(said.reason), meta.generation)
    if before is None:
        return None
    return condition(
        RESTRAINED, False, "Free", "Nothing keeps the operator from acting on it.", meta.generation
    )


def _why(obj: Any, hold: Hold) -> str:
    meta = obj.metadata
    if hold is Hold.PAUSED:
        own = meta.annotations.get(labels.PAUSED) == TRUE
        where = "it" if own else f"its namespace {meta.namespace}"
        return f'the annotation {labels.PAUSED}="{TRUE}" is on {where}. Remove it and what is due is done.'
    if hold is Hold.NOT_MANAGED:
        return (
            f'its namespace {meta.namespace} has no label {labels.MANAGED}="{TRUE}", which the operator is told to ask '
            "for."
        )
    own = obj.spec.mode == "Recommend"
    return f"mode Recommend, by {'its spec' if own else 'the configuration of the operator'}."


def _would(kind: str, key: str, sayings: Sayings, now: float) -> str:
    found = [
        said.reason.choice
        for said in sayings.about(kind, key)
        if said.reason.code == "Recommended" and now - said.at_seconds <= SAID_SECONDS
    ]
    return f" Would be done: {'; '.join(found[-4:])}." if found else " Nothing would be done."

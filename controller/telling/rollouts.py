"""What is said of a service's rollout: conditions `Progressing` and `Available`, and `status.rollout` with its counts.

Read off what is there and what is kept, not off what was said: a successor tells the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.reasons import sentence
from cluster.serving import Replica, ReplicaPhase, Service
from cluster.snapshot import Snapshot
from controller.observe.revisions import FAILED, Kept, Standing
from controller.observe.world import World
from controller.resources.base import Condition
from controller.resources.modelservice import ModelService, RolloutStatus
from controller.telling.conditions import condition, merge
from controller.telling.memory import Sayings

GIVEN_UP = frozenset({"RolloutTimedOut", "RolloutFaulty", "RolloutFailing", "RolloutRefused"})
WAITING = frozenset({"RolloutWaiting", "RolloutBelowLoad"})
WAITING_SECONDS = 30.0
"""How long a word about what a rollout waits for is repeated."""
LIVE = (ReplicaPhase.PENDING, ReplicaPhase.STARTING, ReplicaPhase.READY)


def with_rollout(
    kind: str, obj: Any, status: Any, world: World, snapshot: Snapshot, sayings: Sayings, now_seconds: float
) -> Any:
    """A ModelService's status with its rollout; any other kind's, and that of one that is going, as it is."""
    if kind != "ModelService" or obj.metadata.deletion_timestamp is not None:
        return status
    standing = world.revisions.of(obj.metadata.key)
    service = snapshot.services.get(obj.metadata.key)
    if standing is None or service is None:
        return status
    kept = {each.name: each for each in world.revisions.kept(obj.metadata.key)}
    rollout = counted(standing, kept, service, snapshot)
    told = [
        _progressing(obj, standing, kept, rollout, sayings, now_seconds),
        _available(obj, rollout),
    ]
    conditions = [*status.conditions, *merge(obj.status.conditions, told, now_seconds)]
    return msgspec.structs.replace(status, rollout=rollout, conditions=conditions)


def counted(standing: Standing, kept: dict[str, Kept], service: Service, snapshot: Snapshot) -> RolloutStatus:
    """Replicas by revision."""
    live = [r for r in snapshot.replicas_of(service.name) if r.phase in LIVE]
    updated = [r for r in live if r.revision in ("", standing.wanted)]
    capacity = snapshot.capacity(service.name)
    planned = capacity is not None and capacity.final
    wanted = sum(part.units for part in capacity.mix.parts) if capacity is not None and planned else len(live)
    current = standing.revision if standing.rollout.complete else standing.rollout.back_to
    return RolloutStatus(
        current_revision=current,
        updated_revision=standing.wanted,
        revision=kept[standing.wanted].number if standing.wanted in kept else 0,
        wanted=wanted,
        updated=len(updated),
        ready=len(_ready(updated)),
        old=len(live) - len(updated),
        old_ready=len(_ready(live)) - len(_ready(updated)),
    )


def _ready(replicas: list[Replica]) -> list[Replica]:
    return [replica for replica in replicas if replica.phase is ReplicaPhase.READY]


def _progressing(
    obj: ModelService,
    standing: Standing,
    kept: dict[str, Kept],
    rollout: RolloutStatus,
    sayings: Sayings,
    now_seconds: float,
) -> Condition:
    counts = (
        f"{rollout.ready} of {rollout.wanted} wanted are ready, {rollout.old} of another one are left "
        f"({rollout.old_ready} ready)"
    )
    name = f"Revision {rollout.revision} ({standing.wanted})"
    generation = obj.metadata.generation
    if standing.rollout.given_up:
        return _given_up(obj, standing, kept, sayings, rollout)
    if standing.rollout.complete and not rollout.old:
        return condition("Progressing", True, "RolloutComplete", f"{name} is complete: {counts}.", generation)
    said = sayings.latest("ModelService", obj.metadata.key, WAITING)
    why = "RolloutProgressing"
    more = ""
    if said is not None and now_seconds - said.at_seconds <= WAITING_SECONDS:
        why, more = said.reason.code, " " + sentence(said.reason)
    return condition("Progressing", True, why, f"{name}: {counts}.{more}", generation)


def _given_up(
    obj: ModelService, standing: Standing, kept: dict[str, Kept], sayings: Sayings, rollout: RolloutStatus
) -> Condition:
    """Why the wanted revision was given up: in full while that is remembered, else by what is kept of it."""
    found = kept.get(standing.wanted)
    why = (
        found.why
        if found is not None and found.outcome == FAILED and found.why in GIVEN_UP
        else "RolloutFailing"
    )
    said = sayings.latest("ModelService", obj.metadata.key, frozenset({why}))
    back = (
        f"Revision {rollout.revision} ({standing.wanted}) did not become ready, and {standing.revision} is served again: "
        f"{rollout.old_ready} of {rollout.wanted} wanted are ready."
    )
    if said is not None and said.reason.choice.startswith(standing.wanted):
        back = f"{back} {sentence(said.reason)}"
    return condition("Progressing", False, why, back, obj.metadata.generation)


def _available(obj: ModelService, rollout: RolloutStatus) -> Condition:
    """Whether enough take requests while replicas come and go: all that are wanted but the one that may make room."""
    ready = rollout.ready + rollout.old_ready
    least = max(1, rollout.wanted - 1) if rollout.wanted else 0
    word = "MinimumReplicasAvailable" if ready >= least else "MinimumReplicasUnavailable"
    text = f"{ready} take requests; at least {least} of {rollout.wanted} wanted should."
    return condition("Available", ready >= least, word, text, obj.metadata.generation)

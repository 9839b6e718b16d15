"""Status of each of our kinds out of the model: pure functions, one a kind."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from cluster.base import Ref
from cluster.occupancy import devices_held
from cluster.reasons import Quantity, Reason, Verdict, sentence
from cluster.serving import Mode, Replica, ReplicaPhase, Service
from cluster.snapshot import Snapshot
from cluster.training import Gang, GangPhase, Job, JobPhase
from controller.observe import labels
from controller.resources import pruned
from controller.resources.acceleratorclass import AcceleratorClass, AcceleratorClassStatus
from controller.resources.base import Condition
from controller.resources.modelservice import ModelService, ModelServiceStatus
from controller.resources.powerdomain import PowerDomain, PowerDomainStatus
from controller.resources.trainingjob import TrainingJob, TrainingJobStatus
from controller.telling.clock_text import rfc3339
from controller.telling.conditions import condition, merge
from controller.telling.devices import offered
from controller.telling.memory import Said, Sayings

CAPACITY_CODES = frozenset(
    {
        "MixChosen",
        "MixKept",
        "NothingWanted",
        "ShortOfCapacity",
        "ObjectiveImpossible",
        "ModelTooLarge",
        "NoInventory",
        "NothingPriced",
        "UnknownAccelerator",
    }
)
OBSTACLE_CODES = frozenset(
    {
        "PlacesConfined",
        "ReplicaBlocked",
        "ReplicaHeldBack",
        "ReplicaNotStarted",
        "ReplicaRefused",
        "ReplicaStuck",
        "ReplicaUnplaceable",
    }
)
"""What keeps replicas from becoming ready, as placing tells it."""
OBSTACLE_SECONDS = 120.0
"""How long an obstacle is repeated in the condition Ready after it was last met."""
GANG_CODES = frozenset(
    {
        "GangBlocked",
        "GangUnbound",
        "PlacesConfined",
        "GangHeldBack",
        "GangOutdated",
        "GangRefused",
        "GangStarted",
        "GangWaiting",
        "GangRestarted",
        "GangStopped",
        "GangDone",
        "RestartLimitReached",
    }
)
LAST_CODES = frozenset({"GangDone", "RestartLimitReached"})
CONFIG_CODES = frozenset({"PolicyConfigInvalid"})
POWER_CODES = frozenset({"Recommended", "PowerGranted", "PowerClamped", "PowerUnsafe", "DomainInvalid"})
MIX_LIMIT = 512
"""Characters of `status.mix`, as its schema bounds it."""

LIVE = (ReplicaPhase.PENDING, ReplicaPhase.STARTING, ReplicaPhase.READY, ReplicaPhase.DRAINING)


ACCEPTED = "The specification can be acted on."


def _accepted(
    faults: tuple[str, ...],
    generation: int,
    sayings: Sayings,
    subject: tuple[str, str],
    annotations: dict[str, str] | None = None,
) -> Condition:
    if faults:
        return condition("Accepted", False, "SpecInvalid", " ".join(faults), generation)
    said = sayings.latest(*subject, CONFIG_CODES)
    if said is not None and said.reason.subject.version == generation:
        return condition("Accepted", False, said.reason.code, sentence(said.reason), generation)
    lost = pruned.words(subject[0], pruned.dropped(subject[0], annotations or {}))
    text = f"The specification can be acted on, without {lost}." if lost else ACCEPTED
    return condition("Accepted", True, "Accepted", text, generation)


def _planned(said: Said | None, generation: int, old: Sequence[Condition]) -> Condition:
    """What was decided last. An operator that has just begun says nothing that its predecessor knew better."""
    if said is None:
        kept = next((c for c in old if c.type == "Planned"), None)
        return kept or condition(
            "Planned", None, "NotYetDecided", "No decision has been made yet.", generation
        )
    holds = said.reason.severity == "Normal"
    return condition("Planned", holds, said.reason.code, sentence(said.reason), generation)


def dollars_per_hour(snapshot: Snapshot, replicas: list[Replica]) -> float:
    """Price of the GPUs the replicas hold, by their pool."""
    pools = snapshot.pools
    return sum(pools[r.pool].dollars_per_gpu_hour * r.variant.gpu_share for r in replicas if r.pool in pools)


def service_status(
    obj: ModelService, snapshot: Snapshot, sayings: Sayings, faults: tuple[str, ...], now_seconds: float
) -> ModelServiceStatus:
    """Status of a ModelService."""
    key, generation = obj.metadata.key, obj.metadata.generation
    held = [r for r in snapshot.replicas_of(key) if r.phase in LIVE]
    ready = [r for r in held if r.phase is ReplicaPhase.READY]
    capacity = snapshot.capacity(key)
    planned = sum(part.units for part in capacity.mix.parts) if capacity and capacity.final else len(held)
    wanted = max(planned, _least(snapshot.services.get(key)))
    said = sayings.latest("ModelService", key, CAPACITY_CODES)
    counts = Counter(r.variant.key for r in held)
    phase = _service_phase(snapshot.services.get(key), faults, len(ready), len(held), wanted, said)
    holds = len(ready) >= wanted and phase not in ("Refused", "Pending")
    why_not = "" if holds else _obstacle(key, sayings, now_seconds)
    ready_text = f"{len(ready)} of {wanted} wanted replicas take requests.{why_not}"
    conditions = [
        _accepted(faults, generation, sayings, ("ModelService", key), obj.metadata.annotations),
        _planned(said, generation, obj.status.conditions),
        condition("Ready", holds, phase, ready_text, _answered(obj, sayings)),
    ]
    return ModelServiceStatus(
        phase=phase,
        ready=len(ready),
        replicas=len(held),
        selector=f"{labels.SERVICE}={obj.metadata.name}",
        gpus=math.ceil(sum(r.variant.gpus * r.variant.milli for r in held) / 1_000),
        mix=mix_words(counts),
        cost_per_hour=round(dollars_per_hour(snapshot, held), 4),
        why=said.reason.code if said else obj.status.why,
        url=obj.status.url,
        conditions=merge(obj.status.conditions, conditions, now_seconds),
        observed_generation=generation,
    )


def _least(service: Service | None) -> int:
    """Fewest replicas of any kind that what the user asks for can mean."""
    if service is None:
        return 0
    return min(1, service.floor_units if service.mode is Mode.AUTO else service.replicas)


def _obstacle(key: str, sayings: Sayings, now_seconds: float) -> str:
    said = sayings.latest("ModelService", key, OBSTACLE_CODES)
    if said is None or now_seconds - said.at_seconds > OBSTACLE_SECONDS:
        return ""
    return " " + sentence(said.reason)


def _answered(obj: ModelService, sayings: Sayings) -> int:
    """The generation that was planned for: `kubectl wait` does not take an older answer for a new wish."""
    key = obj.metadata.key
    before = next((c.observed_generation for c in obj.status.conditions if c.type == "Ready"), 0)
    said = max((s.reason.subject.version for s in sayings.about("ModelService", key)), default=0)
    return min(obj.metadata.generation, max(before, said))


def mix_words(counts: Mapping[str, int]) -> str:
    """A mix as its status says it; the last parts are only counted where the API server would take no more."""
    parts = [f"{count} {variant}" for variant, count in sorted(counts.items())]
    text = ""
    for kept in range(len(parts), -1, -1):
        rest = [f"{len(parts) - kept} more"] if kept < len(parts) else []
        text = " + ".join([*parts[:kept], *rest])
        if len(text) <= MIX_LIMIT:
            break
    return text


ServicePhase = Literal["Pending", "Starting", "Serving", "Degraded", "AtZero", "Refused"]
JobWord = Literal[
    "Pending", "Forming", "Running", "Restarting", "Suspended", "Succeeded", "Failed", "Refused"
]


def _service_phase(
    service: Service | None, faults: tuple[str, ...], ready: int, held: int, wanted: int, said: Said | None
) -> ServicePhase:
    impossible = said is not None and said.reason.code in (
        "ObjectiveImpossible",
        "ModelTooLarge",
        "UnknownAccelerator",
    )
    if faults or impossible or service is None:
        return "Refused"
    if ready >= wanted > 0:
        return "Serving"
    if ready:
        return "Degraded"
    if held:
        return "Starting"
    if wanted or service.mode is Mode.OFF or (said is not None and said.reason.severity != "Normal"):
        return "Pending"
    return "AtZero"


_GANG_PHASE: dict[GangPhase, JobWord] = {
    GangPhase.FORMING: "Forming",
    GangPhase.VERIFYING: "Forming",
    GangPhase.RUNNING: "Running",
    GangPhase.RESTARTING: "Restarting",
    GangPhase.STOPPING: "Restarting",
    GangPhase.FAILED: "Restarting",
    GangPhase.DONE: "Succeeded",
}


def job_status(
    obj: TrainingJob, snapshot: Snapshot, sayings: Sayings, faults: tuple[str, ...], now_seconds: float
) -> TrainingJobStatus:
    """Status of a TrainingJob. A finished job's status is final but for the last word on why."""
    key, generation = obj.metadata.key, obj.metadata.generation
    said = sayings.latest("TrainingJob", key, GANG_CODES)
    if obj.status.phase in ("Succeeded", "Failed"):
        return _final(obj.status, said, now_seconds)
    job = snapshot.jobs.get(key)
    gang = newest_gang(snapshot, key)
    phase = _job_phase(job, gang, faults, said)
    conditions = [
        _accepted(faults, generation, sayings, ("TrainingJob", key), obj.metadata.annotations),
        _planned(said, generation, obj.status.conditions),
        condition(
            "Succeeded",
            {"Succeeded": True, "Failed": False}.get(phase),
            phase,
            f"Step {_step(obj, gang)} of {obj.spec.steps}.",
            generation,
        ),
    ]
    slots = gang.layout.slots if gang is not None and phase not in ("Succeeded", "Failed") else ()
    ended = phase in ("Succeeded", "Failed")
    return TrainingJobStatus(
        phase=phase,
        attempt=max(obj.status.attempt, gang.attempt if gang else 0),
        restarts=obj.status.restarts,
        failed_attempt=obj.status.failed_attempt,
        step=obj.spec.steps if phase == "Succeeded" else _step(obj, gang),
        checkpoint_step=max(obj.status.checkpoint_step, gang.checkpoint_step if gang else 0),
        nodes=[slot.node for slot in slots],
        gpus=sum(slot.gpus for slot in slots),
        cost_per_hour=round(_gang_cost(snapshot, gang) if slots else 0.0, 4),
        why=said.reason.code if said else obj.status.why,
        started_at=obj.status.started_at or (rfc3339(now_seconds) if phase == "Running" else None),
        finished_at=rfc3339(now_seconds) if ended else None,
        conditions=merge(obj.status.conditions, conditions, now_seconds),
        observed_generation=generation,
    )


def _final(status: TrainingJobStatus, said: Said | None, now_seconds: float) -> TrainingJobStatus:
    if said is None or said.reason.code not in LAST_CODES or said.reason.code == status.why:
        return status
    planned = _planned(said, status.observed_generation, ())
    others = [planned if c.type == planned.type else c for c in status.conditions]
    conditions = merge(status.conditions, others, now_seconds)
    return msgspec.structs.replace(status, why=said.reason.code, conditions=conditions)


def newest_gang(snapshot: Snapshot, job: str) -> Gang | None:
    """The newest attempt of a job that still has pods."""
    return max((g for g in snapshot.gangs.values() if g.job == job), key=lambda g: g.attempt, default=None)


def _step(obj: TrainingJob, gang: Gang | None) -> int:
    return gang.step if gang is not None and gang.step else obj.status.checkpoint_step


def _gang_cost(snapshot: Snapshot, gang: Gang | None) -> float:
    total = 0.0
    for slot in gang.layout.slots if gang else ():
        node = snapshot.nodes.get(slot.node)
        pool = snapshot.pools.get(node.pool) if node else None
        total += pool.dollars_per_gpu_hour * slot.gpus if pool else 0.0
    return total


def _job_phase(job: Job | None, gang: Gang | None, faults: tuple[str, ...], said: Said | None) -> JobWord:
    if faults or job is None:
        return "Refused"
    if (gang is not None and gang.phase is GangPhase.DONE) or job.phase is JobPhase.DONE:
        return "Succeeded"
    if said is not None and said.reason.code == "RestartLimitReached":
        return "Failed"
    if job.suspended and gang is None:
        return "Suspended"
    if gang is None:
        return "Restarting" if job.attempt else "Pending"
    return _GANG_PHASE.get(gang.phase, "Pending")


def domain_status(
    obj: PowerDomain, snapshot: Snapshot, sayings: Sayings, faults: tuple[str, ...], now_seconds: float
) -> PowerDomainStatus:
    """Status of a PowerDomain; watts are rounded to 100 so that noise writes nothing."""
    name, generation = obj.metadata.name, obj.metadata.generation
    domain = snapshot.domains.get(name)
    members = domain.members if domain else ()
    rows = snapshot.node_table.index()
    at = [rows[n] for n in members if n in rows]
    said = sayings.latest("PowerDomain", name, POWER_CODES)
    leases = [snapshot.leases[n].watts for n in members if n in snapshot.leases]
    capped = said is not None and said.reason.code == "PowerClamped"
    unsafe = said is not None and said.reason.code == "PowerUnsafe"
    accepted = _accepted(faults, generation, sayings, ("PowerDomain", name))
    conditions = [accepted, _planned(said, generation, obj.status.conditions)]
    return PowerDomainStatus(
        phase="Refused"
        if faults
        else "Pending"
        if said is None
        else "Degraded"
        if unsafe
        else "Capped"
        if capped
        else "Within",
        nodes=len(members),
        limit_watts=domain.limit_watts if domain else 0,
        granted_watts=_rounded(float(sum(leases))),
        drawn_watts=_rounded(float(sum(v for i in at if (v := snapshot.node_table.watts[i]) == v))),
        uncapped_watts=_rounded(float(sum(v for i in at if (v := snapshot.node_table.demand_watts[i]) == v))),
        why=said.reason.code if said else obj.status.why,
        conditions=merge(obj.status.conditions, conditions, now_seconds),
        observed_generation=generation,
    )


def _rounded(watts: float) -> int:
    return round(watts / 100.0) * 100


def unknown_product_reason(node: str, product: str, gpus: int, classes: int) -> Reason:
    """Why a node with GPUs is not used: nobody describes its product."""
    return Reason(
        code="NodeUnknownProduct",
        subject=Ref("AcceleratorNode", node),
        verdict=Verdict.BLOCKED,
        choice=product,
        need=Quantity("classes", classes, "products"),
        have=Quantity("gpus", gpus, "GPU"),
    )


def node_closed_reason(node: Ref, why: str, gpus: int, used: int) -> Reason:
    """Why a node gets no new pods: cordoned, tainted, not ready, silent or leaving."""
    return Reason(
        code="NodeClosed",
        subject=node,
        verdict=Verdict.BLOCKED,
        choice=why,
        need=Quantity("gpus", gpus, "GPU"),
        have=Quantity("used", used, "GPU"),
    )


def class_status(
    obj: AcceleratorClass, snapshot: Snapshot, sayings: Sayings, faults: tuple[str, ...], now_seconds: float
) -> AcceleratorClassStatus:
    """Status of an AcceleratorClass: how many of it the cluster has, and how many are free."""
    name = obj.spec.display_name or obj.metadata.name
    nodes = {n.name: n for n in snapshot.nodes.values() if n.accelerator == name}
    claims = [c for c in snapshot.claims.values() if c.slot.node in nodes]
    lost = sum(c.slot.gpus for c in claims if c.owner.kind == "Node")
    gpus = sum(1 for n in nodes.values() for d in n.devices if d.healthy) - lost
    held = devices_held(c for c in claims if c.owner.kind != "Node")
    generation = obj.metadata.generation
    accepted = _accepted(faults, generation, sayings, ("AcceleratorClass", obj.metadata.name))
    return AcceleratorClassStatus(
        nodes=len(nodes),
        gpus=gpus,
        free_gpus=max(0, gpus - held),
        conditions=merge(
            obj.status.conditions,
            [accepted, offered(snapshot.accelerators.get(name), list(nodes.values()), generation)],
            now_seconds,
        ),
        observed_generation=generation,
    )

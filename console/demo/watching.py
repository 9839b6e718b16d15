"""Watches a run: what the cluster was at each moment, and what was decided. Measures, never decides."""

from __future__ import annotations

from collections import Counter

from cluster.actions import Stamped
from cluster.checks import subject_of
from cluster.reasons import Reason, sentence
from cluster.serving import ReplicaPhase
from cluster.snapshot import Snapshot
from console.demo.run_data import DemoRun, Happening, Sample
from controller.actor.outcome import Outcome
from controller.telling.memory import Sayings
from controller.telling.statuses import LIVE

MOST_HAPPENINGS = 20_000


class DecisionLog:
    """Listener of the operator: one line per reason that is news, with how many actions it carried."""

    def __init__(self, run: DemoRun) -> None:
        """Write to the run's timeline."""
        self._run = run
        self._sayings = Sayings()
        self.origin_seconds = 0.0
        self.lines: list[str] = []
        self.actions = 0

    def decided(
        self, loop: str, tick: int, now_seconds: float, outcomes: list[Outcome], reasons: tuple[Reason, ...]
    ) -> None:
        """A loop's plan was carried out: log every action, tell what is news."""
        self.actions += len(outcomes)
        for outcome in outcomes:
            self.lines.append(_line(outcome.stamped, outcome.code, tick, now_seconds))
        carried = Counter(o.stamped.action.reason for o in outcomes)
        index = {id(reason): number for number, reason in enumerate(reasons)}
        for reason in self._sayings.hear(reasons, loop, now_seconds):
            if len(self._run.happenings) >= MOST_HAPPENINGS:
                return
            self._run.happenings.append(
                Happening(
                    seconds=now_seconds - self.origin_seconds,
                    loop=loop,
                    kind=reason.subject.kind,
                    subject=reason.subject.name,
                    code=reason.code,
                    verdict=reason.verdict.value,
                    sentence=sentence(reason),
                    actions=carried[index[id(reason)]],
                )
            )


def _line(stamped: Stamped, code: str, tick: int, now_seconds: float) -> str:
    action = stamped.action
    return f"{now_seconds:.3f} {stamped.loop} {tick} {stamped.id} {action.kind} {subject_of(action)} {code}"


def serving_products(snapshot: Snapshot) -> frozenset[str]:
    """Products that some service may use."""
    return frozenset(v.accelerator for s in snapshot.services.values() for v in s.variants)


def serving_use(snapshot: Snapshot) -> float:
    """GPUs held by serving replicas, over all GPUs of live nodes that services may use and no gang holds."""
    products = serving_products(snapshot)
    open_gpus = sum(
        len(n.devices) for n in snapshot.nodes.values() if n.accelerator in products and n.offer != "lost"
    )
    gangs = sum(
        claim.slot.gpus
        for claim in snapshot.claims.values()
        if claim.owner.kind == "TrainingJob"
        and (node := snapshot.nodes.get(claim.slot.node))
        and node.accelerator in products
    )
    held = sum(r.variant.gpus for r in snapshot.replicas.values() if r.phase in LIVE)
    free = open_gpus - gangs
    return held / free if free > 0 else 0.0


def serving_dollars(snapshot: Snapshot) -> float:
    """Dollars per hour of everything that serving holds, starting and draining replicas included."""
    pools = snapshot.pools
    held = (r for r in snapshot.replicas.values() if r.phase in (*LIVE, ReplicaPhase.STOPPING))
    return sum(pools[r.pool].dollars_per_gpu_hour * r.variant.gpu_share for r in held if r.pool in pools)


def sample(snapshot: Snapshot, seconds: float, watts: tuple[float, float, float, float]) -> Sample:
    """The cluster at one moment; `watts` are true, uncapped, granted and rated."""
    replicas: dict[str, dict[str, int]] = {name: {} for name in sorted(snapshot.services)}
    gpus: Counter[str] = Counter()
    dollars: dict[str, float] = dict.fromkeys(replicas, 0.0)
    for replica in snapshot.replicas.values():
        if replica.phase in LIVE:
            gpus[replica.variant.accelerator] += replica.variant.gpus
            pool = snapshot.pools.get(replica.pool)
            if pool is not None and replica.service in dollars:
                dollars[replica.service] += pool.dollars_per_gpu_hour * replica.variant.gpu_share
        if replica.phase is ReplicaPhase.READY and replica.service in replicas:
            kinds = replicas[replica.service]
            kinds[replica.variant.accelerator] = kinds.get(replica.variant.accelerator, 0) + 1
    rows = snapshot.signal_table.index()
    table = snapshot.signal_table
    newest = {}
    for gang in sorted(snapshot.gangs.values(), key=lambda g: g.attempt):
        newest[gang.job] = (gang.phase.value, gang.step)
    return Sample(
        seconds=seconds,
        load_per_second={
            n: float(table.requests_per_second[rows[n]]) if n in rows else 0.0
            for n in sorted(snapshot.services)
        },
        held={n: int(table.held[rows[n]]) if n in rows else 0 for n in sorted(snapshot.services)},
        replicas=replicas,
        gpus=dict(sorted(gpus.items())),
        dollars_per_hour=serving_dollars(snapshot),
        service_dollars_per_hour=dollars,
        serving_use=serving_use(snapshot),
        power_watts=watts[0],
        uncapped_watts=watts[1],
        granted_watts=watts[2],
        rating_watts=watts[3],
        jobs={name: newest.get(name, (job.phase.value, 0)) for name, job in sorted(snapshot.jobs.items())},
    )

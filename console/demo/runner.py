"""Runs the demo: an hour of the cluster on a trace, a node failing half way, and the books kept of everything."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from cluster.serving import ReplicaPhase
from cluster.snapshot import Snapshot
from console.demo.accounting import Books
from console.demo.backing import Backing, Say, apply_to, backing
from console.demo.cluster_spec import demo_cluster, row_members
from console.demo.run_data import DemoRun, JobFacts, Sample, ServiceFacts
from console.demo.singles import SingleTypes
from console.demo.trace import Trace, share_out
from console.demo.watching import DecisionLog, sample, serving_dollars, serving_use
from console.local import LocalCluster
from controller.config import OperatorConfig
from controller.resources.core import POD
from controller.resources.kinds import MODEL_SERVICE, TRAINING_JOB
from controller.resources.manifests import Manifest, as_object
from gateway.client import Request
from simulator.physics.failures import Failure, FailureKind

LATE_SERVICE = "shop/batch-writer"
"""Starts at zero; its part of the trace goes to the others before `LATE_SECONDS`."""
LATE_SECONDS = 600.0
WARM_SECONDS = 300
"""Longest wait for the services that have a floor to be ready before the trace begins."""
TAIL_SECONDS = 900
"""Longest wait after the last arrival for open requests to end and jobs to finish."""
SAMPLE_SECONDS = 10
RECORDS = 5

Progress = Callable[[Sample, DemoRun, float], None]


class DemoFailed(Exception):
    """The demo cannot run on these manifests; the sentence says why."""


class Demo:
    """One run. `progress` is called with each sample."""

    def __init__(
        self,
        trace: Trace,
        manifests: list[Manifest],
        *,
        seed: int,
        replication: int,
        out: Path,
        progress: Progress,
        cluster: str = "local",
        say: Say = print,
    ) -> None:
        """Prepare; nothing listens before `run`. `cluster` is one of `console.demo.backing.KINDS`."""
        self._kind, self._say = cluster, say
        self._manifests = manifests
        self._out = out
        self._progress = progress
        self._seed = seed
        self._fleet = demo_cluster(seed)
        self._members = row_members(self._fleet)
        self._rating = _rating(manifests)
        self.run_data = _blank(trace, manifests, seed, replication)
        self.run_data.nodes = len(self._fleet.nodes)
        names = tuple(sorted(self.run_data.services))
        late = LATE_SERVICE if LATE_SERVICE in names else names[-1]
        shared = share_out(trace.requests, names, late, LATE_SECONDS)
        self.books = Books(trace, shared, self.run_data.services, replication)
        self.log = DecisionLog(self.run_data)
        self._trace = trace
        self._next = 0
        self._origin: float | None = None
        self._singles = SingleTypes()
        self._dollar_seconds = 0.0
        self._traced_seconds = 0
        self.peak_use = 0.0
        self.over_seconds = 0
        self.uncapped_over_seconds = 0
        self.inflight_at_failure = 0
        self.failures = 0
        self.cluster: LocalCluster
        self._began = time.monotonic()

    def _arrivals(self, from_seconds: float, until_seconds: float) -> Sequence[Request]:
        """The trace's requests of a window; none before the trace begins."""
        del from_seconds
        if self._origin is None:
            return ()
        low = self._next
        rows = self._trace.requests
        while self._next < len(rows) and rows[self._next].arrived_seconds + self._origin < until_seconds:
            self._next += 1
        return self.books.requests(low, self._next, self._origin)

    async def run(self) -> DemoRun:
        """The whole run; the cluster is stopped at the end whatever happens.

        Raises: DemoFailed, ControlPlaneError where a real control plane is asked for and cannot be started.
        """
        async with backing(self._kind, self._say) as kept:
            return await self._run(kept)

    async def _run(self, kept: Backing) -> DemoRun:
        config = OperatorConfig(seed=self._seed, records_kept=RECORDS)
        self.cluster = LocalCluster(
            self._fleet,
            config=config,
            ledger=self._out / "ledger.db",
            source=self._arrivals,
            listener=self.log,
            open_with=kept.open_with,
            seed=self._seed,
        )
        async with self.cluster:
            self.log.origin_seconds = self.cluster.clock.now()
            await apply_to(self.cluster.store, kept, self._manifests)
            await self._warm_up()
            self._start_trace()
            half = int(self._trace.seconds / 2)
            for second in range(math.ceil(self._trace.seconds) + 1):
                if second == half and half:
                    self._fail_busiest()
                await self._second(second)
            await self._finish()
            self.run_data.single_types = self._singles.results(sorted(self._snapshot().accelerators))
            await self._close_books()
        return self.run_data

    def _snapshot(self) -> Snapshot:
        return self.cluster.operator.observer.snapshot(self.cluster.clock.now(), self.cluster.operator.epoch)

    async def _warm_up(self) -> None:
        """Let what has a floor become ready: nobody sends an hour of traffic at an empty cluster."""
        for _ in range(WARM_SECONDS):
            await self.cluster.second()
            snapshot = self._snapshot()
            waiting = [
                n for n, s in snapshot.services.items() if s.floor_units and not self._ready(snapshot, n)
            ]
            if snapshot.services and not waiting:
                return

    @staticmethod
    def _ready(snapshot: Snapshot, service: str) -> bool:
        capacity = snapshot.capacity(service)
        wanted = sum(p.units for p in capacity.mix.parts) if capacity and capacity.final else 1
        ready = sum(1 for r in snapshot.replicas_of(service) if r.phase is ReplicaPhase.READY)
        return ready >= max(1, wanted)

    def _start_trace(self) -> None:
        self._origin = self.cluster.clock.now()
        shift = self._origin - self.log.origin_seconds
        self.log.origin_seconds = self._origin
        self.run_data.happenings = [
            msgspec.structs.replace(h, seconds=h.seconds - shift) for h in self.run_data.happenings
        ]

    def _fail_busiest(self) -> None:
        fleet = self.cluster.fleet
        node = fleet.busiest()
        now = self.cluster.clock.now()
        self.inflight_at_failure = fleet.inflight()[node]
        self.run_data.node_failed = node
        self.run_data.node_failed_seconds = now + 0.5 - (self._origin or now)
        self.failures += 1
        fleet.schedule(Failure(now + 0.5, node, FailureKind.NODE_CRASH, 0))

    async def _second(self, second: int) -> None:
        await self.cluster.second()
        self._book(second < self._trace.seconds)
        if second % SAMPLE_SECONDS == 0:
            self._sample(second)

    def _book(self, traced: bool) -> None:
        """Book one second: ended requests, dollars, watts."""
        origin = self._origin or 0.0
        results, self.cluster.feeder.results = self.cluster.feeder.results, []
        for result in results:
            self.books.end(result, origin)
        snapshot = self._snapshot()
        watts = self.cluster.fleet.true_power_watts(self._members)
        uncapped = self.cluster.fleet.uncapped_power_watts(self._members)
        self.over_seconds += watts > self._rating
        self.uncapped_over_seconds += uncapped > self._rating
        self.peak_use = max(self.peak_use, serving_use(snapshot))
        if traced:
            self._dollar_seconds += serving_dollars(snapshot)
            self._traced_seconds += 1
            self._singles.observe(snapshot, 1.0)

    def _sample(self, second: int) -> None:
        snapshot = self._snapshot()
        granted = sum(snapshot.leases[n].charged_watts for n in self._members if n in snapshot.leases)
        watts = (
            self.cluster.fleet.true_power_watts(self._members),
            self.cluster.fleet.uncapped_power_watts(self._members),
            float(granted),
            float(self._rating),
        )
        taken = sample(snapshot, float(second), watts)
        self.run_data.samples.append(taken)
        for name, (phase, step) in taken.jobs.items():
            self.run_data.jobs[name].history.append((float(second), phase, step))
        self._progress(taken, self.run_data, time.monotonic() - self._began)

    async def _finish(self) -> None:
        """Until every request has ended and every job is over, or nobody believes in it any more."""
        start = math.ceil(self._trace.seconds) + 1
        for second in range(start, start + TAIL_SECONDS):
            if not self.books.open_copies and await self._jobs_over():
                return
            await self._second(second)

    async def _jobs_over(self) -> bool:
        phases = [(await self._job(name))["phase"] for name in self.run_data.jobs]
        return all(phase in ("Succeeded", "Failed", "Refused") for phase in phases)

    async def _job(self, key: str) -> dict[str, object]:
        namespace, _, name = key.partition("/")
        status: dict[str, object] = (await self.cluster.store.get(TRAINING_JOB, name, namespace)).get(
            "status", {}
        )
        return {"phase": "Pending", "restarts": 0, "step": 0, **status}

    async def _close_books(self) -> None:
        """What the objects say at the end."""
        snapshot = self._snapshot()
        for key, job in self.run_data.jobs.items():
            status = await self._job(key)
            job.phase, job.restarts, job.step = (
                str(status["phase"]),
                int(str(status["restarts"])),
                int(str(status["step"])),
            )
        for key, service in self.run_data.services.items():
            namespace, _, name = key.partition("/")
            found = await self.cluster.store.get(MODEL_SERVICE, name, namespace)
            service.ready = int(found.get("status", {}).get("ready", 0))
            for replica in snapshot.replicas_of(key):
                if replica.phase is ReplicaPhase.READY:
                    gpus = service.gpus
                    gpus[replica.variant.accelerator] = (
                        gpus.get(replica.variant.accelerator, 0) + replica.variant.gpus
                    )
        for node in snapshot.nodes.values():
            self.run_data.gpus[node.accelerator] = self.run_data.gpus.get(node.accelerator, 0) + len(
                node.devices
            )
        self.pods_left = len((await self.cluster.store.list(POD)).raw_items)

    @property
    def dollars_per_hour(self) -> float:
        """Time-weighted cost of serving over the trace."""
        return self._dollar_seconds / self._traced_seconds if self._traced_seconds else 0.0

    @property
    def wall_seconds(self) -> float:
        """Wall time since the demo was made."""
        return time.monotonic() - self._began


def _rating(manifests: list[Manifest]) -> int:
    for manifest in manifests:
        if manifest.resource.kind == "PowerDomain" and not manifest.obj["spec"].get("parent"):
            return int(manifest.obj["spec"]["ratingWatts"])
    raise DemoFailed("The demo's manifests hold no PowerDomain; examples/demo/power.yaml has one.")


def _blank(trace: Trace, manifests: list[Manifest], seed: int, replication: int) -> DemoRun:
    services: dict[str, ServiceFacts] = {}
    jobs: dict[str, JobFacts] = {}
    for manifest in manifests:
        if manifest.resource == MODEL_SERVICE:
            obj = as_object(manifest)
            objective = obj.spec.objectives[0]
            services[obj.metadata.key] = ServiceFacts(
                name=obj.metadata.key,
                model=obj.spec.model.name,
                ttft_objective_seconds=objective.ttft_seconds,
                tpot_objective_seconds=objective.tpot_seconds,
                percentile=objective.percentile,
            )
        elif manifest.resource == TRAINING_JOB:
            obj = as_object(manifest)
            jobs[obj.metadata.key] = JobFacts(name=obj.metadata.key, steps=obj.spec.steps)
    if not services:
        raise DemoFailed("The demo's manifests hold no ModelService; examples/demo/services.yaml has three.")
    return DemoRun(
        trace_name=trace.name,
        input_sha256=trace.sha256,
        seed=seed,
        replication=replication,
        data_lines=trace.data_lines,
        malformed_lines=trace.malformed_lines,
        malformed=[(m.line, m.why) for m in trace.malformed],
        out_of_order=trace.out_of_order,
        services=services,
        jobs=jobs,
    )

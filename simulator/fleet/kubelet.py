"""A node's kubelet: what is bound to the node is started, watched, stopped; what the store should say follows.

No task and no I/O in here: pods and the machine's stages go in, and each pod has a `Report` that somebody writes
(`simulator.fleet.writer`). A pod moves through these states and no other::

    held      image, Secrets or ConfigMaps that it needs are not to be had: Pending, and tried again
    starting  image, container: Pending · weights, engine, warm_up (process for ranks): Running, not ready
    serving   Running, ready
    stopping  deletion asked: takes no new requests, ends when it has none or its grace is over
    ended     Succeeded or Failed with a reason, or stopped and only waiting for its object to go
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from agent.engine.host import EngineHost
from agent.node.drivers.base import GangState, ReplicaState
from cluster.launch import EngineLaunch, RankLaunch
from simulator.fleet.broken import told_of
from simulator.fleet.gangs import GangBook, Member, Verdict
from simulator.fleet.index import Launch, launch_of
from simulator.fleet.machine import Machine
from simulator.fleet.objects import Pod
from simulator.fleet.pantry import Pantry
from simulator.fleet.reports import Report
from simulator.fleet.slices import resource_of
from simulator.physics.loading import Stage, StageEvent
from simulator.physics.shapes import StartProfile, engine_of, model_of, rank_start_of, start_of
from simulator.physics.specs import EngineSpec


class State(Enum):
    """Where a pod is in its life on the node."""

    HELD = "held"
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Run:
    """One pod on this node. `told` is the report that the store has, `gone` that its object may be removed."""

    pod: Pod
    launch: Launch | None
    state: State
    report: Report
    since_seconds: float
    told: Report | None = None
    deadline_seconds: float = 0.0
    member: Member | None = None
    gone: bool = False
    admitted_seconds: float = 0.0
    endpoint_told: bool = False
    held_since_seconds: float = 0.0

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return self.pod.metadata.key


class Kubelet:
    """Pods of one boot of one machine. `host` serves its engines to gateways."""

    def __init__(
        self,
        machine: Machine,
        host: EngineHost,
        gangs: GangBook,
        start: StartProfile,
        engine: EngineSpec,
        pantry: Pantry | None = None,
    ) -> None:
        self._pantry = pantry
        self._held: set[str] = set()
        self._machine = machine
        self._host = host
        self._gangs = gangs
        self._start = start
        self._engine = engine
        self.runs: dict[str, Run] = {}
        self.dirty: set[str] = set()
        """Keys of pods whose report the store may not have."""
        self._busy: set[str] = set()
        self._rows: tuple[ReplicaState, ...] | None = ()
        self._members: dict[str, Member] = {}

    # ------------------------------------------------------------------------------------- from the store

    def see(self, key: str, pod: Pod | None, now_seconds: float) -> None:
        """A pod bound to this node changed, or (None) its object is gone."""
        run = self.runs.get(key)
        if run is not None and (pod is None or pod.metadata.uid != run.pod.metadata.uid):
            self._drop(run, now_seconds)
            run = None
        if pod is None:
            return
        if run is None:
            if pod.finished and not pod.deleted:
                return
            run = self._admit(pod, now_seconds)
        run.pod = pod
        closed = tuple(pod.closed_gates)
        if closed != run.report.closed_gates:
            run.report = msgspec.structs.replace(
                run.report, closed_gates=closed, ready_since_seconds=now_seconds
            )
            self.dirty.add(key)
        if pod.deleted:
            self._ask_to_stop(run, now_seconds)

    def restore(self, pod: Pod, now_seconds: float) -> None:
        """The machine has booted and finds a pod of before: its containers are gone."""
        if pod.finished and not pod.deleted:
            return
        if pod.deleted:
            run = self._keep(pod, None, State.ENDED, Report(phase=pod.status.phase), now_seconds)
            run.gone = True
        elif pod.spec.restart_policy == "Never":
            run = self._keep(pod, launch_of(pod), State.STARTING, Report(), now_seconds)
            self._end(run, Verdict("Failed", "NodeRestarted", "the node restarted under it"), now_seconds)
        else:
            self._admit(pod, now_seconds)

    # ----------------------------------------------------------------------------------- from the machine

    def entered(self, event: StageEvent) -> None:
        """A start on this machine entered a stage."""
        run = self.runs.get(event.name)
        if run is None or run.state is not State.STARTING:
            return
        if event.stage is Stage.CONTAINER:
            self._machine.images.add(_image(run.pod))
        if event.stage is Stage.READY:
            self._up(run, event.at_seconds)
        elif event.stage in {Stage.IMAGE, Stage.CONTAINER}:
            self._say(run, Report(reason=event.stage.value), event.at_seconds)
        elif isinstance(run.launch, EngineLaunch) or event.stage is Stage.WEIGHTS:
            reason = event.stage.value if isinstance(run.launch, EngineLaunch) else "process"
            started = run.report.started_seconds or event.at_seconds
            self._say(run, Report("Running", reason, started_seconds=started), event.at_seconds)

    def broke(self, gpu: int, fault: str, now_seconds: float) -> None:
        """A GPU is dead; the pods that use it end."""
        for run in list(self.runs.values()):
            boards, _ = self._boards(run, run.launch)
            if gpu in boards and run.state is not State.ENDED:
                verdict = Verdict("Failed", "GpuFault", f"GPU {gpu} of {self._machine.name}: {fault}")
                self._end(run, verdict, now_seconds)

    def _boards(self, run: Run, launch: Launch | None) -> tuple[tuple[int, ...], int]:
        """Boards that a pod has its devices on, and its thousandths of them where they are slices (else 0).

        ValueError for a slice that the machine does not have.
        """
        devices, resource = launch.devices if launch is not None else (), resource_of(run.pod.requests())
        if not resource or not devices:
            return devices, 0
        places = self._machine.slices.get(resource, ())
        if max(devices) >= len(places):
            raise ValueError(f"slice {max(devices)} of {resource}: {self._machine.name} has {len(places)}")
        return tuple(places[device].board for device in devices), places[devices[0]].milli

    def crash(self, now_seconds: float) -> None:
        """The machine dies: nothing runs, and nothing is written any more."""
        for run in self.runs.values():
            if run.member is not None:
                self._gangs.leave(run.member, now_seconds, "its node died")
        self.runs.clear()
        self.dirty.clear()
        self._busy.clear()
        self._held.clear()
        self._members.clear()
        self._rows = ()

    def settle(self, now_seconds: float) -> None:
        """End what is to end by now: drained or out of grace, gangs that are done or lost."""
        for key in sorted(self._held):
            self._try(self.runs[key], now_seconds)
        for key in sorted(self._busy):
            run = self.runs[key]
            if run.state is State.STOPPING:
                engine = self._machine.physics.engine(key)
                if engine is None or engine.drained or now_seconds >= run.deadline_seconds:
                    self._stop(run, now_seconds)
            elif run.state is State.STARTING:
                self._tell_broken(run, now_seconds)
            elif run.member is not None:
                verdict = self._gangs.verdict(run.member, now_seconds)
                if verdict is not None:
                    self._end(run, verdict, now_seconds)

    # ------------------------------------------------------------------------------------ for the reports

    def rows(self, now_seconds: float) -> tuple[tuple[ReplicaState, ...], tuple[GangState, ...]]:
        """Replicas and gangs on the node, for its agent."""
        if self._rows is None:
            runs = [run for _, run in sorted(self.runs.items()) if isinstance(run.launch, EngineLaunch)]
            self._rows = tuple(_row(run) for run in runs)
        gangs = [self._gangs.state(member, now_seconds) for _, member in sorted(self._members.items())]
        return self._rows, tuple(gangs)

    # -------------------------------------------------------------------------------------------- details

    def _admit(self, pod: Pod, now: float) -> Run:
        run = self._keep(pod, launch_of(pod), State.HELD, Report(reason=Stage.IMAGE.value), now)
        self._held.add(run.key)
        self._try(run, now)
        return run

    def _try(self, run: Run, now: float) -> None:
        """Start a pod that is held, if all that it needs is there."""
        present = self._start.images_present or _image(run.pod) in self._machine.images
        waited = now - run.held_since_seconds
        obstacle = (
            self._pantry.obstacle(run.pod, present=present, waited_seconds=waited) if self._pantry else None
        )
        if obstacle is None:
            self._held.discard(run.key)
            run.state = State.STARTING
            self._say(run, Report(reason=Stage.IMAGE.value), now)
            self._begin(run, present, now)
            return
        report = Report(
            reason=obstacle.reason, message=obstacle.message, held=True, unmounted=obstacle.unmounted
        )
        if (report.reason, report.message) != (run.report.reason, run.report.message):
            self._say(run, report, now)

    def _begin(self, run: Run, present: bool, now: float) -> None:
        launch = run.launch
        if _image(run.pod) in self._start.broken_images:
            self._busy.add(run.key)
            run.admitted_seconds = now
            self._tell_broken(run, now)
            return
        try:
            if isinstance(launch, EngineLaunch):
                model = model_of(launch)
                start = start_of(self._start, model.weight_bytes, present)
                boards, milli = self._boards(run, launch)
                engine = engine_of(launch, self._engine)
                engine = msgspec.structs.replace(engine, gpu_milli=milli) if milli else engine
                self._machine.start_engine(run.key, model, engine, boards, start)
            elif isinstance(launch, RankLaunch):
                run.member = self._members[run.key] = Member(
                    run.key, self._machine, launch, run.pod.metadata.uid
                )
                self._machine.start_process(run.key, rank_start_of(self._start, present))
            else:
                # Somebody else's pod: it holds its devices and does nothing that is modelled.
                self._up(run, now)
        except ValueError as error:
            self._end(run, Verdict("Failed", "CannotStart", str(error)), now)

    def _tell_broken(self, run: Run, now: float) -> None:
        """A container whose image never runs: how far it has got with that."""
        image = _image(run.pod)
        report = told_of(self._start.broken_images[image], image, run.admitted_seconds, now)
        if report != msgspec.structs.replace(run.report, closed_gates=()):
            self._say(run, report, now)

    def _keep(self, pod: Pod, launch: Launch | None, state: State, report: Report, now: float) -> Run:
        run = self.runs[pod.metadata.key] = Run(pod, launch, state, report, now, held_since_seconds=now)
        self.dirty.add(run.key)
        self._rows = None
        return run

    def _say(self, run: Run, report: Report, now: float) -> None:
        if report.phase != run.report.phase or report.reason != run.report.reason:
            run.since_seconds = now
        run.report = msgspec.structs.replace(report, closed_gates=tuple(run.pod.closed_gates))
        self.dirty.add(run.key)
        self._rows = None

    def _up(self, run: Run, now: float) -> None:
        """The start is over: an engine serves, ranks go to their rendezvous."""
        run.state = State.SERVING
        started = run.report.started_seconds or now
        served = isinstance(run.launch, EngineLaunch)
        self._say(
            run,
            Report(
                "Running", "", "", ready=True, served=served, started_seconds=started, ready_since_seconds=now
            ),
            now,
        )
        if served:
            self._host.add(run.key, self._machine.adapter(run.key))
        if run.member is not None:
            self._busy.add(run.key)
            verdict = self._gangs.join(run.member, now)
            if verdict is not None:
                self._end(run, verdict, now)

    def _ask_to_stop(self, run: Run, now: float) -> None:
        """Deletion was asked for; a second, shorter grace shortens the first."""
        if run.state is State.ENDED:
            run.gone = True
            self.dirty.add(run.key)
            return
        grace = run.pod.metadata.deletion_grace_period_seconds or 0
        deadline = now + grace
        if run.state is State.STOPPING:
            run.deadline_seconds = min(run.deadline_seconds, deadline)
            return
        serving = run.state is State.SERVING and isinstance(run.launch, EngineLaunch)
        run.state, run.deadline_seconds = State.STOPPING, deadline
        self._rows = None
        self._busy.add(run.key)
        if serving:
            self._host.set_ready(run.key, False)
            self._machine.physics.drain(run.key)
        else:
            self._stop(run, now)

    def _stop(self, run: Run, now: float) -> None:
        """Kill what runs; only the object is left to be removed."""
        self._halt(run, now, "the engine was stopped")
        run.state, run.gone = State.ENDED, True
        self.dirty.add(run.key)

    def _end(self, run: Run, verdict: Verdict, now: float) -> None:
        """The containers ended by themselves."""
        self._halt(run, now, verdict.message)
        run.state, run.gone = State.ENDED, run.pod.deleted
        started = run.report.started_seconds
        self._say(run, Report(verdict.phase, verdict.reason, verdict.message, started_seconds=started), now)

    def _halt(self, run: Run, now: float, why: str) -> None:
        self._busy.discard(run.key)
        self._rows = None
        if run.key in self._held:  # nothing of it ever ran
            self._held.discard(run.key)
            return
        if isinstance(run.launch, EngineLaunch):
            if run.key in self._host.engines():
                self._host.remove(run.key, now, why)
            self._machine.stop_engine(run.key)
        if run.member is not None:
            self._machine.stop_process(run.key)
            self._gangs.leave(run.member, now, why)

    def _drop(self, run: Run, now: float) -> None:
        """Its object is gone: whatever still runs is killed, and nothing is written."""
        if run.state is not State.ENDED:
            self._halt(run, now, "its pod was removed")
        del self.runs[run.key]
        self.dirty.discard(run.key)
        self._members.pop(run.key, None)
        self._rows = None


def _image(pod: Pod) -> str:
    return pod.spec.containers[0].image if pod.spec.containers else ""


def _row(run: Run) -> ReplicaState:
    """A replica's pod in the words of SEAMS §9."""
    failed = run.report.phase == "Failed"
    phase = {
        State.HELD: "starting",
        State.STARTING: "starting",
        State.SERVING: "ready",
        State.STOPPING: "stopping",
        State.ENDED: "failed" if failed else "gone",
    }[run.state]
    return ReplicaState(
        name=run.key,
        uid=run.pod.metadata.uid,
        phase=phase,
        stage=run.report.reason if run.state in {State.HELD, State.STARTING} else "",
        phase_since_seconds=run.since_seconds,
        fault=run.report.message if failed else "",
    )

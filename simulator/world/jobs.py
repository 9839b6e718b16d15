"""Training jobs: iterations whose gradients go over the NICs that serving uses, checkpoints, faults and restarts.

The physics is the fleet's `Gang`. Its exchange is a transfer over the NICs of all members at once (`Roads.ring`): as many bytes
out of each and into each as a ring all-reduce moves, at the pace of the slowest, and the latency of its messages after that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from simulator.physics.network import ALPHA_SECONDS
from simulator.physics.node import gang_shares
from simulator.physics.power import PhaseShares
from simulator.physics.rendezvous import CheckpointVault
from simulator.physics.training import Gang, GangNode, GangPhase
from simulator.world.core import Event
from simulator.world.machines import Machine, Machines
from simulator.world.parts import Training


class Job:
    """One job and its present attempt. `spent` are seconds by phase, `lost_steps` those that were computed twice.

    `ended` is when it was done, or (`given_up`) failed for the last time.
    """

    __slots__ = ("attempt", "ended", "failures", "gang", "given_up", "gpus", "lost_steps", "ring", "scheduled", "since",
                 "spec", "spent", "waits")  # fmt: skip

    def __init__(self, spec: Training, machines: Machines) -> None:
        self.spec = spec
        self.gpus = {
            node: machines.found(node, spec.gpu).take(f"job {spec.name}", spec.gpus) for node in spec.nodes
        }
        self.gang: Gang | None = None
        self.attempt = self.failures = self.lost_steps = 0
        self.spent = dict.fromkeys(GangPhase, 0.0)
        self.since = 0.0
        self.scheduled = self.ended = math.inf
        self.given_up = self.waits = False
        self.ring = ""

    @property
    def steps(self) -> int:
        """Iterations that are done and not lost."""
        if self.gang is None:
            return 0
        return self.gang.checkpoint_step if self.gang.phase is GangPhase.FAILED else self.gang.step

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.ended < math.inf


class Jobs:
    """The training jobs of a world, and where their checkpoints lie."""

    __slots__ = ("jobs", "vault")

    def __init__(self, specs: Iterable[Training], machines: Machines) -> None:
        self.vault = CheckpointVault()
        self.jobs = [Job(spec, machines) for spec in specs]

    @property
    def awaited(self) -> bool:
        """Whether a job is under way that the world waits for."""
        return any(job.spec.awaited and not job.over for job in self.jobs)

    def shares(self, node: str, since: float, until: float, _world: Any) -> Iterator[tuple[PhaseShares, int]]:
        """What the ranks on a node did in an interval, and on how many GPUs."""
        for job in self.jobs:
            if job.gang is not None and node in job.gpus:
                yield gang_shares(job.gang, since, until), len(job.gpus[node])

    def paced(self, node: str, clock: float, at_seconds: float, _world: Any) -> list[Event]:
        """The clock of a node's training changes."""
        events: list[Event] = []
        for job in self.jobs:
            if job.gang is not None and node in job.gpus and not job.gang.over:
                job.gang.set_speed(node, clock, 1.0, at_seconds)
                events += _look(job)
        return events

    def broke(self, at_seconds: float, machine: Machine, gpus: Iterable[int], world: Any) -> list[Event]:
        """GPUs of a node are lost: attempts that have ranks on them fail."""
        lost = set(gpus)
        events: list[Event] = []
        for job in self.jobs:
            gang = job.gang
            if gang is None or gang.over or lost.isdisjoint(job.gpus.get(machine.name, ())):
                continue
            _live(at_seconds, job)
            if not gang.over:
                gang.fail(at_seconds, machine.name)
            events += _over(at_seconds, job, world)
        return events

    def repaired(self, at_seconds: float, machine: Machine, world: Any) -> list[Event]:
        """A node or GPU is sound again: jobs that waited for it may be able to go on."""
        events: list[Event] = []
        for job in self.jobs:
            if job.waits and machine.name in job.gpus and _sound(job, world):
                job.waits = False
                events.append((at_seconds + job.spec.restart_seconds, begin, job))
        return events


def begin(at_seconds: float, subject: Job, world: Any) -> Iterable[Event]:
    """The next attempt of a job starts, from its last checkpoint where there is one."""
    job, spec = subject, subject.spec
    if not _sound(job, world):
        job.waits = True
        return ()
    job.attempt += 1
    nodes = {node: GangNode(spec.gpu, spec.gpus, spec.nic) for node in spec.nodes}
    job.gang = Gang(spec.name, job.attempt, spec.spec, nodes, world.jobs.vault, at_seconds, carried=True)
    job.since = at_seconds
    if world.drawing is not None:
        for node in spec.nodes:
            clock = world.drawing.draws[node].held.training_clock
            if clock < 1.0:
                job.gang.set_speed(node, clock, 1.0, at_seconds)
    return _look(job)


def turn(at_seconds: float, subject: tuple[Job, int], world: Any) -> Iterable[Event]:
    """A phase of an attempt ends, or its pace changes."""
    job, attempt = subject
    if job.attempt != attempt or job.scheduled != at_seconds:
        return ()
    job.scheduled = math.inf
    _live(at_seconds, job)
    return _goes_on(at_seconds, job, world)


def rung(at_seconds: float, subject: tuple[Job, int], _world: Any) -> Iterable[Event]:
    """All bytes of an exchange have moved; the messages' latency comes on top."""
    spec = subject[0].spec
    messages = 2.0 * (len(spec.nodes) - 1) * (1.0 - spec.spec.overlap)
    return ((at_seconds + messages * ALPHA_SECONDS[spec.nic.nic], exchanged, subject),)


def exchanged(at_seconds: float, subject: tuple[Job, int], world: Any) -> Iterable[Event]:
    """The gradients of an iteration are exchanged: the next one begins, or a checkpoint is written."""
    job, attempt = subject
    if job.gang is None or job.attempt != attempt or job.gang.over:
        return ()
    _live(at_seconds, job)
    job.ring = ""
    job.gang.exchanged(at_seconds)
    return _goes_on(at_seconds, job, world)


def _live(at: float, job: Job) -> None:
    """Let the attempt live up to now; what it did until then was its phase before."""
    gang = job.gang
    if gang is None:
        return
    job.spent[gang.phase] += at - job.since
    job.since = at
    for node in job.spec.nodes:
        gang.advance_node(node, at)


def _goes_on(at: float, job: Job, world: Any) -> list[Event]:
    gang = job.gang
    if gang is None:
        return []
    if gang.over:
        return _over(at, job, world)
    events: list[Event] = []
    if gang.phase is GangPhase.EXCHANGE and not job.ring:
        members, spec = len(job.spec.nodes), job.spec.spec
        size = 2.0 * (members - 1) / members * 2.0 * spec.parameters * (1.0 - spec.overlap)
        job.ring = f"gradients of {job.spec.name}.{job.attempt}.{gang.step}"
        events += world.wires.ring(at, list(job.gpus.items()), job.ring, size, rung, (job, job.attempt))
    return events + _look(job)


def _look(job: Job) -> list[Event]:
    at = job.scheduled = job.gang.next_event_seconds() if job.gang is not None else math.inf
    return [(at, turn, (job, job.attempt))] if at < math.inf else []


def _over(at: float, job: Job, world: Any) -> list[Event]:
    """An attempt ended: well, for the last time, or another one follows from the last checkpoint."""
    gang = job.gang
    events: list[Event] = []
    job.scheduled = math.inf
    if job.ring:
        events += world.wires.stop(at, job.ring)
        job.ring = ""
    if gang is None or gang.phase is GangPhase.DONE:
        job.ended = at
        return events
    job.failures += 1
    job.lost_steps += gang.step - gang.checkpoint_step
    if job.failures > job.spec.restart_limit:
        job.ended, job.given_up = at, True
    elif _sound(job, world):
        events.append((at + job.spec.restart_seconds, begin, job))
    else:
        job.waits = True
    return events


def _sound(job: Job, world: Any) -> bool:
    return all(world.machines.by_name[node].sound(gpus) for node, gpus in job.gpus.items())

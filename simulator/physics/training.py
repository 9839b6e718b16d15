"""Physics of a training gang: iterations, exchange of gradients, checkpoints, the slowest rank.

One iteration of a data-parallel gang on whole nodes::

    compute  = 8 parameters tokens / (GPUs flops 0.766) / min over nodes of (speed clock^0.4)
    exchange = (1 - overlap) allreduce(2 parameters bytes)         among the nodes, over their common network

8 FLOPs per parameter and token are forward, backward and recomputed forward (training-placement.md §1.3); 0.766
is Holmes's fitted 239 TFLOP/s of an A100's 312 (§4.2). With tensor parallelism inside the node, its GPUs share
the node's NICs and each exchanges its own shard, so the bytes of the whole model cross each node's network once.
The clock exponent 0.4 is POLCA's "20 % less power for 10 % more time" in training (power.md §1.3).

A `Gang` starts with a restore where there is a checkpoint, then runs iterations; at the first iteration boundary
after each interval it stops to write a checkpoint. The gang moves as one: it lives up to the least time that all
of its nodes have reached, so no order of advancing the nodes changes what happens. Readings go some seconds back
(`progress_at`), for a node that must report before the others have moved.

Where the gradients meet other traffic on the NICs, whoever knows that traffic carries them: the EXCHANGE of such a gang lasts
until it is told `exchanged`.
"""

import enum
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec

from simulator.physics.network import NicSpec, allreduce_seconds
from simulator.physics.rendezvous import CheckpointVault
from simulator.physics.specs import GpuSpec, check_positive

HISTORY_SECONDS: Final = 120.0
"""How far back `Gang.progress_at` can look."""


class TrainingSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a job computes. ``tokens_per_step`` is global batch times sequence length.

    ``checkpoint_seconds`` is how long writing one holds the gang up, ``restore_seconds`` how long a start from one
    takes. ValueError when a figure is not positive (the last two, ``overlap`` and ``start_seconds`` may be 0).
    """

    parameters: float
    tokens_per_step: float
    steps: int
    checkpoint_interval_seconds: float = 600.0
    checkpoint_seconds: float = 30.0
    restore_seconds: float = 60.0
    start_seconds: float = 20.0
    overlap: float = 0.0
    flops_per_parameter_token: float = 8.0
    compute_fraction: float = 0.766
    clock_exponent: float = 0.4

    def __post_init__(self) -> None:
        names = ("parameters", "tokens_per_step", "steps", "checkpoint_interval_seconds")
        check_positive("a training job", self, (*names, "flops_per_parameter_token", "compute_fraction"))
        for name in ("checkpoint_seconds", "restore_seconds", "start_seconds"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"{name} of a training job is {getattr(self, name)}; it cannot be negative")
        if not 0.0 <= self.overlap <= 1.0:
            raise ValueError(f"overlap of a training job is {self.overlap}; it is a fraction from 0 to 1")


class GangNode(msgspec.Struct, frozen=True, gc=False):
    """What one node brings into a gang: ``gpus`` GPUs of one product, and its NICs."""

    gpu: GpuSpec
    gpus: int
    nic: NicSpec


class GangPhase(enum.Enum):
    """What the gang does. ``EXCHANGE`` is the part of the gradients' exchange that compute does not hide."""

    STARTING = "starting"
    RESTORING = "restoring"
    COMPUTE = "compute"
    EXCHANGE = "exchange"
    CHECKPOINT = "checkpoint"
    DONE = "done"
    FAILED = "failed"


_OVER: Final = (GangPhase.DONE, GangPhase.FAILED)


class GangProgress(msgspec.Struct, frozen=True, gc=False):
    """State of a gang from ``at_seconds`` on."""

    at_seconds: float
    phase: GangPhase
    step: int
    checkpoint_step: int
    step_seconds: float


def compute_seconds(spec: TrainingSpec, nodes: Mapping[str, GangNode]) -> float:
    """Seconds of arithmetic of one iteration at full clock and speed; the slowest GPU product paces all."""
    gpus = sum(node.gpus for node in nodes.values())
    slowest = min(node.gpu.flops_per_second for node in nodes.values())
    flops = spec.flops_per_parameter_token * spec.parameters * spec.tokens_per_step
    return flops / (gpus * slowest * spec.compute_fraction)


def exchange_seconds(spec: TrainingSpec, nodes: Mapping[str, GangNode]) -> float:
    """Seconds by which the exchange of 16-bit gradients prolongs one iteration."""
    nics = [nodes[name].nic for name in sorted(nodes)]
    return (1.0 - spec.overlap) * allreduce_seconds(2.0 * spec.parameters, nics)


class Gang:
    """One attempt of a training job on ``nodes``, from the moment its ranks have met.

    It opens ``vault`` for its attempt: what older attempts still write is refused. With ``carried`` somebody else moves the
    gradients and says `exchanged`. ValueError without nodes, or when a newer attempt was opened before.
    """

    __slots__ = (
        "_began", "_exchange", "_fails_at", "_full_compute", "_history", "_last_saved", "_members", "_pace", "_rates", "_step_began",
        "_until", "_vault", "_work", "attempt", "checkpoint_step", "job_uid", "now", "phase", "spec", "step",
        "step_seconds",
    )  # fmt: skip

    def __init__(
        self,
        job_uid: str,
        attempt: int,
        spec: TrainingSpec,
        nodes: Mapping[str, GangNode],
        vault: CheckpointVault,
        started_seconds: float,
        carried: bool = False,
    ) -> None:
        if not nodes:
            raise ValueError(f"gang of job {job_uid} has no nodes; it needs at least one")
        saved = vault.open(job_uid, attempt)
        self.job_uid, self.attempt, self.spec, self._vault = job_uid, attempt, spec, vault
        self._full_compute, self._exchange = compute_seconds(spec, nodes), exchange_seconds(spec, nodes)
        if carried and self._exchange:
            self._exchange = math.inf
        self._members = dict.fromkeys(sorted(nodes), started_seconds)
        self._rates = dict.fromkeys(self._members, 1.0)
        self._pace: deque[tuple[float, str, float]] = deque()
        self.step = self.checkpoint_step = saved.step if saved else 0
        self.step_seconds = 0.0
        self.now = self._last_saved = self._step_began = started_seconds
        self.phase, self._began, self._until, self._work = GangPhase.STARTING, started_seconds, math.inf, 0.0
        self._fails_at = math.inf
        self._history: deque[GangProgress] = deque()
        self._enter(GangPhase.STARTING, spec.start_seconds)

    # ------------------------------------------------------------------------------------------------ the nodes

    def set_speed(self, node: str, clock: float, speed: float, at_seconds: float) -> None:
        """``node`` runs at this clock fraction and speed factor from ``at_seconds`` on (not before its own time)."""
        if clock <= 0.0 or speed <= 0.0:
            raise ValueError(
                f"clock {clock} and speed {speed} of node {node} must both be positive fractions"
            )
        at = max(at_seconds, self._members[node])
        change = (at, node, speed * clock**self.spec.clock_exponent)
        later = [entry for entry in self._pace if entry[0] > at]
        self._pace = deque([entry for entry in self._pace if entry[0] <= at] + [change] + later)

    def advance_node(self, node: str, until_seconds: float) -> None:
        """``node`` has lived up to ``until_seconds``; the gang follows to where all of its nodes are."""
        self._members[node] = max(self._members[node], until_seconds)
        self._advance_to(min(self._members.values()))

    def fail(self, at_seconds: float, node: str | None = None) -> None:
        """A rank is lost at ``at_seconds``: what the gang did until then stands, nothing more is saved.

        ``node`` died with it, so the others no longer wait for its time.
        """
        if node is not None:
            self._members[node] = math.inf
        self._fails_at = min(self._fails_at, max(at_seconds, self.now))
        self._advance_to(min(self._members.values()))

    def exchanged(self, at_seconds: float) -> None:
        """The gradients have been exchanged, now; what an attempt that is over hears of it changes nothing.

        ValueError when nobody waits for it.
        """
        self._advance_to(at_seconds)
        if self.over:
            return
        if self.phase is not GangPhase.EXCHANGE or self._until < math.inf:
            raise ValueError(
                f"gang of job {self.job_uid} is in {self.phase.value}, and waits for no gradients"
            )
        self._phase_over(at_seconds)

    # ---------------------------------------------------------------------------------------------- readings

    def next_event_seconds(self) -> float:
        """When the gang next changes by itself; infinity while others carry its gradients, and when it is over."""
        change = self._pace[0][0] if self._pace else math.inf
        return math.inf if self.over else min(change, self._until)

    @property
    def over(self) -> bool:
        """Whether the attempt ended, well or badly."""
        return self.phase in _OVER

    @property
    def rate(self) -> float:
        """Speed of the slowest node, clock included; 1 at full speed."""
        return min(self._rates.values())

    def progress_at(self, at_seconds: float) -> GangProgress:
        """State at a second that lies at most ``HISTORY_SECONDS`` back; the oldest known before that."""
        index = bisect_right(self._history, at_seconds, key=lambda entry: entry.at_seconds)
        return self._history[max(index - 1, 0)]

    def shares(self, from_seconds: float, until_seconds: float) -> dict[GangPhase, float]:
        """Fractions of an interval spent in each phase; they add up to 1. ValueError for an empty interval."""
        if until_seconds <= from_seconds:
            raise ValueError(f"the interval from {from_seconds} to {until_seconds} s is empty")
        spent: dict[GangPhase, float] = {}
        index = max(bisect_right(self._history, from_seconds, key=lambda entry: entry.at_seconds) - 1, 0)
        at = from_seconds
        while at < until_seconds:
            entry = self._history[index]
            last = index + 1 == len(self._history)
            end = until_seconds if last else min(self._history[index + 1].at_seconds, until_seconds)
            if end > at:
                spent[entry.phase] = spent.get(entry.phase, 0.0) + end - at
            at, index = max(at, end), index + 1
        return {phase: seconds / (until_seconds - from_seconds) for phase, seconds in spent.items()}

    # ----------------------------------------------------------------------------------------------- details

    def _advance_to(self, until: float) -> None:
        until = min(until, self._fails_at)
        while not self.over:
            change = self._pace[0][0] if self._pace else math.inf
            if min(change, self._until) > until:
                break
            if change <= self._until:
                at, node, rate = self._pace.popleft()
                self._rates[node] = rate
                self._rebase(max(at, self._began))
            else:
                self._phase_over(self._until)
        self.now = max(self.now, until)
        if self.now >= self._fails_at and not self.over:
            self._enter(GangPhase.FAILED, math.inf)

    def _phase_over(self, at: float) -> None:
        self.now = at
        if self.phase is GangPhase.STARTING and self.step:
            self._enter(GangPhase.RESTORING, self.spec.restore_seconds)
        elif self.phase is GangPhase.COMPUTE and self._exchange:
            self._enter(GangPhase.EXCHANGE, self._exchange)
        elif self.phase in {GangPhase.COMPUTE, GangPhase.EXCHANGE}:
            self.step += 1
            self.step_seconds = at - self._step_began
            self._between_steps(at)
        else:
            if self.phase is GangPhase.CHECKPOINT:
                self._saved(at)
            self._last_saved = at
            self._next_step(at)

    def _between_steps(self, at: float) -> None:
        if self.step >= self.spec.steps:
            self._enter(GangPhase.DONE, math.inf)
        elif at - self._last_saved >= self.spec.checkpoint_interval_seconds:
            self._enter(GangPhase.CHECKPOINT, self.spec.checkpoint_seconds)
        else:
            self._next_step(at)

    def _next_step(self, at: float) -> None:
        if self.step >= self.spec.steps:
            self._enter(GangPhase.DONE, math.inf)
            return
        self._step_began = at
        self._enter(GangPhase.COMPUTE, self._full_compute)

    def _saved(self, at: float) -> None:
        if self._vault.save(self.job_uid, self.attempt, self.step, at):
            self.checkpoint_step = self.step

    def _enter(self, phase: GangPhase, work_seconds: float) -> None:
        """Start a phase now that takes ``work_seconds`` at full speed."""
        self.phase, self._began, self._work = phase, self.now, work_seconds
        self._until = self.now + work_seconds / self._phase_rate()
        progress = GangProgress(self.now, phase, self.step, self.checkpoint_step, self.step_seconds)
        self._history.append(progress)
        while len(self._history) > 2 and self._history[1].at_seconds < self.now - HISTORY_SECONDS:
            self._history.popleft()

    def _rebase(self, at: float) -> None:
        """The speed changed at ``at``: what is left of a compute phase goes on at the new one."""
        if self.phase is not GangPhase.COMPUTE:
            return
        left = (
            self._work * (self._until - at) / (self._until - self._began)
            if self._until > self._began
            else 0.0
        )
        self._began, self._work = at, left
        self._until = at + left / self.rate

    def _phase_rate(self) -> float:
        return self.rate if self.phase is GangPhase.COMPUTE else 1.0

"""A simulated GPU server: engines that start, serve and die, ranks of gangs, caps with their lease, power.

`NodePhysics` composes the other machines of this package and lives through time event by event. It knows nothing
of agents, pods or gateways: the fleet and the discrete-event simulator drive it with the same calls.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from simulator.physics.clocks import LaggedSetting
from simulator.physics.engine import EngineInstance
from simulator.physics.failures import Failure, FailureKind
from simulator.physics.loading import Loader, Stage, StartSpec
from simulator.physics.meter import GpuMeter, GpuReading
from simulator.physics.power import GpuPower, HeldPower, PhaseShares, gpu_cap_watts, server_watts
from simulator.physics.sequence import EngineEvent, EnginePhases, EventKind, Refusal, refuse_stopped
from simulator.physics.server import NodeAdvance, NodeReading, NodeSpec, PowerState
from simulator.physics.sharing import WHOLE, part_of, together
from simulator.physics.specs import EngineSpec, ModelSpec
from simulator.physics.training import Gang, GangNode, GangPhase

GANG_LAG_SECONDS: Final = 1.0
"""A node shows what its gangs did this long ago: the others of a gang may not have lived further yet. Real power
sensors average over about as long (research/power.md §4)."""

_NOTHING: Final = PhaseShares()
_DEAD: Final = GpuReading(0.0, 0.0, 0.0, 0.0, 0.0)


class _Replica:
    """A replica on this node: starting (no engine) or serving."""

    __slots__ = ("engine", "engine_spec", "gpus", "model", "phases")

    def __init__(self, model: ModelSpec, engine_spec: EngineSpec, gpus: tuple[int, ...]) -> None:
        self.model = model
        self.engine_spec = engine_spec
        self.gpus = gpus
        self.engine: EngineInstance | None = None
        self.phases: EnginePhases | None = None


class NodePhysics:
    """One server from ``started_seconds`` on; ``rng`` draws the jitter of starts."""

    def __init__(self, spec: NodeSpec, rng: np.random.Generator, started_seconds: float = 0.0) -> None:
        self.spec = spec
        self.now = self._settled = started_seconds
        self.alive, self.hung = True, False
        self.broken: dict[int, str] = {}
        self._gpu_power = GpuPower(spec.gpu, spec.power)
        self._free: HeldPower = self._gpu_power.held()
        self._loader = Loader(rng, started_seconds, spec.tier_bytes_per_second)
        self._replicas: dict[str, _Replica] = {}
        self._gangs: dict[str, tuple[Gang, tuple[int, ...]]] = {}
        self._meters = [GpuMeter(spec.gpu.idle_watts) for _ in range(spec.gpus)]
        self._owed: list[tuple[str, EngineEvent]] = []
        self._expires = math.inf
        self._setting = LaggedSetting(self._state_for(spec.safe_watts, 0), spec.actuation_seconds)
        self._held = self._hold()

    # ----------------------------------------------------------------------------------------------- serving

    def place(
        self,
        name: str,
        model: ModelSpec,
        engine: EngineSpec,
        gpus: tuple[int, ...],
        start: StartSpec | None = None,
    ) -> None:
        """Start a replica on these GPUs now; without ``start`` it is ready at once.

        ValueError when the name or a GPU is taken or broken, the count is not the tensor degree, or the weights do
        not fit.
        """
        if name in self._replicas:
            raise ValueError(f"replica {name} is already on node {self.spec.name}; remove it first")
        if len(gpus) != engine.tensor_parallel:
            raise ValueError(
                f"replica {name} got {len(gpus)} GPUs for a tensor parallel degree of {engine.tensor_parallel}"
            )
        self._check_gpus(name, gpus, engine.gpu_milli)
        gpu = part_of(self.spec.gpu, engine.gpu_milli)
        probe = EngineInstance(gpu, model, engine, self.now)  # refuses what cannot fit before the wait
        replica = self._replicas[name] = _Replica(model, engine, gpus)
        self._settle(self.now)
        if start is None:
            self._serve(replica, probe)
        else:
            self._loader.begin(name, start)

    def submit(
        self,
        name: str,
        request_id: int,
        prompt_tokens: int,
        output_tokens: int,
        arrived_seconds: float,
        priority: int = 0,
    ) -> Refusal | None:
        """Hand a request to a replica; refused where there is none that serves."""
        replica = self._replicas.get(name)
        if replica is None or replica.engine is None:
            return refuse_stopped(request_id, True)
        return replica.engine.submit(request_id, prompt_tokens, output_tokens, arrived_seconds, priority)

    def cancel(self, name: str, request_id: int) -> bool:
        """Drop a request of a replica; False when it does not have it."""
        engine = self.engine(name)
        return engine is not None and engine.cancel(request_id)

    def drain(self, name: str) -> None:
        """Let a replica take no more requests; a starting one is left alone."""
        engine = self.engine(name)
        if engine is not None:
            engine.drain()

    def remove(self, name: str) -> list[int]:
        """Take a replica off the node; its requests FAIL with the next `advance_to`. Returns their ids."""
        replica = self._replicas.get(name)
        if replica is None:
            return []
        self._settle(self.now)
        del self._replicas[name]
        self._loader.cancel(name)
        return self._end(name, replica)

    def engine(self, name: str) -> EngineInstance | None:
        """The engine of a serving replica; None while it starts or when it is not here."""
        replica = self._replicas.get(name)
        return replica.engine if replica else None

    def stage(self, name: str) -> Stage | None:
        """Stage of a replica's start, READY once it serves; None when it is not here."""
        replica = self._replicas.get(name)
        if replica is None:
            return None
        return Stage.READY if replica.engine else self._loader.stage(name)

    def replicas(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and GPUs of the replicas here, in order of placement."""
        return ((name, replica.gpus) for name, replica in self._replicas.items())

    # ---------------------------------------------------------------------------------------------- training

    def gang_node(self, gpus: int) -> GangNode:
        """What ``gpus`` GPUs of this node bring into a gang."""
        return GangNode(self.spec.gpu, gpus, self.spec.nic)

    def attach(self, gang: Gang, gpus: tuple[int, ...]) -> None:
        """Ranks of ``gang`` run on these GPUs from now on; ValueError when one is taken or broken."""
        self._check_gpus(f"a rank of job {gang.job_uid}", gpus)
        self._settle(self.now)
        self._gangs[gang.job_uid] = (gang, gpus)
        gang.set_speed(self.spec.name, self._held.training_clock, self.spec.speed, self.now)

    def detach(self, job_uid: str) -> None:
        """The ranks of a job leave this node (done, or stopped by their owner)."""
        self._settle(self.now)
        self._gangs.pop(job_uid, None)

    def gangs(self) -> Iterator[tuple[Gang, tuple[int, ...]]]:
        """Gangs with ranks here, and their GPUs."""
        return iter(self._gangs.values())

    # ------------------------------------------------------------------------------------------------- power

    def set_cap(self, watts: int, clock_mhz: int = 0, expires_seconds: float = math.inf) -> int:
        """Cap the server at ``watts`` (its base included) and every GPU at ``clock_mhz`` (0: free).

        At ``expires_seconds`` the node falls back to its safe cap by itself. Returns the server watts that the
        new limits allow; more than asked for where the GPUs' settable range ends above.
        """
        self._expires = expires_seconds
        state = self._state_for(watts, clock_mhz)
        if state != self._setting.target:
            self._setting.command(state, self.now)
        allowed = server_watts(state.gpu_cap_watts * self.spec.gpus, self.spec.gpus, self.spec.power)
        return math.ceil(allowed - 1e-9)

    def power_state(self) -> PowerState:
        """Limits in effect now (commands land ``actuation_seconds`` after they were given)."""
        return self._setting.value

    def read(self) -> NodeReading:
        """Sensors: means over the time since the last call."""
        state, spec = self._setting.value, self.spec
        if not self.alive:
            return NodeReading(self.now, 0.0, 0.0, state.gpu_cap_watts, state.clock_mhz, (_DEAD,) * spec.gpus)
        self._settle(self.now)
        gpus = tuple(meter.read() for meter in self._meters)
        return NodeReading(
            at_seconds=self.now,
            watts=server_watts(sum(gpu.watts for gpu in gpus), spec.gpus, spec.power),
            uncapped_watts=server_watts(sum(gpu.uncapped_watts for gpu in gpus), spec.gpus, spec.power),
            gpu_cap_watts=state.gpu_cap_watts,
            clock_mhz=state.clock_mhz,
            gpus=gpus,
        )

    # -------------------------------------------------------------------------------------------------- time

    def advance_to(self, until_seconds: float) -> NodeAdvance:
        """Live up to and including then, event by event; calling it again for the same second does nothing.

        A dead node has no events; on a hung one time passes and nothing else happens. ValueError for the past.
        """
        if until_seconds < self.now:
            raise ValueError(
                f"node {self.spec.name} is at {self.now} s and cannot go back to {until_seconds} s"
            )
        requests, stages = self._owed, []
        self._owed = []
        if not self.alive or self.hung:
            self.now = self._settled = until_seconds
            return NodeAdvance([], [])
        while (at := max(self._next_change(), self.now)) <= until_seconds:
            self._live(at, requests)
            for event in self._loader.advance_to(at):
                stages.append(event)
                if event.stage is Stage.READY:
                    self._settle(at)
                    self._serve(self._replicas[event.name], None)
            if self._expires <= at:
                self._expires = math.inf
                self._setting.command(self._state_for(self.spec.safe_watts, 0), at)
            self._land(at)
        self._live(until_seconds, requests)
        self._loader.advance_to(until_seconds)
        requests.sort(key=lambda entry: entry[1].at_seconds)
        return NodeAdvance(requests, stages)

    # ---------------------------------------------------------------------------------------------- failures

    def fail(self, failure: Failure) -> None:
        """Something breaks now: the node, one GPU with what runs on it, or everything stops without a word."""
        if failure.kind is FailureKind.NODE_CRASH:
            self.kill()
        elif failure.kind is FailureKind.HANG:
            self.hung = True  # its gangs stall: they wait for a time that never comes
        else:
            self.broken[failure.gpu] = f"Xid error at {failure.at_seconds:.3f} s"
            victims = [name for name, replica in self._replicas.items() if failure.gpu in replica.gpus]
            for name in victims:
                self.remove(name)
            self._fail_gangs([failure.gpu])

    def kill(self) -> dict[str, list[int]]:
        """The node dies now; returns the requests lost with each replica, of which no event tells."""
        self.alive = False
        lost = {name: self._end(name, replica) for name, replica in self._replicas.items()}
        for name in self._replicas:
            self._loader.cancel(name)
        self._replicas.clear()
        self._owed.clear()
        self._fail_gangs(range(self.spec.gpus))
        return lost

    # ----------------------------------------------------------------------------------------------- details

    def _next_change(self) -> float:
        return min(self._loader.next_event_seconds(), self._setting.next_event_seconds(), self._expires)

    def _live(self, until: float, requests: list[tuple[str, EngineEvent]]) -> None:
        for name, replica in self._replicas.items():
            if replica.engine is not None:
                requests.extend((name, event) for event in replica.engine.advance_to(until))
        for gang, _ in self._gangs.values():
            gang.advance_node(self.spec.name, until)
        self.now = until

    def _serve(self, replica: _Replica, engine: EngineInstance | None) -> None:
        spec = replica.engine_spec
        engine = engine or EngineInstance(
            part_of(self.spec.gpu, spec.gpu_milli), replica.model, spec, self.now
        )
        engine.set_speed(self._held.prefill_clock, self._held.decode_clock, self.spec.speed)
        replica.engine, replica.phases = engine, engine.phases()

    def _end(self, name: str, replica: _Replica) -> list[int]:
        engine = replica.engine
        if engine is None:
            return []
        for request_id in engine.request_ids():
            tokens = engine.generated_tokens(request_id)
            self._owed.append((name, EngineEvent(self.now, EventKind.FAILED, request_id, tokens)))
        return engine.kill()

    def _fail_gangs(self, gpus: Iterable[int]) -> None:
        broken = set(gpus)
        for gang, used in self._gangs.values():
            if broken.intersection(used):
                gang.fail(self.now, self.spec.name)

    def _check_gpus(self, what: str, gpus: tuple[int, ...], milli: int = WHOLE) -> None:
        taken: dict[int, str] = {}
        left = dict.fromkeys(gpus, WHOLE - milli)
        for name, replica in self._replicas.items():
            for index in replica.gpus:
                left[index] = left.get(index, 0) - replica.engine_spec.gpu_milli
                if left[index] < 0:
                    taken[index] = name
        taken |= {index: f"job {uid}" for uid, (_, used) in self._gangs.items() for index in used}
        for index in gpus:
            where = f"GPU {index} of node {self.spec.name}"
            if not 0 <= index < self.spec.gpus:
                raise ValueError(f"{what} asks for {where}, which has GPUs 0 to {self.spec.gpus - 1}")
            if index in taken:
                raise ValueError(f"{what} asks for {where}, which {taken[index]} holds; remove that first")
            if index in self.broken:
                raise ValueError(f"{what} asks for {where}, which is broken: {self.broken[index]}")

    def _state_for(self, watts: int, clock_mhz: int) -> PowerState:
        spec = self.spec
        cap = gpu_cap_watts(spec.gpu, watts, spec.gpus, spec.power) if watts else spec.gpu.max_watts
        return PowerState(cap, clock_mhz)

    def _hold(self) -> HeldPower:
        state = self._setting.value
        return self._gpu_power.held(state.gpu_cap_watts, state.clock_mhz or None)

    def _land(self, at: float) -> None:
        """Let commands due by now take effect on everything that runs here."""
        if self._setting.next_event_seconds() > at:
            return
        self._settle(at)
        if not self._setting.advance_to(at):
            return
        self._held = held = self._hold()
        for replica in self._replicas.values():
            if replica.engine is not None:
                replica.engine.set_speed(held.prefill_clock, held.decode_clock, self.spec.speed)
        for gang, _ in self._gangs.values():
            gang.set_speed(self.spec.name, held.training_clock, self.spec.speed, at)

    def _settle(self, at: float) -> None:
        """Book the power of the time since the last call, under the limits that held in it."""
        seconds = at - self._settled
        if seconds <= 0.0:
            return
        work: dict[int, PhaseShares] = {}
        parts: dict[int, list[tuple[int, PhaseShares]]] = {}
        for replica in self._replicas.values():
            if replica.engine is not None:
                shares, milli = self._engine_shares(replica, seconds), replica.engine_spec.gpu_milli
                if milli == WHOLE:
                    work.update(dict.fromkeys(replica.gpus, shares))
                else:
                    parts.setdefault(replica.gpus[0], []).append((milli, shares))
        work.update((index, together(found)) for index, found in parts.items())
        for gang, gpus in self._gangs.values():
            shares = gang_shares(gang, self._settled - GANG_LAG_SECONDS, at - GANG_LAG_SECONDS)
            work.update(dict.fromkeys(gpus, shares))
        self._settled = at
        held, free = self._held, self._free
        for index, meter in enumerate(self._meters):
            shares = work.get(index, _NOTHING)
            busy = 1.0 - shares.idle
            meter.add(
                seconds, held.mean_watts(shares), free.mean_watts(shares), held.mean_clock(shares), busy
            )

    def _engine_shares(self, replica: _Replica, seconds: float) -> PhaseShares:
        before, now = replica.phases, replica.engine.phases() if replica.engine else None
        if before is None or now is None:
            return _NOTHING
        replica.phases = now
        decode = now.decode_seconds - before.decode_seconds
        compute = now.decode_compute_seconds - before.decode_compute_seconds
        return PhaseShares(
            prefill=(now.prefill_seconds - before.prefill_seconds) / seconds,
            decode=decode / seconds,
            decode_compute=compute / decode if decode > 0.0 else 0.0,
        )


def gang_shares(gang: Gang, since: float, until: float) -> PhaseShares:
    """What a gang's GPUs did in an interval, as power sees it: exchange and checkpoints are the dip at a boundary."""
    spent = gang.shares(since, until)
    boundary = spent.get(GangPhase.EXCHANGE, 0.0) + spent.get(GangPhase.CHECKPOINT, 0.0)
    return PhaseShares(training=spent.get(GangPhase.COMPUTE, 0.0), boundary=boundary)

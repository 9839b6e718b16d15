"""Power of GPUs and servers from what they do, and the clock that a power limit leaves.

A GPU draws, in a phase at clock f (a fraction of the maximum)::

    idle                                                     nothing runs
    idle + (prefill_fraction TDP - idle) f^1.12              prompt tokens
    idle + (decode_fraction TDP - idle) f^0.91               decode; the fraction rises with arithmetic intensity
    idle + (training_fraction TDP - idle) f^1.12             an iteration of training, dips at its boundary

Prefill at TDP and decode at 0.65 TDP: research/power.md §1.3. The exponents make the published multipliers of
1110 against 1410 MHz on an A100 (0.80 for prefill, 0.85 for decode, power.md §6) come out. A power limit is
enforced by the clock: the highest of the ladder at which the phase draws no more than the limit, so it bites in
prefill long before decode. A server draws ``0.87 kW`` per eight GPUs plus 1.28 times its GPUs (power.md §6).
"""

import enum
import math

import msgspec

from simulator.physics.clocks import snap_mhz
from simulator.physics.measured import MeasuredPower
from simulator.physics.specs import GpuSpec


class Phase(enum.Enum):
    """What a GPU is doing, as far as its power knows."""

    IDLE = "idle"
    PREFILL = "prefill"
    DECODE = "decode"
    TRAINING = "training"
    BOUNDARY = "boundary"


class PowerConstants(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Fractions of TDP, clock exponents and server overhead; sources in the module's docstring.

    ``decode_compute_fraction`` is what decode adds on top of ``decode_fraction`` when its arithmetic would keep the
    compute units busy all the time: ML.ENERGY's H100 runs go from 0.61 TDP at batch 8 to 0.86 at batch 192
    (power.md §2). ``boundary_fraction`` is the dip at the end of a training iteration, 0.5 for GPT-NeoX (§1.3).
    """

    prefill_fraction: float = 1.0
    decode_fraction: float = 0.65
    decode_compute_fraction: float = 0.35
    training_fraction: float = 0.95
    boundary_fraction: float = 0.50
    compute_exponent: float = 1.12
    memory_exponent: float = 0.91
    server_base_watts_per_gpu: float = 870.0 / 8.0
    server_watts_per_gpu_watt: float = 1.28


class PhaseShares(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Fractions of an interval spent in each phase; the rest of 1 is idle.

    ``decode_compute`` is the fraction of the decode time in which arithmetic would be busy.
    """

    prefill: float = 0.0
    decode: float = 0.0
    decode_compute: float = 0.0
    training: float = 0.0
    boundary: float = 0.0

    @property
    def idle(self) -> float:
        """Fraction in which nothing ran."""
        return max(0.0, 1.0 - self.prefill - self.decode - self.training - self.boundary)


DEFAULT_POWER = PowerConstants()


def constants_of(measured: MeasuredPower | None) -> PowerConstants:
    """Constants with the fractions that were measured; the usual ones where nothing was.

    What measured decode draws beyond its fraction as its batch grows, and how power follows the clock, stays as usual.
    """
    if measured is None:
        return DEFAULT_POWER
    return msgspec.structs.replace(
        DEFAULT_POWER,
        prefill_fraction=measured.prefill_fraction,
        decode_fraction=measured.decode_fraction,
    )


class GpuPower:
    """Power of one GPU of product ``gpu``; no state of its own."""

    __slots__ = ("_exponents", "_fractions", "constants", "gpu")

    def __init__(self, gpu: GpuSpec, constants: PowerConstants = DEFAULT_POWER) -> None:
        self.gpu = gpu
        self.constants = constants
        self._fractions = {
            Phase.PREFILL: constants.prefill_fraction,
            Phase.DECODE: constants.decode_fraction,
            Phase.TRAINING: constants.training_fraction,
            Phase.BOUNDARY: constants.boundary_fraction,
        }
        self._exponents = {
            Phase.PREFILL: constants.compute_exponent,
            Phase.DECODE: constants.memory_exponent,
            Phase.TRAINING: constants.compute_exponent,
            Phase.BOUNDARY: constants.memory_exponent,
        }

    def watts(self, phase: Phase, clock: float = 1.0, compute_share: float = 0.0) -> float:
        """Watts in ``phase`` at ``clock`` (fraction of the maximum), without any limit.

        ``compute_share`` (0 to 1) only matters to decode.
        """
        idle = float(self.gpu.idle_watts)
        if phase is Phase.IDLE:
            return idle
        fraction = self._fractions[phase]
        if phase is Phase.DECODE:
            fraction += self.constants.decode_compute_fraction * min(max(compute_share, 0.0), 1.0)
        full = min(fraction * self.gpu.tdp_watts, float(self.gpu.max_watts))
        return idle + max(full - idle, 0.0) * math.pow(clock, self._exponents[phase])

    def clock_under(self, phase: Phase, cap_watts: float, lock_mhz: int | None = None) -> float:
        """Fraction of the maximum clock that ``phase`` runs at under a power limit and a clock lock.

        The inverse of `watts`, rounded down to the ladder; never below the lowest clock, even where that draws
        more than the limit.
        """
        gpu = self.gpu
        ceiling = gpu.max_mhz if lock_mhz is None else snap_mhz(gpu, lock_mhz)
        full = self.watts(phase)
        if full > cap_watts:
            room = max(cap_watts - gpu.idle_watts, 0.0) / (full - gpu.idle_watts)
            mhz = gpu.max_mhz * room ** (1.0 / self._exponents[phase])
            ceiling = min(
                ceiling, snap_mhz(gpu, mhz + 1e-6)
            )  # a cap equal to a step's power allows that step
        return ceiling / gpu.max_mhz

    def held(self, cap_watts: float = math.inf, lock_mhz: int | None = None) -> "HeldPower":
        """Watts and clocks of every phase under a power limit and a clock lock.

        With the defaults: the uncapped equivalent, what the same phases would draw if nothing held them back.
        """
        clocks = {phase: self.clock_under(phase, cap_watts, lock_mhz) for phase in self._fractions}
        full = self.watts(Phase.DECODE, clocks[Phase.DECODE], 1.0)
        base = self.watts(Phase.DECODE, clocks[Phase.DECODE])
        watts = {phase: min(self.watts(phase, clocks[phase]), cap_watts) for phase in self._fractions}
        return HeldPower(
            idle_watts=float(self.gpu.idle_watts),
            prefill_watts=watts[Phase.PREFILL],
            decode_watts=base,
            decode_compute_watts=full - base,
            limit_watts=cap_watts,
            training_watts=watts[Phase.TRAINING],
            boundary_watts=watts[Phase.BOUNDARY],
            prefill_clock=clocks[Phase.PREFILL],
            decode_clock=clocks[Phase.DECODE],
            training_clock=clocks[Phase.TRAINING],
        )


class HeldPower(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Watts of one GPU in each phase, and clocks as fractions of the maximum, under one limit and lock.

    Decode draws ``decode_compute_watts`` more as its arithmetic fills the time, but no more than ``limit_watts``. A
    limit inside the product's range is always obeyed, even where the lowest clock of the ladder would draw more.
    """

    idle_watts: float
    prefill_watts: float
    decode_watts: float
    decode_compute_watts: float
    limit_watts: float
    training_watts: float
    boundary_watts: float
    prefill_clock: float
    decode_clock: float
    training_clock: float

    def mean_watts(self, shares: PhaseShares) -> float:
        """Mean over an interval of ``shares``."""
        decode = self.decode_watts + self.decode_compute_watts * min(shares.decode_compute, 1.0)
        return (
            shares.idle * self.idle_watts
            + shares.prefill * self.prefill_watts
            + shares.decode * min(decode, self.limit_watts)
            + shares.training * self.training_watts
            + shares.boundary * self.boundary_watts
        )

    def mean_clock(self, shares: PhaseShares) -> float:
        """Mean clock of the busy time of ``shares``, a fraction of the maximum; that of decode when all is idle."""
        training = shares.training + shares.boundary
        busy = shares.prefill + shares.decode + training  # the weights' own sum: 1 - idle may round below it
        if busy <= 0.0:
            return self.decode_clock
        clocks = (
            shares.prefill * self.prefill_clock
            + shares.decode * self.decode_clock
            + training * self.training_clock
        )
        return clocks / busy


def server_watts(gpu_watts: float, gpus: int, constants: PowerConstants = DEFAULT_POWER) -> float:
    """Watts of a server whose ``gpus`` GPUs draw ``gpu_watts`` together."""
    return constants.server_base_watts_per_gpu * gpus + constants.server_watts_per_gpu_watt * gpu_watts


def gpu_cap_watts(
    gpu: GpuSpec, server_cap_watts: int, gpus: int, constants: PowerConstants = DEFAULT_POWER
) -> int:
    """Whole watts each of ``gpus`` GPUs may draw so that their server stays within ``server_cap_watts``.

    Clamped to the product's settable range: below it, the GPUs cannot follow and the server draws more.
    """
    room = server_cap_watts - constants.server_base_watts_per_gpu * gpus
    each = math.floor(room / (constants.server_watts_per_gpu_watt * gpus))
    return min(max(each, gpu.min_watts), gpu.max_watts)

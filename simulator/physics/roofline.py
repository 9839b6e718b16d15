"""Step time of a continuously batched engine: a roofline with four fitted numbers.

A step that decodes one token for each of ``batch`` sequences and works on ``prefill_tokens`` tokens of prompts
takes, on ``t`` GPUs (research/gpu-selection.md §2.7, "Model to ship")::

    T = max( weight_bytes / (BW t), 2 parameters (batch + prefill_tokens) / (F t) )
        + context_tokens kv_bytes_per_token / (BW t)
        + 4 attention_pairs hidden layers / (F t)
        + comm(t)
        + fixed_seconds + per_sequence_seconds batch

    comm(1) = 0,   comm(t) = 2 layers ( latency + 4 (batch + prefill_tokens) hidden (t - 1) / (t link) )

``BW``, ``F`` and ``link`` are datasheet figures times an achievable fraction. ``attention_pairs`` counts
(token, earlier token) pairs of the prompt chunks: a chunk of p tokens behind s computed ones has p (s + p / 2).
Over a whole prompt of I tokens that is I²/2, the source's ``2 p I hidden layers`` summed over its steps.

Clock and node speed: compute time grows as clock^-1, bandwidth time as clock^-0.1, neither link nor launch time
follows the clock; ``speed`` (1 = healthy, 0.8 = a node that runs at 80 %) stretches all of it.
The planner has the same formula in ``placement.profiles.steptime``; a test holds the two equal at full clock.
"""

from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec
from simulator.physics.stepcost import StepCost


def step_cost(
    gpu: GpuSpec, model: ModelSpec, engine: EngineSpec, clock: float = 1.0, speed: float = 1.0
) -> StepCost:
    """Coefficients of ``model`` served by ``engine`` on GPUs ``gpu``.

    ``clock`` is the compute clock over its maximum, ``speed`` the node's factor. An engine with a measured cost has
    that instead of the roofline. ValueError unless both are positive.
    """
    if clock <= 0.0 or speed <= 0.0:
        raise ValueError(f"clock {clock} and speed {speed} of {gpu.product} must both be positive fractions")
    constants, ways = engine.constants, engine.tensor_parallel
    compute_scale = clock**constants.compute_clock_exponent
    bandwidth_scale = clock**constants.bandwidth_clock_exponent
    if engine.measured is not None:
        return engine.measured.cost.slowed(compute_scale, bandwidth_scale, speed)
    bandwidth = gpu.bandwidth_bytes_per_second * constants.bandwidth_fraction * ways * bandwidth_scale
    flops = effective_flops(gpu, model, engine) * ways * compute_scale
    comm_fixed, comm_token = comm_seconds(gpu, model, engine)
    return StepCost(
        weights=model.weight_bytes / bandwidth / speed,
        matmul=2.0 * model.parameters / flops / speed,
        kv=model.kv_bytes_per_token / bandwidth / speed,
        attention=4.0 * model.hidden * model.layers / flops / speed,
        comm_token=comm_token / speed,
        fixed=(comm_fixed + constants.fixed_seconds) / speed,
        per_sequence=constants.per_sequence_seconds / speed,
    )


def effective_flops(gpu: GpuSpec, model: ModelSpec, engine: EngineSpec) -> float:
    """FLOPs per second that one GPU achieves at full clock at the model's precision."""
    constants, eight_bit = engine.constants, model.precision in {"fp8", "int8"}
    peak = gpu.flops_per_second / (2.0 if model.precision == "fp32" else 1.0)
    if eight_bit and gpu.flops_8bit_per_second > 0.0:
        peak = gpu.flops_8bit_per_second
    if engine.tensor_parallel == 1:
        return peak * constants.compute_fraction
    if eight_bit:
        return peak * constants.compute_fraction_parallel_8bit
    return peak * constants.compute_fraction_parallel_16bit


def comm_seconds(gpu: GpuSpec, model: ModelSpec, engine: EngineSpec) -> tuple[float, float]:
    """(seconds a step, seconds a token) of the two all-reduces of every layer; zero without tensor parallelism."""
    ways, constants = engine.tensor_parallel, engine.constants
    if ways == 1:
        return 0.0, 0.0
    nvlink = gpu.link == "nvlink"
    latency = constants.nvlink_latency_seconds if nvlink else constants.pcie_latency_seconds
    fraction = constants.nvlink_fraction if nvlink else constants.pcie_fraction
    wire = 4.0 * model.hidden * (ways - 1) / (ways * gpu.link_bytes_per_second * fraction)
    return 2.0 * model.layers * latency, 2.0 * model.layers * wire


def kv_capacity_tokens(gpu: GpuSpec, model: ModelSpec, engine: EngineSpec) -> int:
    """Tokens of KV cache beside the weights (or as measured), whole blocks only; 0 when not even one block fits."""
    if engine.measured is not None and engine.measured.kv_tokens:
        return engine.measured.kv_tokens - engine.measured.kv_tokens % engine.block_tokens
    have = engine.memory_fraction * gpu.memory_bytes * engine.tensor_parallel
    free = have - model.weight_bytes - engine.reserve_bytes
    tokens = int(free // model.kv_bytes_per_token) if free > 0.0 else 0
    return tokens - tokens % engine.block_tokens


def prefill_seconds(cost: StepCost, prompt_tokens: int, chunk_tokens: int) -> float:
    """Seconds to prefill one prompt alone on an idle engine: the sum over its chunks."""
    total, done = 0.0, 0
    while done < prompt_tokens:
        chunk = min(chunk_tokens, prompt_tokens - done)
        total += cost.seconds(0, chunk, 0, chunk * (done + 0.5 * chunk))
        done += chunk
    return total

"""GPUs that several engines share: each has its part of memory, bandwidth and compute, and nothing of what others leave idle.

So it is where a driver holds each claim to what it asked for; a time-sliced board without limits is another thing, and
its classes describe one turn as a device of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from simulator.physics.power import PhaseShares
from simulator.physics.specs import GpuSpec

WHOLE = 1_000
"""Thousandths of a GPU."""


def part_of(gpu: GpuSpec, milli: int) -> GpuSpec:
    """`milli` thousandths of a product as an engine sees it. What it draws is the board's, and is left as it is."""
    if milli >= WHOLE:
        return gpu
    part = milli / WHOLE
    return msgspec.structs.replace(
        gpu,
        memory_bytes=gpu.memory_bytes * milli // WHOLE,
        bandwidth_bytes_per_second=gpu.bandwidth_bytes_per_second * part,
        flops_per_second=gpu.flops_per_second * part,
        flops_8bit_per_second=gpu.flops_8bit_per_second * part,
    )


def together(parts: Iterable[tuple[int, PhaseShares]]) -> PhaseShares:
    """What a board did that engines did these things on, each on so many thousandths of it; the rest of it was idle."""
    prefill = decode = compute = 0.0
    for milli, shares in parts:
        part = milli / WHOLE
        prefill += part * shares.prefill
        decode += part * shares.decode
        compute += part * shares.decode * shares.decode_compute
    return PhaseShares(
        prefill=prefill, decode=decode, decode_compute=compute / decode if decode > 0.0 else 0.0
    )

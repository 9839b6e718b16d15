"""How fast the discrete-event world simulates: published traces at high utilisation, and a million requests.

Chunked prefill, preemption, prefix cache and migration are on in each case, and each must have happened. Each case is a process of
its own, so that its memory is its own. Processor time is the fair number on a shared machine. The engines run as machine code where
they can be compiled (`make compiled`; tried first), else interpreted: the remark says which. Anchors (other simulators, same
traces, measured on a like machine): NVIDIA's Dynamo replay 2,380 to 13,176 requests per CPU-second, Vidur 122 to 317 per second.
"""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.base import Arguments, BenchmarkError, Figure, Result, Row, at_least, at_most, data_folder
from simulator import compiled
from simulator.physics.catalogue import A10G, A100_80
from simulator.physics.engine import EngineInstance
from simulator.physics.reference import PerTokenEngine
from simulator.physics.sequence import EngineEvent, EventKind
from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec
from simulator.traces.arrivals import faster
from simulator.traces.reading import read
from simulator.traces.requests import TraceError, TraceRequest
from simulator.world.spec import Choice, Group, WorldSpec
from simulator.world.world import Outcome, World

LLAMA_7B = ModelSpec(
    name="llama-7b", parameters=6.74e9, weight_bytes=13_480_000_000, layers=32, hidden=4096, kv_bytes_per_token=524_288
)  # fmt: skip
LLAMA_8B = ModelSpec(
    name="llama-3-8b", parameters=8.03e9, weight_bytes=16_060_000_000, layers=32, hidden=4096, kv_bytes_per_token=131_072
)  # fmt: skip
BLOCK, COMMON, PROMPTS = 16, 16, 8
"""Azure's trace has no hashes: each request begins with one of 8 system prompts of 256 tokens, drawn by its line."""

AZURE, MOONCAKE = (
    "live-migration/azure2023_conv.csv",
    "live-migration/mooncake_fast25_conversation_trace.jsonl",
)


class Case(msgspec.Struct, frozen=True):
    """A trace on instances of one kind."""

    name: str
    model: ModelSpec
    gpu: GpuSpec
    engine: EngineSpec
    instances: int


def engine(memory: float, block: int = BLOCK, chunk: int = 2048) -> EngineSpec:
    """An engine with everything on and so much of its memory for weights and KV."""
    return EngineSpec(admission="grow", prefix_block_tokens=block, memory_fraction=memory, chunk_tokens=chunk)


AZURE_8 = Case("azure_8", LLAMA_7B, A10G, engine(0.9), 8)
MOONCAKE_8 = Case("mooncake_8", LLAMA_8B, A100_80, engine(0.5, 512, 4096), 8)
AZURE_64 = Case("azure_x16_64", LLAMA_8B, A10G, engine(0.82), 64)
MILLION = Case("million_1000", LLAMA_8B, A10G, engine(0.78), 1000)
RATE = 1.3
"""Requests per second and instance of the million: that of Azure x16 on 64."""


AGREEMENT = "agreement"
"""The part that is no case: skipping against every token computed."""


class Told(msgspec.Struct, frozen=True):
    """What the process of a part found: of a case its figures and rates, of the agreement the difference."""

    figures: dict[str, Figure] = {}
    wall_seconds: float = 0.0
    req_per_s: float = 0.0
    req_per_cpu_s: float = 0.0
    peak_rss_mb: float = 0.0
    difference: float = 0.0
    machine_code: bool = False


def run(args: Arguments) -> Result:
    """Simulate each case once. BenchmarkError when a trace is not there."""
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, root / "tools" / "compile_physics.py"], capture_output=True, check=False)
    cases = (AZURE_8.name, MOONCAKE_8.name, AZURE_64.name, MILLION.name)
    told = {name: in_a_process(name, args) for name in (*cases, AGREEMENT)}
    by_case = {name: told[name].figures for name in cases}
    rate = min(told[name].req_per_cpu_s for name in cases)
    last, error = told[MILLION.name], told[AGREEMENT].difference
    figures: dict[str, Figure | Mapping[str, Figure | Mapping[str, Figure]]] = {
        "req_per_s": round(min(told[name].req_per_s for name in cases)), "req_per_cpu_s": round(rate), "by_case": by_case,
        "million_s": round(last.wall_seconds, 1), "peak_rss_mb": round(last.peak_rss_mb), "per_token_disagreement": error,
    }  # fmt: skip
    rows = _rows(by_case, rate, last.wall_seconds, last.peak_rss_mb, error)
    how = "compiled to machine code" if all(each.machine_code for each in told.values()) else "interpreted"
    return Result(rows=rows, figures=figures, remark=f"The engines were {how}.")


def in_a_process(name: str, args: Arguments) -> Told:
    """Measure one part in a process of its own. BenchmarkError with its last line where it fails."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.simulator_speed",
        name,
        str(data_folder(args)),
        str(args.seed),
    ]
    command += ["quick"] * args.quick
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(done.stderr.strip().rpartition("\n")[2] or f"The case {name} has died.")
    return msgspec.json.decode(done.stdout, type=Told)


def part(name: str, args: Arguments) -> Told:
    """Measure one part in this process. BenchmarkError when its trace is not there."""
    requests = _trace(args, MOONCAKE if name == MOONCAKE_8.name else AZURE)
    if args.quick:
        requests = requests[: 100 if name == AGREEMENT else 600]
    if name == AGREEMENT:
        return Told(difference=disagreement(requests[:2_000]), machine_code=compiled.in_use())
    case, stream = _case(name, requests, args)
    outcome, cpu, wall = simulate(case, stream, args.seed)
    return Told(
        figures=told(outcome, cpu), wall_seconds=wall, req_per_s=outcome.completed / wall,
        req_per_cpu_s=outcome.completed / cpu, peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
        machine_code=compiled.in_use(),
    )  # fmt: skip


def _case(name: str, requests: list[TraceRequest], args: Arguments) -> tuple[Case, Iterable[TraceRequest]]:
    if name == MILLION.name:
        case = msgspec.structs.replace(MILLION, instances=20) if args.quick else MILLION
        count = 5_000 if args.quick else 1_000_000
        return case, many(requests, count, RATE * case.instances, args.seed)
    if name == MOONCAKE_8.name:
        return MOONCAKE_8, requests
    if name == AZURE_64.name:
        return AZURE_64, list(with_prompts(faster(requests, 16.0)))
    return AZURE_8, list(with_prompts(requests))


def simulate(case: Case, requests: Iterable[TraceRequest], seed: int) -> tuple[Outcome, float, float]:
    """What came of a case, with processor and wall seconds."""
    spec = WorldSpec(
        model=case.model, groups=(Group(gpu=case.gpu, engine=case.engine, count=case.instances),),
        dispatch=Choice("llumnix"), migration=Choice("llumnix"), seed=seed,
    )  # fmt: skip
    world = World(spec, requests)
    cpu, wall = time.process_time(), time.perf_counter()
    outcome = world.run()
    return outcome, time.process_time() - cpu, time.perf_counter() - wall


def told(outcome: Outcome, cpu: float) -> dict[str, Figure]:
    """The figures of one case."""
    return {
        "req_per_cpu_s": round(outcome.completed / cpu), "utilisation": round(outcome.utilisation, 3),
        "completed": outcome.completed, "preemptions": outcome.preemptions, "migrations": outcome.migrations,
        "prefix_hit_tokens": outcome.prefix_hit_tokens, "prefill_chunks": outcome.prefill_chunks,
    }  # fmt: skip


def with_prompts(requests: Iterable[TraceRequest]) -> Iterator[TraceRequest]:
    """Requests without hashes, each with a system prompt."""
    prompts = [tuple(1000 * prompt + block for block in range(COMMON)) for prompt in range(PROMPTS)]
    for request in requests:
        hashes = prompts[request.line % PROMPTS][: request.input_tokens // BLOCK]
        yield msgspec.structs.replace(request, block_hashes=hashes, block_tokens=BLOCK)


def many(requests: list[TraceRequest], count: int, rate: float, seed: int) -> Iterator[TraceRequest]:
    """Poisson arrivals with the lengths of a trace, over and over, as a stream."""
    rng = np.random.Generator(np.random.PCG64(seed))
    at = 0.0
    pauses: list[float] = []
    for number, request in enumerate(itertools.islice(itertools.cycle(list(with_prompts(requests))), count)):
        if not pauses:
            pauses = rng.exponential(1.0 / rate, 4096).tolist()
        at += pauses.pop()
        yield msgspec.structs.replace(request, line=number, arrived_seconds=at)


def disagreement(requests: list[TraceRequest]) -> float:
    """Largest relative difference in TTFT and TPOT, p50 and p99, between skipping and every token computed.

    One engine that has as much to do as it can, with everything on but moves.
    """
    spec = engine(0.9)
    seen = []
    for kind in (EngineInstance, PerTokenEngine):
        one = kind(A10G, LLAMA_7B, spec)
        for request in with_prompts(faster(requests, 0.125)):
            one.submit(
                request.line,
                request.input_tokens,
                request.output_tokens,
                request.arrived_seconds,
                0,
                request.block_hashes,
            )
        seen.append(_latencies(one.advance_to(1e7), requests))
    return float(np.max(np.abs(seen[0] / seen[1] - 1.0)))


def _latencies(events: list[EngineEvent], requests: list[TraceRequest]) -> np.ndarray:
    arrived = {request.line: request.arrived_seconds for request in faster(requests, 0.125)}
    first = {event.request_id: event.at_seconds for event in events if event.kind is EventKind.FIRST_TOKEN}
    ttft = [at - arrived[key] for key, at in first.items()]
    ends = [event for event in events if event.kind is EventKind.FINISHED and event.tokens > 1]
    tpot = [(end.at_seconds - first[end.request_id]) / (end.tokens - 1) for end in ends]
    return np.array([*np.percentile(ttft, [50, 99]), *np.percentile(tpot, [50, 99])])


def _trace(args: Arguments, name: str) -> list[TraceRequest]:
    path = data_folder(args) / name
    try:
        return list(read(path))
    except TraceError as error:
        raise BenchmarkError(f"{error} Give the folder that has {name} with --data.") from error


def _rows(
    by_case: Mapping[str, Mapping[str, Figure]], rate: float, million: float, rss: float, error: float
) -> tuple[Row, ...]:
    rows = [at_least("requests simulated per CPU-second, worst case", rate, 20_000, digits=5)]
    for name, each in by_case.items():
        nothing = [key for key, value in each.items() if not value]
        text = ", ".join(f"{key} {value:,}" for key, value in each.items())
        rows.append(
            Row(
                name,
                text,
                "utilisation ≥ 0.7, all above 0",
                float(each["utilisation"] or 0) >= 0.7 and not nothing,
            )
        )
    return (
        *rows,
        at_most("a million requests on 1,000 instances", million, 60, "s"),
        at_most("memory, peak", rss, 4096, "MB", 4),
        at_most("skipping against every token, TTFT and TPOT p50 and p99", error, 1e-3),
    )


def main(name: str, data: str, seed: str, *quick: str) -> int:
    """The process of a part: what it found as JSON."""
    args = Arguments(data=Path(data), seed=int(seed), quick=bool(quick))
    try:
        print(msgspec.json.encode(part(name, args)).decode())
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

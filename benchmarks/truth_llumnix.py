"""Llumnix (Sun et al., OSDI'24) against INFaaS++ in the twin, as its artifact ran them: figures 11 and 15.

What the artifact (alibaba/llm-scheduling-artifact; AlibabaPAI/llumnix, first commit) says and the paper does not:

- vLLM 0.1.7: whole prompts first (`scheduling: prefill_first`), 12,800 tokens a step at most, 256 sequences.
- Both systems dispatch to the greatest freeness that the instances told at the end of their last step, without an account
  of what was sent since (`Delays.each_step`); INFaaS++ is Llumnix without migration (``run.sh``: ``load 0 0``).
- Pairs are made every 4 reports of each instance, one move at a time for each; freeness below 3 blocks a request
  (10 for the traces 256-256 and 128-512) is what requests leave.
- Lengths and gaps are drawn by numpy's old generator, seeded 0xCADE: there is one trace for each (inputs, outputs), and the
  paper's figures are means over runs of it. A run here differs by up to 10 ms in each arrival.

Copies go at the 2.55 GB/s of figure 10 (8k tokens in 1.682 s).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.base import BenchmarkError
from simulator.physics.catalogue import A10G
from simulator.physics.measured import LLAMA_7B_A10_VLLM_017
from simulator.physics.specs import EngineSpec, ModelSpec
from simulator.traces.arrivals import generator
from simulator.traces.powerlaw import EXPONENTS, LONGEST
from simulator.traces.requests import TraceRequest
from simulator.world.spec import Choice, Delays, Group, Moving, WorldSpec
from simulator.world.world import World

PAPER: Final = "live-migration/llumnix_paper_figures.csv"
BASELINE, LLUMNIX = "INFaaS++", "Llumnix"
METRICS: Final = ("prefill_p99", "prefill_mean", "request_p99")
"""Of figure 11, what is judged [s]."""
ARTIFACT_SEED: Final = 0xCADE
REQUESTS: Final = 10_000
JITTER_SECONDS: Final = 0.01
THRESHOLDS: Final = {"256-256": 10.0, "128-512": 10.0}
USUAL_THRESHOLD: Final = 3.0

LLAMA_7B: Final = ModelSpec(
    name="llama-7b", parameters=6.74e9, weight_bytes=13_480_000_000, layers=32, hidden=4096, kv_bytes_per_token=524_288
)  # fmt: skip
ENGINE: Final = EngineSpec(
    admission="grow", scheduling="prefill_first", chunk_tokens=12_800, max_num_seqs=256, measured=LLAMA_7B_A10_VLLM_017
)  # fmt: skip
DELAYS: Final = Delays(
    each_step=True, report_seconds=0.2, gateway_seconds=0.01, agent_low_seconds=0.02, agent_high_seconds=0.05
)  # fmt: skip
MOVING: Final = Moving(every_seconds=0.2, bytes_per_second=2.55e9, crowded_share=0.5, copy_last=True)

Array = NDArray[np.float64]
Paper = Mapping[tuple[str, str, str, str, float], float]
"""(figure, trace, metric, system, x) to y."""


class Seen(NamedTuple):
    """One run: latencies over all requests [s], moves and preemptions."""

    prefill_p99: float
    prefill_mean: float
    request_p99: float
    decode_mean: float
    migrations: int
    preemptions: int


def read_paper(path: Path) -> Paper:
    """The published points. BenchmarkError when the file is missing or a line of it is none."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {
                (row["figure"], row["row"], row["metric"], row["system"], float(row["x"])): float(row["y"])
                for row in csv.DictReader(file)
            }
    except OSError as error:
        raise BenchmarkError(
            f"{path}: {error.strerror}. Give the folder that has {PAPER} with --data."
        ) from error
    except (KeyError, ValueError, TypeError) as error:
        raise BenchmarkError(
            f"{path}: {error!r} is missing or no number in a line; needed are figure, row, metric, system, x, y."
        ) from error


def plotted_rates(paper: Paper) -> dict[str, list[float]]:
    """For each trace of figure 11 the rates at which both systems were plotted, rising. BenchmarkError without any."""
    rates: dict[str, list[float]] = {}
    for figure, trace, metric, system, rate in sorted(paper):
        both = (figure, trace, metric, LLUMNIX, rate) in paper
        if figure == "11" and metric == METRICS[0] and system == BASELINE and both:
            rates.setdefault(trace, []).append(rate)
    if not rates:
        raise BenchmarkError(f"{PAPER} has no point of figure 11 for both {BASELINE} and {LLUMNIX}.")
    return rates


def means(trace: str) -> tuple[int, int]:
    """Mean input and output tokens of a trace's name. BenchmarkError for lengths that the artifact does not draw."""
    try:
        first, second = (int(part) for part in trace.split("-"))
    except ValueError:
        raise BenchmarkError(
            f"{PAPER}: row {trace!r} of figure 11 is not 'input-output' in tokens."
        ) from None
    if first not in EXPONENTS or second not in EXPONENTS:
        raise BenchmarkError(
            f"{PAPER}: row {trace!r}: lengths are drawn for means of {', '.join(map(str, EXPONENTS))} tokens."
        )
    return first, second


def requests(
    trace: str, rate: float, seed: int, *, count: int = REQUESTS, cv: float = 1.0
) -> list[TraceRequest]:
    """The artifact's own requests, arrivals shaken by up to `JITTER_SECONDS` as `seed` has it.

    Same order of draws: input lengths, output lengths, gaps. Lengths are scaled to the mean of what was drawn.
    """
    draws = np.random.RandomState(ARTIFACT_SEED)
    inputs, outputs = (_lengths(mean, draws, count) for mean in means(trace))
    gaps = (
        draws.exponential(1.0 / rate, count) if cv == 1.0 else draws.gamma(1.0 / cv**2, cv**2 / rate, count)
    )
    shaken = generator(seed, "truth", trace).uniform(0.0, JITTER_SECONDS, count)
    at = np.sort(np.concatenate([[0.0], np.cumsum(gaps)[:-1]]) + shaken)
    rows = zip(at.tolist(), inputs.tolist(), outputs.tolist(), strict=True)
    return [TraceRequest(number, *row) for number, row in enumerate(rows)]


def _lengths(mean: int, draws: np.random.RandomState, count: int) -> NDArray[np.int64]:
    ranks = np.arange(1, 2 * mean)
    weights = ranks ** -EXPONENTS[mean]
    drawn = draws.choice(ranks, size=count, p=weights / weights.sum())
    whole: NDArray[np.int64] = np.minimum(np.ceil(drawn * (mean / drawn.mean())), LONGEST).astype(np.int64)
    return whole


def simulate(
    system: str,
    stream: list[TraceRequest],
    seed: int,
    *,
    instances: int = 16,
    threshold: float = USUAL_THRESHOLD,
) -> Seen:
    """Run one of the two systems on a stream of requests."""
    moves = Choice("llumnix", {"source_below_blocks": threshold, "target_above_blocks": threshold})
    spec = WorldSpec(
        model=LLAMA_7B, groups=(Group(gpu=A10G, engine=ENGINE, count=instances, per_node=1),),
        dispatch=Choice("llumnix"), migration=moves if system == LLUMNIX else None,
        moving=MOVING, delays=DELAYS, seed=seed,
    )  # fmt: skip
    world = World(spec, stream)
    outcome = world.run()
    first, each = world.book.ttft_seconds, world.book.tpot_seconds
    whole = first + each * np.maximum(world.book.output_tokens - 1, 1)
    return Seen(
        float(np.percentile(first, 99)), float(first.mean()), float(np.percentile(whole, 99)), float(each.mean()),
        outcome.migrations, outcome.preemptions,
    )  # fmt: skip


def figure_11(trace: str, rate: float, seeds: range, *, count: int = REQUESTS) -> dict[str, list[Seen]]:
    """Runs of both systems at one point of figure 11."""
    threshold = THRESHOLDS.get(trace, USUAL_THRESHOLD)
    return {
        system: [simulate(system, requests(trace, rate, seed, count=count), seed, threshold=threshold) for seed in seeds]
        for system in (BASELINE, LLUMNIX)
    }  # fmt: skip


def ratio(runs: Mapping[str, list[Seen]], metric: str) -> float:
    """Llumnix over INFaaS++, each the mean over its runs, as the artifact plots them."""
    told = {system: np.mean([getattr(seen, metric) for seen in found]) for system, found in runs.items()}
    return float(told[LLUMNIX] / told[BASELINE])


def published(paper: Paper, trace: str, metric: str, rate: float) -> float:
    """The published ratio. BenchmarkError when one of the two points is missing."""
    try:
        return paper["11", trace, metric, LLUMNIX, rate] / paper["11", trace, metric, BASELINE, rate]
    except KeyError:
        raise BenchmarkError(
            f"{PAPER}: figure 11 has no {metric} of {trace} at {rate} for both systems."
        ) from None


COST_RATE: Final = 2.0
COST_CV: Final = 2.0
COST_TRACE: Final = "512-512"
"""Figure 15's traffic (``65_auto_scaling/run.sh``, Threshold)."""
COUNTS: Final = range(9, 15)


def cost_curve(
    system: str, seeds: range, counts: range = COUNTS, *, requests_each: int = REQUESTS
) -> dict[int, float]:
    """P99 of the prefill latency [s] by how many instances there are, all the time: the mean over the seeds."""
    found = {}
    for instances in counts:
        streams = [requests(COST_TRACE, COST_RATE, seed, count=requests_each, cv=COST_CV) for seed in seeds]
        seen = [
            simulate(system, stream, seed, instances=instances)
            for stream, seed in zip(streams, seeds, strict=True)
        ]
        found[instances] = float(np.mean([each.prefill_p99 for each in seen]))
    return found


def needed(curve: Mapping[float, float], level: float) -> float:
    """Instances that bring the P99 down to ``level``, between the two counts around it; nan where none does.

    A P99 that rises with more instances is noise: the least up to there counts.
    """
    counts = sorted(curve)
    least = np.minimum.accumulate([curve[count] for count in counts])
    if not least[-1] <= level <= least[0]:
        return math.nan
    return float(np.interp(-math.log(level), -np.log(least), np.array(counts, dtype=float)))


def equal_level(paper: Paper) -> tuple[float, dict[str, dict[float, float]]]:
    """Highest plotted P99 of INFaaS++ in figure 15 that Llumnix's curve reaches too, and both published curves.

    BenchmarkError when there is none.
    """
    curves: dict[str, dict[float, float]] = {BASELINE: {}, LLUMNIX: {}}
    for (figure, _, metric, system, x), y in paper.items():
        if figure == "15" and metric == "prefill_p99" and system in curves:
            curves[system][x] = y
    levels = [
        level
        for level in curves[BASELINE].values()
        if not math.isnan(needed(curves[LLUMNIX], level) if curves[LLUMNIX] else math.nan)
    ]
    if not levels:
        raise BenchmarkError(f"{PAPER}: figure 15 has no P99 that both {BASELINE} and {LLUMNIX} reach.")
    return max(levels), curves


def saving(curves: Mapping[str, Mapping[float, float]], level: float) -> float:
    """How many more instances INFaaS++ needs than Llumnix for the same P99, as the paper counts savings (14.25 / 10.44 - 1)."""
    return needed(curves[BASELINE], level) / needed(curves[LLUMNIX], level) - 1.0

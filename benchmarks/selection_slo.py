"""Selection judged by promises kept: our plan against Mélange's rule, simulated on the same engines with the same arrivals.

Data (`--data DIR`): slo_simulation_headtohead.csv (workload, rate and Mélange's published cost, one scenario a row of it),
workloads_10x6.json and a roofline profile; ../live-migration/azure2023_conv.csv beside DIR, when it is there, for the lengths of
conversations. Mélange plans from the hard histogram of upper edges, ours from the soft one. Each plan's instances then serve
Poisson arrivals in the discrete-event world (`benchmarks/slo_physics.py` has the engines), dispatched by `size_aware` with the
plan's own routing. What dispatch knows of a request's output is a prediction, wrong by a log-normal factor. A request keeps
the promise when time to first token is <= 2 s and time per output token <= the profile's; what never finishes did not.
Seeds N, N + 1 and N + 2.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from benchmarks.base import (
    Arguments,
    BenchmarkError,
    Figure,
    Result,
    Row,
    Table,
    at_least,
    at_most,
    data_folder,
)
from benchmarks.mix import serving_pays
from benchmarks.slo_data import Data, Scenario, read
from benchmarks.slo_load import Sizes, poisson, sizes_of
from benchmarks.slo_physics import MODEL, gpu_spec
from cluster.plan import Context, Decision
from cluster.size_plan import SizePlan
from cluster.views import DispatchView
from placement.profiles.grid import soft_histogram
from placement.selection.checker import check
from placement.selection.melange import melange
from placement.selection.mix import solve_mix
from placement.selection.problem import MixProblem, MixSolution, VariantOption
from placement.selection.sized import chunk_tokens, size_plan, sized_problem
from policies.dispatch.size_aware import SizeAware, SizeAwareState
from simulator.traces.requests import TraceRequest
from simulator.world.spec import Choice, Group, WorldSpec
from simulator.world.world import World

TTFT_SECONDS = 2.0
SEEDS, SECONDS = 3, 600.0
PLAN_SEED = 7
"""Seed of the lengths that a plan is made from; those that are served have other seeds."""

PREDICTION_SIGMA = math.log(2.0)
"""Standard deviation of the logarithm of what is predicted of an output over what it is."""

PLAIN_CHUNK = 2_048


class Side(msgspec.Struct, frozen=True):
    """A plan: what it routes, what it buys, how the gateways and engines are set up for it."""

    solution: MixSolution
    problem: MixProblem
    dispatch: str = "size_aware"
    blend: bool = True
    chunk: int = 0


class Kept(msgspec.Struct, frozen=True):
    """Arrivals of one run, those that kept both promises, each promise alone, and the 99th percentiles [s]."""

    arrived: int
    both: int
    tpot: int
    ttft: int
    ttft_p99: float
    tpot_p99: float


class Found(msgspec.Struct, frozen=True):
    """One scenario: plans and what came of them by seed."""

    scenario: Scenario
    source: str
    ours: MixSolution
    theirs: MixSolution
    kept: dict[str, tuple[Kept, ...]]
    faults: tuple[str, ...]

    @property
    def saving(self) -> float:
        """Share of Mélange's cost that ours does without."""
        return 1.0 - self.ours.cost_per_hour / self.theirs.cost_per_hour

    def attainment(self, side: str) -> float:
        """Share of all arrivals of all seeds that kept both promises; 1 where nobody came."""
        runs = self.kept[side]
        arrived = sum(run.arrived for run in runs)
        return sum(run.both for run in runs) / arrived if arrived else 1.0


class Predicted:
    """A dispatch policy that is told outputs only as well as a predictor would: wrong by a log-normal factor, by request."""

    def __init__(self, policy: SizeAware, seed: int, sigma: float, most: float) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        self._policy, self._most = policy, most
        self._factors = np.exp(sigma * rng.standard_normal(65_536)).tolist()

    def initial(self) -> SizeAwareState:
        """As the policy's."""
        return self._policy.initial()

    def decide(self, view: DispatchView, state: SizeAwareState, ctx: Context) -> Decision[SizeAwareState]:
        """As the policy decides on the predicted request."""
        request = view.request
        factor = self._factors[int(request.id) % len(self._factors)]
        told = round(min(max(request.expected_output_tokens * factor, 1.0), self._most))
        guess = msgspec.structs.replace(request, expected_output_tokens=told)
        return self._policy.decide(msgspec.structs.replace(view, request=guess), state, ctx)


def run(args: Arguments) -> Result:
    """Plans and simulates every scenario. Raises BenchmarkError when the data is not there or cannot be simulated."""
    data = read(data_folder(args, "gpu-selection"))
    seeds = range(args.seed, args.seed + (1 if args.quick else SEEDS))
    seconds = 60.0 if args.quick else SECONDS
    found = [compare(data, scenario, seeds, seconds) for scenario in data.scenarios]
    by_scenario: Table = {
        each.scenario.name: {
            "our_cost": round(each.ours.cost_per_hour, 4), "our_attainment": round(each.attainment("ours"), 6),
            "melange_cost": round(each.theirs.cost_per_hour, 4), "melange_attainment": round(each.attainment("melange"), 6),
        }
        for each in found
    }  # fmt: skip
    figures: dict[str, Figure | Table] = {
        "mean_saving": round(float(np.mean([each.saving for each in found])), 5),
        "min_attainment": round(min(each.attainment("ours") for each in found), 6),
        "by_scenario": by_scenario,
    }
    return Result(rows=_rows(found, data, seeds, seconds), figures=figures, remark=_remark(found))


def compare(data: Data, scenario: Scenario, seeds: range, seconds: float) -> Found:
    """Plan both ways and serve the same arrivals with each, seed by seed."""
    shares = np.array(data.workloads[scenario.workload], dtype=np.float64)
    planned = sizes_of(data.folder, scenario.workload, data.grid, shares, PLAN_SEED)
    sides = {
        "ours": ours(data, planned, scenario.per_second),
        "melange": theirs(data, shares / shares.sum() * scenario.per_second),
    }
    sides["stock"] = msgspec.structs.replace(
        sides["melange"], dispatch="least_outstanding", chunk=PLAIN_CHUNK
    )
    faults = check(sides["ours"].problem, sides["ours"].solution)
    if sides["ours"].solution.unserved_per_second > 1e-9:
        faults = (*faults, f"{sides['ours'].solution.unserved_per_second:.3g} requests/s have no variant")
    kept: dict[str, tuple[Kept, ...]] = dict.fromkeys(sides, ())
    for seed in seeds:
        served = sizes_of(data.folder, scenario.workload, data.grid, shares, 1_000 + seed)
        requests = poisson(served, scenario.per_second, seconds, seed)
        for name, side in sides.items():
            kept[name] = (*kept[name], simulate(data, side, requests, seed))
    return Found(scenario, planned.source, sides["ours"].solution, sides["melange"].solution, kept, faults)


def ours(data: Data, sizes: Sizes, per_second: float) -> Side:
    """The operator's solver on the soft histogram of the sample."""
    cells = soft_histogram(data.grid, sizes.inputs, sizes.outputs, per_second).cells
    problem = sized_problem(data.grid, cells, data.variants, TTFT_SECONDS, data.tpot_seconds)
    prices = serving_pays(cells, max(each.dollars_per_hour for each in data.variants))
    problem = msgspec.structs.replace(problem, cell_unserved_dollars=prices)
    return Side(solve_mix(problem), problem)


def theirs(data: Data, cells: np.ndarray) -> Side:
    """Mélange's rule on the hard histogram of upper edges."""
    problem = MixProblem(
        demand=tuple(cells.ravel().tolist()),
        variants=tuple(
            VariantOption(
                name=each.name, pool=each.name, dollars_per_hour=each.dollars_per_hour,
                throughput=tuple(np.array(each.throughput).ravel().tolist()),
            )
            for each in data.variants
        ),
        inventory={each.name: None for each in data.variants},
        headroom=False,
    )  # fmt: skip
    solution = melange(problem)
    if not solution.feasible:
        raise BenchmarkError(f"Mélange's rule has no answer: {solution.why}.")
    return Side(solution, problem, blend=False)


def simulate(data: Data, side: Side, requests: list[TraceRequest], seed: int) -> Kept:
    """Serve the requests with a plan's instances, all of them to the end."""
    groups = []
    steps = {each.name: each.steps for each in data.variants}
    for name in sorted(side.solution.counts):
        count = side.solution.counts[name]
        chunk = side.chunk or chunk_tokens(steps[name], data.tpot_seconds)
        engine = data.physics[name].engine(name, chunk)
        groups.append(Group(gpu=gpu_spec(name), engine=engine, count=count, column=f"{name}|{name}"))
    plan: SizePlan | None = None
    if side.dispatch == "size_aware":
        plan = size_plan(
            data.grid, side.problem, side.solution, data.variants, TTFT_SECONDS, data.tpot_seconds, blend=side.blend
        )  # fmt: skip
    spec = WorldSpec(model=MODEL, groups=tuple(groups), dispatch=Choice(side.dispatch), plan=plan, seed=seed)
    world = World(spec, requests)
    (service,) = world.services
    service.dispatch = Predicted(service.dispatch, seed, PREDICTION_SIGMA, float(data.grid.output_edges[-1]))
    world.run()
    ttft, tpot = world.book.ttft_seconds, world.book.tpot_seconds
    soon, fast = ttft <= TTFT_SECONDS, tpot <= data.tpot_seconds
    return Kept(
        len(requests), int((soon & fast).sum()), int(fast.sum()), int(soon.sum()),
        float(np.percentile(ttft, 99)) if len(ttft) else math.inf, float(np.percentile(tpot, 99)) if len(tpot) else math.inf,
    )  # fmt: skip


def _rows(found: list[Found], data: Data, seeds: range, seconds: float) -> tuple[Row, ...]:
    worse = [each for each in found if _worse(each)]
    apart = max(abs(each.theirs.cost_per_hour / each.scenario.published - 1.0) for each in found)
    fit = max(each.largest_error for each in data.physics.values())
    return (
        Row("seeds, seconds of arrivals each", f"{seeds[0]}-{seeds[-1]}, {seconds:g}"),
        at_least("mean saving", 100.0 * float(np.mean([each.saving for each in found])), 25.0, "%"),
        at_least(
            "lowest attainment, TPOT and TTFT", 100.0 * min(e.attainment("ours") for e in found), 99.5, "%", 5
        ),
        at_most("scenarios that cost more or keep less than Melange and 99.5 %", float(len(worse)), 0),
        at_most("Melange's cost against the published one, largest difference", 100.0 * apart, 2.0, "%"),
        Row("engines against the profile's grid, largest error", f"{fit:.2e}"),
        *(row for each in found for row in _told(each)),
    )


def _worse(found: Found) -> bool:
    """Whether a scenario costs more, or keeps less than both Mélange's plan and the goal."""
    dearer = found.ours.cost_per_hour > found.theirs.cost_per_hour + 1e-9
    return dearer or found.attainment("ours") < min(found.attainment("melange"), 0.995)


def _told(found: Found) -> list[Row]:
    name, arrived = found.scenario.name, sum(run.arrived for run in found.kept["ours"])
    rows = [Row(f"{name}: saving", f"{found.saving:.1%} (lengths: {found.source}; {arrived} arrivals)")]
    titles = (
        ("ours", "ours", found.ours),
        ("melange", "Melange", found.theirs),
        ("stock", "Melange, least outstanding, chunks of 2,048", found.theirs),
    )
    for side, title, plan in titles:
        runs = found.kept[side]
        mix = " + ".join(f"{count} {gpu}" for gpu, count in sorted(plan.counts.items()))
        each = [run.both / max(run.arrived, 1) for run in runs]
        total = max(sum(run.arrived for run in runs), 1)
        text = (
            f"${plan.cost_per_hour:.2f} ({mix}), kept {found.attainment(side):.3%} (seeds {min(each):.2%}-{max(each):.2%}; "
            f"TPOT {sum(r.tpot for r in runs) / total:.3%}, TTFT {sum(r.ttft for r in runs) / total:.3%}), "
            f"p99 TTFT {max(r.ttft_p99 for r in runs):.2f} s, TPOT {1e3 * max(r.tpot_p99 for r in runs):.0f} ms"
        )
        rows.append(Row(f"{name}: {title}", text))
    return rows


def _remark(found: list[Found]) -> str:
    faults = [f"{each.scenario.name}: {fault}" for each in found for fault in each.faults]
    return "Every plan of ours passed the checker." if not faults else "Faults: " + "; ".join(faults[:10])

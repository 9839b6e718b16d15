"""Joint selection against one service after the other over a day in the simulator: cost, promises kept, and churn.

Data (`--data DIR`, laid out as the folder autoscaling of the shared data): servegen_30s_load_semisynthetic.npz, arrays `<model>_req` of
requests per 30 s over twelve days. Six services follow three of its models on two days each (`--seed` draws the days), scaled
to a mean rate of their own, on a cluster that is too small for all of them at their busiest. The operator's own planner runs
it (simulator.world.operated); only `select` differs. What counts: dollars of the GPUs that are held, requests within
their promise (an unfinished one is a miss), what misses are worth at the price of unserved load, and replicas created and drained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.base import Arguments, BenchmarkError, Result, Row, data_folder
from cluster.seeds import stable_hash
from simulator.experiments.operating import simulate_operated

FILE = "servegen_30s_load_semisynthetic.npz"
POLICIES = ("cheapest_mix", "joint_mix")
DAY_SECONDS = 86_400
STEP_SECONDS = 60
MODELS = ("m_large", "m_mid", "m_small")


class Kind(NamedTuple):
    """One service: name, model, mean requests/s, tokens in and out, price of unserved load, and what it may run on."""

    name: str
    model: str
    rate: float
    tokens: tuple[int, int]
    dollars: float
    products: tuple[str, ...]


KINDS = (
    Kind("shop/assistant", "llama-3.1-8b", 3.0, (1_000, 200), 200.0, ("l4", "a10g", "a100-80")),
    Kind("shop/search", "llama-3.1-8b", 4.5, (1_500, 60), 50.0, ("l4", "a10g", "a100-80")),
    Kind("shop/reviews", "llama-3.1-8b", 1.5, (2_000, 200), 20.0, ("a10g", "a100-80")),
    Kind("lab/coder", "qwen2.5-14b", 1.2, (1_500, 250), 100.0, ("a100-80",)),
    Kind("lab/summary", "qwen2.5-14b", 0.9, (3_000, 150), 30.0, ("a100-80",)),
    Kind("lab/tagging", "llama-3.1-8b", 6.0, (500, 30), 10.0, ("l4", "a10g")),
)
INVENTORY = (("l4", "L4", 4, 2), ("a10g", "A10G", 4, 1), ("a100", "A100-80", 4, 1))
"""Prefix, product, GPUs of a machine, machines."""


def run(args: Arguments) -> Result:
    """A day with each policy. Raises BenchmarkError without data."""
    path = data_folder(args, "autoscaling") / FILE
    seconds = DAY_SECONDS / 24 if args.quick else DAY_SECONDS
    loads = _loads(path, args.seed)
    found = {
        policy: simulate_operated(scenario(loads, seconds, policy), args.seed).figures for policy in POLICIES
    }
    return judge({policy: _weighed(figures, loads, seconds) for policy, figures in found.items()})


def judge(found: dict[str, dict[str, float]]) -> Result:
    """Rows and figures of what was measured."""
    rows = []
    for name, unit in (
        ("dollars_per_hour", "$/h"),
        ("attainment", ""),
        ("missed_dollars_per_hour", "$/h"),
        ("created", ""),
        ("drained", ""),
    ):
        values = ", ".join(f"{policy} {each[name]:.5g}" for policy, each in found.items())
        rows.append(Row(f"{name.replace('_', ' ')}{f' ({unit})' if unit else ''}", values))
    return Result(rows=tuple(rows), figures=dict(found))


def _weighed(
    figures: dict[str, float], loads: dict[str, np.ndarray[Any, Any]], seconds: float
) -> dict[str, float]:
    """What a day comes to, with misses at the price of unserved load."""
    missed = sum(
        kind.dollars
        * float(loads[kind.name][: int(seconds / STEP_SECONDS)].mean())
        * (1.0 - figures[f"attainment {kind.name}"])
        for kind in KINDS
    )
    own = {f"attainment {kind.name}": round(figures[f"attainment {kind.name}"], 4) for kind in KINDS}
    return {
        "dollars_per_hour": round(figures["dollars_per_hour"], 3),
        "attainment": round(figures["attainment"], 4),
        "missed_dollars_per_hour": round(missed, 3),
        "created": figures.get("actions CreateReplica", 0.0),
        "drained": figures.get("actions Drain", 0.0),
        **own,
    }


def _loads(path: Path, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Requests/s by minute of each service over a day."""
    if not path.is_file():
        raise BenchmarkError(
            f"{path} is not there; give its folder with --data (arrays <model>_req of requests per 30 s)"
        )
    rng = np.random.Generator(np.random.PCG64(stable_hash(seed, "selection-day")))
    found = {}
    with np.load(path) as arrays:
        for number, kind in enumerate(KINDS):
            name = f"{MODELS[number % len(MODELS)]}_req"
            if name not in arrays:
                raise BenchmarkError(f"{path} has no array {name}; it has {', '.join(arrays.files)}")
            series = np.asarray(arrays[name], dtype=np.float64)
            steps = DAY_SECONDS // 30
            day = int(rng.integers(max(1, len(series) // steps)))
            minutes = series[day * steps : (day + 1) * steps].reshape(-1, STEP_SECONDS // 30).mean(axis=1)
            found[kind.name] = np.roll(minutes, int(rng.integers(len(minutes)))) / minutes.mean() * kind.rate
    return found


def scenario(loads: dict[str, np.ndarray[Any, Any]], seconds: float, policy: str) -> dict[str, Any]:
    """The cluster, its services and their traffic, as a scenario file has them."""
    return {
        "seconds": seconds,
        "inventory": [
            {"prefix": prefix, "gpu": gpu, "gpus": gpus, "count": count, "network": "ethernet"}
            for prefix, gpu, gpus, count in INVENTORY
        ],
        "services": [
            {"name": kind.name, "spec": _spec(kind), "traffic": _traffic(kind, loads[kind.name], seconds)}
            for kind in KINDS
        ],
        "policies": {"select": {"name": policy}},
    }


def _spec(kind: Kind) -> dict[str, Any]:
    """A service's ModelService."""
    promise = {"class": "default", "ttftSeconds": 4.0, "tpotSeconds": 0.12}
    return {
        "model": {"name": kind.model},
        "objectives": [{**promise, "unservedDollarsPerHour": kind.dollars}],
        "accelerators": list(kind.products),
        "expectedLoad": {
            "requestsPerSecond": kind.rate,
            "inputTokens": kind.tokens[0],
            "outputTokens": kind.tokens[1],
        },
    }


def _traffic(kind: Kind, load: np.ndarray[Any, Any], seconds: float) -> dict[str, Any]:
    """Poisson requests at a service's rates, minute by minute."""
    rates = [
        {"at": STEP_SECONDS * step, "rate": float(rate)}
        for step, rate in enumerate(load.tolist())
        if STEP_SECONDS * step < seconds
    ]
    sizes = {"input_tokens": kind.tokens[0], "output_tokens": kind.tokens[1]}
    return {"seconds": seconds, "steps": {**sizes, "rates": rates}}

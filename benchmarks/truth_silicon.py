"""Measured engines against the twin: every row of measured_silicon_*.csv, its clients served by the same engine that all else uses.

A row says how many clients ask at once (``batch_size``), for how many tokens, of what on which GPUs. The twin runs them in
a closed loop: their first requests are spread over the time that one takes at the full batch, each asks again when it is
answered, `ROUNDS` times; told are the means over all but each client's first. The step cost is the shipped roofline with its
shipped constants, nothing is fitted to this table. GPUs are those of gpu_specs_prices.csv, GB200 as B200.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.base import BenchmarkError
from placement.catalogue import load
from placement.models import SHAPES
from simulator.physics.engine import EngineInstance
from simulator.physics.sequence import EventKind
from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec, Precision, RooflineConstants

TABLES: Final = "gpu-selection/measured_silicon_*.csv"
SPECS: Final = "gpu-selection/gpu_specs_prices.csv"
ROUNDS: Final = 4
PRODUCTS: Final = {
    "h100_sxm": "H100-SXM", "h200_sxm": "H200-SXM", "b200_sxm": "B200-SXM", "gb200": "B200-SXM", "a100_sxm": "A100-80-SXM", "l40s": "L40S",
}  # fmt: skip
"""Systems of the table by their names in the table of GPUs."""


CATALOGUE: Final = load()
"""Links between the GPUs of a node: the table does not tell them."""


class Kind(NamedTuple):
    """A model: parameters in all and at work for one token, layers, width, KV bytes a token.

    Of `experts` a layer each token takes `chosen`; `shared` parameters are in none of them.
    """

    parameters: float
    active: float
    layers: int
    hidden: int
    kv_bytes: int
    experts: int = 0
    chosen: int = 0
    shared: float = 0.0

    def read(self, tokens: int) -> float:
        """Parameters that a step of so many tokens reads: of the experts those that any of them takes, if all are as likely."""
        if not self.experts:
            return self.parameters
        met = 1.0 - (1.0 - self.chosen / self.experts) ** tokens
        return self.shared + met * (self.parameters - self.shared)


KINDS: Final = {
    "qwen3-32b": Kind(32.8e9, 32.8e9, 64, 5_120, 4 * 64 * 8 * 128),
    "gpt-oss-120b": Kind(116.8e9, 5.1e9, 36, 2_880, 4 * 36 * 8 * 64, 128, 4, 2.1e9),
}
"""Models that the shipped catalogue does not have, as published."""
UNLABELLED: Final = {"llama-3.1-8b": "fp8", "gpt-oss-120b": "fp4"}
"""Precision of rows that tell none (research/gpu-selection.md §2.7 has the first as fp8, the second is published in 4 bits); else bf16."""
BYTES: Final = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp4": 0.5}


class Measured(NamedTuple):
    """One row: what ran, and seconds to the first and per further token."""

    line: int
    model: str
    system: str
    precision: str
    inputs: int
    outputs: int
    clients: int
    ways: int
    ttft: float
    tpot: float


class Compared(NamedTuple):
    """One row beside the twin: relative errors with their sign."""

    row: Measured
    ttft: float
    tpot: float


def read(folder: Path) -> tuple[list[Measured], dict[str, int]]:
    """Rows of all tables, and how many were left out by reason. BenchmarkError when there is no table, or a line of it is none."""
    paths = sorted(folder.glob(TABLES))
    if not paths:
        raise BenchmarkError(f"{folder} has no {TABLES}. Give the folder that has it with --data.")
    rows: list[Measured] = []
    left: dict[str, int] = {}
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for line, given in enumerate(csv.DictReader(file), start=2):
                try:
                    found = _row(line, given)
                except (KeyError, ValueError, TypeError) as error:
                    raise BenchmarkError(f"{path}:{line}: {error}. Correct the line.") from error
                if isinstance(found, str):
                    left[found] = left.get(found, 0) + 1
                else:
                    rows.append(found)
    return rows, left


def _row(line: int, given: Mapping[str, str]) -> Measured | str:
    """A row, or why it cannot be simulated."""
    if None in given.values():
        raise ValueError("the line is too short")
    model = _model_of(given["model_path"])
    if not model:
        return f"no shape of {given['model_path']}"
    if given["system"] not in PRODUCTS:
        return f"no datasheet of {given['system']}"
    if float(given["attention_dp_size"] or 1) > 1:
        return "attention in data parallel"
    precision = given["precision"] or UNLABELLED.get(model, "bf16")
    if precision not in BYTES:
        return f"no weights of {precision}"
    return Measured(
        line, model, given["system"], precision, int(given["isl"]), int(given["osl"]),
        max(1, round(float(given["batch_size"]))), round(float(given["tp_size"])),
        float(given["silicon_ttft_ms"]) / 1e3, float(given["silicon_tpot_ms"]) / 1e3,
    )  # fmt: skip


def _model_of(path: str) -> str:
    name = path.rsplit("/", 1)[-1].lower()
    known = [each for each in (*KINDS, *SHAPES) if name.startswith(each)]
    return max(known, key=len, default="")


def read_gpus(path: Path) -> dict[str, GpuSpec]:
    """Datasheets by name. BenchmarkError when the file is missing or a line of it is none."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["gpu"]: _gpu(row) for row in csv.DictReader(file) if row["gpu"] in PRODUCTS.values()}
    except OSError as error:
        raise BenchmarkError(
            f"{path}: {error.strerror}. Give the folder that has {SPECS} with --data."
        ) from error
    except (KeyError, ValueError) as error:
        raise BenchmarkError(f"{path}: {error} in a line of a GPU. Correct it.") from error


def _gpu(row: Mapping[str, str]) -> GpuSpec:
    fabric = CATALOGUE.find(row["gpu"])
    watts = int(row["tdp_W"].split("-")[-1])
    return GpuSpec(
        product=row["gpu"], memory_bytes=int(float(row["mem_GiB"].split("-")[-1]) * 2**30),
        bandwidth_bytes_per_second=float(row["mem_bw_GBps"]) * 1e9, flops_per_second=float(row["dense_fp16_TFLOPS"]) * 1e12,
        flops_8bit_per_second=float(row["dense_fp8_TFLOPS"] or 0) * 1e12, idle_watts=min(60, watts), min_watts=min(100, watts),
        tdp_watts=watts, max_watts=watts, min_mhz=210, base_mhz=1_200, max_mhz=1_980,
        link="nvlink" if fabric.fabric == "nvlink" else "pcie", link_bytes_per_second=fabric.link_bytes_per_second,
    )  # fmt: skip


def model_of(row: Measured) -> tuple[ModelSpec, int]:
    """The model of a row as the physics knows it, and bytes of weights that its steps do not read.

    Weights of 4 bits compute at the 8-bit rate.
    """
    kind = KINDS.get(row.model)
    if kind is None:
        shape = SHAPES[row.model]
        kv = 4 * shape.layers * shape.kv_heads * shape.head_dim
        kind = Kind(shape.parameters, shape.parameters, shape.layers, shape.hidden_size, kv)
    precision: Precision = "fp8" if row.precision in ("fp8", "fp4") else "bf16"
    each, read = BYTES[row.precision], kind.read(row.clients)
    model = ModelSpec(
        name=row.model, parameters=kind.active, weight_bytes=int(read * each), layers=kind.layers, hidden=kind.hidden,
        kv_bytes_per_token=kind.kv_bytes, precision=precision,
    )  # fmt: skip
    return model, int((kind.parameters - read) * each)


SHIPPED: Final = RooflineConstants()


def serve(row: Measured, gpu: GpuSpec, constants: RooflineConstants = SHIPPED) -> tuple[float, float] | None:
    """Mean seconds to the first and per further token in a closed loop; None where the model or a request does not fit."""
    model, idle = model_of(row)
    spec = EngineSpec(
        tensor_parallel=row.ways, max_num_seqs=row.clients, chunk_tokens=max(8_192, row.clients + 1), reserve_bytes=idle,
        constants=constants,
    )  # fmt: skip
    try:
        engine = EngineInstance(gpu, model, spec)
    except ValueError:
        return None
    if row.inputs + row.outputs > engine.capacity_tokens:
        return None
    cost, context = engine.decode_cost, row.clients * (row.inputs + row.outputs // 2)
    whole = row.outputs * cost.seconds(row.clients, 0, context, 0.0)
    whole += row.clients * cost.seconds(0, row.inputs, 0, row.inputs**2 / 2)
    begun = {client: whole * client / row.clients for client in range(row.clients)}
    for client, at in begun.items():
        engine.submit(client, row.inputs, row.outputs, at)
    first, spent = [], []
    while (now := engine.next_event_seconds()) < math.inf:
        for event in engine.advance_to(now):
            number, at = event.request_id, event.at_seconds
            if event.kind is EventKind.FIRST_TOKEN:
                first.append((number, at - begun[number]))
                begun[number] = at
            elif event.kind is EventKind.FINISHED:
                spent.append((number, (at - begun.pop(number)) / max(row.outputs - 1, 1)))
                again = number + row.clients
                if again < ROUNDS * row.clients:
                    begun[again] = at
                    engine.submit(again, row.inputs, row.outputs, at)
    steady = [[seconds for number, seconds in told if number >= row.clients] for told in (first, spent)]
    return float(np.mean(steady[0])), float(np.mean(steady[1]))


def compare(
    rows: Iterable[Measured], gpus: Mapping[str, GpuSpec], constants: RooflineConstants = SHIPPED
) -> tuple[list[Compared], int]:
    """Each row beside the twin, and how many could not be simulated as they do not fit."""
    done, unfit = [], 0
    for row in rows:
        gpu = gpus.get(PRODUCTS[row.system])
        seen = serve(row, gpu, constants) if gpu is not None else None
        if seen is None:
            unfit += 1
        else:
            done.append(Compared(row, seen[0] / row.ttft - 1.0, seen[1] / row.tpot - 1.0))
    return done, unfit


def medians(found: Iterable[Compared]) -> dict[str, float]:
    """Median absolute errors of TTFT and TPOT, and of how many rows."""
    both = np.abs(np.array([(each.ttft, each.tpot) for each in found]))
    if not len(both):
        return {"ttft": math.nan, "tpot": math.nan, "rows": 0}
    middle = np.median(both, axis=0)
    return {"ttft": round(float(middle[0]), 4), "tpot": round(float(middle[1]), 4), "rows": len(both)}

"""Mechanisms as a scenario file names them: classes of requests, power, PCIe, broken hardware, training jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np

from cluster.seeds import stable_hash
from simulator.experiments.traffic import Strict
from simulator.physics.catalogue import GPU_SPECS
from simulator.physics.failures import LLAMA3_GPU_HOURS
from simulator.physics.loading import StartSpec, WeightTier
from simulator.physics.network import NicClass, NicSpec
from simulator.physics.specs import ModelSpec
from simulator.physics.training import TrainingSpec
from simulator.traces.requests import MOST_PRIORITY, TraceRequest
from simulator.world.parts import Breaking, Buses, Hazard, Parts, Power, Training
from simulator.world.terms import ScenarioError

WHOLE = 1e-6
"""Shares that add up to 1 within this are whole."""


class RequestClass(Strict, frozen=True, kw_only=True):
    """A class of requests: `share` of all, drawn by the seed; a higher `priority` goes first. Promises 0: the scenario's."""

    name: str
    share: float
    priority: int = 0
    ttft_seconds: float = 0.0
    tpot_seconds: float = 0.0


class Start(Strict, frozen=True, kw_only=True):
    """How instances start again: where their weights lie, and the image to pull (0: it is there)."""

    tier: WeightTier = WeightTier.REMOTE
    image_bytes: int = 0
    jitter: float = 0.1


class Broken(Strict, frozen=True, kw_only=True):
    """A node that breaks, or one `gpu` of it; after `repair_seconds` what it took begins a cold start where `restart`.

    With `notice_seconds` it is announced at `at_seconds` and happens so much later: the reclaim of a spot node.
    """

    node: str
    at_seconds: float
    gpu: int = -1
    notice_seconds: float = 0.0
    repair_seconds: float = 0.0
    restart: bool = True


class Random(Strict, frozen=True, kw_only=True):
    """Failures at random: so many a GPU-hour (0: as of Llama 3), `gpu_share` of them single GPUs; with notice: reclaims."""

    per_gpu_hour: float = 0.0
    gpu_share: float = 0.7
    nodes: tuple[str, ...] = ()
    notice_seconds: float = 0.0
    repair_seconds: float = 600.0
    restart: bool = True


class Network(Strict, frozen=True, kw_only=True):
    """The NICs that a training node brings in: `ports` of `rate_bits_per_second` each."""

    kind: NicClass = NicClass.INFINIBAND
    rate_bits_per_second: float = 200e9
    ports: int = 4


class TrainingJob(Strict, frozen=True, kw_only=True):
    """A training job: its shape, and either `count` nodes of its own or the serving nodes of group `beside`."""

    name: str
    parameters: float
    tokens_per_step: float
    steps: int
    gpu: str = "A100-80"
    gpus: int = 8
    count: int = 0
    beside: int = -1
    network: Network = Network()
    at_seconds: float = 0.0
    checkpoint_interval_seconds: float = 600.0
    checkpoint_seconds: float = 30.0
    restore_seconds: float = 60.0
    start_seconds: float = 20.0
    overlap: float = 0.0
    restart_seconds: float = 60.0
    restart_limit: int = 10
    awaited: bool = True


class Mechanisms(Strict, frozen=True, kw_only=True):
    """What of it a scenario has; the fields of `Scenario` of these names."""

    start: Start = Start()
    buses: Buses | None = None
    power: Power | None = None
    breaking: tuple[Broken, ...] = ()
    random_failures: tuple[Random, ...] = ()
    jobs: tuple[TrainingJob, ...] = ()


def start_of(given: Start, model: ModelSpec) -> StartSpec:
    """A cold start of the model. Raises ScenarioError for a figure that cannot be."""
    try:
        return StartSpec(
            weight_bytes=model.weight_bytes,
            tier=given.tier,
            image_bytes=given.image_bytes,
            jitter=given.jitter,
        )
    except ValueError as error:
        raise ScenarioError("start", f"cannot be: {error}") from error


def parts_of(given: Mechanisms, start: StartSpec, nodes_by_group: Sequence[tuple[str, ...]]) -> Parts:
    """The parts of a world. Raises ScenarioError with the path of the field for what cannot be."""
    again = {True: start, False: None}
    return Parts(
        buses=given.buses,
        power=given.power,
        breaking=tuple(
            Breaking(
                node=each.node, at_seconds=each.at_seconds, gpu=each.gpu, notice_seconds=each.notice_seconds,
                repair_seconds=each.repair_seconds, start=again[each.restart],
            )
            for each in given.breaking
        ),
        hazards=tuple(
            Hazard(
                per_gpu_hour=each.per_gpu_hour or 1.0 / LLAMA3_GPU_HOURS, gpu_share=each.gpu_share, nodes=each.nodes,
                notice_seconds=each.notice_seconds, repair_seconds=each.repair_seconds, start=again[each.restart],
            )
            for each in given.random_failures
        ),
        training=tuple(_job(job, f"jobs[{n}]", nodes_by_group) for n, job in enumerate(given.jobs)),
    )  # fmt: skip


def _job(given: TrainingJob, where: str, nodes_by_group: Sequence[tuple[str, ...]]) -> Training:
    gpu = GPU_SPECS.get(given.gpu)
    if gpu is None:
        raise ScenarioError(f"{where}.gpu", f"is {given.gpu!r}; known are {', '.join(sorted(GPU_SPECS))}")
    if (given.count > 0) == (given.beside >= 0):
        raise ScenarioError(
            where, "needs one of count (nodes of its own) and beside (a group to train beside)"
        )
    if given.beside >= len(nodes_by_group):
        raise ScenarioError(f"{where}.beside", f"is {given.beside}; there are {len(nodes_by_group)} groups")
    nodes = (
        nodes_by_group[given.beside]
        if given.beside >= 0
        else tuple(f"{given.name}-{n:03d}" for n in range(given.count))
    )
    shape = {
        name: getattr(given, name)
        for name in TrainingSpec.__struct_fields__
        if name in TrainingJob.__struct_fields__
    }
    network = given.network
    try:
        spec = TrainingSpec(**shape)
        nic = NicSpec(network.kind, network.rate_bits_per_second, network.ports)
    except ValueError as error:
        raise ScenarioError(where, f"cannot be: {error}") from error
    return Training(
        name=given.name, spec=spec, nodes=nodes, gpu=gpu, nic=nic, gpus=given.gpus, at_seconds=given.at_seconds,
        restart_seconds=given.restart_seconds, restart_limit=given.restart_limit, awaited=given.awaited,
    )  # fmt: skip


def check_classes(classes: Sequence[RequestClass]) -> None:
    """Raise ScenarioError with the field at fault: shares of 1 in all, a priority each, promises that are none."""
    for number, each in enumerate(classes):
        where = f"classes[{number}]"
        if not each.share > 0.0:
            raise ScenarioError(f"{where}.share", f"is {each.share}; it must be positive")
        if abs(each.priority) > MOST_PRIORITY:
            raise ScenarioError(
                f"{where}.priority", f"is {each.priority}; at most {MOST_PRIORITY} either way"
            )
        for name in ("ttft_seconds", "tpot_seconds"):
            if getattr(each, name) < 0.0:
                raise ScenarioError(f"{where}.{name}", f"is {getattr(each, name)}; it must not be negative")
        if any(each.priority == other.priority or each.name == other.name for other in classes[:number]):
            raise ScenarioError(
                where, "has the name or the priority of another one; they are told apart by both"
            )
    if classes and abs(sum(each.share for each in classes) - 1.0) > WHOLE:
        raise ScenarioError("classes", f"have shares of {sum(each.share for each in classes):g}; make it 1")


def classified(
    requests: Iterable[TraceRequest], classes: Sequence[RequestClass], seed: int
) -> Iterator[TraceRequest]:
    """The stream with the priority of each request's class, drawn by its number; without classes as it is."""
    if not classes:
        yield from requests
        return
    edges = np.cumsum([each.share for each in classes])
    edges[-1] = np.inf
    priorities = [each.priority for each in classes]
    rng = np.random.Generator(np.random.PCG64(stable_hash(seed, "classes")))
    for request in requests:
        drawn = int(np.searchsorted(edges, rng.random(), side="right"))
        yield msgspec.structs.replace(request, priority=priorities[drawn])

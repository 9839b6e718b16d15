"""Mechanisms that a world has only where its scenario asks for them: PCIe switches, power, failures of hardware, training.

Each is switched off by leaving it out, and then costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from simulator.physics.failures import LLAMA3_GPU_HOURS
from simulator.physics.loading import StartSpec
from simulator.physics.network import NicSpec
from simulator.physics.specs import GpuSpec
from simulator.physics.training import TrainingSpec
from simulator.world.terms import ScenarioError

LONGEST_SAMPLE_SECONDS = 60.0
"""A gang remembers its phases for twice as long."""


class Buses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PCIe: `gpus_per_switch` GPUs share a switch of `bytes_per_second` each way (0: what the product's slot carries)."""

    gpus_per_switch: int = 2
    bytes_per_second: float = 0.0


class Domain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A breaker with nodes behind it: named ones, and all of some groups. A child's nodes are its parent's too."""

    name: str
    rating_watts: int
    parent: str = ""
    nodes: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()


class Cap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From `at_seconds` each node of a domain (of one node; of all where neither is named) may draw `watts` as a server
    (0: no limit), its GPUs' clocks locked at `clock_mhz` (0: free); until `until_seconds` (0: for good).
    """

    at_seconds: float
    watts: int = 0
    clock_mhz: int = 0
    domain: str = ""
    node: str = ""
    until_seconds: float = 0.0


class Meter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A domain's meter tells its mean over each `every_seconds`, `delay_seconds` late (PDUs: 2 s, 2 to 5 s late,
    research/power.md §1.1, §5).
    """

    every_seconds: float = 2.0
    delay_seconds: float = 2.0


class Power(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Watts by phase over time: booked every `every_seconds`; a limit lands `actuation_seconds` after it was set."""

    every_seconds: float = 1.0
    actuation_seconds: float = 0.05
    domains: tuple[Domain, ...] = ()
    caps: tuple[Cap, ...] = ()
    meter: Meter = Meter()


class Breaking(msgspec.Struct, frozen=True, kw_only=True):
    """Hardware that breaks at a time: a node with all on it, or one of its GPUs (`gpu` not -1) with whatever uses it.

    With `notice_seconds` it is announced so much earlier, at `at_seconds`, as the reclaim of a spot node is: nothing new goes
    there from when that is heard of. After `repair_seconds` it is sound again, and the instances that it took begin a cold start there (`start` None: they stay
    away). 0 repairs at once: they start on a spare.
    """

    node: str
    at_seconds: float
    gpu: int = -1
    notice_seconds: float = 0.0
    repair_seconds: float = 0.0
    start: StartSpec | None = None


class Hazard(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes and GPUs break at random: so often a GPU-hour, `gpu_share` of it single GPUs, drawn for each node by itself.

    The default is that of Llama 3 (research/training-placement.md §1.6). `nodes` empty means all. Notice and repair as in
    `Breaking`: reclaims of spot nodes are a hazard with a notice and a share of 0.
    """

    per_gpu_hour: float = 1.0 / LLAMA3_GPU_HOURS
    gpu_share: float = 0.7
    nodes: tuple[str, ...] = ()
    notice_seconds: float = 0.0
    repair_seconds: float = 600.0
    start: StartSpec | None = None


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A training job on `gpus` GPUs of each of `nodes`: nodes that serve too lend it further GPUs and share their NIC.

    Nodes that nobody serves on have GPUs `gpu` and the NIC `nic`, whose class also gives the latency of a message. When a rank
    is lost the attempt fails; `restart_seconds` after all of its nodes are sound the next one starts from the last checkpoint,
    at most `restart_limit` times. The world goes on until it is over where it is `awaited`.
    """

    name: str
    spec: TrainingSpec
    nodes: tuple[str, ...]
    gpu: GpuSpec
    nic: NicSpec
    gpus: int = 8
    at_seconds: float = 0.0
    restart_seconds: float = 60.0
    restart_limit: int = 10
    awaited: bool = True


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What of it a world has."""

    buses: Buses | None = None
    power: Power | None = None
    breaking: tuple[Breaking, ...] = ()
    hazards: tuple[Hazard, ...] = ()
    training: tuple[Training, ...] = ()


def check_parts(parts: Parts, nodes: Collection[str], groups: int) -> None:
    """Raise ScenarioError with the field at fault. `nodes` are those that serve, `groups` how many groups there are."""
    if parts.buses is not None:
        _check("buses", parts.buses, positive=("gpus_per_switch",), least=("bytes_per_second",))
    every = {*nodes, *(node for job in parts.training for node in job.nodes)}
    for number, job in enumerate(parts.training):
        _check_job(f"jobs[{number}]", job)
    _unique("jobs", "name", [job.name for job in parts.training])
    for number, each in enumerate(parts.breaking):
        where = f"breaking[{number}]"
        _check(where, each, least=("at_seconds", "notice_seconds", "repair_seconds"))
        _known(f"{where}.node", each.node, every)
        if each.gpu < -1:
            raise ScenarioError(f"{where}.gpu", f"is {each.gpu}; count from 0, or leave it out for the node")
    for number, hazard in enumerate(parts.hazards):
        _check_hazard(f"random_failures[{number}]", hazard, every)
    if parts.power is not None:
        _check_power(parts.power, every, groups)


def _check_hazard(where: str, hazard: Hazard, nodes: Collection[str]) -> None:
    _check(where, hazard, least=("per_gpu_hour", "gpu_share", "notice_seconds", "repair_seconds"))
    if hazard.gpu_share > 1.0:
        raise ScenarioError(f"{where}.gpu_share", f"is {hazard.gpu_share}; it is a share")
    for node in hazard.nodes:
        _known(f"{where}.nodes", node, nodes)


def _check_job(where: str, job: Training) -> None:
    _check(where, job, positive=("gpus",), least=("at_seconds", "restart_seconds", "restart_limit"))
    if not job.nodes:
        raise ScenarioError(f"{where}.nodes", "is empty; a job needs nodes")
    _unique(f"{where}.nodes", "node", job.nodes)


def _check_power(power: Power, nodes: Collection[str], groups: int) -> None:
    _check("power", power, positive=("every_seconds",), least=("actuation_seconds",))
    if power.every_seconds > LONGEST_SAMPLE_SECONDS:
        raise ScenarioError(
            "power.every_seconds",
            f"is {power.every_seconds}; at most {LONGEST_SAMPLE_SECONDS:g} are looked back",
        )
    _check("power.meter", power.meter, positive=("every_seconds",), least=("delay_seconds",))
    _check_domains(power.domains, nodes, groups)
    names = [domain.name for domain in power.domains]
    for number, cap in enumerate(power.caps):
        where = f"power.caps[{number}]"
        _check(where, cap, least=("at_seconds", "watts", "clock_mhz", "until_seconds"))
        if cap.domain and cap.node:
            raise ScenarioError(where, "has both domain and node; give one")
        if cap.domain:
            _known(f"{where}.domain", cap.domain, names)
        if cap.node:
            _known(f"{where}.node", cap.node, nodes)
        if cap.until_seconds and cap.until_seconds <= cap.at_seconds:
            raise ScenarioError(f"{where}.until_seconds", "is not after at_seconds")


def _check_domains(domains: Sequence[Domain], nodes: Collection[str], groups: int) -> None:
    names = [domain.name for domain in domains]
    _unique("power.domains", "name", names)
    held: dict[str, str] = {}
    for number, domain in enumerate(domains):
        where = f"power.domains[{number}]"
        _check(where, domain, positive=("rating_watts",))
        if domain.parent:
            _known(f"{where}.parent", domain.parent, names[:number])
        for node in domain.nodes:
            _known(f"{where}.nodes", node, nodes)
            if node in held:
                raise ScenarioError(f"{where}.nodes", f"has {node}, which is in {held[node]} already")
            held[node] = domain.name
        for group in domain.groups:
            if not 0 <= group < groups:
                raise ScenarioError(
                    f"{where}.groups", f"has {group}; there are {groups} groups, counted from 0"
                )


def _check(where: str, part: Any, positive: Sequence[str] = (), least: Sequence[str] = ()) -> None:
    for name in positive:
        if not 0.0 < getattr(part, name) < math.inf:
            raise ScenarioError(
                f"{where}.{name}", f"is {getattr(part, name)}; it must be a positive finite number"
            )
    for name in least:
        if not 0.0 <= getattr(part, name) < math.inf:
            raise ScenarioError(f"{where}.{name}", f"is {getattr(part, name)}; it must not be negative")


def _known(path: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        listed = sorted(known)
        told = ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
        raise ScenarioError(path, f"is {name!r}; known are {told or 'none'}")


def _unique(path: str, what: str, names: Sequence[str]) -> None:
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise ScenarioError(path, f"has the {what} {twice!r} twice")

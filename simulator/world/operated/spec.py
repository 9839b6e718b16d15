"""What a world under the operator's planner is made of, and what it may not say."""

from __future__ import annotations

import math

import msgspec

from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Device, Nic, Node, Pool
from cluster.power import PowerDomain
from cluster.seeds import stable_hash
from cluster.serving import Service
from cluster.snapshot import Snapshot
from cluster.training import Job
from policies.planner import PlannerStates
from policies.registry import TABLES, PolicyConfigError, config_of
from simulator.physics.network import NicClass
from simulator.physics.server import NodeSpec
from simulator.physics.shapes import StartProfile
from simulator.physics.specs import EngineSpec
from simulator.world.parts import Parts
from simulator.world.spec import Choice, Delays, Moving, ScenarioError


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One machine: `server` as the physics has it, `noun` as the operator knows it."""

    server: NodeSpec
    noun: Node


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that dies without a word, and (None: never) when it has booted again."""

    node: str
    at_seconds: float
    back_seconds: float | None = None


class OperatedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster and who is to be served and trained in it. `seconds` is how long it is watched.

    `start` and `engine` say how pods start and engines batch. `policies` decide where an object names none, by loop. The
    operator looks every `step_seconds`, plans on change after `debounce_seconds` and at least every `plan_seconds`.
    `origin_seconds` is the UTC time of second 0. `staggered`: nodes report each at a moment of its own. `at_first` is
    what runs already (a snapshot of a cluster), `states` what its planner remembers. Clients say that an answer may become
    `told` times as long as it will.
    """

    machines: tuple[Machine, ...]
    products: tuple[AcceleratorClass, ...]
    pools: tuple[Pool, ...]
    services: tuple[Service, ...] = ()
    jobs: tuple[Job, ...] = ()
    domains: tuple[PowerDomain, ...] = ()
    outages: tuple[Outage, ...] = ()
    seconds: float
    start: StartProfile = StartProfile()
    engine: EngineSpec = EngineSpec()
    policies: dict[str, Choice] = {}
    plan_seconds: float = 10.0
    debounce_seconds: float = 0.2
    step_seconds: float = 1.0
    power_seconds: float = 1.0
    action_seconds: float = 30.0
    bind_seconds: float = 0.1
    peer_loss_seconds: float = 15.0
    delays: Delays = Delays()
    moving: Moving = Moving()
    staggered: bool = True
    origin_seconds: float = 0.0
    at_first: Snapshot | None = None
    states: PlannerStates | None = None
    told: float = 1.0
    seed: int = 1
    event_budget: int = 1_000_000_000
    parts: Parts = Parts()

    def serving_nodes(self) -> tuple[str, ...]:
        """The nodes that may have instances, in order."""
        return tuple(each.noun.name for each in self.machines)


def machine(server: NodeSpec, noun: Node) -> Machine:
    """A machine whose noun has the devices and ports of its server."""
    gpus, nvlink = server.gpus, server.gpu.link == "nvlink"
    devices = tuple(
        Device(
            uuid=f"GPU-{server.name}-{index}",
            index=index,
            numa=index * 2 // gpus,
            clique=0 if nvlink else index,
        )
        for index in range(gpus)
    )
    return Machine(
        server=server, noun=msgspec.structs.replace(noun, devices=devices, nics=_ports(server, noun))
    )


def _ports(server: NodeSpec, noun: Node) -> tuple[Nic, ...]:
    nic = server.nic
    ethernet = nic.nic is NicClass.ETHERNET
    gids = {NicClass.INFINIBAND: ("IB/RoCE v1",), NicClass.ROCE: ("IB/RoCE v1", "RoCE v2")}
    return tuple(
        Nic(
            name=f"{'eth' if ethernet else 'mlx5_'}{index}",
            link=nic.nic.value,
            rate_bits_per_second=int(nic.rate_bits_per_second),
            gid_types=gids.get(nic.nic, ()),
            subnet=noun.island,
            numa=index * 2 // nic.count,
        )
        for index in range(nic.count)
    )


def tie_rank(seed: int, node: str) -> int:
    """The order of a node among equals: the operator's."""
    return stable_hash(seed, node) >> 16


def node_ref(name: str) -> Ref:
    """The ref of a machine of this world."""
    return Ref("Node", name, name)


def check_operated(spec: OperatedSpec) -> None:
    """Raise ScenarioError, naming the field, for what contradicts itself or the inventory."""
    if not spec.machines:
        raise ScenarioError("inventory", "is empty; services and jobs need machines")
    for name in ("seconds", "plan_seconds", "step_seconds", "power_seconds", "action_seconds"):
        _above(name, getattr(spec, name), strictly=True)
    for name in ("debounce_seconds", "bind_seconds", "peer_loss_seconds"):
        _above(name, getattr(spec, name))
    for part in ("delays", "moving"):
        for name in getattr(spec, part).__struct_fields__:
            strictly, value = part == "moving" or name == "report_seconds", getattr(getattr(spec, part), name)
            if not isinstance(value, bool):
                _above(f"{part}.{name}", value, strictly=strictly)
    if spec.delays.agent_low_seconds > spec.delays.agent_high_seconds:
        raise ScenarioError("delays.agent_low_seconds", "is above delays.agent_high_seconds")
    for loop, choice in spec.policies.items():
        _check_policy(f"policies.{loop}", loop, choice.name, choice.config)
    for number, service in enumerate(spec.services):
        _check_service(f"services[{number}]", service, spec)
    _check_jobs(spec)
    _check_outages(spec)


def _check_policy(path: str, loop: str, name: str, config: dict[str, object]) -> None:
    if loop not in TABLES:
        raise ScenarioError(path, f"names no loop; loops with policies are {', '.join(TABLES)}")
    try:
        config_of(loop, name, config)
    except PolicyConfigError as error:
        raise ScenarioError(path, f"cannot be used: {error}") from error


def _check_service(path: str, service: Service, spec: OperatedSpec) -> None:
    for loop, name in service.policies.name.items():
        _check_policy(f"{path}.spec.policies.{loop}", loop, name, service.policies.config.get(loop, {}))
    most = {}
    for variant in service.variants:
        sizes = [m.server.gpus for m in spec.machines if m.noun.accelerator == variant.accelerator]
        most[variant.key] = sum(size // variant.gpus for size in sizes)
    floor = max(service.floor_units, service.replicas)
    if floor > sum(most.values()):
        has = ", ".join(f"{count} of {key}" for key, count in sorted(most.items())) or "no variant at all"
        raise ScenarioError(
            f"{path}.spec.minReplicas", f"asks for {floor} replicas; the inventory has room for {has}"
        )


def _check_jobs(spec: OperatedSpec) -> None:
    for number, job in enumerate(spec.jobs):
        fits: dict[str, int] = {}
        for each in spec.machines:
            product = each.noun.accelerator
            if (
                not job.accelerators or product in job.accelerators
            ) and each.server.gpus >= job.gpus_per_node:
                fits[product] = fits.get(product, 0) + 1
        if job.min_nodes > max(fits.values(), default=0):
            raise ScenarioError(
                f"jobs[{number}].spec.nodes.min",
                f"is {job.min_nodes}; at most {max(fits.values(), default=0)} machines of one product have "
                f"{job.gpus_per_node} GPUs that the job may use",
            )


def _check_outages(spec: OperatedSpec) -> None:
    known = {each.noun.name for each in spec.machines}
    for number, outage in enumerate(spec.outages):
        path = f"outages[{number}]"
        if outage.node not in known:
            raise ScenarioError(f"{path}.node", f"is {outage.node!r}, which the inventory does not have")
        _above(f"{path}.at_seconds", outage.at_seconds)
        if outage.back_seconds is not None and not outage.at_seconds < outage.back_seconds < math.inf:
            raise ScenarioError(
                f"{path}.back_seconds", f"is {outage.back_seconds}; it must be after at_seconds"
            )


def _above(path: str, value: float, *, strictly: bool = False) -> None:
    if not 0.0 <= value < math.inf or (strictly and value == 0.0):
        raise ScenarioError(
            path, f"is {value}; it must be {'positive' if strictly else 'at least 0'} and finite"
        )

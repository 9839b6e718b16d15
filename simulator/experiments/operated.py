"""Scenario files of a whole cluster under the operator's planner: inventory, services, jobs, policies; or a captured cluster.

Services and jobs are written as in their custom resources and judged by the same schema; what is wrong is told with the path of
the field before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from cluster.hardware import AcceleratorClass, Market, Node, Pool
from cluster.power import PowerDomain
from cluster.serving import Service
from placement.catalogue import Catalogue, CatalogueError
from placement.catalogue import load as catalogue
from simulator.experiments.captured import Captured, machines_of, read_captured
from simulator.experiments.scenario import Engine
from simulator.experiments.traffic import Strict, Traffic, check_traffic
from simulator.physics.catalogue import GPU_SPECS
from simulator.physics.network import NicClass, NicSpec
from simulator.physics.server import NodeSpec
from simulator.physics.shapes import StartProfile
from simulator.physics.specs import EngineSpec
from simulator.world.operated.objects import domain_of, job_of, service_of
from simulator.world.operated.spec import Machine, OperatedSpec, Outage, machine, node_ref, tie_rank
from simulator.world.parts import Buses, Meter, Parts, Power, check_parts
from simulator.world.spec import Choice, Delays, Moving, ScenarioError

GIB = 2**30


class Machines(Strict, frozen=True, kw_only=True):
    """`count` like machines, named `prefix-00` and on, `island_size` of them on one network (0: all).

    `ports` ports of `gbits_per_second` each. What a GPU costs an hour is the catalogue's where it is not given.
    `safe_gpu_watts` is what each GPU may draw without a lease (0: no limit).
    """

    prefix: str
    gpu: str
    count: int
    gpus: int = 8
    network: Literal["ethernet", "roce", "infiniband"] = "ethernet"
    gbits_per_second: float = 100.0
    ports: int = 1
    island_size: int = 0
    zone: str = "zone-a"
    pool: str = ""
    market: Literal["on_demand", "spot", "reserved"] = "on_demand"
    dollars_per_gpu_hour: float | None = None
    safe_gpu_watts: int = 0
    speed: float = 1.0


class Wanted(Strict, frozen=True, kw_only=True):
    """A service: `spec` is a ModelService's, `traffic` its requests; `measured` are those of a captured cluster.

    Without a `spec` it is the captured cluster's service of that name.
    """

    name: str
    spec: dict[str, Any] | None = None
    traffic: Traffic | Literal["measured", "none"] = "none"


class Trained(Strict, frozen=True, kw_only=True):
    """A job: `spec` is a TrainingJob's."""

    name: str
    spec: dict[str, Any]


class Breaker(Strict, frozen=True, kw_only=True):
    """A power domain: `spec` is a PowerDomain's, but for its members, which are `nodes` (none: all)."""

    name: str
    spec: dict[str, Any]
    nodes: tuple[str, ...] = ()


class Down(Strict, frozen=True, kw_only=True):
    """A machine that dies, and when it is back."""

    node: str
    at_seconds: float
    back_seconds: float | None = None


class Operating(Strict, frozen=True, kw_only=True):
    """How often the operator looks and plans."""

    plan_seconds: float = 10.0
    debounce_seconds: float = 0.2
    step_seconds: float = 1.0


class Booked(Strict, frozen=True, kw_only=True):
    """Watts of all machines: booked every so often, read by the meters of `domains`."""

    every_seconds: float = 1.0
    meter: Meter = Meter()


class OperatedScenario(Strict, frozen=True, kw_only=True):
    """One experiment on a cluster. With `snapshot` it begins as that cluster was, and what is given is added.

    `power` books what machines draw also where there is no domain, and says how often.
    """

    seconds: float
    inventory: tuple[Machines, ...] = ()
    snapshot: str = ""
    services: tuple[Wanted, ...] = ()
    jobs: tuple[Trained, ...] = ()
    domains: tuple[Breaker, ...] = ()
    outages: tuple[Down, ...] = ()
    power: Booked | None = None
    buses: Buses | None = None
    name: str = ""
    policies: dict[str, Choice] = {}
    operator: Operating = Operating()
    start: StartProfile = StartProfile()
    engine: Engine = Engine(admission="reserve")
    moving: Moving = Moving()
    delays: Delays = Delays()
    origin_seconds: float = 0.0
    event_budget: int = 1_000_000_000


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What a run begins with."""

    spec: OperatedSpec
    captured: Captured | None


def is_operated(given: Mapping[str, Any]) -> bool:
    """Whether a scenario is of a whole cluster under the planner."""
    return "inventory" in given or "snapshot" in given


def operated_of(given: Mapping[str, Any]) -> OperatedScenario:
    """The scenario of plain data. Raises ScenarioError with the path of the first field that is wrong."""
    try:
        found = msgspec.convert(given, OperatedScenario, strict=False)
    except msgspec.ValidationError as error:
        sentence, _, where = str(error).partition(" - at `$")
        raise ScenarioError(where.strip("`.") or "scenario", f"is wrong: {sentence}") from error
    for number, service in enumerate(found.services):
        path = f"services[{number}].traffic"
        if isinstance(service.traffic, Traffic):
            check_traffic(service.traffic, path)
        elif service.traffic == "measured" and not found.snapshot:
            raise ScenarioError(path, "is measured, and there is no snapshot that it was measured in")
    for kind in ("services", "jobs", "domains"):
        _unique(kind, [each.name for each in getattr(found, kind)])
    return found


def _unique(kind: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ScenarioError(f"{kind}[{number}].name", f"is {name!r}, as that of another one")


def prepared(scenario: OperatedScenario, seed: int) -> Prepared:
    """The world's description. Raises ScenarioError with the path of the field for what cannot be."""
    captured = read_captured(Path(scenario.snapshot)) if scenario.snapshot else None
    before = captured.snapshot if captured is not None else None
    origin = before.stamp.taken_seconds if before is not None else scenario.origin_seconds
    products, pools, machines = _inventory(scenario, captured, seed)
    services = _services(scenario, before, products, origin)
    jobs = dict(before.jobs) if before is not None else {}
    for number, each in enumerate(scenario.jobs):
        jobs[each.name] = job_of(each.name, each.spec, products, origin, f"jobs[{number}].spec")
    domains, members = _domains(scenario, before, [each.noun.name for each in machines])
    spec = OperatedSpec(
        machines=tuple(_under(each, members) for each in machines),
        products=tuple(products.values()),
        pools=tuple(pools.values()),
        services=tuple(services[name] for name in sorted(services)),
        jobs=tuple(jobs[name] for name in sorted(jobs)),
        domains=tuple(domains.values()),
        outages=tuple(
            Outage(node=e.node, at_seconds=e.at_seconds, back_seconds=e.back_seconds)
            for e in scenario.outages
        ),
        seconds=scenario.seconds,
        start=scenario.start,
        engine=_engine(scenario.engine),
        policies=dict(captured.choices) | scenario.policies if captured is not None else scenario.policies,
        plan_seconds=scenario.operator.plan_seconds,
        debounce_seconds=scenario.operator.debounce_seconds,
        step_seconds=scenario.operator.step_seconds,
        parts=_parts(scenario, leased=bool(domains)),
        delays=scenario.delays,
        moving=scenario.moving,
        origin_seconds=origin,
        at_first=before,
        states=captured.states if captured is not None else None,
        seed=seed,
        event_budget=scenario.event_budget,
    )
    return Prepared(spec=spec, captured=captured)


def _parts(scenario: OperatedScenario, *, leased: bool) -> Parts:
    """What is asked for; watts are booked wherever there are leases."""
    booked = scenario.power or (Booked() if leased else None)
    power = Power(every_seconds=booked.every_seconds, meter=booked.meter) if booked is not None else None
    parts = Parts(power=power, buses=scenario.buses)
    check_parts(parts, (), 0)
    return parts


def _engine(given: Engine) -> EngineSpec:
    try:
        return EngineSpec(**{name: getattr(given, name) for name in given.__struct_fields__})
    except (TypeError, ValueError) as error:
        raise ScenarioError("engine", f"cannot be: {error}") from error


def _inventory(
    scenario: OperatedScenario, captured: Captured | None, seed: int
) -> tuple[dict[str, AcceleratorClass], dict[str, Pool], list[Machine]]:
    products: dict[str, AcceleratorClass] = {}
    pools: dict[str, Pool] = {}
    machines: list[Machine] = []
    if captured is not None:
        products |= captured.snapshot.accelerators
        pools |= captured.snapshot.pools
        machines += machines_of(captured.snapshot)
    shipped = catalogue()
    for number, group in enumerate(scenario.inventory):
        path = f"inventory[{number}]"
        product = _product(group, shipped, products, path)
        products[product.name] = product
        pool = _pool(group, product, shipped, pools, path)
        pools[pool.name] = pool
        machines += _machines(group, product, pool, seed, path)
    names = [each.noun.name for each in machines]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise ScenarioError(
            "inventory", f"has two machines of the name {twice!r}; give prefixes of their own"
        )
    return products, pools, machines


def _product(
    group: Machines, shipped: Catalogue, known: Mapping[str, AcceleratorClass], path: str
) -> AcceleratorClass:
    for product in known.values():
        if group.gpu in (product.name, *product.aliases):
            return product
    try:
        found = shipped.find(group.gpu)
    except CatalogueError as error:
        raise ScenarioError(f"{path}.gpu", f"cannot be used: {error}") from error
    if found.name not in GPU_SPECS:
        raise ScenarioError(f"{path}.gpu", f"is {group.gpu!r}; simulated are {', '.join(sorted(GPU_SPECS))}")
    made = found.accelerator_class()
    return msgspec.structs.replace(made, aliases=tuple(dict.fromkeys((made.name.lower(), *made.aliases))))


def _pool(
    group: Machines, product: AcceleratorClass, shipped: Catalogue, known: Mapping[str, Pool], path: str
) -> Pool:
    name = group.pool or f"{product.name.lower()}-{group.market.replace('_', '-')}"
    price = group.dollars_per_gpu_hour
    if price is None:
        if name in known:
            return known[name]
        try:
            price = shipped.find(group.gpu).pool().dollars_per_gpu_hour
        except CatalogueError as error:
            raise ScenarioError(f"{path}.dollars_per_gpu_hour", f"is needed: {error}") from error
    if price < 0.0:
        raise ScenarioError(f"{path}.dollars_per_gpu_hour", "must not be negative")
    return Pool(name=name, accelerator=product.name, market=Market(group.market), dollars_per_gpu_hour=price)


def _machines(group: Machines, product: AcceleratorClass, pool: Pool, seed: int, path: str) -> list[Machine]:
    for name in ("count", "gpus", "ports", "gbits_per_second", "speed"):
        if not getattr(group, name) > 0:
            raise ScenarioError(f"{path}.{name}", f"is {getattr(group, name)}; it must be positive")
    gpu = GPU_SPECS.get(product.name)
    if gpu is None:
        raise ScenarioError(
            f"{path}.gpu", f"is {product.name!r}; simulated are {', '.join(sorted(GPU_SPECS))}"
        )
    nic = NicSpec(NicClass(group.network), group.gbits_per_second * 1e9, group.ports)
    found = []
    for index in range(group.count):
        name = f"{group.prefix}-{index:02d}"
        server = NodeSpec(name=name, gpu=gpu, gpus=group.gpus, nic=nic, speed=group.speed)
        if group.safe_gpu_watts:
            safe = server.base_watts + group.gpus * min(
                max(group.safe_gpu_watts, gpu.min_watts), gpu.max_watts
            )
            server = msgspec.structs.replace(server, safe_watts=safe)
        number = index // group.island_size if group.island_size else 0
        noun = Node(
            ref=node_ref(name), pool=pool.name, accelerator=product.name, devices=(),
            cpu_millis=12_000 * group.gpus, memory_bytes=96 * GIB * group.gpus, topology=(group.zone,),
            island=f"{group.prefix}-{group.network}-{number}", order=tie_rank(seed, name),
        )  # fmt: skip
        found.append(machine(server, noun))
    return found


def _services(
    scenario: OperatedScenario, before: Any, products: Mapping[str, AcceleratorClass], origin: float
) -> dict[str, Service]:
    found: dict[str, Service] = dict(before.services) if before is not None else {}
    for number, each in enumerate(scenario.services):
        path = f"services[{number}]"
        if each.spec is not None:
            found[each.name] = service_of(each.name, each.spec, products, origin, f"{path}.spec")
        elif each.name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise ScenarioError(f"{path}.spec", f"is missing, and the snapshot's services are {known}")
    return found


def _domains(
    scenario: OperatedScenario, before: Any, nodes: list[str]
) -> tuple[dict[str, PowerDomain], dict[str, str]]:
    """Domains by name, and the domain of each node that has one."""
    found: dict[str, PowerDomain] = dict(before.domains) if before is not None else {}
    for number, each in enumerate(scenario.domains):
        path = f"domains[{number}]"
        strange = next((node for node in each.nodes if node not in nodes), None)
        if strange is not None:
            raise ScenarioError(f"{path}.nodes", f"names {strange!r}, which the inventory does not have")
        found[each.name] = domain_of(each.name, each.spec, each.nodes or tuple(nodes), f"{path}.spec")
    members: dict[str, str] = {}
    for name, domain in sorted(found.items()):
        for node in domain.members:
            if node in members:
                raise ScenarioError("domains", f"{members[node]} and {name} both have the node {node!r}")
            members[node] = name
    return found, members


def _under(each: Machine, members: Mapping[str, str]) -> Machine:
    domain = members.get(each.noun.name, "")
    return msgspec.structs.replace(each, noun=msgspec.structs.replace(each.noun, power_domain=domain))

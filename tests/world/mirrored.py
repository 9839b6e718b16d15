"""A play of tests/scenarios as a world under the planner: the same fleet, the same manifests, the same traffic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Node, Pool
from controller.config import OperatorConfig
from controller.resources.manifests import parse
from simulator.fleet.specs import FleetSpec, NodeSpec
from simulator.traces.requests import TraceRequest
from simulator.world.operated.objects import domain_of, job_of, product_of, service_of
from simulator.world.operated.spec import OperatedSpec, machine, node_ref, tie_rank
from simulator.world.parts import Parts, Power
from simulator.world.spec import Choice, Delays

AT_ONCE = Delays(gateway_seconds=0.0, agent_low_seconds=0.0, agent_high_seconds=0.0, watch_seconds=0.0)
"""The embedded tier tells everything within the second in which it happens."""


def mirrored(
    fleet: FleetSpec, text: str, config: OperatorConfig, origin: float, seconds: float, **more
) -> OperatedSpec:
    """The world of a fleet and manifests, whose operator began to look at `origin` (UTC)."""
    manifests, problems = parse(text)
    assert not problems
    found = [(m.resource.kind, m.obj["metadata"], m.obj.get("spec", {})) for m in manifests]
    sold = [
        product_of(meta["name"], spec, meta["name"])
        for kind, meta, spec in found
        if kind == "AcceleratorClass"
    ]
    classes = {product.name: product for product, _ in sold}
    pools = [pool for _, several in sold for pool in several]
    objects = {
        wanted: [
            make(f"{meta['namespace']}/{meta['name']}", spec, classes, origin, meta["name"])
            for kind, meta, spec in found
            if kind == wanted
        ]
        for wanted, make in (("ModelService", service_of), ("TrainingJob", job_of))
    }
    every = tuple(node.name for node in fleet.nodes)
    domains = tuple(
        domain_of(meta["name"], spec, every, meta["name"])
        for kind, meta, spec in found
        if kind == "PowerDomain"
    )
    above = domains[0].name if domains else ""
    return OperatedSpec(
        machines=tuple(machine(n.server(), _noun(n, pools, classes, config.seed, above)) for n in fleet.nodes),
        products=tuple(classes.values()), pools=tuple(pools), services=tuple(objects["ModelService"]),
        domains=domains, parts=Parts(power=Power()) if domains else Parts(),
        jobs=tuple(objects["TrainingJob"]), seconds=seconds, start=fleet.start, engine=fleet.engine,
        policies={loop: Choice(c.name, dict(c.config)) for loop, c in config.policies.items()},
        plan_seconds=config.plan_seconds, debounce_seconds=config.debounce_seconds, bind_seconds=0.0,
        peer_loss_seconds=fleet.peer_loss_seconds, delays=AT_ONCE, staggered=False, origin_seconds=origin,
        seed=config.seed, **more,
    )  # fmt: skip


def _noun(
    spec: NodeSpec, pools: Iterable[Pool], classes: dict[str, AcceleratorClass], seed: int, domain: str
) -> Node:
    product = next(name for name, c in classes.items() if spec.product in (name, *c.aliases))
    return Node(
        ref=node_ref(spec.name), pool=next(p.name for p in pools if p.accelerator == product), accelerator=product,
        devices=(), cpu_millis=spec.cpu_millis, memory_bytes=spec.memory_bytes, nvme_bytes=spec.nvme_bytes,
        island=spec.island, topology=(spec.zone,), order=tie_rank(seed, spec.name), power_domain=domain,
    )  # fmt: skip


def steady(
    per_second: float, from_seconds: float, seconds: float, prompt: int = 200, output: int = 40
) -> list[TraceRequest]:
    """`Stage.load` as a stream."""
    count = round(per_second * seconds)
    return [TraceRequest(n, from_seconds + n / per_second, prompt, output) for n in range(count)]


def plain(noun: Any) -> Any:
    """A noun without what only an API server gives: uid and version of its ref."""
    return (
        msgspec.structs.replace(noun, ref=Ref(noun.ref.kind, noun.ref.name)) if hasattr(noun, "ref") else noun
    )

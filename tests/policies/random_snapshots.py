"""Seeded random clusters for tests of deciding: any mix of products, services, jobs and other people's pods."""

from __future__ import annotations

import numpy as np

from cluster.hardware import Offer
from cluster.serving import (
    Mode,
    Objective,
    Policies,
    ReplicaPhase,
)
from cluster.snapshot import Snapshot
from placement.models import model_spec
from tests.policies.builders import ClusterBuilder, a_cluster

PRODUCTS = ("L4", "A10G", "A100-80", "H100")


def random_snapshot(seed: int) -> Snapshot:
    """A random cluster: several products, services of mixed priority and state, jobs, other people's pods."""
    rng = np.random.default_rng(seed)
    made = a_cluster()
    products = [p for p in PRODUCTS if rng.random() < 0.75] or ["L4"]
    for name in products:
        made.with_pool(f"{name.lower()}-od", name)
        links = ["ethernet", "roce", "infiniband"]
        gpus = int(rng.choice([1, 2, 4, 8]))
        made.with_nodes(int(rng.integers(1, 9)), f"{name.lower()}-od", gpus=gpus, link=str(rng.choice(links)))
    nodes = sorted(made.parts["nodes"])
    for number in range(int(rng.integers(0, 6))):
        node = str(rng.choice(nodes))
        made.with_claim(
            f"other/pod-{number}", node, int(rng.integers(0, len(made.parts["nodes"][node].devices)))
        )
    for name in nodes:
        if rng.random() < 0.08:
            made.changing(
                "nodes", name, offer=Offer(str(rng.choice(["cordoned", "lost", "isolated", "reclaiming"])))
            )
    for number in range(int(rng.integers(1, 5))):
        _random_service(made, rng, f"shop/service-{number}", products)
    for number in range(int(rng.integers(0, 3))):
        least = int(rng.integers(1, 3))
        made.with_job(
            f"lab/job-{number}",
            nodes=(least, least + int(rng.integers(0, 2))),
            gpus=int(rng.choice([1, 2, 4])),
            priority=int(rng.integers(-1, 3)),
            suspended=bool(rng.random() < 0.1),
        )
    return made.build()


def _random_service(made: ClusterBuilder, rng: np.random.Generator, name: str, products: list[str]) -> None:
    offers = [f"{p}x{g}" for p in [*products, "T4"] for g in (1, 2) if rng.random() < 0.6] or [products[0]]
    rate = float(rng.choice([0.0, 0.3, 2.0, 9.0, 25.0])) * float(rng.uniform(0.5, 1.5))
    made.with_service(
        name,
        *offers,
        model=model_spec(str(rng.choice(["llama-3.1-8b", "llama-2-13b", "mistral-7b"])), {}),
        objectives=(
            Objective(
                ttft_seconds=float(rng.choice([0.5, 2.0, 5.0])),
                tpot_seconds=float(rng.choice([0.03, 0.06, 0.15])),
                priority=int(rng.integers(0, 3)),
                unserved_dollars=float(rng.choice([20.0, 200.0])),
            ),
        ),
        floor_units=int(rng.integers(0, 3)),
        mode=Mode(str(rng.choice(["Auto", "Auto", "Auto", "Recommend", "Off"]))),
        replicas=int(rng.integers(0, 3)),
        expected_requests_per_second=float(rng.choice([0.0, 1.0])),
        policies=Policies(),
    )
    if rng.random() < 0.8:
        made.with_load(name, rate, held=float(rng.integers(0, 4)))
    nodes = sorted(made.parts["nodes"])
    for _ in range(int(rng.integers(0, 4))):
        _random_replica(made, rng, name, nodes)
    if rng.random() < 0.5:
        pool = made.parts["nodes"][nodes[0]].pool
        accelerator = made.parts["pools"][pool].accelerator
        made.with_capacity(
            name, rate, (accelerator, pool, int(rng.integers(1, 4))), final=bool(rng.random() < 0.7)
        )


def _random_replica(made: ClusterBuilder, rng: np.random.Generator, service: str, nodes: list[str]) -> None:
    node = made.parts["nodes"][str(rng.choice(nodes))]
    used = {
        i for c in made.parts.get("claims", {}).values() if c.slot.node == node.name for i in c.slot.devices
    }
    free = [d.index for d in node.devices if d.index not in used]
    if not free:
        return
    phases = list(ReplicaPhase)[:-1]
    phase = phases[int(rng.integers(0, len(phases)))] if rng.random() < 0.4 else ReplicaPhase.READY
    made.with_replica(
        service,
        node.accelerator,
        node.name,
        phase,
        devices=(free[0],),
        age=float(rng.choice([1.0, 8.0, 80.0])),
    )
    key = max(made.parts["replicas"])
    if rng.random() < 0.7:
        made.with_row(key, running=float(rng.integers(0, 5)), waiting=0.0, route_weight=float(rng.random()))

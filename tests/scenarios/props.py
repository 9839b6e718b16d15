"""Small fleets, quick starts and manifests that scenarios share."""

from __future__ import annotations

from pathlib import Path

import msgspec

from simulator.fleet.specs import (
    ETHERNET,
    INFINIBAND_NDR,
    FleetSpec,
    Group,
    demo_fleet,
)
from simulator.physics.catalogue import A10G, H100, L4
from simulator.physics.loading import WeightTier
from simulator.physics.shapes import StartProfile

QUICK = StartProfile(
    container_seconds=0.5,
    process_seconds=1.0,
    engine_seconds=0.5,
    warm_up_seconds=0.5,
    rank_seconds=1.0,
    tier=WeightTier.DRAM,
    jitter=0.0,
)
"""An engine is ready some three seconds after its pod was bound, ranks meet after two."""

ROW = {"plimsoll.dev/row": "row-a"}
PRODUCTS = (Path(__file__).parents[2] / "examples/demo/accelerators.yaml").read_text()

_GROUPS = {
    "l4": Group(prefix="l4", gpu=L4, gpus=2, count=0, nic=ETHERNET, safe_gpu_watts=60),
    "a10g": Group(prefix="a10g", gpu=A10G, gpus=2, count=0, nic=ETHERNET, safe_gpu_watts=200),
    "h100": Group(prefix="h100", gpu=H100, gpus=2, count=0, nic=INFINIBAND_NDR, safe_gpu_watts=400),
}


def fleet(seed: int = 0, **counts: int) -> FleetSpec:
    """So many nodes of two GPUs of each product: l4 and a10g on Ethernet, h100 in one InfiniBand island."""
    groups = tuple(msgspec.structs.replace(_GROUPS[name], count=count) for name, count in counts.items())
    made = demo_fleet(groups=groups, seed=seed, start=QUICK)
    nodes = tuple(msgspec.structs.replace(node, labels={**node.labels, **ROW}) for node in made.nodes)
    return msgspec.structs.replace(made, nodes=nodes, peer_loss_seconds=3.0)


def manifests(*parts: str) -> str:
    """One text of several; products and namespaces are there already."""
    return "\n---\n".join((PRODUCTS, NAMESPACES, *parts))


NAMESPACES = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: lab}
"""


def service(
    name: str,
    more: str = "",
    *,
    model: str = "llama-3.1-8b",
    on: str = "l4",
    ttft: float = 3.0,
    tpot: float = 0.12,
    priority: int = 0,
) -> str:
    """A ModelService in namespace shop; `more` are further lines of its spec."""
    return f"""
apiVersion: plimsoll.dev/v1alpha1
kind: ModelService
metadata: {{name: {name}, namespace: shop}}
spec:
  model: {{name: {model}}}
  objectives: [{{class: default, ttftSeconds: {ttft}, tpotSeconds: {tpot}, priority: {priority}}}]
  accelerators: [{on}]
  drainSeconds: 10
{_indented(more)}
"""


def job(
    name: str, more: str = "", *, nodes: int = 2, gpus: int = 2, on: str = "h100", steps: int = 60
) -> str:
    """A TrainingJob in namespace lab; `more` are further lines of its spec."""
    return f"""
apiVersion: plimsoll.dev/v1alpha1
kind: TrainingJob
metadata: {{name: {name}, namespace: lab}}
spec:
  model: {{name: gpt-3-1.3b, sequenceLength: 2048}}
  nodes: {{min: {nodes}}}
  gpusPerNode: {gpus}
  accelerators: [{on}]
  steps: {steps}
  globalBatch: 16
  microBatch: 2
  checkpoint: {{intervalSeconds: 5, secondsToWrite: 1}}
{_indented(more)}
"""


def domain(
    name: str, watts: int, more: str = "", members: str = "selector: {matchLabels: {plimsoll.dev/row: row-a}}"
) -> str:
    """A PowerDomain."""
    return f"""
apiVersion: plimsoll.dev/v1alpha1
kind: PowerDomain
metadata: {{name: {name}}}
spec:
  ratingWatts: {watts}
  marginFraction: 0.03
  members: {{{members}}}
{_indented(more)}
"""


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines())

"""A cluster as `plimsoll snapshot` captured it: the planner's view, what its policies remember, and what chose them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from cluster.codec import from_json
from cluster.hardware import Node
from cluster.snapshot import Snapshot
from policies.planner import PlannerStates
from simulator.physics.catalogue import GPU_SPECS
from simulator.physics.network import NicClass, NicSpec
from simulator.physics.server import NodeSpec
from simulator.world.operated.spec import Machine
from simulator.world.spec import Choice, ScenarioError


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a replay record that a world begins with; what was decided then is not needed."""

    snapshot: Snapshot
    states: PlannerStates = PlannerStates()
    policies: dict[str, tuple[str, dict[str, Any]]] = {}

    @property
    def choices(self) -> dict[str, Choice]:
        """Policies by loop where no object chose one."""
        return {loop: Choice(name, config) for loop, (name, config) in self.policies.items()}


def read_captured(path: Path) -> Captured:
    """The capture in a file. Raises ScenarioError when there is none."""
    try:
        return from_json(path.read_bytes(), Captured)
    except OSError as error:
        raise ScenarioError("snapshot", f"{path} cannot be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise ScenarioError("snapshot", f"{path} is no capture of `plimsoll snapshot`: {error}") from error


def machines_of(snapshot: Snapshot) -> list[Machine]:
    """Machines like those of the captured cluster. Raises ScenarioError for a product nobody simulates."""
    return [Machine(server=_server(snapshot, node), noun=node) for _, node in sorted(snapshot.nodes.items())]


def _server(snapshot: Snapshot, node: Node) -> NodeSpec:
    product = snapshot.accelerators.get(node.accelerator)
    names = (node.accelerator, *(product.aliases if product is not None else ()))
    gpu = next((GPU_SPECS[name] for name in names if name in GPU_SPECS), None)
    if gpu is None:
        known = ", ".join(sorted(GPU_SPECS))
        raise ScenarioError(
            "snapshot", f"has the node {node.name} with {node.accelerator}; simulated are {known}"
        )
    best = max(node.nics, key=lambda nic: (nic.rate_bits_per_second, nic.name), default=None)
    link = NicSpec(NicClass.ETHERNET, 25e9, 1)
    if best is not None:
        ports = sum(nic.link == best.link for nic in node.nics)
        link = NicSpec(NicClass(best.link), float(best.rate_bits_per_second), ports)
    row = snapshot.node_table.index().get(node.name)
    safe = float(snapshot.node_table.safe_watts[row]) if row is not None else 0.0
    return NodeSpec(
        name=node.name,
        gpu=gpu,
        gpus=len(node.devices),
        nic=link,
        safe_watts=int(safe) if math.isfinite(safe) else 0,
    )

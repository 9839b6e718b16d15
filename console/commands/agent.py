"""`plimsoll agent`: the daemon of a node, over NVML or over one simulated machine."""

from __future__ import annotations

import asyncio
import random
import uuid
from pathlib import Path

import msgspec

from agent.bootstrap import Bootstrap, BootstrapConfig
from agent.node.daemon import Agent, AgentConfig
from agent.node.drivers.base import Driver
from agent.node.drivers.nvml import NvmlConfig, NvmlDriver
from agent.node.drivers.simulated import SimulatedDriver
from agent.podresources import PodResources, PodResourcesConfig
from console.options import CA_FILE, TOKEN_FILE, VERSION
from console.process import Talk, run_process
from console.telling import Refused, chosen, host_and_port
from runtime.authority import Identity, Role
from runtime.clock import WallClock
from runtime.keyring import Keyring
from runtime.tls import Source

DRIVERS = ("nvml", "simulated")


class AgentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `plimsoll agent` was told. `gpu` and `gpus` shape a simulated machine; `enrol` empty: certificates in `pki`."""

    node: str
    hub: str
    pki: Path
    driver: str
    enrol: str = ""
    token_file: Path = TOKEN_FILE
    ca_file: Path = CA_FILE
    identity_dir: Path | None = None
    kubelet_socket: Path | None = None
    manage_power: bool = False
    base_watts: int = 0
    gpu: str = "L4"
    gpus: int = 1
    seed: int = 0


def run_agent(options: AgentOptions, talk: Talk) -> int:
    """Report and obey until told to stop; then safe cap, goodbye, 0."""
    return run_process(lambda stop: _serve(options, talk, stop), talk)


async def _serve(options: AgentOptions, talk: Talk, stop: asyncio.Event) -> None:
    chosen("driver", options.driver, DRIVERS)
    host_and_port(options.hub, "--hub")
    clock = WallClock()
    bootstrap = _bootstrap(options, clock)
    source = bootstrap.credentials if bootstrap is not None else _from_folder(options, clock)
    config = AgentConfig(node=options.node, endpoint=options.hub, boot_id=uuid.uuid4().hex, version=VERSION)
    agent = Agent(
        config,
        _driver(options, clock),
        source,
        clock,
        random.uniform,
        lambda: asked.holders() if asked else None,
    )
    asked = _kubelet(options, agent, clock)
    # The node is at its safe cap by now: whoever waits for a certificate waits capped.
    talk.ready("agent", node=options.node, hub=options.hub, driver=options.driver)
    beside = [asyncio.create_task(each.run(stop)) for each in (bootstrap, asked) if each is not None]
    await agent.run(stop)
    await asyncio.gather(*beside)


def _kubelet(options: AgentOptions, agent: Agent, clock: WallClock) -> PodResources | None:
    """Who tells which pod has which GPU, where the kubelet's socket was given."""
    if options.kubelet_socket is None:
        return None
    return PodResources(lambda: agent.devices, clock, PodResourcesConfig(socket=options.kubelet_socket))


def _from_folder(options: AgentOptions, clock: WallClock) -> Source:
    return Keyring(options.pki, clock).source(Identity(Role.NODE, options.node))


def _bootstrap(options: AgentOptions, clock: WallClock) -> Bootstrap | None:
    """Certificates for tokens, where that was asked for."""
    if not options.enrol:
        return None
    host_and_port(options.enrol, "--enrol")
    config = BootstrapConfig(
        node=options.node,
        endpoint=options.enrol,
        token_file=options.token_file,
        ca_file=options.ca_file,
        folder=options.identity_dir,
        version=VERSION,
    )
    return Bootstrap(config, clock, random.uniform)


def _driver(options: AgentOptions, clock: WallClock) -> Driver:
    if options.driver == "simulated":
        return _simulated(options, clock)
    try:
        import pynvml
    except ModuleNotFoundError as error:
        raise Refused("The driver nvml needs nvidia-ml-py: install plimsoll[agent].") from error
    return NvmlDriver(pynvml, NvmlConfig(manage_power=options.manage_power, base_watts=options.base_watts))


def _simulated(options: AgentOptions, clock: WallClock) -> Driver:
    """One machine that nobody gives pods: it idles, and obeys its cap."""
    from console.commands.fleet import product
    from simulator.fleet.machine import Machine
    from simulator.fleet.specs import ETHERNET, NodeSpec

    try:
        spec = NodeSpec(name=options.node, gpu=product(options.gpu), gpus=options.gpus, nic=ETHERNET)
    except ValueError as error:
        raise Refused(f"{error}.") from error
    return SimulatedDriver(Machine(spec, options.seed, clock.now(), lambda _: ((), ())))

"""`plimsoll fleet`: simulated nodes with their agents and kubelets, on a running operator's store, in real time."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from agent.node.link import LinkError
from console.demo.cluster_spec import demo_cluster
from console.process import Talk, run_process
from console.telling import Refused, chosen, host_and_port
from controller.store.errors import TooManyRequests, Unavailable
from controller.store.remote import RemoteStore
from runtime.authority import Identity, Role
from runtime.clock import WallClock
from runtime.keyring import Keyring
from runtime.pausing import pause
from simulator.fleet.fleet import Fleet
from simulator.fleet.node import HubAddress
from simulator.fleet.specs import FleetSpec, uniform_fleet
from simulator.physics.catalogue import GPU_SPECS
from simulator.physics.loading import WeightTier
from simulator.physics.shapes import StartProfile
from simulator.physics.specs import GpuSpec

log = logging.getLogger("plimsoll.fleet")

MOST_NODES = 1_000
RETRY_SECONDS = 0.5
WATCH_LIFE_SECONDS = 2.0


class FleetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `plimsoll fleet` was told. `nodes`: `demo`, or how many alike. `start_seconds` 0: as long as real ones."""

    operator: str
    pki: Path
    nodes: str
    gpu: str = "H100"
    gpus: int = 8
    seed: int = 1
    start_seconds: float = 0.0
    name: str = "fleet"


def product(name: str) -> GpuSpec:
    """A GPU of the physics' catalogue by its short name, in any case. Raises Refused."""
    known = {each.lower(): spec for each, spec in GPU_SPECS.items()}
    return known[chosen("GPU", name.lower(), known)]


def start_profile(seconds: float) -> StartProfile | None:
    """A start that takes about so long in all; None for 0: the figures of real starts."""
    if seconds <= 0.0:
        return None
    return StartProfile(
        container_seconds=0.1 * seconds,
        process_seconds=0.3 * seconds,
        engine_seconds=0.4 * seconds,
        warm_up_seconds=0.2 * seconds,
        rank_seconds=seconds,
        tier=WeightTier.DRAM,  # weights come beside the process, and at this speed seldom after it
        jitter=0.05,
    )


def fleet_spec(options: FleetOptions) -> FleetSpec:
    """The machines asked for. Raises Refused."""
    start = start_profile(options.start_seconds)
    if options.nodes == "demo":
        spec = demo_cluster(options.seed)
        return msgspec.structs.replace(spec, start=start) if start else spec
    if not options.nodes.isdecimal() or not 1 <= int(options.nodes) <= MOST_NODES:
        raise Refused(
            f"--nodes {options.nodes[:40]!r} is neither `demo` nor a number from 1 to {MOST_NODES}."
        )
    try:
        return uniform_fleet(
            int(options.nodes), gpu=product(options.gpu), gpus=options.gpus, seed=options.seed, start=start
        )
    except ValueError as error:
        raise Refused(f"{error}.") from error


def run_fleet(options: FleetOptions, talk: Talk) -> int:
    """Simulate until told to stop; 0 at a clean end."""
    return run_process(lambda stop: _serve(options, talk, stop), talk)


async def _serve(options: FleetOptions, talk: Talk, stop: asyncio.Event) -> None:
    host_and_port(options.operator, "--operator")
    spec = fleet_spec(options)
    clock = WallClock()
    ring = Keyring(options.pki, clock)
    authority = ring.authority()  # nodes' certificates are issued here, in memory
    async with AsyncExitStack() as ends:
        store = await _reach(options, ring, stop)
        if store is None:
            return
        ends.push_async_callback(store.close)
        hub = HubAddress(endpoint=options.operator)
        fleet = Fleet(spec, store, clock, authority, hub=hub, plane=store, real_time=True)
        ends.push_async_callback(fleet.stop)
        if not await _start(fleet, stop):
            return
        talk.ready(
            "fleet", nodes=len(spec.nodes), gpus=sum(node.gpus for node in spec.nodes), seed=options.seed
        )
        living = asyncio.create_task(_follow_lives(fleet, store, stop))
        try:
            await fleet.run(stop)
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)


async def _reach(options: FleetOptions, ring: Keyring, stop: asyncio.Event) -> RemoteStore | None:
    """The operator's store, as soon as it answers; None when told to stop before. A refusal is final."""
    credentials = ring.get(Identity(Role.FLEET, options.name))
    waiting = False
    while True:
        try:
            return await RemoteStore.connect(options.operator, credentials)
        except Unavailable as error:
            if not waiting:
                log.warning("waiting for the operator: %s", error.message)
            waiting = True
        if await pause(stop, RETRY_SECONDS):
            return None


async def _start(fleet: Fleet, stop: asyncio.Event) -> bool:
    """Register and connect every node; tried again while the operator does not take them. False: told to stop."""
    while True:
        try:
            await fleet.start()
        except (LinkError, Unavailable, TooManyRequests) as error:
            log.warning("the operator does not take the nodes yet: %s", error)
        else:
            return True
        if await pause(stop, RETRY_SECONDS):
            return False


async def _follow_lives(fleet: Fleet, store: RemoteStore, stop: asyncio.Event) -> None:
    """An embedded store begins empty whenever its process does: the nodes register anew with each of its lives."""
    life = store.life
    while not await pause(stop, WATCH_LIFE_SECONDS):
        try:
            await store.describe()
        except (Unavailable, TooManyRequests):
            continue
        if store.life != life:
            life = store.life
            log.warning("the operator's store began anew: all nodes register again")
            for node in fleet.nodes.values():
                node.registration.forget()

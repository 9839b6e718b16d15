"""The fleet: all simulated nodes, and the parts of a cluster that the embedded store does not run by itself.

Accelerated time: `tick(from, until)` is the fleet's half of the barrier (`simulator.fleet.barrier`). Everything in
it happens in one order (nodes by name, events by time and node), so that one seed gives one course of events. Real
time: `run` does the same around a wall clock.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from agent.node.link import LinkError
from controller.store.interface import Store
from runtime.authority import Authority
from runtime.clock import Clock
from simulator.fleet.cloud import LEASE_NAMESPACE
from simulator.fleet.feed import Change, Feed
from simulator.fleet.gangs import GangBook
from simulator.fleet.index import PodIndex
from simulator.fleet.lifecycle import NodeLifecycle
from simulator.fleet.node import HubAddress, SimulatedNode, Surroundings
from simulator.fleet.objects import LEASE, NODE, POD, Lease, Node, Pod
from simulator.fleet.pantry import Pantry
from simulator.fleet.scheduler import ControlPlane, Scheduler
from simulator.fleet.settling import LeaseKeeper, Settler, Settling, is_silent
from simulator.fleet.specs import FleetSpec, NodeSpec
from simulator.fleet.writer import PodWriter
from simulator.physics.failures import Failure, FailureKind

if TYPE_CHECKING:  # it brings the API server's client with it
    from simulator.fleet.enrolment import Enrolments

logger = logging.getLogger(__name__)

CONNECTS_AT_ONCE = 32
STOPS_AT_ONCE = 64
LEASE_WALL_SECONDS = 1.0
"""How often leases are renewed by wall time where the store's own controllers watch them."""


class TickReport(msgspec.Struct, frozen=True):
    """What a tick left for others to wait for, node names sorted.

    `reported`: sent a report to the hub. `served`: sent a frame to each of their gateways. `failed`: crashed in it.
    """

    reported: tuple[str, ...]
    served: tuple[str, ...]
    failed: tuple[str, ...]


class Fleet:
    """Simulated nodes on one store. All methods belong to one event loop.

    `hub` None leaves the agents out. `plane` does what a cluster does by itself; it is needed where the store says
    that it runs no controllers (ValueError without), and not used elsewhere. `settling` is for
    accelerated time on a store that does run them: they are waited for at both ends of a tick, and leases are renewed by
    wall time. With `enrolments` (real time, an API server) the nodes get their certificates from the operator for their
    pods' tokens, and `authority` is not used. `tells_holders`: agents tell which pod has which GPU.
    """

    def __init__(  # noqa: PLR0913 - options have defaults
        self,
        spec: FleetSpec,
        store: Store,
        clock: Clock,
        authority: Authority,
        *,
        hub: HubAddress | None = None,
        plane: ControlPlane | None = None,
        real_time: bool = False,
        settling: Settling | None = None,
        enrolments: Enrolments | None = None,
        tells_holders: bool = False,
    ) -> None:
        self.spec = spec
        self.gangs, self.index = GangBook(spec.peer_loss_seconds), PodIndex()
        self.writer = PodWriter(store)
        self._clock = clock
        self._pods = Feed(store, clock, POD, Pod)
        self._nodes = Feed(store, clock, NODE, Node)
        self._leases = Feed(store, clock, LEASE, Lease, LEASE_NAMESPACE)
        self.scheduler: Scheduler | None = None
        self.lifecycle: NodeLifecycle | None = None
        if not store.capabilities.runs_controllers:
            if plane is None:
                raise ValueError(
                    "This store runs no controllers: give the fleet a control plane that binds pods and collects garbage."
                )
            self.scheduler = Scheduler(plane, self.index, self._nodes.objects)
            self.lifecycle = NodeLifecycle(store, plane, self.index, self._nodes.objects)
        self.pantry = Pantry(store, clock)
        around = self._around = Surroundings(
            spec=spec,
            pantry=self.pantry,
            store=store,
            clock=clock,
            authority=authority,
            gangs=self.gangs,
            index=self.index,
            hub=hub,
            prompt_acks=real_time,
            identities=enrolments.source if enrolments is not None else None,
            tells_holders=tells_holders,
        )
        self._enrolments = enrolments
        self.nodes = _nodes_of(spec, around)
        self.settler: Settler | None = None
        self.keeper: LeaseKeeper | None = None
        if settling is not None and store.capabilities.runs_controllers:
            self.settler = Settler(store, clock, self.index, self._nodes.objects, self.nodes, settling)
            self.keeper = LeaseKeeper(self.nodes, clock, LEASE_WALL_SECONDS)
        self._failures: list[tuple[float, str, str, int]] = []
        for failure in spec.failures:
            self.schedule(failure)

    # ------------------------------------------------------------------------------------------- readings

    def alive(self) -> list[str]:
        """Names of the nodes that run, sorted."""
        return [name for name, node in self.nodes.items() if node.alive]

    def linked(self) -> frozenset[str]:
        """Nodes whose agents have a stream to the hub, as far as they know."""
        return frozenset(
            name
            for name, node in self.nodes.items()
            if node.alive and node.agent is not None and node.agent.connected
        )

    def inflight(self) -> dict[str, int]:
        """Requests that each node's engines work on."""
        return {name: node.open_requests for name, node in self.nodes.items()}

    def busiest(self) -> str:
        """The node with the most requests in flight; of several the first by name."""
        return max(self.nodes.values(), key=lambda node: node.open_requests).name

    def true_power_watts(self, nodes: Iterable[str]) -> float:
        """What these nodes really drew in the last window. For accounting only: no decision may see it."""
        return sum(self.nodes[name].machine.measure().watts for name in nodes)

    def uncapped_power_watts(self, nodes: Iterable[str]) -> float:
        """What they would have drawn in it if no limit or clock lock held them back."""
        return sum(self.nodes[name].machine.measure().uncapped_watts for name in nodes)

    # ------------------------------------------------------------------------------------------- failures

    def schedule(self, failure: Failure) -> None:
        """Let something break at a later moment. KeyError for an unknown node."""
        if failure.node not in self.nodes:
            raise KeyError(f"there is no node {failure.node!r} in this fleet that could fail")
        heapq.heappush(self._failures, (failure.at_seconds, failure.node, failure.kind.value, failure.gpu))

    async def recover(self, name: str, now_seconds: float) -> None:
        """A crashed node comes back."""
        await self.nodes[name].recover(now_seconds)

    async def cut_off(self, name: str) -> None:
        """A node loses its whole network: what runs on it goes on, nobody hears of it, and it hears of nothing."""
        self.nodes[name].cut_off = True
        await self.nodes[name].partition()

    def rejoin(self, name: str, now_seconds: float) -> None:
        """Its network comes back: the kubelet learns what it missed, and ranks that waited come to their rendezvous."""
        node = self.nodes[name]
        node.cut_off = False
        node.heal()
        there = self.index.pods_on(name) if node.alive else {}
        for event in sorted(node.machine.take_stages(), key=lambda each: each.at_seconds):
            node.kubelet.entered(event)
        for key in sorted({*there, *node.kubelet.runs}):
            node.kubelet.see(key, there.get(key), now_seconds)
        node.renew_at_seconds = now_seconds

    def add(self, spec: NodeSpec) -> None:
        """A new machine boots; it registers and its agent connects with the next ticks. ValueError where it exists."""
        if spec.name in self.nodes:
            raise ValueError(f"there is a node {spec.name} already")
        self.nodes[spec.name] = SimulatedNode(spec, len(self.nodes), self._around)

    async def remove(self, name: str) -> None:
        """A machine is given back: it stops for good. KeyError for an unknown one."""
        await self.nodes[name].stop("given back")
        del self.nodes[name]

    # ---------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Register all nodes, follow the store, and connect every agent.

        Raises: LinkError when an agent cannot reach the hub.
        """
        now = self._clock.now()
        for node in self.nodes.values():
            await self._tend(node, now)
            await self._renew(node, now)
        if self.keeper is not None:
            self.keeper.start()
        await self.settle(now)
        await self._enrol()
        agents = [node.agent for node in self.nodes.values() if node.agent is not None]
        for first in range(0, len(agents), CONNECTS_AT_ONCE):
            await asyncio.gather(*(agent.connect() for agent in agents[first : first + CONNECTS_AT_ONCE]))

    async def _enrol(self) -> None:
        """Every node's certificate from the operator's enrolment service, where the fleet has none of its own."""
        if self._enrolments is None:
            return
        try:
            async with asyncio.timeout(self._enrolments.patience_seconds):
                await self._enrolments.join(self.nodes, asyncio.Event())
        except TimeoutError as error:
            raise LinkError(
                f"Not every node got a certificate in {self._enrolments.patience_seconds:g} s; the log says what it was "
                "refused for, and it is tried on."
            ) from error

    def meet_new_store(self) -> None:
        """The store began anew and knows nothing: every node registers again, and all that is there is read again."""
        for feed in (self._pods, self._nodes, self._leases, self.pantry):
            feed.forget()
        for node in self.nodes.values():
            node.registration.forget()

    async def stop(self) -> None:
        """End all nodes in order."""
        if self.keeper is not None:
            await self.keeper.stop()
        if self.settler is not None:
            self.settler.close()
        nodes = list(self.nodes.values())
        for first in range(0, len(nodes), STOPS_AT_ONCE):
            await asyncio.gather(*(n.stop("fleet stopped") for n in nodes[first : first + STOPS_AT_ONCE]))
        for feed in (self._pods, self._nodes, self._leases, self.pantry):
            feed.close()

    # ---------------------------------------------------------------------------------- accelerated time

    async def commanded(self, epoch: int, sent: Mapping[str, int], timeout_seconds: float) -> frozenset[str]:
        """Wait (wall time) until each agent obeys the epoch and has received commands up to these sequences; who lacks."""
        late = set()
        for name, sequence in sent.items():
            agent = self.nodes[name].agent
            if agent is None or not agent.connected:
                continue
            if not await agent.commands_up_to(sequence, timeout_seconds, epoch):
                late.add(name)
        return frozenset(late)

    async def asked(self, until_seconds: float, timeout_seconds: float) -> frozenset[str]:
        """Wait (wall time) until every gateway's frame of the window is at every node it has a stream to; who lacks."""
        late = set()
        for name, node in self.nodes.items():
            if node.alive and node.service.gateways:
                missing = await node.service.received(until_seconds, timeout_seconds)
                late |= {f"{gateway} to {name}" for gateway in missing}
        return frozenset(late)

    async def tick(self, from_seconds: float, until_seconds: float) -> TickReport:
        """Live through one window. The clock stands at its end already; commands and frames have arrived.

        Pods that changed by its start are taken in, machines live event by event, what follows is written to the
        store, every agent reports at most once, and every node answers each of its gateways with one frame. At both
        ends the cluster's own controllers have their say.
        """
        await self.settle(from_seconds)
        failed = await self._live(until_seconds)
        await self._write(until_seconds)
        await self.settle(until_seconds)
        sent = await asyncio.gather(*(node.report(until_seconds) for node in self.nodes.values()))
        reported = [name for name, told in zip(self.nodes, sent, strict=True) if told]
        served = []
        for name, node in self.nodes.items():
            if node.alive and node.service.gateways:
                node.service.advance(until_seconds)
                served.append(name)
        return TickReport(tuple(reported), tuple(served), tuple(failed))

    async def settle(self, now: float) -> None:
        """Let the cluster do what it does by itself: bind pods, collect garbage, judge nodes; or wait until it has.

        Raises: NotSettled.
        """
        if self.settler is not None:
            await self.settler.settle(now, lambda: self._look(now))
            return
        await self._look(now)
        if self.lifecycle is not None:
            await self._take_in(now)

    # --------------------------------------------------------------------------------------- real time

    async def run(self, stop: asyncio.Event, period_seconds: float = 0.2) -> None:
        """Wall time until `stop` is set: agents by their own loop, everything else every `period_seconds`."""
        agents = [
            asyncio.create_task(node.agent.run(stop))
            for node in self.nodes.values()
            if node.agent is not None
        ]
        if self._enrolments is not None:
            agents.append(asyncio.create_task(self._enrolments.run(stop)))
        try:
            while not stop.is_set():
                now = self._clock.now()
                await self._take_in(now)
                await self._live(now)
                await self._write(now)
                await self._follow_nodes(now)
                for node in self.nodes.values():
                    node.serve_in_real_time()
                await asyncio.sleep(period_seconds)
        finally:
            stop.set()
            await asyncio.gather(*agents, return_exceptions=True)

    # ------------------------------------------------------------------------------------------ details

    async def _look(self, now: float) -> None:
        """Once around the store. Whoever lives and is called unready objects at once."""
        await self._take_in(now)
        await self._follow_nodes(now)
        for node in self.nodes.values():
            heard = node.alive and not node.cut_off
            if heard and not node.registration.complete and not is_silent(node, now):
                await self._tend(node, now)

    async def _take_in(self, now: float) -> None:
        """What the store says by now: changed pods to their kubelets, waiting ones to the scheduler."""
        self._deliver(await self._pods.pump(), now)
        if self.scheduler is not None and self.index.waiting and await self.scheduler.step():
            self._deliver(await self._pods.pump(), now)
        await self.pantry.pump()

    def _deliver(self, changes: list[Change[Pod]], now: float) -> None:
        self.index.take(changes)
        for key, old, new in changes:
            was, is_now = (pod.spec.node_name if pod is not None else "" for pod in (old, new))
            if was and was != is_now:
                self._tell(was, key, None, now)
            if is_now:
                self._tell(is_now, key, new, now)

    def _tell(self, name: str, key: str, pod: Pod | None, now: float) -> None:
        node = self.nodes.get(name)
        if node is not None and node.alive and not node.cut_off:
            node.kubelet.see(key, pod, now)

    async def _live(self, until: float) -> list[str]:
        """Machines, then what needs several of them: failures at their moment, ranks that meet, gangs that end."""
        failed = []
        while self._failures and self._failures[0][0] <= until:
            at, name, kind, gpu = heapq.heappop(self._failures)
            self._live_together(at)
            node = self.nodes[name]
            was_alive = node.alive
            await node.fail(Failure(at, name, FailureKind(kind), gpu))
            if was_alive and not node.alive:
                failed.append(name)
        self._live_together(until)
        for node in self.nodes.values():
            if node.alive:
                node.kubelet.settle(until)
        return failed

    def _live_together(self, until: float) -> None:
        """All machines up to one moment; then the stages entered, over all nodes in order of time.

        Ranks of a gang meet in that order, so the last one to come says when the gang began.
        """
        for node in self.nodes.values():
            node.live(until)
        entered = [
            (event.at_seconds, name, event)
            for name, node in self.nodes.items()
            if node.alive and not node.cut_off
            for event in node.machine.take_stages()
        ]
        entered.sort(key=lambda each: each[:2])
        for _, name, event in entered:
            self.nodes[name].kubelet.entered(event)

    async def _write(self, now: float) -> None:
        for node in self.nodes.values():
            if not node.alive or node.cut_off:
                continue
            if not node.registration.complete:
                await self._tend(node, now)
            if now >= node.renew_at_seconds and await self._renew(node, now):
                node.renew_at_seconds = now + self.spec.lease_seconds
            if node.kubelet.dirty:
                serves = any(node.kubelet.runs[key].report.served for key in node.kubelet.dirty)
                await self.writer.flush(node.kubelet, await node.endpoint() if serves else "", now)

    async def _tend(self, node: SimulatedNode, now: float) -> None:
        """Let a node say what is missing of it."""
        await node.registration.tend(now, self.keeper.now() if self.keeper is not None else None)

    async def _renew(self, node: SimulatedNode, now: float) -> bool:
        """Renew a lease, or have it renewed by wall time."""
        if self.keeper is None:
            taken = await node.registration.renew(now)
        else:
            taken = not is_silent(node, now) or await self.keeper.renew(node)
        node.renewed_seconds = now if taken else node.renewed_seconds
        return taken

    async def _follow_nodes(self, now: float) -> None:
        """Nodes as the store has them: a living kubelet contradicts who calls it unready; the life cycle goes on."""
        for change in await self._nodes.pump():
            node = self.nodes.get(change.key)
            if node is None or not node.alive:
                continue
            if change.new is None and change.old is not None:
                node.registration.removed(change.old.metadata.uid)
            elif change.new is not None and change.new.readiness != "True":
                node.registration.not_ready()
        if self.lifecycle is None:
            return
        blind = not self._leases.synced
        self.lifecycle.heard(await self._leases.pump(), now)
        if self._leases.synced:
            if blind:
                self.lifecycle.pardon(now)
            await self.lifecycle.step(now)


def _nodes_of(spec: FleetSpec, around: Surroundings) -> dict[str, SimulatedNode]:
    """Every node by its name, in that order."""
    ordered = sorted(spec.nodes, key=lambda node: node.name)
    return {node.name: SimulatedNode(node, order, around) for order, node in enumerate(ordered)}

"""Where scenarios play: a whole cluster on loopback, what a user and the world may do to it, and what was seen.

Every verb here has a counterpart on a real control plane (apply, scale, delete, a node's power switch, an operator
process that is killed), so that the same scenarios can be played there.
"""

from __future__ import annotations

import contextlib
import gc
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from cluster.hardware import AcceleratorClass
from controller.config import OperatorConfig
from controller.ledger.ledger import Ledger
from controller.operator import Operator
from controller.resources.core import EVENT, NAMESPACE
from controller.resources.manifests import apply, parse
from controller.store.errors import NotFound, StoreError
from controller.store.faults import CrashPoint, FaultyStore, KillableStore, Killed
from controller.store.interface import JsonObject, Store, Subresource
from controller.store.interposed import InterposedStore
from runtime.clock import VirtualClock
from simulator.fleet.karpenter import Karpenter, Market
from simulator.fleet.specs import FleetSpec
from simulator.physics.failures import Failure, FailureKind
from tests.scenarios.mirror import Mirror
from tests.scenarios.mortal import MortalCluster
from tests.scenarios.seen import RESOURCES, SEEN_KINDS, Diary, Seen, Traffic, node_of
from tests.scenarios.tiers import Session, embedded_session
from tests.scenarios.watchman import Watchman

LATE_SECONDS = 12.0
"""How long the last request of a dead operator is on its way, where it is late: longer than a gang waits to be bound."""
BUSY_SECONDS = 0.1
"""Wall seconds for which an attempt waits for somebody else's lock on the ledger."""


class Plug(InterposedStore):
    """What the operator's process is plugged into: a new process gets a new line to the same store."""


class Stage:
    """One run. Use as an async context manager; `second` and `until` let time pass."""

    def __init__(
        self,
        fleet: FleetSpec,
        folder: Path,
        *,
        config: OperatorConfig | None = None,
        crash: CrashPoint | None = None,
        seed: int = 1,
        session: Session | None = None,
        market: Market | None = None,
    ) -> None:
        self.session = session or embedded_session()
        self.traffic = Traffic()
        self.diary = Diary()
        self.kills = 0
        self._seed = seed
        self.mutations: list[str] = []
        self.faults: FaultyStore
        self.seen = Seen(defaultdict(dict))
        self.routes: dict[str, dict[str, float]] = {}
        self.operators: list[Operator] = []
        self.ledger_path = folder / "ledger.db"
        self._crash = crash
        self._killable: KillableStore
        self._late: Callable[[], Awaitable[Any]] | None = None
        self._late_due = 0.0
        self._plug: Plug
        self.cluster = MortalCluster(
            fleet,
            config=config or OperatorConfig(seed=seed, records_kept=10_000),
            source=self.traffic.arrivals,
            listener=self.diary,
            open_with=self.session.open,
            wrap_store=self._wrap,
            seed=seed,
        )
        self._market = market
        self.karpenter: Karpenter
        self._mirrors = {kind: Mirror(self.cluster.store, RESOURCES[kind]) for kind in SEEN_KINDS}
        self.cluster.ledger = self._ledger()
        self.cluster.reborn = self._reborn
        self.watchman = Watchman(self)

    def _ledger(self) -> Ledger:
        now = self.cluster.clock.now
        return Ledger(str(self.ledger_path), now=now, busy_timeout_seconds=BUSY_SECONDS)

    def _wrap(self, store: Store, clock: VirtualClock) -> Store:
        self.faults = FaultyStore(store, clock, seed=self._seed)
        self._killable = KillableStore(self.faults, self._crash)
        self._plug = Plug(self._killable)
        return self._plug

    async def __aenter__(self) -> Stage:
        await self.cluster.start()
        sold = self._market or Market(machines={})
        self.karpenter = Karpenter(self.cluster.store, self.cluster.clock, self.cluster.fleet, sold)
        self.operators.append(self.cluster.operator)
        await self._look()
        return self

    async def __aexit__(self, *_: object) -> None:
        for mirror in self._mirrors.values():
            mirror.close()
        self.karpenter.close()
        try:
            await self.cluster.stop()
        except (
            Killed
        ):  # as it gave its Lease back; it is stopped once more, as a process that is gone is cleared away
            await self.cluster.stop()
        gc.unfreeze()  # one cluster of many in this process

    # ------------------------------------------------------------------------------------------------- time

    @property
    def now(self) -> float:
        """UTC seconds."""
        return self.cluster.clock.now()

    async def second(self) -> None:
        """One second of everything; a killed operator is followed by another one at once."""
        if self._market is not None:
            await self.karpenter.step(self.now)
        try:
            await self.cluster.second()
        except Killed:
            await self.restart()
        if self._late is not None and self.now >= self._late_due:
            late, self._late = self._late, None
            with contextlib.suppress(StoreError):  # refused: it came too late
                await late()
        self.traffic.take(self.cluster.feeder.results)
        self.cluster.feeder.results = []
        if self.cluster.ledger is not None:
            self.cluster.ledger.flush()  # as its thread does in real time
        await self._look()
        self.watchman.look()

    async def seconds(self, count: int) -> None:
        """So many of them."""
        for _ in range(count):
            await self.second()

    async def until(self, holds: Callable[[Seen], bool], seconds: int, what: str) -> float:
        """Run until a condition on what is seen holds; how long that took.

        Raises AssertionError naming it, with what was seen, when `seconds` were not enough.
        """
        began = self.now
        for _ in range(seconds):
            if holds(self.seen):
                return self.now - began
            await self.second()
        if not holds(self.seen):
            raise AssertionError(f"after {seconds} simulated seconds still not: {what}\n{self.told()}")
        return self.now - began

    async def _look(self) -> None:
        await (
            self.cluster.conductor.delivered()
        )  # else agents and gateway may not have yet what was just said
        objects = {kind: await mirror.look() for kind, mirror in self._mirrors.items()}
        self.seen = Seen(objects)
        self.routes = {
            name: {row.name: row.route.weight for row in service.rows.ordered}
            for name, service in self.cluster.gateway.core.services.items()
        }

    def told(self) -> str:
        """What is there, for a failed expectation."""
        lines = []
        for kind in SEEN_KINDS[1:]:
            for key, obj in self.seen.objects[kind].items():
                status = {k: v for k, v in obj.get("status", {}).items() if k != "conditions"}
                lines.append(f"{kind} {key} on {node_of(obj) or '-'}: {status}")
                lines += [f"    {c['type']}={c['status']} {c['reason']}: {c.get('message', '')}"
                          for c in obj.get("status", {}).get("conditions", []) if kind != "Pod"]  # fmt: skip
        lines += self.diary.text[-40:]
        return "\n".join(lines)

    # ---------------------------------------------------------------------------------------------- the user

    async def apply(self, text: str) -> None:
        """Apply manifests as a user would. Raises ManifestError with what is wrong."""
        manifests, problems = parse(text)
        assert not problems, "\n".join(str(p) for p in problems)
        namespaces = [m for m in manifests if m.resource == NAMESPACE]
        await apply(self.cluster.store, namespaces, field_manager="user")
        await self.session.admitted(m.obj["metadata"]["name"] for m in namespaces)
        rest = [m for m in manifests if m.resource != NAMESPACE]
        await apply(self.cluster.store, rest, field_manager="user")
        await self._look()

    async def patch(self, kind: str, key: str, patch: JsonObject, subresource: Subresource = "") -> None:
        """Change part of an object."""
        namespace, _, name = key.rpartition("/")
        await self.cluster.store.patch(
            RESOURCES[kind], name, patch, namespace, field_manager="user", subresource=subresource
        )

    async def scale(self, service: str, replicas: int) -> None:
        """`kubectl scale`."""
        namespace, _, name = service.partition("/")
        await self.cluster.store.put_scale(
            RESOURCES["ModelService"], name, namespace, replicas=replicas, field_manager="user"
        )

    async def delete(self, kind: str, key: str) -> None:
        """Delete an object; its pods follow by garbage collection."""
        namespace, _, name = key.rpartition("/")
        await self.cluster.store.delete(RESOURCES[kind], name, namespace)

    async def drain(self, node: str) -> list[str]:
        """`kubectl drain`: cordon a node, then evict its pods; which of them were."""
        await self.patch("Node", node, {"spec": {"unschedulable": True}})
        evicted = []
        for pod in self.seen.pods():
            if node_of(pod) == node:
                meta = pod["metadata"]
                await self.cluster.store.evict(meta["name"], meta["namespace"], uid=meta["uid"])
                evicted.append(meta["name"])
        return evicted

    async def events(self, about: str = "") -> list[JsonObject]:
        """Events of the operator, about one object (`namespace/name`, or a name) when it is given."""
        found = (await self.cluster.store.list(EVENT)).items
        return [e for e in found if not about or _about(e) == about]

    async def told_codes(self, about: str = "") -> set[str]:
        """Reasons of the events about an object."""
        return {str(e["reason"]) for e in await self.events(about)}

    def load(self, service: str, per_second: float, seconds: float, **sizes: int) -> None:
        """Let requests arrive from the next second on."""
        self.traffic.send(service, per_second, self.now, self.now + seconds, **sizes)

    # ------------------------------------------------------------------------------------------------ the world

    def fail(
        self, node: str, in_seconds: float = 0.5, kind: FailureKind = FailureKind.NODE_CRASH, gpu: int = 0
    ) -> None:
        """A node breaks in a moment."""
        self.cluster.fleet.schedule(Failure(self.now + in_seconds, node, kind, gpu))

    async def recover(self, node: str) -> None:
        """It comes back."""
        await self.cluster.fleet.recover(node, self.now)

    async def partition(self, node: str) -> None:
        """The network between its agent and the hub breaks."""
        await self.cluster.fleet.nodes[node].partition()

    async def cut_off(self, node: str) -> None:
        """Its whole network breaks: its ranks live on, and neither its kubelet nor they are heard."""
        await self.cluster.fleet.cut_off(node)

    def rejoin(self, node: str) -> None:
        """Its network works again."""
        self.cluster.fleet.rejoin(node, self.now)

    def heal(self, node: str) -> None:
        """It works again."""
        self.cluster.fleet.nodes[node].heal()

    # ------------------------------------------------------------------------------------------- the operator

    def _reborn(self) -> None:
        """A new process: a new line to the store, and a ledger without what the dead one had only in memory."""
        self.kills += 1
        if self._killable.late is not None:
            self._late, self._late_due = self._killable.late, self.now + LATE_SECONDS
        self.mutations += [str(request) for request in self._killable.mutations]
        self._killable = KillableStore(self.faults)
        self._plug.inner = self._killable

    async def restart(self) -> None:
        """The operator dies without a word, and another takes over at once."""
        await self.halt()
        await self.resume()

    async def halt(self) -> None:
        """The operator dies, and nobody takes over. What its ledger had only in memory is lost."""
        await self.cluster.die()
        self._reborn()
        old = self.cluster.ledger
        assert old is not None
        old._buffer.abandon()
        old._database.close()
        old._reader.close()
        self.cluster.ledger = self._ledger()

    async def resume(self) -> None:
        """Another operator starts."""
        await self.cluster.revive()
        self.operators.append(self.cluster.operator)

    @property
    def runs(self) -> bool:
        """Whether an operator runs."""
        return isinstance(self.cluster.operator, Operator)

    @property
    def operator(self) -> Operator:
        """The operator that leads."""
        return self.cluster.operator

    @property
    def mutating_calls(self) -> list[str]:
        """Every mutating call of every operator of the run."""
        return [*self.mutations, *(str(request) for request in self._killable.mutations)]

    @property
    def accelerators(self) -> dict[str, AcceleratorClass]:
        """Products by name."""
        return self.operator.observer.live("accelerators")

    def leases_held(self) -> Iterator[tuple[str, int]]:
        """What each living node may draw at this moment, by its own agent: its lease, else its safe watts."""
        for name, node in self.cluster.fleet.nodes.items():
            if node.agent is not None and node.alive:
                lease = node.agent.lease
                yield name, max(lease.watts if lease.active else 0, node.spec.safe_watts)


def _about(event: JsonObject) -> str:
    subject = event["involvedObject"]
    return f"{subject['namespace']}/{subject['name']}" if subject.get("namespace") else str(subject["name"])


Script = Callable[[Stage], Awaitable[None]]
"""What happens, step by step, with the expectations on the way."""


def field(obj: JsonObject, path: str) -> Any:
    """A dotted path into an object, None where it ends early."""
    value: Any = obj
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


async def exists(stage: Stage, kind: str, key: str) -> bool:
    """Whether an object is there."""
    namespace, _, name = key.rpartition("/")
    try:
        await stage.cluster.store.get(RESOURCES[kind], name, namespace)
    except NotFound:
        return False
    return True

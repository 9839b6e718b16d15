"""Who really has which device of which node: kubelets' words, allocated claims and pods' requests as one account."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple

from cluster.hardware import AcceleratorClass, Node
from cluster.observer import Observer
from cluster.occupancy import Claim
from controller.observe.devices import SLICED, Devices, Holding, indices
from controller.observe.dra import Announced, DraBook, Held
from controller.observe.folding import Folding
from controller.observe.seats import (
    LEFTOVER_SECONDS,
    NOBODY,
    Seats,
    claim_of,
    kubelet_claim,
    lost_claim,
)
from controller.observe.told import AgentTold
from controller.observe.workloads import Workloads
from controller.resources import core


class Beside(NamedTuple):
    """What says something of a node's devices beside its object and its agent's inventory."""

    in_use: str = ""
    holding: Holding = Holding()
    announced: tuple[Announced, ...] = ()
    offered: tuple[int, ...] | None = None


class Seating:
    """One account of devices a node; `told` and `pods` are the world's own books."""

    def __init__(
        self,
        observer: Observer,
        workloads: Workloads,
        told: Mapping[str, AgentTold],
        pods: Mapping[str, core.Pod],
    ) -> None:
        """Start with nobody seated."""
        self.dra = DraBook()
        self.dirty: set[str] = set()
        """Nodes whose devices are another matter since they were last projected."""
        self.short: set[str] = set()
        """Nodes that offer fewer devices than they have: what can be had there hangs on who has what."""
        self.touched: set[str] = set()
        """Nodes of pods that were projected since `unsettled` was last asked."""
        self.parted: set[str] = set()
        """Machines with GPUs of several classes: what can be had of each hangs on who has what."""
        self.lost: dict[str, int] = {}
        """Devices in use beyond what their node offers, where there are any."""
        self.leftovers: dict[str, set[str]] = defaultdict(set)
        """Pods by node that only its kubelet knows, for long enough to be believed."""
        self._observer, self._workloads, self._told, self._pods = observer, workloads, told, pods
        self._folding = Folding(observer)
        self._seats: dict[str, Seats] = {}
        self._claims: dict[str, set[str]] = defaultdict(set)
        self._named: dict[str, str] = {}
        self._named_on: dict[str, set[str]] = defaultdict(set)
        self._unknown: dict[str, float] = {}
        self._sizes: dict[str, int] = {}

    # what is heard

    def holders(self, node: str, now_seconds: float) -> None:
        """The node's agent told anew who has its devices."""
        held = self._told[node].holders
        named = {row.pod for row in held.rows} if held is not None else set()
        for pod in self._named_on.pop(node, set()) - named:
            self._named.pop(pod, None)
            self._unknown.pop(pod, None)
            self.leftovers[node].discard(pod)
        if named:
            self._named_on[node] = named
        for pod in named:
            self._named[pod] = node
            if pod not in self._pods:
                self._unknown.setdefault(pod, now_seconds + LEFTOVER_SECONDS)
        self.dirty.add(node)

    def pod_seen(self, key: str, *, gone: bool, now_seconds: float) -> None:
        """A pod's object is there, or gone."""
        node = self._named.get(key)
        if node is None:
            return
        if gone:
            self._unknown.setdefault(key, now_seconds + LEFTOVER_SECONDS)
        elif self._unknown.pop(key, None) is not None or key in self.leftovers[node]:
            self.leftovers[node].discard(key)
            self.dirty.add(node)

    def due(self, now_seconds: float) -> set[str]:
        """Nodes to project anew since the last call."""
        for pod in [pod for pod, at in self._unknown.items() if at <= now_seconds]:
            del self._unknown[pod]
            self.leftovers[self._named[pod]].add(pod)
            self.dirty.add(self._named[pod])
        dirty, self.dirty = self.dirty, set()
        return dirty

    # what follows

    def beside(self, node: str, drivers: Collection[str]) -> Beside:
        """What to project a node with. `drivers` are those that classes of `sharing: dra` name."""
        told = self._told.get(node)
        offered = told.holders.offered if told is not None and told.holders is not None else None
        return Beside(self._in_use(node), self._holding(node), self.dra.gpus(node, drivers), offered)

    def _in_use(self, node: str) -> str:
        """The class that pods of ours on a node were placed for, by what they were told, else by what the node was."""
        facts = [self._workloads.facts[key] for key in sorted(self._workloads.on_node.get(node, ()))]
        for each in facts:
            if each.replica is not None and each.claim is not None and each.claim.slot.node == node:
                return each.replica.variant.accelerator
        known = self._observer.live("nodes").get(node)
        ranks = any(each.rank is not None and each.claim is not None for each in facts)
        return known.accelerator if known is not None and ranks else ""

    def holding_on(self, machine: str, part: str) -> Holding:
        """What pods on a machine have of a part of it; of the rest of it where `part` is its own name."""
        return _held([claim for claim in self._workloads.claims_on(machine) if claim.slot.node == part])

    def lose(self, part: str, count: int, now_seconds: float) -> bool:
        """So many devices of a part of a machine are in use beyond what it offers. True when claims changed."""
        return self._fold(part, [lost_claim(part, count)] if count else [], now_seconds)

    def _holding(self, node: str) -> Holding:
        claims = [claim for claim in self._workloads.claims_on(node) if claim.slot.node == node]
        live = self._observer.live("claims")
        others = (live[key] for key in self._claims.get(node, ()) if key in live)
        claims += [claim for claim in others if claim.owner.kind != "Node"]
        return _held(claims)

    def seat(
        self,
        node: Node | None,
        name: str,
        accelerator: AcceleratorClass | None,
        devices: Devices | None,
        drivers: Collection[str],
        now_seconds: float,
    ) -> bool:
        """Work out who sits where on a node that was projected (None: there is none). True when claims changed."""
        claims: list[Claim] = []
        seats = NOBODY
        if node is not None and accelerator is not None and devices is not None:
            if accelerator.sharing not in SLICED:
                seats = self._seats_on(node, drivers)
                claims += seats.claims
            if devices.lost:
                claims.append(lost_claim(name, devices.lost))
            (self.short.add if devices.allocatable < len(node.devices) else self.short.discard)(name)
        else:
            self.short.discard(name)
        if node is not None:
            self._sizes[name] = len(node.devices)
        else:
            self._sizes.pop(name, None)
        self._seats[name] = seats
        if seats is NOBODY:
            del self._seats[name]
        self.lost.pop(name, None)
        if devices is not None and devices.lost:
            self.lost[name] = devices.lost
        return self._fold(name, claims, now_seconds)

    def _seats_on(self, node: Node, drivers: Collection[str]) -> Seats:
        real, unasked = self._by_kubelet(node)
        allotted = self.dra.held(node.name, drivers)
        ours = self._ours_by_uid(node.name)
        others: list[tuple[Held, list[int]]] = []
        for each in allotted:
            numbers = indices(node.devices, each.gpus)
            key = next((ours[uid] for uid in sorted(each.pods) if uid in ours), "")
            if key:
                real[key] = tuple(sorted({index for index in numbers if index >= 0}))
            else:
                others.append((each, numbers))
        taken = {index for held in real.values() for index in held}
        claims: list[Claim] = []
        for pod, held in unasked:
            if (claim := kubelet_claim(pod, node.name, held, taken)) is not None:
                claims.append(claim)
                taken |= set(claim.slot.devices)
        for each, numbers in others:
            if (mine := claim_of(each, node.name, numbers, taken)) is not None:
                claims.append(mine)
                taken |= {index for index in mine.slot.devices if index >= 0}
        return Seats(real, tuple(claims), self._sharing(real)) if real or claims else NOBODY

    def _sharing(self, pods: Collection[str]) -> frozenset[str]:
        """Those of the pods that have only a share of their device."""
        claims = {pod: self._workloads.facts[pod].claim for pod in pods if pod in self._workloads.facts}
        return frozenset(pod for pod, claim in claims.items() if claim is not None and claim.slot.shares)

    def _by_kubelet(self, node: Node) -> tuple[dict[str, tuple[int, ...]], list[tuple[str, tuple[int, ...]]]]:
        """Devices of pods that asked for them, by the kubelet; and of those that did not, or that only it knows."""
        told, known = self._told.get(node.name), {device.index for device in node.devices}
        real: dict[str, tuple[int, ...]] = {}
        unasked: list[tuple[str, tuple[int, ...]]] = []
        for pod in sorted(self._named_on.get(node.name, ())):
            if told is None:
                break
            held = tuple(index for index in told.plugged_of(pod) if index in known)
            facts = self._workloads.facts.get(pod)
            if held and facts is not None and facts.claim is not None:
                real[pod] = held
            elif held and (facts is not None or pod in self.leftovers[node.name]):
                unasked.append((pod, held))
        return real, unasked

    def _ours_by_uid(self, node: str) -> dict[str, str]:
        """Keys of our pods on a node that hold devices, by uid."""
        found = {}
        for key in self._workloads.on_node.get(node, ()):
            facts = self._workloads.facts[key]
            if facts.claim is not None and not facts.claim.foreign and key in self._pods:
                found[self._pods[key].metadata.uid] = key
        return found

    def _fold(self, node: str, claims: list[Claim], now_seconds: float) -> bool:
        changed = False
        keys = {claim.key for claim in claims}
        for key in sorted(self._claims.pop(node, set()) - keys):
            changed |= self._folding.forget("claims", key, now_seconds)
        for claim in claims:
            changed |= self._folding.fold(claim, now_seconds)
        if keys:
            self._claims[node] = keys
        return changed

    def unsettled(self) -> list[str]:
        """Nodes whose account hangs on pods that were projected since the last call."""
        touched, self.touched = self.touched, set()
        hangs = self.short | self._named_on.keys() | self._seats.keys() | self.parted
        return sorted(name for name in touched if name in hangs or self._outgrown(name))

    def _outgrown(self, node: str) -> bool:
        """Whether a pod has a device beyond those that the node was projected with."""
        size = self._sizes.get(node)
        return size is not None and max(self._holding(node).numbered, default=-1) >= size

    def seats(self, node: str) -> Seats:
        """Who sits where on a node, as last worked out."""
        return self._seats.get(node, NOBODY)


def _held(claims: Collection[Claim]) -> Holding:
    held = [index for claim in claims for index in claim.slot.devices]
    return Holding(frozenset(i for i in held if i >= 0), sum(1 for i in held if i < 0))

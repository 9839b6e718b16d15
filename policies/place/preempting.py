"""Who gives way to a replica of a higher priority that found no room: on one node, or one device, the cheapest that suffice.

Replicas of strictly lower priority only, and only where what is on its way out already does not make the room by itself. A
device that is given out in shares is taken from all that are on it, or from none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.admission import Fence
from cluster.hardware import Slot
from cluster.serving import Replica, ReplicaPhase
from policies.cheapest_set import Offer, cheapest_set
from policies.commit.parts import is_part
from policies.place import why
from policies.place.cases import Case, outstanding
from policies.place.draining import send_away
from policies.place.restraint import is_free_to_end
from policies.place.run import Missing, Run

WHOLE = 1_000


class Tenant(NamedTuple):
    """A live replica of ours, and what it has."""

    case: Case
    replica: Replica
    slot: Slot

    @property
    def milli(self) -> int:
        """Thousandths of GPUs that its end frees."""
        return self.slot.gpus * self.slot.milli_per_device


@dataclass(slots=True)
class _Begun:
    """A device that is given out in shares: thousandths by claim, and what of it was promised in this round."""

    holders: list[tuple[str, int]] = field(default_factory=list)
    promised_milli: int = 0
    taken: bool = False


class _Way(NamedTuple):
    """How room could be made: its cost in thousandths, rank of the node and device for ties, and who goes."""

    cost: int
    rank: int
    device: int
    node: str
    victims: tuple[Tenant, ...]


def make_room(run: Run) -> None:
    """Drain who gives way to those that found no room."""
    for missing, victims in chosen(run):
        winner = missing.case.service
        if victims is None:
            run.hopeless.append(missing)
        for tenant in victims or ():
            reason = why.preempted(tenant.case.service, winner, tenant.milli / WHOLE)
            send_away(run, tenant.case, tenant.replica, reason)


def giving_way(run: Run) -> frozenset[str]:
    """Keys of the replicas that would give way now: of what is surplus anyway, they go first, so that nobody goes in vain."""
    return frozenset(tenant.replica.key for _, victims in chosen(run) for tenant in victims or ())


def chosen(run: Run) -> list[tuple[Missing, tuple[Tenant, ...] | None]]:
    """Everybody who found no room, in order, and who goes for each (nobody: what is on its way out is enough; None: nothing is)."""
    if not run.missing:
        return []
    board = _Board(run)
    return [(m, board.room_for(m)) for m in run.missing for _ in range(max(1, m.units))]


class _Board:
    """Who is where, what is on its way out, and what of that is spoken for in this round."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._going = {*run.going, *(replica.key for case in run.cases for replica in case.draining)}
        self._whole: dict[str, list[Tenant]] = {}
        self._tenants: dict[str, Tenant] = {}
        self._coming: dict[str, int] = {}
        self._begun: dict[str, dict[int, _Begun]] = {}
        self._opened: dict[str, list[int]] = {}
        self._cpu: dict[str, int] = {}
        self._memory: dict[str, int] = {}
        self._see_tenants()
        self._see_claims()

    def _see_tenants(self) -> None:
        for case in self._run.cases:
            for replica in (r for part in case.parts() for r in case.live(part)):
                launcher = self._run.view.launchers.get(replica.launcher)
                if replica.key not in self._going and launcher is not None and launcher.slots:
                    tenant = self._tenants[replica.key] = Tenant(case, replica, launcher.slots[0])
                    if not is_part(tenant.slot):
                        self._whole.setdefault(tenant.slot.node, []).append(tenant)

    def _see_claims(self) -> None:
        claims = self._run.overlay.read("claims")
        for key in sorted(claims):
            claim = claims[key]
            node = claim.slot.node
            if claim.phase == "stopping":
                self._going.add(key)
            for device in claim.slot.devices if is_part(claim.slot) else ():
                begun = self._begun.setdefault(node, {}).setdefault(device, _Begun())
                begun.holders.append((key, claim.slot.milli_per_device))
            if key in self._going:
                self._leaves(claim.slot)

    def _leaves(self, slot: Slot) -> None:
        if not is_part(slot):
            self._coming[slot.node] = self._coming.get(slot.node, 0) + slot.gpus
        machine = self._machine(slot.node)
        self._cpu[machine] = self._cpu.get(machine, 0) + slot.cpu_millis
        self._memory[machine] = self._memory.get(machine, 0) + slot.memory_bytes

    def _machine(self, node: str) -> str:
        known = self._run.view.nodes.get(node)
        return known.machine if known is not None else node

    # ---------------------------------------------------------------------------------------------- asking

    def room_for(self, missing: Missing) -> tuple[Tenant, ...] | None:
        """Who goes for one replica; nobody where enough is on its way out, None where all that may go is not enough."""
        fence = self._run.fences.of(missing.case.service)
        nodes = list(enumerate(self._nodes(missing.part[1], fence, shares=missing.variant.shares)))
        if any(self._awaits(missing, node) for _, node in nodes if self._fits(node, fence, ())):
            return ()
        ways = [way for rank, node in nodes for way in self._ways(missing, rank, node)]
        usable = (w for w in sorted(ways, key=lambda w: w[:3]) if self._may(w, fence))
        way = next(usable, None)
        if way is None:
            return None
        for tenant in way.victims:
            self._going.add(tenant.replica.key)
            self._leaves(tenant.slot)
        self._awaits(missing, way.node)
        return way.victims

    def _nodes(self, pool: str, fence: Fence | None, *, shares: bool) -> list[str]:
        found = sorted(
            (node.order, node.name)
            for node in self._run.view.nodes.values()
            if node.pool == pool and node.offer == "open" and (fence is None or fence.permits(node.name))
        )
        return [name for _, name in found if not shares or self._run.view.nodes[name].divisible]

    def _awaits(self, missing: Missing, node: str) -> bool:
        """Whether what is on its way out of a node makes the room; it is spoken for then."""
        if missing.variant.shares:
            return self._awaits_share(node, missing.variant.milli)
        return self._awaits_whole(node, missing.variant.gpus)

    def _awaits_whole(self, node: str, gpus: int) -> bool:
        emptying = [begun for begun in self._begun.get(node, {}).values() if self._empties(begun)]
        have = self._run.rooms.free(node) + self._coming.get(node, 0)
        if have + len(emptying) < gpus:
            return False
        for begun in emptying[: max(0, gpus - have)]:
            begun.taken = True
            have += 1
        self._coming[node] = have - gpus - self._run.rooms.free(node)
        return True

    def _awaits_share(self, node: str, milli: int) -> bool:
        for device, begun in sorted(self._begun.get(node, {}).items()):
            if not begun.taken and self._left(node, device, begun) >= milli:
                begun.promised_milli += milli
                return True
        opened = self._opened.setdefault(node, [])
        for index, left in enumerate(opened):
            if left >= milli:
                opened[index] -= milli
                return True
        if not self._awaits_whole(node, 1):
            return False
        opened.append(WHOLE - milli)
        return True

    def _empties(self, begun: _Begun) -> bool:
        """Whether all that are on a device are on their way out, and nobody was promised it."""
        return (
            not begun.taken and not begun.promised_milli and all(k in self._going for k, _ in begun.holders)
        )

    def _left(self, node: str, device: int, begun: _Begun) -> int:
        """Thousandths that are free of a device once what is on its way out is gone, less what was promised."""
        space = self._run.overlay.space
        if space.is_kept(node, device):
            return 0
        going = sum(milli for key, milli in begun.holders if key in self._going)
        return space.free_milli(node, device) + going - begun.promised_milli

    # -------------------------------------------------------------------------------------------- giving way

    def _ways(self, missing: Missing, rank: int, node: str) -> Iterator[_Way]:
        priority = missing.case.service.priority
        if missing.variant.shares:
            yield from self._ways_of_share(node, rank, missing.variant.milli, priority)
            return
        emptying = sum(self._empties(begun) for begun in self._begun.get(node, {}).values())
        have = self._run.rooms.free(node) + self._coming.get(node, 0) + emptying
        groups: list[tuple[Tenant, ...]] = [
            (each,) for each in self._lower(self._whole.get(node, ()), priority)
        ]
        groups += [found for b in self._begun.get(node, {}).values() if (found := self._all_of(b, priority))]
        yield from _way(rank, -1, node, groups, missing.variant.gpus - have, whole=True)

    def _ways_of_share(self, node: str, rank: int, milli: int, priority: int) -> Iterator[_Way]:
        for device, begun in sorted(self._begun.get(node, {}).items()):
            if begun.taken or self._run.overlay.space.is_kept(node, device):
                continue
            found = self._lower((self._tenants[k] for k, _ in begun.holders if k in self._tenants), priority)
            lacking = milli - self._left(node, device, begun)
            yield from _way(rank, device, node, [(each,) for each in found], lacking, whole=False)
        groups: list[tuple[Tenant, ...]] = [
            (each,) for each in self._lower(self._whole.get(node, ()), priority)
        ]
        yield from _way(rank, -1, node, groups, 1, whole=True)

    def _lower(self, tenants: Iterable[Tenant], priority: int) -> list[Tenant]:
        """Those of lower priority that nobody keeps, the least busy first."""
        found = (
            t
            for t in tenants
            if t.replica.key not in self._going
            and t.case.service.priority < priority
            and is_free_to_end(self._run, t.case, t.replica)
        )
        return sorted(found, key=lambda t: (t.case.service.priority, self._busy(t), t.replica.key))

    def _busy(self, tenant: Tenant) -> float:
        return outstanding(self._run.groups, tenant.replica)

    def _all_of(self, begun: _Begun, priority: int) -> tuple[Tenant, ...]:
        """All that stay on a device, where all of them may go for `priority`; else nobody."""
        staying = [key for key, _ in begun.holders if key not in self._going]
        found = self._lower((self._tenants[key] for key in staying if key in self._tenants), priority)
        usable = not begun.taken and not begun.promised_milli and len(found) == len(staying)
        return tuple(found) if usable else ()

    def _may(self, way: _Way, fence: Fence | None) -> bool:
        """Whether the node's CPU and memory suffice then, and PodDisruptionBudgets allow all of it."""
        ready = [t.replica for t in way.victims if t.replica.phase is ReplicaPhase.READY]
        counted: dict[str, int] = {}
        for key in (key for replica in ready for key in replica.budgets):
            counted[key] = counted.get(key, 0) + 1
        budgets = self._run.view.budgets
        allowed = all(
            key not in budgets or budgets[key].allowed - self._run.ending(key) >= count
            for key, count in counted.items()
        )
        return allowed and self._fits(way.node, fence, way.victims)

    def _fits(self, node: str, fence: Fence | None, victims: tuple[Tenant, ...]) -> bool:
        if fence is None:
            return True
        space, machine = self._run.overlay.space, self._machine(node)
        cpu = space.free_cpu_millis(node) + self._cpu.get(machine, 0)
        cpu += sum(t.slot.cpu_millis for t in victims)
        memory = space.free_memory_bytes(node) + self._memory.get(machine, 0)
        memory += sum(t.slot.memory_bytes for t in victims)
        return fence.who.cpu_millis <= max(0, cpu) and fence.who.memory_bytes <= max(0, memory)


def _way(
    rank: int, device: int, node: str, groups: Sequence[tuple[Tenant, ...]], lacking: int, *, whole: bool
) -> Iterator[_Way]:
    """The cheapest of these groups that frees so much: devices where `whole` ones are wanted, else thousandths of one."""
    offers = []
    for group in groups:
        cost = sum(tenant.milli for tenant in group)
        gain = max(1, cost // WHOLE) if whole else cost
        offers.append(Offer(gain, cost, max(t.case.service.priority for t in group)))
    found = cheapest_set(offers, lacking) if lacking > 0 else None
    if found:
        victims = tuple(tenant for index in found for tenant in groups[index])
        yield _Way(sum(offers[index].cost for index in found), rank, device, node, victims)

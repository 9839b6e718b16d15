"""What was ordered and stands: which orders there are, how far they are, and how much more may be bought.

Everything is read off the orders themselves, so that a new leader knows what its predecessor ordered. Only how long an
order has been watched, and how long a pool rests, is memory: losing it costs patience, never money beyond the budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from cluster.base import Ref
from cluster.flight import InFlight
from cluster.hardware import Node, Offer, Pool
from controller.provisioning.objects import OrderObject, order_name
from controller.provisioning.settings import ProvisioningSettings

DOUBT_SECONDS = 10.0
"""How long an order whose answer was lost, or that the cache has not shown yet, counts as made."""


class Failure(msgspec.Struct, frozen=True):
    """An order that came to nothing: what is said of it, how long it was watched, how long its pool rests."""

    pool: str
    what: str
    waited_seconds: float
    rest_seconds: float
    failures: int


class _Rest(msgspec.Struct, frozen=True):
    failures: int = 0
    until_seconds: float = 0.0


class OrderBook:
    """Orders by name. `see` takes them in; the rest are questions."""

    def __init__(self, settings: ProvisioningSettings) -> None:
        """Start without orders."""
        self._settings = settings
        self.orders: dict[str, OrderObject] = {}
        self._since: dict[str, float] = {}
        self._made: dict[str, tuple[str, float]] = {}
        self._given_up: set[str] = set()
        self._came: set[str] = set()
        self._nodes: set[str] | None = None
        self._rests: dict[str, _Rest] = {}

    # --------------------------------------------------------------------------------------------- taking in

    def see(self, orders: Mapping[str, OrderObject], nodes: Mapping[str, Node], now: float) -> list[Failure]:
        """What the cache has now. Orders that vanished without becoming a node, or failed, or took too long, are told."""
        failures = []
        for name, old in self.orders.items():
            if name not in orders and name not in self._given_up | self._came:
                failures.append(self._failed(old, "was withdrawn by its provisioner", now))
        self.orders = dict(orders)
        self._made = {n: (p, t) for n, (p, t) in self._made.items() if n not in orders and t > now}
        self._since = {n: self._since.get(n, now) for n in {*orders, *self._made}}
        self._given_up &= orders.keys()
        self._came = {n for n in orders if n in self._came or self._arrived(orders[n], nodes)}
        if self._settings.provisioner == "provisioningRequest":
            self._match(nodes)
        for name, order in sorted(orders.items()):
            if name in self._given_up or order.metadata.deletion_timestamp is not None:
                continue
            if name in self._came:
                self._rests.pop(order.pool, None)
            elif order.stage() == "failed" or now - self._since[name] >= self._settings.ready_seconds:
                failures.append(self._failed(order, order.obstacle() or "is no usable node", now))
                self._given_up.add(name)
        return failures

    def _arrived(self, order: OrderObject, nodes: Mapping[str, Node]) -> bool:
        """Whether a claim is a node that work can be put on."""
        if order.stage() != "there":
            return False
        node = nodes.get(order.status.node_name)
        return node is not None and node.offer in (Offer.OPEN, Offer.CORDONED, Offer.RECLAIMING)

    def _match(self, nodes: Mapping[str, Node]) -> None:
        """A request names no node, and may be fulfilled before its node is there: each new node of a pool is the oldest
        request's. Those that came while nobody looked match none; that request ends with its booking.
        """
        there = {n: node.pool for n, node in nodes.items() if node.offer is Offer.OPEN and not node.host}
        new = sorted(there.keys() - self._nodes) if self._nodes is not None else []
        self._nodes = (self._nodes or set()) | there.keys()
        for node in new:
            waiting = (
                n for n in sorted(self.orders, key=lambda n: (self._since[n], n)) if n not in self._came
            )
            order = next((n for n in waiting if self.orders[n].pool == there[node]), None)
            if order is not None:
                self._came.add(order)

    def _failed(self, order: OrderObject, what: str, now: float) -> Failure:
        waited = now - self._since.get(order.metadata.name, now)
        return self.rest(order.pool, f"{order.metadata.name} ({what})", waited, now)

    def rest(self, pool: str, what: str, waited: float, now: float) -> Failure:
        """A pool whose order came to nothing rests, twice as long after each failure in a row."""
        failures = self._rests.get(pool, _Rest()).failures + 1
        settings = self._settings
        longest = settings.longest_backoff_seconds
        pause = min(longest, settings.backoff_seconds * 2.0 ** min(failures - 1, 20))
        self._rests[pool] = _Rest(failures, now + pause)
        return Failure(pool, what, waited, pause, failures)

    def made(self, name: str, pool: str, now: float) -> None:
        """An order was sent: it counts until the cache has it, or surely never will."""
        self._made[name] = (pool, now + DOUBT_SECONDS)
        self._since.setdefault(name, now)

    # ------------------------------------------------------------------------------------------------ asking

    def given_up(self) -> list[OrderObject]:
        """Orders to be taken back."""
        found = (self.orders[name] for name in sorted(self._given_up))
        return [order for order in found if order.metadata.deletion_timestamp is None]

    def fulfilled(self, now: float) -> list[OrderObject]:
        """Requests whose booking is over."""
        if self._settings.provisioner != "provisioningRequest":
            return []
        old = now - self._settings.booking_seconds
        return [
            order
            for name, order in sorted(self.orders.items())
            if order.stage() == "there"
            and self._since[name] <= old
            and order.metadata.deletion_timestamp is None
        ]

    def of_node(self, node: str) -> OrderObject | None:
        """The order that became a node."""
        found = (o for o in self.orders.values() if o.status.node_name == node)
        return next(found, None)

    def flights(self) -> dict[str, InFlight]:
        """Orders that are not there yet, by name."""
        flying = {
            name: order.pool
            for name, order in self.orders.items()
            if name not in self._given_up
            and order.metadata.deletion_timestamp is None
            and name not in self._came
        }
        flying |= {name: pool for name, (pool, _) in self._made.items()}
        return {
            name: InFlight(
                id=name,
                kind="Provision",
                subject=Ref("Pool", pool),
                loop="place",
                issued_seconds=self._since[name],
                deadline_seconds=self._since[name] + self._settings.ready_seconds,
            )
            for name, pool in sorted(flying.items())
        }

    def buyable(self, pool: Pool, pools: Mapping[str, Pool], now: float) -> int:
        """How many more nodes of a pool may be ordered: by the market, the budget, and its back-off."""
        settings = self._settings
        if pool.name not in settings.pools or now < self._rests.get(pool.name, _Rest()).until_seconds:
            return 0
        bought = self._bought()
        each = pool.node_size * pool.dollars_per_gpu_hour
        spent = sum(
            pools[name].node_size * pools[name].dollars_per_gpu_hour for name in bought if name in pools
        )
        market = pool.available_gpus // max(1, pool.node_size) - bought.count(pool.name)
        most = [market, settings.max_nodes - len(bought)]
        if each > 0.0:
            most.append(int((settings.max_dollars_per_hour - spent + 1e-9) // each))
        return max(0, min(most))

    def _bought(self) -> list[str]:
        """The pool of everything that was ordered and stands, going included: until it is gone it costs."""
        return [order.pool for order in self.orders.values()] + [pool for pool, _ in self._made.values()]

    def names(self, pool: str, count: int) -> list[str]:
        """Names for `count` more orders: the lowest numbers that are free.

        Whoever orders the same counts the same, so that an order sent twice is made once; and there are never more
        of a pool than `max_nodes` names.
        """
        taken: Iterable[str] = {*self.orders, *self._made}
        numbers = (order_name(pool, n) for n in range(1, self._settings.max_nodes + 1))
        return [name for name in numbers if name not in taken][:count]

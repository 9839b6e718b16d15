"""Carries out `Provision` and `ReleaseNode`, follows the orders, and takes back what does not come.

Nothing here costs anything where no provisioner is configured. Where one is and its kind is not served, that is said,
and nothing is bought.
"""

from __future__ import annotations

import logging

import msgspec

from cluster import events as ev
from cluster.base import Ref
from cluster.flight import FlightPhase
from cluster.hardware import AcceleratorClass, Pool
from cluster.observer import Observer
from cluster.reasons import Quantity, Reason, Verdict
from controller.observe import labels
from controller.provisioning.book import Failure, OrderBook
from controller.provisioning.objects import (
    NODE_CLAIM,
    POD_TEMPLATE,
    PROVISIONING_REQUEST,
    OrderObject,
    node_claim,
    pod_template,
    provisioning_request,
)
from controller.provisioning.settings import ProvisioningSettings
from controller.store.cache import Reflector
from controller.store.errors import AlreadyExists, Conflict, NotFound, StoreError, Unavailable
from controller.store.interface import JsonObject, Store
from runtime.clock import Clock

log = logging.getLogger("plimsoll.provisioning")

ABSENT_SECONDS = 30.0
"""How long a kind may not answer before that is said."""


class Provisioner:
    """The operator's way to buy nodes. `store` writes (gated), `reading` reads."""

    def __init__(
        self, store: Store, reading: Store, clock: Clock, settings: ProvisioningSettings, observer: Observer
    ) -> None:
        """Bind to the world; nothing is asked before the first `follow`."""
        self._store, self._settings, self._observer = store, settings, observer
        self._claims = settings.provisioner == "karpenter"
        self._resource = NODE_CLAIM if self._claims else PROVISIONING_REQUEST
        self._namespace = "" if self._claims else settings.namespace
        self.book = OrderBook(settings)
        self._reflector: Reflector[OrderObject] | None = None
        if settings.provisioner != "none":
            self._reflector = Reflector(
                reading,
                self._resource,
                OrderObject,
                clock,
                namespace=self._namespace,
                label_selector=f"{labels.MANAGED_BY}=plimsoll",
            )
        self._reasons: list[Reason] = []
        self._began: float | None = None

    @property
    def configured(self) -> bool:
        """Whether anything can be bought at all."""
        return self._reflector is not None

    # ------------------------------------------------------------------------------------------- following

    async def follow(self, now: float) -> bool:
        """Catch up with the orders, and put them into the model. True when a planner would look at something new."""
        if self._reflector is None:
            return False
        self._began = now if self._began is None else self._began
        await self._reflector.pump()
        if self._reflector.has_synced:
            nodes = self._observer.live("nodes")
            orders = {order.metadata.name: order for order in self._reflector.objects.values()}
            for failure in self.book.see(orders, nodes, now):
                log.warning("order %s came to nothing", failure.what)
                self._reasons.append(self._not_ready(failure))
        return self._model(now)

    def _model(self, now: float) -> bool:
        synced = self._reflector is not None and self._reflector.has_synced
        changed = False
        pools: dict[str, Pool] = self._observer.live("pools")
        for pool in list(pools.values()):
            buyable = self.book.buyable(pool, pools, now) if synced else 0
            changed |= self._observer.fold(
                ev.Seen(
                    source="orders",
                    observed_seconds=now,
                    delivered_seconds=now,
                    noun=msgspec.structs.replace(pool, buyable_nodes=buyable),
                )
            )
        flights = self.book.flights()
        known = [f for f in self._observer.live("in_flight").values() if f.kind == "Provision"]
        for flight in known:
            if flight.id not in flights:
                changed |= self._observer.fold(
                    ev.ActionAcked(
                        source="orders",
                        observed_seconds=now,
                        delivered_seconds=now,
                        id=flight.id,
                        phase=FlightPhase.DONE,
                    )
                )
        for flight in flights.values():
            changed |= self._observer.fold(
                ev.ActionIssued(source="orders", observed_seconds=now, delivered_seconds=now, flight=flight)
            )
        return changed

    # ----------------------------------------------------------------------------------------- carrying out

    async def order(self, pool: Pool, accelerator: AcceleratorClass, count: int, now: float) -> list[str]:
        """Order so many nodes, as far as the budget goes now; their names. Raises what the store raises.

        A name that exists already is an order that was made before, by us or a predecessor.
        """
        allowed = min(count, self.book.buyable(pool, self._observer.live("pools"), now))
        names = self.book.names(pool.name, allowed)
        for name in names:
            try:
                await self._make(name, pool, accelerator.resource_name)
            except Unavailable:
                self.book.made(name, pool.name, now)  # it may be there
                raise
            except AlreadyExists:
                pass
            except StoreError as error:
                failure = self.book.rest(pool.name, f"{name} ({error.message[:200]})", 0.0, now)
                self._reasons.append(self._not_ready(failure))
                raise
            self.book.made(name, pool.name, now)
        self._model(now)
        return names

    async def _make(self, name: str, pool: Pool, resource_name: str) -> None:
        order = self._settings.pools[pool.name]
        if self._claims:
            await self._create(node_claim(name, pool, resource_name, order))
            return
        template = pod_template(name, pool, resource_name, order, self._namespace)
        try:
            await self._store.create(POD_TEMPLATE, template, field_manager=labels.MANAGER)
        except AlreadyExists:
            log.debug("PodTemplate %s is there already", name)
        await self._create(provisioning_request(name, pool, order, self._settings))

    async def _create(self, obj: JsonObject) -> None:
        made = await self._store.create(self._resource, obj, field_manager=labels.MANAGER)
        if self._reflector is not None:
            self._reflector.wrote(made)

    async def give_back(self, node: str) -> str:
        """Give a node back by deleting the order it came by; what is wrong where that cannot be done, else nothing.

        Raises what the store raises.
        """
        order = self.book.of_node(node)
        if order is None or not self._claims:
            return f"no NodeClaim of ours became {node}: it is not ours to give back"
        await self._remove(order)
        return ""

    async def tend(self, now: float) -> list[Reason]:
        """Take back what was given up, tidy fulfilled requests; what there is to say."""
        for order in (*self.book.given_up(), *self.book.fulfilled(now)):
            try:
                await self._remove(order)
            except StoreError as error:
                log.warning("order %s not taken back yet: %s", order.metadata.name, error)
        said, self._reasons = self._reasons, []
        return said + self._absent(now)

    async def _remove(self, order: OrderObject) -> None:
        meta = order.metadata
        try:
            await self._store.delete(self._resource, meta.name, meta.namespace, uid=meta.uid)
        except (NotFound, Conflict):
            return
        if not self._claims:
            try:
                await self._store.delete(POD_TEMPLATE, meta.name, meta.namespace)
            except NotFound:
                return

    # ----------------------------------------------------------------------------------------------- saying

    def _not_ready(self, failure: Failure) -> Reason:
        return Reason(
            code="NodesNotReady",
            subject=self._class_of(failure.pool),
            verdict=Verdict.REJECTED,
            choice=failure.what,
            need=Quantity("limit", self._settings.ready_seconds, "s"),
            have=Quantity("waited", failure.waited_seconds, "s"),
            limit=Quantity("rest", failure.rest_seconds, "s"),
            facts=(Quantity("failures", float(failure.failures), "attempts"),),
            refs=(Ref("Pool", failure.pool),),
        )

    def _absent(self, now: float) -> list[Reason]:
        synced = self._reflector is None or self._reflector.has_synced
        if synced or self._began is None or now - self._began < ABSENT_SECONDS:
            return []
        what = f"{self._resource.qualified_kind} {self._resource.version} is not served, or may not be listed"
        return [
            Reason(
                code="ProvisionerAbsent",
                subject=self._class_of(pool),
                verdict=Verdict.BLOCKED,
                choice=what,
                need=Quantity("kinds", 1.0, "kinds"),
                have=Quantity("served", 0.0, "kinds"),
            )
            for pool in sorted(self._settings.pools)
            if pool in self._observer.live("pools")
        ]

    def _class_of(self, pool: str) -> Ref:
        """The AcceleratorClass of a pool, by its object's name."""
        known: Pool | None = self._observer.live("pools").get(pool)
        product = self._observer.live("accelerators").get(known.accelerator) if known is not None else None
        return Ref("AcceleratorClass", product.aliases[0], product.ref.uid) if product else Ref("Pool", pool)

    def close(self) -> None:
        """Give the stream up."""
        if self._reflector is not None:
            self._reflector.close()

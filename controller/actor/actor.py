"""The actor: checks every action against the state of now, carries it out, and says what became of it.

Writes are idempotent: pods have deterministic names (409 = it exists: compare the owner), deletions and
patches carry the uid. A store that does not answer fails the action, never the loop: the next plan
starts from what is really there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from cluster import actions as act
from cluster.base import Ref
from cluster.checks import check, subject_of
from cluster.occupancy import Reservation
from cluster.overlay import Overlay, routes_of
from cluster.power import Lease
from cluster.snapshot import Snapshot
from cluster.targets import Routes
from controller.actor.attempts import OwnWrites, claim_attempt, count_failure
from controller.actor.equipment import share_of
from controller.actor.late import KEPT_SECONDS, PATIENCE_SECONDS, Late, kept, slot_of
from controller.actor.notes import drain_notes, resume_notes
from controller.actor.outcome import Outcome
from controller.actor.podgroups import PodGroups
from controller.actor.pods import DEFAULTS, gang_pods, replica_pod, split_key
from controller.actor.refusals import Refusals, pods_of
from controller.actor.revisions import settle
from controller.actor.templates import Templates
from controller.config import PodSettings
from controller.observe import labels
from controller.observe.revisions import Kept
from controller.resources.core import CONTROLLER_REVISION, POD
from controller.resources.podpart import Wish
from controller.store.errors import AlreadyExists, Conflict, NotFound, StoreError, Unavailable
from controller.store.interface import JsonObject, Store


class Power(Protocol):
    """Where power leases go: the hub."""

    def grant(self, stamped: act.Stamped, ttl_seconds: float) -> tuple[int, int] | None:
        """Send a grant; the (epoch, sequence) it carries, or None when the agent is not connected."""
        ...


class Wishes(Protocol):
    """What the user's objects say about pods, and a job's last checkpoint."""

    def wish_of(self, ref: Ref) -> Wish:
        """What runs in the object's pods, and the user's part of them."""
        ...

    def checkpoint_of(self, job: str) -> int:
        """Last checkpointed step of a job."""
        ...

    def kept(self, service: str, revision: str) -> Kept | None:
        """What is kept of a service's revision, if it is."""
        ...


class Effects(msgspec.Struct, kw_only=True):
    """What the actions of one round did that the model must know at once (own writes are not waited for)."""

    leases: list[Lease] = []
    reservations: list[Reservation] = []
    released: list[str] = []
    weights: dict[str, dict[str, float]] = {}
    routes: list[Routes] = []


Handler = Callable[[act.Stamped, Overlay, Effects], Awaitable[Outcome]]
"""Carries out one action; raises what the store raises."""

WITHOUT_STORE = (act.GrantPower, act.SetRoutes, act.Reserve, act.Release)
"""Actions that wait for nobody: always carried out at their turn."""


class Actor:
    """Carries out stamped actions on a store and a hub; what gateways are told follows from what stands then.

    `at_once` bounds how many actions wait for the store together; with 1 each is over before the next is checked, so
    that the order of calls is the order of actions (accelerated time, kills at the k-th call).
    """

    def __init__(
        self,
        store: Store,
        power: Power,
        wishes: Wishes,
        writes: OwnWrites,
        at_once: int = 1,
        settings: PodSettings = DEFAULTS,
        refusals: Refusals | None = None,
        *,
        more: Mapping[type[act.Action], Handler] | None = None,
    ) -> None:
        """Bind to the world. `refusals` is the book that `store` consults, `more` carries out further kinds of action."""
        self._at_once = at_once
        self._settings = settings
        self._refusals = refusals
        self.late = Late()
        self._store = store
        self._power = power
        self._wishes = wishes
        self._writes = writes
        self._templates = Templates(store)
        self._groups = PodGroups(store)
        self._handlers: dict[type[act.Action], Handler] = {
            act.CreateReplica: self._create_replica,
            act.Drain: self._drain,
            act.Resume: self._resume,
            act.DeleteReplica: self._delete_replica,
            act.SetRoutes: self._set_routes,
            act.SettleRevision: self._settle_revision,
            act.Reserve: self._reserve,
            act.Release: self._release,
            act.StartGang: self._start_gang,
            act.RestartGang: self._restart_gang,
            act.StopGang: self._stop_gang,
            act.GrantPower: self._grant_power,
            **(more or {}),
        }

    async def carry_out(
        self, stamped: list[act.Stamped], snapshot: Snapshot, now_seconds: float
    ) -> tuple[list[Outcome], Effects]:
        """Check and carry out actions in order; each accepted one is charged before the next is checked.

        One that waits for the store beside others is charged when it is sent: what the store then refuses stays
        charged until the next plan, which starts from what is there.
        """
        overlay = Overlay(snapshot)
        outcomes: list[Outcome | asyncio.Task[Outcome]] = []
        effects = Effects()
        free = asyncio.Semaphore(self._at_once)
        for item in stamped:
            drop = check(overlay, item, now_seconds)
            if drop is not None:
                outcomes.append(Outcome(stamped=item, status="dropped", drop=drop.reason(_subject(item))))
            elif self._at_once > 1 and not isinstance(item.action, WITHOUT_STORE):
                await free.acquire()
                attempt = asyncio.create_task(self._attempt(item, overlay, effects))
                sent = asyncio.create_task(self._soon(item, attempt, overlay, effects))
                sent.add_done_callback(lambda _: free.release())
                await asyncio.sleep(0)  # it has read what it needs and has sent its first call
                overlay.apply(item.action)
                outcomes.append(sent)
            else:
                outcome = await self._attempt(item, overlay, effects)
                if outcome.status in ("done", "sent"):
                    overlay.apply(item.action)
                outcomes.append(outcome)
        return [o if isinstance(o, Outcome) else await o for o in outcomes], effects

    async def _soon(
        self, item: act.Stamped, attempt: asyncio.Task[Outcome], overlay: Overlay, effects: Effects
    ) -> Outcome:
        """Wait for the answer no longer than others can: then the action's devices are kept for it."""
        outcome = await self.late.outcome(item, attempt)
        if outcome.status == "sent":
            reservation = kept(item.action, overlay.base, item.issued_seconds)
            effects.reservations += [reservation] if reservation is not None else []
            if (slot := slot_of(item.action)) is not None and self._refusals is not None:
                self._refusals.hold(slot, KEPT_SECONDS)
        return outcome

    async def _attempt(self, item: act.Stamped, overlay: Overlay, effects: Effects) -> Outcome:
        try:
            self._consult(item.action)
            return await self._handlers[type(item.action)](item, overlay, effects)
        except StoreError as error:
            return Outcome(stamped=item, status="failed", message=str(error))

    def _consult(self, action: act.Action) -> None:
        """Ask the book before anything is done towards pods: an attempt's number, members deleted. Raises HeldBack."""
        if (slot := slot_of(action)) is not None and self._refusals is not None:
            self._refusals.check(slot, creates_in=slot.namespace)

    async def _create_replica(self, item: act.Stamped, overlay: Overlay, _: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.CreateReplica)  # noqa: S101 - the table of handlers guarantees it
        service = overlay.read("services")[action.service]
        accelerator = overlay.read("accelerators")[action.variant.accelerator]
        wish = self._wishes.wish_of(service.ref)
        slot = action.slots[0]
        node = overlay.read("nodes").get(slot.node)
        pod = replica_pod(action, service, accelerator, wish, self._settings, node)
        share = share_of(slot, node)
        await self._templates.ensure(pod, accelerator, slot.gpus, item.issued_seconds, share)
        await self._create_pod(pod, item)
        return Outcome(stamped=item, status="done")

    async def _create_pod(self, pod: JsonObject, item: act.Stamped) -> JsonObject:
        """Create it, or find it there and ours; the pod as it is then."""
        pod["metadata"]["annotations"][labels.REASON] = item.id
        began = time.monotonic()
        try:
            created = await self._store.create(POD, pod, field_manager=labels.MANAGER)
            self._writes.wrote(POD, created)
            return created
        except Unavailable:
            if time.monotonic() - began >= PATIENCE_SECONDS:
                raise  # this object's pods are held already, and nobody else need wait
            self._writes.doubted(POD, f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
            raise
        except AlreadyExists:
            found = await self._store.get(POD, pod["metadata"]["name"], pod["metadata"]["namespace"])
            wanted = pod["metadata"]["ownerReferences"][0]["uid"]
            ours = any(o.get("uid") == wanted for o in found["metadata"].get("ownerReferences", []))
            # One of ours that is on its way out is not the one that is wanted now: another name, with the next plan.
            if not ours or found["metadata"].get("deletionTimestamp"):
                raise
            return found

    async def _drain(self, item: act.Stamped, overlay: Overlay, _: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.Drain)  # noqa: S101
        notes = drain_notes(action, overlay.read("replicas").get(action.subject.name), item.issued_seconds)
        await self._annotate(action.subject, overlay, notes)
        return Outcome(stamped=item, status="done")

    async def _resume(self, item: act.Stamped, overlay: Overlay, _: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.Resume)  # noqa: S101
        notes = resume_notes(overlay.read("replicas").get(action.subject.name))
        await self._annotate(action.subject, overlay, notes)
        return Outcome(stamped=item, status="done")

    async def _annotate(self, subject: Ref, overlay: Overlay, annotations: dict[str, Any]) -> None:
        namespace, name = split_key(subject.name)
        replica = overlay.read("replicas").get(subject.name)
        uid = subject.uid or (replica.ref.uid if replica else "")
        patch = {"metadata": {"annotations": annotations}}
        patched = await self._store.patch(POD, name, patch, namespace, field_manager=labels.MANAGER, uid=uid)
        self._writes.wrote(POD, patched)

    async def _delete_replica(self, item: act.Stamped, overlay: Overlay, _: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.DeleteReplica)  # noqa: S101
        replica = overlay.read("replicas").get(action.replica.name)
        uid = action.replica.uid or (replica.ref.uid if replica else "")
        if action.evict:
            await self._evict_pod(action.replica.name, uid, action.grace_seconds)
        else:
            await self._delete_pod(action.replica.name, uid, action.grace_seconds)
        return Outcome(stamped=item, status="done")

    async def _delete_pod(self, key: str, uid: str, grace_seconds: float) -> None:
        namespace, name = split_key(key)
        # Never 0: that is a force deletion, which a live node may not have agreed to (DESIGN §3.3).
        grace = max(1, round(grace_seconds))
        try:
            await self._store.delete(POD, name, namespace, uid=uid, grace_seconds=grace)
        except (NotFound, Conflict):
            return  # gone already, or another pod of the same name: not ours to touch

    async def _evict_pod(self, key: str, uid: str, grace_seconds: float) -> None:
        """By the Eviction API; "not now" (a PodDisruptionBudget) is told and tried again as every refusal is."""
        namespace, name = split_key(key)
        try:
            await self._store.evict(name, namespace, uid=uid, grace_seconds=max(1, round(grace_seconds)))
        except (NotFound, Conflict):
            return  # gone already, or another pod of the same name: not ours to touch

    async def _set_routes(self, item: act.Stamped, overlay: Overlay, effects: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.SetRoutes)  # noqa: S101
        owned = {k: 0.0 for k, r in overlay.read("replicas").items() if r.service == action.service}
        effects.weights[action.service] = {**owned, **action.weights}
        effects.routes.append(routes_of(action, item.issued_seconds))
        return Outcome(stamped=item, status="done")

    async def _settle_revision(self, item: act.Stamped, _: Overlay, __: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.SettleRevision)  # noqa: S101
        kept = self._wishes.kept(action.service, action.revision)
        patched = await settle(self._store, action, kept, item.issued_seconds)
        self._writes.wrote(CONTROLLER_REVISION, patched)
        return Outcome(stamped=item, status="done")

    async def _reserve(self, item: act.Stamped, _: Overlay, effects: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.Reserve)  # noqa: S101
        effects.reservations.append(
            Reservation(
                key=action.key,
                owner=action.owner,
                slots=action.slots,
                priority=action.priority,
                starts_seconds=action.starts_seconds,
                expires_seconds=action.expires_seconds,
            )
        )
        return Outcome(stamped=item, status="done")

    async def _release(self, item: act.Stamped, _: Overlay, effects: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.Release)  # noqa: S101
        effects.released.append(action.key)
        return Outcome(stamped=item, status="done")

    async def _start_gang(self, item: act.Stamped, overlay: Overlay, _: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.StartGang)  # noqa: S101
        return await self._form(item, action, overlay, self._wishes.checkpoint_of(action.job.name))

    async def _restart_gang(self, item: act.Stamped, overlay: Overlay, _: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.RestartGang)  # noqa: S101
        gang = overlay.read("gangs").get(action.gang.name)
        failed = gang.attempt if gang is not None and action.failed else 0
        await claim_attempt(self._store, self._writes, action.job, action.attempt, failed)
        await self._delete_members(overlay, action.gang.name, 1.0)
        return await self._form(item, action, overlay, action.restore_step, claimed=True)

    async def _form(
        self,
        item: act.Stamped,
        action: act.StartGang | act.RestartGang,
        overlay: Overlay,
        restore_step: int,
        *,
        claimed: bool = False,
    ) -> Outcome:
        if not claimed:
            await claim_attempt(self._store, self._writes, action.job, action.attempt)
        job = overlay.read("jobs")[action.job.name]
        nodes = overlay.read("nodes")
        product = nodes[action.layout.slots[0].node].accelerator
        accelerator = overlay.read("accelerators")[product]
        wish = self._wishes.wish_of(job.ref)
        made: list[JsonObject] = []
        pods = gang_pods(action, job, accelerator, wish, restore_step, self._settings, nodes)
        await self._groups.join(pods, job.ref, item.issued_seconds)
        try:
            for pod in pods:
                await self._templates.ensure(
                    pod, accelerator, action.layout.slots[0].gpus, item.issued_seconds
                )
                made.append(await self._create_pod(pod, item))
        except StoreError:
            await self._take_back(made)
            raise
        if self._refusals is not None:
            self._refusals.succeeded(pods_of(action.job.kind, action.job.name))
        return Outcome(stamped=item, status="done")

    async def _take_back(self, made: list[JsonObject]) -> None:
        """A gang starts wholly or not at all: what was made of a refused one goes (it counts as no failure)."""
        for pod in made:
            meta = pod["metadata"]
            with contextlib.suppress(StoreError):
                await self._delete_pod(f"{meta['namespace']}/{meta['name']}", meta["uid"], 1.0)

    async def _stop_gang(self, item: act.Stamped, overlay: Overlay, _: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.StopGang)  # noqa: S101
        gang = overlay.read("gangs").get(action.gang.name)
        job = overlay.read("jobs").get(gang.job) if gang is not None else None
        if job is not None and action.failed:
            await count_failure(self._store, self._writes, job.ref, action.attempt)
        await self._delete_members(overlay, action.gang.name, action.grace_seconds)
        if job is not None:
            await self._groups.leave(job.ref, item.issued_seconds)
        return Outcome(stamped=item, status="done")

    async def _delete_members(self, overlay: Overlay, gang: str, grace_seconds: float) -> None:
        found = overlay.read("gangs").get(gang)
        for member in found.members if found else ():
            key, _, uid = member.partition("#")
            await self._delete_pod(key, uid, grace_seconds)

    async def _grant_power(self, item: act.Stamped, overlay: Overlay, effects: Effects) -> Outcome:
        action = item.action
        assert isinstance(action, act.GrantPower)  # noqa: S101
        sent = self._power.grant(item, action.ttl_seconds)
        if sent is None:
            return Outcome(
                stamped=item, status="failed", message=f"the agent of {action.node} is not connected"
            )
        overlay.apply(action)
        lease = overlay.read("leases")[action.node]
        epoch, sequence = sent
        effects.leases.append(msgspec.structs.replace(lease, epoch=epoch, sequence=sequence))
        return Outcome(stamped=item, status="sent")


def _subject(item: act.Stamped) -> Ref:

    return subject_of(item.action)

"""The working memory of one training round, and what is done to running attempts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from cluster.actions import Checkpoint, Release, Reserve, RestartGang, StartGang, StopGang
from cluster.admission import Fences, slot_for
from cluster.hardware import Node, Offer, Slot
from cluster.overlay import Overlay
from cluster.plan import Context
from cluster.reasons import Reason
from cluster.snapshot import Snapshot
from cluster.targets import Cadence, Queue
from cluster.training import Gang, GangPhase, Job, JobPhase, Layout
from placement.packing.best_fit import pick_devices
from placement.training.islands import Fit, Shortage, choose_island, islands_of
from policies.commit.inventory import Inventory
from policies.confining import confined, inside, narrowed
from policies.draft import Draft, quantity
from policies.groups import Groups
from policies.resting import Rest, pause_seconds
from policies.train import why
from policies.train.restart import Successor, broken_slots, is_stuck, successor
from policies.train.waiting import in_queue_order, newest_gangs, waits

Seconds = Annotated[float, msgspec.Meta(ge=0.0)]


class IslandGangConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy.

    `bind_seconds`: an attempt not wholly bound by then is replanned elsewhere. `forming_seconds`,
    `verifying_seconds`: longest an attempt may form, and check its network. `stop_grace_seconds`: time a
    stopped attempt has to write a checkpoint. `reserve_seconds`: how long nodes are kept for a waiting job
    without being renewed.
    """

    bind_seconds: Seconds = 10.0
    forming_seconds: Seconds = 600.0
    verifying_seconds: Seconds = 300.0
    stop_grace_seconds: Seconds = 30.0
    reserve_seconds: Seconds = 120.0


class IslandGangState(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs whose attempts end without a step of progress: what was learnt of each, by job."""

    schema: int = 1
    resting: dict[str, Rest] = {}


class TrainRun:
    """One call's view, indexes and draft."""

    def __init__(
        self, view: Snapshot, ctx: Context, config: IslandGangConfig, state: IslandGangState
    ) -> None:
        self.view, self.config, self.now = view, config, ctx.now_seconds
        self.draft, self.overlay = Draft(), Overlay(view)
        self.gangs = newest_gangs(view)
        self.jobs = in_queue_order(dict(view.jobs))
        self.islands = islands_of(view.nodes) if self.jobs else []
        self.space = self.overlay.space
        self.fences = Fences(view.nodes)
        self.kept: set[str] = set()
        self.waiting: list[Job] = []
        self.resting = {name: rest for name, rest in sorted(state.resting.items()) if name in view.jobs}

    def state(self) -> IslandGangState:
        """What is remembered."""
        return IslandGangState(resting={name: self.resting[name] for name in sorted(self.resting)})

    # ------------------------------------------------------------------------------------- attempts that exist

    def tend(self) -> None:
        """Stop what is suspended or left over, restart what is broken, set how often the rest saves."""
        self._stop_strays()
        for job in self.jobs:
            gang = self.gangs.get(job.name)
            if gang is None:
                continue
            if gang.phase is GangPhase.DONE:
                seconds = self.now - gang.phase_since_seconds
                self.draft.because(why.done(job, gang, max(0.0, seconds)))
            elif gang.phase is GangPhase.STOPPING:
                self._stop(job, gang, 1.0, save=False)  # a member that came when the others were going
            elif gang.phase is GangPhase.STOPPED or job.phase is JobPhase.DONE:
                continue
            elif job.suspended:
                self._stop(job, gang, self.config.stop_grace_seconds, save=True)
            elif self._is_broken(job, gang):
                self._restart(job, gang)
            elif gang.phase is GangPhase.RUNNING:
                self._set_cadence(job)
                self._tell_outdated(job, gang)
            elif gang.phase is GangPhase.FORMING and gang.blocked:
                self.draft.because(why.blocked(job, gang, self.config.forming_seconds))

    def _stop_strays(self) -> None:
        """Older attempts that still hold something: what a lost answer or a crash left behind."""
        for key in sorted(self.view.gangs):
            gang = self.view.gangs[key]
            job = self.view.jobs.get(gang.job)
            if job is not None and not job.held and gang.attempt < self.gangs[gang.job].attempt:
                self._stop(job, gang, 1.0, save=False)

    def _is_broken(self, job: Job, gang: Gang) -> bool:
        config = self.config
        age = self.now - gang.phase_since_seconds
        if gang.phase is GangPhase.FAILED or broken_slots(self.view, gang):
            return True
        if gang.phase is GangPhase.FORMING:
            return age >= config.forming_seconds or (
                age >= config.bind_seconds and bool(is_stuck(self.view, job, gang))
            )
        return gang.phase is GangPhase.VERIFYING and age >= config.verifying_seconds

    def _stop(self, job: Job, gang: Gang, grace: float, *, save: bool, failed: bool = False) -> None:
        """Stop an attempt, unless its pods are on their way out already."""
        claims = [self.view.claims.get(member.partition("#")[0]) for member in gang.members]
        if gang.members and all(claim is None or claim.phase == "stopping" for claim in claims):
            return
        self.draft.act(
            StopGang(
                gang=gang.ref,
                attempt=gang.attempt,
                grace_seconds=grace,
                checkpoint_first=save,
                failed=failed,
                reason=self.draft.because(why.stopped(job, gang, grace)),
            )
        )

    def _restart(self, job: Job, gang: Gang) -> None:
        stuck = gang.phase is GangPhase.FORMING and is_stuck(self.view, job, gang)
        # What was never bound whole, or lost a node before it had started, has not run: no failure of the job.
        failed = not stuck and (gang.ran or not broken_slots(self.view, gang))
        failures = job.failures + (failed and gang.attempt > job.failed_attempt)
        if failures > job.restart_limit:
            self.draft.because(why.limit_reached(job, gang.checkpoint_step, failures))
            self._stop(job, gang, 1.0, save=False, failed=True)
            return
        if stuck:
            waited = self.now - gang.phase_since_seconds
            self.draft.because(why.unbound(job, gang, sorted(stuck), waited, self.config.bind_seconds))
        self._must_rest(job, gang)
        if (held := self._held_back(job)) is not None:
            self.draft.because(held)
            self.waiting.append(job)
            self._stop(job, gang, 1.0, save=False, failed=failed)
            return
        found = successor(self.view, self.space, self.islands, job, gang)
        if isinstance(found, Shortage):
            # Nowhere to go on: free what is left of the attempt, and wait like any other job.
            free = {name: len(self.space.free_devices(name, job.ref)) for name in self.view.nodes}
            self._waits(job, found, free)
            self.waiting.append(job)
            self._stop(job, gang, 1.0, save=False, failed=failed)
            return
        self._form_next(job, gang, found, failed=failed)

    def _held_back(self, job: Job) -> Reason | None:
        """Why a job's next attempt waits although there may be room; None when it need not."""
        if job.refused is not None and job.refused.waits(self.now):
            return why.refused(job, job.refused)
        rest = self.resting.get(job.name)
        return why.resting(job, rest) if rest is not None and rest.until_seconds > self.now else None

    def _must_rest(self, job: Job, gang: Gang) -> None:
        """The next attempt waits when this one, like the one before it, ended without a step of progress."""
        if gang.step > gang.checkpoint_step:
            self.resting.pop(job.name, None)
            return
        rest = self.resting.get(job.name)
        if rest is None or rest.counted < gang.attempt:
            failures = (rest.failures if rest is not None else 0) + 1
            until = self.now + pause_seconds(failures)
            rest = Rest(failures=failures, counted=gang.attempt, until_seconds=until)
            self.resting[job.name] = rest

    def _form_next(self, job: Job, gang: Gang, found: Successor, *, failed: bool) -> None:
        action = RestartGang(
            gang=gang.ref,
            job=job.ref,
            attempt=job.attempt + 1,
            layout=found.layout,
            restore_step=gang.checkpoint_step,
            failed=failed,
            expects=(job.ref,),
            reason=self.draft.because(why.restarted(job, gang, job.attempt + 1)),
        )
        self.draft.act(action)
        self.overlay.apply(action)

    def _tell_outdated(self, job: Job, gang: Gang) -> None:
        """A change of what ranks are started from ends nothing: work since the last checkpoint would be lost."""
        if gang.revision and job.revision and gang.revision != job.revision:
            self.draft.because(why.outdated(job, gang))

    def _set_cadence(self, job: Job) -> None:
        spec = job.checkpoint
        interval = min(max(spec.interval_seconds, spec.min_interval_seconds), spec.max_interval_seconds)
        standing = self.view.targets.get(f"Cadence/{job.name}")
        if isinstance(standing, Cadence) and standing.checkpoint_seconds == interval:
            return
        reason = self.draft.because(why.cadence(job, interval))
        if interval != spec.interval_seconds:  # the pods were started with the user's own
            self.draft.act(
                Checkpoint(
                    job=job.ref, interval_seconds=interval, tier=spec.tier, expects=(job.ref,), reason=reason
                )
            )
        self.draft.aim(
            Cadence(owner="train", decided_seconds=self.now, job=job.name, checkpoint_seconds=interval)
        )

    # --------------------------------------------------------------------------------------------- new attempts

    def start(self) -> None:
        """Start waiting jobs where their nodes are free; keep nodes for those that must wait a little."""
        candidates = []
        for job in self.jobs:
            gang = self.gangs.get(job.name)
            if waits(self.view, job, gang):
                if (held := self._held_back(job)) is None:
                    candidates.append(job)
                else:
                    self.draft.because(held)
                    self.waiting.append(job)
            elif gang is None and job.spent and job.phase is JobPhase.WAITING:
                self.draft.because(why.limit_reached(job, 0, job.failures))
        if candidates:
            inventory = Inventory(Groups(self.view), self.now)
            free = {name: len(self.space.free_devices(name)) for name in inventory.names}
            for job in candidates:
                self._start_or_wait(job, inventory, free)
        self._release()

    def _start_or_wait(self, job: Job, inventory: Inventory, free: dict[str, int]) -> None:
        held = self._held(job)
        own = {**free, **{name: len(self.space.free_devices(name, job.ref)) for name in held}}
        fence = self.fences.of(job)
        reached = inside(own, fence)
        found = choose_island(self.islands, reached, job, self.view.accelerators, held)
        if isinstance(found, Fit):
            self._start(job, found)
            self._taken(job, found, inventory, free)
            return
        self.waiting.append(job)
        rows = inside(inventory.by_node(inventory.available(job.priority)), fence)
        soon = choose_island(self.islands, rows, job, self.view.accelerators, held)
        if isinstance(soon, Fit):
            ready = sum(1 for node in soon.nodes if own.get(node.name, 0) >= job.gpus_per_node)
            self.draft.because(why.making_room(job, soon, ready))
            self._reserve(job, soon)
            self._taken(job, soon, inventory, free)
        else:
            self._waits(job, found, own)

    def _waits(self, job: Job, found: Shortage, free: Mapping[str, int]) -> None:
        """Why a job waits: too few nodes are free, or what is free is out of its pods' reach."""
        fence = self.fences.of(job)
        seen = narrowed(free, fence, job.accelerators, self.view.nodes)
        if fence is not None and seen is not None:
            need = quantity("nodes", job.min_nodes, "nodes")
            self.draft.because(confined(job.ref, fence, seen, need))
        else:
            self.draft.because(why.waiting(job, found))

    def _taken(self, job: Job, fit: Fit, inventory: Inventory, free: dict[str, int]) -> None:
        inventory.take_nodes(tuple(node.name for node in fit.nodes), job.gpus_per_node, job.priority)
        for node in fit.nodes:
            free[node.name] = len(self.space.free_devices(node.name))

    def _held(self, job: Job) -> set[str]:
        """Nodes on which something is reserved for the job."""
        return {
            slot.node
            for reservation in self.view.reservations.values()
            if reservation.owner.name == job.name and reservation.owner.kind == job.ref.kind
            for slot in reservation.slots
        }

    def _start(self, job: Job, fit: Fit) -> None:
        slots = tuple(self._slot(job, node) for node in fit.nodes)
        degrees = fit.degrees
        layout = Layout(
            tensor=degrees.tensor,
            pipeline=degrees.pipeline,
            data=degrees.data,
            micro_batch=job.micro_batch,
            layers_per_stage=degrees.layers_per_stage,
            slots=slots,
            network=fit.island.link,
            islands=(fit.island.name,),
        )
        action = StartGang(
            job=job.ref,
            attempt=job.attempt + 1,
            layout=layout,
            expects=(job.ref,),
            reason=self.draft.because(why.started(job, fit)),
        )
        self.draft.act(action)
        self.overlay.apply(action)

    def _slot(self, job: Job, node: Node) -> Slot:
        devices = pick_devices(node, self.space.free_devices(node.name, job.ref), job.gpus_per_node)
        return slot_for(Slot(node=node.name, devices=devices), job)

    # ---------------------------------------------------------------------------------------------- reservations

    def _reserve(self, job: Job, fit: Fit) -> None:
        """Keep what is free of the gang's nodes, so that no replica is packed onto it meanwhile."""
        slots = []
        for node in fit.nodes:
            free = self.space.free_devices(node.name, job.ref)[: job.gpus_per_node]
            if free and node.offer is Offer.OPEN:
                slots.append(Slot(node=node.name, devices=tuple(free)))
        if not slots:
            return
        key = f"train/{job.name}"
        self.kept.add(key)
        standing = self.view.reservations.get(key)
        half = self.now + self.config.reserve_seconds / 2.0
        if standing is not None and standing.slots == tuple(slots) and standing.expires_seconds > half:
            return
        action = Reserve(
            key=key,
            owner=job.ref,
            slots=tuple(slots),
            priority=job.priority,
            starts_seconds=self.now,
            expires_seconds=self.now + self.config.reserve_seconds,
            expects=(job.ref,),
            reason=self.draft.because(why.reserved(job, fit, sum(slot.gpus for slot in slots))),
        )
        self.draft.act(action)
        self.overlay.apply(action)

    def _release(self) -> None:
        """Give up reservations of jobs that started, were suspended or are gone."""
        for key in sorted(self.view.reservations):
            reservation = self.view.reservations[key]
            if key.startswith("train/") and key not in self.kept:
                self.draft.act(Release(key=key, reason=self.draft.because(why.released(reservation))))

    # --------------------------------------------------------------------------------------------------- queues

    def order(self) -> None:
        """Publish who waits in which queue, in order."""
        queues: dict[str, list[str]] = {}
        for job in self.waiting:
            queues.setdefault(job.queue, []).append(job.name)
        for key in sorted(self.view.targets):
            target = self.view.targets[key]
            if isinstance(target, Queue) and target.order:
                queues.setdefault(target.queue, [])
        for queue in sorted(queues):
            order = tuple(queues[queue])
            standing = self.view.targets.get(f"Queue/{queue}")
            if not isinstance(standing, Queue) or standing.order != order:
                self.draft.aim(
                    Queue(
                        owner="train",
                        decided_seconds=self.now,
                        queue=queue,
                        order=order,
                        expected_start_seconds=(None,) * len(order),
                    )
                )

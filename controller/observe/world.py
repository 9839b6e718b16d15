"""Keeps the model in step with the world: objects from caches, reports from agents and gateways.

Only what changed is projected again. A fault in one object is a list of sentences about that object;
it never keeps others out of the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from cluster import events as ev
from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Offer
from cluster.observer import Observer
from cluster.overlay import gang_key
from cluster.training import GangPhase, JobPhase
from controller.hub.messages import InventorySeen
from controller.observe import gangs, intents, nodes, pods
from controller.observe.domains import DomainBook
from controller.observe.gangs import Member, Memory, Progress
from controller.observe.products import ProductBook
from controller.observe.told import AgentTold
from controller.resources import core
from controller.resources.modelservice import ModelService
from controller.resources.powerdomain import PowerDomain as PowerDomainObject
from controller.resources.trainingjob import TrainingJob

ACQUAINT_SECONDS = 5.0
"""How long after a start agents are waited for before anything is planned: their longest pause between two tries."""
SILENT_SECONDS = 10.0
"""A node whose agent has not reported for this long gives no capacity (two lease lifetimes)."""

FORGET_SECONDS = 60.0
"""What an agent told is kept for this long while there is no Node object: the two come in any order."""


class Change(NamedTuple):
    """One object as the cache has it now; None when it is gone."""

    kind: str
    key: str
    obj: Any


class World:
    """Raw objects and reports on one side, the `Observer` on the other."""

    def __init__(self, observer: Observer, seed: int, *, started_seconds: float) -> None:
        """Start with an empty world."""
        self.observer = observer
        self.objects: dict[str, dict[str, Any]] = defaultdict(dict)
        self.faults: dict[tuple[str, str], tuple[str, ...]] = {}
        self.inventories: dict[str, InventorySeen] = {}
        self.told: dict[str, AgentTold] = {}
        self.unknown_products: dict[str, nodes.NodeFacts] = {}
        self.closed: dict[str, nodes.NodeFacts] = {}
        """Nodes of ours that take no new work, with why."""
        self.last_report: dict[str, float] = {}
        self.started_seconds = started_seconds
        self.domains = DomainBook()
        self.products = ProductBook()
        self._seed = seed
        self._silent: set[str] = set()
        self._dirty: dict[str, set[str]] = defaultdict(set)
        self._memory: dict[str, Memory] = {}
        self._progress: dict[str, dict[str, Progress]] = defaultdict(dict)
        self._pods_on: dict[str, set[str]] = defaultdict(set)
        self._gang_pods: dict[str, dict[str, Member]] = defaultdict(dict)
        self._facts: dict[str, pods.PodFacts] = {}
        self._waiting: dict[str, tuple[str, float]] = {}
        self._node_of: dict[str, str] = {}
        self._deleted: set[str] = set()
        self.engines: dict[str, dict[str, tuple[str, str]]] = {}
        """Replicas as each node's agent tells them: pod key to (uid, phase)."""
        self.ungated: set[str] = set()
        """Keys of pods that are up but for the gate the operator opens."""
        self.finalized: set[str] = set()
        """Keys of pods that are being deleted and have a finalizer of ours."""

    # what comes in

    def apply(self, changes: Iterable[Change]) -> None:
        """Take objects in; they are projected by `settle`."""
        for change in changes:
            bucket = self.objects[change.kind]
            if change.obj is None:
                bucket.pop(change.key, None)
            else:
                bucket[change.key] = change.obj
            self._dirty[change.kind].add(change.key)

    def inventory(self, node: str, report: InventorySeen, now_seconds: float) -> None:
        """A node told what it has."""
        self.last_report[node] = now_seconds
        if self.inventories.get(node) != report:
            self.inventories[node] = report
            self._dirty["Node"].add(node)

    def engine_up(self, pod: core.Pod) -> bool:
        """Whether the agent of a pod's node says that its engine is registered and warm.

        An agent that knows nothing of the pod (one beside engines that do not talk to it) leaves the word to the
        engine's own readiness probe; one that was not heard yet may know better.
        """
        told = self.engines.get(pod.spec.node_name)
        if told is None:
            return False
        uid, phase = told.get(pod.metadata.key, (pod.metadata.uid, "ready"))
        return uid == pod.metadata.uid and phase == "ready"

    def heard(self, node: str, observed_seconds: float) -> None:
        """A node's agent reported."""
        self.last_report[node] = max(self.last_report.get(node, 0.0), observed_seconds)

    def progress(self, key: str, node: str, progress: Progress) -> None:
        """A node's part of a gang reported its progress; `key` is the gang's."""
        if self._progress[key].get(node) != progress:
            self._progress[key][node] = progress
            self._dirty["Gang"].add(key)

    # what follows from it

    def settle(self, now_seconds: float) -> bool:
        """Project everything that changed and fold it. True when a planner would look at something new."""
        changed = False
        for node in self._silence(now_seconds):
            self._dirty["Node"].add(node)
        if self._dirty["AcceleratorClass"]:
            changed |= self._classes(now_seconds)
        if self._dirty["PowerDomain"] or self._dirty["Node"]:
            changed |= self._power_domains(now_seconds)
        for kind, settle in (
            ("Node", self._node),
            ("ModelService", self._service),
            ("TrainingJob", self._job),
            ("Pod", self._pod),
            ("Gang", self._gang),
        ):
            for key in sorted(self._dirty.pop(kind, ())):
                changed |= settle(key, now_seconds)
        self._dirty.clear()
        return changed

    def _silence(self, now: float) -> list[str]:
        """Nodes that fell silent or came back since the last call.

        When several are known and all are silent, the fault is rather ours (a hub, a network): what serves is left to
        serve, and everybody gets the time anew that they get after a restart.
        """
        turned = []
        quiet = {n: now - max(self.last_report.get(n, 0.0), self.started_seconds) for n in self.inventories}
        if len(quiet) > 1 and min(quiet.values()) > SILENT_SECONDS:
            self.started_seconds = now
            quiet = dict.fromkeys(quiet, 0.0)
        for node, silence in quiet.items():
            silent = silence > SILENT_SECONDS
            if silence > FORGET_SECONDS and node not in self.objects["Node"]:
                for book in (self.inventories, self.told, self.last_report, self.engines):
                    book.pop(node, None)
                self._silent.discard(node)
            elif silent != (node in self._silent):
                (self._silent.add if silent else self._silent.discard)(node)
                turned.append(node)
        return turned

    def _fold(self, noun: Any, now: float) -> bool:
        return self.observer.fold(
            ev.Seen(source="watch", observed_seconds=now, delivered_seconds=now, noun=noun)
        )

    def _forget(self, mapping: str, key: str, now: float) -> bool:
        gone = ev.Gone(source="watch", observed_seconds=now, delivered_seconds=now, mapping=mapping, key=key)
        return self.observer.fold(gone)

    @property
    def classes(self) -> dict[str, AcceleratorClass]:
        """Products known now."""
        return self.observer.live("accelerators")

    def _classes(self, now: float) -> bool:
        changed = False
        objects = self.objects["AcceleratorClass"]
        wanted = self.products.resolve(objects)
        for name in {key for kind, key in self.faults if kind == "AcceleratorClass"} | set(objects):
            self._note("AcceleratorClass", name, self.products.faults.get(name, ()))
        for mapping in ("accelerators", "pools"):
            for key in sorted(set(self.observer.live(mapping)) - {k for m, k in wanted if m == mapping}):
                changed |= self._forget(mapping, key, now)
        for _, noun in sorted(wanted.items()):
            changed |= self._fold(noun, now)
        for kind in ("Node", "ModelService", "TrainingJob"):
            self._dirty[kind].update(self.objects[kind])
        return changed

    def _power_domains(self, now: float) -> bool:
        objects: dict[str, PowerDomainObject] = self.objects["PowerDomain"]
        labels = {name: obj.metadata.labels for name, obj in self.objects["Node"].items()}
        turned = self.domains.resolve(objects, labels)
        changed = False
        faulty = {name for kind, name in self.faults if kind == "PowerDomain"}
        for name in sorted(set(self.observer.live("domains")) | set(objects) | faulty):
            faults = self.domains.faults.get(name, ())
            self._note("PowerDomain", name, faults)
            if name in objects and not faults:
                changed |= self._fold(intents.domain(objects[name], self.domains.members[name]), now)
            else:
                changed |= self._forget("domains", name, now)
        self._dirty["Node"].update(node for node in turned if node in labels)
        return changed

    def _note(self, kind: str, key: str, faults: tuple[str, ...]) -> None:
        if faults:
            self.faults[kind, key] = faults
        else:
            self.faults.pop((kind, key), None)

    def _node(self, name: str, now: float) -> bool:
        obj: core.Node | None = self.objects["Node"].get(name)
        self._dirty["Pod"].update(self._pods_on[name])
        self.closed.pop(name, None)
        if obj is None:
            self.unknown_products.pop(name, None)
            if self._pods_on[name]:
                self._deleted.add(name)
            return self._forget("nodes", name, now)
        self._deleted.discard(name)
        facts = nodes.node(
            obj,
            self.inventories.get(name),
            self.classes,
            self.observer.live("pools"),
            domain=self.domains.domain_of(name),
            silent=name in self._silent,
            seed=self._seed,
        )
        self.unknown_products.pop(name, None)
        if facts.node is None:
            if facts.unknown_product:
                self.unknown_products[name] = facts
            return self._forget("nodes", name, now)
        if facts.closed:
            self.closed[name] = facts
        return self._fold(facts.node, now)

    def _service(self, key: str, now: float) -> bool:
        obj: ModelService | None = self.objects["ModelService"].get(key)
        if obj is None:
            self._note("ModelService", key, ())
            return self._forget("services", key, now)
        intent = intents.service(obj, self.classes)
        self._note("ModelService", key, intent.faults)
        # A service that became invalid is no longer decided on, but what runs keeps running.
        return self._fold(intent.noun, now) if intent.noun is not None else False

    def _job(self, key: str, now: float) -> bool:
        obj: TrainingJob | None = self.objects["TrainingJob"].get(key)
        if obj is None:
            self._note("TrainingJob", key, ())
            self._waiting.pop(key, None)
            return self._forget("jobs", key, now)
        intent = intents.job(obj, self.classes)
        self._note("TrainingJob", key, intent.faults)
        if intent.noun is None:
            return self._forget("jobs", key, now)
        uid, since = self._waiting.get(key, ("", now))
        if uid != obj.metadata.uid:  # another job of the same name starts to wait anew
            since = now
        self._waiting[key] = (obj.metadata.uid, since)
        noun = msgspec.structs.replace(intent.noun, waiting_since_seconds=since)
        return self._fold(self._with_attempts(noun), now)

    def _with_attempts(self, job: Any) -> Any:
        """The job with the newest attempt any pod belongs to, and `active` while one of them lives."""
        attempts = [g for g in self.observer.live("gangs").values() if g.job == job.name]
        newest = max((g.attempt for g in attempts), default=0)
        live = any(g.phase not in (GangPhase.DONE, GangPhase.FAILED, GangPhase.STOPPED) for g in attempts)
        phase = JobPhase.ACTIVE if live and job.phase is JobPhase.WAITING else job.phase
        if phase is JobPhase.WAITING and any(g.phase is GangPhase.DONE for g in attempts):
            phase = JobPhase.DONE
        return msgspec.structs.replace(job, attempt=max(job.attempt, newest), phase=phase)

    def _pod(self, key: str, now: float) -> bool:
        pod: core.Pod | None = self.objects["Pod"].get(key)
        before = self._facts.pop(key, None)
        if before is not None:
            self._unlink(key, before)
        waits = pod is not None and pods.awaits_registration(pod)
        (self.ungated.add if waits else self.ungated.discard)(key)
        held = pod is not None and pods.is_finalized(pod)
        (self.finalized.add if held else self.finalized.discard)(key)
        if pod is None:
            self._deleted &= self._pods_on.keys()
            return self._forget_pod(key, before, now)
        node = pods.node_of(pod)
        resource_names = frozenset(c.resource_name for c in self.classes.values()) or frozenset(
            {"nvidia.com/gpu"}
        )
        facts = pods.project(pod, resource_names, node_lost=self._lost(node), now_seconds=now)
        self._facts[key] = facts
        self._node_of[key] = node
        self._pods_on[node].add(key)
        changed = self._fold(facts.claim, now) if facts.claim else self._forget("claims", key, now)
        if facts.launcher is not None and facts.replica is not None:
            changed |= self._fold(facts.launcher, now)
            changed |= self._fold(self._since(facts.replica), now)
        elif before is not None and before.replica is not None:
            changed |= self._forget_replica(key, now)
        if facts.rank is not None:
            self._link(key, Member(pod, facts.rank))
        return changed

    def _since(self, replica: Any) -> Any:
        old = self.observer.live("replicas").get(replica.key)
        if old is not None and old.phase is replica.phase and old.ref.uid == replica.ref.uid:
            return msgspec.structs.replace(replica, phase_since_seconds=old.phase_since_seconds)
        return replica

    def _lost(self, node: str) -> bool:
        """Whether a pod's node is silent, or was deleted under it."""
        known = self.observer.live("nodes").get(node)
        return known.offer is Offer.LOST if known is not None else node in self._deleted

    def _link(self, key: str, member: Member) -> None:
        gang = gang_key(member.launch.job, member.launch.attempt)
        if gang not in self._gang_pods:  # a new attempt makes the older ones old
            self._dirty["Gang"].update(self._attempts(member.launch.job))
        self._gang_pods[gang][key] = member
        self._dirty["Gang"].add(gang)

    def _attempts(self, job: str) -> list[str]:
        """Keys of a job's attempts that have pods."""
        return [
            key for key, found in self._gang_pods.items() if any(m.launch.job == job for m in found.values())
        ]

    def _unlink(self, key: str, facts: pods.PodFacts) -> None:
        node = self._node_of.pop(key)
        self._pods_on[node].discard(key)
        if not self._pods_on[node]:
            del self._pods_on[node]
        if facts.rank is not None:
            gang = gang_key(facts.rank.job, facts.rank.attempt)
            self._gang_pods[gang].pop(key, None)
            self._dirty["Gang"].add(gang)

    def _forget_pod(self, key: str, before: pods.PodFacts | None, now: float) -> bool:
        changed = self._forget("claims", key, now)
        if before is not None and before.replica is not None:
            changed |= self._forget_replica(key, now)
        return changed

    def _forget_replica(self, key: str, now: float) -> bool:
        replica = self._forget("replicas", key, now)
        return self._forget("launchers", key, now) or replica

    def _gang(self, key: str, now: float) -> bool:
        members = sorted(self._gang_pods[key].values(), key=lambda m: m.launch.node_rank)
        job_key = members[0].launch.job if members else key.rpartition("-a")[0]
        if not members:
            self._gang_pods.pop(key, None)
            self._progress.pop(key, None)
            self._memory.pop(key, None)
            changed = self._forget("gangs", key, now)
        else:
            lost = frozenset(n for n in {pods.node_of(m.pod) for m in members} if self._lost(n))
            newest = max(
                m.launch.attempt
                for g in self._gang_pods.values()
                for m in g.values()
                if m.launch.job == job_key
            )
            progress = gangs.merge_progress(self._progress[key])
            noun, self._memory[key] = gangs.gang(
                members, lost, progress, self._memory.get(key), newest_attempt=newest, now_seconds=now
            )
            # What agents told a predecessor is in the job's status: a restart must not go back behind it.
            saved = max(noun.checkpoint_step, self._saved(job_key))
            noun = msgspec.structs.replace(noun, checkpoint_step=saved)
            before = self.observer.live("gangs").get(key)
            self._fold(noun, now)
            # Steps go by without a decision: only what a plan depends on wakes the planner.
            changed = before is None or (before.phase, before.members) != (noun.phase, noun.members)
        if job_key in self.objects["TrainingJob"]:
            changed |= self._job(job_key, now)
        return changed

    def subject(self, kind: str, key: str) -> Ref:
        """The ref of an object by kind and key, with its uid and generation where known."""
        obj = self.objects[kind].get(key)
        return intents.ref_of(kind, obj.metadata) if obj is not None else Ref(kind, key)

    def image_of(self, ref: Ref) -> str:
        """Image the user asked for, or empty for the operator's default."""
        obj = self.objects[ref.kind].get(ref.name)
        return obj.spec.image if obj is not None else ""

    def command_of(self, ref: Ref) -> list[str]:
        """Command the user wants a job's nodes to run; empty for the image's own."""
        obj = self.objects[ref.kind].get(ref.name)
        return list(obj.spec.command) if obj is not None else []

    def checkpoint_of(self, job: str) -> int:
        """Last checkpointed step of a job, as its newest gang or its status has it."""
        seen = [g.checkpoint_step for g in self.observer.live("gangs").values() if g.job == job]
        return int(max([*seen, self._saved(job)]))

    def _saved(self, job: str) -> int:
        obj: TrainingJob | None = self.objects["TrainingJob"].get(job)
        return obj.status.checkpoint_step if obj is not None else 0

    def tidy(self, now_seconds: float) -> None:
        """Forget services that were taken over from a predecessor and do not exist. Call it when all were listed."""
        for key in sorted(set(self.observer.live("services")) - set(self.objects["ModelService"])):
            self._forget("services", key, now_seconds)

    def gpus_used(self, node: str) -> int:
        """GPUs of a node that pods hold, ours and others'."""
        held = (self._facts[key].claim for key in self._pods_on.get(node, ()))
        return sum(claim.slot.gpus for claim in held if claim is not None)

    def invalid(self, kind: str) -> set[str]:
        """Keys of the objects of a kind that cannot be acted on as they are."""
        return {key for of, key in self.faults if of == kind}

    def acquainted(self, now_seconds: float) -> bool:
        """Whether every node that is ready was heard of, or had its time since the start to make itself heard.

        Before that links and health of its devices are unknown, and a gang might start on no network.
        """
        if now_seconds - self.started_seconds >= ACQUAINT_SECONDS:
            return True
        ready = (name for name, obj in self.objects["Node"].items() if obj.ready)
        return all(name in self.inventories for name in ready)

    def uids(self) -> dict[tuple[str, str], str]:
        """uid of every object of ours by (kind, key), for events."""
        kinds = ("ModelService", "TrainingJob", "PowerDomain", "AcceleratorClass")
        return {(kind, key): obj.metadata.uid for kind in kinds for key, obj in self.objects[kind].items()}

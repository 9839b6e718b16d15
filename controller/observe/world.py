"""Keeps the model in step with the world: objects from caches, reports from agents and gateways.

Only what changed is projected again. A fault in one object is a list of sentences about that object;
it never keeps others out of the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgspec

from cluster.base import Ref
from cluster.hardware import AcceleratorClass
from cluster.observer import Observer
from cluster.refused import Refused
from cluster.silence import silent_nodes
from cluster.training import GangPhase, JobPhase
from controller.hub.messages import InventorySeen
from controller.observe import intents, nodes, pods
from controller.observe.domains import DomainBook
from controller.observe.facets import Machines
from controller.observe.folding import Folding
from controller.observe.keeping import KeepingBook, budget_of
from controller.observe.podparts import PodParts
from controller.observe.products import ProductBook
from controller.observe.restraint import Restraint
from controller.observe.revisions import Kept
from controller.observe.seating import Seating
from controller.observe.standings import Standings
from controller.observe.told import AgentTold
from controller.observe.workloads import Workloads
from controller.resources import core
from controller.resources.modelservice import ModelService
from controller.resources.podpart import Wish, wish_of
from controller.resources.powerdomain import PowerDomain as PowerDomainObject
from controller.resources.trainingjob import TrainingJob

ACQUAINT_SECONDS = 5.0
"""How long after a start agents are waited for before anything is planned: their longest pause between two tries."""
FORGET_SECONDS = 60.0
"""What an agent told is kept for this long while there is no Node object: the two come in any order."""


class Change(NamedTuple):
    """One object as the cache has it now; None when it is gone."""

    kind: str
    key: str
    obj: Any


class World:
    """Raw objects and reports on one side, the `Observer` on the other."""

    def __init__(
        self, observer: Observer, seed: int, *, started_seconds: float, accounts: Collection[str] = ()
    ) -> None:
        """Start with an empty world. `accounts`: ServiceAccounts that may be lent to pods, as `namespace/name`."""
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
        self.refused: dict[tuple[str, str], Refused] = {}
        """Objects whose pods are refused, by (kind, key)."""
        self.parts = PodParts(self.objects, accounts)
        self.restraint = Restraint()
        self.keeping = KeepingBook()
        self._seed = seed
        self._silent: set[str] = set()
        self._dirty: dict[str, set[str]] = defaultdict(set)
        self._waiting: dict[str, tuple[str, float]] = {}
        self.workloads = Workloads(observer)
        self.seating = Seating(observer, self.workloads, self.told, self.objects["Pod"])
        self.mismatches: dict[str, str] = {}
        """Nodes whose labels say another product than their driver, or than what runs there: a sentence."""
        self.facts: dict[str, nodes.NodeFacts] = {}
        """What each node of a known product is."""
        self.machines = Machines(observer, self.seating)
        self.revisions = Standings(observer)
        self._folding = Folding(observer)
        self._fold, self._forget = self._folding.fold, self._folding.forget

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
            if change.kind == "ControllerRevision":
                self._dirty["ModelService"] |= self.revisions.take(change.key, change.obj)

    def inventory(self, node: str, report: InventorySeen, now_seconds: float) -> None:
        """A node told what it has."""
        self.last_report[node] = now_seconds
        if self.inventories.get(node) != report:
            self.inventories[node] = report
            self._dirty["Node"].add(node)

    def refuse(self, kind: str, key: str, refused: Refused | None) -> None:
        """An object's pods are refused from now on, or (None) no longer."""
        if refused is None:
            self.refused.pop((kind, key), None)
        else:
            self.refused[kind, key] = refused
        self._dirty[kind].add(key)

    def heard(self, node: str, observed_seconds: float) -> None:
        """A node's agent reported."""
        self.last_report[node] = max(self.last_report.get(node, 0.0), observed_seconds)

    # what follows from it

    def settle(self, now_seconds: float) -> bool:
        """Project everything that changed and fold it. True when a planner would look at something new."""
        changed = self._restrained(now_seconds)
        for node in self._silence(now_seconds):
            self._dirty["Node"].add(node)
        if self._dirty["AcceleratorClass"]:
            changed |= self._classes(now_seconds)
        self._devices(now_seconds)
        if self._dirty["PowerDomain"] or self._dirty["Node"]:
            changed |= self._power_domains(now_seconds)
        for kind, key in self.parts.touched(self._dirty):
            self._dirty[kind].add(key)
        for kind, settle in (
            ("Node", self._node),
            ("ModelService", self._service),
            ("TrainingJob", self._job),
            ("Pod", self._pod),
        ):
            for key in sorted(self._dirty.pop(kind, ())):
                changed |= settle(key, now_seconds)
        changed |= self._reseat(now_seconds)
        changed |= self._gangs(now_seconds)
        self._dirty.clear()
        return changed

    def _devices(self, now: float) -> None:
        """Nodes whose devices changed otherwise than by their own object."""
        for key in sorted(self._dirty.pop("ResourceSlice", ())):
            self.seating.dirty |= self.seating.dra.slice(key, self.objects["ResourceSlice"].get(key))
        for key in sorted(self._dirty.pop("ResourceClaim", ())):
            self.seating.dirty |= self.seating.dra.claim(key, self.objects["ResourceClaim"].get(key))
        self._dirty["Node"].update(self.seating.due(now))

    def _reseat(self, now: float) -> bool:
        """Nodes whose account of devices hangs on pods that changed, once more."""
        changed = False
        for name in self.seating.unsettled():
            before = self.seating.seats(name)
            changed |= self._node(name, now)
            if self.seating.seats(name) != before:
                for key in sorted(self.workloads.on_node[name]):
                    changed |= self._pod(key, now)
        self._dirty.pop("Pod", None)
        return changed

    def _restrained(self, now: float) -> bool:
        """What namespaces, disruption budgets and the time say about what may be done, before it is projected."""
        changed = False
        for namespace in self._dirty.pop("Namespace", ()):
            for kind in ("ModelService", "TrainingJob"):
                self._dirty[kind].update(k for k in self.objects[kind] if k.rpartition("/")[0] == namespace)
        for key in sorted(self._dirty.pop("PodDisruptionBudget", ())):
            budget = self.objects["PodDisruptionBudget"].get(key)
            if self.keeping.saw(key, budget):
                space = key.rpartition("/")[0]
                self._dirty["Pod"].update(k for k in self.objects["Pod"] if k.rpartition("/")[0] == space)
            changed |= self._fold(budget_of(budget), now) if budget else self._forget("budgets", key, now)
        for key in self._dirty["Pod"]:
            pod = self.objects["Pod"].get(key)
            self.restraint.saw_end(key, pod)
            if pod is not None and (service := self.restraint.saw_pod(pod)):
                self._dirty["ModelService"].add(service)
        for key in self._dirty["ModelService"]:
            self.restraint.saw_service(key, self.objects["ModelService"].get(key))
        self._dirty["ModelService"].update(self.restraint.due(self.observer.live("services"), now))
        return self.observer.allow(self.restraint.cluster(now)) or changed

    def _namespace_of(self, key: str) -> core.Namespace | None:
        return self.objects["Namespace"].get(key.rpartition("/")[0])

    def _silence(self, now: float) -> list[str]:
        """Nodes that fell silent or came back since the last call (`cluster.silence`)."""
        turned = []
        quiet = {n: now - max(self.last_report.get(n, 0.0), self.started_seconds) for n in self.inventories}
        silents = silent_nodes(quiet)
        if silents is None:
            self.started_seconds = now
            quiet = dict.fromkeys(quiet, 0.0)
        for node, silence in quiet.items():
            silent = silents is not None and node in silents
            if silence > FORGET_SECONDS and node not in self.objects["Node"]:
                for book in (self.inventories, self.told, self.last_report, self.workloads.engines):
                    book.pop(node, None)
                self._silent.discard(node)
            elif silent != (node in self._silent):
                (self._silent.add if silent else self._silent.discard)(node)
                turned.append(node)
        return turned

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
        self._dirty["Pod"].update(self.workloads.on_node[name])
        for book in (self.closed, self.mismatches, self.facts, self.unknown_products):
            book.pop(name, None)
        if obj is None:
            self.workloads.node_gone(name)
            return self._unseated(name, now)
        self.workloads.node_seen(name)
        drivers = self._drivers
        facts = nodes.node(
            obj,
            self.inventories.get(name),
            self.classes,
            self.observer.live("pools"),
            domain=self.domains.domain_of(name),
            silent=name in self._silent,
            seed=self._seed,
            beside=self.seating.beside(name, drivers),
        )
        if facts.node is None:
            if facts.unknown_product:
                self.unknown_products[name] = facts
            return self._unseated(name, now)
        self.facts[name] = facts
        if facts.closed:
            self.closed[name] = facts
        if facts.mismatch:
            self.mismatches[name] = facts.mismatch
        changed = self._fold(facts.node, now)
        product = self.classes[facts.node.accelerator]
        changed |= self.seating.seat(facts.node, name, product, facts.devices, drivers, now)
        return (
            self.machines.look(name, obj, facts.node, self.classes, now, silent=name in self._silent)
            or changed
        )

    def _unseated(self, name: str, now: float) -> bool:
        """A node is none of the model's."""
        changed = self.seating.seat(None, name, None, None, (), now)
        changed |= self.machines.look(name, None, None, self.classes, now, silent=False)
        return self._forget("nodes", name, now) or changed

    @property
    def _drivers(self) -> frozenset[str]:
        """Drivers of GPUs that classes name."""
        return frozenset(c.device_driver for c in self.classes.values() if c.device_driver)

    def _service(self, key: str, now: float) -> bool:
        obj: ModelService | None = self.objects["ModelService"].get(key)
        if obj is None:
            self._note("ModelService", key, ())
            self.parts.forget("ModelService", key)
            self.revisions.gone(key)
            return self._forget("services", key, now)
        standing = self.revisions.look(key, obj)
        intent = self.parts.granted("ModelService", standing.acting, intents.service(standing, self.classes))
        self._note("ModelService", key, intent.faults)
        # A service that became invalid is no longer decided on, but what runs keeps running.
        if intent.noun is None:
            return False
        self.revisions.put(key, standing)
        noun = msgspec.structs.replace(intent.noun, refused=self.refused.get(("ModelService", key)))
        return self._fold(self.restraint.service(noun, obj, self._namespace_of(key), now), now)

    def _job(self, key: str, now: float) -> bool:
        obj: TrainingJob | None = self.objects["TrainingJob"].get(key)
        if obj is None:
            self._note("TrainingJob", key, ())
            self.parts.forget("TrainingJob", key)
            self._waiting.pop(key, None)
            return self._forget("jobs", key, now)
        intent = self.parts.granted("TrainingJob", obj, intents.job(obj, self.classes))
        self._note("TrainingJob", key, intent.faults)
        if intent.noun is None:
            return self._forget("jobs", key, now)
        uid, since = self._waiting.get(key, ("", now))
        if uid != obj.metadata.uid:  # another job of the same name starts to wait anew
            since = now
        self._waiting[key] = (obj.metadata.uid, since)
        refused = self.refused.get(("TrainingJob", key))
        held = self.restraint.hold(obj.metadata, obj.spec.mode, self._namespace_of(key))
        noun = msgspec.structs.replace(intent.noun, waiting_since_seconds=since, refused=refused, held=held)
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
        name = pods.node_of(pod) if pod is not None else self.workloads.node_of(key)
        node = self.observer.live("nodes").get(name)
        found = (
            [self.classes[node.accelerator]]
            if node is not None and node.accelerator in self.classes
            else self.classes.values()
        )
        names = frozenset(c.resource_name for c in found) or frozenset({"nvidia.com/gpu"})
        self.seating.pod_seen(key, gone=pod is None, now_seconds=now)
        self.seating.touched.add(name)
        keeping = self.keeping.keeping(pod) if pod is not None else None
        parts = self.machines.parts(name)
        return self.workloads.pod(key, pod, names, now, self.seating.seats(name), keeping, parts)

    def _gangs(self, now: float) -> bool:
        changed = False
        dirty, self.workloads.dirty_gangs = self.workloads.dirty_gangs, set()
        for key in sorted(dirty):
            job = self.workloads.job_of(key)
            changed |= self.workloads.gang(key, self._saved(job), now)
            if job in self.objects["TrainingJob"]:
                changed |= self._job(job, now)
        return changed

    def subject(self, kind: str, key: str) -> Ref:
        """The ref of an object by kind and key, with its uid and generation where known."""
        obj = self.objects[kind].get(key)
        return intents.ref_of(kind, obj.metadata) if obj is not None else Ref(kind, key)

    def wish_of(self, ref: Ref) -> Wish:
        """What is wanted in an object's pods, of the revision it stands at; nothing of one that is gone."""
        standing = self.revisions.of(ref.name) if ref.kind == "ModelService" else None
        obj = standing.acting if standing is not None else self.objects[ref.kind].get(ref.name)
        return wish_of(obj.spec) if obj is not None else Wish()

    def kept(self, service: str, revision: str) -> Kept | None:
        """What is kept of a revision of a service, if it is."""
        return next((each for each in self.revisions.kept(service) if each.name == revision), None)

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

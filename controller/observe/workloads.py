"""Pods as the model has them: claims of everybody, launchers and replicas of services, gangs of jobs."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec

from cluster.hardware import Offer
from cluster.observer import Observer
from cluster.occupancy import Claim, devices_held
from cluster.overlay import gang_key
from controller.observe import gangs, pods
from controller.observe.folding import Folding
from controller.observe.gangs import Member, Memory, Progress
from controller.observe.keeping import Keeping
from controller.observe.seats import NOBODY, Seats
from controller.resources import core


class Workloads:
    """What runs, from pods and from what agents say of them."""

    def __init__(self, observer: Observer) -> None:
        """Start with nothing that runs."""
        self.observer = observer
        self.engines: dict[str, dict[str, tuple[str, str]]] = {}
        """Replicas as each node's agent tells them: pod key to (uid, phase)."""
        self.ungated: set[str] = set()
        """Keys of pods that are up but for the gate the operator opens."""
        self.finalized: set[str] = set()
        """Keys of pods that are being deleted and have a finalizer of ours."""
        self.dirty_gangs: set[str] = set()
        """Keys of gangs whose pods or progress changed since they were last projected."""
        self.facts: dict[str, pods.PodFacts] = {}
        """What each pod is to the model, by pod key."""
        self.on_node: dict[str, set[str]] = defaultdict(set)
        """Keys of the pods on each node that has any, or is named by one."""
        self.gang_pods: dict[str, dict[str, Member]] = defaultdict(dict)
        """Members of each attempt by gang key and pod key."""
        self.reported: dict[str, dict[str, Progress]] = defaultdict(dict)
        """Progress of each gang by node."""
        self._folding = Folding(observer)
        self._memory: dict[str, Memory] = {}
        self._node_of: dict[str, str] = {}
        self._deleted: set[str] = set()

    # what agents say

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

    def progress(self, key: str, node: str, progress: Progress) -> None:
        """A node's part of a gang reported its progress; `key` is the gang's."""
        if self.reported[key].get(node) != progress:
            self.reported[key][node] = progress
            self.dirty_gangs.add(key)

    # nodes under the pods

    def node_seen(self, node: str) -> None:
        """The Node object is there."""
        self._deleted.discard(node)

    def node_gone(self, node: str) -> None:
        """The Node object was deleted: pods it leaves behind are lost."""
        if self.on_node[node]:
            self._deleted.add(node)

    def lost(self, node: str) -> bool:
        """Whether a pod's node is silent, or was deleted under it."""
        known = self.observer.live("nodes").get(node)
        return known.offer is Offer.LOST if known is not None else node in self._deleted

    def node_of(self, key: str) -> str:
        """The node a pod was on when it was last projected; empty for one that is not known."""
        return self._node_of.get(key, "")

    def gpus_used(self, node: str) -> int:
        """GPUs of a node that pods hold, ours and others'."""
        return devices_held(self.claims_on(node))

    def claims_on(self, node: str) -> list[Claim]:
        """What pods on a machine hold of it and of its parts."""
        return [claim for key in self.on_node.get(node, ()) for claim in self.facts[key].claims]

    # pods

    def pod(
        self,
        key: str,
        pod: core.Pod | None,
        resource_names: frozenset[str],
        now: float,
        seats: Seats = NOBODY,
        keeping: Keeping | None = None,
        parts: pods.Parts = pods.WHOLE_MACHINE,
    ) -> bool:
        """Project one pod (None when it is gone). True when a planner would look at something new.

        `resource_names` are the extended resources that are GPUs there, `seats` who really has which of its node's;
        `keeping` is what keeps a replica where it is; `parts` is what else its machine is; `now` in seconds.
        """
        before = self.facts.pop(key, None)
        if before is not None:
            self._unlink(key, before)
        waits = pod is not None and pods.awaits_registration(pod)
        (self.ungated.add if waits else self.ungated.discard)(key)
        held = pod is not None and pods.is_finalized(pod)
        (self.finalized.add if held else self.finalized.discard)(key)
        if pod is None:
            self._deleted &= self.on_node.keys()
            return self._forget_pod(key, before, now)
        node = pods.node_of(pod)
        lost = self.lost(node)
        facts = pods.project(pod, resource_names, node_lost=lost, now_seconds=now, seats=seats, parts=parts)
        self.facts[key] = facts
        self._node_of[key] = node
        self.on_node[node].add(key)
        fold = self._folding.fold
        changed = self._forget_claims(key, before, now, keep=facts.claims)
        for claim in facts.claims:
            changed |= fold(claim, now)
        if facts.launcher is not None and facts.replica is not None:
            changed |= fold(facts.launcher, now)
            replica = keeping.of(facts.replica) if keeping is not None else facts.replica
            changed |= fold(self._since(replica), now)
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

    def _link(self, key: str, member: Member) -> None:
        gang = gang_key(member.launch.job, member.launch.attempt)
        if gang not in self.gang_pods:  # a new attempt makes the older ones old
            self.dirty_gangs.update(self._attempts(member.launch.job))
        self.gang_pods[gang][key] = member
        self.dirty_gangs.add(gang)

    def _attempts(self, job: str) -> list[str]:
        """Keys of a job's attempts that have pods."""
        return [
            key for key, found in self.gang_pods.items() if any(m.launch.job == job for m in found.values())
        ]

    def _unlink(self, key: str, facts: pods.PodFacts) -> None:
        node = self._node_of.pop(key)
        self.on_node[node].discard(key)
        if not self.on_node[node]:
            del self.on_node[node]
        if facts.rank is not None:
            gang = gang_key(facts.rank.job, facts.rank.attempt)
            self.gang_pods[gang].pop(key, None)
            self.dirty_gangs.add(gang)

    def _forget_pod(self, key: str, before: pods.PodFacts | None, now: float) -> bool:
        changed = self._forget_claims(key, before, now)
        if before is not None and before.replica is not None:
            changed |= self._forget_replica(key, now)
        return changed

    def _forget_claims(
        self, key: str, before: pods.PodFacts | None, now: float, keep: tuple[Claim, ...] = ()
    ) -> bool:
        """A pod holds nothing any more but what is to `keep`; one that was not projected before may be a predecessor's."""
        known = {key, *(claim.key for claim in before.claims)} if before is not None else {key}
        changed = False
        for gone in sorted(known - {claim.key for claim in keep}):
            changed |= self._folding.forget("claims", gone, now)
        return changed

    def _forget_replica(self, key: str, now: float) -> bool:
        replica = self._folding.forget("replicas", key, now)
        return self._folding.forget("launchers", key, now) or replica

    # gangs

    def job_of(self, gang: str) -> str:
        """Key of the job an attempt is of."""
        member = next(iter(self.gang_pods[gang].values()), None)
        return member.launch.job if member is not None else gang.rpartition("-a")[0]

    def gang(self, key: str, saved_step: int, now: float) -> bool:
        """Project one attempt; `saved_step` is the last checkpoint its job's status tells.

        True when a planner would look at something new: steps go by without a decision.
        """
        members = sorted(self.gang_pods[key].values(), key=lambda m: m.launch.node_rank)
        if not members:
            self.gang_pods.pop(key, None)
            self.reported.pop(key, None)
            self._memory.pop(key, None)
            return self._folding.forget("gangs", key, now)
        job = members[0].launch.job
        lost = frozenset(n for n in {pods.node_of(m.pod) for m in members} if self.lost(n))
        newest = max(
            m.launch.attempt for g in self.gang_pods.values() for m in g.values() if m.launch.job == job
        )
        noun, self._memory[key] = gangs.gang(
            members,
            lost,
            gangs.merge_progress(self.reported[key]),
            self._memory.get(key),
            newest_attempt=newest,
            now_seconds=now,
        )
        # What agents told a predecessor is in the job's status: a restart must not go back behind it.
        noun = msgspec.structs.replace(noun, checkpoint_step=max(noun.checkpoint_step, saved_step))
        before = self.observer.live("gangs").get(key)
        self._folding.fold(noun, now)
        return before is None or (before.phase, before.members) != (noun.phase, noun.members)

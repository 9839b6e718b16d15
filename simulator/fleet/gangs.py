"""Gangs over the whole fleet: where ranks meet, who may, what becomes of them when one is lost.

The book plays the rendezvous service and the storage of checkpoints, both of which outlive nodes. Ranks are fenced
by attempt: once a rank of attempt n has come, no rank of an older one is let in, and what older ones save is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from agent.node.drivers.base import GangState
from cluster.launch import RankLaunch
from simulator.fleet.machine import Machine
from simulator.physics.rendezvous import JOINED, Attendance, CheckpointVault, JoinResult, Rendezvous
from simulator.physics.shapes import training_of
from simulator.physics.training import Gang, GangPhase

_PHASES = {
    GangPhase.STARTING: "verifying",
    GangPhase.RESTORING: "verifying",
    GangPhase.COMPUTE: "running",
    GangPhase.EXCHANGE: "running",
    GangPhase.CHECKPOINT: "running",
    GangPhase.DONE: "done",
    GangPhase.FAILED: "failed",
}


class Verdict(msgspec.Struct, frozen=True):
    """How a pod of a gang ends: `phase` Succeeded or Failed, with a code and a sentence."""

    phase: str
    reason: str
    message: str


@dataclass(slots=True, eq=False)
class Member:
    """One pod of a gang: its machine and what its ranks were told."""

    key: str
    machine: Machine
    launch: RankLaunch
    uid: str = ""
    meeting: Meeting | None = None
    joined: int = 0
    here: bool = True


@dataclass(slots=True, eq=False)
class Meeting:
    """One attempt of a job, from its first rank to its end."""

    rendezvous: Rendezvous
    members: dict[str, Member] = field(default_factory=dict)
    gang: Gang | None = None
    lost_at_seconds: float = math.inf
    fault: str = ""

    @property
    def running(self) -> bool:
        """Whether its ranks have met and work."""
        return self.gang is not None and not self.gang.over


class GangBook:
    """Every attempt of every job in the fleet.

    `doubled` counts gangs that met while an older attempt of the same job was still running: a correct operator
    keeps it at 0. `fenced` counts ranks of an older attempt that were turned away.
    """

    def __init__(self, peer_loss_seconds: float) -> None:
        self.vault = CheckpointVault()
        self.attendance = Attendance()
        self.meetings: list[Meeting] = []
        self.doubled = 0
        self.fenced = 0
        self._peer_loss_seconds = peer_loss_seconds
        self._newest: dict[str, Meeting] = {}

    def attempts(self, job_uid: str) -> list[int]:
        """Attempts of a job that met, in order."""
        return [
            m.rendezvous.attempt
            for m in self.meetings
            if m.rendezvous.job_uid == job_uid and m.gang is not None
        ]

    def running(self) -> Iterator[Meeting]:
        """Attempts that work now."""
        return (meeting for meeting in self.meetings if meeting.running)

    # ------------------------------------------------------------------------------------------- ranks

    def join(self, member: Member, at_seconds: float) -> Verdict | None:
        """The ranks of a pod come to the rendezvous. None when they are let in, else how the pod ends."""
        launch = member.launch
        meeting = self._meeting(launch)
        told = (launch.rendezvous, launch.attempt, launch.nodes * launch.gpus)
        for index in range(launch.gpus):
            rank = launch.node_rank * launch.gpus + index
            self.attendance.note(meeting.rendezvous, rank, f"{member.key}#{member.uid}", told)
            answer = meeting.rendezvous.join(
                f"{member.key}#{index}",
                rank,
                launch.rendezvous,
                launch.attempt,
                at_seconds,
            )
            if answer not in JOINED:
                return self._refused(member, meeting, answer)
            self.attendance.admit(launch.rendezvous, launch.attempt)
            member.joined += 1
            member.meeting = meeting
            meeting.members[member.key] = member
        if meeting.rendezvous.complete:
            self._form(meeting, at_seconds)
        return None

    def leave(self, member: Member, at_seconds: float, fault: str) -> None:
        """The ranks of a pod are no more: stopped, or their node or a GPU died."""
        meeting = member.meeting
        if meeting is None or not member.here:
            return
        member.here = False
        launch = member.launch
        if meeting.gang is None:
            for index in range(launch.gpus):
                meeting.rendezvous.leave(launch.node_rank * launch.gpus + index)
            return
        if not meeting.gang.over or meeting.gang.phase is GangPhase.FAILED:
            self._lost(meeting, at_seconds, f"{member.key} on {member.machine.name}: {fault}")
        if not meeting.gang.over:
            meeting.gang.fail(at_seconds, member.machine.name)
        member.machine.physics.detach(launch.job_uid)

    def verdict(self, member: Member, now_seconds: float) -> Verdict | None:
        """How a pod whose ranks have met ends, once it does."""
        meeting = member.meeting
        gang = meeting.gang if meeting is not None else None
        if meeting is None or gang is None or not gang.over:
            return None
        if gang.phase is GangPhase.DONE:
            return Verdict("Succeeded", "Completed", f"all {gang.spec.steps} steps are done")
        self._lost(meeting, now_seconds, "a rank died")
        if now_seconds < meeting.lost_at_seconds + self._peer_loss_seconds:
            return None
        return Verdict("Failed", "PeerLost", f"a rank of the gang was lost: {meeting.fault}")

    def state(self, member: Member, at_seconds: float) -> GangState:
        """What the node's agent reports of a pod's ranks."""
        launch, meeting = member.launch, member.meeting
        gang = meeting.gang if meeting is not None else None
        if meeting is None or gang is None:
            return GangState(
                job=launch.job,
                job_uid=launch.job_uid,
                attempt=launch.attempt,
                ranks=launch.gpus,
                ranks_joined=member.joined,
                phase="forming",
            )
        progress = gang.progress_at(at_seconds)
        return GangState(
            job=launch.job,
            job_uid=launch.job_uid,
            attempt=launch.attempt,
            ranks=launch.gpus,
            ranks_joined=member.joined,
            step=progress.step,
            last_checkpoint_step=progress.checkpoint_step,
            phase=_PHASES[progress.phase],
            step_seconds=progress.step_seconds,
            fault=meeting.fault,
        )

    # ----------------------------------------------------------------------------------------- details

    def _meeting(self, launch: RankLaunch) -> Meeting:
        """The newest attempt's meeting; a rank of a newer one opens another and closes it."""
        newest = self._newest.get(launch.job_uid)
        if newest is not None and launch.attempt <= newest.rendezvous.attempt:
            return newest
        if newest is not None:
            newest.rendezvous.close()
        size = launch.nodes * launch.gpus
        meeting = Meeting(Rendezvous(launch.job_uid, launch.rendezvous, launch.attempt, size))
        self._newest[launch.job_uid] = meeting
        self.meetings.append(meeting)
        return meeting

    def _refused(self, member: Member, meeting: Meeting, answer: JoinResult) -> Verdict:
        launch, rendezvous = member.launch, meeting.rendezvous
        self.fenced += answer is JoinResult.OLD_ATTEMPT
        for index in range(member.joined):
            rendezvous.leave(launch.node_rank * launch.gpus + index)
        member.joined, member.meeting = 0, None
        why = (
            f"the rendezvous of attempt {rendezvous.attempt} of {launch.job} turned away rank {launch.node_rank} of "
            f"attempt {launch.attempt}: {answer.value}"
        )
        return Verdict("Failed", "Fenced" if answer is JoinResult.OLD_ATTEMPT else "RendezvousRefused", why)

    def _form(self, meeting: Meeting, at_seconds: float) -> None:
        """All ranks are there: the gang starts, on every node at this moment."""
        rendezvous = meeting.rendezvous
        members = list(meeting.members.values())
        self.doubled += any(
            other.running and other.rendezvous.job_uid == rendezvous.job_uid for other in self.meetings
        )
        nodes = {m.machine.name: m.machine.physics.gang_node(m.launch.gpus) for m in members}
        spec = training_of(members[0].launch)
        meeting.gang = Gang(rendezvous.job_uid, rendezvous.attempt, spec, nodes, self.vault, at_seconds)
        for member in members:
            try:
                member.machine.physics.attach(meeting.gang, member.launch.devices)
            except ValueError as error:
                self._lost(meeting, at_seconds, str(error))
                meeting.gang.fail(at_seconds)

    @staticmethod
    def _lost(meeting: Meeting, at_seconds: float, fault: str) -> None:
        if meeting.lost_at_seconds == math.inf:
            meeting.lost_at_seconds = at_seconds
            meeting.fault = fault

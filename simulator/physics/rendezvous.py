"""Where the ranks of a gang meet, and where its checkpoints survive the nodes.

A `Rendezvous` is one attempt: a rank joins with the job's uid, the rendezvous id and the attempt it was started
for; a wrong one is refused, and nobody leaves before all are there. `CheckpointVault` outlives attempts and nodes,
and refuses writers of an older attempt than it has seen: an old rank that still runs somewhere cannot overwrite
what its successors wrote (DESIGN §3: "an attempt number that fences old ranks").
"""

import enum
from collections import Counter

import msgspec


class JoinResult(enum.Enum):
    """Answer to a rank that wants to join."""

    WAITING = "waiting"
    COMPLETE = "complete"
    OLD_ATTEMPT = "old_attempt"
    WRONG_RENDEZVOUS = "wrong_rendezvous"
    WRONG_RANK = "wrong_rank"
    ALREADY_JOINED = "already_joined"
    CLOSED = "closed"


JOINED = frozenset({JoinResult.WAITING, JoinResult.COMPLETE})
"""Answers that let the rank in."""


class Rendezvous:
    """Meeting of ``size`` ranks of one attempt.

    ``joins`` counts ranks let in, ``refusals`` those turned away.
    """

    __slots__ = (
        "_closed",
        "_joined",
        "attempt",
        "complete_seconds",
        "job_uid",
        "refusals",
        "rendezvous_id",
        "size",
    )

    def __init__(self, job_uid: str, rendezvous_id: str, attempt: int, size: int) -> None:
        if size < 1:
            raise ValueError(f"rendezvous {rendezvous_id} of job {job_uid} has size {size}; it needs a rank")
        self.job_uid = job_uid
        self.rendezvous_id = rendezvous_id
        self.attempt = attempt
        self.size = size
        self.refusals = 0
        self.complete_seconds: float | None = None
        self._joined: dict[int, str] = {}
        self._closed = False

    @property
    def joins(self) -> int:
        """Ranks that are here."""
        return len(self._joined)

    @property
    def complete(self) -> bool:
        """Whether all ranks are here: only then may any of them go on."""
        return self.complete_seconds is not None

    def join(self, member: str, rank: int, rendezvous_id: str, attempt: int, at_seconds: float) -> JoinResult:
        """``member`` (a pod) joins as ``rank``; the last one completes the meeting."""
        refusal = self._refusal(rank, rendezvous_id, attempt)
        if refusal is not None:
            self.refusals += 1
            return refusal
        self._joined[rank] = member
        if len(self._joined) < self.size:
            return JoinResult.WAITING
        self.complete_seconds = at_seconds
        return JoinResult.COMPLETE

    def leave(self, rank: int) -> bool:
        """A waiting rank dies; its place is open again. False when it was not here or all had met."""
        if self.complete or rank not in self._joined:
            return False
        del self._joined[rank]
        return True

    def close(self) -> None:
        """The attempt is over: nobody else joins."""
        self._closed = True

    def members(self) -> tuple[str, ...]:
        """Members in order of rank."""
        return tuple(self._joined[rank] for rank in sorted(self._joined))

    def _refusal(self, rank: int, rendezvous_id: str, attempt: int) -> JoinResult | None:
        if attempt < self.attempt:
            return JoinResult.OLD_ATTEMPT
        if rendezvous_id != self.rendezvous_id or attempt > self.attempt:
            return JoinResult.WRONG_RENDEZVOUS
        if self._closed:
            return JoinResult.CLOSED
        if not 0 <= rank < self.size:
            return JoinResult.WRONG_RANK
        return JoinResult.ALREADY_JOINED if rank in self._joined else None


class Attendance:
    """Counts who comes to which rendezvous, of which attempt and as which rank, let in or not.

    Independent of who is fenced: whether two attempts were ever sent to one rendezvous is a question to whoever starts
    ranks. ``came`` and ``let_in`` count ranks by (rendezvous id, attempt).
    """

    __slots__ = ("_attempts", "_members", "_sizes", "came", "let_in")

    def __init__(self) -> None:
        self.came: Counter[tuple[str, int]] = Counter()
        self.let_in: Counter[tuple[str, int]] = Counter()
        self._attempts: dict[tuple[str, int], set[str]] = {}
        self._members: dict[tuple[str, int], set[str]] = {}
        self._sizes: dict[str, set[int]] = {}

    def note(self, rendezvous: Rendezvous, rank: int, member: str, told: tuple[str, int, int]) -> None:
        """``member`` comes as ``rank``; ``told`` is what it was started with: rendezvous id, attempt, size."""
        identity, attempt, size = told
        self.came[identity, attempt] += 1
        self._attempts.setdefault((rendezvous.job_uid, attempt), set()).add(identity)
        self._members.setdefault((identity, rank), set()).add(member)
        self._sizes.setdefault(identity, set()).add(size)

    def admit(self, rendezvous_id: str, attempt: int) -> None:
        """One of them was let in."""
        self.let_in[rendezvous_id, attempt] += 1

    def breaches(self) -> list[str]:
        """What never may be, as sentences: two attempts at one rendezvous, a rank twice, attempts with two of them."""
        found = []
        attempts: dict[str, set[int]] = {}
        for identity, attempt in self.came:
            attempts.setdefault(identity, set()).add(attempt)
        found += [
            f"ranks of attempts {sorted(each)} were sent to rendezvous {identity}"
            for identity, each in attempts.items()
            if len(each) > 1
        ]
        found += [
            f"attempt {attempt} of {job} was sent to {' and '.join(sorted(each))}"
            for (job, attempt), each in self._attempts.items()
            if len(each) > 1
        ]
        found += [
            f"rank {rank} of rendezvous {identity} was started as {' and as '.join(sorted(each))}"
            for (identity, rank), each in self._members.items()
            if len(each) > 1
        ]
        found += [
            f"ranks of rendezvous {identity} were told sizes {sorted(each)}"
            for identity, each in self._sizes.items()
            if len(each) > 1
        ]
        most = {identity: max(each) for identity, each in self._sizes.items()}
        return found + [
            f"{count} ranks of attempt {attempt} joined rendezvous {identity} of {most[identity]}"
            for (identity, attempt), count in self.let_in.items()
            if count > most[identity]
        ]


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """State of a job that a later attempt can start from."""

    step: int
    attempt: int
    saved_seconds: float


class CheckpointVault:
    """Shared storage of checkpoints, by job uid; it survives the loss of any node."""

    __slots__ = ("_attempts", "_latest", "fenced")

    def __init__(self) -> None:
        self._latest: dict[str, Checkpoint] = {}
        self._attempts: dict[str, int] = {}
        self.fenced = 0

    def open(self, job_uid: str, attempt: int) -> Checkpoint | None:
        """Attempt ``attempt`` starts; returns what to restore. From now on older attempts cannot save.

        ValueError when a newer attempt was opened before.
        """
        newest = self._attempts.get(job_uid, attempt)
        if attempt < newest:
            raise ValueError(
                f"attempt {attempt} of job {job_uid} is older than {newest}, which already started"
            )
        self._attempts[job_uid] = attempt
        return self._latest.get(job_uid)

    def save(self, job_uid: str, attempt: int, step: int, at_seconds: float) -> bool:
        """Keep a checkpoint; False (and counted in ``fenced``) for a writer of an older attempt."""
        if attempt < self._attempts.get(job_uid, attempt):
            self.fenced += 1
            return False
        self._latest[job_uid] = Checkpoint(step, attempt, at_seconds)
        return True

    def latest(self, job_uid: str) -> Checkpoint | None:
        """The last checkpoint of a job; None before the first."""
        return self._latest.get(job_uid)

    def forget(self, job_uid: str) -> None:
        """Delete what belongs to a job."""
        self._latest.pop(job_uid, None)
        self._attempts.pop(job_uid, None)

"""Which commands count: idempotent by id, ordered by epoch and sequence, and not after their deadline.

Memory is bounded. Ids are kept for as many commands as could still be repeated by a hub that lives; anything older
has a sequence that was passed, which is refused all the same.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from agent.node.drivers.base import Code, Outcome

REMEMBERED = 1024
LONGEST_ID = 200


class Stamp(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What identifies and dates a command."""

    id: str
    epoch: int
    sequence: int
    deadline_seconds: float


class CommandLedger:
    """Judges the stamps of one node's commands, and counts how they ended."""

    __slots__ = ("_outcomes", "counts", "highest_epoch", "last_sequence")

    def __init__(self) -> None:
        self.highest_epoch = 0
        """Leader epoch obeyed; lower ones are refused."""
        self.last_sequence = 0
        """Highest sequence of that epoch received, whatever its answer."""
        self.counts: dict[Code, int] = dict.fromkeys(Code, 0)
        self._outcomes: OrderedDict[str, Outcome] = OrderedDict()

    def raise_epoch(self, epoch: int) -> bool:
        """Takes note of a leader. False when it is older than one already obeyed."""
        if epoch < self.highest_epoch:
            return False
        if epoch > self.highest_epoch:
            self.highest_epoch = epoch
            self.last_sequence = 0
        return True

    def judge(self, stamp: Stamp, now_seconds: float) -> Outcome | None:
        """None when the command is to be carried out (then `record` its outcome), else the refusal.

        A command seen before is answered DUPLICATE with what it read back then. The deadline is judged last: a late
        repetition of what was done is a duplicate.
        """
        if not stamp.id or len(stamp.id) > LONGEST_ID:
            return self._count(
                Outcome(
                    code=Code.OUT_OF_RANGE,
                    message=f"A command's id has 1 to {LONGEST_ID} characters; this one has {len(stamp.id)}.",
                )
            )
        if not self.raise_epoch(stamp.epoch):
            return self._count(
                Outcome(
                    code=Code.OLD_EPOCH,
                    message=f"Epoch {stamp.epoch} is over: this node obeys epoch {self.highest_epoch}.",
                )
            )
        if (before := self._outcomes.get(stamp.id)) is not None:
            self.last_sequence = max(self.last_sequence, stamp.sequence)
            return self._count(
                Outcome(
                    code=Code.DUPLICATE,
                    message=f"Answered before: {before.code.name}.",
                    readback_watts=before.readback_watts,
                )
            )
        if stamp.sequence <= self.last_sequence:
            return self._count(
                Outcome(
                    code=Code.OLD_EPOCH,
                    message=f"Sequence {stamp.sequence} was overtaken by {self.last_sequence} of epoch {stamp.epoch}.",
                )
            )
        self.last_sequence = stamp.sequence
        if not now_seconds <= stamp.deadline_seconds:
            return self.record(
                stamp,
                Outcome(
                    code=Code.EXPIRED,
                    message=f"The deadline passed {now_seconds - stamp.deadline_seconds:.3f} s before it came.",
                ),
            )
        return None

    def record(self, stamp: Stamp, outcome: Outcome) -> Outcome:
        """Remembers how a command ended, and returns that."""
        self._outcomes[stamp.id] = outcome
        if len(self._outcomes) > REMEMBERED:
            self._outcomes.popitem(last=False)
        return self._count(outcome)

    def _count(self, outcome: Outcome) -> Outcome:
        self.counts[outcome.code] += 1
        return outcome

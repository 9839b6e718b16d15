"""Why an action is not carried out, and the look-ups every check shares."""

from __future__ import annotations

from typing import Any, NamedTuple

from cluster.base import Ref
from cluster.hardware import Slot
from cluster.overlay import Overlay
from cluster.reasons import Quantity, Reason, Unit, Verdict


class Drop(NamedTuple):
    """Why an action is not carried out: code, one phrase, and numbers (need, have, limit) in `unit`."""

    code: str
    what: str
    need: float = 0.0
    have: float = 0.0
    limit: float = 0.0
    unit: Unit = "replicas"

    def reason(self, subject: Ref) -> Reason:
        """The drop as a reason about `subject`."""
        return Reason(
            code=self.code,
            subject=subject,
            verdict=Verdict.REJECTED,
            choice=self.what,
            need=Quantity("need", self.need, self.unit),
            have=Quantity("have", self.have, self.unit),
            limit=Quantity("limit", self.limit, self.unit),
        )


_KINDS = {
    "ModelService": "services",
    "TrainingJob": "jobs",
    "Replica": "replicas",
    "Gang": "gangs",
    "Node": "nodes",
    "PowerDomain": "domains",
}


def current(overlay: Overlay, ref: Ref) -> Any | None:
    """The object a ref names, as it is now; None when it is gone or is another one of the same name."""
    mapping = _KINDS.get(ref.kind)
    found = overlay.read(mapping).get(ref.name) if mapping else None
    if found is None or (ref.uid and found.ref.uid and found.ref.uid != ref.uid):
        return None
    return found


def gone(what: str, ref: Ref) -> Drop:
    """The drop of an action whose subject no longer exists."""
    return Drop("Stale", f"{what} of {ref.kind} {ref.name}, which is gone", 1, 0, 0, "objects")


def slots_taken(
    overlay: Overlay, slots: tuple[Slot, ...], owner: Ref | None, what: str, priority: int | None = None
) -> Drop | None:
    """A `Taken` drop when some device of the slots is not free for `owner`; None when all are.

    Each slot is charged before the next is looked at, so that two of them cannot share a device. Reservations
    below `priority` do not count (None: all of them do).
    """
    need = sum(slot.gpus for slot in slots)
    lacking = 0
    for slot in slots:
        lacking += overlay.space.lacking(slot, owner, priority)
        overlay.space.take(slot)
    for slot in slots:
        overlay.space.give(slot)
    if lacking:
        return Drop(
            "Taken", f"{what} on {', '.join(sorted({s.node for s in slots}))}", need, need - lacking, 0, "GPU"
        )
    return None

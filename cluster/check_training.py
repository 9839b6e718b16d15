"""Checks of actions on reservations, gangs and jobs."""

from __future__ import annotations

from cluster import actions as act
from cluster.admission import kept_out
from cluster.base import Ref
from cluster.drops import Drop, current, gone, slots_taken
from cluster.overlay import Overlay, gang_key
from cluster.training import GangPhase, JobPhase, Layout


def reserve(overlay: Overlay, action: act.Reserve, _: float) -> Drop | None:
    """Check `reserve`."""
    if current(overlay, action.owner) is None:
        return gone("reservation", action.owner)
    return slots_taken(overlay, action.slots, action.owner, f"reservation {action.key}", action.priority)


def release(overlay: Overlay, action: act.Release, _: float) -> Drop | None:
    """Check `release`."""
    return (
        None
        if action.key in overlay.read("reservations")
        else gone("release", Ref("Reservation", action.key))
    )


def start_gang(overlay: Overlay, action: act.StartGang, _: float) -> Drop | None:
    """Check `start_gang`."""
    what = f"gang {gang_key(action.job.name, action.attempt)}"
    return (
        _attempt(overlay, action.job, action.attempt)
        or _moved(overlay, action.layout, what)
        or kept_out(overlay, action.layout.slots, overlay.read("jobs")[action.job.name], what)
        or slots_taken(overlay, action.layout.slots, action.job, what)
    )


def _moved(overlay: Overlay, layout: Layout, what: str) -> Drop | None:
    """A network the gang was laid out for must still be the one its nodes are on."""
    nodes = overlay.read("nodes")
    now_on = sorted({nodes[slot.node].island for slot in layout.slots if slot.node in nodes})
    if layout.islands and not set(now_on) <= set(layout.islands):
        where = f"{what} on {' and '.join(layout.islands)}, whose nodes are now on {' and '.join(now_on)}"
        return Drop("Stale", where, len(layout.islands), len(set(now_on) & set(layout.islands)), 0, "objects")
    return None


def _attempt(overlay: Overlay, ref: Ref, attempt: int) -> Drop | None:
    job = current(overlay, ref)
    if job is None:
        return gone("gang", ref)
    if attempt != job.attempt + 1:
        return Drop("Stale", f"an attempt of {ref.name}", job.attempt + 1, attempt, 0, "attempt")
    if job.phase in (JobPhase.DONE, JobPhase.FAILED) or job.suspended:
        state = "suspended" if job.suspended else job.phase
        return Drop("Stale", f"attempt {attempt} of {ref.name}, which is {state}", 1, 0, 0, "objects")
    return None


def restart_gang(overlay: Overlay, action: act.RestartGang, _: float) -> Drop | None:
    """Check `restart_gang`."""
    verdict = _attempt(overlay, action.job, action.attempt)
    if verdict is not None:
        return verdict
    gang = current(overlay, action.gang)
    if gang is None:
        return gone("restart", action.gang)
    if action.restore_step > gang.checkpoint_step:
        return Drop(
            "Unsafe",
            f"restore point of {gang.key}",
            action.restore_step,
            gang.checkpoint_step,
            gang.checkpoint_step,
            "steps",
        )
    # A member of the old attempt that stays frees its slot for its successor: only changed slots are checked.
    # An attempt whose pods are gone holds nothing, so all of its successor's slots are.
    ended = gang.phase in (GangPhase.STOPPED, GangPhase.DONE)
    kept = set() if ended else {(slot.node, slot.devices) for slot in gang.layout.slots}
    changed = tuple(slot for slot in action.layout.slots if (slot.node, slot.devices) not in kept)
    what = f"gang {gang_key(action.job.name, action.attempt)}"
    return (
        _moved(overlay, action.layout, what)
        or kept_out(overlay, action.layout.slots, overlay.read("jobs")[action.job.name], what)
        or slots_taken(overlay, changed, action.job, what)
    )


def stop_gang(overlay: Overlay, action: act.StopGang, _: float) -> Drop | None:
    """Check `stop_gang`."""
    gang = current(overlay, action.gang)
    if gang is None:
        return gone("stop", action.gang)
    if gang.attempt != action.attempt:
        return Drop(
            "Stale",
            f"stop of an attempt of {gang.job}",
            gang.attempt,
            action.attempt,
            0,
            "attempt",
        )
    if action.reservation and action.reservation not in overlay.read("reservations"):
        return Drop("Stale", f"preemption for {action.reservation}, which is gone", 1, 0, 0, "objects")
    return None


def checkpoint(overlay: Overlay, action: act.Checkpoint, _: float) -> Drop | None:
    """Check `checkpoint`."""
    job = current(overlay, action.job)
    if job is None:
        return gone("checkpoint", action.job)
    low, high = job.checkpoint.min_interval_seconds, job.checkpoint.max_interval_seconds
    if not low <= action.interval_seconds <= high:
        bound = low if action.interval_seconds < low else high
        own = job.checkpoint.interval_seconds
        return Drop("Unsafe", f"checkpoint interval of {job.name}", action.interval_seconds, own, bound, "s")
    return None


def pace_gang(overlay: Overlay, action: act.PaceGang, _: float) -> Drop | None:
    """Check `pace_gang`."""
    gang = current(overlay, action.gang)
    if gang is None or gang.phase is not GangPhase.RUNNING:
        return gone("pacing", action.gang)
    return None

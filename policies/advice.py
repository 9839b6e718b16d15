"""What would be done about objects in mode Recommend: the same stages, on a view in which nothing holds them.

Nothing of it is carried out and nothing comes into force; only its reasons are told, and what it would do as one
reason an object and kind of action (SEAMS §3: a Recommend plan is shown and consumes nothing).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cluster.actions import AnyAction, GrantPower, Provision, ReleaseNode
from cluster.base import Ref
from cluster.holding import subject
from cluster.overlay import Overlay
from cluster.plan import Plan
from cluster.reasons import Reason, Verdict
from cluster.restraint import Hold
from cluster.serving import Mode
from cluster.snapshot import Snapshot
from policies.draft import Draft, quantity

NAMED = 3
"""So many of what one kind of action would touch are named."""


def advised(snapshot: Snapshot) -> frozenset[tuple[str, str]]:
    """Objects that want advice, by kind and name."""
    services = {("ModelService", s.name) for s in snapshot.services.values() if s.held is Hold.RECOMMEND}
    return frozenset(
        services | {("TrainingJob", j.name) for j in snapshot.jobs.values() if j.held is Hold.RECOMMEND}
    )


def freed(snapshot: Snapshot) -> Snapshot:
    """The same view with nothing held for advice alone, and every adviser deciding."""
    services = {
        name: msgspec.structs.replace(service, held=Hold.NONE, mode=_mode(service.mode))
        if service.held is Hold.RECOMMEND
        else service
        for name, service in snapshot.services.items()
    }
    jobs = {
        name: msgspec.structs.replace(job, held=Hold.NONE) if job.held is Hold.RECOMMEND else job
        for name, job in snapshot.jobs.items()
    }
    return msgspec.structs.replace(snapshot, services=services, jobs=jobs)


def _mode(mode: Mode) -> Mode:
    return Mode.AUTO if mode is Mode.RECOMMEND else mode


def advice(
    plan: Plan, actions: Iterable[AnyAction], snapshot: Snapshot, about: frozenset[tuple[str, str]]
) -> Plan:
    """A stage's plan as advice: its reasons about these objects, and what it would do about them."""
    overlay = Overlay(snapshot)
    draft = Draft()
    doing: dict[tuple[str, str, str], tuple[Ref, list[str]]] = {}
    told_by_actions: set[int] = set()
    for action in actions:
        told_by_actions.add(action.reason)
        found = subject(overlay, action)
        if found is not None and (found.ref.kind, found.name) in about:
            _, names = doing.setdefault((found.ref.kind, found.name, action.kind), (found.ref, []))
            names.append(_what(action))
        overlay.apply(action)
    for index, reason in enumerate(plan.reasons):
        if index not in told_by_actions and (reason.subject.kind, reason.subject.name) in about:
            draft.because(reason)
    for (_, _, kind), (ref, names) in sorted(doing.items()):
        draft.because(_would(ref, kind, names))
    return draft.plan()


def _would(ref: Ref, kind: str, names: list[str]) -> Reason:
    shown = ", ".join(name for name in names[:NAMED] if name)
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return Reason(
        code="Recommended", subject=ref, verdict=Verdict.BLOCKED, choice=f"{kind} {shown}{rest}".rstrip(),
        need=quantity("planned", len(names), "actions"), have=quantity("done", 0, "actions"),
    )  # fmt: skip


def _what(action: AnyAction) -> str:
    """What an action would touch: a name, and where."""
    name = getattr(action, "name", "")
    ref = next(
        (r for f in ("subject", "replica", "gang") if (r := getattr(action, f, None)) is not None), None
    )
    layout = getattr(action, "layout", None)
    slots = getattr(action, "slots", None) or (layout.slots if layout is not None else ())
    where = ", ".join(dict.fromkeys(slot.node for slot in slots[:NAMED]))
    what = name or (ref.name if ref is not None else "")
    return f"{what} on {where}" if what and where else what or (f"on {where}" if where else "")


def power_advice(plan: Plan, root: str) -> Plan:
    """A power plan as advice: how many leases it would grant under one root domain. Safe caps stay in force."""
    if not plan.actions:
        return plan
    draft = Draft()
    draft.because(
        _would(
            Ref("PowerDomain", root),
            "GrantPower",
            [a.node for a in plan.actions if isinstance(a, GrantPower)],
        )
    )
    return draft.plan()


def buys_nothing(actions: tuple[AnyAction, ...]) -> tuple[AnyAction, ...]:
    """Actions without those that buy nodes or give them back: in a cluster in mode Recommend nobody does either."""
    return tuple(action for action in actions if not isinstance(action, (Provision, ReleaseNode)))

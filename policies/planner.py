"""The planner: six stages, each an ordinary policy on the same snapshot, folded over `Snapshot.after(plan)`.

select → scale → commit → train → place → warm (SEAMS §3). Between stages what a plan would change is in effect,
so a later stage plans on it. The service's mode is applied here, before `after`: what is only recommended is
shown and consumes nothing; a service that is not `Auto` has exactly the size its user asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.actions import AnyAction
from cluster.codec import from_builtins
from cluster.owners import STAGES
from cluster.plan import Context, Decision, Plan
from cluster.reasons import Quantity, Reason, Verdict
from cluster.serving import Mode, Service
from cluster.snapshot import Snapshot
from cluster.targets import AnyTarget, Capacity, Mix
from policies.advice import advice, advised, freed
from policies.assignment import Assigned, Chosen, assign
from policies.draft import Draft, merged

USER = "user"
"""Owner of the capacity of a service whose mode is not `Auto`."""


class PlannerStates(msgspec.Struct, frozen=True, kw_only=True):
    """What the planner remembers between runs.

    `states` maps `stage/policy/configuration` to that policy's state (builtins after reading it from JSON);
    `good` keeps the last valid choice of policy per `loop|service`.
    """

    schema: int = 1
    states: dict[str, Any] = {}
    good: dict[str, Chosen] = {}


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """One stage's decision: the whole `plan` as shown, and what of it is in effect.

    `actions` are to be carried out and `targets` put in force; what mode holds back is only in `plan`.
    """

    stage: str
    policy: str
    plan: Plan
    actions: tuple[AnyAction, ...] = ()
    targets: tuple[AnyTarget, ...] = ()


class PlannerRun(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run: stages in order, the next states, and the snapshot with everything in effect."""

    stages: tuple[Staged, ...]
    states: PlannerStates
    snapshot: Snapshot

    @property
    def actions(self) -> int:
        """How many actions are to be carried out."""
        return sum(len(staged.actions) for staged in self.stages)


def run_planner(
    snapshot: Snapshot,
    states: PlannerStates,
    ctx: Context,
    defaults: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
) -> PlannerRun:
    """Run every stage. `defaults` maps a loop to (policy name, configuration) where nobody chose one.

    Raises `policies.registry.PolicyConfigError` only for a fault in `defaults`; a service's own choice that
    is wrong is told in a reason, and its last good one stays in force.
    """
    run = _folded(snapshot, states, ctx, defaults or {})
    about = advised(snapshot)
    if not about:
        return run
    return msgspec.structs.replace(
        run, stages=(*run.stages, *_advice(snapshot, about, states, ctx, defaults or {}))
    )


def _advice(
    snapshot: Snapshot,
    about: frozenset[tuple[str, str]],
    states: PlannerStates,
    ctx: Context,
    defaults: Mapping[str, tuple[str, Mapping[str, Any]]],
) -> list[Staged]:
    """What would be done about objects in mode Recommend: told, and nothing else."""
    view = freed(snapshot)
    told = []
    for staged in _folded(view, states, ctx, defaults).stages:
        plan = advice(staged.plan, staged.actions, view, about)
        view = view.after(Plan(actions=staged.actions, targets=staged.targets))
        if plan.reasons:
            told.append(Staged(stage=staged.stage, policy=staged.policy, plan=plan))
    return told


def _folded(
    snapshot: Snapshot,
    states: PlannerStates,
    ctx: Context,
    defaults: Mapping[str, tuple[str, Mapping[str, Any]]],
) -> PlannerRun:
    """Every stage in order, each on what those before it left."""
    staged: list[Staged] = []
    assigned, good, faults = assign(snapshot, states.good, defaults, ctx.scratch)
    kept: dict[str, Any] = {}
    if faults:
        staged.append(Staged(stage="assign", policy="registry", plan=Plan(reasons=faults)))
    for stage in STAGES:
        before = snapshot
        for each in assigned[stage]:
            done, state = _decide(each, before, states, ctx)
            kept[each.key] = state
            staged.append(done)
            snapshot = snapshot.after(Plan(actions=done.actions, targets=done.targets))
        if stage == "scale":
            users = _sized_by_user(snapshot)
            if users:
                staged.append(users)
                snapshot = snapshot.after(Plan(targets=users.targets))
    return PlannerRun(stages=tuple(staged), states=PlannerStates(states=kept, good=good), snapshot=snapshot)


def _decide(each: Assigned, snapshot: Snapshot, states: PlannerStates, ctx: Context) -> tuple[Staged, Any]:
    """One policy's decision, filtered by mode, and its next state."""
    state, reset = _state_of(each, states)
    own = msgspec.structs.replace(ctx, loop=each.stage, scope=each.scope)
    decision: Decision[Any] = each.policy.decide(snapshot, state, own)
    plan = merged(decision.plan)
    if reset is not None:
        plan = msgspec.structs.replace(plan, reasons=(*plan.reasons, reset))
    return (
        Staged(
            stage=each.stage,
            policy=each.name,
            plan=plan,
            actions=plan.actions,
            targets=tuple(target for target in plan.targets if _in_effect(target, snapshot)),
        ),
        decision.state,
    )


def _state_of(each: Assigned, states: PlannerStates) -> tuple[Any, Reason | None]:
    """The stored state, or the initial one with the reason when it cannot be read."""
    kept = states.states.get(each.key)
    if kept is None:
        return each.policy.initial(), None
    if isinstance(kept, each.state):
        return kept, None
    initial = each.policy.initial()
    wanted = getattr(initial, "schema", 0)
    have = kept.get("schema", 1) if isinstance(kept, dict) else 0
    if have == wanted:
        try:
            return from_builtins(kept, each.state), None
        except msgspec.ValidationError:
            pass
    return initial, Reason(
        code="StateReset",
        subject=each.subject,
        verdict=Verdict.REJECTED,
        choice=each.key,
        need=Quantity("schema", float(wanted), "versions"),
        have=Quantity("stored", float(have), "versions"),
    )


def _in_effect(target: AnyTarget, snapshot: Snapshot) -> bool:
    """Whether a target comes into force: another's capacity for a service that its user sizes does not."""
    if not isinstance(target, Capacity):
        return True
    service = snapshot.services.get(target.service)
    return service is None or service.mode is Mode.AUTO or target.owner == USER


def _sized_by_user(snapshot: Snapshot) -> Staged | None:
    """Capacity of every service that is not `Auto`: `spec.replicas` units of the reference variant."""
    draft = Draft()
    for name in sorted(snapshot.services):
        service = snapshot.services[name]
        if service.mode is Mode.AUTO or service.held:
            continue
        standing = snapshot.capacity(name)
        if standing is not None and standing.owner == USER and standing.wanted_units == service.replicas:
            continue
        draft.aim(_users_capacity(service, standing, snapshot.stamp.taken_seconds))
        draft.because(
            Reason(
                code="SizedByUser",
                subject=service.ref,
                verdict=Verdict.KEPT,
                choice=service.mode.value,
                need=Quantity("replicas", float(service.replicas), "replicas"),
                have=Quantity("before", float(standing.wanted_units if standing else 0), "replicas"),
            )
        )
    plan = draft.plan()
    return Staged(stage="scale", policy=USER, plan=plan, targets=plan.targets) if plan.targets else None


def _users_capacity(service: Service, standing: Capacity | None, now: float) -> Capacity:
    return Capacity(
        owner=USER,
        decided_seconds=now,
        service=service.name,
        mix=standing.mix if standing is not None else Mix(),
        wanted_per_second=0.0,
        wanted_units=service.replicas,
        shape=standing.shape if standing is not None else None,
    )

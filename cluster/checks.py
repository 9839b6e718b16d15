"""What the actor re-checks before it carries an action out (SEAMS §4).

Intents are pinned by version, resources are checked by meaning against the state of now. A check
either passes or yields a `Drop` with a code and the numbers that say why. Checks run one by one on an
`Overlay`: the caller applies each accepted action before checking the next, so sums count siblings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cluster import actions as act
from cluster import check_nodes, check_serving, check_training
from cluster.base import Ref
from cluster.drops import Drop, current
from cluster.holding import held
from cluster.overlay import Overlay
from cluster.owners import OWNERS, SUPPORTED
from cluster.reasons import Reason

Check = Callable[[Overlay, Any, float], Drop | None]


def check(overlay: Overlay, stamped: act.Stamped, now_seconds: float) -> Drop | None:
    """Whether an action may be carried out now: None, or why not."""
    action = stamped.action
    kind = type(action)
    if stamped.loop not in OWNERS[kind]:
        return Drop("NotOwner", f"{action.kind} from {stamped.loop}", 1, len(OWNERS[kind]), 0, "loops")
    if now_seconds > stamped.deadline_seconds:
        life = stamped.deadline_seconds - stamped.issued_seconds
        return Drop("Expired", action.kind, life, now_seconds - stamped.issued_seconds, life, "s")
    stale = _stale(overlay, action)
    if stale is not None:
        return stale
    left_alone = held(overlay, action)
    if left_alone is not None:
        return left_alone
    verdict = _CHECKS[kind](overlay, action, now_seconds)
    if verdict is not None:
        return verdict
    if kind not in SUPPORTED:
        return Drop("Unsupported", action.kind, len(OWNERS), len(SUPPORTED), 0, "kinds")
    return None


def _stale(overlay: Overlay, action: act.Action) -> Drop | None:
    for ref in action.expects:
        found = current(overlay, ref)
        have = found.ref.version if found is not None else 0
        if found is None or (ref.version and have != ref.version):
            return Drop("Stale", f"{action.kind} for {ref.kind} {ref.name}", ref.version, have, 0, "versions")
    return None


_CHECKS: dict[type[act.Action], Check] = {
    act.CreateLauncher: check_serving.create_launcher,
    act.CreateReplica: check_serving.create_replica,
    act.Drain: check_serving.drain,
    act.Resume: check_serving.resume,
    act.DeleteReplica: check_serving.delete_replica,
    act.SetTier: check_serving.set_tier,
    act.SetRole: check_serving.set_role,
    act.SetRoutes: check_serving.set_routes,
    act.SettleRevision: check_serving.settle_revision,
    act.Scale: check_serving.scale,
    act.StageWeights: check_serving.stage_weights,
    act.DropWeights: check_serving.drop_weights,
    act.Reserve: check_training.reserve,
    act.Release: check_training.release,
    act.StartGang: check_training.start_gang,
    act.RestartGang: check_training.restart_gang,
    act.StopGang: check_training.stop_gang,
    act.Checkpoint: check_training.checkpoint,
    act.PaceGang: check_training.pace_gang,
    act.Isolate: check_nodes.isolate,
    act.GrantPower: check_nodes.grant_power,
    act.ShapePrefill: check_nodes.shape_prefill,
    act.Migrate: check_serving.migrate,
    act.Dispatch: check_serving.passes,
    act.Hold: check_serving.passes,
    act.Reject: check_serving.passes,
    act.Provision: check_nodes.provision,
    act.ReleaseNode: check_nodes.release_node,
    act.Probe: check_nodes.probe,
}


class Checked(msgspec.Struct, frozen=True, gc=False):
    """What became of one stamped action at act time: accepted (`drop` None) or dropped with a reason."""

    stamped: act.Stamped
    drop: Reason | None = None


def subject_of(action: act.AnyAction) -> Ref:
    """The object an action is about, for records and reasons."""
    for name in ("subject", "replica", "gang", "job", "owner"):
        ref = getattr(action, name, None)
        if isinstance(ref, Ref):
            return ref
    for name, kind in (
        ("service", "ModelService"),
        ("node", "Node"),
        ("domain", "PowerDomain"),
        ("pool", "Pool"),
    ):
        value = getattr(action, name, "")
        if value:
            return Ref(kind, value)
    names = (getattr(action, name, "") for name in ("request", "sequence", "key", "name", "source"))
    return Ref(action.kind, next((name for name in names if name), ""))

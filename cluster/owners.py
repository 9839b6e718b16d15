"""One owner per field (SEAMS §3): which loop may emit which action, and which target."""

from __future__ import annotations

from cluster import actions as act
from cluster import targets as aim

OWNERS: dict[type[act.Action], frozenset[str]] = {
    act.CreateLauncher: frozenset({"place"}),
    act.CreateReplica: frozenset({"place"}),
    act.Drain: frozenset({"place"}),
    act.Resume: frozenset({"place", "faults"}),
    act.DeleteReplica: frozenset({"place"}),
    act.SetTier: frozenset({"warm"}),
    act.SetRole: frozenset({"place"}),
    act.SetRoutes: frozenset({"place"}),
    act.SettleRevision: frozenset({"place"}),
    act.Scale: frozenset({"place"}),
    act.StageWeights: frozenset({"warm"}),
    act.DropWeights: frozenset({"warm"}),
    act.Reserve: frozenset({"train"}),
    act.Release: frozenset({"train"}),
    act.StartGang: frozenset({"train"}),
    act.RestartGang: frozenset({"train"}),
    act.StopGang: frozenset({"train"}),
    act.Checkpoint: frozenset({"train"}),
    act.PaceGang: frozenset({"train"}),
    act.Isolate: frozenset({"faults"}),
    act.GrantPower: frozenset({"power"}),
    act.ShapePrefill: frozenset({"power"}),
    act.Migrate: frozenset({"migration"}),
    act.Dispatch: frozenset({"dispatch"}),
    act.Hold: frozenset({"dispatch"}),
    act.Reject: frozenset({"dispatch"}),
    act.Provision: frozenset({"place"}),
    act.ReleaseNode: frozenset({"place"}),
    act.Probe: frozenset({"faults"}),
}

TARGET_OWNERS: dict[type[aim.Target], frozenset[str]] = {
    aim.Menu: frozenset({"select"}),
    aim.Capacity: frozenset({"scale", "commit"}),
    aim.Share: frozenset({"commit"}),
    aim.Prices: frozenset({"commit"}),
    aim.Queue: frozenset({"commit", "train"}),
    aim.Residuals: frozenset({"place"}),
    aim.Cadence: frozenset({"train"}),
    aim.Warm: frozenset({"warm"}),
    aim.Budget: frozenset({"power"}),
}

SUPPORTED: frozenset[type[act.Action]] = frozenset(
    {
        act.CreateReplica,
        act.Drain,
        act.Resume,
        act.DeleteReplica,
        act.SetRoutes,
        act.SettleRevision,
        act.Reserve,
        act.Release,
        act.StartGang,
        act.RestartGang,
        act.StopGang,
        act.GrantPower,
        act.Provision,
        act.ReleaseNode,
        act.Dispatch,
        act.Hold,
        act.Reject,
    }
)
"""Kinds this version carries out; the others answer `Unsupported` after their own checks."""

STAGES: tuple[str, ...] = ("select", "scale", "commit", "train", "place", "warm")
"""The planner's stages, in order."""

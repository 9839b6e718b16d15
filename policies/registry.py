"""Every policy there is, by loop: one static table, one row a policy (SEAMS §8).

Adding a policy is a file, a row here and a table test. Configurations are converted strictly: a field nobody
knows or a value out of range is an error with its path, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from cluster.base import Ref
from cluster.plan import Policy
from cluster.reasons import Quantity, Reason, Verdict
from cluster.snapshot import Snapshot
from cluster.views import DispatchView, MigrationView, PowerView
from placement.profiles.estimator import CapacityQuestion, RooflineCapacity, RooflineConfig, RooflineState
from policies.commit.by_priority import ByPriority, ByPriorityConfig, ByPriorityState
from policies.dispatch.least_outstanding import (
    LeastOutstanding,
    LeastOutstandingConfig,
    LeastOutstandingState,
)
from policies.dispatch.memory_load import (
    InfaasPlusPlus,
    LlumnixDispatch,
    MemoryLoadConfig,
    MemoryLoadState,
)
from policies.dispatch.round_robin import RoundRobin, RoundRobinConfig, RoundRobinState
from policies.dispatch.size_aware import SizeAware, SizeAwareConfig, SizeAwareState
from policies.migration.llumnix import LlumnixMigration, LlumnixMigrationConfig, LlumnixMigrationState
from policies.place.best_fit import BestFit, BestFitConfig, BestFitState
from policies.place.priced_fgd import PricedFgd, PricedFgdConfig
from policies.power.static_clamp import StaticClamp, StaticClampConfig, StaticClampState
from policies.scale.hpa import Hpa, HpaConfig, HpaState
from policies.select.cheapest_mix import CheapestMix, CheapestMixConfig, CheapestMixState
from policies.select.joint_mix import JointMix, JointMixConfig, JointMixState
from policies.select.melange import MelangeMix, MelangeMixConfig
from policies.train.island_gang import IslandGang, IslandGangConfig, IslandGangState
from policies.warm.fixed_keepalive import FixedKeepalive, FixedKeepaliveConfig, FixedKeepaliveState


class Row(NamedTuple):
    """One policy: its class (built as `policy(config)`), and the types of its config, state and view."""

    policy: type[Any]
    config: type[msgspec.Struct]
    state: type[msgspec.Struct]
    view: type[msgspec.Struct]


TABLES: Mapping[str, Mapping[str, Row]] = {
    "select": {
        "cheapest_mix": Row(CheapestMix, CheapestMixConfig, CheapestMixState, Snapshot),
        "joint_mix": Row(JointMix, JointMixConfig, JointMixState, Snapshot),
        "melange": Row(MelangeMix, MelangeMixConfig, CheapestMixState, Snapshot),
    },
    "scale": {"hpa": Row(Hpa, HpaConfig, HpaState, Snapshot)},
    "commit": {"by_priority": Row(ByPriority, ByPriorityConfig, ByPriorityState, Snapshot)},
    "train": {"island_gang": Row(IslandGang, IslandGangConfig, IslandGangState, Snapshot)},
    "place": {
        "priced_fgd": Row(PricedFgd, PricedFgdConfig, BestFitState, Snapshot),
        "best_fit": Row(BestFit, BestFitConfig, BestFitState, Snapshot),
    },
    "warm": {"fixed_keepalive": Row(FixedKeepalive, FixedKeepaliveConfig, FixedKeepaliveState, Snapshot)},
    "power": {"static_clamp": Row(StaticClamp, StaticClampConfig, StaticClampState, PowerView)},
    "dispatch": {
        "least_outstanding": Row(
            LeastOutstanding, LeastOutstandingConfig, LeastOutstandingState, DispatchView
        ),
        "round_robin": Row(RoundRobin, RoundRobinConfig, RoundRobinState, DispatchView),
        "infaas": Row(InfaasPlusPlus, MemoryLoadConfig, MemoryLoadState, DispatchView),
        "llumnix": Row(LlumnixDispatch, MemoryLoadConfig, MemoryLoadState, DispatchView),
        "size_aware": Row(SizeAware, SizeAwareConfig, SizeAwareState, DispatchView),
    },
    "migration": {
        "llumnix": Row(LlumnixMigration, LlumnixMigrationConfig, LlumnixMigrationState, MigrationView)
    },
}
"""Loop to policy name to row."""

DEFAULTS: Mapping[str, str] = {loop: next(iter(rows)) for loop, rows in TABLES.items()}
"""The policy of a loop when nobody chose one."""


ESTIMATORS: Mapping[str, Mapping[str, Row]] = {
    "capacity": {"roofline": Row(RooflineCapacity, RooflineConfig, RooflineState, CapacityQuestion)},
}
"""Kind of belief to estimator name to row; `view` is what one fold takes in."""


class PolicyConfigError(ValueError):
    """An unknown loop, policy or field, or a value out of range; the sentence says which and what to do."""

    def reason(self, subject: Ref) -> Reason:
        """The error as a `PolicyConfigInvalid` reason about the object that carries the configuration."""
        return Reason(
            code="PolicyConfigInvalid",
            subject=subject,
            verdict=Verdict.REJECTED,
            choice=str(self),
            need=Quantity("allowed", 0.0, "faults"),
            have=Quantity("found", 1.0, "faults"),
        )


def row_of(loop: str, name: str) -> Row:
    """The table row of a policy. Raises PolicyConfigError naming what there is."""
    rows = TABLES.get(loop)
    if rows is None:
        raise PolicyConfigError(f"no loop is called {loop!r}; loops with policies are {', '.join(TABLES)}")
    row = rows.get(name)
    if row is None:
        raise PolicyConfigError(f"no {loop} policy is called {name!r}; use one of {', '.join(rows)}")
    return row


def config_of(loop: str, name: str, config: Mapping[str, Any] | None = None) -> msgspec.Struct:
    """A policy's configuration from builtins (YAML, a custom resource).

    Raises PolicyConfigError with the path of the first fault.
    """
    row = row_of(loop, name)
    try:
        return msgspec.convert(dict(config or {}), row.config)
    except msgspec.ValidationError as error:
        fields = ", ".join(row.config.__struct_fields__) or "none"
        text = f"config of {loop} policy {name!r}: {str(error).replace('`$', '`config')}; its fields are {fields}"
        raise PolicyConfigError(text) from error


def build(loop: str, name: str, config: Mapping[str, Any] | None = None) -> Policy[Any, Any]:
    """A policy, ready to decide. Raises PolicyConfigError."""
    made: Policy[Any, Any] = row_of(loop, name).policy(config_of(loop, name, config))
    return made

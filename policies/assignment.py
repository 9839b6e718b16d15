"""Who decides for whom: each stage's policies with the services they decide, from the services' own choices.

Services with the same policy and configuration are decided in one call (SEAMS §8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from cluster.base import Ref
from cluster.owners import STAGES
from cluster.plan import Policy
from cluster.reasons import Reason
from cluster.serving import Mode, Service
from cluster.snapshot import Snapshot
from policies.registry import DEFAULTS, PolicyConfigError, build, row_of

PER_SERVICE = ("scale", "warm")
"""Stages whose policy a service may choose; the others are chosen per cluster."""


class Chosen(msgspec.Struct, frozen=True):
    """A policy by name, and its configuration as builtins."""

    name: str
    config: dict[str, Any] = {}


class Assigned(NamedTuple):
    """A built policy and its scope (empty: everything). `key` names its state."""

    stage: str
    name: str
    key: str
    policy: Policy[Any, Any]
    state: type[msgspec.Struct]
    scope: tuple[str, ...]

    @property
    def subject(self) -> Ref:
        """What reasons about the policy itself are about."""
        return Ref("Policy", f"{self.stage}/{self.name}")


def assign(
    snapshot: Snapshot,
    good: Mapping[str, Chosen],
    defaults: Mapping[str, tuple[str, Mapping[str, Any]]],
    scratch: dict[str, Any],
) -> tuple[dict[str, list[Assigned]], dict[str, Chosen], tuple[Reason, ...]]:
    """Policies by stage, the choices that were good, and a reason for each that was not.

    Raises PolicyConfigError for a fault in `defaults`.
    """
    found: dict[str, list[Assigned]] = {}
    kept: dict[str, Chosen] = {}
    faults: list[Reason] = []
    for stage in STAGES:
        default = _default(stage, defaults)
        standard = _built(stage, default, (), scratch)
        if stage not in PER_SERVICE:
            found[stage] = [standard]
            continue
        groups: dict[str, tuple[Assigned, list[str]]] = {}
        for name in sorted(snapshot.services):
            service = snapshot.services[name]
            if service.held or (stage == "scale" and service.mode is Mode.OFF):
                continue  # its user sizes it and wants no advice, or it is left as it is
            own = _own(stage, service, default, good, scratch, faults)
            if own is None:
                groups.setdefault(standard.key, (standard, []))[1].append(name)
                continue
            kept[f"{stage}|{name}"] = own[0]
            groups.setdefault(own[1].key, (own[1], []))[1].append(name)
        found[stage] = [
            each._replace(scope=() if len(names) == len(snapshot.services) else tuple(names))
            for _, (each, names) in sorted(groups.items())
        ]
    return found, kept, tuple(faults)


def _default(stage: str, defaults: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Chosen:
    name, config = defaults.get(stage, (DEFAULTS[stage], {}))
    return Chosen(name, dict(config))


def _own(
    stage: str,
    service: Service,
    default: Chosen,
    good: Mapping[str, Chosen],
    scratch: dict[str, Any],
    faults: list[Reason],
) -> tuple[Chosen, Assigned] | None:
    """A service's own choice, else its last good one, else None (the default)."""
    policies = service.policies
    if stage not in policies.name and stage not in policies.config:
        return None
    wanted = Chosen(policies.name.get(stage, default.name), dict(policies.config.get(stage, {})))
    try:
        return wanted, _built(stage, wanted, (), scratch)
    except PolicyConfigError as error:
        faults.append(error.reason(service.ref))
    last = good.get(f"{stage}|{service.name}")
    if last is None:
        return None
    try:
        return last, _built(stage, last, (), scratch)
    except PolicyConfigError:
        return None  # good in an older version, no more: the default decides


def _built(stage: str, chosen: Chosen, scope: tuple[str, ...], scratch: dict[str, Any]) -> Assigned:
    digest = hashlib.blake2b(msgspec.json.encode(chosen.config, order="deterministic"), digest_size=4)
    key = f"{stage}/{chosen.name}/{digest.hexdigest()}"
    memo: dict[str, Assigned] = scratch.setdefault("policies", {})
    if key not in memo:
        policy = build(stage, chosen.name, chosen.config)
        memo[key] = Assigned(stage, chosen.name, key, policy, row_of(stage, chosen.name).state, scope)
    return memo[key]

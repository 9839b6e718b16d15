"""What a scenario is made of, and what it may not say."""

from __future__ import annotations

import math

import msgspec

from cluster.serving import Role
from cluster.size_plan import SizePlan
from simulator.physics.loading import StartSpec
from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec
from simulator.world.parts import Parts, check_parts
from simulator.world.terms import Choice as Choice  # noqa: PLC0414 - part of what a scenario says
from simulator.world.terms import ScenarioError as ScenarioError  # noqa: PLC0414


class Delays(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How old what is seen is, and how often it is looked at.

    Engines report to the gateways' rows and to their agents every `report_seconds`; the rows have it after
    `gateway_seconds`, the operator's model between `agent_low_seconds` and `agent_high_seconds` later (drawn per report), and
    a change of an object after `watch_seconds`. With `each_step` the rows have instead what each engine told at the end of
    its last step, and no account is kept of what was sent since (`simulator/world/hearing.py`).
    """

    report_seconds: float = 1.0
    gateway_seconds: float = 0.1
    agent_low_seconds: float = 1.0
    agent_high_seconds: float = 2.0
    watch_seconds: float = 0.1
    each_step: bool = False


class Moving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How requests move between engines (research/live-migration.md §1.3, §1.4).

    Whole contexts are copied while the source goes on, in up to `stages` stages, until at most `lag_tokens` are left; those
    are computed again by the target, so no KV is copied while nobody decodes. A commit takes `commit_seconds`. All copies
    that leave a node share `bytes_per_second`. `every_seconds` the policy is asked. Only instances that have less than
    `crowded_share` of their cache free tell which requests they run. With `copy_last` the last tokens are copied too while
    nobody decodes, as Llumnix does.
    """

    every_seconds: float = 0.5
    bytes_per_second: float = 10e9
    lag_tokens: int = 64
    stages: int = 3
    commit_seconds: float = 0.001
    crowded_share: float = 0.1
    copy_last: bool = False


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """`count` like instances of the service; `per_node` of them share a node and its NIC.

    `column` is their `variant|pool`, by which a plan by size knows them (empty: none does).
    """

    gpu: GpuSpec
    engine: EngineSpec = EngineSpec()
    count: int = 1
    per_node: int = 8
    role: Role = Role.MIXED
    column: str = ""


class Failing(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that dies at a time, with `notice_seconds` of warning (a spot reclaim; 0: without a word).

    With `start` another takes its place at once and goes through the stages of a cold start.
    """

    instance: int
    at_seconds: float
    notice_seconds: float = 0.0
    start: StartSpec | None = None


class WorldSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One service on its instances. `migration` None: no request moves but from prefill to decode and after a failure.

    `plan` is the plan by size that its gateways have, as it would come with routes (None: they have none).
    """

    model: ModelSpec
    groups: tuple[Group, ...]
    dispatch: Choice = Choice("least_outstanding")
    plan: SizePlan | None = None
    migration: Choice | None = None
    moving: Moving = Moving()
    delays: Delays = Delays()
    failures: tuple[Failing, ...] = ()
    hold_seconds: float = 300.0
    hold_limit: int = 100_000
    seed: int = 1
    event_budget: int = 1_000_000_000
    parts: Parts = Parts()

    def serving_nodes(self) -> tuple[str, ...]:
        """The nodes that have instances, in order."""
        return tuple(node for number, group in enumerate(self.groups) for node in nodes_of(number, group))


def nodes_of(number: int, group: Group) -> tuple[str, ...]:
    """The nodes of a group, counted from 0; none where its numbers make no sense."""
    if group.count < 1 or group.per_node < 1:
        return ()
    return tuple(node_of(number, count, group.per_node) for count in range(0, group.count, group.per_node))


def node_of(group: int, count: int, per_node: int) -> str:
    """The node of the `count`-th instance of a group, both counted from 0."""
    return f"node-{group}-{count // per_node:05d}"


def check(spec: WorldSpec) -> None:
    """Raise ScenarioError, naming the field, for what contradicts itself."""
    if not spec.groups:
        raise ScenarioError("groups", "is empty; a service needs instances")
    for index, group in enumerate(spec.groups):
        for name in ("count", "per_node"):
            _positive(f"groups[{index}].{name}", getattr(group, name))
    for part in ("delays", "moving"):
        for name in getattr(spec, part).__struct_fields__:
            value = getattr(getattr(spec, part), name)
            if not isinstance(value, bool):
                _positive(f"{part}.{name}", value)
    if spec.delays.agent_low_seconds > spec.delays.agent_high_seconds:
        raise ScenarioError("delays.agent_low_seconds", "is above delays.agent_high_seconds")
    for name in ("hold_seconds", "hold_limit"):
        _positive(name, getattr(spec, name))
    roles = {group.role for group in spec.groups}
    if (Role.PREFILL in roles and Role.DECODE not in roles) or roles == {Role.DECODE}:
        raise ScenarioError(
            "groups", "need instances of the role decode for prefill ones, and some that take requests"
        )
    _check_failures(spec)
    check_parts(spec.parts, spec.serving_nodes(), len(spec.groups))


def _check_failures(spec: WorldSpec) -> None:
    total = sum(group.count for group in spec.groups)
    for index, failing in enumerate(spec.failures):
        if not 0 <= failing.instance < total:
            raise ScenarioError(
                f"failures[{index}].instance", f"is {failing.instance}; there are {total} instances"
            )
        for name in ("at_seconds", "notice_seconds"):
            if not 0.0 <= getattr(failing, name) < math.inf:
                raise ScenarioError(
                    f"failures[{index}].{name}", f"is {getattr(failing, name)}; it must not be negative"
                )


def _positive(path: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ScenarioError(path, f"is {value}; it must be a positive finite number")

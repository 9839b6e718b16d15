"""Scenario files: one service on groups of instances, its traffic and its policies, in YAML.

Everything is judged before anything runs, and what is wrong is told with the file and the path of the field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cluster.serving import Role
from placement.models import model_spec
from simulator.experiments.costs import Roofline, constants_of, cost_of
from simulator.experiments.mechanisms import (
    Mechanisms,
    RequestClass,
    check_classes,
    parts_of,
    start_of,
)
from simulator.experiments.runs import Value
from simulator.experiments.traffic import Strict, Traffic, check_traffic
from simulator.physics.catalogue import GPU_SPECS
from simulator.physics.specs import Admission, EngineSpec, ModelSpec, Precision, Scheduling
from simulator.world.spec import (
    Choice,
    Delays,
    Failing,
    Group,
    Moving,
    ScenarioError,
    WorldSpec,
    check,
    nodes_of,
)


class Engine(Strict, frozen=True, kw_only=True):
    """How the instances of a group batch; 0 as `prefix_block_tokens` switches the prefix cache off."""

    max_num_seqs: int = 256
    chunk_tokens: int = 2_048
    block_tokens: int = 16
    prefix_block_tokens: int = 0
    max_model_tokens: int = 0
    admission: Admission = "grow"
    scheduling: Scheduling = "chunked"


class Instances(Strict, frozen=True, kw_only=True):
    """`count` like instances: `gpus` of the product `gpu` each, at the model's `precision`.

    Step times are the roofline's (with four numbers of one's own in `roofline`), or those measured: `cost` names a shipped
    model, `profile` a file of the user's, `entry` one of several engines in it.
    """

    gpu: str
    count: int = 1
    gpus: int = 1
    per_node: int = 8
    role: Role = Role.MIXED
    engine: Engine = Engine()
    cost: str = ""
    profile: str = ""
    entry: str = ""
    roofline: Roofline | None = None
    dollars_per_gpu_hour: float = 0.0


class Promise(Strict, frozen=True, kw_only=True):
    """What a request is to keep; attainment is the share of all that arrived that did."""

    ttft_seconds: float = 2.0
    tpot_seconds: float = 0.1


class Failure(Strict, frozen=True, kw_only=True):
    """An instance that dies; with `restart` another starts in its place and goes through a cold start."""

    instance: int
    at_seconds: float
    notice_seconds: float = 0.0
    restart: bool = True


class Scenario(Mechanisms, frozen=True, kw_only=True):
    """One experiment. `shape` describes a model that the shipped catalogue does not know, as a ModelService does.

    `classes` share the traffic out among priorities; without them requests have those of their trace.
    """

    model: str
    groups: tuple[Instances, ...]
    traffic: Traffic
    name: str = ""
    shape: dict[str, float] = {}
    precision: Precision = "bf16"
    promise: Promise = Promise()
    classes: tuple[RequestClass, ...] = ()
    dispatch: Choice = Choice("least_outstanding")
    migration: Choice | None = None
    moving: Moving = Moving()
    delays: Delays = Delays()
    failures: tuple[Failure, ...] = ()
    hold_seconds: float = 300.0
    hold_limit: int = 100_000
    event_budget: int = 1_000_000_000


def load(path: Path) -> dict[str, Any]:
    """The scenario as plain data, its file paths made absolute. Raises ScenarioError for a file that is none."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(str(path), f"cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError(str(path), f"is not YAML: {error}") from error
    if not isinstance(given, dict):
        raise ScenarioError(str(path), "holds no mapping; a scenario has model, groups and traffic")
    for holder, name in _paths(given):
        if isinstance(holder.get(name), str) and holder[name]:
            holder[name] = str((path.parent / holder[name]).resolve())
    return given


def _paths(given: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    traffic = given.get("traffic")
    for source in ("trace", "clients"):
        if isinstance(traffic, dict) and isinstance(traffic.get(source), dict):
            yield traffic[source], "path"
    yield given, "snapshot"
    services = given.get("services")
    for service in services if isinstance(services, list) else ():
        traffic = service.get("traffic") if isinstance(service, dict) else None
        for source in ("trace", "clients"):
            if isinstance(traffic, dict) and isinstance(traffic.get(source), dict):
                yield traffic[source], "path"
    groups = given.get("groups")
    for group in groups if isinstance(groups, list) else ():
        if isinstance(group, dict):
            yield group, "profile"


def with_settings(given: dict[str, Any], settings: Sequence[tuple[str, Value]]) -> dict[str, Any]:
    """A copy with settings put at their dotted paths (`groups.0.count`). Raises ScenarioError for a path that leads nowhere."""
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(given))
    for dotted, value in settings:
        *way, last = dotted.split(".")
        holder: Any = made
        for word in way:
            holder = _step(holder, word, dotted)
        if isinstance(holder, list):
            holder[_index(holder, last, dotted)] = value
        elif isinstance(holder, dict):
            holder[last] = value
        else:
            raise ScenarioError(dotted, "leads into a value, not a mapping")
    return made


def _step(holder: Any, word: str, dotted: str) -> Any:
    if isinstance(holder, list):
        return holder[_index(holder, word, dotted)]
    if isinstance(holder, dict):
        return holder.setdefault(word, {})
    raise ScenarioError(dotted, f"leads into a value at {word!r}, not a mapping")


def _index(holder: list[Any], word: str, dotted: str) -> int:
    if not (word.isdecimal() and int(word) < len(holder)):
        raise ScenarioError(
            dotted, f"has {word!r} where one of the {len(holder)} entries is meant; count from 0"
        )
    return int(word)


def scenario_of(given: Mapping[str, Any]) -> Scenario:
    """The scenario of plain data. Raises ScenarioError with the path of the first field that is wrong."""
    try:
        found = msgspec.convert(given, Scenario, strict=False)
    except msgspec.ValidationError as error:
        sentence, _, where = str(error).partition(" - at `$")
        raise ScenarioError(where.strip("`.") or "scenario", f"is wrong: {sentence}") from error
    check_traffic(found.traffic)
    check_classes(found.classes)
    for name in ("ttft_seconds", "tpot_seconds"):
        if not getattr(found.promise, name) > 0.0:
            raise ScenarioError(f"promise.{name}", f"is {getattr(found.promise, name)}; it must be positive")
    return found


def world_of(scenario: Scenario, seed: int) -> WorldSpec:
    """What the world is made of. Raises ScenarioError with the path of the field for what cannot be."""
    try:
        model = _model(scenario)
    except (KeyError, ValueError) as error:
        raise ScenarioError("model", f"cannot be used: {error.args[0]}") from error
    groups = tuple(_group(group, f"groups[{n}]") for n, group in enumerate(scenario.groups))
    start = start_of(scenario.start, model)
    spec = WorldSpec(
        model=model,
        groups=groups,
        parts=parts_of(scenario, start, [nodes_of(n, group) for n, group in enumerate(groups)]),
        dispatch=scenario.dispatch,
        migration=scenario.migration,
        moving=scenario.moving,
        delays=scenario.delays,
        failures=tuple(
            Failing(
                instance=each.instance,
                at_seconds=each.at_seconds,
                notice_seconds=each.notice_seconds,
                start=start if each.restart else None,
            )
            for each in scenario.failures
        ),
        hold_seconds=scenario.hold_seconds,
        hold_limit=scenario.hold_limit,
        seed=seed,
        event_budget=scenario.event_budget,
    )
    check(spec)
    return spec


def _model(scenario: Scenario) -> ModelSpec:
    found = model_spec(scenario.model, scenario.shape)
    return ModelSpec(
        name=found.name,
        parameters=found.parameters,
        weight_bytes=found.weight_bytes,
        layers=found.layers,
        hidden=found.hidden_size,
        kv_bytes_per_token=found.kv_bytes_per_token,
        precision=scenario.precision,
    )


def _group(given: Instances, where: str) -> Group:
    gpu = GPU_SPECS.get(given.gpu)
    if gpu is None:
        raise ScenarioError(f"{where}.gpu", f"is {given.gpu!r}; known are {', '.join(sorted(GPU_SPECS))}")
    if given.dollars_per_gpu_hour < 0.0:
        raise ScenarioError(f"{where}.dollars_per_gpu_hour", "must not be negative")
    cost = cost_of(given.cost, given.profile, given.entry, given.gpus, where)
    constants = constants_of(given.roofline, where)
    fields = {name: getattr(given.engine, name) for name in given.engine.__struct_fields__}
    try:
        engine = EngineSpec(tensor_parallel=given.gpus, measured=cost, constants=constants, **fields)
    except ValueError as error:
        raise ScenarioError(f"{where}.engine", f"cannot be: {error}") from error
    return Group(gpu=gpu, engine=engine, count=given.count, per_node=given.per_node, role=given.role)

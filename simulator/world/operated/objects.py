"""What users write, as the core names it: the objects of the custom resources, judged and read by the operator's own code."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from cluster.hardware import AcceleratorClass, Pool
from cluster.power import PowerDomain
from cluster.serving import Rollout, Service
from cluster.training import Job
from controller.observe import intents
from controller.observe.restraint import Restraint
from controller.observe.revisions import Standing, name_of, template_of
from controller.resources import rules
from controller.resources.acceleratorclass import AcceleratorClass as AcceleratorClassObject
from controller.resources.modelservice import ModelService
from controller.resources.powerdomain import PowerDomain as PowerDomainObject
from controller.resources.schema import schema_of
from controller.resources.trainingjob import TrainingJob
from controller.store.embedded.validation import Structural
from controller.store.embedded.wording import NOWHERE
from simulator.world.spec import ScenarioError

API_VERSION = "plimsoll.dev/v1alpha1"


def service_of(
    name: str,
    given: Mapping[str, Any],
    classes: Mapping[str, AcceleratorClass],
    origin_seconds: float,
    path: str,
) -> Service:
    """A service as the operator would see a ModelService of this specification, just applied.

    Raises ScenarioError with the path of the field at fault below `path`.
    """
    obj = msgspec.convert(_judged("ModelService", name, given, path), ModelService)
    revision = name_of(template_of(obj.spec))
    rollout = Rollout(number=1, began_seconds=origin_seconds, complete=False)
    standing = Standing(obj, revision, rollout, revision, recorded=True)
    noun: Service = _noun(intents.service(standing, dict(classes)), path)
    return Restraint().service(noun, obj, None, origin_seconds)


def job_of(
    name: str,
    given: Mapping[str, Any],
    classes: Mapping[str, AcceleratorClass],
    origin_seconds: float,
    path: str,
) -> Job:
    """A job as the operator would see a TrainingJob of this specification. Raises ScenarioError as `service_of`."""
    obj = msgspec.convert(_judged("TrainingJob", name, given, path), TrainingJob)
    noun: Job = _noun(intents.job(obj, dict(classes)), path)
    held = Restraint().hold(obj.metadata, obj.spec.mode, None)
    return msgspec.structs.replace(noun, waiting_since_seconds=origin_seconds, held=held)


def domain_of(name: str, given: Mapping[str, Any], members: tuple[str, ...], path: str) -> PowerDomain:
    """A breaker with its members. Raises ScenarioError as `service_of`."""
    obj = msgspec.convert(_judged("PowerDomain", name, given, path), PowerDomainObject)
    return intents.domain(obj, members)


def product_of(name: str, given: Mapping[str, Any], path: str) -> tuple[AcceleratorClass, list[Pool]]:
    """A product and its price pools. Raises ScenarioError as `service_of`."""
    return intents.accelerator(
        msgspec.convert(_judged("AcceleratorClass", name, given, path), AcceleratorClassObject)
    )


def _judged(kind: str, name: str, given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The object with its defaults, or ScenarioError for the first thing that an API server would refuse."""
    namespace, _, own = name.rpartition("/")
    obj: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": own, "uid": name, "generation": 1}
        | ({"namespace": namespace} if namespace else {}),
        "spec": msgspec.json.decode(msgspec.json.encode(given)),
    }
    structural = _structural(kind)
    for field in structural.unknown(obj):
        raise ScenarioError(_below(path, field), f"is no field of {kind}")
    as_given = msgspec.json.decode(msgspec.json.encode(obj))
    structural.fill(obj)
    for fault in structural.check(obj):
        if fault.field != NOWHERE:
            raise ScenarioError(_below(path, fault.field), f"is wrong: {fault}")
    for field, sentence in rules.broken(kind, obj):
        raise ScenarioError(_below(path, field), f"is wrong: {sentence}")
    filled: dict[str, Any] = as_given
    return filled


@cache
def _structural(kind: str) -> Structural:
    return Structural(schema_of(kind))


def _below(path: str, field: str) -> str:
    """The path in the scenario of a field of the object."""
    inner = field.removeprefix("spec").lstrip(".")
    return f"{path}.{inner}" if inner else path


def _noun(intent: intents.Intent, path: str) -> Any:
    if intent.noun is None:
        raise ScenarioError(path, f"cannot be used: {intent.faults[0]}")
    return intent.noun

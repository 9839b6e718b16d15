"""Revisions of a service: what of its specification an engine is started from, and what is kept of the former ones.

A revision is named by the content of the parts in `PARTS`, as the user gave them (what is left to its default is left
out, so that a newer operator with more fields rolls nothing out). It is kept in a ControllerRevision that the
ModelService owns: its number, when it was first wanted, and what became of it. Going back needs nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import msgspec

from cluster.seeds import stable_hash
from cluster.serving import Rollout
from controller.observe import labels
from controller.resources.core import ControllerRevision
from controller.resources.modelservice import ModelService, ModelServiceSpec
from controller.resources.trainingjob import TrainingJobSpec
from controller.store.interface import JsonObject

PARTS = ("model", "image", "command", "args", "pod")
"""Fields of a ModelService's specification that reach an engine."""

COMPLETE, FAILED = "Complete", "Failed"


class Kept(NamedTuple):
    """One revision as it is kept. `outcome` is empty while it is neither complete nor given up."""

    name: str
    number: int
    outcome: str
    began_seconds: float
    ended_seconds: float
    why: str
    obj: ControllerRevision

    @property
    def template(self) -> JsonObject:
        """The parts of the specification."""
        found: JsonObject = self.obj.data.get("spec", {})
        return found


class Standing(NamedTuple):
    """Where a service stands: the object as it is acted on, its revision and rollout, the name its user asks for, and
    whether that is kept already.
    """

    acting: ModelService
    revision: str
    rollout: Rollout
    wanted: str
    recorded: bool


JOB_PARTS = ("image", "command", "args", "pod")
"""Fields of a TrainingJob's specification that reach its ranks' containers."""


def template_of(spec: ModelServiceSpec | TrainingJobSpec) -> JsonObject:
    """What of a specification an engine, or a rank, is started from, without what is left to its default."""
    given: JsonObject = _given(spec)
    names = {field.name: field.encode_name for field in msgspec.structs.fields(type(spec))}
    parts = PARTS if isinstance(spec, ModelServiceSpec) else JOB_PARTS
    return {names[part]: given[names[part]] for part in parts if names[part] in given}


def name_of(template: JsonObject) -> str:
    """Content hash of a template: 16 hexadecimal digits."""
    return f"{stable_hash(msgspec.json.encode(template, order='deterministic').decode()):016x}"


def _given(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        found = {
            f.encode_name: getattr(value, f.name) for f in fields if getattr(value, f.name) != _default(f)
        }
        return {name: _given(each) for name, each in found.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [_given(each) for each in value]
    if isinstance(value, dict):
        return {name: _given(each) for name, each in value.items()}
    return value


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def with_template(obj: ModelService, template: JsonObject) -> ModelService:
    """The object as if its user had asked for another revision. Raises msgspec.ValidationError for a template that
    this version cannot read.
    """
    before = msgspec.convert(template, ModelServiceSpec)
    parts = {part: getattr(before, part) for part in PARTS}
    return msgspec.structs.replace(obj, spec=msgspec.structs.replace(obj.spec, **parts))


def kept_of(obj: ControllerRevision) -> Kept:
    """A ControllerRevision as a revision."""
    notes = obj.metadata.annotations
    return Kept(
        name=obj.metadata.labels.get(labels.REVISION, ""),
        number=obj.revision,
        outcome=notes.get(labels.OUTCOME, ""),
        began_seconds=_seconds(notes.get(labels.BEGAN, "")),
        ended_seconds=_seconds(notes.get(labels.ENDED, "")),
        why=notes.get(labels.WHY, ""),
        obj=obj,
    )


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # an annotation is anybody's to edit
        return 0.0


class RevisionBook:
    """ControllerRevisions by the service that owns them."""

    def __init__(self) -> None:
        """Start empty."""
        self._of: dict[str, dict[str, ControllerRevision]] = defaultdict(dict)
        self._owner: dict[str, str] = {}

    def take(self, key: str, obj: ControllerRevision | None) -> set[str]:
        """One as it is now (None: gone); the services whose revisions changed by it."""
        touched = {self._owner.pop(key)} if key in self._owner else set()
        for service in touched:
            self._of[service].pop(key, None)
        owner = obj.metadata.labels.get(labels.SERVICE, "") if obj is not None else ""
        if obj is not None and owner:
            service = f"{obj.metadata.namespace}/{owner}"
            self._owner[key] = service
            self._of[service][key] = obj
            touched.add(service)
        return touched

    def of(self, service: str, uid: str) -> list[Kept]:
        """Revisions of a service (`namespace/name`) with this uid, oldest first."""
        found = [
            kept_of(obj)
            for _, obj in sorted(self._of.get(service, {}).items())
            if any(owner.uid == uid for owner in obj.metadata.owner_references)
        ]
        return sorted(found, key=lambda kept: kept.number)


def standing_of(obj: ModelService, kept: list[Kept]) -> Standing:
    """Where a service stands, by what its user asks for and what is kept of its revisions."""
    wanted = name_of(template_of(obj.spec))
    newest = kept[-1] if kept else None
    recorded = newest is not None and newest.name == wanted
    number = (newest.number if newest else 0) + (not recorded)
    good = [each for each in kept if each.outcome == COMPLETE and each.name != wanted]
    before = good[-1] if good else None
    if recorded and newest is not None and newest.outcome == FAILED and before is not None:
        back = _acting(obj, before)
        if back is not None:
            rollout = Rollout(number=before.number, began_seconds=before.began_seconds, given_up=wanted)
            return Standing(back, before.name, rollout, wanted, recorded)
    rollout = Rollout(
        number=number,
        began_seconds=newest.began_seconds if recorded and newest is not None else 0.0,
        complete=bool(recorded and newest is not None and newest.outcome == COMPLETE),
        back_to=before.name if before is not None else "",
    )
    return Standing(obj, wanted, rollout, wanted, recorded)


def _acting(obj: ModelService, kept: Kept) -> ModelService | None:
    try:
        return with_template(obj, kept.template)
    except msgspec.ValidationError:
        return None  # kept by another version: what the user asks for is tried on

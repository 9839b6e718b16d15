"""Rules of metadata that hold for every kind: names, labels, owners, finalizers."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from controller.store.embedded import wording
from controller.store.embedded.wording import FieldFault
from controller.store.interface import JsonObject, Resource

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '"
)
_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '"
)
_LABEL_1035_WORDS = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
    "validation is '"
)
_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
    "for validation is '"
)
_NAME_PART_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '"
)
_ANNOTATION_BYTES = 262_144

_NAME_RULES = {
    "Namespace": (_LABEL, 63, _LABEL_WORDS),
    "Service": (_LABEL_1035, 63, _LABEL_1035_WORDS),
}


def name_faults(resource: Resource, name: Any) -> list[FieldFault]:
    """What is wrong with a name: the kind's own form, else an RFC 1123 subdomain of at most 253."""
    field = "metadata.name"
    if not isinstance(name, str) or not name:
        return [FieldFault(field, "FieldValueRequired", "Required value: name or generateName is required")]
    form, longest, words = _NAME_RULES.get(resource.kind, (_SUBDOMAIN, 253, _SUBDOMAIN_WORDS))
    faults = []
    if len(name) > longest:
        faults.append(wording.invalid(field, name, f"must be no more than {longest} characters"))
    elif not form.fullmatch(name):
        faults.append(wording.invalid(field, name, f"{words}{form.pattern}')"))
    return faults


@lru_cache(maxsize=65_536)
def _label_faults(key: str, value: str) -> tuple[FieldFault, ...]:
    field = "metadata.labels"
    faults = []
    prefix, _, part = key.rpartition("/")
    if len(part) > 63 or not _QUALIFIED.fullmatch(part):
        faults.append(wording.invalid(field, key, f"{_NAME_PART_WORDS}{_QUALIFIED.pattern}')"))
    if prefix and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        faults.append(wording.invalid(field, key, f"prefix part {_SUBDOMAIN_WORDS}{_SUBDOMAIN.pattern}')"))
    if len(value) > 63:
        faults.append(wording.invalid(field, value, "must be no more than 63 bytes"))
    elif not _LABEL_VALUE.fullmatch(value):
        faults.append(wording.invalid(field, value, f"{_VALUE_WORDS}{_LABEL_VALUE.pattern}')"))
    return tuple(faults)


def metadata_faults(resource: Resource, meta: JsonObject) -> list[FieldFault]:
    """What is wrong with an object's metadata."""
    faults = name_faults(resource, meta.get("name"))
    for name in ("labels", "annotations"):
        faults.extend(_map_faults(f"metadata.{name}", meta.get(name)))
    if faults:
        return faults
    for key, value in (meta.get("labels") or {}).items():
        faults.extend(_label_faults(key, value))
    notes = meta.get("annotations") or {}
    if sum(len(key) + len(value) for key, value in notes.items()) > _ANNOTATION_BYTES:
        faults.append(wording.too_long("metadata.annotations", _ANNOTATION_BYTES))
    faults.extend(_owner_faults(meta.get("ownerReferences") or []))
    return faults


def _map_faults(field: str, value: Any) -> list[FieldFault]:
    if value is None:
        return []
    if not isinstance(value, dict):
        return [wording.wrong_type(field, "object", type(value).__name__)]
    return [
        wording.wrong_type(f"{field}.{key}", "string", type(entry).__name__)
        for key, entry in value.items()
        if not isinstance(entry, str)
    ]


def _owner_faults(owners: list[JsonObject]) -> list[FieldFault]:
    faults = []
    field = "metadata.ownerReferences"
    for owner in owners:
        if not owner.get("apiVersion"):
            faults.append(wording.invalid(f"{field}.apiVersion", "", "version must not be empty"))
        empty = [name for name in ("kind", "name", "uid") if not owner.get(name)]
        faults += [wording.invalid(f"{field}.{name}", "", "must not be empty") for name in empty]
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        detail = "Only one reference can have Controller set to true."
        faults.append(wording.invalid("metadata.ownerReferences", owners, detail))
    return faults


def finalizer_faults(old: JsonObject, new: JsonObject) -> list[FieldFault]:
    """An object that is being deleted can lose finalizers, not gain them."""
    if "deletionTimestamp" not in old["metadata"]:
        return []
    had = set(old["metadata"].get("finalizers") or [])
    added = [name for name in new["metadata"].get("finalizers") or [] if name not in had]
    if not added:
        return []
    listed = ", ".join(f'"{name}"' for name in added)
    detail = (
        "no new finalizers can be added if the object is being deleted, "
        f"found new finalizers []string{{{listed}}}"
    )
    return [wording.forbidden("metadata.finalizers", detail)]

"""The form an object must have before anything looks into it: what the server's typed decoding refuses."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from controller.resources import core
from controller.store.interface import BadRequest, JsonObject, Resource


class _Owner(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class _Meta(msgspec.Struct, rename="camel"):
    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    owner_references: list[_Owner] | None = None


_CORE: dict[str, type[msgspec.Struct]] = {
    "Pod": core.Pod,
    "Node": core.Node,
    "Namespace": core.Namespace,
    "Event": core.Event,
    "Lease": core.Lease,
    "Service": core.ServiceObject,
}


def own(obj: Any) -> JsonObject:
    """A copy that the caller cannot reach, of plain JSON types only. Raises `BadRequest`."""
    try:
        copied = msgspec.json.decode(msgspec.json.encode(obj))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadRequest(f"the object is no JSON: {error}; use plain values only") from None
    if not isinstance(copied, dict):
        raise BadRequest(f"the object is no JSON object but {type(obj).__name__}")
    return copied


METADATA_FIELDS = frozenset({*_Meta.__struct_encode_fields__, "managedFields", "selfLink"})
"""Every field that metadata may have."""


def strange_metadata(meta: JsonObject) -> list[str]:
    """Dotted paths of the fields of metadata that there are not."""
    found = [f"metadata.{name}" for name in meta if name not in METADATA_FIELDS]
    for index, owner in enumerate(meta.get("ownerReferences") or []):
        at = f"metadata.ownerReferences[{index}]"
        found += [f"{at}.{name}" for name in owner if name not in _Owner.__struct_encode_fields__]
    return found


def header(resource: Resource, obj: JsonObject) -> JsonObject:
    """The object's metadata, once it has the right form. Nulls in it count as absent and are removed.

    Raises `BadRequest` in the words of the server's decoder, naming the field.
    """
    meta = obj.get("metadata")
    if not isinstance(meta, dict):
        raise BadRequest(f"{resource.kind} has no metadata; it must hold at least a name")
    try:
        msgspec.convert(meta, _Meta)
    except msgspec.ValidationError as error:
        raise _unfit(resource, "metadata", error) from None
    for name in [name for name, value in meta.items() if value is None]:
        del meta[name]
    return meta


def check(resource: Resource, obj: JsonObject) -> None:
    """Refuse an object of another kind, and a core object whose fields have the wrong types.

    Raises `BadRequest`.
    """
    for field, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if obj.get(field) != wanted:
            given = str(obj.get(field, ""))[:100]
            raise BadRequest(
                f"the {field} in the data ({given}) does not match the expected {field} ({wanted})"
            )
    header(resource, obj)
    form = _CORE.get(resource.kind)
    if form is None:
        return
    try:
        msgspec.convert(obj, form)
    except msgspec.ValidationError as error:
        raise _unfit(resource, "", error) from None


_GO_TYPES = {
    "name": "string",
    "labels": "map[string]string",
    "annotations": "map[string]string",
    "finalizers": "[]string",
    "ownerReferences": "[]v1.OwnerReference",
    "generation": "int64",
    "deletionGracePeriodSeconds": "int64",
}
_GO_KINDS = {"int": "number", "float": "number", "str": "string", "bool": "bool"}
_AT = re.compile(r"metadata\.(\w+)(\[[^\]]*\])?(?:\.(\w+))?")
_EXPECTED = re.compile(r"Expected `[^`]+`, got `(\w+)`")


def _unfit(resource: Resource, where: str, error: msgspec.ValidationError) -> BadRequest:
    what, _, path = str(error).partition(" - at `$")
    field = (where + path.rstrip("`")).lstrip(".")
    kind, version = resource.kind, resource.version
    prefix = "metadata." if kind in _CORE else ""
    said = _in_go(field, what, prefix) or f"{field or 'the object'}: {what}"
    return BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {said}')


def _in_go(field: str, what: str, prefix: str) -> str:
    """A wrong type in metadata as the server's decoder words it; empty for anything else.

    `prefix` is what it says before the field: metadata of a custom resource is decoded by itself.
    """
    found, at = _EXPECTED.match(what), _AT.fullmatch(field)
    if found is None or at is None:
        return ""
    given = _GO_KINDS.get(found[1], found[1])
    name, inside, below = at.groups()
    wanted = "string" if inside else _GO_TYPES.get(name, "string")
    where = f"OwnerReference.{prefix}{name}.{below}" if below else f"ObjectMeta.{prefix}{name}"
    return f"json: cannot unmarshal {given} into Go struct field {where} of type {wanted}"

"""The form an object must have before anything looks into it: what the server's typed decoding refuses."""

from __future__ import annotations

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


def _unfit(resource: Resource, where: str, error: msgspec.ValidationError) -> BadRequest:
    what, _, path = str(error).partition(" - at `$")
    field = (where + path.rstrip("`")).lstrip(".")
    kind, version = resource.kind, resource.version
    return BadRequest(
        f'{kind} in version "{version}" cannot be handled as a {kind}: {field or "the object"}: {what}'
    )

"""Objects as they are sent and as they come back: where they belong, under which conditions, in which words."""

from __future__ import annotations

from typing import Any

import msgspec

from controller.store.errors import BadRequest, Conflict, Unavailable
from controller.store.interface import JsonObject, Resource, Scale

STRICT = "Strict"
"""Unknown and doubled fields are refused, as the embedded store refuses them."""


def object_of(raw: bytes, doing: str) -> JsonObject:
    """An answer as an object. Raises `Unavailable` for anything else: somebody else answered."""
    try:
        obj: JsonObject = msgspec.json.decode(raw, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unavailable(f"{doing}: the answer is no object ({error})") from error
    return obj


def writing(field_manager: str) -> dict[str, str | int | bool | None]:
    """Parameters of a write: who writes, and that unknown fields are refused."""
    return {"fieldManager": field_manager, "fieldValidation": STRICT}


def words(verb: str, resource: Resource, subresource: str, name: str) -> str:
    """What is asked, for errors and logs."""
    part = f"/{subresource}" if subresource else ""
    return f"{verb} {resource.qualified}{part} {name!r}"


def _metadata(obj: JsonObject) -> JsonObject:
    found = obj.get("metadata")
    return found if isinstance(found, dict) else {}


def name_of(obj: JsonObject) -> str:
    """metadata.name, or ""."""
    return str(_metadata(obj).get("name") or "")


def addressed(resource: Resource, obj: JsonObject) -> tuple[JsonObject, str]:
    """What is sent for an object (its kind is added where it is left out), and its namespace.

    Raises `BadRequest`, in the server's words, for an object of another kind or in a place that does not fit its kind.
    """
    said = {"apiVersion": resource.api_version, "kind": resource.kind}
    for field, wanted in said.items():
        if obj.get(field, wanted) != wanted:
            given = str(obj[field])[:100]
            raise BadRequest(
                f"the {field} in the data ({given}) does not match the expected {field} ({wanted})"
            )
    namespace = str(_metadata(obj).get("namespace") or "")
    if resource.namespaced and not namespace:
        raise BadRequest("an empty namespace may not be set during creation")
    if not resource.namespaced and namespace:
        raise BadRequest("namespace may not be set on a cluster-scoped object")
    return {**said, **obj, "metadata": _metadata(obj)}, namespace


def conditioned(patch: JsonObject, uid: str, resource_version: str) -> JsonObject:
    """A patch that holds only for this uid and version, where given."""
    conditions = {"uid": uid, "resourceVersion": resource_version}
    kept = {key: value for key, value in conditions.items() if value}
    if not kept:
        return patch
    metadata = patch.get("metadata")
    return {**patch, "metadata": {**(metadata if isinstance(metadata, dict) else {}), **kept}}


def other_uid(resource: Resource, name: str, uid: str) -> Conflict:
    """The conflict of a write that was meant for an object of the same name, gone meanwhile."""
    why = f"Precondition failed: UID in precondition: {uid}, which is not the object's: it was made anew meanwhile"
    return Conflict(f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}')


def scale_of(obj: JsonObject) -> Scale:
    """autoscaling/v1 Scale as the seam has it; the API leaves out zeros."""
    meta: dict[str, Any] = obj["metadata"]
    status = obj.get("status") or {}
    return Scale(
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        uid=meta.get("uid", ""),
        resource_version=meta.get("resourceVersion", ""),
        spec_replicas=int((obj.get("spec") or {}).get("replicas", 0)),
        status_replicas=int(status.get("replicas", 0)),
        selector=str(status.get("selector") or ""),
    )

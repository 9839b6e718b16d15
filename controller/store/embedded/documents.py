"""Small work on JSON documents: reading records, merge patches, versions and continue tokens."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from controller.store.embedded.tables import Key, Record
from controller.store.interface import BadRequest, JsonObject


def decoded(record: Record) -> JsonObject:
    """The object of a record, for a reader to keep."""
    obj: JsonObject = msgspec.json.decode(record.raw)
    return obj


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386, sharing what the patch does not touch."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def version_number(text: str) -> int:
    """A resourceVersion as a number. Raises `BadRequest`."""
    try:
        return int(text)
    except ValueError:
        raise BadRequest(
            f"invalid resource version {text!r}: it must be one that the store gave out"
        ) from None


def token(at: int, after: Key) -> str:
    """A continue token: the version of the list, and the last key given out."""
    return base64.urlsafe_b64encode(msgspec.json.encode([at, *after])).decode()


def page(given: str) -> tuple[int, Key]:
    """What a continue token says. Raises `BadRequest` for one that is not ours."""
    try:
        at, namespace, name = msgspec.json.decode(base64.urlsafe_b64decode(given), type=tuple[int, str, str])
    except (ValueError, msgspec.MsgspecError):
        raise BadRequest(
            "invalid continue token: continue key is not valid: the store did not give it out; "
            "list again from the start"
        ) from None
    return at, (namespace, name)

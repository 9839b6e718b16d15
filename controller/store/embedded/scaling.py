"""What the server says of its own about the number behind a scale subresource, beside what the schema says."""

from __future__ import annotations

from typing import Any

from controller.store.embedded import wording
from controller.store.embedded.wording import FieldFault
from controller.store.interface import JsonObject, Resource

_GO_TYPES = {
    bool: "bool",
    str: "string",
    int: "int64",
    float: "float64",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}
_WANTED_OF_MAP = "map[string]interface{}"
_INT64 = 2**63


def scale_faults(resource: Resource, obj: JsonObject) -> list[FieldFault]:
    """A wanted size that the scale subresource cannot read, or that is below nothing."""
    if resource.scale is None:
        return []
    path = resource.scale.spec_replicas
    field = f".{path}"
    value: Any = obj
    for name in path.split("."):
        if not isinstance(value, dict):
            return [_unreadable(field, value, _WANTED_OF_MAP)]
        if name not in value:
            return []
        value = value[name]
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
        whole = isinstance(value, float) and value.is_integer() and abs(value) < _INT64
        return [] if whole else [_unreadable(field, value, "int64")]
    return [wording.invalid(field, value, "should be a non-negative integer")] if value < 0 else []


def _unreadable(field: str, value: Any, wanted: str) -> FieldFault:
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        value = float(value)
    detail = (
        f"{field} accessor error: {_in_go(value)} is of the type {_GO_TYPES[type(value)]}, expected {wanted}"
    )
    return wording.invalid(field, 0, detail)


def _in_go(value: Any) -> str:
    """A decoded JSON value as Go's %v prints it."""
    if isinstance(value, list):
        return f"[{' '.join(map(_in_go, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_in_go(value[key])}' for key in sorted(value))}]"
    if value is None:
        return "<nil>"
    return value if isinstance(value, str) else wording.shown(value)

"""Validation against a structural OpenAPI schema: unknown fields, defaults, rules; in the server's words.

A schema is compiled once into closures; checking a ModelService of 60 values costs some 20 µs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from controller.store.embedded import wording
from controller.store.embedded.walks import defaulter, dotted, dropper, has, seeker
from controller.store.embedded.wording import FieldFault

Schema = dict[str, Any]
Check = Callable[[Any, str, list[FieldFault]], None]

_INT64 = 2**63
_SERVER_FIELDS = ("apiVersion", "kind", "metadata")


class Structural:
    """One compiled schema."""

    __slots__ = ("_check", "_default", "_drop", "_properties", "_unknown", "has_rules", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.has_rules = has(schema, "x-kubernetes-validations")
        self._drop = dropper(schema)
        self._properties: dict[str, Check] = {
            name: _checker(part) for name, part in schema.get("properties", {}).items()
        }
        self._check = _checker(schema)
        self._default = defaulter(schema)
        self._unknown = seeker(schema)

    def unknown(self, obj: dict[str, Any]) -> list[str]:
        """Dotted paths of the fields that the schema does not declare, in order; metadata is not looked into."""
        found: list[str] = []
        body = {key: value for key, value in obj.items() if key not in _SERVER_FIELDS}
        self._unknown(body, "", found)
        return sorted(found)

    def fill(self, obj: dict[str, Any]) -> None:
        """Take away fields that are null and set every absent one that has a default, in place."""
        for name in self._properties:
            if name not in _SERVER_FIELDS and obj.get(name, ...) is None:
                del obj[name]
        self._drop(obj)
        self._default(obj)

    def check(self, obj: dict[str, Any]) -> list[FieldFault]:
        """Every broken rule of the whole object, in the schema's order."""
        faults: list[FieldFault] = []
        self._check(obj, "", faults)
        return faults

    def check_part(self, name: str, value: Any) -> list[FieldFault]:
        """Every broken rule of one top-level field (`spec`, `status`).

        What is wrong in a status is worded from the status on, since the server looks at nothing else there.
        """
        faults: list[FieldFault] = []
        if name in self._properties:
            self._properties[name](value, "" if name == "status" else name, faults)
        if name != "status":
            return faults
        return [FieldFault(_in_status(fault.field), fault.reason, fault.body) for fault in faults]


def _in_status(field: str) -> str:
    return f"status.{field}" if field and field != wording.NOWHERE else "status"


def json_type(value: Any) -> str:
    """The JSON type of a decoded value, in OpenAPI's words."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -_INT64 <= value < _INT64 else "number"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return {str: "string", dict: "object", list: "array", type(None): "null"}.get(type(value), "object")


def _checker(schema: Schema) -> Check:
    wanted = schema.get("type", "object")
    in_range = _number_checker(schema)
    allowed: list[str] | None = schema.get("enum")
    inner = {
        "object": _object_checker,
        "array": _array_checker,
        "string": _string_checker,
        "integer": _number_checker,
        "number": _number_checker,
    }.get(wanted)
    body = inner(schema) if inner else None

    def check(value: Any, path: str, faults: list[FieldFault]) -> None:
        found = json_type(value)
        if found != wanted and not (wanted == "number" and found == "integer"):
            faults.append(wording.wrong_type(path, wanted, found))
            if wanted == "integer" and found == "number":
                faults.append(wording.not_whole(path))
                in_range(float(value), path, faults)
            if allowed is not None:
                faults.append(wording.unsupported(path, value, allowed))
        elif body is not None:
            body(value, path, faults)

    return check


def _object_checker(schema: Schema) -> Check:
    required: list[str] = schema.get("required", [])
    known = {name: _checker(part) for name, part in schema.get("properties", {}).items()}
    rest = _checker(schema["additionalProperties"]) if "additionalProperties" in schema else None
    most, least = schema.get("maxProperties"), schema.get("minProperties", 0)

    def check(value: dict[str, Any], path: str, faults: list[FieldFault]) -> None:
        if len(value) < least:
            detail = f"{path} in body should have at least {least} properties"
            faults.append(wording.invalid(path, len(value), detail))
        faults.extend(wording.required(dotted(path, name)) for name in required if name not in value)
        if most is not None and len(value) > most:
            faults.append(wording.too_many(path, len(value), most))
        for name, item in value.items():
            checker = known.get(name, rest)
            if checker is not None:
                checker(item, dotted(path, name), faults)

    return check


def _array_checker(schema: Schema) -> Check:
    item_check = _checker(schema["items"])
    most = schema.get("maxItems")
    least = schema.get("minItems", 0)
    keys: list[str] = schema.get("x-kubernetes-list-map-keys", [])
    unique = schema.get("x-kubernetes-list-type") == "set"

    def check(value: list[Any], path: str, faults: list[FieldFault]) -> None:
        for index, item in enumerate(value):
            item_check(item, f"{path}[{index}]", faults)
        if most is not None and len(value) > most:
            faults.append(wording.too_many(path, len(value), most))
        if len(value) < least:
            detail = f"{path} in body should have at least {least} items"
            faults.append(wording.invalid(path, len(value), detail))
        if keys or unique:
            _check_unique(value, keys, path, faults)

    return check


def _check_unique(value: list[Any], keys: list[str], path: str, faults: list[FieldFault]) -> None:
    """Tell of the second of equal items; of a third no more, as the server does."""
    seen: Counter[Any] = Counter()
    for index, item in enumerate(value):
        if keys and not isinstance(item, dict):
            if item is not None:
                detail = "must be an object for an array of list-type map"
                faults.append(wording.invalid(f"{path}[{index}]", item, detail))
            continue
        identity = tuple(str(item.get(key)) for key in keys) if keys else str(item)
        seen[identity] += 1
        if seen[identity] == 2:
            shown = {key: item.get(key) for key in sorted(keys)} if keys else item
            faults.append(wording.duplicate(f"{path}[{index}]", shown))


def _string_checker(schema: Schema) -> Check:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    allowed: list[str] | None = schema.get("enum")
    pattern: str | None = schema.get("pattern")
    matcher = re.compile(re.sub(r"\$$", r"\\Z", pattern)) if pattern else None

    def check(value: str, path: str, faults: list[FieldFault]) -> None:
        if most is not None and len(value) > most:
            faults.append(wording.too_long(path, most))
        elif len(value) < least:
            detail = f"{path} in body should be at least {least} chars long"
            faults.append(wording.invalid(path, value, detail))
        elif matcher is not None and not matcher.search(value):
            faults.append(wording.invalid(path, value, f"{path} in body should match '{pattern}'"))
        if allowed is not None and value not in allowed:
            faults.append(wording.unsupported(path, value, allowed))

    return check


def _number_checker(schema: Schema) -> Check:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = bool(schema.get("exclusiveMinimum")), bool(schema.get("exclusiveMaximum"))
    low_words = "greater than" if above else "greater than or equal to"
    high_words = "less than" if below else "less than or equal to"

    def check(value: float, path: str, faults: list[FieldFault]) -> None:
        if low is not None and (value <= low if above else value < low):
            detail = f"{path} in body should be {low_words} {_bound(low, value)}"
            faults.append(wording.invalid(path, value, detail))
        if high is not None and (value >= high if below else value > high):
            detail = f"{path} in body should be {high_words} {_bound(high, value)}"
            faults.append(wording.invalid(path, value, detail))

    return check


def _bound(bound: float, value: float) -> str:
    """The server prints a bound in the type of the value, so far as that does not falsify it."""
    whole = isinstance(value, int) and -_INT64 <= value < _INT64 and float(bound).is_integer()
    return wording.go_number(int(bound) if whole else float(bound))

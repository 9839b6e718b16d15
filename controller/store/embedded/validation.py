"""Validation against a structural OpenAPI schema: unknown fields, defaults, rules; in the server's words.

A schema is compiled once into closures; checking a ModelService of 60 values costs some 20 µs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from controller.store.embedded import wording
from controller.store.embedded.wording import FieldFault

Schema = dict[str, Any]
Check = Callable[[Any, str, list[FieldFault]], None]
Walk = Callable[[Any], None]
Seek = Callable[[Any, str, list[str]], None]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_SERVER_FIELDS = ("apiVersion", "kind", "metadata")


class Structural:
    """One compiled schema."""

    __slots__ = ("_check", "_default", "_properties", "_unknown", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._properties: dict[str, Check] = {
            name: _checker(part) for name, part in schema.get("properties", {}).items()
        }
        self._check = _checker(schema)
        self._default = _defaulter(schema)
        self._unknown = _seeker(schema)

    def unknown(self, obj: dict[str, Any]) -> list[str]:
        """Dotted paths of the fields that the schema does not declare; metadata is not looked into."""
        found: list[str] = []
        body = {key: value for key, value in obj.items() if key not in _SERVER_FIELDS}
        self._unknown(body, "", found)
        return found

    def fill(self, obj: dict[str, Any]) -> None:
        """Set every absent field that has a default, in place."""
        self._default(obj)

    def check(self, obj: dict[str, Any]) -> list[FieldFault]:
        """Every broken rule of the whole object, in the schema's order."""
        faults: list[FieldFault] = []
        self._check(obj, "", faults)
        return faults

    def check_part(self, name: str, value: Any) -> list[FieldFault]:
        """Every broken rule of one top-level field (`spec`, `status`)."""
        faults: list[FieldFault] = []
        if name in self._properties:
            self._properties[name](value, name, faults)
        return faults


def json_type(value: Any) -> str:
    """The JSON type of a decoded value, in OpenAPI's words."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return {str: "string", dict: "object", list: "array", type(None): "null"}.get(type(value), "object")


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _checker(schema: Schema) -> Check:
    wanted = schema.get("type", "object")
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
        elif body is not None:
            body(value, path, faults)

    return check


def _object_checker(schema: Schema) -> Check:
    required: list[str] = schema.get("required", [])
    known = {name: _checker(part) for name, part in schema.get("properties", {}).items()}
    rest = _checker(schema["additionalProperties"]) if "additionalProperties" in schema else None
    most = schema.get("maxProperties")

    def check(value: dict[str, Any], path: str, faults: list[FieldFault]) -> None:
        faults.extend(wording.required(_below(path, name)) for name in required if name not in value)
        if most is not None and len(value) > most:
            faults.append(wording.too_many(path, len(value), most))
            return
        for name, item in value.items():
            checker = known.get(name, rest)
            if checker is not None:
                checker(item, _below(path, name), faults)

    return check


def _array_checker(schema: Schema) -> Check:
    item_check = _checker(schema["items"])
    most = schema.get("maxItems")
    least = schema.get("minItems", 0)
    keys: list[str] = schema.get("x-kubernetes-list-map-keys", [])
    unique = schema.get("x-kubernetes-list-type") == "set"

    def check(value: list[Any], path: str, faults: list[FieldFault]) -> None:
        if most is not None and len(value) > most:
            faults.append(wording.too_many(path, len(value), most))
            return
        if len(value) < least:
            detail = f"{path} in body should have at least {least} items"
            faults.append(wording.invalid(path, len(value), detail))
        for index, item in enumerate(value):
            item_check(item, f"{path}[{index}]", faults)
        if keys or unique:
            _check_unique(value, keys, path, faults)

    return check


def _check_unique(value: list[Any], keys: list[str], path: str, faults: list[FieldFault]) -> None:
    seen: set[Any] = set()
    for index, item in enumerate(value):
        if keys and not isinstance(item, dict):
            continue
        identity = tuple(str(item.get(key)) for key in keys) if keys else str(item)
        if identity in seen:
            shown = {key: item.get(key) for key in keys} if keys else item
            faults.append(wording.duplicate(f"{path}[{index}]", shown))
        seen.add(identity)


def _string_checker(schema: Schema) -> Check:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    allowed: list[str] | None = schema.get("enum")
    pattern: str | None = schema.get("pattern")
    matcher = re.compile(re.sub(r"\$$", r"\\Z", pattern)) if pattern else None

    def check(value: str, path: str, faults: list[FieldFault]) -> None:
        if most is not None and len(value) > most:
            faults.append(wording.too_long(path, most))
            return
        if len(value) < least:
            detail = f"{path} in body should be at least {least} chars long"
            faults.append(wording.invalid(path, value, detail))
        if matcher is not None and not matcher.search(value):
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
    whole = isinstance(value, int) and float(bound).is_integer()
    return wording.go_number(int(bound) if whole else float(bound))


def _defaulter(schema: Schema) -> Walk:
    parts: list[tuple[str, Any, bool, Walk]] = []
    for name, part in schema.get("properties", {}).items():
        if _has_defaults(part):
            parts.append((name, part.get("default"), bool(part.get("nullable")), _defaulter(part)))
    item = schema.get("items") or schema.get("additionalProperties")
    inner = _defaulter(item) if isinstance(item, dict) and _has_defaults(item) else None

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            _fill_fields(value, parts)
        if inner is not None:
            for entry in _entries(value):
                inner(entry)

    return walk


def _entries(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _fill_fields(obj: dict[str, Any], parts: list[tuple[str, Any, bool, Walk]]) -> None:
    for name, default, nullable, below in parts:
        if default is not None and (name not in obj or (obj[name] is None and not nullable)):
            obj[name] = {} if default == {} else default
        if name in obj:
            below(obj[name])


def _has_defaults(schema: Schema) -> bool:
    if "default" in schema:
        return True
    below = [*schema.get("properties", {}).values()]
    below += [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    return any(_has_defaults(part) for part in below)


def _seeker(schema: Schema) -> Seek:
    """Find undeclared fields, as the server's strict decoding does."""
    known = {name: _seeker(part) for name, part in schema.get("properties", {}).items()}
    item = schema.get("items") or schema.get("additionalProperties")
    inner = _seeker(item) if isinstance(item, dict) else None
    open_ended = bool(schema.get(_PRESERVE)) or schema.get("type") not in {"object", "array"}

    def seek(value: Any, path: str, found: list[str]) -> None:
        if open_ended:
            return
        if isinstance(value, dict):
            for name, entry in value.items():
                below = known.get(name, inner)
                if below is None:
                    found.append(_below(path, name))
                else:
                    below(entry, _below(path, name), found)
        elif isinstance(value, list) and inner is not None:
            for index, entry in enumerate(value):
                inner(entry, f"{path}[{index}]", found)

    return seek

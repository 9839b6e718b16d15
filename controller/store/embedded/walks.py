"""Walks over an object along its schema: undeclared fields, nulls that mean nothing, defaults.

Each is compiled once into closures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Schema = dict[str, Any]
Walk = Callable[[Any], None]
Seek = Callable[[Any, str, list[str]], None]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"


def dotted(path: str, name: str) -> str:
    """The path of a field below another."""
    return f"{path}.{name}" if path else name


def defaulter(schema: Schema) -> Walk:
    """Set every absent field that has a default, in place."""
    parts: list[tuple[str, Any, Walk]] = []
    for name, part in schema.get("properties", {}).items():
        if has(part, "default"):
            parts.append((name, part.get("default"), defaulter(part)))
    item = schema.get("items") or schema.get("additionalProperties")
    inner = defaulter(item) if isinstance(item, dict) and has(item, "default") else None

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


def _fill_fields(obj: dict[str, Any], parts: list[tuple[str, Any, Walk]]) -> None:
    for name, default, below in parts:
        if default is not None and name not in obj:
            obj[name] = {} if default == {} else default
        if name in obj:
            below(obj[name])


def seeker(schema: Schema) -> Seek:
    """Find undeclared fields, as the server's strict decoding does: also below a value of the wrong type."""
    known = {name: seeker(part) for name, part in schema.get("properties", {}).items()}
    rest = schema.get("additionalProperties")
    others = seeker(rest) if isinstance(rest, dict) else None
    items = seeker(schema["items"]) if isinstance(schema.get("items"), dict) else _stranger
    if schema.get(_PRESERVE):
        return _friend

    def seek(value: Any, path: str, found: list[str]) -> None:
        if isinstance(value, dict):
            for name, entry in value.items():
                below = known.get(name, others)
                if below is None:
                    found.append(dotted(path, name))
                else:
                    below(entry, dotted(path, name), found)
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                items(entry, f"{path}[{index}]", found)

    return seek


def _friend(_value: Any, _path: str, _found: list[str]) -> None:
    """Nothing below is undeclared: the schema leaves it open."""


def _stranger(value: Any, path: str, found: list[str]) -> None:
    """Every field below is undeclared: the schema knows no list here."""
    if isinstance(value, dict):
        found.extend(dotted(path, name) for name in value)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            _stranger(entry, f"{path}[{index}]", found)


def dropper(schema: Schema) -> Walk:
    """Take away fields that are null: the server does so wherever null is not a value of its own."""
    known = {
        name: dropper(part)
        for name, part in schema.get("properties", {}).items()
        if part.get("type") in {"object", "array"}
    }
    declared = frozenset(schema.get("properties", {}))
    every = isinstance(schema.get("additionalProperties"), dict)
    items = schema.get("items")
    inner = dropper(items) if isinstance(items, dict) and items.get("type") in {"object", "array"} else None

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for name in [name for name, entry in value.items() if entry is None]:
                if every or name in declared:
                    del value[name]
            for name, below in known.items():
                if name in value:
                    below(value[name])
        elif isinstance(value, list) and inner is not None:
            for entry in value:
                inner(entry)

    return walk


def has(schema: Schema, word: str) -> bool:
    """Whether a schema, or one inside it, says a word."""
    inside = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return word in schema or any(has(part, word) for part in inside if isinstance(part, dict))

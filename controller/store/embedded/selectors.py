"""Label and field selectors, as the API's query parameters write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from controller.store.interface import BadRequest, JsonObject, Resource

Match = Callable[[JsonObject], bool]

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!]*)$")
_EXISTS = re.compile(r"^(?P<absent>!?)\s*(?P<key>[^\s=!(),]+)$")
_SPLIT = re.compile(r",(?![^(]*\))")


@lru_cache(maxsize=4096)
def label_matcher(selector: str) -> Match | None:
    """A function that says whether an object's labels fit; None for the empty selector.

    Knows `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a` and `!a`, joined by commas (all must
    hold). Raises `BadRequest` for anything else.
    """
    if not selector.strip():
        return None
    tests = [_label_test(part.strip(), selector) for part in _SPLIT.split(selector)]

    def match(obj: JsonObject) -> bool:
        labels = obj.get("metadata", {}).get("labels") or {}
        return all(test(labels) for test in tests)

    return match


def _label_test(part: str, whole: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET.match(part):
        key, values = found["key"], frozenset(v.strip() for v in found["values"].split(","))
        if found["op"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.match(part):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.match(part):
        key, absent = found["key"], bool(found["absent"])
        return lambda labels: (key in labels) != absent
    raise BadRequest(f"unable to parse requirement {part!r} of the label selector {whole!r}")


@lru_cache(maxsize=4096)
def field_matcher(selector: str, resource: Resource) -> Match | None:
    """The same for fields: `path=value` and `path!=value`, joined by commas.

    Raises `BadRequest` for a field that the API does not let this kind be selected by.
    """
    if not selector.strip():
        return None
    tests = [_field_test(part.strip(), selector, resource) for part in selector.split(",")]
    return lambda obj: all(test(obj) for test in tests)


def _field_test(part: str, whole: str, resource: Resource) -> Match:
    found = _EQUAL.match(part)
    if found is None:
        raise BadRequest(f"unable to parse {part!r} of the field selector {whole!r}")
    path, value, negated = found["key"], found["value"], found["op"] == "!="
    if path not in {"metadata.name", "metadata.namespace", *resource.selectable}:
        raise BadRequest(f"field label not supported: {path}")
    names = path.split(".")
    return lambda obj: (_text(obj, names) == value) != negated


def _text(obj: Any, names: list[str]) -> str:
    for name in names:
        obj = obj.get(name) if isinstance(obj, dict) else None
    if isinstance(obj, bool):
        return "true" if obj else "false"
    return "" if obj is None else str(obj)


def both(labels: Match | None, by_field: Match | None) -> Match | None:
    """One matcher out of two; None when neither selects anything."""
    if labels is None or by_field is None:
        return labels or by_field
    return lambda obj: labels(obj) and by_field(obj)

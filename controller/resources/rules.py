"""Rules across the fields of one object: the CEL that the API server runs, and its twin in Python.

The embedded store runs no CEL (it says so); the manifest loader and the operator check the twins, so that
an object with such a fault is refused, or gets `Accepted=False`, with the same sentence everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

JsonObject = dict[str, Any]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. `path` is where it is attached (property names from the root), `cel` and `holds` say the
    same about the value there (`holds` is called only when the value exists), `field` names the culprit below.
    """

    path: tuple[str, ...]
    cel: str
    message: str
    field: str = ""
    holds: Callable[[JsonObject], bool]

    @property
    def culprit(self) -> str:
        """Dotted path of the field to change."""
        return ".".join(self.path) + self.field


def _ordered(low: str, high: str) -> Callable[[JsonObject], bool]:
    return lambda value: low not in value or high not in value or bool(value[low] <= value[high])


def _at_most(path: tuple[str, ...], low: str, high: str) -> Rule:
    return Rule(
        path=path,
        cel=f"!has(self.{low}) || !has(self.{high}) || self.{low} <= self.{high}",
        message=f"{low} must not be greater than {high}",
        field=f".{low}",
        holds=_ordered(low, high),
    )


def _own_parent(domain: JsonObject) -> bool:
    parent = domain.get("spec", {}).get("parent", "")
    return not parent or parent != domain.get("metadata", {}).get("name")


RULES: dict[str, tuple[Rule, ...]] = {
    "ModelService": (_at_most(("spec",), "minReplicas", "maxReplicas"),),
    "TrainingJob": (
        _at_most(("spec", "nodes"), "min", "max"),
        _at_most(("spec",), "microBatch", "globalBatch"),
    ),
    "AcceleratorClass": (
        _at_most(("spec",), "minWatts", "safeWatts"),
        _at_most(("spec",), "safeWatts", "maxWatts"),
        _at_most(("spec",), "tdpWatts", "maxWatts"),
    ),
    "PowerDomain": (
        Rule(
            path=(),
            cel="!has(self.spec.parent) || self.spec.parent != self.metadata.name",
            message="a power domain cannot be its own parent",
            field="spec.parent",
            holds=_own_parent,
        ),
    ),
}
"""Every rule across fields, by kind."""


def broken(kind: str, obj: JsonObject) -> list[tuple[str, str]]:
    """The rules an object breaks, as (dotted path of the culprit, sentence); empty when none."""
    found: list[tuple[str, str]] = []
    for rule in RULES.get(kind, ()):
        value: Any = obj
        for name in rule.path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, dict) and not rule.holds(value):
            found.append((rule.culprit, rule.message))
    return found

"""One rule across fields: the CEL that the API server runs, and its twin in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

JsonObject = dict[str, Any]
Holds = Callable[[Any, Any], bool]

EACH = "[]"
"""Stands in a rule's path for every item of a list."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule.

    `path` is where it is attached (property names from the root, `EACH` for the items of a list); `cel` and `holds`
    say the same about the value there: `holds(value, old)` is called only when the value exists, and that of a
    `transition` only when the old one does too. `field` names the culprit below.
    """

    path: tuple[str, ...]
    cel: str
    message: str
    field: str = ""
    reason: Literal["FieldValueInvalid", "FieldValueForbidden"] = "FieldValueInvalid"
    transition: bool = False
    holds: Holds

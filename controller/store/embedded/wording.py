"""How the API server words its refusals; kept in one place because users and tests read the words."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec

from controller.store.interface import Cause, Resource

_SHOWN = 512
"""Longest value quoted in a message; a 1 MB name must not become a 1 MB message."""


_INT64 = 2**63
NOWHERE = "<nil>"
"""The field of what the server says about no field of its own."""


class FieldFault(msgspec.Struct, frozen=True):
    """One broken rule: the field's path and what is wrong there, with the API's word for the kind of fault."""

    field: str
    reason: str
    body: str

    def __str__(self) -> str:
        """`path: what is wrong`."""
        return f"{self.field}: {self.body}"

    def cause(self) -> Cause:
        """The fault as a cause of a Status."""
        return Cause(self.field, self.reason, self.body)


def go_number(value: float) -> str:
    """A number as Go's %v prints it: integers plainly, floats shortest, as 1e+06 from a million on.

    An integer that no int64 holds is a float there.
    """
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return str(value)
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    size = len(digits) - 1 + int(exponent)
    if -4 <= size < 6 or not any(digits):
        return repr(value).removesuffix(".0")
    rest = "".join(map(str, digits[1:]))
    mantissa = f"{digits[0]}.{rest}" if rest else str(digits[0])
    return f"{'-' * sign}{mantissa}e{'-' if size < 0 else '+'}{abs(size):02d}"


def shown(value: Any) -> str:
    """A value as a message shows it: strings quoted, numbers as Go prints them, long ones cut."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return go_number(value)
    if value is None:
        return "null"
    text = msgspec.json.encode(value).decode()
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}... ({len(text)} characters)"


def invalid(field: str, value: Any, detail: str) -> FieldFault:
    """A value that breaks a rule."""
    return FieldFault(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {detail}")


def wrong_type(field: str, wanted: str, found: str) -> FieldFault:
    """A value of the wrong JSON type."""
    detail = f'{field} in body must be of type {wanted}: "{found}"'
    return FieldFault(field, "FieldValueTypeInvalid", f'Invalid value: "{found}": {detail}')


def not_whole(field: str) -> FieldFault:
    """What the server adds about a number where an integer is due: it checks the format by itself."""
    detail = f"Checked value must be of type integer (default format) in {field}"
    return FieldFault(NOWHERE, "FieldValueInvalid", f'Invalid value: "": {detail}')


def required(field: str) -> FieldFault:
    """A field that must be there and is not."""
    return FieldFault(field, "FieldValueRequired", "Required value")


def unsupported(field: str, value: Any, allowed: list[str]) -> FieldFault:
    """A value outside an enumeration."""
    words = ", ".join(f'"{word}"' for word in allowed)
    return FieldFault(
        field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {words}"
    )


def too_long(field: str, most: int) -> FieldFault:
    """A string longer than its bound."""
    return FieldFault(field, "FieldValueTooLong", f"Too long: may not be more than {most} bytes")


def too_many(field: str, count: int, most: int) -> FieldFault:
    """A list or map with more entries than its bound."""
    return FieldFault(field, "FieldValueTooMany", f"Too many: {count}: must have at most {most} items")


def duplicate(field: str, value: Any) -> FieldFault:
    """An item whose key another item has already."""
    return FieldFault(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def forbidden(field: str, detail: str) -> FieldFault:
    """A change that is not allowed."""
    return FieldFault(field, "FieldValueForbidden", f"Forbidden: {detail}")


RULES_LEFT_OUT = FieldFault(
    NOWHERE,
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
    "existing errors to complete validation",
)
_BLOCKING = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)


def blocks_rules(faults: list[FieldFault]) -> bool:
    """Whether the server, after such faults, does not even look at the rules across fields."""
    return any(fault.reason in _BLOCKING for fault in faults)


def is_invalid(resource: Resource, name: str, faults: list[FieldFault]) -> str:
    """The sentence for an object with one or several faults."""
    texts = list(dict.fromkeys(str(fault) for fault in faults))
    what = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return f"{resource.qualified_kind} {shown(name)} is invalid: {what}"


def not_found(resource: Resource, name: str) -> str:
    """The sentence for an absent object."""
    return f'{resource.qualified} "{name}" not found'


def already_exists(resource: Resource, name: str) -> str:
    """The sentence for a name that is taken."""
    return f'{resource.qualified} "{name}" already exists'


def cannot_fulfil(resource: Resource, name: str, why: str) -> str:
    """The sentence of a conflict."""
    return f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'


MODIFIED_MEANWHILE = (
    "the object has been modified; please apply your changes to the latest version and try again"
)

"""Objects as tables for people: the printer columns of their kind, coloured where a word is a state."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from console.kinds import columns_of
from console.telling import coloured
from controller.resources.kinds import Column
from controller.store.interface import JsonObject, Resource

_PART = re.compile(r"\[([^\]]+)\]|([^.\[]+)")
_STATES = {"Phase", "Ready", "Type"}
LONGEST_CELL = 160


def value_at(obj: JsonObject, path: str) -> Any:
    """The value at `.a.b`, `.a.[dotted.key]` or, of a list of conditions, `.conditions[Ready]`; None without one."""
    value: Any = obj
    for keyed, plain in _PART.findall(path):
        if isinstance(value, list):
            value = next(
                (each for each in value if isinstance(each, dict) and each.get("type") == keyed), None
            )
        elif isinstance(value, dict):
            value = value.get(keyed or plain)
        else:
            return None
    return value


def age(text: str, now_seconds: float) -> str:
    """An RFC 3339 time as the time since: 12s, 5m, 3h, 9d."""
    try:
        seconds = now_seconds - datetime.fromisoformat(text).timestamp()
    except ValueError:
        return "?"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def cell(column: Column, obj: JsonObject, now_seconds: float) -> str:
    """One cell, safe for markup."""
    value = value_at(obj, column.path)
    if value is None or value == "":
        return "[dim]-[/dim]"
    if column.type == "date":
        return age(str(value), now_seconds)
    if column.type == "number" and isinstance(value, int | float):
        return f"{value:,.2f}"
    text = str(value)
    shown = text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"
    return coloured(shown) if column.name in _STATES else escape(shown)


def _names(resource: Resource) -> tuple[str, ...]:
    """What tells an object from others; an event is known by what it is about."""
    if resource.kind == "Event":
        return ("namespace",)
    return ("namespace", "name") if resource.namespaced else ("name",)


def table_of(resource: Resource, objects: Iterable[JsonObject], now_seconds: float, *, wide: bool) -> Table:
    """A table with one row an object."""
    columns = [column for column in columns_of(resource) if wide or not column.wide]
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    names = _names(resource)
    for name in names:
        made.add_column(name, no_wrap=True)
    for column in columns:
        number = column.type in {"integer", "number"}
        made.add_column(
            column.name.lower(),
            justify="right" if number else "left",
            no_wrap=number or column.type == "date" or column.name in _STATES,
            overflow="fold",
        )
    for obj in objects:
        meta = obj["metadata"]
        made.add_row(
            *(escape(meta.get(name, "")) for name in names),
            *(cell(column, obj, now_seconds) for column in columns),
        )
    return made

"""`plimsoll policies`: every policy there is, what it decides, its settings with defaults and meaning."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec
from rich.markup import escape
from rich.table import Table

from console.telling import chosen, one_sentence, people, print_json
from policies.registry import DEFAULTS, TABLES, Row

_NAMED = re.compile(r"((?:`[a-z_]+`(?:,\s+)?)+):\s")


class Setting(msgspec.Struct, frozen=True):
    """One field of a policy's configuration."""

    name: str
    type: str
    default: Any
    about: str


class Listed(msgspec.Struct, frozen=True):
    """One policy as it is listed. `about` is the first sentence of its module."""

    loop: str
    name: str
    default: bool
    about: str
    settings: tuple[Setting, ...]


def run_policies(loop: str, output: str) -> int:
    """List the registry, or one loop of it."""
    with one_sentence():
        chosen("output", output, ("table", "json"))
        if loop:
            chosen("loop", loop, TABLES)
        found = listed(loop)
        if output == "json":
            print_json(msgspec.to_builtins(found))
        else:
            for each in found:
                _show(each)
            people().print(
                "\nChoose one in a manifest: [cyan]policies: {scale: {name: hpa, config: {target: 0.7}}}[/cyan], or for "
                "the whole cluster in the operator's --config."
            )
    return 0


def listed(loop: str = "") -> tuple[Listed, ...]:
    """Every policy, in the registry's order."""
    return tuple(
        Listed(each, name, DEFAULTS[each] == name, _first_sentence(row), settings_of(row))
        for each, rows in TABLES.items()
        if loop in {"", each}
        for name, row in rows.items()
    )


def settings_of(row: Row) -> tuple[Setting, ...]:
    """The fields of a policy's configuration, with what its docstring says of each."""
    told: dict[str, str] = {}
    for kind in reversed(row.config.__mro__):  # one policy's settings may be another's and more
        told |= _told(inspect.cleandoc(kind.__dict__.get("__doc__") or ""))
    info = msgspec.inspect.type_info(row.config)
    fields = info.fields if isinstance(info, msgspec.inspect.StructType) else ()
    return tuple(
        Setting(
            field.name,
            _type(field.type),
            None if field.default is msgspec.NODEFAULT else field.default,
            told.get(field.name, ""),
        )
        for field in fields
    )


def _told(doc: str) -> dict[str, str]:
    """What a docstring of the form "`a`: meaning. `b`, `c`: meaning." says of each name."""
    parts = _NAMED.split(" ".join(doc.split()) + " ")
    return {
        name: text.strip()
        for names, text in zip(parts[1::2], parts[2::2], strict=True)
        for name in re.findall(r"`([a-z_]+)`", names)
    }


def _type(kind: msgspec.inspect.Type) -> str:
    """A field's type with its bounds: `number > 0`."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return " or ".join(_type(each) for each in kind.types)
    words = {"FloatType": "number", "IntType": "integer", "BoolType": "true or false", "StrType": "text"}
    word = words.get(type(kind).__name__, type(kind).__name__.removesuffix("Type").lower())
    for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
        bound = getattr(kind, name, None)
        if bound is not None:
            word += f" {sign} {bound:g}"
    return word


def _first_sentence(row: Row) -> str:
    module = inspect.getdoc(inspect.getmodule(row.policy)) or ""
    return re.split(r"(?<=\.)\s", " ".join(module.split()), maxsplit=1)[0][:300]


def _show(each: Listed) -> None:
    console = people()
    mark = " [green](default)[/green]" if each.default else ""
    console.print(f"\n[bold]{each.loop}[/bold]  [cyan]{each.name}[/cyan]{mark}")
    console.print(f"  {escape(each.about)}")
    if not each.settings:
        return
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("setting", "type", "default", "meaning"):
        table.add_column(name)
    for setting in each.settings:
        table.add_row(setting.name, setting.type, f"{setting.default}", escape(setting.about))
    console.print(table)

"""The reference page of our kinds, written from the same schemas that the API server gets.

`make crds` writes it beside the definitions; a test fails when it is stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controller.resources.base import API_VERSION, DATE_PATTERN
from controller.resources.kinds import KINDS, Kind
from controller.resources.rule import EACH
from controller.resources.rules import RULES
from controller.resources.schema import Schema, schema_of

PAGE = Path("docs/reference/resources.md")
"""Where the page is, from the root of the checkout."""

_HEAD = f"""# Custom resources

Five kinds of `{API_VERSION}`; `kubectl get plimsoll -A` lists them all, and `kubectl explain` says what stands
here. How to work with them: [With kubectl](../tasks/with-kubectl.md). Ready to apply:
[examples](../../examples/README.md).

The API server refuses what does not fit, with a sentence. What one object cannot show (a power domain in a cycle, a
product that no AcceleratorClass describes) is told in the condition `Accepted`, and the safe state stays in force.
Objects of one kind are told apart by their name; names of ModelServices and TrainingJobs begin with a letter.

This page is made by `make crds`.
"""


def resources_page() -> str:
    """The whole page, Markdown."""
    index = "\n".join(
        f"- [{kind.resource.kind}](#{kind.resource.kind.lower()}): {schema_of(kind.resource.kind)['description']}"
        for kind in KINDS
    )
    return f"{_HEAD}\n{index}\n" + "".join(_section(kind) for kind in KINDS)


def _section(kind: Kind) -> str:
    resource, schema = kind.resource, schema_of(kind.resource.kind)
    facts = [
        "namespaced" if resource.namespaced else "of the cluster",
        f"short name `{kind.short_names[0]}`",
        f"names of at most {kind.name_limit or 253} characters",
        *(["`kubectl scale` and an HPA write `spec.replicas`"] if resource.scale else []),
    ]
    said = "; ".join(facts)
    parts = [f"\n## {resource.kind}\n\n{schema['description']}", f"{said[0].upper()}{said[1:]}."]
    shown = {name: schema["properties"][name] for name in ("spec", "status") if name in schema["properties"]}
    parts += [_table(name, part) for name, part in shown.items()]
    if rules := RULES.get(resource.kind):
        parts.append("Rules across fields:")
        parts.append("\n".join(f"- {_where(rule.path, rule.field)}{rule.message}." for rule in rules))
    columns = ", ".join(f"{column.name}{' (wide)' if column.wide else ''}" for column in kind.columns)
    parts.append(f"`kubectl get` shows {columns}.")
    parts.append(f"`--field-selector` knows {', '.join(f'`{path}`' for path in resource.selectable)}.")
    return "\n\n".join(parts) + "\n"


def _where(path: tuple[str, ...], field: str) -> str:
    name = "".join(EACH if step == EACH else f".{step}" for step in path) + field
    return f"`{name.removeprefix('.')}`: " if name else ""


def _table(name: str, schema: Schema) -> str:
    head = f"### `{name}`\n\n| field | type | default | meaning |\n|---|---|---|---|"
    rows = [
        f"| `{path}` | {_type(part)} | {_default(part, required)} | {_cell(part.get('description', ''))} |"
        for path, part, required in _fields(schema, name)
    ]
    return "\n".join([head, *rows])


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Every field below, outer ones first; a list's items stand behind `[]`."""
    if path.endswith(".conditions"):
        return  # the same everywhere, and in the form all of Kubernetes uses
    inner = schema.get("items", schema)
    at = f"{path}[]" if "items" in schema else path
    for name, part in inner.get("properties", {}).items():
        yield f"{at}.{name}", part, name in inner.get("required", ())
        yield from _fields(part, f"{at}.{name}")


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{word}`" for word in schema["enum"])
    kind = schema["type"]
    if kind == "array":
        return f"at most {schema['maxItems']:,} × {_type(schema['items'])}"
    if kind == "object" and "additionalProperties" in schema:
        return f"at most {schema['maxProperties']} × name: {_type(schema['additionalProperties'])}"
    if kind in {"integer", "number"}:
        return _range(schema)
    if kind == "string":
        date = schema.get("pattern") == DATE_PATTERN
        return "day, YYYY-MM-DD" if date else f"text, at most {schema['maxLength']:,}"
    return str(kind)


def _range(schema: Schema) -> str:
    low = "above " if schema.get("exclusiveMinimum") else ""
    high = "below " if schema.get("exclusiveMaximum") else ""
    largest = "" if schema["maximum"] >= 2**53 - 1 else f" to {high}{_number(schema['maximum'])}"
    return f"{schema['type']}, {low}{_number(schema['minimum'])}{largest or ' and more'}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    value: Any = schema.get("default")
    if value is None or value == {}:
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

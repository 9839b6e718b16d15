"""Structural OpenAPI v3 schemas and CustomResourceDefinitions, generated from the Python types.

One source for both worlds: the embedded store validates with the very schema that the API server gets.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from controller.resources.base import CATEGORY, GROUP, POLICY_LOOP, VERSION
from controller.resources.kinds import BY_KIND, Column, Kind
from controller.resources.rule import EACH, Rule
from controller.resources.rules import RULES
from policies.registry import TABLES

Schema = dict[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_API_VERSION = "Version of the schema of this object; the server may refuse versions it does not know."
_KIND = "The kind of this object, in CamelCase; it cannot change."


@cache
def schema_of(kind: str) -> Schema:
    """The structural schema of one of our kinds, by its name. Shared: do not change it.

    Raises `KeyError` for a kind that is not ours.
    """
    known = BY_KIND[kind]
    info = inspect.type_info(known.type)
    assert isinstance(info, inspect.StructType)  # noqa: S101 - Kind.type is a Struct
    properties: Schema = {
        "apiVersion": {"description": _API_VERSION, "type": "string"},
        "kind": {"description": _KIND, "type": "string"},
        "metadata": _metadata(known),
    }
    required = []
    for field in info.fields:
        if field.encode_name not in {"spec", "status"}:
            continue
        properties[field.encode_name] = _of(field.type, defaults=field.encode_name == "spec")
        if field.required:
            required.append(field.encode_name)
    schema: Schema = {"description": _doc(info.cls), "type": "object", "properties": properties}
    if required:
        schema["required"] = required
    for rule in RULES.get(kind, ()):
        _add_rule(schema, rule)
    return schema


def crd(kind: Kind) -> Schema:
    """The CustomResourceDefinition of a kind, ready for the API server."""
    resource = kind.resource
    subresources: Schema = {"status": {}} if resource.has_status else {}
    if resource.scale:
        subresources["scale"] = {
            "specReplicasPath": "." + resource.scale.spec_replicas,
            "statusReplicasPath": "." + resource.scale.status_replicas,
            "labelSelectorPath": "." + resource.scale.selector,
        }
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": schema_of(resource.kind)},
        "subresources": subresources,
    }
    if resource.selectable:
        version["selectableFields"] = [{"jsonPath": "." + path} for path in resource.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.qualified},
        "spec": {
            "group": GROUP,
            "names": {
                "categories": [CATEGORY],
                "kind": resource.kind,
                "listKind": resource.kind + "List",
                "plural": resource.plural,
                "shortNames": list(kind.short_names),
                "singular": resource.kind.lower(),
            },
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _metadata(kind: Kind) -> Schema:
    """The server lets a schema say nothing about metadata but the bounds of the name."""
    name: Schema = {"type": "string"}
    if kind.name_limit:
        name["maxLength"] = kind.name_limit
    if kind.name_pattern:
        name["pattern"] = kind.name_pattern
    return {"type": "object", "properties": {"name": name}} if len(name) > 1 else {"type": "object"}


def _column(column: Column) -> Schema:
    entry: Schema = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    if column.wide:
        entry["priority"] = 1
    return entry


def _add_rule(schema: Schema, rule: Rule) -> None:
    target = schema
    for name in rule.path:
        target = target["items"] if name == EACH else target["properties"][name]
    entry: Schema = {"rule": rule.cel, "message": rule.message}
    if rule.field:
        entry["fieldPath"] = rule.field
    if rule.reason != "FieldValueInvalid":
        entry["reason"] = rule.reason
    target.setdefault("x-kubernetes-validations", []).append(entry)


def _doc(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split())


def _of(node: inspect.Type, *, defaults: bool) -> Schema:
    """The schema of one type. `defaults` is off in status: nobody but its owner fills that in."""
    if isinstance(node, inspect.Metadata):
        extra = dict(node.extra_json_schema or {})
        loop = extra.pop(POLICY_LOOP, "")
        inner = _of(node.type, defaults=defaults)
        if loop in TABLES:
            inner["properties"]["name"]["enum"] = sorted(TABLES[loop])
        return {**inner, **extra}
    if isinstance(node, inspect.UnionType):
        (only,) = (kind for kind in node.types if not isinstance(kind, inspect.NoneType))
        return _of(only, defaults=defaults)
    if isinstance(node, inspect.StructType):
        return _struct(node, defaults=defaults)
    if isinstance(node, inspect.ListType):
        array: Schema = {"type": "array", "items": _of(node.item_type, defaults=defaults)}
        return _bounded(array, node, {"max_length": "maxItems", "min_length": "minItems"})
    if isinstance(node, inspect.DictType):
        return _dict(node, defaults=defaults)
    return _scalar(node)


def _dict(node: inspect.DictType, *, defaults: bool) -> Schema:
    if isinstance(node.value_type, inspect.AnyType):
        mapping: Schema = {"type": "object", _PRESERVE: True}
    else:
        mapping = {"type": "object", "additionalProperties": _of(node.value_type, defaults=defaults)}
    return _bounded(mapping, node, {"max_length": "maxProperties", "min_length": "minProperties"})


def _scalar(node: inspect.Type) -> Schema:
    if isinstance(node, inspect.StrType):
        names = {"max_length": "maxLength", "min_length": "minLength", "pattern": "pattern"}
        return _bounded({"type": "string"}, node, names)
    if isinstance(node, inspect.IntType):
        return _range({"type": "integer"}, node)
    if isinstance(node, inspect.FloatType):
        return _range({"type": "number"}, node)
    if isinstance(node, inspect.BoolType):
        return {"type": "boolean"}
    if isinstance(node, inspect.LiteralType):
        return {"type": "string", "enum": _declared(node)}
    raise TypeError(f"{node!r} has no structural schema; use a bounded string, number, list, map or Struct")


def _declared(node: inspect.LiteralType) -> list[str]:
    """The words of a Literal in a fixed order: msgspec sorts them, and so the messages are stable."""
    return [str(value) for value in node.values]


def _bounded(schema: Schema, node: inspect.Type, names: dict[str, str]) -> Schema:
    for attribute, keyword in names.items():
        value = getattr(node, attribute)
        if value is not None:
            schema[keyword] = value
    return schema


def _range(schema: Schema, node: inspect.IntType | inspect.FloatType) -> Schema:
    low, high = (node.ge if node.ge is not None else node.gt), (node.le if node.le is not None else node.lt)
    if low is not None:
        schema["minimum"] = low
    if node.gt is not None:
        schema["exclusiveMinimum"] = True
    if high is not None:
        schema["maximum"] = high
    if node.lt is not None:
        schema["exclusiveMaximum"] = True
    return schema


def _struct(node: inspect.StructType, *, defaults: bool) -> Schema:
    properties: Schema = {}
    required: list[str] = []
    for field in node.fields:
        properties[field.encode_name] = schema = _of(field.type, defaults=defaults)
        if field.required:
            required.append(field.encode_name)
        elif defaults:
            _add_default(schema, field)
    result: Schema = {"type": "object", "description": _doc(node.cls), "properties": properties}
    if required:
        result["required"] = required
    return result


def _add_default(schema: Schema, field: inspect.Field) -> None:
    """State a default that says something: empty values are as good as absent ones."""
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if isinstance(value, msgspec.Struct):
        if any("default" in inner for inner in schema["properties"].values()):
            schema["default"] = {}
    elif value is not None and value not in ("", [], {}):
        schema["default"] = value

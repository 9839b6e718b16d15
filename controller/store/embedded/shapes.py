"""How server-side apply sees an object: which maps are merged, which lists are keyed, which are one value."""

from __future__ import annotations

from typing import Any

import msgspec

Element = str | tuple[str, Any]
"""One step of a path: a field's name, `("k", ((key, value), ...))` for an item of a keyed list, or
`("v", value)` for a member of a set."""

Path = tuple[Element, ...]


class Shape(msgspec.Struct, frozen=True):
    """The merge behaviour of one value. `kind` applies to lists; maps always merge field by field.

    A key that an item does not give has its default from `assumed`, as the schema will fill it in.
    """

    kind: str = "atomic"
    keys: tuple[str, ...] = ()
    fields: dict[str, Shape] = {}
    item: Shape | None = None
    assumed: dict[str, Any] = {}

    def below(self, name: str) -> Shape:
        """The shape of a field; what is not declared merges as maps and replaces lists."""
        return self.fields.get(name) or self.item or UNTYPED


UNTYPED = Shape()


def keyed(*keys: str, item: Shape = UNTYPED) -> Shape:
    """A list whose items are told apart by these fields."""
    return Shape("map", keys, {}, item)


METADATA = Shape(fields={"ownerReferences": keyed("uid"), "finalizers": Shape("set")})

_CONTAINER = Shape(
    fields={
        "env": keyed("name"),
        "ports": keyed("containerPort", "protocol"),
        "volumeMounts": keyed("mountPath"),
    }
)
_POD_SPEC = Shape(
    fields={
        "containers": keyed("name", item=_CONTAINER),
        "initContainers": keyed("name", item=_CONTAINER),
        "volumes": keyed("name"),
        "schedulingGates": keyed("name"),
    }
)
_CONDITIONS = Shape(fields={"conditions": keyed("type")})

CORE_SHAPES: dict[str, Shape] = {
    "Pod": Shape(fields={"metadata": METADATA, "spec": _POD_SPEC, "status": _CONDITIONS}),
    "Node": Shape(fields={"metadata": METADATA, "status": _CONDITIONS}),
    "Service": Shape(
        fields={
            "metadata": METADATA,
            "spec": Shape(fields={"ports": keyed("port", "protocol")}),
            "status": _CONDITIONS,
        }
    ),
}
"""Keyed lists of the kinds of Kubernetes itself, as far as the operator or the fleet writes them."""

PLAIN = Shape(fields={"metadata": METADATA})
"""Any other kind: metadata as always, everything else merges as maps."""


def from_schema(schema: dict[str, Any]) -> Shape:
    """The shape that a structural schema declares through its x-kubernetes-list-* words."""
    shape = _of(schema)
    return Shape(shape.kind, shape.keys, {**shape.fields, "metadata": METADATA}, shape.item)


def _of(schema: dict[str, Any]) -> Shape:
    if schema.get("type") == "array":
        kind = schema.get("x-kubernetes-list-type", "atomic")
        keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
        inner = schema["items"].get("properties", {})
        assumed = {key: inner[key]["default"] for key in keys if "default" in inner.get(key, {})}
        return Shape(kind, keys, {}, _of(schema["items"]), assumed)
    fields = {name: _of(part) for name, part in schema.get("properties", {}).items()}
    rest = schema.get("additionalProperties")
    return Shape("atomic", (), fields, _of(rest) if isinstance(rest, dict) else None)

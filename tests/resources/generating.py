"""Objects of our kinds drawn from their schemas: sound ones, and sound ones with one thing changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from controller.resources.base import API_VERSION, PRECISIONS
from controller.resources.kinds import BY_KIND
from controller.resources.schema import schema_of
from tests.resources.mending import mend_pod

Json = dict[str, Any]
Place = tuple[Any, Any, Json]
"""A container, the key or index in it, and the schema of what stands there."""

MOST = 3
NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?", fullmatch=True)


def sound(kind: str) -> st.SearchStrategy[Json]:
    """Objects that every store must take: they fit the schema, and the rules across fields."""
    schema = schema_of(kind)
    meta: Json = {"namespace": "default"} if BY_KIND[kind].resource.namespaced else {}
    head = {"apiVersion": API_VERSION, "kind": kind}
    spec = values(schema["properties"]["spec"]) if "spec" in schema["properties"] else st.none()
    made = st.tuples(NAMES, spec).map(
        lambda drawn: (
            {**head, "metadata": {"name": drawn[0], **meta}} | ({"spec": drawn[1]} if drawn[1] else {})
        )
    )
    return made.map(lambda obj: mend(kind, obj))


def statuses(kind: str) -> st.SearchStrategy[Json]:
    """Statuses that fit the schema. An attempt never goes back, so it is left out."""
    found = values(schema_of(kind)["properties"]["status"])
    return found.map(lambda status: {key: value for key, value in status.items() if key != "attempt"})


def values(schema: Json) -> st.SearchStrategy[Any]:
    """Values that fit a schema."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "object":
        return _maps(schema)
    if kind == "array":
        return _lists(schema)
    if kind == "string":
        return _texts(schema)
    if kind == "boolean":
        return st.booleans()
    low, high = schema["minimum"], schema["maximum"]
    if kind == "integer":
        return st.integers(int(low), int(high)) | st.sampled_from([int(low), int(high)])
    return st.floats(
        low, high, exclude_min=bool(schema.get("exclusiveMinimum")), exclude_max=bool(schema.get("exclusiveMaximum")),
        allow_nan=False, allow_subnormal=False,
    )  # fmt: skip


def _texts(schema: Json) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema["maxLength"]
    if pattern := schema.get("pattern"):
        drawn = st.from_regex(pattern.removesuffix("$") + r"\Z", alphabet=st.characters(codec="ascii"))
        return drawn.filter(lambda text: least <= len(text) <= most)
    return st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=least, max_size=min(most, 12))


def _lists(schema: Json) -> st.SearchStrategy[list[Any]]:
    items, keys = schema["items"], schema.get("x-kubernetes-list-map-keys", [])
    most = min(MOST, schema["maxItems"])
    if keys:
        assumed = {key: items["properties"][key].get("default") for key in keys}
        return st.lists(
            values(items), max_size=most, unique_by=lambda item: tuple(item.get(k, assumed[k]) for k in keys)
        )
    return st.lists(values(items), max_size=most, unique=schema.get("x-kubernetes-list-type") == "set")


def _maps(schema: Json) -> st.SearchStrategy[Json]:
    if "properties" in schema:
        parts = {name: values(part) for name, part in schema["properties"].items()}
        required = {name: parts.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(required, optional=parts)
    if "additionalProperties" in schema:
        return st.dictionaries(
            NAMES,
            values(schema["additionalProperties"]),
            min_size=schema.get("minProperties", 0),
            max_size=MOST,
        )
    return st.dictionaries(
        NAMES, st.none() | st.booleans() | st.integers(0, 9) | st.lists(NAMES, max_size=2), max_size=MOST
    )


def mend(kind: str, obj: Json) -> Json:
    """The object with what rules across fields forbid put right."""
    obj = copy.deepcopy(obj)
    if kind in _MENDERS:
        _MENDERS[kind](obj)
    return obj


def _mend_service(obj: Json) -> None:
    spec = obj["spec"]
    mend_pod(spec)
    low, high = spec.get("minReplicas", 0), spec.get("maxReplicas", 1_000)
    spec |= {"minReplicas": min(low, high), "maxReplicas": max(low, high)}
    for variant in spec.get("variants", []):
        if spec.get("accelerators"):
            variant["accelerator"] = spec["accelerators"][0]
        if variant.get("gpuMilli", 1_000) < 1_000:
            variant["gpus"] = 1
    seen = {
        (v["accelerator"], v.get("gpus", 1), v.get("gpuMilli", 1_000), v.get("precision", "bf16")): v
        for v in spec.get("variants", [])
    }
    if "variants" in spec:
        spec["variants"] = list(seen.values())
    model = spec["model"]
    if ("kvHeads" in model) != ("headDim" in model):
        model |= {"kvHeads": 8, "headDim": 128}
    if "expectedLoad" in spec:
        spec["expectedLoad"]["inputTokens"] = max(1.0, spec["expectedLoad"].get("inputTokens", 1.0))
    if spec.get("hold", {}).get("maxRequests", 1):
        hold = spec.get("hold", {})
        hold |= {name: max(1, hold[name]) for name in ("maxBytes", "deadlineSeconds") if name in hold}


def _mend_job(obj: Json) -> None:
    spec = obj["spec"]
    mend_pod(spec)
    nodes = spec.get("nodes", {})
    if "max" in nodes:
        low, high = nodes.get("min", 1), nodes["max"]
        nodes |= {"min": min(low, high), "max": max(low, high)}
    micro = spec.get("microBatch", 1)
    spec["globalBatch"] = max(micro, spec["globalBatch"] // micro * micro)
    saves = spec.get("checkpoint", {})
    if saves.get("secondsToWrite", 5.0) >= saves.get("intervalSeconds", 600.0):
        saves |= {"secondsToWrite": 0.5, "intervalSeconds": 2.5}


def _mend_product(obj: Json) -> None:
    spec = obj["spec"]
    low, safe, high = sorted(spec[name] for name in ("minWatts", "safeWatts", "maxWatts"))
    spec |= {
        "minWatts": low,
        "safeWatts": safe,
        "maxWatts": high,
        "tdpWatts": min(high, max(low, spec["tdpWatts"])),
    }
    spec["flops"] = dict(zip(sorted(PRECISIONS), spec["flops"].values(), strict=False))
    if "clocksMhz" in spec:
        spec["clocksMhz"] = sorted(spec["clocksMhz"])


def _mend_domain(obj: Json) -> None:
    spec = obj["spec"]
    if spec.get("parent") == obj["metadata"]["name"]:
        del spec["parent"]
    selector = spec.get("members", {}).get("selector")
    if selector is None:
        return
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        selector["matchLabels"] = {"row": "a"}
    for need in selector.get("matchExpressions", []):
        if need["operator"] in {"In", "NotIn"}:
            need["values"] = need.get("values") or ["a"]
        else:
            need.pop("values", None)


_MENDERS: dict[str, Callable[[Json], None]] = {
    "ModelService": _mend_service,
    "TrainingJob": _mend_job,
    "AcceleratorClass": _mend_product,
    "PowerDomain": _mend_domain,
}


@st.composite
def spoilt(draw: st.DrawFn, kind: str) -> Json:
    """A sound object with one thing in its specification changed, which may leave it sound."""
    obj = draw(sound(kind))
    schema = schema_of(kind)["properties"]
    places = list(_places(obj, "spec", schema.get("spec", {}))) if "spec" in obj else []
    places.append((obj["metadata"], "name", {"type": "string", "maxLength": 40}))
    container, key, part = draw(st.sampled_from(places))
    change = draw(st.sampled_from(_changes(part)))
    if change == "gone":
        del container[key]
    elif change == "strange":
        container["strangeField" if isinstance(container, dict) else 0] = 1
    elif change == "twice":
        container[key] = [*container[key], *copy.deepcopy(container[key][:1])]
    elif change == "many":
        container[key] = (container[key] or [draw(values(part["items"]))]) * (part["maxItems"] + 1)
    else:
        container[key] = change
    return obj


def _changes(schema: Json) -> list[Any]:
    kind = schema.get("type", "object")
    found: list[Any] = ["gone", "strange", None, True, 1.5, -1, "", "Two Words", [], {}, [1.5], {"a": 1}]
    if kind in {"integer", "number"}:
        found += [
            schema["minimum"] - 1,
            schema["maximum"] * 2 + 1,
            schema["minimum"],
            schema["maximum"],
            10**30,
        ]
    elif kind == "string" and "maxLength" in schema:
        found += ["x" * (schema["maxLength"] + 1), "x" * schema["maxLength"], "ü"]
    elif kind == "array":
        found += ["twice"] + (["many"] if schema["maxItems"] <= 64 else [])
    return found


def _places(container: Any, key: Any, schema: Json) -> Iterator[Place]:
    """Every value at or below a place."""
    yield container, key, schema
    value = container[key]
    if isinstance(value, dict):
        for name in value:
            part = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(part, dict):
                yield from _places(value, name, part)
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from _places(value, index, schema["items"])

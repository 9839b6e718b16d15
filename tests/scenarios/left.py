"""What a play leaves, field by field, and in what two plays of it differ: objects, events, the ledger's actions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from controller.observe import labels
from controller.resources import core
from controller.resources.kinds import KINDS
from controller.store.interface import JsonObject, Resource
from tests.scenarios.ignored_paths import IGNORED
from tests.scenarios.mirror import key_of

if TYPE_CHECKING:
    from tests.scenarios.stage import Stage

Left = dict[str, Any]
"""Path to value. A path begins with `objects`, `events` or `actions` and what it is about."""

COMPARED: tuple[Resource, ...] = (core.NODE, core.POD, core.SERVICE, *(kind.resource for kind in KINDS))
KEYS = (("type",), ("key", "effect"), ("name",), ("conditionType",), ("uid",), ("containerPort",), ("port",))
"""Of a list of objects: the fields by which the API merges it, so that the order of its items means nothing."""
OURS = "plimsoll"
TICK_SECONDS = 1
WAITED = re.compile(r"\b(\d+)(?= s after it was bound)")
_IGNORED = [(re.compile(each.pattern), each) for each in IGNORED]


async def left_by(stage: Stage) -> Left:
    """Everything that a play left: the final objects, what was told, and what the ledger says was done."""
    store = stage.cluster.store
    found: dict[str, JsonObject] = {}
    names: dict[str, str] = {}
    for resource in COMPARED:
        ours = f"{labels.MANAGED_BY}={OURS}" if resource == core.SERVICE else ""
        for obj in (await store.list(resource, label_selector=ours)).items:
            name = f"{resource.kind}/{key_of(obj)}"
            found[name] = obj
            names[obj["metadata"]["uid"]] = f"<uid of {name}>"
    left: Left = {}
    for name, obj in found.items():
        left |= {f"objects {name} {path}": value for path, value in fields(_named(obj, names))}
    left |= await _told(stage)
    return left | _done(stage)


def differences(one: Left, other: Left, names: tuple[str, str] = ("embedded", "kube")) -> list[str]:
    """In what two plays differ beyond what may: one line a path."""
    lines = []
    for path in sorted(one.keys() | other.keys()):
        if not same(one.get(path), other.get(path)) and not ignored(path, both=path in one and path in other):
            has = (one.get(path, "nothing"), other.get(path, "nothing"))
            lines.append(f"{path}: {names[0]} has {has[0]!r}, {names[1]} has {has[1]!r}")
    return lines


def same(one: Any, other: Any) -> bool:
    """Equal but for what was waited since a pod's last phase: that is dated by the tick in which its watch told of it, and
    the real API server may tell one tick later.
    """
    if not isinstance(one, str) or not isinstance(other, str):
        return bool(one == other)
    if WAITED.sub("", one) != WAITED.sub("", other):
        return False
    pairs = zip(WAITED.findall(one), WAITED.findall(other), strict=True)
    return all(abs(int(a) - int(b)) <= TICK_SECONDS for a, b in pairs)


def ignored(path: str, *, both: bool) -> str:
    """Why a path may differ (`both`: both have it); empty for one that may not."""
    found = (each for pattern, each in _IGNORED if pattern.search(path))
    return next((each.why for each in found if both or each.absent), "")


def fields(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """Every leaf of a JSON value with its path; items of lists that are maps by their keys."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            escaped = f"[{name}]" if "." in name or "/" in name else f".{name}"
            yield from fields(inner, f"{path}{escaped}")
    elif isinstance(value, list) and value:
        for mark, inner in _items(value):
            yield from fields(inner, f"{path}[{mark}]")
    else:
        yield path, value


def _items(value: list[Any]) -> Iterable[tuple[str, Any]]:
    for keys in KEYS:
        if all(isinstance(item, dict) and keys[0] in item for item in value):
            marks = [",".join(str(item.get(key, "")) for key in keys) for item in value]
            if len(set(marks)) == len(marks):
                return zip(marks, value, strict=True)
    return ((str(index), item) for index, item in enumerate(value))


def _named(obj: JsonObject, names: Mapping[str, str]) -> JsonObject:
    """The object with every uid of another one as that one's name; JSON in texts included."""
    text = msgspec.json.encode(obj).decode()
    for uid, name in names.items():
        text = text.replace(uid, name)
    named: JsonObject = msgspec.json.decode(text)
    return named


async def _told(stage: Stage) -> Left:
    """Events of the operator by what they are about, with their words and how often each was told."""
    told: Counter[str] = Counter()
    for event in await stage.events():
        if event.get("source", {}).get("component") != OURS:
            continue
        about = event["involvedObject"]
        subject = f"{about['kind']}/{about.get('namespace', '')}/{about['name']}"
        told[f"events {subject} {event['reason']} {event['type']}"] += 1
    return dict(told)


def _done(stage: Stage) -> Left:
    """The ledger's actions by kind and subject, with their outcomes and how often each was."""
    ledger = stage.cluster.ledger
    assert ledger is not None
    assert ledger.flush(force=True)
    done: Counter[str] = Counter()
    for line in ledger.reader.decision_log():
        row = msgspec.json.decode(line)
        if row["table"] == "actuations":
            subject = f"{row['subject_kind']}/{row['subject_name']}"
            done[f"actions {subject} {row['kind']} {row['outcome']} {row['code']}".rstrip()] += 1
    return dict(done)

"""Who owns which field: the part of managedFields that decides conflicts of server-side apply.

One set of paths per (manager, operation, subresource), kept beside the object rather than in it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from controller.store.embedded import fields
from controller.store.embedded.shapes import Path, Shape
from controller.store.interface import Cause, JsonObject


class Manager(msgspec.Struct, frozen=True):
    """One manager of fields. `operation` is Apply or Update, `subresource` "" or "status"."""

    name: str
    operation: str
    subresource: str = ""


Owners = dict[Manager, frozenset[Path]]
"""Never changed in place: each new version of an object has its own."""

_SERVER_META = frozenset({
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "selfLink", "managedFields", "generateName",
})  # fmt: skip


def owned_part(obj: JsonObject, subresource: str, has_status: bool) -> JsonObject:
    """The part of an object whose fields have managers: not identity, and only one side of status."""
    part: JsonObject = {}
    for name, value in obj.items():
        if name in {"apiVersion", "kind"} or (has_status and (name == "status") != (subresource == "status")):
            continue
        if name == "metadata":
            meta = {key: entry for key, entry in value.items() if key not in _SERVER_META}
            if meta:
                part[name] = meta
        else:
            part[name] = value
    return part


def after_update(owners: Owners, who: Manager, old: JsonObject, new: JsonObject, shape: Shape) -> Owners:
    """Ownership after a write that is not an apply: what changed is the writer's, whoever had it before."""
    changed, removed = fields.differences(old, new, shape)
    if not changed and not removed:
        return owners
    lost = changed | removed
    result = _less(owners, lost, keep=who)
    mine = (owners.get(who, frozenset()) - removed) | changed
    if mine:
        result[who] = mine
    else:
        result.pop(who, None)
    return result


def _less(owners: Owners, lost: set[Path], keep: Manager) -> Owners:
    result: Owners = {}
    for manager, paths in owners.items():
        left = paths if manager == keep or paths.isdisjoint(lost) else paths - lost
        if left:
            result[manager] = left
    return result


def apply(
    owners: Owners, who: Manager, live: JsonObject, wanted: JsonObject, shape: Shape
) -> tuple[JsonObject, Owners, dict[Manager, set[Path]]]:
    """Apply `wanted` for `who`: the new object, the new ownership as if forced, and the conflicts.

    Fields that `who` applied before and no longer wants go, unless somebody else owns them too.
    """
    mine = frozenset(fields.leaves(wanted, shape)) if wanted else frozenset()
    merged: JsonObject = fields.merge(live, wanted, shape)
    changed, _ = fields.differences(live, merged, shape)
    conflicts = {
        manager: overlap
        for manager, paths in owners.items()
        if manager != who and (overlap := set(paths & changed))
    }
    given_up = owners.get(who, frozenset()) - mine
    taken = set().union(*conflicts.values()) if conflicts else set()
    result = _less(owners, taken, keep=who)
    others = set().union(*(paths for manager, paths in result.items() if manager != who))
    if given_up - others:
        merged = fields.without(merged, given_up - others, shape, others | mine)
    if mine:
        result[who] = mine
    else:
        result.pop(who, None)
    return merged, result, conflicts


def conflict_message(conflicts: dict[Manager, set[Path]], api_version: str) -> tuple[str, tuple[Cause, ...]]:
    """The server's sentence about conflicts, and one cause per field."""
    rows = [
        (_who(manager, api_version), fields.dotted(path))
        for manager in sorted(conflicts, key=lambda m: (m.name, m.subresource))
        for path in sorted(conflicts[manager], key=fields.dotted)
    ]
    causes = tuple(Cause(path, "FieldManagerConflict", f"conflict with {who}") for who, path in rows)
    if len(rows) == 1:
        return f"Apply failed with 1 conflict: conflict with {rows[0][0]}: {rows[0][1]}", causes
    text = [f"Apply failed with {len(rows)} conflicts:"]
    for who in dict.fromkeys(who for who, _ in rows):
        paths = [path for other, path in rows if other == who]
        listed = "".join(f"\n- {path}" for path in paths)
        text.append(f" conflict{'s' if len(paths) > 1 else ''} with {who}:{listed}")
    return "".join(text), causes


def _who(manager: Manager, api_version: str) -> str:
    part = f' with subresource "{manager.subresource}"' if manager.subresource else ""
    using = f" using {api_version}" if manager.operation == "Update" else ""
    return f'"{manager.name}"{part}{using}'


def managed_fields(owners: Owners) -> list[dict[str, Any]]:
    """Ownership for people: one row a manager, its fields as dotted paths in order."""
    return [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "subresource": manager.subresource,
            "fields": sorted(fields.dotted(path) for path in paths),
        }
        for manager, paths in sorted(owners.items(), key=lambda item: (item[0].name, item[0].operation))
    ]

"""Field sets: which leaves an object has, which of them two objects differ in, merging and removing them.

A small form of the structured merge that server-side apply rests on. Values are plain JSON; nothing here
changes its arguments, and unchanged parts are shared between old and new values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controller.store.embedded.shapes import Path, Shape


def item_key(item: Any, shape: Shape) -> tuple[str, Any]:
    """The path element of an item of a keyed list or of a member of a set."""
    if shape.kind == "map":
        return ("k", tuple((key, item.get(key, shape.assumed.get(key))) for key in shape.keys))
    return ("v", item)


def _is_items(value: Any, shape: Shape) -> bool:
    """True for a list whose items have identities of their own."""
    if not isinstance(value, list):
        return False
    if shape.kind == "set":
        return all(isinstance(item, (str, int)) for item in value)
    return shape.kind == "map" and all(isinstance(item, dict) and _has_key(item, shape) for item in value)


def _has_key(item: dict[str, Any], shape: Shape) -> bool:
    return not any(isinstance(item.get(key), (dict, list)) for key in shape.keys)


def leaves(value: Any, shape: Shape, at: Path = ()) -> set[Path]:
    """Paths of every leaf. An empty map or list is a leaf; an item of a keyed list counts beside its leaves."""
    found: set[Path] = set()
    _collect(value, shape, at, found)
    return found


def _collect(value: Any, shape: Shape, at: Path, found: set[Path]) -> None:
    if isinstance(value, dict) and value:
        for name, entry in value.items():
            _collect(entry, shape.below(name), (*at, name), found)
    elif value and _is_items(value, shape):
        for item in value:
            path = (*at, item_key(item, shape))
            found.add(path)
            if shape.kind == "map" and shape.item is not None:
                _collect(item, shape.item, path, found)
    else:
        found.add(at)


def differences(old: Any, new: Any, shape: Shape) -> tuple[set[Path], set[Path]]:
    """Leaves that `new` has and `old` has not or has otherwise, and leaves that only `old` has."""
    changed: set[Path] = set()
    removed: set[Path] = set()
    _compare(old, new, shape, (), (changed, removed))
    return changed, removed


def _compare(old: Any, new: Any, shape: Shape, at: Path, out: tuple[set[Path], set[Path]]) -> None:
    if old is new or old == new:
        return
    changed, removed = out
    if isinstance(old, dict) and isinstance(new, dict) and old and new:
        for name, entry in new.items():
            if name not in old:
                _collect(entry, shape.below(name), (*at, name), changed)
            else:
                _compare(old[name], entry, shape.below(name), (*at, name), out)
        for name, entry in old.items():
            if name not in new:
                _collect(entry, shape.below(name), (*at, name), removed)
    elif old and new and _is_items(old, shape) and _is_items(new, shape):
        _compare_items(_keyed(old, shape), _keyed(new, shape), shape, at, out)
    else:
        _collect(new, shape, at, changed)
        gone: set[Path] = set()
        _collect(old, shape, at, gone)
        removed |= gone - changed


def _keyed(value: list[Any], shape: Shape) -> dict[Any, Any]:
    return {item_key(item, shape): item for item in value}


def _compare_items(
    old: dict[Any, Any], new: dict[Any, Any], shape: Shape, at: Path, out: tuple[set[Path], set[Path]]
) -> None:
    inner = shape.item or Shape()
    for key, item in new.items():
        if key in old:
            _compare(old[key], item, inner, (*at, key), out)
        else:
            _collect([item], shape, at, out[0])
    for key, item in old.items():
        if key not in new:
            _collect([item], shape, at, out[1])


def merge(live: Any, wanted: Any, shape: Shape) -> Any:
    """`live` with everything that `wanted` says; lists with identities are merged item by item."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        merged = dict(live)
        for name, entry in wanted.items():
            merged[name] = merge(live[name], entry, shape.below(name)) if name in live else entry
        return merged
    if _is_items(live, shape) and _is_items(wanted, shape):
        items = _keyed(live, shape)
        inner = shape.item or Shape()
        for key, item in _keyed(wanted, shape).items():
            items[key] = merge(items[key], item, inner) if key in items and shape.kind == "map" else item
        return list(items.values())
    return wanted


def without(value: Any, paths: Iterable[Path], shape: Shape, kept: set[Path]) -> Any:
    """`value` less the leaves `paths`. An item of a keyed list goes with its own path, unless a leaf of it
    is in `kept` (somebody else's); a map that becomes empty goes too.
    """
    tree: dict[Any, Any] = {}
    for path in sorted(paths, key=len):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node[""] = True
    return _prune(value, tree, shape, (), kept)


_GONE = object()


def _prune(value: Any, tree: dict[Any, Any], shape: Shape, at: Path, kept: set[Path]) -> Any:
    if isinstance(value, dict) and value:
        result = {}
        for name, entry in value.items():
            left = _prune_entry(entry, tree.get(name), shape.below(name), (*at, name), kept)
            if left is not _GONE:
                result[name] = left
        return result
    if value and _is_items(value, shape):
        inner = shape.item or Shape()
        items = []
        for item in value:
            key = item_key(item, shape)
            left = _prune_entry(item, tree.get(key), inner, (*at, key), kept)
            if left is not _GONE:
                items.append(left)
        return items
    return value


def _prune_entry(entry: Any, tree: dict[Any, Any] | None, shape: Shape, at: Path, kept: set[Path]) -> Any:
    if tree is None:
        return entry
    if "" in tree and not any(path[: len(at)] == at for path in kept):
        return _GONE
    below = {key: node for key, node in tree.items() if key != ""}
    left = _prune(entry, below, shape, at, kept) if below else entry
    emptied = left in ({}, []) and entry not in ({}, []) and at not in kept
    return _GONE if emptied else left


def dotted(path: Path) -> str:
    """A path as the server writes it in a conflict: `.spec.replicas`, `.status.conditions[type="Ready"]`."""
    parts = []
    for element in path:
        if isinstance(element, str):
            parts.append(f".{element}")
        elif element[0] == "k":
            keys = ",".join(f'{name}="{value}"' for name, value in element[1])
            parts.append(f"[{keys}]")
        else:
            parts.append(f'[="{element[1]}"]')
    return "".join(parts)

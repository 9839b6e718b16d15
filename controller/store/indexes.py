"""Objects of one kind by other things than their name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic

from controller.store.listing import T


class Indexes(Generic[T]):
    """`indexers` name functions from an object to the values it is to be found under."""

    def __init__(self, indexers: Mapping[str, Callable[[T], Iterable[str]]]) -> None:
        self._indexers = dict(indexers)
        self._found: dict[str, dict[str, dict[str, T]]] = {name: {} for name in self._indexers}

    def by(self, index: str, value: str) -> list[T]:
        """The objects found under a value of an index, by key. Raises `KeyError` for an unknown index."""
        found = self._found[index].get(value, {})
        return [found[key] for key in sorted(found)]

    def put(self, key: str, old: T | None, new: T | None) -> None:
        """One object changed, came (`old` None) or went (`new` None)."""
        for name, indexer in self._indexers.items():
            index = self._found[name]
            for value in indexer(old) if old is not None else ():
                found = index[value]
                found.pop(key, None)
                if not found:
                    del index[value]
            if new is not None:
                for value in indexer(new):
                    index.setdefault(value, {})[key] = new

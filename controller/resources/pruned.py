"""Fields that a user wrote and the API server dropped: without strict validation it prunes what the schema does not know.

The object as it is stored shows nothing of them. `kubectl apply` leaves what was applied in an annotation, and there they are.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import msgspec

from controller.resources.schema import schema_of
from controller.store.embedded.validation import Structural

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
MOST_TOLD = 5
MOST_CHARACTERS = 100_000
"""Of an annotation that is looked at."""


def dropped(kind: str, annotations: dict[str, str]) -> tuple[str, ...]:
    """Paths of what was applied and is no field of the kind; none where nobody applied with kubectl."""
    text = annotations.get(LAST_APPLIED, "")
    return _dropped(kind, text) if 0 < len(text) <= MOST_CHARACTERS else ()


@lru_cache(maxsize=2_048)
def _dropped(kind: str, text: str) -> tuple[str, ...]:
    try:
        applied: Any = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return ()
    if not isinstance(applied, dict) or not isinstance(applied.get("spec"), dict):
        return ()
    return tuple(path for path in _structural(kind).unknown(applied) if path.startswith("spec"))


@cache
def _structural(kind: str) -> Structural:
    return Structural(schema_of(kind))


def words(kind: str, paths: tuple[str, ...]) -> str:
    """The paths as part of a sentence; empty for none."""
    if not paths:
        return ""
    more = f" and {len(paths) - MOST_TOLD} more" if len(paths) > MOST_TOLD else ""
    told = ", ".join(path[:100] for path in paths[:MOST_TOLD])
    return f"{told}{more}: no field of {kind}, so the API server dropped it; take it out"

"""Rules across the fields of one object, checked by the operator too.

An API server refuses such an object by its CEL, so that the operator meets it only where it was stored before the rule
was, or where the store runs no CEL. It is answered with the same sentence.
"""

from __future__ import annotations

from typing import Any

from controller.resources import rules
from controller.resources.base import render


def broken_rules(kind: str, obj: Any) -> list[str]:
    """A sentence for each rule that an object of ours breaks."""
    where = f"{kind} {obj.metadata.key}"
    return [f"{where}: {field}: {sentence}." for field, sentence in rules.broken(kind, render(obj))]

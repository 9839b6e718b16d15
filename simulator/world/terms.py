"""Words that every part of a scenario uses: a policy that was chosen, and what is wrong with a field."""

from __future__ import annotations

from typing import Any

import msgspec


class ScenarioError(ValueError):
    """A scenario that cannot be run: `path` is the field at fault."""

    def __init__(self, path: str, why: str) -> None:
        """`why` goes on after the path."""
        super().__init__(f"{path} {why}")
        self.path = path


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy by its name in the registry, and its settings."""

    name: str
    config: dict[str, Any] = {}

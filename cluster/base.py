"""The base of every noun: a frozen, slotted, garbage-collector-free msgspec struct."""

from __future__ import annotations

import msgspec


class Noun(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Base of all nouns.

    Frozen so that a snapshot can share them by reference; `gc=False` because 50,000 of them would
    otherwise be walked by every full collection; unknown fields are refused so that a capture of
    another version fails loudly instead of being read half.
    """


class Ref(msgspec.Struct, frozen=True, gc=False):
    """Names one object: what it is, and which version of its *intent* was looked at.

    `name` is `namespace/name` for namespaced things. `version` counts changes of the projection we
    decide on, not the API server's resourceVersion, so heartbeats do not make a plan stale.
    """

    kind: str
    name: str
    uid: str = ""
    version: int = 0

    def __str__(self) -> str:
        """Render as `Kind/name`, with `@version` when one is pinned."""
        return f"{self.kind}/{self.name}@{self.version}" if self.version else f"{self.kind}/{self.name}"

"""What became of an action when it was carried out."""

from __future__ import annotations

import msgspec

from cluster.actions import Stamped
from cluster.reasons import Reason


class Outcome(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One action's fate: `done`, `sent` (an acknowledgement will follow), `dropped` or `failed`.

    `drop` says why it was not carried out; `message` is the store's or hub's own sentence on failure.
    """

    stamped: Stamped
    status: str
    drop: Reason | None = None
    message: str = ""

    @property
    def code(self) -> str:
        """The drop code, or the status."""
        return self.drop.code if self.drop is not None else self.status

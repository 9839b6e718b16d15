"""Caches of kinds that a cluster may not serve: absent, they are empty, and cost one request in ten minutes."""

from __future__ import annotations

import logging
from typing import TypeVar

from controller.store.cache import Delta, Reflector
from controller.store.errors import Forbidden, NotFound, StoreError
from controller.store.listing import HasMetadata

log = logging.getLogger("plimsoll.cache")

ABSENT_SECONDS = 600.0
"""How long a kind that is not served is not asked for again."""

T = TypeVar("T", bound=HasMetadata)


class OptionalReflector(Reflector[T]):
    """A reflector that takes "there is no such kind" for an answer: nothing is there, and it counts as synced.

    A kind that the account may not read counts as absent too, with a warning; one that was read before and is
    refused now is not forgotten, as with any other fault.
    """

    absent = False
    """Whether the server did not serve the kind when it was last asked."""
    _asked_again_at = float("-inf")

    async def pump(self) -> list[Delta[T]]:
        """As `Reflector.pump`; the objects of a kind that went away are gone."""
        if self.absent and self._clock.monotonic() < self._asked_again_at:
            return []
        was, self.absent = self.absent, False
        deltas = await super().pump()
        if self.absent and not was:
            deltas += [delta for key in sorted(self.objects) if (delta := self._put(key, None))]
        self.absent = self.absent or (was and not self._listed)
        return deltas

    def _disturbed(self, error: StoreError) -> None:
        missing = isinstance(error, NotFound)
        if not missing and not (isinstance(error, Forbidden) and not self._listed):
            super()._disturbed(error)
            return
        self.close()
        if not missing and not self.has_synced:
            log.warning("%s may not be read and count as absent: %s", self.resource.qualified, error.message)
        self.absent = self.has_synced = True
        self._listed, self._position = False, ""
        self._asked_again_at = self._clock.monotonic() + ABSENT_SECONDS

"""Where each service stands between its revisions, and of which ones something is to be kept."""

from __future__ import annotations

from cluster.observer import Observer
from cluster.restraint import Hold
from controller.observe.revisions import Kept, RevisionBook, Standing, standing_of
from controller.resources.core import ControllerRevision
from controller.resources.modelservice import ModelService

KEPT_LIMIT = 10
"""Revisions of a service beyond which it is looked whether one is superfluous."""


class Standings:
    """Standings of all services, by key. One that cannot be acted on keeps the standing that it had."""

    def __init__(self, observer: Observer) -> None:
        """Start with no service."""
        self.unkept: set[str] = set()
        """Services of which a revision is to be kept, or one too many is."""
        self._observer = observer
        self._book = RevisionBook()
        self._now: dict[str, Standing] = {}

    def take(self, key: str, obj: ControllerRevision | None) -> set[str]:
        """A ControllerRevision as it is now (None: gone); services that it is about."""
        return self._book.take(key, obj)

    def look(self, key: str, obj: ModelService) -> Standing:
        """Where a service would stand by its object as it is now."""
        return standing_of(obj, self._book.of(key, obj.metadata.uid))

    def put(self, key: str, standing: Standing) -> None:
        """It stands there."""
        self._now[key] = standing
        meta = standing.acting.metadata
        superfluous = len(self._book.of(key, meta.uid)) > KEPT_LIMIT
        due = meta.deletion_timestamp is None and (not standing.recorded or superfluous)
        (self.unkept.add if due else self.unkept.discard)(key)

    def gone(self, key: str) -> None:
        """The service is no more."""
        self._now.pop(key, None)
        self.unkept.discard(key)

    def of(self, key: str) -> Standing | None:
        """Where a service stands; None for one that was never acted on."""
        return self._now.get(key)

    def kept(self, key: str) -> list[Kept]:
        """What is kept of a service's revisions, oldest first."""
        standing = self._now.get(key)
        return self._book.of(key, standing.acting.metadata.uid) if standing is not None else []

    def in_use(self, key: str) -> set[str]:
        """Revisions that a service is of, may go back to, or has replicas of."""
        standing = self._now[key]
        replicas = {r.revision for r in self._observer.live("replicas").values() if r.service == key}
        return {standing.wanted, standing.revision, standing.rollout.back_to, *replicas}

    def hold_of(self, key: str) -> Hold:
        """Why nothing may be done about a service."""
        noun = self._observer.live("services").get(key)
        return noun.held if noun is not None else Hold.NONE

"""What the API server's watches show, folded into the model: one event a noun."""

from __future__ import annotations

from typing import Any

from cluster import events as ev
from cluster.observer import Observer


class Folding:
    """An `Observer` as seen by whoever projects objects: observed and delivered now, source `watch`."""

    def __init__(self, observer: Observer) -> None:
        """Fold into this observer."""
        self.observer = observer

    def fold(self, noun: Any, now_seconds: float) -> bool:
        """A noun is so. True when a planner would look at something new."""
        return self.observer.fold(
            ev.Seen(source="watch", observed_seconds=now_seconds, delivered_seconds=now_seconds, noun=noun)
        )

    def forget(self, mapping: str, key: str, now_seconds: float) -> bool:
        """A noun is gone. True when it was there."""
        return self.observer.fold(
            ev.Gone(
                source="watch",
                observed_seconds=now_seconds,
                delivered_seconds=now_seconds,
                mapping=mapping,
                key=key,
            )
        )

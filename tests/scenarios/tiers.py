"""Where a scenario's objects are kept: the embedded store, or a real control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from controller.store.embedded import open_store
from controller.store.interface import Store
from runtime.clock import VirtualClock
from tests.scenarios.further import further_kinds

WALL_SECONDS = 240.0
"""A play that takes longer hangs; on a loaded machine one may take a minute."""


class Session(Protocol):
    """One play's store."""

    @property
    def tier(self) -> str:
        """Name of the tier."""

    def open(self, clock: VirtualClock, seed: int) -> Store:
        """The store, empty but for what a cluster has of itself."""

    async def admitted(self, namespaces: Iterable[str]) -> None:
        """Return when pods can be made in the namespaces."""


class Tier(Protocol):
    """Opens a session for each play, in the event loop it is played on."""

    name: str
    wall_seconds: float
    """A play that takes longer hangs."""

    def session(self) -> AbstractAsyncContextManager[Session]:
        """An async context manager."""


class _Embedded:
    tier = "embedded"

    def open(self, clock: VirtualClock, seed: int) -> Store:
        return open_store(clock, seed=seed, more=further_kinds())

    async def admitted(self, namespaces: Iterable[str]) -> None:
        """They are made ready at once."""


def embedded_session() -> Session:
    """A store of its own in this process."""
    return _Embedded()


class EmbeddedTier:
    """A store in this process."""

    name = "embedded"
    wall_seconds = WALL_SECONDS

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A store of its own."""
        yield embedded_session()


EMBEDDED = EmbeddedTier()

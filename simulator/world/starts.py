"""Cold starts: the stages of a node's loads in order, its tiers shared, and where there are `Roads` the weights on them.

All starts of one node go through one `Loader`, so that those of a moment share the tier that their weights come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from simulator.physics.loading import Loader, Stage, StartSpec
from simulator.world.core import Event, Handler
from simulator.world.instances import Instance
from simulator.world.roads import Roads


class Start(NamedTuple):
    """A start under way: `then` happens to the instance when it is ready."""

    instance: Instance
    then: Handler


class Starts:
    """The loaders of the nodes, made when a node first needs one."""

    __slots__ = ("_due", "_loaders", "_under_way")

    def __init__(self) -> None:
        self._loaders: dict[str, Loader] = {}
        self._under_way: dict[str, Start] = {}
        self._due: dict[str, float] = {}

    def begin(
        self, at_seconds: float, instance: Instance, spec: StartSpec, then: Handler, world: Any
    ) -> list[Event]:
        """Start an instance now; `then` happens to it when it is ready. ValueError while it is starting."""
        loader = self._loaders.get(instance.node)
        if loader is None:
            fetch = self._fetch(world) if isinstance(world.wires, Roads) else None
            loader = self._loaders[instance.node] = Loader(world.rng, at_seconds, fetch=fetch)
        events = self._advance(at_seconds, instance.node)
        loader.begin(instance.name, spec)
        self._under_way[instance.name] = Start(instance, then)
        return events + self._look(instance.node)

    def cancel(self, at_seconds: float, instance: Instance, world: Any) -> list[Event]:
        """Give up the start of an instance; nothing happens when it is not starting."""
        if self._under_way.pop(instance.name, None) is None:
            return []
        events = self._advance(at_seconds, instance.node)
        self._loaders[instance.node].cancel(instance.name)
        if isinstance(world.wires, Roads):
            events += world.wires.forget(at_seconds, instance)
        return events + self._look(instance.node)

    def stage(self, instance: Instance) -> Stage | None:
        """Where the start of an instance stands; None when it is not starting."""
        loader = self._loaders.get(instance.node)
        return loader.stage(instance.name) if loader is not None else None

    def due(self, at_seconds: float, node: str) -> list[Event]:
        """A stage on a node is due, unless another load has put it off."""
        if self._due.get(node) != at_seconds:
            return []
        return self._advance(at_seconds, node) + self._look(node)

    def here(self, at_seconds: float, instance: Instance) -> list[Event]:
        """All weights of an instance have come."""
        events = self._advance(at_seconds, instance.node)
        self._loaders[instance.node].fetched(instance.name, at_seconds)
        return events + self._look(instance.node)

    def _fetch(self, world: Any) -> Any:
        def fetch(name: str, spec: StartSpec) -> None:
            now = world.kernel.now
            instance = self._under_way[name].instance
            for event in world.wires.load(now, instance, spec, weights_here, instance):
                world.kernel.push(event)

        return fetch

    def _advance(self, at: float, node: str) -> list[Event]:
        events: list[Event] = []
        for event in self._loaders[node].advance_to(at):
            if event.stage is Stage.READY:
                instance, then = self._under_way.pop(event.name)
                events.append((event.at_seconds, then, instance))
        return events

    def _look(self, node: str) -> list[Event]:
        at = self._due[node] = self._loaders[node].next_event_seconds()
        return [(at, stage_due, node)] if at < float("inf") else []


def stage_due(at_seconds: float, subject: str, world: Any) -> Iterable[Event]:
    """A stage of a start on a node is due."""
    due: list[Event] = world.starts.due(at_seconds, subject)
    return due


def weights_here(at_seconds: float, subject: Instance, world: Any) -> Iterable[Event]:
    """The weights of a starting instance are in its GPUs."""
    here: list[Event] = world.starts.here(at_seconds, subject)
    return here

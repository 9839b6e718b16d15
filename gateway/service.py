"""One service in the gateway: its route, its rows, its hold queue, its measured load."""

from __future__ import annotations

import math

from gateway.hold import HoldConfig, HoldQueue, Pacer
from gateway.load import ClassLoad, LoadConfig, edges_of
from gateway.messages import Arrival, ClassRoute, ServiceRoute
from gateway.rows import Row, Rows

_NO_CLASS = ClassRoute("", ttft_seconds=math.inf, tpot_seconds=math.inf)


class ServiceState:
    """What the core knows of a service. `wake_seconds` is its earliest scheduled look, infinite without one."""

    __slots__ = ("_load_config", "held", "loads", "pacer", "route", "rows", "wake_seconds")

    def __init__(self, route: ServiceRoute, hold: HoldConfig, load: LoadConfig, now_seconds: float) -> None:
        self._load_config = load
        self.route = route
        self.rows = Rows(route.service)
        self.held = HoldQueue(hold.bytes_per_token)
        self.pacer = Pacer(hold)
        self.wake_seconds = math.inf
        self.loads: dict[str, ClassLoad] = {}
        self.take_route(route, now_seconds)

    @property
    def name(self) -> str:
        """`namespace/name`."""
        return self.route.service

    def load_of(self, request_class: str) -> ClassLoad:
        """The class's load; a class that the service does not have counts as its first one."""
        load = self.loads.get(request_class)
        return load if load is not None else next(iter(self.loads.values()))

    def expected(self, arrival: Arrival) -> int:
        """Tokens to expect of a request's answer: clients only say how long it may become at most."""
        outputs = self.load_of(arrival.request_class).outputs
        return outputs.expected(arrival.prompt_tokens, arrival.output_tokens)

    def take_route(self, route: ServiceRoute, now_seconds: float) -> list[Row]:
        """Put a new route in force; return the rows that are gone."""
        self.route = route
        self._renew_loads(route, now_seconds)
        return self.rows.replace(route.instances)

    def next_look(self) -> float:
        """When something is due next: a hold deadline, a paced release, the end of a mask; infinite if never."""
        at = math.inf
        oldest = self.held.oldest_since_seconds()
        if oldest is not None:
            at = oldest + self.route.hold_deadline_seconds
            if self.rows.ready_count and self.pacer.open:
                at = min(at, self.pacer.next_seconds)
        return min(at, self.rows.next_unmask_seconds())

    def _renew_loads(self, route: ServiceRoute, now_seconds: float) -> None:
        """Keep what was measured of classes that stay; changed edges begin their histogram anew."""
        former, self.loads = self.loads, {}
        edges = edges_of(route, self._load_config)
        for objective in route.classes or (_NO_CLASS,):
            load = former.get(objective.name)
            if load is None or load.edges != edges:
                load = ClassLoad(objective, route, self._load_config, now_seconds).resume(load)
            load.objective = objective
            self.loads[objective.name] = load

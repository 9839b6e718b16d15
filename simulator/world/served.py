"""Services in the world: what one serves with, who waits for it, and the pools that its requests are dispatched in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cluster.size_plan import SizePlan
from policies.dispatch.outputs import Outputs
from simulator.physics.specs import ModelSpec
from simulator.traces.requests import TraceRequest
from simulator.world.book import Open
from simulator.world.instances import Instance
from simulator.world.rows import Rows


class Pool:
    """Instances that one dispatch decision chooses among, and the state of the policy that chooses."""

    __slots__ = ("by_name", "columns", "rows", "state")

    def __init__(self, instances: list[Instance], state: Any) -> None:
        self.by_name = {instance.name: instance for instance in instances}
        for row, instance in enumerate(instances):
            instance.row, instance.pool = row, self
        self.rows = Rows(list(self.by_name), [instance.engine.capacity_tokens for instance in instances])
        self.columns = tuple(instance.group.column for instance in instances)
        """`variant|pool` of each row, in order."""
        self.state = state

    def join(self, instance: Instance) -> None:
        """An instance that is up takes requests from now on."""
        self.by_name[instance.name] = instance
        instance.row, instance.pool = self.rows.join(instance.name, instance.engine.capacity_tokens), self
        self.columns = (*self.columns, instance.group.column)

    def leave(self, instance: Instance) -> None:
        """An instance is gone for good."""
        del self.by_name[instance.name]
        self.rows.leave(instance.row)
        for row, each in enumerate(self.by_name.values()):
            each.row = row
        self.columns = tuple(each.group.column for each in self.by_name.values())


class Served:
    """One service: its policies, pools and stream of requests. `number` is its place among the world's services.

    `held` are the requests that wait for an instance, with what was generated of each elsewhere. `load` is told of each
    arrival where somebody measures it; None: nobody does. `plan` is the plan by size in force, `outputs` what its gateways
    expect of answers (None: they are told their lengths), of which clients say that they may be `told` times as long as they are.
    """

    __slots__ = (
        "arrived",
        "back",
        "decided_on",
        "dispatch",
        "front",
        "held",
        "hold_limit",
        "hold_seconds",
        "load",
        "migration",
        "migration_state",
        "model",
        "name",
        "number",
        "outputs",
        "plan",
        "rates",
        "refused",
        "stream",
        "told",
    )

    def __init__(
        self,
        name: str,
        number: int,
        model: ModelSpec,
        dispatch: Any,
        migration: Any,
        holds: tuple[float, int],
        instances: list[Instance],
        requests: Iterable[TraceRequest],
    ) -> None:
        """`dispatch` and `migration` (None: nothing moves) are policies, built; `holds` are seconds and how many at most."""
        self.name, self.number, self.model = name, number, model
        self.dispatch, self.migration = dispatch, migration
        self.migration_state = migration.initial() if migration is not None else None
        self.hold_seconds, self.hold_limit = holds
        self.front = Pool([each for each in instances if each.front], dispatch.initial())
        self.back = Pool([each for each in instances if not each.front], dispatch.initial())
        for instance in instances:
            instance.service = self
        self.held: list[tuple[Open, int]] = []
        self.stream: Iterator[TraceRequest] | None = iter(requests)
        self.load: Any = None
        self.plan: SizePlan | None = None
        self.outputs: Outputs | None = None
        self.told = 1.0
        self.arrived = self.refused = 0
        self.rates: Any = np.zeros((0, 0))
        self.decided_on: tuple[Any, int, int] = (None, 0, 0)

    def next_arrival(self) -> TraceRequest | None:
        """The next request of its stream; None when it has ended."""
        if self.stream is None:
            return None
        request = next(self.stream, None)
        if request is None:
            self.stream = None
        return request

    def expected(self, prompt_tokens: int, output_tokens: int) -> int:
        """What its gateways expect of an answer that will have `output_tokens`."""
        most = max(1, round(output_tokens * self.told))
        return most if self.outputs is None else self.outputs.expected(prompt_tokens, most)

    def pool_for(self, instance: Instance) -> Pool:
        """The pool that an instance of it belongs to, by its role."""
        return self.front if instance.front else self.back

    def let_go(self, request: Open) -> None:
        """A held request waits no longer."""
        self.held = [entry for entry in self.held if entry[0] is not request]

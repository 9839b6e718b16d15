"""A store that takes no statuses is asked ever more rarely, and has them all once it takes them again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from console.local import LocalCluster
from controller.resources.kinds import ACCELERATOR_CLASS, ACCELERATOR_NODE
from controller.resources.manifests import apply, load
from controller.store.errors import StoreError, TooManyRequests, Unavailable
from controller.store.interposed import InterposedStore, Request
from tests.repository.tree import ROOT
from tests.telling.test_nodes import small_fleet, statuses

T = TypeVar("T")


class Refusing(InterposedStore):
    """Refuses applied statuses while `error` is set; counts how often it was asked, by object."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.error: StoreError | None = None
        self.asked: Counter[str] = Counter()

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        if request.verb == "apply" and request.subresource == "status" and self.error is not None:
            self.asked[f"{request.resource.kind}/{request.name}"] += 1
            raise self.error
        return await answer()


@pytest.mark.parametrize(
    ("error", "most"),
    [(Unavailable("no answer"), 16), (TooManyRequests("later", 20.0), 16)],
    ids=["an outage", "too many requests"],
)
def test_refused_statuses_are_tried_ever_more_rarely_and_none_is_lost(error: StoreError, most: int) -> None:
    async def scenario() -> None:
        made: list[Refusing] = []

        def wrap(store: Any, _: Any) -> Refusing:
            made.append(Refusing(store))
            return made[0]

        async with LocalCluster(small_fleet(), wrap_store=wrap) as cluster:
            (store,) = made
            store.error = error
            await apply(cluster.store, load(ROOT / "examples" / "demo" / "accelerators.yaml"))
            for _ in range(90):
                await cluster.second()
            assert {name.partition("/")[0] for name in store.asked} == {"AcceleratorClass", "AcceleratorNode"}
            assert max(store.asked.values()) <= most, store.asked
            store.error = None
            for _ in range(90):
                await cluster.second()
            classes, nodes = (
                await statuses(cluster, ACCELERATOR_CLASS),
                await statuses(cluster, ACCELERATOR_NODE),
            )
            assert all(status.get("conditions") for status in classes.values()), "each says what it is"
            assert {status.get("phase") for status in nodes.values()} == {"Online"}

    asyncio.run(scenario())

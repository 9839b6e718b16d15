"""The comparison of two plays itself: it finds whatever is planted, and overlooks no more than its list says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from controller.store.interface import JsonObject, Resource, Store
from controller.store.interposed import InterposedStore
from runtime.clock import VirtualClock
from simulator.fleet.scheduler import ControlPlane
from tests.scenarios import plays_serving, plays_training
from tests.scenarios.ignored_paths import IGNORED, MOST
from tests.scenarios.left import Left, differences, fields, ignored
from tests.scenarios.scenario import Scenario, play
from tests.scenarios.tiers import Session, Tier, embedded_session

PLAYS = [plays_serving.SERVE, plays_training.GANG]


@cache
def left(name: str) -> Left:
    """What a play on the embedded store leaves."""
    scenario = next(each for each in PLAYS if each.name == name)
    with TemporaryDirectory() as folder:
        return play(scenario, Path(folder)).left


def test_the_list_of_what_may_differ_is_short_and_each_entry_says_why() -> None:
    assert len(IGNORED) <= MOST
    assert all(len(each.why) > 10 for each in IGNORED)
    assert len({each.pattern for each in IGNORED}) == len(IGNORED)


@pytest.mark.parametrize("name", [each.name for each in PLAYS])
def test_two_plays_of_one_tier_differ_in_nothing(name: str, tmp_path: Path) -> None:
    scenario = next(each for each in PLAYS if each.name == name)
    assert differences(left(name), play(scenario, tmp_path).left) == []


@pytest.mark.parametrize("name", [each.name for each in PLAYS])
def test_a_difference_in_any_field_is_found(name: str) -> None:
    """Every single field changed, and every single one left out: one line each, and only the listed ones are none."""
    whole, overlooked = left(name), set()
    assert len(whole) > 300
    for path, value in whole.items():
        if ignored(path, both=True):
            overlooked.add(path)
            continue
        changed = differences(whole, whole | {path: f"another {value}"})
        missing = differences(whole, {key: has for key, has in whole.items() if key != path})
        assert [line.startswith(f"{path}: ") for line in (*changed, *missing)] == [True, True]
    assert all(path.startswith("objects ") for path in overlooked), "events and actions are compared whole"
    assert len(overlooked) < len(whole) / 10


def test_what_only_one_tier_has_is_found_though_its_value_may_differ() -> None:
    path = "objects Pod/shop/chat-1 .metadata.deletionTimestamp"
    assert not differences({path: "2023"}, {path: "2026"})
    assert differences({}, {path: "2026"})


@pytest.mark.parametrize(
    ("other", "found"),
    [
        pytest.param(
            "chat-3 was not ready 22 s after it was bound, 20 s is the most", 0, id="one tick later"
        ),
        pytest.param(
            "chat-3 was not ready 23 s after it was bound, 20 s is the most", 1, id="two ticks later"
        ),
        pytest.param("chat-4 was not ready 21 s after it was bound, 20 s is the most", 1, id="another pod"),
        pytest.param("chat-3 was not ready 21 s after it was bound, 21 s is the most", 1, id="another limit"),
        pytest.param("chat-3 was not ready", 1, id="not said at all"),
    ],
)
def test_what_was_waited_since_a_phase_may_differ_by_a_tick(other: str, found: int) -> None:
    said = "chat-3 was not ready 21 s after it was bound, 20 s is the most"
    assert len(differences({"objects x .message": said}, {"objects x .message": other})) == found


def test_lists_that_are_maps_are_compared_by_key() -> None:
    one = {"conditions": [{"type": "A", "status": "x"}, {"type": "B", "status": "y"}]}
    other = {"conditions": list(reversed(one["conditions"]))}
    assert dict(fields(one)) == dict(fields(other))
    assert dict(fields({"args": ["a", "b"]})) != dict(fields({"args": ["b", "a"]}))


class Planted(InterposedStore):
    """A store with one defect; its scheduler and its collector work on behind it."""

    def __init__(self, inner: Store, plant: Callable[[Resource, JsonObject], JsonObject | None]) -> None:
        super().__init__(inner)
        self._plant = plant

    async def bind(self, name: str, namespace: str, *, uid: str, node: str) -> None:
        assert isinstance(self.inner, ControlPlane)
        await self.inner.bind(name, namespace, uid=uid, node=node)

    async def collect_garbage(self) -> int:
        assert isinstance(self.inner, ControlPlane)
        return await self.inner.collect_garbage()

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, dry_run: bool = False
    ) -> JsonObject:
        planted = self._plant(resource, obj)
        if planted is None:
            return obj
        return await super().create(resource, planted, field_manager=field_manager, dry_run=dry_run)


def _label(resource: Resource, obj: JsonObject) -> JsonObject:
    if resource.kind == "Pod":
        obj["metadata"]["labels"]["planted"] = "yes"
    return obj


def _grace(resource: Resource, obj: JsonObject) -> JsonObject:
    if resource.kind == "Pod":
        obj["spec"]["terminationGracePeriodSeconds"] += 1
    return obj


def _no_event(resource: Resource, obj: JsonObject) -> JsonObject | None:
    return None if resource.kind == "Event" and obj["reason"] == "RoutesSet" else obj


def _word(resource: Resource, obj: JsonObject) -> JsonObject:
    if resource.kind == "Event" and obj["reason"] == "MixChosen":
        obj["reason"] = "MixTaken"
    return obj


@pytest.mark.parametrize(
    ("plant", "finds"),
    [
        pytest.param(_label, "objects Pod/shop/chat-", id="a label too many"),
        pytest.param(_grace, ".spec.terminationGracePeriodSeconds", id="a second of grace"),
        pytest.param(_no_event, "events ModelService/shop/chat RoutesSet", id="an event that was not told"),
        pytest.param(_word, "events ModelService/shop/chat MixTaken", id="another reason"),
    ],
)
def test_a_store_with_a_defect_is_found_out(
    plant: Callable[[Resource, JsonObject], JsonObject | None], finds: str, tmp_path: Path
) -> None:
    scenario: Scenario = plays_serving.SERVE
    bare = Scenario(scenario.name, scenario.fleet, scenario.manifests, scenario.script)

    class Tampered:
        tier = "tampered"

        def open(self, clock: VirtualClock, seed: int) -> Store:
            return Planted(embedded_session().open(clock, seed), plant)

        async def admitted(self, namespaces: Any) -> None:
            del namespaces

    class TamperedTier:
        name, wall_seconds = "tampered", 60.0

        @asynccontextmanager
        async def session(self) -> AsyncIterator[Session]:
            yield Tampered()

    tier: Tier = TamperedTier()
    found = differences(left(scenario.name), play(bare, tmp_path, tier=tier).left)
    assert any(finds in line for line in found), found

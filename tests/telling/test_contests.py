"""Another writer of the same status: named, restored ever more rarely, and forgotten when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import pytest

from console.local import LocalCluster
from controller.resources.kinds import POWER_DOMAIN
from controller.resources.powerdomain import PowerDomain
from controller.store.errors import Cause, Conflict
from controller.store.interposed import InterposedStore, Request
from controller.telling.contests import LONGEST_SECONDS, Contests, is_contest
from controller.telling.writer import StatusWriter
from runtime.clock import WallClock
from tests.telling.test_nodes import small_fleet

T = TypeVar("T")
KEY = ("PowerDomain", "row-1")


def taken(who: str, *fields: str) -> Conflict:
    causes = tuple(Cause(f".{f}", "FieldManagerConflict", f'conflict with "{who}"') for f in fields)
    return Conflict(f'Apply failed: conflict with "{who}"', causes)


class Counting(InterposedStore):
    applied = 0

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        self.applied += request.verb == "apply" and request.name == "row-1"
        return await answer()


def domain(cluster: LocalCluster) -> Awaitable[dict[str, Any]]:
    return cluster.store.get(POWER_DOMAIN, "row-1")


def contested(obj: dict[str, Any]) -> str:
    found = (c["message"] for c in obj.get("status", {}).get("conditions", []) if c["type"] == "Contested")
    return next(found, "")


def test_a_meddler_is_named_and_the_fight_is_slow_and_ends_with_it() -> None:
    async def scenario() -> None:
        counted: list[Counting] = []

        def wrap(store: Any, _: Any) -> Counting:
            counted.append(Counting(store))
            return counted[0]

        async with LocalCluster(small_fleet(), wrap_store=wrap) as cluster:
            spec = {"ratingWatts": 10_000, "members": {"nodes": ["a100-00", "l4-00"]}}
            meta = {
                "apiVersion": POWER_DOMAIN.api_version,
                "kind": "PowerDomain",
                "metadata": {"name": "row-1"},
            }
            await cluster.apply(POWER_DOMAIN, meta | {"spec": spec})
            for _ in range(15):
                await cluster.second()
            true = (await domain(cluster))["status"]["phase"]
            before = counted[0].applied
            for _ in range(90):
                patch = {"status": {"phase": "Refused"}}
                await cluster.store.patch(
                    POWER_DOMAIN, "row-1", patch, field_manager="meddler", subresource="status"
                )
                await cluster.second()
            during = counted[0].applied - before
            assert 2 <= during <= 12, f"{during} applies in 90 seconds of somebody writing each second"
            for _ in range(90):
                await cluster.second()
            calm = await domain(cluster)
            assert calm["status"]["phase"] == true
            assert "meddler also writes status.phase" in contested(calm)
            for _ in range(300):
                await cluster.second()
            assert not contested(await domain(cluster)), "forgotten once nothing was lost for long"

    asyncio.run(scenario())


def test_pauses_double_and_are_bounded() -> None:
    contests, now, pauses = Contests(), 0.0, []
    for _ in range(9):
        contest = contests.lost(KEY, taken("meddler", "status.phase"), now)
        assert contests.waiting(KEY, now + contest.wait_seconds - 0.1)
        assert not contests.waiting(KEY, now + contest.wait_seconds)
        pauses.append(contest.wait_seconds)
        now += contest.wait_seconds
    assert pauses == [10, 20, 40, 80, 160, 320, LONGEST_SECONDS, LONGEST_SECONDS, LONGEST_SECONDS]


def test_an_object_that_is_gone_is_forgotten() -> None:
    contests = Contests()
    contests.lost(KEY, taken("meddler", "status.phase"), 0.0)
    contests.keep(set(), 0.0)
    assert contests.condition(KEY, 1) is None
    assert not contests.waiting(KEY, 0.0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("status.phase",), "a also writes status.phase (1 times so far)"),
        (tuple(f"status.f{n}" for n in range(6)), "status.f0, status.f1, status.f2, status.f3 and 2 more"),
    ],
    ids=["one field", "more than fit"],
)
def test_the_condition_names_who_and_what(fields: tuple[str, ...], words: str) -> None:
    contests = Contests()
    contests.lost(KEY, taken("a", *fields), 0.0)
    told = contests.condition(KEY, 7)
    assert told is not None
    assert (told.reason, told.observed_generation) == ("FieldContested", 7)
    assert words in told.message


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (taken("a", "status.phase"), True),
        (Conflict("the object has been modified"), False),
        (Conflict("uid differs", (Cause("metadata.uid", "Conflict", "uid differs"),)), False),
    ],
    ids=["another manager's field", "a version", "an identity"],
)
def test_only_fields_of_others_are_contested(error: Conflict, is_one: bool) -> None:
    assert is_contest(error) is is_one


def test_a_field_lost_twice_is_told_once() -> None:
    clock = WallClock()
    writer = StatusWriter(None, clock)  # type: ignore[arg-type]
    obj = msgspec.convert(
        {"metadata": {"name": "row-1"}, "spec": {"ratingWatts": 1, "members": {}}}, PowerDomain
    )
    status = obj.status
    for times in (1, 2):
        writer.contests.lost(KEY, taken("meddler", "status.phase"), 0.0)
        status = writer._contested(KEY, obj, status, 0.0)
        assert [c.type for c in status.conditions] == ["Contested"], (
            "a second one of its type is refused by the server"
        )
        assert f"({times} times so far)" in status.conditions[0].message

"""Store and cache together against a server that misbehaves in one way: what is asked, how often, and what it costs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fault_runs import PATH, Bench, Sequence
from benchmarks.listwatch import Answer, AnswerKind, StreamFault
from controller.store.cache import SOUND

Story = Callable[[Sequence], Coroutine[Any, Any, None]]


def play(folder: Path, story: Story, *, streams_lists: bool = False) -> None:
    """Tell a story of one cache that has synced with a few pods."""

    async def told() -> None:
        bench = await Bench.start(folder)
        run = Sequence(bench, 1, SOUND)
        run.server.streams_lists = streams_lists
        run.server.on_request = lambda _: None
        try:
            for index in range(5):
                run.change("create", index)
            await run.pump()
            assert run.difference() == ""
            run.server.asked.clear()
            await story(run)
        finally:
            await run.end()
            await bench.stop()

    asyncio.run(told())


def asked(run: Sequence) -> tuple[int, int]:
    """Lists and watches so far."""
    return run.server.asked["list", PATH], run.server.asked["watch", PATH]


async def pass_time(run: Sequence, seconds: float, step: float = 0.5) -> None:
    for _ in range(int(seconds / step)):
        run.tick(step)
        await run.arrive()
        await run.pump()


@pytest.mark.parametrize("streams_lists", [False, True], ids=["pages", "streaming lists"])
def test_a_stream_that_falls_silent_is_left_within_75_seconds_and_nothing_is_listed(
    tmp_path: Path, streams_lists: bool
) -> None:
    async def story(run: Sequence) -> None:
        (stream,) = run.server.streams_of(run.pods)
        stream.do(StreamFault.SILENCE)
        run.change("delete", 2)
        await pass_time(run, 69.0)
        assert (asked(run), run.difference() != "") == ((0, 0), True)
        await pass_time(run, 6.0)
        assert (asked(run), run.difference()) == ((0, 1), "")

    play(tmp_path, story, streams_lists=streams_lists)


def test_a_quiet_stream_with_its_bookmarks_is_not_left(tmp_path: Path) -> None:
    async def story(run: Sequence) -> None:
        for _ in range(10):
            await pass_time(run, 60.0, step=5.0)
            run.server.bookmark(run.pods)
        assert asked(run) == (0, 0)

    play(tmp_path, story)


def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    async def story(run: Sequence) -> None:
        run.server.answers["list", PATH] = deque([Answer(AnswerKind.REFUSE, 429, 25)])
        run.change("other")
        run.pods.compact()
        for stream in run.server.streams_of(run.pods):
            stream.end()
        await pass_time(run, 5.0)
        lists, _ = asked(run)
        assert lists == 1
        await pass_time(run, 19.0)
        assert asked(run)[0] == 1, "25 seconds are not over"
        await pass_time(run, 8.0)
        assert (asked(run)[0], run.difference()) == (2, "")

    play(tmp_path, story)


def test_a_list_whose_token_grew_too_old_on_the_way_begins_again_and_ends(tmp_path: Path) -> None:
    async def story(run: Sequence) -> None:
        run.change("other")
        run.pods.compact()
        run.server.on_request = lambda request: (
            run.pods.compact() if request.parameters.get("continue") and asked(run)[0] < 3 else None
        )
        for stream in run.server.streams_of(run.pods):
            stream.end()
        await pass_time(run, 60.0)
        assert (asked(run)[0], run.difference()) == (3, "")

    play(tmp_path, story)


def test_events_out_of_order_cost_one_list_and_lose_nothing(tmp_path: Path) -> None:
    async def story(run: Sequence) -> None:
        (stream,) = run.server.streams_of(run.pods)
        stream.do(StreamFault.SWAP)
        run.change("patch", 1)
        run.change("delete", 3)
        await run.arrive()
        await run.pump()
        assert run.difference() != "", "what came late is not known yet"
        await pass_time(run, 10.0)
        assert (asked(run)[0], run.difference()) == (1, "")

    play(tmp_path, story)


def test_events_that_come_twice_cost_nothing(tmp_path: Path) -> None:
    async def story(run: Sequence) -> None:
        (stream,) = run.server.streams_of(run.pods)
        for index in range(5):
            stream.do(StreamFault.DUPLICATE)
            run.change("patch", index)
        await run.arrive()
        await run.pump()
        assert (asked(run), run.difference()) == ((0, 0), "")

    play(tmp_path, story)


@pytest.mark.parametrize("fault", [StreamFault.CUT_EVENT, StreamFault.DROP, StreamFault.END])
def test_a_stream_that_breaks_is_taken_up_where_it_was(tmp_path: Path, fault: StreamFault) -> None:
    async def story(run: Sequence) -> None:
        (stream,) = run.server.streams_of(run.pods)
        stream.do(fault)
        run.change("patch", 1)
        run.change("delete", 2)
        await pass_time(run, 10.0)
        assert asked(run)[0] == 0
        assert (1 <= asked(run)[1] <= 2, run.difference()) == (True, "")

    play(tmp_path, story)

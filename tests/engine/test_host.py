"""The host of a node's engines: real physics behind it, frames in front of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.host import EngineHost, EngineStream
from tests.engine.worlds import ORIGIN, engine
from wire import engine_pb2 as pb

FIRST, LAST = pb.ENGINE_EVENT_KIND_FIRST_TOKEN, pb.ENGINE_EVENT_KIND_FINISHED
REFUSED, FAILED = pb.ENGINE_EVENT_KIND_REFUSED, pb.ENGINE_EVENT_KIND_FAILED


def host(*names: str, ready: bool = True) -> EngineHost:
    made = EngineHost("n1")
    for name in names or ("shop/a",):
        made.add(name, engine(), ready=ready)
    return made


def submission(
    request_id: int, at: float, instance: str = "shop/a", prompt: int = 200, output: int = 20, epoch: int = 1
) -> pb.Submission:
    return pb.Submission(
        request_id=request_id, instance=instance, prompt_tokens=prompt, output_tokens=output, epoch=epoch,
        arrived_seconds=ORIGIN + at, submitted_seconds=ORIGIN + at,
    )  # fmt: skip


def send(
    made: EngineHost,
    stream: EngineStream,
    tick: int,
    *submissions: pb.Submission,
    cancels: tuple[pb.Cancellation, ...] = (),
) -> None:
    until = ORIGIN + tick
    made.accept(
        stream, pb.GatewayFrame(tick=tick, until_seconds=until, submissions=submissions, cancels=cancels)
    )


def live(made: EngineHost, stream: EngineStream, until: float) -> pb.EngineFrame:
    made.advance_to(ORIGIN + until)
    return made.frame(stream, ORIGIN + until)


def told(frame: pb.EngineFrame) -> list[tuple[int, int]]:
    return [(event.request_id, event.kind) for event in frame.events]


def test_a_request_is_served_at_its_own_time_with_exactly_its_tokens() -> None:
    made = host()
    stream = made.open_stream("g")
    send(made, stream, 1, submission(7, 0.5))
    frame = live(made, stream, 5)
    assert told(frame) == [(7, FIRST), (7, LAST)]
    first, last = frame.events
    assert ORIGIN + 0.5 < first.at_seconds < last.at_seconds
    assert (first.tokens, last.tokens, last.epoch, last.instance) == (1, 20, 1, "shop/a")
    assert (frame.node, frame.tick, frame.sequence, frame.observed_seconds) == ("n1", 1, 1, ORIGIN + 5)
    assert made.open_requests == 0


def test_frames_tell_load_of_all_engines_while_requests_run() -> None:
    made = host("shop/b", "shop/a")
    stream = made.open_stream("g")
    send(made, stream, 1, *(submission(k, 0.1, output=5_000) for k in range(3)))
    frame = live(made, stream, 1)
    rows = {row.name: row for row in frame.instances}
    assert list(rows) == ["shop/a", "shop/b"]
    assert (rows["shop/a"].running, rows["shop/b"].running) == (3, 0)
    assert rows["shop/a"].kv_free_tokens < rows["shop/a"].kv_capacity_tokens == rows["shop/b"].kv_free_tokens
    assert rows["shop/a"].ready


@pytest.mark.parametrize(
    ("case", "needle"),
    [
        (submission(1, 0.1, instance="shop/nobody"), "serves no engine"),
        (submission(1, 0.1, prompt=90_000), "90"),
        (submission(1, 0.1, prompt=0), ""),
    ],
    ids=["by a node without that engine", "by an engine that is too small", "without a prompt"],
)
def test_a_request_is_refused_with_a_sentence(case: pb.Submission, needle: str) -> None:
    made = host()
    stream = made.open_stream("g")
    send(made, stream, 1, case)
    frame = live(made, stream, 1)
    assert told(frame) == [(1, REFUSED)]
    assert needle in frame.events[0].message
    assert frame.events[0].message
    assert (made.refused, made.open_requests) == (1, 0)


def test_an_engine_that_is_not_ready_refuses_until_it_is() -> None:
    made = host(ready=False)
    stream = made.open_stream("g")
    send(made, stream, 1, submission(1, 0.1))
    made.set_ready("shop/a", True)
    send(made, stream, 2, submission(2, 1.1))
    assert told(live(made, stream, 5)) == [(1, REFUSED), (2, FIRST), (2, LAST)]


def test_the_same_request_twice_is_refused_and_the_next_epoch_of_it_is_another() -> None:
    made = host()
    stream = made.open_stream("g")
    send(made, stream, 1, submission(1, 0.1), submission(1, 0.1), submission(1, 0.2, epoch=2))
    kinds = [(event.epoch, event.kind) for event in live(made, stream, 5).events]
    assert sorted(kinds) == [(1, FIRST), (1, LAST), (1, REFUSED), (2, FIRST), (2, LAST)]


def test_a_cancelled_request_says_nothing_more_and_unknown_ones_are_ignored() -> None:
    made = host()
    stream = made.open_stream("g")
    send(made, stream, 1, submission(1, 0.1, output=5_000))
    live(made, stream, 1)
    unknown = (
        pb.Cancellation(request_id=9, instance="shop/a", epoch=1),
        pb.Cancellation(request_id=1, instance="shop/x", epoch=1),
    )
    send(made, stream, 2, cancels=(pb.Cancellation(request_id=1, instance="shop/a", epoch=2), *unknown))
    assert made.open_requests == 1
    send(made, stream, 3, cancels=(pb.Cancellation(request_id=1, instance="shop/a", epoch=1),))
    assert told(live(made, stream, 200)) == []
    assert made.open_requests == 0


def test_a_removed_engine_fails_what_it_had_and_is_not_listed_any_more() -> None:
    made = host("shop/a", "shop/b")
    stream = made.open_stream("g")
    send(made, stream, 1, submission(1, 0.1, output=5_000), submission(2, 0.1, instance="shop/b"))
    live(made, stream, 0.05)
    assert made.remove("shop/a", ORIGIN + 0.5, "the GPU fell off the bus") == 1
    frame = live(made, stream, 5)
    assert sorted(told(frame)) == [(1, FAILED), (2, FIRST), (2, LAST)]
    assert [row.name for row in frame.instances] == ["shop/b"]
    assert next(e for e in frame.events if e.request_id == 1).message == "the GPU fell off the bus"
    with pytest.raises(KeyError):
        made.remove("shop/a", ORIGIN + 1)


def test_a_name_is_served_once() -> None:
    made = host()
    with pytest.raises(ValueError, match="already serves"):
        made.add("shop/a", engine())


def test_a_stream_that_ends_takes_its_requests_with_it_and_no_others() -> None:
    made = host()
    one, two = made.open_stream("g1"), made.open_stream("g2")
    send(made, one, 1, submission(1, 0.1, output=500))
    send(made, two, 1, submission(1, 0.2))
    live(made, two, 0.3)
    assert made.close_stream(one) == 1
    assert made.close_stream(one) == 0
    frame = live(made, two, 10)
    assert told(frame)[-1] == (1, LAST)
    assert made.streams == (two,)
    assert made.open_requests == 0


@given(
    at=st.lists(st.floats(0.0, 3.9), min_size=1, max_size=12),
    cuts=st.lists(st.floats(0.01, 3.99), max_size=5),
)
def test_how_time_is_cut_into_windows_changes_no_event(at: list[float], cuts: list[float]) -> None:
    def run(edges: list[float]) -> list[tuple[int, int, float, int]]:
        made = host()
        stream = made.open_stream("g")
        seen: list[tuple[int, int, float, int]] = []
        for tick, (start, stop) in enumerate(itertools.pairwise([0.0, *edges, 4.0]), 1):
            inside = sorted((t, k) for k, t in enumerate(at) if start <= t < stop)
            send(made, stream, tick, *(submission(k, t) for t, k in inside))
            made.advance_to(ORIGIN + stop)
            frame = made.frame(stream, ORIGIN + stop)
            seen.extend((e.request_id, e.kind, e.at_seconds, e.tokens) for e in frame.events)
        seen.extend((e.request_id, e.kind, e.at_seconds, e.tokens) for e in live(made, stream, 60).events)
        return sorted(seen)

    whole, cut = run([]), run(sorted(set(cuts)))
    assert [(r, k, n) for r, k, _, n in whole] == [(r, k, n) for r, k, _, n in cut]
    assert [t for _, _, t, _ in whole] == pytest.approx([t for _, _, t, _ in cut], abs=1e-6)
    assert len(whole) == 2 * len(at)

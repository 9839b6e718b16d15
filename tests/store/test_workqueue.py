"""The work queue against a model of what a key's owner may rely on, and its pauses."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.store.workqueue import LONGEST_SECONDS, RETRIES_PER_SECOND, RETRY_BURST, WorkQueue
from runtime.clock import VirtualClock

KEYS = st.sampled_from(["a", "b", "c"])


class QueueMachine(RuleBasedStateMachine):
    """Whatever is done in whatever order: nothing that was added is lost, and no key is worked on twice at once."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock(0.0)
        self.queue: WorkQueue[str] = WorkQueue(self.clock)
        self.owed: set[str] = set()
        self.working: set[str] = set()

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.owed.add(key)

    @rule(most=st.integers(1, 3))
    def take(self, most: int) -> None:
        taken = self.queue.take(most)
        assert len(taken) <= most
        assert not self.working & set(taken), "worked on twice at once"
        assert set(taken) <= self.owed, "nobody asked for it"
        self.working |= set(taken)
        self.owed -= set(taken)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.discard(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def failed(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        assert self.queue.failed(key) > 0
        self.working.discard(key)
        self.owed.add(key)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget(key)
        self.owed.discard(key)
        self.working.discard(key)

    @rule(seconds=st.floats(0.0, 2_000.0))
    def wait(self, seconds: float) -> None:
        self.clock.advance_to(self.clock.now() + seconds)

    @invariant()
    def counts(self) -> None:
        assert len(self.queue) == len(self.owed | self.working)

    def teardown(self) -> None:
        for key in sorted(self.working):
            self.queue.done(key)
        self.clock.advance_to(self.clock.now() + LONGEST_SECONDS + 100.0)
        assert set(self.queue.take(10)) >= self.owed, "what was added comes up in the end"


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestQueue = QueueMachine.TestCase


def test_a_key_that_keeps_failing_is_tried_ever_more_rarely() -> None:
    clock = VirtualClock(0.0)
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a")
    pauses = []
    for _ in range(22):
        assert queue.take(1) == ["a"]
        pauses.append(queue.failed("a"))
        assert queue.take(1) == [], "not before its pause is over"
        clock.advance_to(clock.now() + pauses[-1])
    assert pauses[:4] == pytest.approx([0.005, 0.01, 0.02, 0.04])
    assert pauses[-1] == LONGEST_SECONDS
    queue.take(1)
    queue.done("a")
    queue.add("a")
    assert queue.take(1) == ["a"]
    assert queue.failed("a") == pytest.approx(0.005), "a success starts anew"


def test_a_store_that_refuses_everything_is_asked_at_the_rate_of_the_bucket() -> None:
    clock = VirtualClock(0.0)
    queue: WorkQueue[int] = WorkQueue(clock)
    for key in range(1_000):
        queue.add(key)
    tries = 0
    for _ in range(60):
        for key in queue.take(10_000):
            queue.failed(key)
            tries += 1
        clock.advance_to(clock.now() + 1.0)
    assert tries <= 1_000 + RETRY_BURST + 60 * RETRIES_PER_SECOND
    assert tries >= 1_000 + 50 * RETRIES_PER_SECOND, "but it is asked"


def test_a_change_while_it_is_worked_on_is_not_lost() -> None:
    queue: WorkQueue[str] = WorkQueue(VirtualClock(0.0))
    queue.add("a")
    assert queue.take(1) == ["a"]
    queue.add("a")
    assert queue.take(1) == [], "one at a time"
    queue.done("a")
    assert queue.take(1) == ["a"]

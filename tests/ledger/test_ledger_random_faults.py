"""Whatever comes in whatever order: every row is written, waiting or counted as lost, and order is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.ledger import (
    ActionId,
    ActuationEnd,
    ActuationRow,
    Ledger,
    PlanId,
    PlanRow,
    PolicyStateRow,
    ReasonRow,
)
from tests.ledger.places import Holder, PostgresPlace, SqlitePlace
from tests.ledger.postgres import Server

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("plan"), st.integers(0, 5)),
        st.tuples(st.just("bad plan"), st.just(0)),
        st.tuples(st.just("end"), st.integers(0, 30)),
        st.tuples(st.just("state"), st.integers(0, 2)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([1, 20])),
        st.tuples(st.just("lock"), st.just(0)),
        st.tuples(st.just("unlock"), st.just(0)),
        st.tuples(st.just("hide"), st.just(0)),
        st.tuples(st.just("show"), st.just(0)),
    ),
    max_size=40,
)


class World:
    """A ledger with a small queue, the faults, and the account of what was put in."""

    def __init__(self, place: SqlitePlace | PostgresPlace) -> None:
        self.place = place
        self.now = 1e9
        self.monotonic = 0.0
        self.ledger = Ledger(
            place.url,
            now=lambda: self.now,
            monotonic=lambda: self.monotonic,
            max_queued_rows=12,
            busy_timeout_seconds=0.0,
        )
        self.ledger.flush()
        self.holder: Holder | None = None
        self.hidden = False
        self.put = 0
        self.tick = 0
        self.states: dict[str, str] = {}

    def plan(self, reasons: int) -> None:
        plan = PlanId(1, "planner", self.tick)
        row = ReasonRow("MixChosen", "chosen", "ModelService", "shop/chat")
        self.ledger.plan(PlanRow(plan, 1e9 + self.tick), [row] * reasons)
        action = ActionId(1, "planner", self.tick, 0)
        self.ledger.actuations([ActuationRow(action, "Drain", "Node", "n", 1e9 + self.tick)])
        self.put += reasons + 2
        self.tick += 1

    def bad_plan(self, _: int) -> None:
        self.ledger.plan(PlanRow(PlanId(1, "planner", 10_000 + self.put), 1e9, units_used=2**70))
        self.put += 1

    def end(self, tick: int) -> None:
        self.ledger.ended(ActuationEnd(ActionId(1, "planner", tick, 0), "done", 1e9))
        self.put += 1

    def state(self, scope: int) -> None:
        self.states[str(scope)] = str(self.put)
        self.ledger.policy_state(PolicyStateRow("power", str(scope), "polca", 1, 1, 1e9, str(self.put)))

    def flush(self, _: int) -> None:
        self.ledger.flush()

    def wait(self, seconds: int) -> None:
        self.monotonic += seconds

    def lock(self, _: int) -> None:
        if self.holder is None and not self.hidden:
            self.holder = self.place.lock()

    def unlock(self, _: int) -> None:
        if self.holder is not None:
            self.holder.close()
            self.holder = None

    def hide(self, _: int) -> None:
        self.unlock(0)
        if not self.hidden:
            self.place.hide()
            self.hidden = True

    def show(self, _: int) -> None:
        if self.hidden:
            self.place.show()
            self.hidden = False


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> SqlitePlace:
    """An empty ledger's file, made once: migrating takes longer than a whole example."""
    place = SqlitePlace(tmp_path_factory.mktemp("empty") / "ledger.db")
    Ledger(place.url, now=lambda: 0.0).close()
    return place


@pytest.fixture(scope="module")
def empty_on_server(postgres: Server) -> Iterator[PostgresPlace]:
    """The same on a server, to be used as the template of others."""
    place = PostgresPlace(postgres)
    Ledger(place.url, now=lambda: 0.0).close()
    yield place
    place.remove()


@given(STEPS)
def test_no_row_of_a_file_vanishes_without_being_counted_and_what_is_written_is_in_order(
    empty: SqlitePlace, steps: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "here" / "ledger.db"
        path.parent.mkdir()
        path.write_bytes(empty.path.read_bytes())
        play(SqlitePlace(path), steps)


@settings(parent=settings.get_profile("brief"))
@given(STEPS)
def test_no_row_of_a_server_vanishes_without_being_counted_and_what_is_written_is_in_order(
    postgres: Server, empty_on_server: PostgresPlace, steps: list[tuple[str, int]]
) -> None:
    place = PostgresPlace(postgres, template=empty_on_server.name)
    try:
        play(place, steps)
    finally:
        place.remove()


def play(place: SqlitePlace | PostgresPlace, steps: list[tuple[str, int]]) -> None:
    world = World(place)
    for name, argument in steps:
        getattr(world, name.replace(" ", "_"))(argument)
    waiting = world.ledger.state()
    assert waiting.queued_rows <= 12 + len(world.states)
    world.unlock(0)
    world.show(0)
    world.wait(60)
    assert world.ledger.flush()
    after = world.ledger.state()
    assert (after.queued_rows, after.queued_bytes, after.problem) == (0, 0, "")
    assert set(after.lost_rows) <= {"overflow", "refused"}

    plans = world.ledger.reader.decisions(0, 1000, oldest_first=True)
    ticks = [plan.id.tick for plan in plans]
    assert ticks == sorted(set(ticks))
    stored = sum(1 for line in world.ledger.reader.decision_log())
    ends = sum(1 for name, _ in steps if name == "end")
    lost = sum(after.lost_rows.values())
    # An end changes a row and is none; all else is in the tables or counted.
    assert world.put - ends - lost <= stored <= world.put - ends
    if not lost:
        assert ticks == list(range(world.tick))
    assert {row.scope: row.state for row in world.ledger.reader.policy_states()} == world.states
    assert sum(gap.rows for gap in world.ledger.reader.gaps()) == lost
    assert world.ledger.close() == 0

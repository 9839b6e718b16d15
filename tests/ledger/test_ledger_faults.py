"""The database is locked, full, gone, damaged or not ours: the operator goes on, rows wait, nothing is lost in silence."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from controller.ledger import (
    ActionId,
    ActuationEnd,
    ActuationRow,
    Ledger,
    LedgerError,
    PlanId,
    PolicyStateRow,
)


def ticks(ledger: Ledger) -> list[int]:
    return [plan.id.tick for plan in ledger.reader.decisions(0, 100_000, oldest_first=True)]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "plimsoll.ledger"]


class Locked:
    """Another connection holds the write lock."""

    cause, says = "locked", "locked"

    def begin(self, path: Path, ledger: Ledger) -> None:
        self.holder = sqlite3.connect(path, isolation_level=None)
        self.holder.execute("BEGIN EXCLUSIVE")

    def end(self, path: Path, ledger: Ledger) -> None:
        self.holder.execute("ROLLBACK")
        self.holder.close()


class Full:
    """The disk takes no more pages: SQLite's own limit answers as a full disk does, on every connection."""

    cause, says = "full", "full"

    def begin(self, path: Path, ledger: Ledger) -> None:
        ledger._database.reset()
        with sqlite3.connect(path) as connection:
            self.pages = connection.execute("PRAGMA page_count").fetchone()[0]
        sa.event.listen(ledger._database._engine, "connect", self.limit)

    def end(self, path: Path, ledger: Ledger) -> None:
        sa.event.remove(ledger._database._engine, "connect", self.limit)

    def limit(self, connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {self.pages}")


class FolderGone:
    """The folder vanished and comes back as it was, as an unmounted disk does."""

    cause, says = "gone", "removed or replaced"

    def begin(self, path: Path, ledger: Ledger) -> None:
        path.parent.rename(path.parent.with_name("elsewhere"))

    def end(self, path: Path, ledger: Ledger) -> None:
        path.parent.with_name("elsewhere").rename(path.parent)


class Unwritable:
    """A folder stands where the file was: it cannot be opened by anybody, root included."""

    cause, says = "gone", "removed or replaced"

    def begin(self, path: Path, ledger: Ledger) -> None:
        self.kept = path.with_name("kept")
        self.kept.mkdir()
        for file in path.parent.glob(f"{path.name}*"):
            file.rename(self.kept / file.name)
        path.mkdir()

    def end(self, path: Path, ledger: Ledger) -> None:
        path.rmdir()
        for file in self.kept.iterdir():
            file.rename(path.with_name(file.name))


@pytest.mark.parametrize(
    "fault", [Locked(), Full(), FolderGone(), Unwritable()], ids=lambda f: type(f).__name__
)
def test_rows_wait_in_order_while_the_database_cannot_be_written_and_follow_when_it_can(
    fault: Locked | Full | FolderGone | Unwritable, ledger, story, hands, path, caplog
) -> None:
    caplog.set_level(logging.WARNING)
    story.tell(ledger, range(3))
    assert ledger.flush()
    fault.begin(path, ledger)
    for tick in range(3, 203):
        ledger.plan(story.plan(tick), [story.reason(sentence="x" * 500)])
        ledger.actuations(
            [ActuationRow(ActionId(1, "planner", tick, 0), "Drain", "Node", "n", story.start + tick)]
        )
        ledger.ended(ActuationEnd(ActionId(1, "planner", tick, 0), "done", 2.0))
        ledger.policy_state(PolicyStateRow("power", "row-1", "polca", 1, 1, 1.0, f'{{"tick":{tick}}}'))
        ledger.flush()
        hands.wait(1.0)
    state = ledger.state()
    assert state.queued_rows + state.written_rows >= 6 + 200 * 4 + 1
    assert state.queued_rows > 700
    assert set(state.failures) <= {fault.cause, "gone"}
    assert 10 < sum(state.failures.values()) < 60, "it is tried again, and not each time"
    assert fault.says in lines(caplog)[0]
    assert len(lines(caplog)) == 4, "one line when it begins, one a minute"

    fault.end(path, ledger)
    hands.wait(30.0)
    assert ledger.flush()
    after = ledger.state()
    assert (after.queued_rows, after.queued_bytes, after.lost_rows, after.problem) == (0, 0, {}, "")
    assert "again after" in lines(caplog)[-1]
    assert ticks(ledger) == list(range(203))
    assert ledger.reader.policy_states()[0].state == '{"tick":202}'
    told = ledger.reader.latest_decision("Node", "n")
    assert told is None
    found = ledger.reader.plan(PlanId(1, "planner", 150))
    assert found is not None
    assert found[2][0].outcome == "done"


def test_a_removed_file_is_begun_anew_and_only_what_it_held_is_gone(
    ledger, story, hands, path, caplog
) -> None:
    story.tell(ledger, range(3))
    ledger.flush()
    for file in path.parent.iterdir():
        file.unlink()
    story.tell(ledger, range(3, 8))
    ledger.flush()
    hands.wait(30.0)
    assert ledger.flush()
    assert ticks(ledger) == [3, 4, 5, 6, 7]
    assert "removed or replaced" in lines(caplog)[0]


def test_a_file_removed_while_a_batch_is_committed_takes_nothing_with_it(ledger, story, hands, path) -> None:
    """SQLite goes on writing to a deleted file without an error: the batch must not count as written."""
    ledger.flush()

    def remove(_: object) -> None:
        for file in path.parent.iterdir():
            file.unlink()

    sa.event.listen(ledger._database._engine, "commit", remove, once=True)
    story.tell(ledger, range(4))
    assert not ledger.flush()
    assert ledger.state().written_rows == 0
    hands.wait(30.0)
    assert ledger.flush()
    assert ticks(ledger) == [0, 1, 2, 3]


def test_beyond_the_limit_the_oldest_rows_go_and_are_counted_and_the_hole_is_written(
    open_ledger, story, hands, path
) -> None:
    ledger = open_ledger(max_queued_rows=100)
    ledger.flush()
    fault = Locked()
    fault.begin(path, ledger)
    story.tell(ledger, range(80))
    ledger.policy_state(PolicyStateRow("power", "row-1", "polca", 1, 1, 1.0, "{}"))
    state = ledger.state()
    assert (state.queued_rows, state.lost_rows) == (101, {"overflow": 60})
    fault.end(path, ledger)
    ledger.flush()
    assert ticks(ledger) == list(range(30, 80))
    assert len(ledger.reader.policy_states()) == 1, "a policy's state is never given up"
    (gap,) = ledger.reader.gaps()
    assert (gap.from_seconds, gap.until_seconds) == (story.start, story.start + 29)
    assert (gap.rows, gap.cause) == (60, "overflow")


def test_bytes_bound_the_queue_too_and_one_huge_plan_costs_itself_only(open_ledger, story) -> None:
    ledger = open_ledger(max_queued_bytes=20_000)
    ledger.plan(story.plan(0), [story.reason(sentence="x" * 30_000)])
    assert ledger.state().lost_rows == {"too_large": 2}
    for tick in range(1, 40):
        ledger.plan(story.plan(tick), [story.reason(sentence="x" * 1_000)])
    assert ledger.state().queued_bytes <= 20_000
    ledger.flush()
    kept = ticks(ledger)
    assert kept == list(range(kept[0], 40))
    assert ledger.reader.gaps()[0].cause == "several"
    assert ledger.state().lost_rows["overflow"] == 2 * (kept[0] - 1)


def test_a_row_that_the_database_refuses_costs_itself_only(ledger, story, caplog) -> None:
    story.tell(ledger, range(3))
    ledger.plan(story.plan(3, units_used=2**70), [story.reason()])
    ledger.plan(story.plan(4), [story.reason(code=None)])
    story.tell(ledger, range(5, 8))
    assert ledger.flush()
    assert ticks(ledger) == [0, 1, 2, 5, 6, 7]
    assert ledger.state().lost_rows == {"refused": 4}
    assert sum("given up" in line for line in lines(caplog)) == 2
    assert ledger.state().problem == ""


def test_a_caller_s_own_mistake_is_counted_and_logged_and_does_not_stop_it(ledger, caplog) -> None:
    ledger.plan("no plan")  # type: ignore[arg-type]
    ledger.record(PlanId(1, "planner", 1), 1.0, "text, not bytes")  # type: ignore[arg-type]
    assert ledger.flush()
    assert ledger.state().lost_rows == {"refused": 2}
    assert "could not be read" in lines(caplog)[0]


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        pytest.param("a\x00b", "a\ufffdb", id="a NUL, which PostgreSQL refuses"),
        pytest.param("a\ud800b", "a?b", id="a lone surrogate, which is no UTF-8"),
        pytest.param("'; DROP TABLE plans; --", "'; DROP TABLE plans; --", id="quotes and semicolons"),
        pytest.param("名前/サービス", "名前/サービス", id="any script"),
    ],
)
def test_any_name_is_stored_and_found_again(ledger, story, name: str, stored: str) -> None:
    ledger.plan(story.plan(1), [story.reason(name=name)])
    ledger.flush()
    told = ledger.reader.latest_decision("ModelService", name)
    assert told is not None
    assert told.name == told.reasons[0].row.subject_name == stored


def test_a_name_of_a_megabyte_is_cut_stays_distinct_and_is_found_by_its_full_name(ledger, story) -> None:
    one, other = "a" * 1_000_000, "a" * 1_000_000 + "b"
    ledger.plan(story.plan(1), [story.reason(name=one, detail='"' + "x" * 2_000_000 + '"')])
    ledger.flush()
    told = ledger.reader.latest_decision("ModelService", one)
    assert told is not None
    assert len(told.name) == 512
    assert told.reasons[0].row.detail == '{"clipped_bytes":2000002}'
    assert ledger.reader.latest_decision("ModelService", other) is None


def test_a_replay_record_beyond_its_bound_is_not_kept_and_says_so(open_ledger, caplog) -> None:
    ledger = open_ledger(max_record_bytes=1_000)
    assert not ledger.record(PlanId(1, "planner", 1), 1.0, b"x" * 1_001)
    assert "1001 bytes, more than 1000" in lines(caplog)[0]
    assert ledger.state().lost_rows == {"refused": 1}


def test_a_policy_s_state_too_large_to_keep_is_refused_whole_and_the_one_before_stays(ledger, caplog) -> None:
    def keep(text: str) -> None:
        ledger.policy_state(PolicyStateRow("planner", "all", "mix", 1, 1, 1.0, text))

    keep('{"good":1}')
    keep('"' + "x" * (16 * 1024 * 1024) + '"')
    ledger.flush()
    assert "more than 16777216" in caplog.text
    stored = ledger.reader.policy_state("planner", "all")
    assert stored is not None
    assert stored.state == '{"good":1}'
    assert ledger.state().lost_rows == {"refused": 1}


def test_a_damaged_file_is_left_alone_and_the_line_says_what_to_do(
    ledger, story, hands, path, caplog
) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"this is no database, whatever its name says. " * 100)
    story.tell(ledger, range(3))
    assert not ledger.flush()
    assert "move it away" in lines(caplog)[0]
    assert path.read_bytes().startswith(b"this is no database")
    path.rename(path.with_name("damaged"))
    hands.wait(30.0)
    assert ledger.flush()
    assert ticks(ledger) == [0, 1, 2]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write whatever the permissions say")
def test_a_folder_without_write_permission_keeps_rows_waiting(ledger, story, hands, path) -> None:
    path.parent.chmod(0o500)
    try:
        story.tell(ledger, range(3))
        assert not ledger.flush()
    finally:
        path.parent.chmod(0o700)
    hands.wait(30.0)
    assert ledger.flush()
    assert ticks(ledger) == [0, 1, 2]


def test_a_ledger_of_a_newer_version_is_not_touched(open_ledger, story, hands, path, caplog) -> None:
    first = open_ledger()
    first.flush()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    second = open_ledger()
    story.tell(second, range(2))
    assert not second.flush()
    assert "upgrade Plimsoll" in second.state().problem
    assert second.state().failures == {"unusable": 1}
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    hands.wait(30.0)
    assert second.flush()


def test_a_database_of_something_else_is_not_touched(open_ledger, path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE plans (holiday TEXT)")
    ledger = open_ledger()
    assert not ledger.flush()
    assert "tables of something else" in ledger.state().problem
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [
            ("plans",)
        ]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "give the path of a file"),
        ("   ", "give the path of a file"),
        ("sqlite://", "cannot be shared"),
        (":memory:", "cannot be shared"),
        ("mysql://host/db", "on SQLite or PostgreSQL, not on mysql"),
        ("postgresql+nodriver://host/db", "cannot use"),
        ("postgresql://host:port/db", "cannot be read"),
    ],
)
def test_a_url_that_can_never_work_is_an_error_at_once(url: str, sentence: str) -> None:
    with pytest.raises(LedgerError, match=sentence):
        Ledger(url, now=lambda: 0.0)


def test_no_password_is_ever_shown(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/x.db", now=lambda: 0.0)
    assert "x.db" in ledger.name
    ledger.close()
    with pytest.raises(LedgerError) as caught:
        Ledger("postgresql+nodriver://me:secret@host/db", now=lambda: 0.0)
    assert "secret" not in str(caught.value)


def test_closing_with_the_database_locked_ends_soon_and_says_what_is_lost(
    open_ledger, story, path, caplog
) -> None:
    ledger = open_ledger()
    ledger.flush()
    fault = Locked()
    fault.begin(path, ledger)
    story.tell(ledger, range(3))
    ledger.start(0.01)
    begun = time.monotonic()
    assert ledger.close(timeout_seconds=2.0) == 6
    assert time.monotonic() - begun < 5.0
    assert "6 rows are lost" in lines(caplog)[-1]
    fault.end(path, ledger)


def test_the_thread_writes_what_many_threads_queue_through_a_lock_that_comes_and_goes(
    path: Path, story, caplog
) -> None:
    """Real clocks, real thread: five writers of 200 plans each, while another process's lock comes and goes."""
    ledger = Ledger(str(path), now=time.time)
    ledger.flush()
    ledger.start(0.02)
    holder = sqlite3.connect(path, isolation_level=None, timeout=5.0)

    def tell(number: int) -> None:
        for tick in range(200):
            ledger.plan(story.plan(tick, f"loop-{number}"), [story.reason()])
            if tick % 50 == 0:
                time.sleep(0.02)

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    holder.execute("BEGIN IMMEDIATE")
    time.sleep(0.4)
    holder.execute("ROLLBACK")
    for thread in threads:
        thread.join()
    holder.close()
    deadline = time.monotonic() + 10
    while ledger.state().queued_rows and time.monotonic() < deadline:
        time.sleep(0.02)
    state = ledger.state()
    assert (state.written_rows, state.lost_rows) == (2000, {})
    for number in range(5):
        found = ledger.reader.decisions(0, 1000, loop=f"loop-{number}", oldest_first=True)
        assert [plan.id.tick for plan in found] == list(range(200))
    assert ledger.close() == 0


def test_a_killed_writer_leaves_whole_plans_and_the_next_one_goes_on(path: Path, open_ledger, story) -> None:
    """A transaction that was open when the process died is rolled back by SQLite; nothing half written is read."""
    ledger = open_ledger()
    story.tell(ledger, range(2))
    ledger.flush()
    dead = sqlite3.connect(path, isolation_level=None)
    dead.execute("BEGIN IMMEDIATE")
    dead.execute("DELETE FROM reasons")
    dead.close()
    second = open_ledger()
    assert second.recall().highest_epoch == 0
    story.tell(second, range(1, 4))
    second.flush()
    assert ticks(second) == [0, 1, 2, 3]
    told = second.reader.latest_decision("ModelService", "shop/chat")
    assert told is not None
    assert told.history[0].times == 4


def test_recall_from_a_ledger_that_cannot_answer_is_an_empty_memory(open_ledger, path: Path, caplog) -> None:
    path.mkdir(parents=True)
    memory = open_ledger().recall()
    assert (memory.highest_epoch, memory.states) == (0, ())
    assert "initial states" in lines(caplog)[-1]

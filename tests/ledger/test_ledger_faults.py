"""The database is locked, full, gone, damaged or not ours: the operator goes on, rows wait, nothing is lost in silence."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from urllib.parse import quote

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
from tests.ledger.outages import OUTAGES, Locked
from tests.ledger.places import Place, SqlitePlace
from tests.ledger.postgres import PASSWORD


def ticks(ledger: Ledger) -> list[int]:
    return [plan.id.tick for plan in ledger.reader.decisions(0, 100_000, oldest_first=True)]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "plimsoll.ledger"]


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        pytest.param(kind, fault, id=f"{kind} {type(fault).__name__}")
        for kind, faults in OUTAGES.items()
        for fault in faults
    ],
    indirect=["place"],
)
def test_rows_wait_in_order_while_the_database_cannot_be_written_and_follow_when_it_can(
    place, fault, ledger, story, hands, caplog
) -> None:
    caplog.set_level(logging.WARNING)
    story.tell(ledger, range(3))
    assert ledger.flush()
    fault.begin(place, ledger)
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
    assert set(state.failures) <= fault.causes | ({"gone"} if isinstance(place, SqlitePlace) else set())
    assert 10 < sum(state.failures.values()) < 60, "it is tried again, and not each time"
    assert fault.says in lines(caplog)[0]
    assert len(lines(caplog)) == 4, "one line when it begins, one a minute"
    assert not [line for line in lines(caplog) if PASSWORD in line or quote(PASSWORD, safe="") in line]
    with contextlib.suppress(LedgerError):
        ledger.reader.decisions(0, 1)

    fault.end(place, ledger)
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
    open_ledger, story, hands, place
) -> None:
    ledger = open_ledger(max_queued_rows=100)
    ledger.flush()
    fault = Locked()
    fault.begin(place, ledger)
    story.tell(ledger, range(80))
    ledger.policy_state(PolicyStateRow("power", "row-1", "polca", 1, 1, 1.0, "{}"))
    state = ledger.state()
    assert (state.queued_rows, state.lost_rows) == (101, {"overflow": 60})
    fault.end(place, ledger)
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


def test_a_ledger_of_a_newer_version_is_not_touched(open_ledger, story, hands, place, caplog) -> None:
    first = open_ledger()
    first.flush()
    place.sql("UPDATE alembic_version SET version_num = '9999'")
    second = open_ledger()
    story.tell(second, range(2))
    assert not second.flush()
    assert "upgrade Plimsoll" in second.state().problem
    assert second.state().failures == {"unusable": 1}
    place.sql("UPDATE alembic_version SET version_num = '0001'")
    hands.wait(30.0)
    assert second.flush()


def test_a_database_of_something_else_is_not_touched(open_ledger, place) -> None:
    place.sql("CREATE TABLE plans (holiday TEXT)")
    ledger = open_ledger()
    assert not ledger.flush()
    assert "tables of something else" in ledger.state().problem
    assert place.tables() == ["plans"]


def test_closing_with_the_database_locked_ends_soon_and_says_what_is_lost(
    open_ledger, story, place, caplog
) -> None:
    ledger = open_ledger()
    ledger.flush()
    fault = Locked()
    fault.begin(place, ledger)
    story.tell(ledger, range(3))
    ledger.start(0.01)
    begun = time.monotonic()
    assert ledger.close(timeout_seconds=2.0) == 6
    assert time.monotonic() - begun < 5.0
    assert "6 rows are lost" in lines(caplog)[-1]
    fault.end(place, ledger)


def test_the_thread_writes_what_many_threads_queue_through_a_lock_that_comes_and_goes(
    place: Place, story, caplog
) -> None:
    """Real clocks, real thread: five writers of 200 plans each, while another process's lock comes and goes."""
    ledger = Ledger(place.url, now=time.time)
    ledger.flush()
    ledger.start(0.02)

    def tell(number: int) -> None:
        for tick in range(200):
            ledger.plan(story.plan(tick, f"loop-{number}"), [story.reason()])
            if tick % 50 == 0:
                time.sleep(0.02)

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    holder = place.lock()
    time.sleep(0.4)
    holder.close()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 10
    while ledger.state().queued_rows and time.monotonic() < deadline:
        time.sleep(0.02)
    state = ledger.state()
    assert (state.written_rows, state.lost_rows) == (2000, {})
    for number in range(5):
        found = ledger.reader.decisions(0, 1000, loop=f"loop-{number}", oldest_first=True)
        assert [plan.id.tick for plan in found] == list(range(200))
    assert ledger.close() == 0


def test_a_killed_writer_leaves_whole_plans_and_the_next_one_goes_on(
    place: Place, open_ledger, story
) -> None:
    """A transaction that was open when the process died is rolled back; nothing half written is read."""
    ledger = open_ledger()
    story.tell(ledger, range(2))
    ledger.flush()
    place.leave_half_done("DELETE FROM reasons")
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

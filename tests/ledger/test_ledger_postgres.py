"""What only a server can do to a ledger: cut it off, say nothing, be shared by two leaders."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from controller.health import Checks, Probe
from controller.ledger import (
    ActionId,
    ActuationRow,
    EpochRow,
    Ledger,
    LedgerReader,
    LedgerUnavailable,
    PlanId,
    PolicyStateRow,
)
from controller.ledger import postgres as connections
from controller.metrics import Metrics
from tests.ledger.places import PostgresPlace
from tests.ledger.postgres import Server


def ticks(ledger: Ledger, loop: str = "") -> list[int]:
    return [plan.id.tick for plan in ledger.reader.decisions(0, 100_000, loop=loop, oldest_first=True)]


def test_a_connection_cut_while_nothing_is_written_costs_nothing(
    postgres, place: PostgresPlace, ledger, story
) -> None:
    story.tell(ledger, range(3))
    assert ledger.flush()
    assert ticks(ledger) == [0, 1, 2]
    assert place.end_sessions() >= 2
    story.tell(ledger, range(3, 6))
    assert ledger.flush()
    assert ledger.state().failures == {}
    assert ticks(ledger) == list(range(6))


def test_a_connection_cut_in_the_middle_of_a_batch_loses_nothing(
    postgres, place: PostgresPlace, open_ledger, story, hands
) -> None:
    """Held by a lock until its session is ended: the whole batch is rolled back, waits, and is written again."""
    ledger = open_ledger(url=postgres.url(place.name))
    story.tell(ledger, range(3))
    assert ledger.flush()
    holder = place.lock()
    story.tell(ledger, range(3, 300))
    writing = threading.Thread(target=ledger.flush)
    writing.start()
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    while not (found := postgres.sql(waiting)) and time.monotonic() < deadline:
        time.sleep(0.01)
    postgres.sql(f"SELECT pg_terminate_backend({found[0][0]}, 5000)")
    writing.join(10)
    holder.close()
    assert ledger.state().failures == {"unreachable": 1}
    hands.wait(30.0)
    assert ledger.flush()
    assert ticks(ledger) == list(range(300))


def test_a_commit_whose_answer_is_lost_is_written_again_without_doubling(
    postgres, place: PostgresPlace, ledger, story, hands
) -> None:
    ledger.flush()
    driver = psycopg.Connection.commit

    def commit_and_lose_the_answer(connection: psycopg.Connection[object]) -> None:
        driver(connection)
        connection.pgconn.finish()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    story.tell(ledger, range(5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections.Patient, "commit", commit_and_lose_the_answer)
        assert not ledger.flush()
    assert ledger.state().cause == "unreachable"
    hands.wait(30.0)
    assert ledger.flush()
    assert ticks(ledger) == list(range(5))
    assert place.sql("SELECT count(*) FROM reasons") == [(5,)]


def test_a_server_that_says_nothing_costs_its_silence_and_the_rows_wait(
    postgres, place: PostgresPlace, ledger, story, hands, monkeypatch, caplog
) -> None:
    """Stopped, it still takes connections and bytes: neither TCP nor the driver would notice for hours."""
    story.tell(ledger, range(3))
    assert ledger.flush()
    postgres.pause()
    monkeypatch.setattr(connections, "SILENCE_SECONDS", 0.3)
    try:
        story.tell(ledger, range(3, 6))
        begun = time.monotonic()
        assert not ledger.flush()
        # Then a new connection, which libpq gives three seconds.
        assert time.monotonic() - begun < 10.0
        assert ledger.state().cause == "unreachable"
        assert "timeout" in ledger.state().problem
        with pytest.raises(LedgerUnavailable, match=r"timeout|did not answer"):
            ledger.reader.decisions()
    finally:
        postgres.resume()
        monkeypatch.undo()  # a loaded machine may take longer than that to answer
    hands.wait(30.0)
    assert ledger.flush()
    assert ticks(ledger) == list(range(6))
    assert "again after" in caplog.text


def test_a_server_that_falls_silent_in_the_middle_of_an_answer_is_left(
    postgres, place: PostgresPlace, monkeypatch
) -> None:
    monkeypatch.setattr(connections, "SILENCE_SECONDS", 0.3)
    reader = LedgerReader(place.url)
    with (
        pytest.raises(LedgerUnavailable, match=r"did not answer in 0\.3 s"),
        reader._database.read() as connection,
    ):
        connection.exec_driver_sql("SELECT pg_sleep(60)")
    reader.close()


def test_an_answer_that_goes_on_coming_is_waited_for(postgres, place: PostgresPlace, monkeypatch) -> None:
    """A long batch over a slow line is no silence."""
    monkeypatch.setattr(connections, "SILENCE_SECONDS", 1.0)
    url = postgres.url(place.name)
    reader = LedgerReader(url)
    with reader._database.read() as connection:
        # Twenty rows of 64 kB, one each tenth of a second.
        rows = connection.exec_driver_sql(
            "SELECT n, repeat('x', 65536), pg_sleep(0.1) FROM generate_series(1, 20) AS n"
        ).all()
    assert len(rows) == 20
    reader.close()


def test_recall_from_a_server_that_says_nothing_is_an_empty_memory_soon(
    postgres, place: PostgresPlace, ledger, monkeypatch, caplog
) -> None:
    """A new leader must lead before its lease is over."""
    ledger.epoch(EpochRow(7, "op-a", "0.1.0", 1.0))
    assert ledger.recall().highest_epoch == 7
    postgres.pause()
    monkeypatch.setattr(connections, "SILENCE_SECONDS", 0.3)
    try:
        begun = time.monotonic()
        assert ledger.recall().highest_epoch == 0
        assert time.monotonic() - begun < 10.0
    finally:
        postgres.resume()
    assert "initial states" in caplog.text


def test_whoever_looks_is_told_while_it_is_away_and_when_it_is_back(
    postgres, place: PostgresPlace, ledger, story, hands
) -> None:
    """The page of checks, as the operator adds it, and the metrics."""
    checks, metrics = Checks(), Metrics("0.1.0")
    checks.add("ledger", lambda: ledger.state().problem, Probe.WARN)

    def told() -> tuple[str, str]:
        metrics.ledger(ledger.state())
        return checks.ready().text(), metrics.page()[0].decode()

    story.tell(ledger, range(2))
    assert ledger.flush()
    place.hide()
    story.tell(ledger, range(2, 5))
    assert not ledger.flush()
    page, samples = told()
    assert page.startswith("ok\nwarning: ledger: postgresql+psycopg://plimsoll:***@127.0.0.1:")
    assert "not currently accepting connections" in page
    assert "plimsoll_ledger_up 0.0" in samples
    assert "plimsoll_ledger_queue_rows 6.0" in samples
    assert 'plimsoll_ledger_failures_total{cause="unreachable"} 1.0' in samples
    place.show()
    hands.wait(30.0)
    assert ledger.flush()
    page, samples = told()
    assert page == "ok\nok: ledger\n"
    assert "plimsoll_ledger_up 1.0" in samples
    assert "plimsoll_ledger_queue_rows 0.0" in samples


def test_over_its_socket_too(postgres, place: PostgresPlace, open_ledger, story) -> None:
    ledger = open_ledger(url=postgres.socket_url(place.name))
    story.tell(ledger, range(3))
    assert ledger.flush()
    assert ticks(ledger) == [0, 1, 2]


def test_two_leaders_that_write_at_once_keep_their_own_plans_and_the_newer_state(
    place, open_ledger, story
) -> None:
    """The old leader, woken up, goes on telling; nothing of its epoch replaces anything of the new one."""
    leaders = {epoch: open_ledger(busy_timeout_seconds=5.0) for epoch in (1, 2)}
    leaders[1].flush()

    def lead(epoch: int) -> None:
        ledger = leaders[epoch]
        ledger.epoch(EpochRow(epoch, f"op-{epoch}", "0.1.0", story.start))
        for tick in range(100):
            ledger.plan(story.plan(tick, epoch=epoch), [story.reason(choice=str(epoch))])
            ledger.actuations(
                [ActuationRow(ActionId(epoch, "planner", tick, 0), "Drain", "Node", "n", story.start + tick)]
            )
            for scope in range(8) if epoch == 1 else reversed(range(8)):
                ledger.policy_state(
                    PolicyStateRow("power", f"row-{scope}", "polca", 1, epoch, 1.0, f'"{epoch}/{tick}"')
                )
            ledger.flush(force=True)

    threads = [threading.Thread(target=lead, args=(epoch,)) for epoch in leaders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for ledger in leaders.values():
        assert ledger.flush(force=True)
        assert ledger.state().lost_rows == {}
    reader = leaders[2].reader
    assert len(reader.decisions(0, 1000)) == 200
    assert [row.epoch for row in reader.epochs()] == [2, 1]
    assert {row.state for row in reader.policy_states()} == {'"2/99"'}
    for epoch in leaders:
        found = reader.plan(PlanId(epoch, "planner", 50))
        assert found is not None
        assert [reason.row.choice for reason in found[1]] == [str(epoch)]
        assert [action.id.plan.epoch for action in found[2]] == [epoch]


def test_names_as_long_as_they_may_be_fit_into_every_index(ledger, story, place) -> None:
    """PostgreSQL keeps at most 2.7 kB of a row in an index: bounds are of bytes, whatever the script."""
    name = "\N{BRAIN}" * 600
    ledger.plan(story.plan(1, loop=name), [story.reason(name=name, refs=((name, name),))])
    ledger.policy_state(PolicyStateRow(name, name, name, 1, 1, 1.0, "{}"))
    ledger.actuations([ActuationRow(ActionId(1, name, 1, 0), name, name, name, story.start)])
    assert ledger.flush()
    assert ledger.state().lost_rows == {}
    assert len(ledger.reader.policy_states()) == 1
    told = ledger.reader.policy_state(name, name)
    assert told is not None
    assert len(told.scope.encode()) <= 512


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A test run that is killed (-9) leaves no server: the kernel tells it."""
    script = (
        "import time; from tests.ledger.postgres import Server; server = Server(); "
        "print(server.folder, *server.processes(), flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    folder, *pids = starter.stdout.readline().split()
    try:
        assert len(pids) > 3
        starter.send_signal(signal.SIGKILL)
        starter.wait(10)
        starter.stdout.close()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["rm", "-r", folder], check=False)


def test_a_server_is_up_quickly_and_gone_when_it_is_removed() -> None:
    server = Server()
    pids = server.processes()
    assert server.sql("SHOW server_version_num")[0][0] >= "180000"
    server.remove()
    assert not server.folder.exists()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []

"""An operator process with its ledger on a PostgreSQL that is killed and comes back: it goes on, says so, loses nothing."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from tests.console.processes import bench, free_port, wait_for
from tests.ledger.places import PostgresPlace
from tests.ledger.postgres import PASSWORD, Server


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own, on loopback
        return str(answer.read().decode())


@pytest.mark.slow
def test_an_operator_outlives_its_ledger_s_server_and_tells_the_whole_story_afterwards(
    tmp_path: Path,
) -> None:
    server = Server()
    try:
        place = PostgresPlace(server)
        url = server.url(place.name)
        with bench(tmp_path) as made:
            operator = made.start(
                "operator", "--ledger", url, "--port", str(free_port()), "--health-port", "0"
            )
            health = operator.until_ready()["health"]
            epochs = "SELECT epoch FROM epochs WHERE ended_seconds IS NULL"
            wait_for("its leadership is written", lambda: _rows(place, epochs), 60.0, made.logs)
            assert "ok: ledger" in page(f"{health}/readyz")

            server.kill()
            told = wait_for("it says so", lambda: _warning(page(f"{health}/readyz")), 60.0, made.logs)
            assert told.startswith(
                f"warning: ledger: postgresql+psycopg://plimsoll:***@127.0.0.1:{server.port}/"
            )
            down = "plimsoll_ledger_up 0.0"
            wait_for("a metric says so", lambda: down in page(f"{health}/metrics"), 60.0, made.logs)
            none = "plimsoll_ledger_queue_rows 0.0"
            wait_for("rows wait", lambda: none not in page(f"{health}/metrics"), 60.0, made.logs)

            server.start()
            wait_for("it writes again", lambda: "ok: ledger" in page(f"{health}/readyz"), 60.0, made.logs)
            assert 'plimsoll_ledger_lost_rows_total{cause="overflow"}' not in page(f"{health}/metrics")
            operator.ask_to_end()
            assert operator.ended() == 0
            assert place.sql("SELECT count(*) FROM epochs WHERE ended_seconds IS NOT NULL") == [(1,)]
            assert place.sql("SELECT * FROM gaps") == [], "nothing is missing"
            assert "cannot write to" in operator.told()
            assert "again after" in operator.told()
            assert PASSWORD not in operator.told()
            assert PASSWORD.replace("/", "%2F") not in operator.told()
    finally:
        server.remove()


def _rows(place: PostgresPlace, statement: str) -> list[tuple[int]]:
    return place.sql(statement) if "epochs" in place.tables() else []


def _warning(readiness: str) -> str:
    return next((line for line in readiness.splitlines() if line.startswith("warning: ledger")), "")

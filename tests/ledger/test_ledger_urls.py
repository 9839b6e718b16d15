"""What a ledger's URL may say, and that no password in it is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.ledger import Ledger, LedgerError
from controller.ledger.database import Database


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        pytest.param("", "give the path of a file", id="nothing"),
        pytest.param("   ", "give the path of a file", id="blanks"),
        pytest.param("sqlite://", "cannot be shared", id="SQLite without a file"),
        pytest.param(":memory:", "cannot be shared", id="SQLite in memory"),
        pytest.param("mysql://host/db", "on SQLite or PostgreSQL, not on mysql", id="another database"),
        pytest.param("postgresql+nodriver://host/db", "cannot use the driver", id="an unknown driver"),
        pytest.param("postgresql+psycopg2://host/db", "through psycopg", id="another driver"),
        pytest.param("postgresql+psycopg_async://host/db", "through psycopg", id="a driver for coroutines"),
        pytest.param("postgres://me:s3cr3t@host/db", "not on postgres", id="the name that libpq knows too"),
        pytest.param("postgresql://host:port/db", "cannot be read", id="a port that is no number"),
        pytest.param("postgresql://me:a@b:s3cr3t@host/db", "@ as %40, / as %2F", id="an @ in the password"),
        pytest.param(
            "postgresql://me:a@12/s3cr3t@host/db", "@ as %40, / as %2F", id="an @ and a slash in it"
        ),
        pytest.param("postgresql://me:s3cr3t@host/db?colour=red", '"colour"', id="an unknown setting"),
        pytest.param(
            "postgresql://me:s3cr3t@db.example/x?sslmode=disable",
            "in the clear with sslmode=disable",
            id="no TLS",
        ),
        pytest.param(
            "postgresql://me:s3cr3t@/x?host=/run,db.example&sslmode=prefer",
            "sent to db.example",
            id="TLS perhaps",
        ),
    ],
)
def test_a_url_that_can_never_work_is_an_error_at_once(url: str, sentence: str) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger(url, now=lambda: 0.0)
    assert sentence in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sslmode"),
    [
        pytest.param(
            "postgresql://me@db.example/x", "verify-full", id="elsewhere: TLS, and its name is checked"
        ),
        pytest.param("postgresql://me@10.0.0.7,127.0.0.1/x", "verify-full", id="one of two elsewhere"),
        pytest.param(
            "postgresql://me@localhost/x?hostaddr=10.0.0.7", "verify-full", id="an address elsewhere"
        ),
        pytest.param("postgresql://me@db.example/x?sslmode=require", None, id="what the URL says counts"),
        pytest.param("postgresql://me@127.0.0.1/x", None, id="loopback"),
        pytest.param("postgresql://me@[::1]/x", None, id="loopback by its other name"),
        pytest.param("postgresql://me@/x?host=/run/postgresql", None, id="a socket"),
        pytest.param("postgresql:///x?sslmode=disable", None, id="the socket that libpq finds"),
    ],
)
def test_rows_leave_the_machine_only_under_tls(url: str, sslmode: str | None) -> None:
    assert added(url).get("sslmode") == sslmode


def test_a_host_named_by_the_environment_is_elsewhere_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    assert added("postgresql:///x").get("sslmode") == "verify-full"
    monkeypatch.setenv("PGSSLMODE", "require")
    assert "sslmode" not in added("postgresql:///x")


def test_what_the_url_says_about_patience_counts_and_the_rest_is_added() -> None:
    given = added("postgresql:///x?connect_timeout=9&options=-c%20lock_timeout%3D5")
    assert "connect_timeout" not in given
    assert given["application_name"] == "plimsoll-ledger"
    # The last word counts.
    assert given["options"] == "-c lock_timeout=2000 -c statement_timeout=4000 -c lock_timeout=5"


def added(url: str) -> dict[str, str]:
    """What a connection is told beyond the URL."""
    from controller.ledger import postgres  # noqa: PLC0415 - a quarter of a second

    return postgres._arguments(Database(url).url, writes=True)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://me:s3cr3t@127.0.0.1:1/x", id="in its place"),
        pytest.param("postgresql://me@127.0.0.1:1/x?password=s3cr3t", id="as a setting"),
        pytest.param("postgresql://me@127.0.0.1:1/x?sslpassword=s3cr3t&sslmode=disable", id="of a key"),
        pytest.param("postgresql://me:s3cr3t%2F%40@127.0.0.1:1/x", id="with codes"),
        pytest.param("postgresql://me:12/s3cr3t?4@127.0.0.1:1/x", id="with what should have a code"),
    ],
)
def test_no_password_is_ever_shown(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    ledger = Ledger(url, now=lambda: 0.0)
    assert "127.0.0.1:1/x" in ledger.name
    assert not ledger.flush()
    assert ledger.recall().states == ()
    ledger.close()
    state = ledger.state()
    assert state.cause == "unreachable"
    assert "refused" in state.problem
    assert "cannot write to postgresql+psycopg://me" in caplog.text
    shown = f"{ledger.name} {state} {caplog.text}"
    assert "s3cr3t" not in shown


def test_a_file_s_url_is_its_name(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/x.db", now=lambda: 0.0)
    assert ledger.name == f"sqlite:///{tmp_path}/x.db"
    ledger.close()

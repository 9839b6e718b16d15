"""Ways in which a ledger's database cannot be written for a while, each with its begin and its end.

`causes` are what the ledger may call it, `says` is in the line that it logs.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import Any

import psycopg
import sqlalchemy as sa

from controller.ledger import Ledger
from tests.ledger.places import Place, PostgresPlace, SqlitePlace
from tests.ledger.postgres import MAX_CONNECTIONS, PASSWORD, SUPERUSER, USER


class Locked:
    """Another connection holds the write lock."""

    causes, says = {"locked"}, "lock"

    def begin(self, place: Place, ledger: Ledger) -> None:
        self.holder = place.lock()

    def end(self, place: Place, ledger: Ledger) -> None:
        self.holder.close()


class Full:
    """The disk takes no more pages: SQLite's own limit answers as a full disk does, on every connection."""

    causes, says = {"full"}, "full"

    def begin(self, place: SqlitePlace, ledger: Ledger) -> None:
        ledger._database.reset()
        with sqlite3.connect(place.path) as connection:
            self.pages = connection.execute("PRAGMA page_count").fetchone()[0]
        sa.event.listen(ledger._database._engine, "connect", self.limit)

    def end(self, place: SqlitePlace, ledger: Ledger) -> None:
        sa.event.remove(ledger._database._engine, "connect", self.limit)

    def limit(self, connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {self.pages}")


class FolderGone:
    """The folder vanished and comes back as it was, as an unmounted disk does."""

    causes, says = {"gone"}, "removed or replaced"

    def begin(self, place: SqlitePlace, ledger: Ledger) -> None:
        place.path.parent.rename(place.path.parent.with_name("elsewhere"))

    def end(self, place: SqlitePlace, ledger: Ledger) -> None:
        place.path.parent.with_name("elsewhere").rename(place.path.parent)


class Unwritable:
    """A folder stands where the file was: it cannot be opened by anybody, root included."""

    causes, says = {"gone"}, "removed or replaced"

    def begin(self, place: SqlitePlace, ledger: Ledger) -> None:
        path = place.path
        self.kept = path.with_name("kept")
        self.kept.mkdir()
        for file in path.parent.glob(f"{path.name}*"):
            file.rename(self.kept / file.name)
        path.mkdir()

    def end(self, place: SqlitePlace, ledger: Ledger) -> None:
        path = place.path
        path.rmdir()
        for file in self.kept.iterdir():
            file.rename(path.with_name(file.name))


class Killed:
    """The server is killed (-9) and started again."""

    causes, says = {"unreachable"}, "refused"

    def begin(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.server.kill()

    def end(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.server.start()


class Standby:
    """The server comes back as one in recovery, as after a failover to somewhere else: reads only."""

    causes, says = {"readonly"}, "name the primary"

    def begin(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.server.become_standby()

    def end(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.server.become_primary()


class Crowded:
    """Others have every connection that the server gives."""

    causes, says = {"crowded"}, "no more connections"

    def begin(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.end_sessions()
        self.others = []
        with contextlib.suppress(psycopg.OperationalError):
            while len(self.others) < MAX_CONNECTIONS:
                self.others.append(place.server.connect())

    def end(self, place: PostgresPlace, ledger: Ledger) -> None:
        for other in self.others:
            other.close()
        # A backend ends a moment after its client: until then the superuser gets no connection either.
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError):
                if (
                    len(place.server.sql("SELECT 1 FROM pg_stat_activity WHERE backend_type LIKE 'client%'"))
                    < 5
                ):
                    return
        raise AssertionError("the connections are still held")


class WrongPassword:
    """Somebody changed the password."""

    causes, says = {"denied"}, "check user, password"

    def begin(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.server.sql(f"ALTER ROLE {USER} PASSWORD 'another'")
        place.end_sessions()

    def end(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.server.sql(f"ALTER ROLE {USER} PASSWORD '{PASSWORD}'")


class DatabaseAway:
    """The database is not there under its name."""

    causes, says = {"denied"}, "does not exist"

    def begin(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.end_sessions()
        place.server.sql(f"ALTER DATABASE {place.name} RENAME TO elsewhere")

    def end(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.server.sql(f"ALTER DATABASE elsewhere RENAME TO {place.name}")


class NoRights:
    """The user may not write any more."""

    causes, says = {"denied"}, "permission denied"

    def begin(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.server.sql(f"REASSIGN OWNED BY {USER} TO {SUPERUSER}", database=place.name)

    def end(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.sql_as_superuser(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {USER}")


class TablesGone:
    """Somebody dropped a table, and puts it back from a copy."""

    causes, says = {"schema"}, "its tables are missing"

    def begin(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.sql("ALTER TABLE plans RENAME TO taken_away")

    def end(self, place: PostgresPlace, ledger: Ledger) -> None:
        place.sql("ALTER TABLE taken_away RENAME TO plans")


OUTAGES: dict[str, list[Any]] = {
    "sqlite": [Locked(), Full(), FolderGone(), Unwritable()],
    "own postgresql": [
        *(Locked(), Killed(), Standby(), Crowded(), WrongPassword(), DatabaseAway(), NoRights(), TablesGone())
    ],
}

"""The connection to the ledger's database: SQLite file or PostgreSQL, by URL.

SQLite runs in WAL mode with explicit transactions (`BEGIN IMMEDIATE` for the writer, so that it waits for the lock
once and at the start), a short busy timeout (the writer has a buffer to wait in) and incremental vacuum. A file
that was deleted under an open connection still takes writes and loses them, so its identity on disk is compared
around every transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc as sae
from sqlalchemy.pool import QueuePool

from controller.ledger import migrate
from controller.ledger.faults import LedgerError, LedgerUnavailable, RowsRefused, classify

BUSY_TIMEOUT_SECONDS = 0.25

_SPECIAL = "Write special characters of user and password by their codes (@ as %40, / as %2F, : as %3A)"


def parse_url(url: str) -> sa.URL:
    """A database URL from `url`: a URL of SQLAlchemy, or the path of a SQLite file.

    Raises LedgerError for a database kept in memory, which two connections cannot share, for what is neither
    SQLite nor PostgreSQL, and for a driver that is not used here. The message never repeats the URL: what cannot
    be read may have its password anywhere.
    """
    if not url.strip():
        raise LedgerError("The ledger needs a database: give the path of a file, or a postgresql:// URL.")
    try:
        parsed = sa.make_url(url) if "://" in url else sa.URL.create("sqlite", database=url)
    except (sae.ArgumentError, ValueError) as error:
        raise LedgerError(
            "The ledger's URL cannot be read. Write it as sqlite:///FILE or "
            f"postgresql://USER:PASSWORD@HOST:PORT/DATABASE. {_SPECIAL}."
        ) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise LedgerError("A ledger in memory cannot be shared or read back: give it a file, sqlite:///FILE.")
    if backend not in {"sqlite", "postgresql"}:
        raise LedgerError(f"The ledger runs on SQLite or PostgreSQL, not on {backend}.")
    return parsed if backend == "sqlite" else _postgres_url(parsed)


def _postgres_url(parsed: sa.URL) -> sa.URL:
    if parsed.drivername not in {"postgresql", "postgresql+psycopg"}:
        raise LedgerError(
            f"The ledger cannot use the driver of {parsed.drivername}: it speaks to PostgreSQL through psycopg. "
            "Write postgresql://… or postgresql+psycopg://…."
        )
    if "@" in f"{parsed.host or ''}{parsed.database or ''}":
        # An @ in the password ends it early: what follows would be shown as the host's and the database's name.
        raise LedgerError(f"The ledger's URL has more than one @ before its database. {_SPECIAL}.")
    return parsed.set(drivername="postgresql+psycopg")


class Database:
    """One database. `begin()` gives a transaction for writing, `read()` one for reading; both raise LedgerError.

    `create=False` never makes a file or a table (readers); `busy_timeout_seconds` is how long SQLite waits for a
    lock before the caller is told.
    """

    def __init__(
        self, url: str, *, create: bool = True, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS
    ) -> None:
        self.url = parse_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.path = Path(str(self.url.database)).absolute() if self.sqlite else None
        self._create = create
        self._busy_milliseconds = int(busy_timeout_seconds * 1000)
        self._identity: tuple[int, int] | None = None
        self._ready = False
        try:
            self._engine = self._make_engine()
        except (ImportError, sae.ArgumentError) as error:
            raise LedgerError(f"The ledger cannot use {self.name}: {error}.") from error
        if create and self.path is not None:
            # Only here: a folder that vanishes later may be an unmounted disk, and must not be made anew.
            self._make_folder(self.path.parent)

    @property
    def name(self) -> str:
        """The URL for people, without its passwords."""
        shown = {key: "***" if "password" in key.lower() else value for key, value in self.url.query.items()}
        return self.url.set(query=shown).render_as_string(hide_password=True)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction for writing, on a database that is there and has this version's tables.

        Raises LedgerUnavailable or RowsRefused; in either case nothing of the block was written (or, when a
        commit got no answer, everything may have been: writers use keys that allow writing again).
        """
        try:
            self._check_identity()
            if not self._ready:
                self._prepare()
            with self._engine.begin() as connection:
                yield connection
            self._check_identity()
        except Exception as error:
            problem = classify(error, self.sqlite)
            if isinstance(problem, LedgerUnavailable) and problem.cause != "locked":
                self.reset()
            if problem is error:
                raise
            raise problem from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction for reading. Raises LedgerUnavailable, also when there is no ledger yet."""
        try:
            self._check_there()
            with self._engine.connect() as connection, connection.begin():
                self._identity = self._identity or self._identity_on_disk()
                yield connection
        except (sae.SQLAlchemyError, sqlite3.Error, OSError) as error:
            self.reset()
            raise classify(error, self.sqlite) from error

    def ensure(self) -> None:
        """Make sure that the database is there with this version's tables. Raises LedgerError."""
        if not self._ready:
            with self.begin():
                pass

    def reset(self) -> None:
        """Drop every connection; the next use opens the database anew and checks its tables."""
        self._ready = False
        self._identity = None
        self._engine.dispose()

    close = reset

    def revision(self) -> str | None:
        """The database's revision, None when it holds no ledger. Raises LedgerUnavailable."""
        with self.read() as connection:
            return migrate.revision_of(connection)

    def disk_bytes(self) -> int | None:
        """Bytes of a SQLite ledger on disk with its write-ahead log; None on a server, or while it is gone."""
        if self.path is None:
            return None
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        try:
            return sum(file.stat().st_size for file in files if file.exists())
        except OSError:
            return None

    def give_back_space(self, pages: int) -> None:
        """Return up to `pages` unused pages of a SQLite file to the disk; a server does so by itself."""
        if not self.sqlite:
            return
        try:
            with self._engine.connect() as connection:
                driver: Any = connection.connection.dbapi_connection
                # As a script: the statement frees a page per step, and only a script is stepped to its end.
                driver.executescript(f"PRAGMA incremental_vacuum({pages})")
        except (sae.SQLAlchemyError, sqlite3.Error) as error:
            raise classify(error, self.sqlite) from error

    def _prepare(self) -> None:
        try:
            with self._engine.begin() as connection:
                migrate.upgrade(connection)
        except Exception as error:
            problem = classify(error, self.sqlite)
            if isinstance(problem, RowsRefused):
                raise LedgerError(f"its tables cannot be brought to this version's: {problem}") from error
            raise problem from error
        self._identity = self._identity_on_disk()
        self._ready = True

    def _check_identity(self) -> None:
        if self._identity is not None and self._identity != self._identity_on_disk():
            raise LedgerUnavailable(
                "gone", f"the file {self.path} was removed or replaced; it is opened again"
            )

    def _check_there(self) -> None:
        if self._identity not in {None, self._identity_on_disk()}:
            self.reset()
        if self.path is not None and not self.path.exists():
            raise LedgerUnavailable(
                "gone", f"there is no ledger at {self.path}: start the operator, or name another file"
            )

    def _identity_on_disk(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            status = self.path.stat()
        except OSError:
            return (-1, -1)
        return status.st_dev, status.st_ino

    @staticmethod
    def _make_folder(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            # Not fatal: the first write says that the file cannot be opened, and the rows wait in memory.
            return

    def _make_engine(self) -> sa.Engine:
        if not self.sqlite:
            from controller.ledger import postgres  # noqa: PLC0415 - its driver takes 0.2 s to load

            return postgres.make_engine(self.url, writes=self._create)
        engine = sa.create_engine(
            self.url,
            poolclass=QueuePool,
            connect_args={"timeout": self._busy_milliseconds / 1000, "check_same_thread": False},
        )
        sa.event.listen(engine, "connect", self._set_up_sqlite)
        sa.event.listen(engine, "begin", self._begin_sqlite)
        return engine

    def _set_up_sqlite(self, connection: Any, _: object) -> None:
        # The driver must not open transactions by itself: it would leave table changes outside of them.
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            if self._create:
                # Takes effect only while the file is empty, which is when it matters.
                cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
                cursor.execute("PRAGMA journal_mode = WAL")
                cursor.execute("PRAGMA synchronous = NORMAL")
                cursor.execute("PRAGMA journal_size_limit = 67108864")
            else:
                cursor.execute("PRAGMA query_only = ON")
        finally:
            cursor.close()

    def _begin_sqlite(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if self._create else "BEGIN")

"""Where a test's ledger lives: a new SQLite file, or a new database on a PostgreSQL server."""

from __future__ import annotations

import itertools
import os
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa

from tests.ledger.postgres import USER, Server

# Waits of a lock are real time; a test of two hundred attempts wants them short.
IMPATIENT = "?options=-c%20lock_timeout%3D20"

_numbers = itertools.count()


class Holder(Protocol):
    """Another session of the same database."""

    def close(self) -> None: ...


class Place(ABC):
    """One new, empty database. `url` is what a ledger is given."""

    url: str

    @abstractmethod
    def sql(self, statement: str) -> list[Any]:
        """Run a statement in a session of its own; its rows as tuples."""

    def tables(self) -> list[str]:
        """Its tables, sorted."""
        return sorted(
            row[0] for row in self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        )

    @abstractmethod
    def lock(self) -> Holder:
        """A session that keeps others from writing until it is closed."""

    @abstractmethod
    def leave_half_done(self, statement: str) -> None:
        """A session that runs a statement and dies before it commits."""


class SqlitePlace(Place):
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)

    def sql(self, statement: str) -> list[Any]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
        rows = connection.execute(statement).fetchall()
        connection.close()
        return rows

    def tables(self) -> list[str]:
        return sorted(row[0] for row in self.sql("SELECT name FROM sqlite_master WHERE type = 'table'"))

    def lock(self) -> Holder:
        holder = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
        holder.execute("BEGIN EXCLUSIVE")
        return holder

    def leave_half_done(self, statement: str) -> None:
        dead = sqlite3.connect(self.path, isolation_level=None)
        dead.execute("BEGIN IMMEDIATE")
        dead.execute(statement)
        dead.close()

    def hide(self) -> None:
        """Make it unreachable under its name, whoever is connected."""
        self.path.parent.rename(self.path.parent.with_name("away"))

    def show(self) -> None:
        """Bring it back as it was."""
        self.path.parent.with_name("away").rename(self.path.parent)


class PostgresPlace(Place):
    """A database on a server of ours, owned by a user who may nothing else."""

    def __init__(self, server: Server, template: str = "template1") -> None:
        self.server = server
        self.name = f"ledger_{os.getpid()}_{next(_numbers)}"
        server.sql(f"CREATE DATABASE {self.name} OWNER {USER} TEMPLATE {template}")
        self.url = server.url(self.name, query=IMPATIENT)

    def sql(self, statement: str) -> list[Any]:
        return self.server.sql(f"SET ROLE {USER}", statement, database=self.name)

    def lock(self) -> Holder:
        return _locked(self.server.connect(self.name))

    def leave_half_done(self, statement: str) -> None:
        dead = self.server.connect(self.name)
        dead.execute("BEGIN")
        dead.execute(statement)
        self.server.sql(f"SELECT pg_terminate_backend({dead.info.backend_pid}, 5000)")
        dead.close()

    def hide(self) -> None:
        """Make it unreachable under its name, whoever is connected."""
        self.server.sql(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false")
        self.end_sessions()

    def show(self) -> None:
        """Bring it back as it was."""
        self.server.sql(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")

    def sql_as_superuser(self, statement: str) -> list[Any]:
        """Run a statement that its owner may not."""
        return self.server.sql(statement, database=self.name)

    def end_sessions(self) -> int:
        """Cut its connections from the server's side; how many there were."""
        return self.server.end_sessions(self.name)

    def remove(self) -> None:
        self.server.sql(f"DROP DATABASE {self.name} WITH (FORCE)")


class ForeignPlace(Place):
    """A database on somebody's server, whose user may create databases."""

    def __init__(self, url: str) -> None:
        self._given = sa.make_url(url)
        self.name = f"plimsoll_test_{os.getpid()}_{next(_numbers)}"
        self._connect(self._given.database or "postgres", f"CREATE DATABASE {self.name}").close()
        self.url = self._given.set(drivername="postgresql+psycopg", database=self.name).render_as_string(
            False
        )
        self.url += ("&" if self._given.query else "") + IMPATIENT.removeprefix(
            "?" if self._given.query else ""
        )

    def sql(self, statement: str) -> list[Any]:
        connection = self._connect(self.name)
        cursor = connection.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    def lock(self) -> Holder:
        return _locked(self._connect(self.name))

    def leave_half_done(self, statement: str) -> None:
        dead = self._connect(self.name, "BEGIN", statement)
        dead.pgconn.finish()

    def remove(self) -> None:
        self._connect(self._given.database or "postgres", f"DROP DATABASE {self.name} WITH (FORCE)").close()

    def _connect(self, database: str, *statements: str) -> psycopg.Connection[Any]:
        url = self._given.set(drivername="postgresql", database=database)
        connection = psycopg.connect(url.render_as_string(False), autocommit=True)
        for statement in statements:
            connection.execute(statement)
        return connection


class _Lock:
    """A lock of tables; it is free when `close` returns, which the end of a session by itself does not promise."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self._session = session

    def close(self) -> None:
        self._session.execute("ROLLBACK")
        self._session.close()


def _locked(holder: psycopg.Connection[Any]) -> Holder:
    names = [row[0] for row in holder.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    holder.execute("BEGIN")
    holder.execute(f"LOCK TABLE {', '.join(names)} IN EXCLUSIVE MODE")
    return _Lock(holder)

"""The migrations make exactly the tables that the code uses, wherever they start."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import postgresql

from controller.ledger import LedgerError, entries, migrate, tables
from controller.ledger.database import Database
from tests.ledger.places import Place


@pytest.fixture
def database(place: Place):
    made = Database(place.url)
    yield made
    made.close()


def test_migrating_an_empty_database_gives_the_tables_of_the_code(database: Database) -> None:
    with database.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
    assert database.revision() == migrate.head()


def test_a_column_that_no_migration_makes_is_noticed(database: Database) -> None:
    """The comparison above can fail: it sees a column that only the code has."""
    with database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE plans DROP COLUMN objective")
        context = MigrationContext.configure(connection)
        assert [step[0] for step in compare_metadata(context, tables.metadata)] == ["add_column"]


def test_migrating_again_changes_nothing(database: Database) -> None:
    with database.begin() as connection:
        assert not migrate.upgrade(connection)


def test_down_and_up_again_leaves_the_same_tables(database: Database) -> None:
    with database.begin() as connection:
        before = schema(connection)
        command.downgrade(migrate.config(connection), "base")
        assert set(sa.inspect(connection).get_table_names()) == {"alembic_version"}
        command.upgrade(migrate.config(connection), "head")
        assert schema(connection) == before


def schema(connection: sa.Connection) -> list[str]:
    """Every column, key and index with all that the database says of it."""
    asked = sa.inspect(connection)
    return [
        f"{table}: {each}"
        for table in sorted(asked.get_table_names())
        for each in (
            *asked.get_columns(table),
            asked.get_pk_constraint(table),
            *sorted(asked.get_indexes(table), key=lambda index: str(index["name"])),
        )
    ]


def test_a_migration_that_fails_half_way_leaves_nothing(place: Place, database: Database) -> None:
    made = []

    def stop_at_the_fifth(*args: object) -> None:
        if str(args[2]).lstrip().startswith("CREATE TABLE"):
            made.append(args[2])
            if len(made) == 5:
                raise KeyboardInterrupt

    sa.event.listen(database._engine, "before_cursor_execute", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt), database.begin():
        pass
    assert place.tables() == []


def test_operators_that_start_at_once_on_an_empty_database_all_get_their_tables(place: Place) -> None:
    # Not the impatient one: here they wait for each other.
    url = place.url.partition("?")[0]
    databases = [Database(url, busy_timeout_seconds=5.0) for _ in range(4)]
    failed: list[LedgerError] = []

    def ensure(database: Database) -> None:
        try:
            database.ensure()
        except LedgerError as error:
            failed.append(error)

    threads = [threading.Thread(target=ensure, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {database.revision() for database in databases} == {migrate.head()}
    for database in databases:
        database.close()


@pytest.mark.parametrize("name", sorted(entries.STATEMENTS))
def test_every_statement_compiles_for_postgresql_too(name: str) -> None:
    statement = entries.STATEMENTS[name]("postgresql")
    text = str(statement.compile(dialect=postgresql.dialect()))
    assert text.startswith(("INSERT INTO", "UPDATE"))
    assert ("ON CONFLICT" in text) == text.startswith("INSERT")


def test_names_are_compared_by_their_bytes_on_a_server_too(database: Database) -> None:
    """An index by a language's order is spoilt when the server's library learns the language better."""
    with database.begin() as connection:
        asked = sa.inspect(connection)
        collations = {
            f"{table}.{column['name']}": getattr(column["type"], "collation", None)
            for table in tables.metadata.tables
            for column in asked.get_columns(table)
            if getattr(column["type"], "length", None)
        }
    assert len(collations) > 25
    expected = "C" if connection.dialect.name == "postgresql" else None
    assert {name: it for name, it in collations.items() if it != expected} == {}


def test_the_file_is_set_up_for_a_writer_and_readers_beside_it(path: Path, database: Database) -> None:
    with database.begin() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "auto_vacuum", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 1, "auto_vacuum": 2, "busy_timeout": 250}

"""Bringing a database to this version's tables, at start and without a command to type."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from controller.ledger.faults import LedgerError
from controller.ledger.tables import metadata

MIGRATIONS = Path(__file__).with_name("migrations")

# Any constant will do, as long as every operator uses the same: PostgreSQL's advisory lock while migrating.
_LOCK_KEY = 0x504C494D

# Alembic hands the migration environment its connection through a module, so one upgrade at a time per process.
_one_at_a_time = threading.Lock()


def config(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration for the migrations shipped inside this package."""
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    settings.attributes["connection"] = connection
    return settings


def head() -> str:
    """The revision this code reads and writes. Raises LedgerError when the installation has no migrations."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    if revision is None:
        raise LedgerError(f"No migration found under {MIGRATIONS}: install Plimsoll again.")
    return revision


def revision_of(connection: sa.Connection) -> str | None:
    """The revision of the database behind `connection`, or None when it holds no ledger yet."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: sa.Connection) -> bool:
    """Bring the database to `head()` inside the caller's transaction; True when anything had to be done.

    Raises LedgerError when the database was written by a newer version of the code, which must not be touched.
    """
    with _one_at_a_time:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
        current, target = revision_of(connection), head()
        if current == target:
            return False
        if current is not None and current not in known_revisions():
            raise LedgerError(
                f"The ledger is of revision {current}, which this version of Plimsoll (revision {target}) does not "
                "know: upgrade Plimsoll, or name another database."
            )
        if current is None:
            _refuse_foreign(connection)
        command.upgrade(config(connection), "head")
        return True


def known_revisions() -> set[str]:
    """Every revision this code can upgrade from."""
    return {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}


def _refuse_foreign(connection: sa.Connection) -> None:
    taken = sorted(set(sa.inspect(connection).get_table_names()) & set(metadata.tables))
    if taken:
        raise LedgerError(
            f"The database has tables of something else under the ledger's names ({', '.join(taken)}): "
            "name another database."
        )

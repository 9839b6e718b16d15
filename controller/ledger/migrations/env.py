"""Alembic's environment: migrates the connection it is handed, inside that connection's transaction."""

from alembic import context

from controller.ledger.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("The ledger's migrations run through controller.ledger.migrate.upgrade(connection).")
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
context.run_migrations()

"""Alembic migrations of the ledger, run by `controller.ledger.migrate`."""

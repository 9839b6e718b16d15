"""Tells people what was decided and why: events, conditions and status, and rows of the ledger."""

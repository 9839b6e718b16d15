"""Reading the operator's ledger from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.ledger.faults import LedgerError
from controller.ledger.queries import LedgerReader


@contextmanager
def reading(ledger: str) -> Iterator[LedgerReader]:
    """A reader of the ledger at a path or URL. Raises LedgerError when there is no such file, or as the reader does."""
    if "://" not in ledger and not Path(ledger).exists():
        raise LedgerError(
            f"{ledger}: no such ledger. Run `plimsoll demo` first, or give the operator's with --ledger."
        )
    reader = LedgerReader(ledger)
    try:
        yield reader
    finally:
        reader.close()

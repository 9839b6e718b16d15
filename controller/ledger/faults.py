"""What can go wrong with the ledger's database, sorted by what to do about it.

A database that is locked, full or gone comes back: keep the rows and try again. A row that the database refuses
never becomes writable: give it up and count it. Everything else hangs on telling the two apart.
"""

from __future__ import annotations

import sqlite3

import sqlalchemy.exc as sae


class LedgerError(Exception):
    """The ledger cannot be used as asked; the message says why and what to do."""


class LedgerUnavailable(LedgerError):
    """The database does not answer now and may again later.

    `cause` is one of `locked`, `full`, `gone`, `readonly`, `corrupt`, `schema`, `unreachable`: a closed set, so it
    may be a metric label.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class RowsRefused(LedgerError):
    """The database answered, and refuses these rows for what they contain."""


# What SQLite says, what we call it. Looked up in this order in the lower-cased message.
_SQLITE_SIGNS: tuple[tuple[str, str], ...] = (
    ("locked", "locked"),
    ("busy", "locked"),
    ("is full", "full"),
    ("unable to open", "gone"),
    ("no such file", "gone"),
    ("disk i/o error", "gone"),
    ("readonly", "readonly"),
    ("not a database", "corrupt"),
    ("malformed", "corrupt"),
    ("no such table", "schema"),
    ("no such column", "schema"),
    ("has no column", "schema"),
)

_ADVICE = {
    "locked": "another process holds it; it is tried again",
    "full": "free space on its disk; writing goes on by itself",
    "gone": "its file or folder cannot be opened; writing goes on by itself when it is back",
    "readonly": "it may only be read; make it writable",
    "corrupt": "the file is damaged; move it away and a new ledger is begun",
    "schema": "its tables are missing or of another version",
    "unreachable": "it does not answer as it should; it is tried again",
}

_LONGEST_MESSAGE = 300

# A row of ours can only be refused for its content through these.
_CONTENT = (sae.DataError, sae.IntegrityError)


def classify(error: BaseException, sqlite: bool) -> LedgerError:
    """The ledger's own error for whatever a database call raised, ready to be raised from it."""
    if isinstance(error, LedgerError):
        return error
    original = error.orig if isinstance(error, sae.DBAPIError) and error.orig is not None else error
    # The first line: a server goes on with the statement and the row's content.
    text = (str(original).strip().splitlines() or [type(original).__name__])[0][:_LONGEST_MESSAGE]
    if _is_refusal(error, original, sqlite):
        return RowsRefused(f"the database refuses a row: {text}")
    cause = _cause(text.lower(), sqlite)
    return LedgerUnavailable(cause, f"{text} ({_ADVICE[cause]})")


def _is_refusal(error: BaseException, original: BaseException, sqlite: bool) -> bool:
    if isinstance(error, sae.DBAPIError):
        if error.connection_invalidated:
            return False
        # SQLite reports a value it cannot bind as one of these; a server reports its own state with them.
        bind = sqlite and isinstance(error, (sae.ProgrammingError, sae.InterfaceError))
        return bind or isinstance(error, _CONTENT)
    if isinstance(original, sqlite3.Error):
        return isinstance(original, (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError))
    return not isinstance(original, (OSError, sae.DisconnectionError, sae.TimeoutError, sae.NoSuchTableError))


def _cause(text: str, sqlite: bool) -> str:
    if sqlite:
        return next((cause for sign, cause in _SQLITE_SIGNS if sign in text), "unreachable")
    if "read-only" in text:
        return "readonly"
    if "no space left" in text or "disk full" in text:
        return "full"
    if "does not exist" in text and "relation" in text:
        return "schema"
    return "locked" if "lock timeout" in text or "deadlock" in text else "unreachable"

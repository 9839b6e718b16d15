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

    `cause` is one of `locked`, `full`, `gone`, `readonly`, `corrupt`, `schema`, `denied`, `crowded`, `unreachable`:
    a closed set, so it may be a metric label.
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

# What PostgreSQL says, what we call it: SQLSTATE (appendix A of its manual), the longest beginning that fits.
_SERVER_STATES = {
    "25006": "readonly",
    "28": "denied",
    "3D": "denied",
    "40": "locked",
    "42501": "denied",
    "42": "schema",
    "3F": "schema",
    "53100": "full",
    "53300": "crowded",
    "55P03": "locked",
    "57014": "locked",
    "XX001": "corrupt",
    "XX002": "corrupt",
}

# A connection that was never made has no SQLSTATE, only the server's sentence.
_SERVER_SIGNS: tuple[tuple[str, str], ...] = (
    ("authentication failed", "denied"),
    ("no password supplied", "denied"),
    ("no pg_hba.conf entry", "denied"),
    ("is not permitted to log in", "denied"),
    ("permission denied for database", "denied"),
    ("does not exist", "denied"),
    ("too many", "crowded"),
    ("remaining connection slots", "crowded"),
    ("read-only", "readonly"),
    ("hot standby", "readonly"),
    ("no space left", "full"),
)

# Refused for what a row contains: data, constraints, and a key too long for an index.
_SERVER_REFUSALS = ("22", "23", "54")

_ADVICE = {
    "locked": "another process holds it; it is tried again",
    "full": "free space on its disk; writing goes on by itself",
    "gone": "its file or folder cannot be opened; writing goes on by itself when it is back",
    "readonly": "it may only be read; make it writable",
    "corrupt": "the file is damaged; move it away and a new ledger is begun",
    "schema": "its tables are missing or of another version",
    "denied": "check user, password, database and what the user may do there; it is tried again",
    "crowded": "the server gives no more connections; raise its limit or end some; it is tried again",
    "unreachable": "it does not answer as it should; it is tried again",
}

_SERVER_ADVICE = {
    "locked": "the server took too long or another session holds a lock; it is tried again",
    "readonly": "the server is a standby or takes no writes; name the primary; it is tried again",
    "corrupt": "the server's files are damaged; restore them; it is tried again",
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
    state = "" if sqlite else str(getattr(original, "sqlstate", None) or "")
    if _is_refusal(error, original, sqlite, state):
        return RowsRefused(f"the database refuses a row: {text}")
    if sqlite:
        cause = next((cause for sign, cause in _SQLITE_SIGNS if sign in text.lower()), "unreachable")
        return LedgerUnavailable(cause, f"{text} ({_ADVICE[cause]})")
    cause = _server_cause(text.lower(), state)
    return LedgerUnavailable(cause, f"{text} ({_SERVER_ADVICE.get(cause, _ADVICE[cause])})")


def _is_refusal(error: BaseException, original: BaseException, sqlite: bool, state: str) -> bool:
    if state:
        return state.startswith(_SERVER_REFUSALS)
    if isinstance(error, sae.DBAPIError):
        if error.connection_invalidated:
            return False
        # SQLite reports a value it cannot bind as one of these; a server reports its own state with them.
        bind = sqlite and isinstance(error, (sae.ProgrammingError, sae.InterfaceError))
        return bind or isinstance(error, _CONTENT)
    if isinstance(original, sqlite3.Error):
        return isinstance(original, (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError))
    return not isinstance(original, (OSError, sae.DisconnectionError, sae.TimeoutError, sae.NoSuchTableError))


def _server_cause(text: str, state: str) -> str:
    if state:
        return next((_SERVER_STATES[state[:n]] for n in (5, 2) if state[:n] in _SERVER_STATES), "unreachable")
    return next((cause for sign, cause in _SERVER_SIGNS if sign in text), "unreachable")

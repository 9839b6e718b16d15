"""The ledger on a PostgreSQL server: what its URL may say, and connections that never wait for ever.

Imported only for a PostgreSQL URL: the driver takes a fifth of a second to load. The server ends a statement after
4 s and a wait for a lock after 2 s; that covers a server that works. One that is stopped, cut off or swapped out
says nothing at all, and neither TCP nor libpq notices while the kernel acknowledges: so a connection that has been
silent for 5 s in the middle of an answer is closed from this side.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg import pq
from sqlalchemy.pool import QueuePool

from controller.ledger.faults import LedgerError

SILENCE_SECONDS = 5.0

# What the URL does not say itself.
_DEFAULTS = {
    "application_name": "plimsoll-ledger",
    "connect_timeout": "3",
    "tcp_user_timeout": "5000",
}

# Modes in which libpq talks in the clear, or would when the server asks for it.
_CLEAR_MODES = frozenset({"", "disable", "allow", "prefer"})

_Answer = TypeVar("_Answer")


class Patient(psycopg.Connection[Any]):
    """A connection that waits for an answer only as long as something comes."""

    def wait(
        self,
        gen: Generator[Any, Any, _Answer],
        interval: float = 0.1,
        timeout: float | None = None,
    ) -> _Answer:
        """Wait as the driver does; raises psycopg.OperationalError after `SILENCE_SECONDS` without a byte."""
        return super().wait(self._while_it_talks(gen), interval, timeout)

    def _while_it_talks(self, gen: Generator[Any, Any, _Answer]) -> Generator[Any, Any, _Answer]:
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENCE_SECONDS:
                    # What the server still does with the statement is open: nothing more may be asked on this.
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server did not answer in {SILENCE_SECONDS:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: _Answer = end.value
            return answer


def make_engine(url: sa.URL, *, writes: bool) -> sa.Engine:
    """The connections to the server of `url`, which only read unless it `writes`.

    Raises LedgerError for a URL that can never work.
    """
    engine = sa.create_engine(
        url,
        poolclass=QueuePool,
        pool_size=2,
        pool_timeout=SILENCE_SECONDS,
        pool_pre_ping=True,
        connect_args=_arguments(url, writes),
    )

    @sa.event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, given: list[Any], named: dict[str, Any]) -> Patient:
        return Patient.connect(*given, **named)

    return engine


def _arguments(url: sa.URL, writes: bool) -> dict[str, str]:
    """What is added to the URL's own words. Raises LedgerError."""
    dialect = url.get_dialect()()
    given = dict(dialect.create_connect_args(url)[1])
    try:
        psycopg.conninfo.make_conninfo(**given)
    except psycopg.Error as error:
        raise LedgerError(
            f"The ledger's URL has a setting that PostgreSQL does not know: {error}."
        ) from error
    added = {name: value for name, value in _DEFAULTS.items() if name not in given}
    said = ["-c lock_timeout=2000 -c statement_timeout=4000", given.get("options", "")]
    if not writes:
        said.append("-c default_transaction_read_only=on")
    added["options"] = " ".join(filter(None, said))
    return added | _encryption(given)


def _encryption(given: dict[str, Any]) -> dict[str, str]:
    """TLS wherever rows leave this machine. Raises LedgerError for a URL that asks for the opposite."""
    # With the environment's PGHOST, PGSSLMODE and service file, which libpq reads too.
    told = {each.keyword.decode(): (each.val or b"").decode() for each in pq.Conninfo.get_defaults()}
    meant = told | {name: str(value) for name, value in given.items()}
    hosts = f"{meant.get('host', '')},{meant.get('hostaddr', '')}".split(",")
    away = [host for host in hosts if not _is_here(host)]
    if not away or meant.get("sslmode", "") not in _CLEAR_MODES:
        return {}
    if "sslmode" in given:
        raise LedgerError(
            f"The ledger would be sent to {away[0]} in the clear with sslmode={given['sslmode']}: write "
            "sslmode=verify-full, and sslrootcert=FILE (or sslrootcert=system) for the authority to trust."
        )
    return {"sslmode": "verify-full"}


def _is_here(host: str) -> bool:
    """Whether a host is this machine: a socket's folder, or loopback."""
    return host.startswith(("/", "@", "127.")) or host in {"", "localhost", "::1"}

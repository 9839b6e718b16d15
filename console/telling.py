"""How commands speak: faults as one sentence with exit code 2, results for people or as JSON."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

COLOURS = {
    "serving": "green", "ready": "green", "running": "green", "active": "green", "succeeded": "green",
    "done": "green", "true": "green", "starting": "yellow", "pending": "yellow", "waiting": "yellow",
    "degraded": "yellow", "atzero": "cyan", "unknown": "yellow", "refused": "red", "failed": "red",
    "lost": "red", "notready": "red", "false": "red", "warning": "yellow",
}  # fmt: skip

PIPE_COLUMNS = 400


class Refused(Exception):
    """What was asked cannot be done; the text is the sentence for the person who asked."""


def errors() -> Console:
    """Where people are told what went wrong, and what goes on beside a program's output."""
    return Console(stderr=True, highlight=False)


def people() -> Console:
    """Where results for people go; into a pipe or a file, lines are as long as they need to be."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_COLUMNS)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Faults that a person can do something about end the command with a sentence on stderr and exit code 2."""
    try:
        yield
    except Refused as error:
        sentence = str(error)
    except Exception as error:
        sentence = _sentence(error) or ""
        if not sentence:
            raise
    else:
        return
    errors().print(f"[red]{escape(sentence)}[/red]", soft_wrap=True)
    raise typer.Exit(2)


def _sentence(error: Exception) -> str | None:
    """The sentence of an error that is one; None for a defect of ours. The imports cost nothing: they raised it."""
    from controller.resources.manifests import ManifestError
    from controller.store.errors import StoreError
    from runtime.authority import AuthorityError
    from runtime.ciphers import TransportUnsafe

    if isinstance(error, StoreError):
        return f"{error.message} ({error.code} {error.reason})"
    if isinstance(error, ManifestError | AuthorityError | TransportUnsafe):
        return str(error)
    if type(error).__name__ in {
        "LedgerError",
        "LedgerUnavailable",
        "ClientError",
        "ControlPlaneError",
        "DriverError",
        "PolicyConfigError",
    }:
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return None


def print_json(body: Any) -> None:
    """One JSON value on standard output, flushed: a program may wait for it."""
    sys.stdout.write(json.dumps(body, separators=(",", ":"), sort_keys=False) + "\n")
    sys.stdout.flush()


def chosen(what: str, given: str, allowed: Iterable[str], shown: Iterable[str] = ()) -> str:
    """The value given, if it is one of those allowed. Raises Refused with the nearest, naming all or those `shown`."""
    listed = list(allowed)
    if given in listed:
        return given
    close = difflib.get_close_matches(given[:100], listed, n=1)
    hint = f"; did you mean {close[0]}?" if close else ";"
    raise Refused(f"There is no {what} {given[:100]!r}{hint} choose one of {', '.join(shown or listed)}.")


def coloured(word: str) -> str:
    """A state in one word, in the colour of what it means; safe for markup."""
    colour = COLOURS.get(word.lower())
    return f"[{colour}]{escape(word)}[/{colour}]" if colour else escape(word)


def host_and_port(text: str, what: str) -> tuple[str, int]:
    """`HOST:PORT` as its parts. Raises Refused."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Refused(f"{what} {text[:100]!r} is no address: write HOST:PORT, such as 127.0.0.1:7443.")
    return host, int(port)

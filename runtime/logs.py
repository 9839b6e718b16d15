"""Logging for every process: one line a record, facts as fields, secrets never.

Library code logs through `logging.getLogger(__name__)` with facts in `extra={"facts": {...}}`; a program calls
`configure` once. For people the line is text, for collectors JSON.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import sys
from collections.abc import Mapping
from typing import TextIO

import msgspec

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"(password|passwd|secret|token$|private|key_pem|api_?key|authorization)", re.IGNORECASE
)
_SECRET_TEXT = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
    re.compile(r"\bBearer\s+[-\w.~+/]+=*", re.IGNORECASE),
    re.compile(r"\beyJ[-\w]+\.[-\w]+\.[-\w]+"),  # a JSON web token
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user:password of a URL
)
LONGEST_TEXT = 2_000
"""Characters kept of one text: a peer's message must not fill the disk."""


def redact(text: str) -> str:
    """The text without private keys, bearer tokens and passwords in URLs, and no longer than `LONGEST_TEXT`."""
    for pattern in _SECRET_TEXT:
        text = pattern.sub(REDACTED, text)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"


def clean(facts: Mapping[str, object]) -> dict[str, object]:
    """Facts fit for a log line: secret by name or by text is redacted, the rest is numbers, truth values or text."""
    cleaned: dict[str, object] = {}
    for name, value in facts.items():
        if _SECRET_NAME.search(name):
            cleaned[name] = REDACTED
        elif value is None or isinstance(value, bool | int | float):
            cleaned[name] = value
        else:
            cleaned[name] = redact(str(value))
    return cleaned


def _parts(record: logging.LogRecord) -> tuple[str, str, dict[str, object], str]:
    at = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
    facts = clean(getattr(record, "facts", None) or {})
    trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    return at, redact(record.getMessage()), facts, redact(trace)


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, logger, message, facts, and the trace of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at, message, facts, trace = _parts(record)
        fields: dict[str, object] = {
            "at": at,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if facts:
            fields["facts"] = facts
        if trace:
            fields["trace"] = trace
        return msgspec.json.encode(fields).decode()


class TextLines(logging.Formatter):
    """For people: time, level, logger, message, facts as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at, message, facts, trace = _parts(record)
        shown = "".join(f" {name}={value}" for name, value in facts.items())
        end = f"\n{trace}" if trace else ""
        return f"{at[11:23]} {record.levelname:<7} {record.name}: {message}{shown}{end}"


def configure(level: str = "INFO", *, json: bool = False, stream: TextIO | None = None) -> logging.Handler:
    """Sends all logging to one stream (standard error when none is given). Replaces what an earlier call made.

    Raises: ValueError for an unknown level, with the known ones.
    """
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise ValueError(f"Unknown log level {level!r}: choose one of {', '.join(known)}.")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if json else TextLines())
    handler.set_name("plimsoll")
    root = logging.getLogger()
    for old in [each for each in root.handlers if each.get_name() == "plimsoll"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    return handler

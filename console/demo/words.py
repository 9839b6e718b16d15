"""Numbers and names as people read them, for the report and the terminal alike."""

from __future__ import annotations

import math

LONGEST_NAME = 60
LONGEST_SENTENCE = 600
# Characters that reorder or hide their neighbours: a name must not be able to rewrite the line it stands in.
_TRICKS = frozenset(
    "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\ufffe\uffff"
)


def clean(text: str, longest: int = LONGEST_SENTENCE) -> str:
    """One printable line of at most `longest` characters: no control, surrogate or reordering characters."""
    head = text[: longest + 1]
    kept = "".join(" " if c.isspace() else c for c in head if c.isspace() or _printable(c))
    if len(text) <= longest:
        return kept
    return f"{kept[: longest - 1].rstrip()}…"


def _printable(character: str) -> bool:
    return character.isprintable() and character not in _TRICKS


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """A name cut in its middle, so that both its namespace and its number stay readable."""
    line = clean(name, max(longest * 4, longest))
    if len(line) <= longest:
        return line
    head = (longest - 1) // 2
    return f"{line[:head]}…{line[-(longest - 1 - head) :]}"


def clock(seconds: float) -> str:
    """Seconds since the start as `31:05`, `1:00:00` or `−0:30`; `–` where unknown."""
    if not math.isfinite(seconds):
        return "–"
    whole = round(abs(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    sign = "−" if seconds < 0 and whole else ""
    return f"{sign}{hours}:{minutes:02d}:{left:02d}" if hours else f"{sign}{minutes}:{left:02d}"


def dollars(value: float) -> str:
    """Money per hour: `$41.20/h`."""
    return f"${value:,.2f}/h"


def share(value: float) -> str:
    """A share as per cent, rounded down to a tenth: 0.9996 is never shown as 100 %."""
    tenths = math.floor(value * 1000.0 + 1e-9) / 10.0
    return f"{tenths:.0f} %" if tenths in {100.0, 0.0} else f"{tenths:.1f} %"


def span(seconds: float) -> str:
    """A duration: `45 ms`, `2.41 s`, `31 s`, `12 min`; `–` where unknown."""
    if not math.isfinite(seconds):
        return "–"
    if 0.0 < abs(seconds) < 0.9995:
        return f"{seconds * 1000.0:.0f} ms"
    if abs(seconds) < 10.0:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    return f"{seconds:.0f} s" if abs(seconds) < 600.0 else f"{seconds / 60.0:.0f} min"


def against(seconds: float, objective: float) -> str:
    """A duration beside its objective: `79 of 120 ms`, `310 ms of 3 s`."""
    have, limit = span(seconds), span(objective)
    unit = limit.rpartition(" ")[2]
    return f"{have.removesuffix(' ' + unit)} of {limit}"


def count(value: float) -> str:
    """A whole number with thousands separated."""
    return f"{value:,.0f}"


def plural(number: int, one: str, many: str = "") -> str:
    """`1 request`, `2 requests`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def kilowatts(watts: float) -> str:
    """Watts as `31.2 kW`, small ones as `640 W`."""
    return f"{watts / 1000.0:.1f} kW" if abs(watts) >= 1000.0 else f"{watts:.0f} W"


def mix(gpus: dict[str, int]) -> str:
    """GPUs by type as `4 A100-80 + 2 L4`, most first; `none` where there are none."""
    parts = [
        f"{number} {short(kind, 24)}"
        for kind, number in sorted(gpus.items(), key=lambda g: (-g[1], g[0]))
        if number
    ]
    return " + ".join(parts) if parts else "none"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"

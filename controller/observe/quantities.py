"""Kubernetes resource quantities as integers."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_QUANTITY = re.compile(r"^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,2})|([a-zA-Z]*))$")
_SCALES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
LONGEST = 64
"""Characters of the longest quantity that is read."""


@lru_cache(maxsize=4_096)
def parse_quantity(value: str | int | float) -> Fraction:
    """A quantity such as `96`, `1500m`, `1e3` or `512Gi` in base units, exactly.

    Raises ValueError for text that is no quantity.
    """
    text = str(value).strip()
    match = _QUANTITY.match(text) if len(text) <= LONGEST else None
    if match is None or (match.group(3) or "") not in _SCALES:
        raise ValueError(
            f"{text[:LONGEST]!r} is no quantity: write a number with an optional suffix such as m, k, Mi or Gi"
        )
    return Fraction(match.group(1)) * Fraction(10) ** int(match.group(2) or 0) * _SCALES[match.group(3) or ""]


def quantity_of(resources: dict[str, str | int], name: str, scale: int = 1) -> int:
    """One resource times `scale`, rounded down; 0 when absent or unreadable (a node's fault stays its own)."""
    try:
        return int(parse_quantity(resources.get(name, 0)) * scale)
    except ValueError:
        return 0

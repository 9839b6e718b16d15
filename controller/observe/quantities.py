"""Kubernetes resource quantities as integers."""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"^([0-9.]+)([a-zA-Z]*)$")
_SCALES = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
}


def parse_quantity(value: str | int | float) -> float:
    """A quantity such as `96`, `1500m` or `512Gi` in base units.

    Raises ValueError for text that is no quantity.
    """
    if isinstance(value, int | float):
        return float(value)
    match = _QUANTITY.match(value.strip())
    if match is None or match.group(2) not in _SCALES:
        raise ValueError(
            f"{value!r} is no quantity: write a number with an optional suffix such as m, k, Mi or Gi"
        )
    return float(match.group(1)) * _SCALES[match.group(2)]


def quantity_of(resources: dict[str, str | int], name: str, scale: float = 1.0) -> int:
    """One resource times `scale`, rounded down; 0 when absent or unreadable (a node's fault stays its own)."""
    try:
        return int(parse_quantity(resources.get(name, 0)) * scale)
    except ValueError:
        return 0

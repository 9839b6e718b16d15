"""Stable hashing: the same on every build, process and Python version."""

from __future__ import annotations

import hashlib


def stable_hash(*parts: object) -> int:
    """64-bit hash of the parts' text, for seeds, tie ranks and sharding (never Python's `hash`)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

"""The store's tests, put to a store that is elsewhere: one contract, however it is reached."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from tests.store import test_apply, test_reads, test_writes

MODULES = (test_apply, test_reads, test_writes)


def contract_for(module: str, left_out: Collection[str]) -> dict[str, Any]:
    """The tests of a given store as globals of `module`, named after where they are from; without those left out."""
    found: dict[str, Any] = {}
    for source in MODULES:
        part = source.__name__.rpartition("_")[2]
        for name, value in vars(source).items():
            if inspect.isclass(value) and name.startswith("Test"):
                kept = {
                    key: each
                    for key, each in vars(value).items()
                    if key.startswith("test_") and key not in left_out
                }
                found[f"{name}Of{part.title()}"] = type(name, (), {**kept, "__module__": module})
            elif name.startswith("test_") and name not in left_out:
                found[f"test_{part}_{name.removeprefix('test_')}"] = value
    return found

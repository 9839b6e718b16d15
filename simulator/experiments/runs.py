"""What is run: every combination of the swept settings, with every seed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import yaml

MOST_RUNS = 100_000
"""More runs than this are a mistake of the sweep."""

Value = str | int | float | bool


class SweepError(ValueError):
    """A sweep that cannot be run; the sentence says what is wrong and what to write."""


class Run(msgspec.Struct, frozen=True):
    """One run: the settings that differ from the scenario's (dotted path and value, in order), and the seed."""

    settings: tuple[tuple[str, Value], ...]
    seed: int

    @property
    def point(self) -> str:
        """The settings in words, `key=value, …`; `as written` when nothing is swept."""
        return ", ".join(f"{key}={value}" for key, value in self.settings) or "as written"

    def key(self, scenario: bytes) -> str:
        """A file name for the outcome of this run of this scenario: other scenarios have others."""
        digest = hashlib.sha256(scenario)
        digest.update(msgspec.json.encode(self))
        return digest.hexdigest()[:32]


def parse_sweep(texts: Iterable[str]) -> dict[str, tuple[Value, ...]]:
    """`key=a,b,c` texts as settings with their values; values as YAML reads them (numbers, true, words).

    Raises SweepError for a text without key or values, and for a key given twice.
    """
    swept: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        values = [word.strip() for word in listed.split(",") if word.strip()]
        if not (key.strip() and equals and values):
            raise SweepError(f"--sweep {text!r}: write key=a,b,c with a dotted key of the scenario.")
        if key.strip() in swept:
            raise SweepError(f"--sweep {key.strip()} is given twice; list all its values once.")
        swept[key.strip()] = tuple(_value(word, text) for word in values)
    return swept


def _value(word: str, text: str) -> Value:
    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError:
        value = word
    if not isinstance(value, str | int | float | bool):
        raise SweepError(f"--sweep {text!r}: {word!r} is neither a word nor a number.")
    return value


def runs_of(swept: Mapping[str, Sequence[Value]], seeds: Sequence[int]) -> list[Run]:
    """Every combination with every seed, points outermost, in the order they were given.

    Raises SweepError when there are no seeds or more than MOST_RUNS runs.
    """
    count = len(seeds)
    for values in swept.values():
        count *= len(values)
    if not 0 < count <= MOST_RUNS:
        raise SweepError(f"{count} runs: give at least one seed and at most {MOST_RUNS} runs in all.")
    points = itertools.product(*([(key, value) for value in values] for key, values in swept.items()))
    return [Run(tuple(point), seed) for point in points for seed in seeds]

"""One scenario on both tiers, and that they took the same course to the same end."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from tests.scenarios.kube_tier import KubeTier
from tests.scenarios.left import differences, same
from tests.scenarios.scenario import Ending, Scenario, play

SHOWN = 20


def alike(scenario: Scenario, folder: Path, kube: KubeTier) -> tuple[Ending, Ending]:
    """Play it on the embedded store and on the API server. AssertionError with every field in which they differ."""
    one, other = _both(scenario, folder, kube)
    found = differences(one.left, other.left)
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    assert not found, "\n".join([f"{scenario.name}:", *found[:SHOWN], *more])
    parted = _first(one.diary, other.diary)
    assert not parted, parted
    return one, other


def same_end(scenario: Scenario, folder: Path, kube: KubeTier) -> None:
    """As `alike` where faults are drawn at random: they fall on other requests there, so only the end is compared."""
    one, other = _both(scenario, folder, kube)
    assert one.final == other.final, (
        f"{scenario.name}: {one.final} on the embedded store, {other.final} on kube"
    )


def _both(scenario: Scenario, folder: Path, kube: KubeTier) -> tuple[Ending, Ending]:
    """How it ends on the embedded store, and on the API server."""
    folders = [folder / name for name in ("embedded", "kube")]
    for each in folders:
        each.mkdir()
    return play(scenario, folders[0]), play(scenario, folders[1], tier=kube)


def _first(one: tuple[str, ...], other: tuple[str, ...]) -> str:
    """Where two courses part; empty where they do not."""
    for first, second in zip_longest(one, other, fillvalue="nothing more"):
        if not same(first, second):
            return f"the courses part:\nembedded: {first}\nkube:     {second}"
    return ""

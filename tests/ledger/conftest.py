"""Ledgers on real SQLite files, with clocks that tests move by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.ledger import Ledger, PlanId, PlanRow, ReasonRow


class Hands:
    """A clock of two hands: `now` of the history, `monotonic` of the pauses. Tests turn them."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.monotonic = 100.0

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.monotonic += seconds


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.db"


@pytest.fixture
def open_ledger(path: Path, hands: Hands) -> Iterator[Callable[..., Ledger]]:
    opened: list[Ledger] = []

    def make(**options: object) -> Ledger:
        url = str(options.pop("url", path))
        options.setdefault("busy_timeout_seconds", 0.02)
        ledger = Ledger(url, now=lambda: hands.now, monotonic=lambda: hands.monotonic, **options)  # type: ignore[arg-type]
        opened.append(ledger)
        return ledger

    yield make
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: Callable[..., Ledger]) -> Ledger:
    return open_ledger()


class Story:
    """Writes plans that are easy to recognise: tick n is decided n seconds after the start."""

    start = 1_700_000_000.0

    def reason(self, code: str = "MixChosen", name: str = "shop/chat", **more: object) -> ReasonRow:
        values: dict[str, object] = {
            "code": code,
            "verdict": "chosen",
            "subject_kind": "ModelService",
            "subject_name": name,
            "choice": "6 A100 + 2 L4",
            "need": 41.2,
            "have": 43.0,
            "sentence": f"{name}: 6 A100 + 2 L4 carry 43.0 req/s for a demand of 41.2 req/s.",
        }
        return ReasonRow(**{**values, **more})  # type: ignore[arg-type]

    def plan(self, tick: int, loop: str = "planner", epoch: int = 1, **more: object) -> PlanRow:
        return PlanRow(PlanId(epoch, loop, tick), self.start + tick, **more)  # type: ignore[arg-type]

    def tell(self, ledger: Ledger, ticks: range, loop: str = "planner") -> None:
        for tick in ticks:
            ledger.plan(self.plan(tick, loop), [self.reason()])


@pytest.fixture
def story() -> Story:
    return Story()

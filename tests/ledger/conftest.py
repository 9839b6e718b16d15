"""Ledgers on real databases, SQLite files and PostgreSQL servers, with clocks that tests move by hand.

A test that takes `place` (or a ledger, which lives in one) runs on both. One that takes `path` is about SQLite's file,
one that takes `postgres` about a server that it may kill. `PLIMSOLL_TEST_POSTGRES=URL` runs the tests of both on that
server instead of the one that is started here; its user must be allowed to create databases.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.ledger import Ledger, PlanId, PlanRow, ReasonRow
from tests.ledger.places import ForeignPlace, Place, PostgresPlace, SqlitePlace
from tests.ledger.postgres import Server

FOREIGN_SERVER = "PLIMSOLL_TEST_POSTGRES"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test of a ledger both databases, unless it says which it is about."""
    given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "place" not in metafunc.fixturenames or any("place" in names for names in given):
        return
    if "path" in metafunc.fixturenames:
        kinds = ["sqlite"]
    elif "postgres" in metafunc.fixturenames:
        kinds = ["own postgresql"]
    else:
        kinds = ["sqlite", "postgresql"]
    metafunc.parametrize("place", kinds, indirect=True)


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of this worker's own."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.db"


@pytest.fixture
def make_place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Place]]:
    """Makes empty databases of a kind: `sqlite`, `postgresql` or `own postgresql`."""
    made: list[ForeignPlace | PostgresPlace] = []

    def make(kind: str) -> Place:
        if kind == "sqlite":
            return SqlitePlace(tmp_path / "folder" / "ledger.db")
        foreign = os.environ.get(FOREIGN_SERVER, "")
        server = kind == "own postgresql" or not foreign
        made.append(PostgresPlace(request.getfixturevalue("postgres")) if server else ForeignPlace(foreign))
        return made[-1]

    yield make
    for place in made:
        place.remove()


@pytest.fixture
def place(request: pytest.FixtureRequest, make_place: Callable[[str], Place]) -> Place:
    return make_place(request.param)


@pytest.fixture
def open_ledger(place: Place, hands: Hands) -> Iterator[Callable[..., Ledger]]:
    opened: list[Ledger] = []

    def make(**options: object) -> Ledger:
        url = str(options.pop("url", place.url))
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

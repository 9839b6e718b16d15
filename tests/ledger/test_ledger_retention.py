"""The history is bounded by age, rows and bytes, and removed a little at a time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import sqlalchemy as sa

from controller.ledger import ActionId, ActuationRow, LoadRow, OutcomeRow, PlanId, Retention
from controller.ledger.tables import actuations, loads, outcomes, plans, reasons, records, refs
from tests.ledger.places import Place


def fill(ledger, story, seconds: int) -> None:
    for tick in range(seconds):
        at = story.start + tick
        ledger.plan(story.plan(tick), [story.reason(refs=(("Node", "n-1"),)), story.reason("LeadTime")])
        ledger.actuations([ActuationRow(ActionId(1, "planner", tick, 0), "Drain", "Node", "n-1", at)])
        ledger.load(LoadRow("shop/chat", "chat", at, 1.0, 5.5))
        ledger.outcome(OutcomeRow("shop/chat", "chat", at, 1.0, served=5))
        ledger.record(PlanId(1, "planner", tick), at, random.Random(tick).randbytes(1000))


def counts(ledger) -> dict[str, int]:
    with ledger.reader._database.read() as connection:
        return {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (plans, reasons, refs, actuations, loads, outcomes, records)
        }


@pytest.mark.parametrize(
    ("bounds", "left"),
    [
        pytest.param(
            {"max_age_seconds": 110.0},
            {
                "plans": 50,
                "reasons": 100,
                "reason_refs": 50,
                "actuations": 50,
                "loads": 50,
                "outcomes": 50,
                "records": 50,
            },
            id="age bounds everything",
        ),
        pytest.param(
            {"max_plans": 30}, {"plans": 30, "reasons": 60, "reason_refs": 30}, id="plans take reasons along"
        ),
        pytest.param(
            {"max_reasons": 40},
            {"plans": 20, "reasons": 40, "reason_refs": 20},
            id="reasons bound their plans",
        ),
        pytest.param({"max_actuations": 7}, {"actuations": 7}, id="actions"),
        pytest.param({"max_loads": 9}, {"loads": 9}, id="load history"),
        pytest.param({"max_outcomes": 11}, {"outcomes": 11}, id="outcome history"),
        pytest.param({"max_records": 13}, {"records": 13}, id="records by number"),
        pytest.param({"max_record_bytes": 10_500}, {"records": 10}, id="records by bytes"),
    ],
)
def test_what_is_beyond_a_bound_goes_oldest_first_and_the_rest_stays(
    open_ledger, story, hands, bounds: dict[str, float], left: dict[str, int]
) -> None:
    ledger = open_ledger(retention=Retention(every_seconds=60.0, **bounds))
    fill(ledger, story, 100)
    assert ledger.flush()
    everything = counts(ledger)
    hands.wait(59.0)
    ledger.flush()
    assert counts(ledger) == everything, "not due yet"
    hands.now = story.start + 160.0
    ledger.flush()
    after = counts(ledger)
    assert after == {**everything, **left}
    assert ledger.state().removed_rows == sum(everything.values()) - sum(after.values())
    assert ledger.reader.decisions(0, 1)[0].id.tick == 99
    kept = ledger.reader.records()
    assert kept == [PlanId(1, "planner", tick) for tick in range(99, 99 - len(kept), -1)]


def test_one_sweep_removes_a_bounded_number_and_the_next_one_follows_sooner(
    open_ledger, story, hands
) -> None:
    ledger = open_ledger(retention=Retention(every_seconds=60.0, max_loads=1, chunk_rows=5, chunks=3))
    for tick in range(100):
        ledger.load(LoadRow("shop/chat", "chat", story.start + tick, 1.0, 5.5))
    ledger.flush()
    left = []
    for seconds in (60.0, 2.0, 2.0, 2.0):
        hands.wait(seconds)
        ledger.flush()
        left.append(counts(ledger)["loads"])
    assert left == [85, 70, 55, 40]


def test_the_file_gives_space_back(open_ledger, story, hands, path: Path) -> None:
    ledger = open_ledger(retention=Retention(every_seconds=60.0, max_plans=10))
    for tick in range(300):
        ledger.plan(story.plan(tick), [story.reason(sentence="x" * 10_000)])
    ledger.flush()
    ledger._database.close()
    before = path.stat().st_size
    hands.wait(61.0)
    ledger.flush()
    ledger._database.close()
    ledger.reader.close()
    assert path.stat().st_size < before / 4


def test_a_sweep_that_cannot_write_is_tried_again(open_ledger, story, hands, place: Place) -> None:
    ledger = open_ledger(retention=Retention(every_seconds=60.0, max_plans=10))
    fill(ledger, story, 20)
    ledger.flush()
    holder = place.lock()
    hands.wait(61.0)
    assert not ledger.flush()
    assert ledger.state().failures == {"locked": 1}
    holder.close()
    hands.wait(1.0)
    assert ledger.flush()
    assert (counts(ledger)["plans"], ledger.state().problem) == (10, "")

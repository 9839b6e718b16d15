"""What the ledger answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from controller.ledger import (
    ActionId,
    ActuationEnd,
    ActuationRow,
    EpochRow,
    Ledger,
    LedgerReader,
    LedgerUnavailable,
    LoadRow,
    OutcomeRow,
    PlanId,
    PolicyStateRow,
)
from tests.ledger.places import Place, PostgresPlace


def act(
    index: int, tick: int = 1, loop: str = "planner", name: str = "shop/chat", at: float = 1.0
) -> ActuationRow:
    return ActuationRow(
        ActionId(1, loop, tick, index), "CreateReplica", "ModelService", name, at, payload='{"n":1}'
    )


def test_the_latest_decision_has_plan_reasons_mentions_actions_and_history(ledger, story) -> None:
    story.tell(ledger, range(1, 4))
    ledger.plan(
        story.plan(4, objective=22.2, bound=22.0, reasons=2, actions=1),
        [
            story.reason(choice="4 H100", refs=(("Pool", "h100-od"),)),
            story.reason("LeadTime", choice="184 s"),
            story.reason("QueueHead", "train/big", refs=(("ModelService", "shop/chat"),)),
        ],
    )
    ledger.actuations([act(0, tick=4, at=4.0), act(1, tick=4, name="other/x", at=4.0)])
    ledger.ended(ActuationEnd(ActionId(1, "planner", 4, 0), "done", 9.0, message="bound to n-7"))
    assert ledger.flush()

    told = ledger.reader.latest_decision("ModelService", "shop/chat")
    assert told is not None
    assert (told.plan.id, told.plan.objective, told.plan.reasons) == (PlanId(1, "planner", 4), 22.2, 2)
    assert [(r.row.code, r.row.choice, r.row.refs) for r in told.reasons] == [
        ("MixChosen", "4 H100", (("Pool", "h100-od"),)),
        ("LeadTime", "184 s", ()),
    ]
    assert told.reasons[0].row.sentence.startswith("shop/chat: 6 A100")
    assert [(m.row.code, m.row.subject_name) for m in told.mentions] == [("QueueHead", "train/big")]
    assert [(a.id.index, a.outcome, a.message, a.finished_seconds) for a in told.actuations] == [
        (0, "done", "bound to n-7", 9.0)
    ]
    stretches = [(h.latest.row.code, h.latest.row.choice, h.times) for h in told.history]
    assert stretches == [
        ("MixChosen", "4 H100", 1),
        ("LeadTime", "184 s", 1),
        ("MixChosen", "6 A100 + 2 L4", 3),
    ]


def test_a_busy_loop_does_not_hide_what_a_slow_one_said(ledger, story) -> None:
    ledger.plan(story.plan(1, "place"), [story.reason("Placed")])
    for tick in range(2, 700):
        ledger.plan(story.plan(tick, "power"), [story.reason("Capped", choice="400 W")])
    ledger.flush()
    told = ledger.reader.latest_decision("ModelService", "shop/chat")
    assert told is not None
    assert [(r.plan.loop, r.row.code) for r in told.reasons] == [("power", "Capped"), ("place", "Placed")]
    assert told.plan.id == PlanId(1, "power", 699)


def test_nothing_is_known_of_an_object_nobody_decided_about(ledger, story) -> None:
    story.tell(ledger, range(3))
    ledger.flush()
    assert ledger.reader.latest_decision("ModelService", "shop/unknown") is None
    assert ledger.reader.latest_decision("Node", "shop/chat") is None


def test_decisions_are_listed_newest_first_bounded_and_by_loop(ledger, story) -> None:
    story.tell(ledger, range(5))
    story.tell(ledger, range(5), "power")
    ledger.flush()
    ids = [str(plan.id) for plan in ledger.reader.decisions(story.start + 3, 3)]
    assert ids == ["1/power/4", "1/planner/4", "1/power/3"]
    assert [p.id.tick for p in ledger.reader.decisions(0, 10, loop="power")] == [4, 3, 2, 1, 0]
    assert [p.id.tick for p in ledger.reader.decisions(0, 2, loop="power", oldest_first=True)] == [0, 1]


def test_one_plan_is_read_whole_with_its_actions_in_number_order(ledger, story) -> None:
    ledger.plan(story.plan(1), [story.reason("B"), story.reason("A")])
    ledger.actuations([act(index) for index in (10, 9, 2)])
    ledger.flush()
    found = ledger.reader.plan(PlanId(1, "planner", 1))
    assert found is not None
    assert [reason.row.code for reason in found[1]] == ["B", "A"]
    assert [action.id.index for action in found[2]] == [2, 9, 10]
    assert ledger.reader.plan(PlanId(1, "planner", 2)) is None


def test_load_and_outcome_history_come_back_in_order_and_in_the_window(ledger) -> None:
    for at in (30.0, 10.0, 20.0):
        for request_class in ("chat", "batch"):
            ledger.load(LoadRow("shop/chat", request_class, at, 10.0, at / 10, input_tokens_mean=1155.0))
            ledger.outcome(OutcomeRow("shop/chat", request_class, at, 10.0, served=int(at), attainment=0.97))
    ledger.flush()
    rows = ledger.reader.load_history("shop/chat", 10.0, 20.0)
    assert [(r.at_seconds, r.request_class) for r in rows] == [
        (10.0, "batch"),
        (10.0, "chat"),
        (20.0, "batch"),
        (20.0, "chat"),
    ]
    assert rows[0].input_tokens_mean == 1155.0
    served = ledger.reader.outcome_history("shop/chat", 0, 99, request_class="chat", limit=2)
    assert [row.served for row in served] == [10, 20]


def state(epoch: int, text: str, scope: str = "row-1") -> PolicyStateRow:
    return PolicyStateRow("power", scope, "polca", 2, epoch, 1.0, text)


def test_the_last_state_of_a_policy_is_loaded_and_an_old_leader_cannot_replace_it(open_ledger) -> None:
    first, second = open_ledger(), open_ledger()
    first.policy_state(state(1, "{}"))
    first.policy_state(state(1, '{"a":1}'))
    first.flush()
    second.policy_state(state(2, '{"a":2}'))
    second.flush()
    first.policy_state(state(1, '{"a":"late"}'))
    first.policy_state(state(1, "{}", "row-2"))
    first.flush()
    assert second.reader.policy_state("power", "row-1") == state(2, '{"a":2}')
    assert second.reader.policy_state("power", "row-9") is None
    assert [row.scope for row in second.reader.policy_states()] == ["row-1", "row-2"]


def test_leaderships_are_kept_and_the_highest_epoch_is_known(ledger) -> None:
    ledger.flush()
    assert ledger.reader.highest_epoch() == 0
    ledger.epoch(EpochRow(7, "op-a", "0.1.0", 1.0))
    ledger.flush()
    ledger.epoch(EpochRow(7, "op-a", "0.1.0", 1.0, ended_seconds=5.0))
    ledger.epoch(EpochRow(8, "op-b", "0.1.0", 6.0))
    ledger.flush()
    assert ledger.reader.highest_epoch() == 8
    assert [(row.epoch, row.ended_seconds) for row in ledger.reader.epochs()] == [(8, None), (7, 5.0)]


def test_a_replay_record_comes_back_byte_for_byte_and_is_small_on_disk(ledger) -> None:
    plan, payload = PlanId(1, "planner", 1), b'{"view": [' + b"1," * 100_000 + b"1]}"
    assert ledger.record(plan, 1.0, payload)
    ledger.flush()
    assert ledger.reader.record(plan) == payload
    assert ledger.reader.records() == [plan]
    assert ledger.reader.record(PlanId(1, "planner", 2)) is None


def test_equal_runs_give_equal_decision_logs_on_either_database_and_unequal_ones_do_not(
    open_ledger, story, make_place, tmp_path: Path
) -> None:
    logs = []
    urls = [str(tmp_path / "one.db"), make_place("postgresql").url, str(tmp_path / "other.db")]
    for run, ticks in enumerate((range(5), range(5), range(6))):
        ledger = open_ledger(url=urls[run])
        for tick in ticks:
            ledger.plan(story.plan(tick, took_seconds=0.1 * run), [story.reason()])
            ledger.actuations([act(0, tick)])
            if run == 1:
                ledger.flush()
        ledger.flush()
        logs.append(list(ledger.reader.decision_log()))
    assert logs[0] == logs[1]
    assert len(logs[2]) == len(logs[0]) + 3


def test_a_reader_makes_no_ledger(place: Place, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.db"
    with pytest.raises(LedgerUnavailable, match=r"no ledger at|its tables are missing"):
        LedgerReader(place.url if isinstance(place, PostgresPlace) else str(nowhere)).decisions()
    assert not nowhere.exists()
    assert place.tables() == []


def test_a_reader_changes_no_ledger(ledger, place: Place) -> None:
    ledger.flush()
    reader = LedgerReader(place.url)
    with pytest.raises(LedgerUnavailable, match=r"readonly|read-only"), reader._database.read() as connection:
        connection.exec_driver_sql("DELETE FROM plans")
    reader.close()


def test_a_reader_follows_a_file_that_was_replaced(ledger, story, path: Path) -> None:
    story.tell(ledger, range(2))
    ledger.flush()
    reader = LedgerReader(str(path))
    assert len(reader.decisions()) == 2
    for file in path.parent.iterdir():
        file.unlink()
    story.tell(ledger, range(5, 6))
    ledger.flush(force=True)
    ledger.flush(force=True)
    assert [plan.id.tick for plan in reader.decisions()] == [5]
    reader.close()


@pytest.mark.parametrize(
    ("ask", "tables"),
    [
        pytest.param(lambda r: r.latest_decision("ModelService", "shop/chat"), 5, id="explain"),
        pytest.param(lambda r: r.decisions(1.0, 100), 1, id="decisions"),
        pytest.param(lambda r: r.decisions(1.0, 100, loop="power"), 1, id="decisions of a loop"),
        pytest.param(lambda r: r.plan(PlanId(1, "planner", 1)), 4, id="one plan"),
        pytest.param(lambda r: r.load_history("shop/chat", 0, 1), 1, id="load history"),
        pytest.param(lambda r: r.record(PlanId(1, "planner", 1)), 1, id="record"),
    ],
)
def test_every_question_walks_an_index_and_sorts_nothing_large(
    ledger: Ledger, story, ask: Callable[[LedgerReader], object], tables: int
) -> None:
    ledger.plan(
        story.plan(1), [story.reason(refs=(("ModelService", "shop/chat"),)), story.reason(name="a/b")]
    )
    ledger.plan(story.plan(2), [story.reason(name="a/b", refs=(("ModelService", "shop/chat"),))])
    ledger.flush()
    asked: list[tuple[str, object]] = []
    engine = ledger.reader._database._engine

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    ask(ledger.reader)
    sa.event.remove(engine, "before_cursor_execute", note)
    queries = [(s, p) for s, p in asked if s.startswith("SELECT")]
    assert len(queries) >= tables
    walk = walked_on_server if engine.dialect.name == "postgresql" else walked_in_file
    with engine.connect() as connection:
        for statement, parameters in queries:
            walked = walk(connection, statement, parameters)
            assert walked, statement
            assert all("INDEX" in step for step in walked), (statement, walked)


def walked_in_file(connection: sa.Connection, statement: str, parameters: Any) -> list[str]:
    """How SQLite comes to its rows."""
    steps = [
        step.detail for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    ]
    walked = [step for step in steps if step.startswith(("SCAN", "SEARCH")) and "CONSTANT ROW" not in step]
    return [step.replace("USING INTEGER PRIMARY KEY", "INDEX") for step in walked]


def walked_on_server(connection: sa.Connection, statement: str, parameters: Any) -> list[str]:
    """How PostgreSQL comes to its rows when it must not read a table of three rows as a whole, as it rightly would."""
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    steps = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
    return [step.upper() for step in steps if "Scan" in step and "Bitmap Heap" not in step]

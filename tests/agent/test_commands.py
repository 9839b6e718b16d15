"""Which commands count: epoch, id, sequence and deadline; and that memory of them is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.node.commands import REMEMBERED, CommandLedger, Stamp
from agent.node.drivers.base import Code, Outcome

NOW = 1_000.0


def stamp(identifier: str, epoch: int = 2, sequence: int = 1, deadline: float = NOW + 5) -> Stamp:
    return Stamp(id=identifier, epoch=epoch, sequence=sequence, deadline_seconds=deadline)


def carried_out(ledger: CommandLedger, each: Stamp, now: float = NOW) -> Outcome:
    outcome = ledger.judge(each, now)
    return outcome or ledger.record(each, Outcome(code=Code.DONE, readback_watts=1_234))


@pytest.mark.parametrize(
    ("later", "code", "sentence"),
    [
        pytest.param(stamp("b", sequence=2), Code.DONE, "", id="next"),
        pytest.param(stamp("b", sequence=9), Code.DONE, "", id="a gap is no fault: something was dropped"),
        pytest.param(
            stamp("a", sequence=1), Code.DUPLICATE, "Answered before: DONE.", id="the same delivered again"
        ),
        pytest.param(
            stamp("a", sequence=2), Code.DUPLICATE, "Answered before", id="the same id stamped anew"
        ),
        pytest.param(
            stamp("b", sequence=1), Code.OLD_EPOCH, "overtaken by 1", id="another with a passed sequence"
        ),
        pytest.param(stamp("b", epoch=1, sequence=9), Code.OLD_EPOCH, "Epoch 1 is over", id="old leader"),
        pytest.param(stamp("b", epoch=3, sequence=1), Code.DONE, "", id="new leader"),
        pytest.param(stamp("b", sequence=2, deadline=NOW - 0.25), Code.EXPIRED, "passed 0.250 s", id="late"),
        pytest.param(stamp("b", sequence=2, deadline=NOW), Code.DONE, "", id="at the deadline"),
        pytest.param(stamp("b", sequence=2, deadline=float("nan")), Code.EXPIRED, "passed", id="no deadline"),
        pytest.param(
            stamp("a", sequence=1, deadline=NOW - 9), Code.DUPLICATE, "Answered", id="late and a duplicate"
        ),
        pytest.param(stamp("", sequence=2), Code.OUT_OF_RANGE, "this one has 0", id="no id"),
        pytest.param(stamp("x" * 1_000_000, sequence=2), Code.OUT_OF_RANGE, "has 1000000", id="1 MB of id"),
    ],
)
def test_after_a_first_command(later: Stamp, code: Code, sentence: str) -> None:
    ledger = CommandLedger()
    assert carried_out(ledger, stamp("a")).code is Code.DONE
    outcome = carried_out(ledger, later)
    assert outcome.code is code
    assert sentence in outcome.message
    assert ledger.counts[code] == (2 if code is Code.DONE else 1)
    assert sum(ledger.counts.values()) == 2


def test_a_duplicate_tells_what_was_read_back_then() -> None:
    ledger = CommandLedger()
    carried_out(ledger, stamp("a"))
    assert carried_out(ledger, stamp("a")).readback_watts == 1_234


def test_an_expired_command_is_not_done_when_it_comes_again() -> None:
    ledger = CommandLedger()
    late = stamp("a", deadline=NOW - 1)
    assert carried_out(ledger, late).code is Code.EXPIRED
    assert carried_out(ledger, late, NOW - 2).code is Code.DUPLICATE


def test_memory_is_bounded_and_what_is_forgotten_stays_refused() -> None:
    ledger = CommandLedger()
    total = 3 * REMEMBERED
    for count in range(1, total + 1):
        assert carried_out(ledger, stamp(f"c{count}", sequence=count)).code is Code.DONE
    assert len(ledger._outcomes) == REMEMBERED
    assert carried_out(ledger, stamp("c1", sequence=1)).code is Code.OLD_EPOCH
    assert carried_out(ledger, stamp(f"c{total}", sequence=total)).code is Code.DUPLICATE


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 6), st.booleans()),
        max_size=40,
    )
)
def test_each_id_is_done_at_most_once_and_order_never_goes_back(
    deliveries: list[tuple[int, int, bool]],
) -> None:
    ledger = CommandLedger()
    done: list[tuple[int, int]] = []
    for epoch, sequence, late in deliveries:
        each = stamp(f"{epoch}/{sequence}", epoch, sequence, NOW - 1 if late else NOW + 1)
        if ledger.judge(each, NOW) is None:
            ledger.record(each, Outcome(code=Code.DONE))
            done.append((epoch, sequence))
    assert done == sorted(set(done))
    assert sum(ledger.counts.values()) == len(deliveries)

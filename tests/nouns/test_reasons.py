"""Reasons: every code becomes a sentence that shows its numbers, and none does without them."""

from __future__ import annotations

import string
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import reasons
from cluster.base import Ref
from cluster.codec import from_json, to_json
from cluster.drops import Drop
from cluster.reason_codes import CODES
from cluster.reasons import (
    Alternative,
    MissingFactError,
    Quantity,
    Reason,
    Remedy,
    Unit,
    Verdict,
    missing_facts,
    render,
    render_alternative,
    sentence,
)

SUBJECT = Ref("ModelService", "shop/chat", "uid", 12)
SLOTS = ("need", "have", "limit")


def reason(code: str = "MixChosen", without: str = "", **more: Any) -> Reason:
    """A reason of a code with every number it declares, each another one."""
    numbers = {name: Quantity(name, 101.0 + i, "GPU") for i, name in enumerate(CODES[code].facts)}
    numbers.pop(without, None)
    slots = {name: numbers.pop(name) for name in SLOTS if name in numbers}
    fields = {
        "subject": SUBJECT,
        "verdict": Verdict.CHOSEN,
        "choice": "6 A100",
        "facts": tuple(numbers.values()),
    }
    return Reason(code=code, **{**fields, **slots, **more})


@pytest.mark.parametrize("code", CODES)
def test_every_code_shows_each_of_its_numbers_in_one_sentence(code: str) -> None:
    text = render(reason(code))
    for place in range(len(CODES[code].facts)):
        assert f"{101 + place} GPU" in text, f"{code} hides {CODES[code].facts[place]}"
    assert "{" not in text
    assert ("6 A100" in text) == ("{choice}" in CODES[code].template)
    assert text[-1] in ".)"


@pytest.mark.parametrize("code", CODES)
def test_every_code_declares_what_its_sentence_uses_and_nothing_else(code: str) -> None:
    used = {field for _, field, _, _ in string.Formatter().parse(CODES[code].template) if field}
    assert used - {"subject", "choice"} == set(CODES[code].facts)
    assert CODES[code].severity in {"Normal", "Warning"}
    assert CODES[code].facts, f"{code} says nothing that can be measured"


@pytest.mark.parametrize(("code", "fact"), [(c, f) for c, spec in CODES.items() for f in spec.facts])
def test_a_code_without_one_of_its_numbers_is_an_error_that_names_it(code: str, fact: str) -> None:
    lacking = reason(code, without=fact)
    assert missing_facts(lacking) == (fact,)
    with pytest.raises(MissingFactError, match=rf"{code} about ModelService/shop/chat@12 lacks {fact}"):
        render(lacking)
    assert sentence(lacking) == f"{code} without {fact}"


def test_all_missing_numbers_are_named_in_the_order_of_their_declaration() -> None:
    bare = Reason(code="MixChosen", subject=SUBJECT, verdict=Verdict.CHOSEN)
    assert missing_facts(bare) == ("need", "have", "limit", "cost")
    assert sentence(bare) == "MixChosen without need, have, limit, cost"


def test_a_code_nobody_declared_is_missing_itself() -> None:
    unknown = Reason(code="Whim", subject=SUBJECT, verdict=Verdict.CHOSEN)
    assert missing_facts(unknown) == ("code Whim",)
    assert unknown.severity == "Warning"
    assert sentence(unknown) == "Whim without code Whim"
    with pytest.raises(MissingFactError, match="Whim about ModelService/shop/chat@12 lacks code Whim"):
        render(unknown)


def test_a_whole_reason_reads_as_the_seams_have_it() -> None:
    chosen = Reason(
        code="MixChosen",
        subject=SUBJECT,
        verdict=Verdict.CHOSEN,
        choice="6 A100-80 + 2 L4",
        need=Quantity("demand_p95", 41.2, "req/s"),
        have=Quantity("capacity", 43.0, "req/s"),
        limit=Quantity("h100_available", 16, "GPU"),
        facts=(Quantity("cost", 22.2, "$/h"), Quantity("lead", 184, "s")),
        against=(
            Alternative(
                "31 L4", code="TpotFloor", facts=(Quantity("need", 40, "ms"), Quantity("have", 45, "ms"))
            ),
            Alternative("4 H100", Quantity("cost", 3.9, "$/h")),
            Alternative("9 A10G", Quantity("cost", 5.0, "$/h")),
        ),
    )
    assert render(chosen) == (
        "6 A100-80 + 2 L4 carry 43.00 req/s for a demand of 41.20 req/s at $22.20/h; 16 GPU of the pools were free."
        " Next best: 4 H100, $3.90/h more."
    )
    assert sentence(chosen) == render(chosen)
    assert [render_alternative(a) for a in chosen.against] == [
        "31 L4 cannot be faster than 45 ms a token, 40 ms is asked.",
        "4 H100: $3.90/h more",
        "9 A10G: $5.00/h more",
    ]
    assert chosen.fact("lead") == 184
    assert chosen.fact("need") is None
    assert chosen.severity == "Normal"
    assert reason("NoInventory").severity == "Warning"


@pytest.mark.parametrize(
    ("alternative", "line"),
    [
        pytest.param(
            Alternative("4 H100", Quantity("cost", -1.25, "$/h")), "4 H100: $1.25/h less", id="cheaper"
        ),
        pytest.param(
            Alternative("4 H100", Quantity("cost", 0.0, "$/h")), "4 H100: $0.00/h more", id="as dear"
        ),
        pytest.param(
            Alternative("4 H100", code="PriceMissing"), "4 H100: PriceMissing", id="excluded, no numbers"
        ),
        pytest.param(Alternative("4 H100"), "4 H100", id="neither priced nor excluded"),
        pytest.param(Alternative("wait", Quantity("delay", 12, "s")), "wait: 12 s more", id="dearer in time"),
    ],
)
def test_an_alternative_says_what_it_would_have_cost_or_what_excludes_it(
    alternative: Alternative, line: str
) -> None:
    assert render_alternative(alternative) == line


def test_only_a_priced_alternative_is_the_runner_up() -> None:
    excluded = reason(against=(Alternative("31 L4", code="TpotFloor"),))
    assert "Next best" not in render(excluded)
    cheaper = reason(against=(Alternative("1 L4", Quantity("cost", -0.5, "$/h")),))
    assert render(cheaper).endswith(" Next best: 1 L4, $0.50/h less.")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        pytest.param(22.2, "$/h", "$22.20/h", id="money has two places"),
        pytest.param(0.0, "$/h", "$0.00/h", id="nothing to pay"),
        pytest.param(0.007, "ratio", "0.7 %", id="a share is a percentage"),
        pytest.param(43.0, "req/s", "43.00 req/s", id="a rate"),
        pytest.param(184.4, "s", "184 s", id="long times are whole seconds"),
        pytest.param(10.0, "s", "10 s", id="ten seconds are long"),
        pytest.param(9.94, "s", "9.9 s", id="short times have two figures"),
        pytest.param(0.045, "s", "0.045 s", id="shorter ones too"),
        pytest.param(-12.0, "s", "-12 s", id="a long time ago"),
        pytest.param(44.9, "ms", "45 ms", id="milliseconds are whole"),
        pytest.param(13.46e9, "B", "13.5 GB", id="gigabytes"),
        pytest.param(1e12, "B", "1.0 TB", id="a terabyte"),
        pytest.param(2.5e6, "B", "2.5 MB", id="megabytes"),
        pytest.param(1e3, "B", "1.0 kB", id="a kilobyte"),
        pytest.param(999, "B", "999 B", id="bytes"),
        pytest.param(-2e9, "B", "-2.0 GB", id="bytes short"),
        pytest.param(0.5, "1/min", "0.5 a minute", id="a rate a minute"),
        pytest.param(3, "GPU", "3 GPU", id="a count"),
        pytest.param(1, "nodes", "1 node", id="one of something"),
        pytest.param(0, "nodes", "0 nodes", id="none of something"),
        pytest.param(1.5, "nodes", "1.5 nodes", id="one and a half"),
        pytest.param(1, "copies", "1 copy", id="one copy"),
        pytest.param(1, "tokens/s", "1 tokens/s", id="a token a second"),
        pytest.param(1, "GPU", "1 GPU", id="one GPU"),
        pytest.param(1, "req", "1 request", id="one request"),
        pytest.param(7, "req", "7 requests", id="requests"),
        pytest.param(2, "attempt", "2", id="the number of an attempt"),
        pytest.param(2, "attempts", "2 attempts", id="a number of attempts"),
        pytest.param(4, "versions", "version 4", id="a version"),
        pytest.param(-3, "priority", "priority -3", id="a priority"),
        pytest.param(4e11, "bit/s", "400 Gbit/s", id="a fast network"),
        pytest.param(5e8, "bit/s", "500 Mbit/s", id="a slow network"),
        pytest.param(2.345, "GPU", "2.35 GPU", id="a broken count has three figures"),
        pytest.param(1234.5, "W", "1234 W", id="thousands are whole"),
        pytest.param(-1234.5, "W", "-1234 W", id="negative thousands too"),
        pytest.param(999.9, "W", "1000 W", id="just below a thousand has no exponent"),
        pytest.param(999.4, "W", "999 W", id="three figures are enough"),
        pytest.param(0.0125, "req/s", "0.013 req/s", id="a small rate is not nothing"),
        pytest.param(-0.05, "req/s", "-0.05 req/s", id="a small rate less"),
        pytest.param(0.1, "req/s", "0.10 req/s", id="a tenth"),
        pytest.param(0.0, "req/s", "0.00 req/s", id="no rate at all"),
        pytest.param(60_000, "1/min", "60000 a minute", id="a high rate a minute"),
    ],
)
def test_a_quantity_is_written_as_people_write_it(value: float, unit: Any, text: str) -> None:
    assert Quantity("x", value, unit).text == text


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.sampled_from(get_args(Unit)))
def test_every_unit_writes_every_number(value: float, unit: Any) -> None:
    text = Quantity("x", value, unit).text
    assert any(c.isdigit() for c in text)


def test_a_unit_outside_the_set_cannot_be_read_back() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"furlong.*\$\.unit"):
        from_json(b'{"name":"x","value":1.0,"unit":"furlong"}', Quantity)


def test_formats_exist_only_for_declared_units() -> None:
    assert set(reasons._FORMATS) <= set(get_args(Unit))


def test_reasons_are_merged_by_code_subject_and_choice() -> None:
    assert reason().key == ("MixChosen", "ModelService/shop/chat@12", "6 A100")
    assert reason().key == reason(need=Quantity("need", 7, "GPU"), count=9).key
    assert (
        len(
            {
                reason().key,
                reason("MixKept").key,
                reason(choice="1 L4").key,
                reason(subject=Ref("Node", "a")).key,
            }
        )
        == 4
    )


def test_a_drop_becomes_a_reason_with_its_three_numbers() -> None:
    dropped = Drop("Unsafe", "grant to a in row", 1_200, 900, 1_000, "W").reason(SUBJECT)
    assert dropped.verdict is Verdict.REJECTED
    assert dropped.subject == SUBJECT
    assert render(dropped) == "dropped grant to a in row: 1200 W against a limit of 1000 W (900 W now)."


def test_a_reason_survives_json_with_everything_it_carries() -> None:
    full = reason(
        against=(Alternative("x", Quantity("cost", 1.5, "$/h"), "", (Quantity("a", 1, "s"),)),),
        remedy=Remedy("AddCapacity", "pool h100-od", (Quantity("need", 1, "GPU"),)),
        refs=(Ref("Node", "a"),),
        count=3,
    )
    assert from_json(to_json(full), Reason) == full


@pytest.mark.parametrize(
    ("ref", "text"),
    [(Ref("Node", "a"), "Node/a"), (Ref("Node", "a", "uid"), "Node/a"), (Ref("TrainingJob", "lab/x", "", 3), "TrainingJob/lab/x@3")],
    ids=["no version", "the uid is not shown", "a pinned version"],
)  # fmt: skip
def test_a_ref_is_written_as_kind_name_and_version(ref: Ref, text: str) -> None:
    assert str(ref) == text

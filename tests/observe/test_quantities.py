"""Kubernetes quantities: exact, and unreadable ones are nobody else's problem."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from controller.observe.quantities import parse_quantity, quantity_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("96", 96), (96, 96), (0.5, Fraction(1, 2)), ("1500m", Fraction(3, 2)), (" 8 ", 8), ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)), ("2.", 2), ("-1", -1), ("+1", 1), ("512Gi", 512 * 2**30), ("1Ki", 1024), ("1Mi", 2**20),
        ("1Ti", 2**40), ("1Pi", 2**50), ("1Ei", 2**60), ("1k", 1_000), ("1M", 10**6), ("2G", 2 * 10**9), ("1T", 10**12),
        ("1P", 10**15), ("1E", 10**18), ("1e3", 1_000), ("1E3", 1_000), ("25e-1", Fraction(5, 2)),
        ("100n", Fraction(1, 10**7)), ("7u", Fraction(7, 10**6)), ("0", 0),
    ],
    ids=str,
)  # fmt: skip
def test_a_quantity_is_read_exactly(text: Any, value: Any) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "many", "1.2.3", "1 Gi", "1gi", "Gi", "1ki", "--1", "1e", "1e999", "0x10", "1_000", "٣", "nan", "inf", ".", "9" * 65],
)  # fmt: skip
def test_what_is_no_quantity_says_so(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is no quantity: write a number with an optional suffix such as m, k, Mi"
    ):
        parse_quantity(text)
    assert quantity_of({"cpu": text}, "cpu") == 0


def test_an_absurd_quantity_is_not_repeated_in_full() -> None:
    with pytest.raises(ValueError, match="no quantity") as raised:
        parse_quantity("x" * 1_000_000)
    assert len(str(raised.value)) < 200


def test_no_milli_is_lost() -> None:
    assert all(quantity_of({"cpu": f"{m}m"}, "cpu", 1_000) == m for m in range(1, 9_000))


def test_what_is_absent_is_nothing_and_the_rest_is_rounded_down() -> None:
    assert quantity_of({}, "cpu") == 0
    assert quantity_of({"cpu": "1999m"}, "cpu") == 1
    assert quantity_of({"memory": "1.5Ki"}, "memory") == 1536

"""Power domains as a forest: who belongs where, and what one object alone cannot show."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.observe.domains import DomainBook, selects
from controller.resources.powerdomain import LabelSelector, PowerDomain
from tests.observe.objects import domain

MARKS = {"row": "7", "kind": "gpu"}


def selector(**fields: Any) -> LabelSelector:
    return msgspec.convert(fields, LabelSelector)


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("chosen_by", "chosen"),
    [
        pytest.param({}, False, id="an empty selector chooses nobody"),
        pytest.param({"matchLabels": {"row": "7"}}, True, id="a label"),
        pytest.param({"matchLabels": {"row": "7", "kind": "gpu"}}, True, id="two labels"),
        pytest.param({"matchLabels": {"row": "7", "kind": "cpu"}}, False, id="one of two labels"),
        pytest.param({"matchLabels": {"rack": ""}}, False, id="a label that is not there"),
        pytest.param(expression("row", "In", "6", "7"), True, id="in"),
        pytest.param(expression("row", "In", "6"), False, id="not in the list"),
        pytest.param(expression("row", "In"), False, id="in nothing"),
        pytest.param(expression("row", "NotIn", "6"), True, id="not in"),
        pytest.param(expression("row", "NotIn", "7"), False, id="excluded"),
        pytest.param(expression("rack", "NotIn", "7"), True, id="not in, for want of the label"),
        pytest.param(expression("row", "Exists"), True, id="exists"),
        pytest.param(expression("rack", "Exists"), False, id="does not exist"),
        pytest.param(expression("rack", "DoesNotExist"), True, id="must not exist"),
        pytest.param(expression("row", "DoesNotExist"), False, id="exists, but must not"),
        pytest.param({"matchLabels": {"kind": "gpu"}, **expression("row", "In", "6")}, False, id="a label and a requirement that fails"),
        pytest.param({"matchLabels": {"kind": "cpu"}, **expression("row", "In", "7")}, False, id="a requirement and a label that fails"),
    ],
)  # fmt: skip
def test_a_selector_chooses_a_node_by_its_labels(chosen_by: dict[str, Any], chosen: bool) -> None:
    assert selects(selector(**chosen_by), MARKS) is chosen


def resolve(*domains: PowerDomain, book: DomainBook | None = None, **labels: dict[str, str]) -> DomainBook:
    made = book or DomainBook()
    made.resolve({d.metadata.name: d for d in domains}, labels)
    return made


def test_members_come_by_name_and_by_label() -> None:
    book = resolve(
        domain("row", "n9", "n1", members={"selector": {"matchLabels": {"row": "7"}}}),
        domain("empty"),
        n1={"row": "7"}, n2={"row": "7"}, n3={"row": "8"},
    )  # fmt: skip
    assert book.members == {"row": ("n1", "n2", "n9"), "empty": ()}
    assert book.faults == {}
    assert [book.domain_of(n) for n in ("n1", "n2", "n3", "n9")] == ["row", "row", "", "row"]


def test_a_tree_of_domains_is_sound() -> None:
    book = resolve(domain("rack", "n1", parent="row"), domain("row", parent="hall"), domain("hall", "n2"))
    assert (book.faults, book.domain_of("n1"), book.domain_of("n2")) == ({}, "rack", "hall")


def test_a_node_that_two_domains_claim_faults_both_and_nobody_else() -> None:
    book = resolve(domain("a", "n1", "n2"), domain("b", "n2", "n3"), domain("c", "n4"))
    assert book.members == {"c": ("n4",)}
    assert book.faults["a"] == (
        "PowerDomain a: node n2 is a member of b too; a node draws through one domain. Remove it from one of them.",
    )
    assert book.faults["b"] == (
        "PowerDomain b: node n2 is a member of a too; a node draws through one domain. Remove it from one of them.",
    )
    assert [book.domain_of(n) for n in ("n1", "n2", "n4")] == ["", "", "c"]


def test_a_node_that_three_domains_claim_names_all_the_others() -> None:
    assert (
        "n1 is a member of b, c too"
        in resolve(domain("a", "n1"), domain("b", "n1"), domain("c", "n1")).faults["a"][0]
    )


def test_a_domain_below_a_refused_one_is_refused_too() -> None:
    """On its own it would be a root, and nobody would heed the limit above it."""
    book = resolve(
        domain("hall", "n1"),
        domain("twin", "n1"),
        domain("row", parent="hall"),
        domain("rack", "n2", parent="row"),
    )
    assert sorted(book.faults) == ["hall", "rack", "row", "twin"]
    assert book.faults["rack"] == (
        "PowerDomain rack: it draws through hall, which is refused; nothing says what it may carry. Mend hall first.",
    )
    assert (book.members, book.domain_of("n2")) == ({}, "")
    book = resolve(
        domain("hall", "n1"), domain("row", parent="hall"), domain("rack", "n2", parent="row"), book=book
    )
    assert (book.faults, book.domain_of("n2")) == ({}, "rack")


@pytest.mark.parametrize(
    ("domains", "faults"),
    [
        pytest.param((domain("a", parent="a"),), {"a": "spec.parent: a power domain cannot be its own parent; leave spec.parent out for a root."}, id="its own parent"),
        pytest.param((domain("a", parent="b"), domain("b", parent="a")), {"a": "its parents form a cycle (a > b > a). Give one of them no parent.", "b": "its parents form a cycle (b > a > b). Give one of them no parent."}, id="each other's parent"),
        pytest.param((domain("a", parent="b"), domain("b", parent="c"), domain("c", parent="b")), {"a": "its parents form a cycle (a > b > c > b). Give one of them no parent.", "b": "(b > c > b)", "c": "(c > b > c)"}, id="under a cycle"),
        pytest.param((domain("a", parent="gone"),), {"a": "its parent gone does not exist. Apply it, or remove spec.parent."}, id="an unknown parent"),
        pytest.param((domain("a", parent="b"), domain("b", parent="gone")), {"a": "its parent gone does not exist.", "b": "its parent gone does not exist."}, id="an unknown grandparent"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_domains_parents(
    domains: tuple[PowerDomain, ...], faults: dict[str, str]
) -> None:
    book = resolve(*domains, domain("fine", "n1"))
    assert set(book.faults) == set(faults)
    for name, text in faults.items():
        assert book.faults[name][0].startswith(f"PowerDomain {name}: ")
        assert text in book.faults[name][0]
    assert book.members == {"fine": ("n1",)}


def test_two_faults_are_two_sentences() -> None:
    book = resolve(domain("a", "n1", parent="gone"), domain("b", "n1"))
    assert [len(book.faults[name]) for name in "ab"] == [2, 1]


def test_only_nodes_that_moved_are_named() -> None:
    book = DomainBook()
    labels: dict[str, dict[str, str]] = {}
    assert book.resolve({"a": domain("a", "n1", "n2")}, labels) == {"n1", "n2"}
    assert book.resolve({"a": domain("a", "n1", "n2")}, labels) == set()
    assert book.resolve({"a": domain("a", "n1"), "b": domain("b", "n2")}, labels) == {"n2"}
    assert book.resolve({"a": domain("a", "n1", parent="x"), "b": domain("b", "n2")}, labels) == {"n1"}
    assert book.resolve({}, labels) == {"n2"}
    assert book.faults == {}

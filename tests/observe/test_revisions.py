"""Revisions: named by content, kept with what became of them, and where a service stands between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.seeds import stable_hash
from controller.actor.revisions import LIMIT, revision_object, superfluous
from controller.observe import labels
from controller.observe.revisions import (
    COMPLETE,
    FAILED,
    RevisionBook,
    name_of,
    standing_of,
    template_of,
    with_template,
)
from controller.resources.core import ControllerRevision
from controller.resources.modelservice import ModelService
from tests.observe import objects as made

NOW = 1_000.0


def name(**spec: Any) -> str:
    return name_of(template_of(made.service(**spec).spec))


SAME = [
    pytest.param({"replicas": 3}, id="its size"),
    pytest.param({"objectives": [{"ttftSeconds": 1.0, "tpotSeconds": 0.1}]}, id="its objectives"),
    pytest.param({"accelerators": ["l4"]}, id="what it may run on"),
    pytest.param({"mode": "Off"}, id="its mode"),
    pytest.param({"image": ""}, id="a default that is given"),
    pytest.param({"pod": {}}, id="an empty part of the pod"),
    pytest.param({"drainSeconds": 5.0}, id="how it drains"),
]
OTHER = [
    pytest.param({"image": "engine:2"}, id="its image"),
    pytest.param({"model": {"name": "mistral-7b"}}, id="its model"),
    pytest.param({"model": {"name": "llama-3-8b", "layers": 8}}, id="its model's shape"),
    pytest.param({"args": ["--fast"]}, id="an argument"),
    pytest.param({"command": ["serve"]}, id="the command"),
    pytest.param({"pod": {"env": [{"name": "A", "value": "1"}]}}, id="a variable"),
    pytest.param(
        {"pod": {"annotations": {"again": "1"}}}, id="an annotation of its pods: so it is tried again"
    ),
]


@pytest.mark.parametrize("spec", SAME)
def test_another_spec_of_the_same_engine(spec: dict[str, Any]) -> None:
    assert name(**spec) == name()


@pytest.mark.parametrize("spec", OTHER)
def test_another_engine(spec: dict[str, Any]) -> None:
    assert name(**spec) != name()


def test_a_name_holds_for_every_version_of_the_operator() -> None:
    """Of what is given alone: a field that a later version adds changes no name."""
    assert template_of(made.service(image="e:1").spec) == {"model": {"name": "llama-3-8b"}, "image": "e:1"}
    content = '{"image":"e:1","model":{"name":"llama-3-8b"}}'
    assert name(image="e:1") == f"{stable_hash(content):016x}"


@given(
    image=st.text(max_size=9),
    args=st.lists(st.text(max_size=5), max_size=3),
    layers=st.none() | st.integers(1, 99),
)
def test_a_template_brings_back_what_it_was_made_of(image: str, args: list[str], layers: int | None) -> None:
    model = {"name": "m"} | ({} if layers is None else {"layers": layers})
    before = made.service(image=image, args=args, model=model, replicas=1)
    after = with_template(made.service(image="other", replicas=7), template_of(before.spec))
    assert template_of(after.spec) == template_of(before.spec)
    assert after.spec.replicas == 7


# ------------------------------------------------------------------------------------------------------ standing


class Was(NamedTuple):
    """One kept revision: its image, number and outcome."""

    image: str
    number: int
    outcome: str = ""


def kept(book: RevisionBook, *all_of_it: Was, uid: str = "uid-chat") -> None:
    for was in all_of_it:
        obj = made.service(image=was.image)
        text = revision_object(obj, name(image=was.image), was.number, NOW)
        text["metadata"]["ownerReferences"][0]["uid"] = uid
        if was.outcome:
            text["metadata"]["annotations"] |= {labels.OUTCOME: was.outcome, labels.ENDED: "1005.0"}
        projected = msgspec.convert(text, ControllerRevision)
        book.take(projected.metadata.key, projected)


class Stands(NamedTuple):
    """The image it is acted on with, its rollout's number, whether complete, the image to go back to, and given up."""

    image: str
    number: int
    complete: bool = False
    back_to: str = ""
    given_up: str = ""
    recorded: bool = True


STORY = [
    pytest.param([], "a", Stands("a", 1, recorded=False), id="the first one ever"),
    pytest.param([Was("a", 1)], "a", Stands("a", 1), id="the first one, kept"),
    pytest.param([Was("a", 1, COMPLETE)], "a", Stands("a", 1, True), id="the first one, complete"),
    pytest.param([Was("a", 1, COMPLETE)], "b", Stands("b", 2, back_to="a", recorded=False), id="a change"),
    pytest.param([Was("a", 1, COMPLETE), Was("b", 2)], "b", Stands("b", 2, back_to="a"), id="a change, kept"),
    pytest.param([Was("a", 1, COMPLETE), Was("b", 2, COMPLETE)], "b", Stands("b", 2, True, "a"), id="a change that came"),
    pytest.param([Was("a", 1, COMPLETE), Was("b", 2, FAILED)], "b", Stands("a", 1, True, given_up="b"), id="a change that was given up"),
    pytest.param([Was("a", 1, COMPLETE), Was("b", 2, FAILED)], "c", Stands("c", 3, back_to="a", recorded=False), id="another change after that"),
    pytest.param([Was("a", 1, COMPLETE), Was("b", 2, FAILED)], "a", Stands("a", 3, recorded=False), id="its user goes back too"),
    pytest.param([Was("b", 2, FAILED), Was("a", 3)], "b", Stands("b", 4, recorded=False), id="and then tries again: it is tried again"),
    pytest.param([Was("a", 1, COMPLETE), Was("b", 2)], "c", Stands("c", 3, back_to="a", recorded=False), id="a change in the middle of a change"),
    pytest.param([Was("a", 1, FAILED)], "a", Stands("a", 1), id="nothing to go back to: tried on"),
    pytest.param([Was("a", 1, COMPLETE), Was("b", 2, COMPLETE), Was("c", 3, FAILED)], "c", Stands("b", 2, True, given_up="c"), id="back to the newest that came"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "image", "stands"), STORY)
def test_where_a_service_stands(before: list[Was], image: str, stands: Stands) -> None:
    book = RevisionBook()
    kept(book, *before)
    obj = made.service(image=image, replicas=4)
    found = standing_of(obj, book.of("shop/chat", "uid-chat"))
    rollout = found.rollout
    assert (found.acting.spec.image, found.revision) == (stands.image, name(image=stands.image))
    assert (rollout.number, rollout.complete, found.recorded) == (
        stands.number,
        stands.complete,
        stands.recorded,
    )
    assert rollout.back_to == (name(image=stands.back_to) if stands.back_to else "")
    assert rollout.given_up == (name(image=stands.given_up) if stands.given_up else "")
    assert found.wanted == name(image=image)
    assert found.acting.spec.replicas == 4, "what is no part of the revision stays as its user says"


def test_a_namesakes_revisions_are_not_its_own() -> None:
    book = RevisionBook()
    kept(book, Was("a", 1, COMPLETE), uid="uid-of-a-predecessor")
    assert book.of("shop/chat", "uid-chat") == []


def test_what_another_version_kept_and_this_one_cannot_read_is_not_gone_back_to() -> None:
    book = RevisionBook()
    kept(book, Was("a", 1, COMPLETE), Was("b", 2, FAILED))
    good = book.of("shop/chat", "uid-chat")[0].obj
    book.take(good.metadata.key, msgspec.structs.replace(good, data={"spec": {"model": "a word"}}))
    found = standing_of(made.service(image="b"), book.of("shop/chat", "uid-chat"))
    assert found.acting.spec.image == "b"


def test_an_edited_annotation_is_no_fault() -> None:
    book = RevisionBook()
    kept(book, Was("a", 1))
    obj = book.of("shop/chat", "uid-chat")[0].obj
    meta = msgspec.structs.replace(obj.metadata, annotations={labels.BEGAN: "soon"})
    book.take(obj.metadata.key, msgspec.structs.replace(obj, metadata=meta))
    assert book.of("shop/chat", "uid-chat")[0].began_seconds == 0.0


def test_one_that_is_gone_is_forgotten() -> None:
    book = RevisionBook()
    kept(book, Was("a", 1))
    key = book.of("shop/chat", "uid-chat")[0].obj.metadata.key
    assert book.take(key, None) == {"shop/chat"}
    assert book.of("shop/chat", "uid-chat") == []
    assert book.take(key, None) == set()


def test_the_oldest_go_and_those_in_use_stay() -> None:
    book = RevisionBook()
    kept(book, *(Was(f"i{number}", number, COMPLETE) for number in range(1, LIMIT + 5)))
    every = book.of("shop/chat", "uid-chat")
    in_use = {every[0].name, every[-1].name}
    gone = superfluous(every, in_use)
    assert [each.number for each in gone] == [2, 3]
    assert superfluous(every[: LIMIT + 1], in_use) == []


def test_a_kept_revision_belongs_to_its_service() -> None:
    obj: ModelService = made.service(image="a")
    text = revision_object(obj, "0123456789abcdef", 3, NOW)
    assert text["metadata"]["name"] == "chat-0123456789abcdef"
    assert text["metadata"]["ownerReferences"][0]["uid"] == "uid-chat"
    assert (text["revision"], text["data"]) == (3, {"spec": {"model": {"name": "llama-3-8b"}, "image": "a"}})

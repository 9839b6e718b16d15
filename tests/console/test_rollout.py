"""`plimsoll rollout status|history` and `plimsoll rollback` against a real door on loopback."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.commands.rollout import becoming
from controller.actor.revisions import revision_object
from controller.observe import labels
from controller.observe.revisions import COMPLETE, FAILED, name_of, template_of
from controller.resources.core import CONTROLLER_REVISION
from controller.resources.kinds import MODEL_SERVICE
from controller.resources.modelservice import ModelService
from tests.console.test_objects import Desk, desk, door
from tests.store.objects import service

__all__ = ["desk", "door"]

JSON = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


def chat(desk: Desk, **spec: Any) -> ModelService:
    """A service in the desk's store."""
    made = service("chat", **spec)
    return msgspec.convert(
        desk.door.now(desk.store.create(MODEL_SERVICE, made, field_manager="user")), ModelService
    )


def kept(desk: Desk, obj: ModelService, image: str, number: int, outcome: str, **notes: str) -> None:
    """A revision of another image, as the operator keeps it."""
    before = msgspec.structs.replace(obj, spec=msgspec.structs.replace(obj.spec, image=image))
    made = revision_object(before, name_of(template_of(before.spec)), number, 1_700_000_000.0)
    made["metadata"]["annotations"] |= {labels.OUTCOME: outcome, labels.ENDED: "1700000042.0", **notes}
    desk.door.now(desk.store.create(CONTROLLER_REVISION, made, field_manager="operator"))


def spec_now(desk: Desk) -> dict[str, Any]:
    found: dict[str, Any] = desk.door.now(desk.store.get(MODEL_SERVICE, "chat", "default"))["spec"]
    return found


def test_it_goes_back_to_the_newest_that_came(desk: Desk) -> None:
    obj = chat(desk, image="e:4", args=["--fast"])
    for number, (image, outcome) in enumerate(
        [("e:1", COMPLETE), ("e:2", COMPLETE), ("e:3", FAILED)], start=1
    ):
        kept(desk, obj, image, number, outcome)
    answer = json.loads(desk.good("rollback", "chat", "-o", "json"))
    assert (answer["revision"], spec_now(desk)["image"]) == (2, "e:2")
    assert spec_now(desk)["args"] == ["--fast"]
    assert "asks for revision 1 again" in desk.good("rollback", "default/chat", "--to-revision", "1")
    assert spec_now(desk)["image"] == "e:1"


def test_what_the_older_one_did_not_say_is_left_to_its_default(desk: Desk) -> None:
    obj = chat(desk)
    kept(desk, obj, "", 1, COMPLETE)
    patch = {
        "spec": {"image": "e:2", "args": ["x"], "pod": {"labels": {"team": "a"}}, "model": {"layers": 8}}
    }
    desk.door.now(desk.store.patch(MODEL_SERVICE, "chat", patch, "default", field_manager="user"))
    desk.good("rollback", "chat")
    after = msgspec.convert(desk.door.now(desk.store.get(MODEL_SERVICE, "chat", "default")), ModelService)
    assert template_of(after.spec) == template_of(obj.spec)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rollback", "chat", "--to-revision", "9"], "has no revision 9: choose one of 1"),
        (["rollback", "chat", "--to-revision", "1"], "asks for revision 1 already"),
        (["rollback", "chat"], "has no complete revision beside the one it asks for (kept: 1)"),
        (["rollback", "nobody"], "not found"),
        (["rollout", "history", "nobody"], "not found"),
    ],
)  # fmt: skip
def test_what_there_is_no_way_back_to_is_said(desk: Desk, words: list[str], said: str) -> None:
    obj = chat(desk, image="e:1")
    kept(desk, obj, "e:1", 1, COMPLETE)
    assert said in desk.refused(*words)


def test_a_namesakes_revisions_are_not_listed(desk: Desk) -> None:
    obj = chat(desk)
    meta = msgspec.structs.replace(obj.metadata, uid="of-a-predecessor")
    kept(desk, msgspec.structs.replace(obj, metadata=meta), "e:1", 1, COMPLETE)
    assert "Nothing is kept" in desk.good("rollout", "history", "chat")


def test_the_history_says_what_when_how_and_how_long(desk: Desk) -> None:
    obj = chat(desk, image="e:2")
    kept(desk, obj, "e:1", 1, COMPLETE, **{labels.WHY: "RolloutComplete"})
    kept(desk, obj, "e:2", 2, FAILED, **{labels.WHY: "RolloutFaulty"})
    first, second = json.loads(desk.good("rollout", "history", "chat", "-o", "json"))["revisions"]
    assert (first["image"], first["outcome"], first["tookSeconds"], first["wanted"]) == (
        "e:1",
        "Complete",
        42.0,
        False,
    )
    assert (second["why"], second["wanted"]) == ("RolloutFaulty", True)
    assert first["began"] == "2023-11-14T22:13:20Z"
    table = desk.good("rollout", "history", "chat")
    assert "given up" in table
    assert "2 *" in table


def test_the_status_is_the_condition_and_an_answer(desk: Desk) -> None:
    chat(desk)
    told = desk.type("rollout", "status", "chat")
    assert (told.exit_code, "NotYetDecided" in told.stdout) == (1, True)
    condition = {
        "type": "Progressing", "status": "True", "reason": "RolloutComplete", "message": "Revision 1 is complete.",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    status = {"status": {"conditions": [condition]}}
    desk.door.now(
        desk.store.patch(
            MODEL_SERVICE, "chat", status, "default", field_manager="operator", subresource="status"
        )
    )
    assert "Revision 1 is complete." in desk.good("rollout", "status", "chat", "--wait", "30")


@given(before=st.dictionaries(st.text(max_size=2), JSON), after=st.dictionaries(st.text(max_size=2), JSON))
def test_the_patch_makes_one_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(before, becoming(before, after)) == after


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, as in its section 2."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found

"""Fields that the API server dropped are found in what kubectl says was applied."""

from __future__ import annotations

import json

import pytest

from controller.resources.podpart import UNSUPPORTED, PodPart
from controller.resources.pruned import LAST_APPLIED, MOST_CHARACTERS, dropped, words
from tests.resources.bad import service

APPLIED = [
    pytest.param(json.dumps(service()), (), id="all of it was taken"),
    pytest.param(json.dumps(service({"pod": {"hostNetwork": True}})), ("spec.pod.hostNetwork",), id="a field of a pod"),
    pytest.param(json.dumps(service({"zebra": 1, "pod": {"env": [{"name": "A", "valu": "1"}]}})), ("spec.zebra", "spec.pod.env[0].valu"), id="two, one of them deep"),
    pytest.param(json.dumps({**service(), "extra": 1}), (), id="beside the spec"),
    pytest.param("{", (), id="no JSON"),
    pytest.param('["a"]', (), id="no object"),
    pytest.param('{"spec": 5}', (), id="no spec"),
    pytest.param(" " * MOST_CHARACTERS + "{}", (), id="far too long"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "paths"), APPLIED)
def test_what_was_dropped_is_named(text: str, paths: tuple[str, ...]) -> None:
    assert sorted(dropped("ModelService", {LAST_APPLIED: text})) == sorted(paths)
    assert dropped("ModelService", {}) == ()


def test_the_words_name_five_and_count_the_rest() -> None:
    assert words("ModelService", ()) == ""
    told = words("ModelService", tuple(f"spec.x{i}" for i in range(7)))
    assert told.startswith("spec.x0, spec.x1, spec.x2, spec.x3, spec.x4 and 2 more: no field of ModelService")


def test_nothing_is_called_unsupported_that_there_is() -> None:
    camel = {
        "".join([w if i == 0 else w.title() for i, w in enumerate(n.split("_"))])
        for n in PodPart.__struct_fields__
    }
    assert not camel & UNSUPPORTED.keys()

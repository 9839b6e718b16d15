"""What a pod is told when it starts: text that survives an annotation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.codec import from_json, to_json
from cluster.launch import EngineLaunch, RankLaunch
from cluster.training import CheckpointSpec
from tests.nouns.builds import build
from tests.nouns.cases import L4, MODEL, job

RANK = RankLaunch(
    job="lab/train", job_uid="u", attempt=2, rendezvous="u-a2", node_rank=1, nodes=2, gpus=4, shape=job().shape,
    network="roce", steps=10, global_batch=8, micro_batch=2,
)  # fmt: skip


@pytest.mark.parametrize("kind", [EngineLaunch, RankLaunch], ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=20)
def test_a_launch_survives_as_the_text_of_an_annotation(kind: Any, data: st.DataObject) -> None:
    launch = data.draw(build(kind))
    assert from_json(to_json(launch).decode(), kind) == launch


def test_a_launch_says_no_more_than_it_must() -> None:
    told = msgspec.json.decode(to_json(EngineLaunch(service="shop/chat", model=MODEL, variant=L4)))
    assert sorted(told) == ["model", "service", "variant"]
    assert told["variant"] == {"accelerator": "L4"}


def test_ranks_that_are_not_told_otherwise_start_from_nothing_on_one_device_each() -> None:
    assert (RANK.tensor, RANK.pipeline, RANK.data, RANK.restore_step, RANK.devices) == (1, 1, 1, 0, ())
    assert RANK.checkpoint == CheckpointSpec()


@pytest.mark.parametrize(
    ("kind", "note", "path"),
    [
        pytest.param(EngineLaunch, b'{"service":"s"}', "missing required field `model`", id="half an engine"),
        pytest.param(RankLaunch, to_json(EngineLaunch(service="s", model=MODEL, variant=L4)), "unknown field|missing required field", id="an engine's note for ranks"),
        pytest.param(RankLaunch, to_json(RANK).replace(b'"steps":10', b'"steps":"ten"'), r"\$\.steps", id="steps in words"),
        pytest.param(RankLaunch, to_json(RANK).replace(b'"layers":24', b'"layers":24,"wings":2'), r"unknown field `wings` - at `\$\.shape`", id="a field of another version, deep down"),
    ],
)  # fmt: skip
def test_a_note_that_cannot_be_meant_says_where(kind: Any, note: bytes, path: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=path):
        from_json(note, kind)

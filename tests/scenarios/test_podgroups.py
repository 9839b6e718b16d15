"""An attempt's PodGroup where they are offered, on a whole cluster; nothing of the kind, and no cost, elsewhere."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path

import pytest

from controller.actor.podgroups import SPOKEN
from controller.store.interface import JsonObject
from tests.scenarios import plays_gangs, plays_training
from tests.scenarios.plays_podgroups import POD_GROUP, OfferingTier
from tests.scenarios.scenario import play

WHY = "plimsoll.podgroups"


def left(tier: OfferingTier) -> list[JsonObject]:
    """PodGroups after the play."""
    return list(asyncio.run(tier.store.inner.list(POD_GROUP)).items)


def test_each_attempt_has_one_its_pods_name_it_and_the_earlier_ones_are_gone(tmp_path: Path) -> None:
    tier = OfferingTier()
    play(plays_training.NODE_LOSS, tmp_path, tier=tier)
    made = [f"create bert-a{attempt}" for attempt in (1, 2, 3)]
    assert tier.store.told == ["discover", "try bert-a1-r0-trial", *made]
    assert tier.store.named == {
        f"bert-a{attempt}-r{rank}": f"bert-a{attempt}" for attempt in (1, 2, 3) for rank in (0, 1)
    }
    [group] = left(tier)
    assert group["metadata"]["name"] == "bert-a3"
    assert group["spec"] == {"schedulingPolicy": {"gang": {"minCount": 2}}}
    [owner] = group["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("TrainingJob", "bert")


def test_a_suspended_job_leaves_none(tmp_path: Path) -> None:
    tier = OfferingTier()
    play(plays_gangs.PAUSED, tmp_path, tier=tier)
    assert [line for line in tier.store.told if line.startswith("create")] == [
        "create bert-a1", "create bert-a2", "create bert-a3",
    ]  # fmt: skip
    assert [group["metadata"]["name"] for group in left(tier)] == ["bert-a3"]


def test_with_the_gate_off_the_field_is_dropped_and_a_gang_starts_as_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, WHY)
    tier = OfferingTier(keeps=False)
    play(plays_training.NODE_LOSS, tmp_path, tier=tier)
    assert tier.store.told == ["discover", "try bert-a1-r0-trial"], "three attempts, and asked once"
    assert left(tier) == []
    [said] = [record.message for record in caplog.records if record.name == WHY]
    assert "a pod does not keep its spec.schedulingGroup: the feature gate GenericWorkload is off" in said


def test_where_they_are_not_served_one_question_is_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, WHY)
    tier = OfferingTier(offered=False)
    play(plays_training.NODE_LOSS, tmp_path, tier=tier)
    assert tier.store.told == ["discover"]
    [said] = [record.message for record in caplog.records if record.name == WHY]
    assert f"serves none of {' and '.join(SPOKEN)}" in said


async def _others(tier: OfferingTier, name: str) -> None:
    obj: JsonObject = {
        "apiVersion": POD_GROUP.api_version,
        "kind": "PodGroup",
        "metadata": {
            "name": name,
            "namespace": "lab",
            "labels": {"app.kubernetes.io/managed-by": "plimsoll", "plimsoll.dev/job": "bert"},
        },
        "spec": {"schedulingPolicy": {"gang": {"minCount": 7}}},
    }
    await tier.store.inner.create(POD_GROUP, obj, field_manager="somebody")


def test_those_of_others_are_left_alone_even_where_they_have_our_labels_and_our_name(tmp_path: Path) -> None:
    tier = OfferingTier()
    scenario = plays_training.NODE_LOSS

    async def script(stage: object) -> None:
        await _others(tier, "bert-a1")
        await _others(tier, "theirs")
        await scenario.script(stage)  # type: ignore[arg-type]

    play(dataclasses.replace(scenario, script=script), tmp_path, tier=tier)
    assert set(tier.store.named) == {
        "bert-a2-r0", "bert-a2-r1", "bert-a3-r0", "bert-a3-r1",
    }, "the first attempt's name is somebody else's"  # fmt: skip
    counts = {g["metadata"]["name"]: g["spec"]["schedulingPolicy"]["gang"]["minCount"] for g in left(tier)}
    assert counts == {
        "bert-a1": 7, "theirs": 7, "bert-a3": 2,
    }  # fmt: skip

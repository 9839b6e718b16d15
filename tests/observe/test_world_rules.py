"""What one object cannot show, and what an API server would have refused: said in `Accepted`, and nothing else stops."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.snapshot import Snapshot
from controller.observe.world import World
from controller.resources.kinds import BY_KIND
from controller.store.embedded import open_store
from controller.telling.memory import Sayings
from controller.telling.statuses import class_status, domain_status, job_status, service_status
from runtime.clock import VirtualClock
from tests.observe import objects as made
from tests.observe.objects import Play, node
from tests.resources.bad import Bad, Said
from tests.resources.bad_manifests import RULED
from tests.store.following import now

STATUSES: dict[str, Any] = {
    "ModelService": service_status,
    "TrainingJob": job_status,
    "AcceleratorClass": class_status,
    "PowerDomain": domain_status,
}


def stored(obj: Any) -> Any:
    """The object as it comes out of a store that runs no CEL."""
    kind = BY_KIND[obj["kind"]]
    store = open_store(VirtualClock(1_790_000_000.0))
    return msgspec.convert(now(store.create(kind.resource, obj, field_manager="kubectl")), kind.type)


def accepted(world: World, obj: Any) -> Any:
    kind = type(obj).__name__
    faults = world.faults.get((kind, obj.metadata.key), ())
    status = STATUSES[kind](obj, Snapshot(), Sayings(), faults, 1_790_000_000.0)
    (condition,) = (c for c in status.conditions if c.type == "Accepted")
    return condition


@pytest.mark.parametrize("bad", RULED, ids=[bad.story for bad in RULED])
def test_what_cel_would_refuse_the_operator_refuses_with_the_same_sentence(bad: Bad) -> None:
    obj = stored(bad.obj)
    play = Play(made.accelerator("h100", "H100"), obj)
    condition = accepted(play.world, obj)
    assert (condition.status, condition.reason) == ("False", "SpecInvalid")
    assert isinstance(bad.words, Said)
    for fault in bad.words.faults:
        field, _, sentence = fault.partition(": Invalid value: ")
        assert f"{field}: {sentence}." in condition.message


def test_a_class_that_becomes_faulty_counts_as_it_was_until_it_is_mended_or_made_anew() -> None:
    play = Play(node())
    assert play.live("nodes")["n1"].accelerator == "L4"
    play.tell(made.accelerator(safeWatts=90, memoryBytes=2**30))
    assert play.live("accelerators")["L4"].memory_bytes == 24 * 2**30
    assert (list(play.live("pools")), play.live("nodes")["n1"].accelerator) == (["l4-od"], "L4")
    assert "safeWatts must not be greater than maxWatts" in play.world.faults["AcceleratorClass", "l4"][0]
    play.tell(made.accelerator(memoryBytes=2**30))
    assert (play.live("accelerators")["L4"].memory_bytes, play.world.faults) == (2**30, {})
    other = made.accelerator(safeWatts=90)
    other = msgspec.structs.replace(other, metadata=msgspec.structs.replace(other.metadata, uid="another"))
    play.tell(other)
    assert (play.live("accelerators"), play.live("pools"), play.live("nodes")) == ({}, {}, {})
    play.gone("AcceleratorClass", "l4")
    assert play.world.faults == {}


def born(obj: Any, when: str) -> Any:
    """The object, made at a time of that day."""
    metadata = msgspec.structs.replace(obj.metadata, creation_timestamp=f"2026-11-21T{when}:00Z")
    return msgspec.structs.replace(obj, metadata=metadata)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        pytest.param(
            {"displayName": "L4"},
            "AcceleratorClass a: the name 'L4' belongs to AcceleratorClass l4, which is older; rename it, or drop the alias.",
            id="the name that people write",
        ),
        pytest.param(
            {"aliases": ["NVIDIA-L4"]},
            "AcceleratorClass a: the name 'NVIDIA-L4' belongs to AcceleratorClass l4, which is older; rename it, or drop the alias.",
            id="the name on the nodes",
        ),
        pytest.param(
            {"pools": [{"name": "l4-od", "dollarsPerGpuHour": 9.0, "pricedAt": "2026-01-01"}]},
            "AcceleratorClass a: the pool 'l4-od' belongs to AcceleratorClass l4, which is older; call the pool otherwise.",
            id="the name of a price",
        ),
    ],
)
def test_of_two_classes_that_claim_one_name_the_older_stays(spec: dict[str, Any], sentence: str) -> None:
    older = born(made.accelerator(), "10:00")
    newer = born(made.accelerator("a", **{"displayName": "A", "aliases": [], **spec}), "11:00")
    play = Play(older, newer, node())
    assert play.world.faults == {("AcceleratorClass", "a"): (sentence,)}
    assert accepted(play.world, newer).message == sentence
    assert accepted(play.world, older).status == "True"
    assert play.live("pools")["l4-od"].dollars_per_gpu_hour == 0.8
    assert play.live("nodes")["n1"].accelerator == "L4"
    play.gone("AcceleratorClass", "l4")
    assert play.world.faults == {}
    assert list(play.live("accelerators")) == [spec.get("displayName", "A")]

"""What nouns say of themselves: keys, texts, limits, and which changes of a spec start an engine anew."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster import actions as act
from cluster import targets as aim
from cluster.beliefs import Beliefs
from cluster.hardware import Nic, Slot
from cluster.owners import OWNERS, STAGES, SUPPORTED, TARGET_OWNERS
from cluster.plan import Context
from cluster.serving import LoadHistogram, Objective, Variant
from tests.nouns.cases import L4, cluster, node, service


def nic(name: str, link: str, rate: int) -> Nic:
    return Nic(name=name, link=link, rate_bits_per_second=rate)


@pytest.mark.parametrize(
    ("nics", "link"),
    [
        pytest.param((), "none", id="no network"),
        pytest.param((nic("eth0", "ethernet", 25),), "ethernet", id="one"),
        pytest.param(
            (nic("eth0", "ethernet", 25), nic("ib0", "infiniband", 400)), "infiniband", id="the fastest"
        ),
        pytest.param(
            (nic("b", "roce", 100), nic("a", "ethernet", 100)), "roce", id="of equals the last by name"
        ),
    ],
)
def test_a_node_talks_over_its_fastest_nic(nics: tuple[Nic, ...], link: str) -> None:
    assert msgspec.structs.replace(node("a"), nics=nics).link == link


def test_a_slot_counts_its_devices() -> None:
    assert Slot(node="a", devices=(2, 3)).gpus == 2
    assert Slot(node="a", devices=()).gpus == 0


@pytest.mark.parametrize(
    ("variant", "key"),
    [
        (L4, "L4x1-bf16"),
        (Variant(accelerator="A100-80", gpus=2, tensor=2, precision="fp8"), "A100-80x2-fp8"),
    ],
    ids=["one GPU", "two GPUs of another precision"],
)
def test_a_variant_has_a_readable_key(variant: Variant, key: str) -> None:
    assert variant.key == key


@pytest.mark.parametrize(
    ("objective", "key"),
    [
        (Objective(ttft_seconds=2.0, tpot_seconds=0.04), "default@2s/0.04s/p95"),
        (
            Objective(request_class="batch", ttft_seconds=10, tpot_seconds=0.1, percentile=0.995),
            "batch@10s/0.1s/p99.5",
        ),
    ],
    ids=["the default class", "another promise"],
)
def test_an_objective_is_known_by_its_class_and_promise(objective: Objective, key: str) -> None:
    assert objective.key == key


def test_a_service_has_the_priority_of_its_most_urgent_class() -> None:
    def classes(*priorities: int) -> tuple[Objective, ...]:
        return tuple(Objective(ttft_seconds=1, tpot_seconds=1, priority=p) for p in priorities)

    assert service(objectives=classes(-5, 3, 1)).priority == 3
    assert service(objectives=classes(-5)).priority == -5
    assert service(objectives=()).priority == 0
    assert service().name == "shop/chat"


def test_a_histogram_offers_the_sum_of_its_cells() -> None:
    grid = LoadHistogram(
        service="s", input_edges=(1, 2), output_edges=(1, 2), cells=(0.5, 0.0, 1.25, 2.0), window_seconds=1
    )
    assert grid.requests_per_second == 3.75


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((), "nothing"),
        ((("A100-80x1-bf16", 6), ("L4x1-bf16", 2)), "6 A100-80x1-bf16 + 2 L4x1-bf16"),
        ((("A100-80x1-bf16", 0), ("L4x1-bf16", 2)), "2 L4x1-bf16"),
        ((("L4x1-bf16", 0),), "nothing"),
    ],
    ids=["an empty mix", "two variants", "none of the first", "none of any"],
)
def test_a_mix_is_written_as_units_of_variants(parts: tuple[tuple[str, int], ...], text: str) -> None:
    mix = aim.Mix(parts=tuple(aim.MixPart(variant=v, pool="p", units=n) for v, n in parts))
    assert mix.text == text


@pytest.mark.parametrize(
    ("target", "key"),
    [
        (aim.Menu(owner="o", decided_seconds=0, service="shop/chat", mixes=()), "Menu/shop/chat"),
        (
            aim.Capacity(owner="o", decided_seconds=0, service="s", mix=aim.Mix(), wanted_per_second=1),
            "Capacity/s",
        ),
        (aim.Share(owner="o", decided_seconds=0, pool="p", serving_gpus=1, training_gpus=2), "Share/p"),
        (aim.Prices(owner="o", decided_seconds=0, pool="p", dollars_per_gpu_hour=1), "Prices/p"),
        (aim.Residuals(owner="o", decided_seconds=0, accelerator="L4", dollars_by_milli={}), "Residuals/L4"),
        (aim.Warm(owner="o", decided_seconds=0, service="s", copies={}), "Warm/s"),
        (aim.Queue(owner="o", decided_seconds=0, queue="q", order=()), "Queue/q"),
        (aim.Budget(owner="o", decided_seconds=0, domain="d", watts=1), "Budget/d"),
        (aim.Cadence(owner="o", decided_seconds=0, job="j", checkpoint_seconds=1), "Cadence/j"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_target_is_kept_under_its_kind_and_subject(target: aim.AnyTarget, key: str) -> None:
    assert aim.target_key(target) == key


def test_names_are_those_of_the_refs() -> None:
    small = cluster()
    for mapping in ("accelerators", "nodes", "services", "jobs", "domains"):
        assert all(noun.name == noun.ref.name == key for key, noun in getattr(small, mapping).items())


def test_a_belief_of_capacity_is_keyed_by_model_variant_and_class() -> None:
    assert (
        Beliefs.capacity_key("llama", "L4x1-bf16", "default@2s/0.04s/p95")
        == "llama|L4x1-bf16|default@2s/0.04s/p95"
    )


PLANNER = {"select", "scale", "commit", "train", "place", "warm"}
OWNED = {
    "place": "CreateLauncher CreateReplica Drain Resume DeleteReplica SetRole SetRoutes SettleRevision Scale Provision ReleaseNode",
    "warm": "SetTier StageWeights DropWeights",
    "train": "Reserve Release StartGang RestartGang StopGang Checkpoint PaceGang",
    "faults": "Isolate Resume Probe",
    "power": "GrantPower ShapePrefill",
    "migration": "Migrate",
    "dispatch": "Dispatch Hold Reject",
}
AIMED = {
    "select": "Menu", "scale": "Capacity", "commit": "Capacity Share Prices Queue", "train": "Queue Cadence",
    "place": "Residuals", "warm": "Warm", "power": "Budget",
}  # fmt: skip


def by_owner(owners: dict[type[Any], frozenset[str]]) -> dict[str, set[str]]:
    loops = {loop for each in owners.values() for loop in each}
    return {loop: {kind.__name__ for kind, each in owners.items() if loop in each} for loop in loops}


def test_every_field_has_the_owner_the_seams_give_it() -> None:
    assert by_owner(OWNERS) == {loop: set(kinds.split()) for loop, kinds in OWNED.items()}
    assert by_owner(TARGET_OWNERS) == {loop: set(kinds.split()) for loop, kinds in AIMED.items()}
    assert set(STAGES) == PLANNER
    assert STAGES.index("select") < STAGES.index("scale") < STAGES.index("commit") < STAGES.index("train")
    assert STAGES[-2:] == ("place", "warm")


def test_this_version_carries_out_these_kinds() -> None:
    assert {kind.__name__ for kind in SUPPORTED} == {
        "CreateReplica", "Drain", "Resume", "DeleteReplica", "SetRoutes", "SettleRevision", "Reserve", "Release", "StartGang",
        "RestartGang", "StopGang", "GrantPower", "Provision", "ReleaseNode", "Dispatch", "Hold", "Reject",
    }  # fmt: skip


def test_an_action_knows_its_kind_and_a_context_starts_with_a_scratch_of_its_own() -> None:
    assert act.Hold(reason=0, request="q").kind == "Hold"
    first, second = Context(now_seconds=0.0), Context(now_seconds=0.0)
    first.scratch["x"] = 1
    assert second.scratch == {}

"""The world as it unfolds: objects and reports in, a model out, and one object's fault never another's."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.base import Ref
from cluster.hardware import Offer
from cluster.overlay import Overlay
from cluster.serving import ReplicaPhase
from cluster.silence import SILENT_SECONDS
from controller.observe import labels
from controller.observe.world import FORGET_SECONDS
from controller.resources.podpart import Wish
from tests.observe import objects as made
from tests.observe.objects import NOW, Play, device, engine_pod, inventory, node, pod, rank_pod

LEAVING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


def free(play: Play, of: str = "n1") -> list[int]:
    return Overlay(play.observer.snapshot(play.now)).space.free_devices(of)


# nodes


def test_objects_become_nouns_once_and_only_what_changed_again() -> None:
    play = Play(node(), made.service(), made.domain("row", "n1"), engine_pod())
    assert (list(play.live("nodes")), list(play.live("services")), list(play.live("domains"))) == (
        ["n1"],
        ["shop/chat"],
        ["row"],
    )
    assert play.live("nodes")["n1"].power_domain == "row"
    assert (list(play.live("accelerators")), list(play.live("pools"))) == (["L4"], ["l4-od"])
    revision = play.observer.revision
    assert play.tell() is False
    assert play.tell(node(), made.service(), engine_pod(), after=1.0) is False
    assert play.observer.revision == revision
    assert play.tell(node(gpus=3), after=1.0) is True


def test_a_node_of_an_unknown_product_waits_for_somebody_to_describe_it() -> None:
    play = Play(node("b", product="NVIDIA-B300", gpus=8), node("n1"))
    assert list(play.live("nodes")) == ["n1"]
    assert play.world.unknown_products["b"].unknown_product == "NVIDIA-B300"
    assert play.tell(made.accelerator("b300", "B300")) is True
    assert sorted(play.live("nodes")) == ["b", "n1"]
    assert play.world.unknown_products == {}
    assert play.gone("AcceleratorClass", "b300") is True
    assert list(play.live("nodes")) == ["n1"]
    assert (play.live("pools").keys(), list(play.world.unknown_products)) == ({"l4-od"}, ["b"])
    play.tell(node("b", product="", gpus=0))
    assert play.world.unknown_products == {}, "its GPUs were taken out"
    play.tell(node("b", product="NVIDIA-B300", gpus=8))
    play.gone("Node", "b")
    assert play.world.unknown_products == {}


def test_a_node_falls_silent_and_comes_back() -> None:
    play = Play(node())
    play.world.inventory("n1", inventory(*map(device, range(4))), NOW)
    assert play.tell()
    assert play.live("nodes")["n1"].offer is Offer.OPEN
    play.tell(after=SILENT_SECONDS)
    assert play.live("nodes")["n1"].offer is Offer.OPEN
    assert play.tell(after=0.1)
    assert play.live("nodes")["n1"].offer is Offer.LOST
    play.world.heard("n1", play.now)
    assert play.tell()
    assert play.live("nodes")["n1"].offer is Offer.OPEN


def test_when_nobody_is_heard_any_more_nobody_is_lost() -> None:
    play = Play(node("n1"))
    play.tell(node("n2"))
    for name in ("n1", "n2"):
        play.world.inventory(name, inventory(device(0)), NOW)
    play.tell(after=SILENT_SECONDS + 1)
    assert {each.offer for each in play.live("nodes").values()} == {Offer.OPEN}
    play.world.heard("n2", play.now)
    play.tell(after=SILENT_SECONDS)
    assert {each.offer for each in play.live("nodes").values()} == {Offer.OPEN}, "time to come back"
    play.world.heard("n2", play.now)
    play.tell(after=0.1)
    offers = {name: each.offer for name, each in play.live("nodes").items()}
    assert offers == {"n1": Offer.LOST, "n2": Offer.OPEN}, "one is heard: the other is silent by itself"


def test_an_older_report_does_not_make_a_node_older() -> None:
    play = Play(node())
    play.world.inventory("n1", inventory(device(0)), NOW + 5)
    play.world.heard("n1", NOW + 2)
    assert play.world.last_report["n1"] == NOW + 5


def test_a_node_nobody_has_an_agent_on_is_as_its_kubelet_says() -> None:
    play = Play(node())
    play.tell(after=1_000.0)
    assert play.live("nodes")["n1"].offer is Offer.OPEN
    play.tell(node(ready="Unknown"))
    assert play.live("nodes")["n1"].offer is Offer.LOST


def test_after_a_restart_every_agent_has_time_to_come_back() -> None:
    play = Play(node())
    play.world.inventory("n1", inventory(device(0)), NOW - 500)
    play.tell(after=SILENT_SECONDS)
    assert play.live("nodes")["n1"].offer is Offer.OPEN


def test_an_inventory_that_comes_before_its_node_is_not_lost() -> None:
    play = Play()
    play.world.inventory("n1", inventory(device(0), device(1)), NOW)
    play.tell()
    assert play.live("nodes") == {}
    play.tell(node(gpus=2), after=5.0)
    assert [d.uuid for d in play.live("nodes")["n1"].devices] == ["GPU-0", "GPU-1"]


def test_what_an_agent_told_is_forgotten_long_after_its_node() -> None:
    play = Play(node())
    play.world.inventory("n1", inventory(device(0)), NOW)
    play.tell()
    play.gone("Node", "n1", after=1.0)
    assert play.live("nodes") == {}
    assert "n1" in play.world.inventories
    play.tell(after=FORGET_SECONDS)
    assert (play.world.inventories, play.world.last_report) == ({}, {})


# replicas


def test_a_replica_lives_as_its_pod_does() -> None:
    play = Play(node(), engine_pod(phase="Pending", ready=False, at="", spec=made.pinned("n1")))
    seen = [play.live("replicas")["shop/chat-0"]]
    for change in ({"ready": False}, {}, {"annotations": {labels.DRAIN_UNTIL: "1"}}, {"metadata": LEAVING}):
        assert play.tell(engine_pod(**change), after=1.0)
        seen.append(play.live("replicas")["shop/chat-0"])
    assert [r.phase.value for r in seen] == ["pending", "starting", "ready", "draining", "stopping"]
    assert [r.phase_since_seconds for r in seen] == [NOW, NOW + 1, NOW + 2, NOW + 3, NOW + 4]
    assert play.gone("Pod", "shop/chat-0")
    assert (play.live("replicas"), play.live("launchers"), play.live("claims")) == ({}, {}, {})
    assert play.observer.refused == {}


def test_a_phase_keeps_its_time_while_other_things_change() -> None:
    play = Play(node(), engine_pod(ready=False, status={"reason": "image"}))
    play.tell(engine_pod(ready=False, status={"reason": "weights"}), after=5.0)
    replica = play.live("replicas")["shop/chat-0"]
    assert (replica.stage, replica.phase_since_seconds) == ("weights", NOW)
    play.tell(engine_pod(ready=False, metadata={"uid": "another"}), after=5.0)
    assert play.live("replicas")["shop/chat-0"].phase_since_seconds == NOW + 10


def test_a_ready_engine_that_crashes_is_seen_to_have_failed() -> None:
    play = Play(node(), engine_pod())
    assert play.tell(engine_pod(phase="Failed", ready=False))
    assert play.live("replicas")["shop/chat-0"].phase is ReplicaPhase.FAILED
    assert free(play) == [0, 1, 2, 3], "its devices are free"
    assert play.observer.refused == {}


def test_a_replica_on_a_lost_node_stays_lost_and_keeps_its_devices() -> None:
    play = Play(node(), engine_pod())
    play.tell(node(ready="Unknown"))
    assert play.live("replicas")["shop/chat-0"].phase is ReplicaPhase.LOST
    assert list(play.live("claims")) == ["shop/chat-0"]
    play.tell(node())
    assert play.live("replicas")["shop/chat-0"].phase is ReplicaPhase.LOST
    assert play.observer.refused == {"Replica:lost>ready": 1}


def test_a_replica_whose_node_was_deleted_is_lost() -> None:
    play = Play(node(), engine_pod())
    assert play.gone("Node", "n1")
    assert play.live("replicas")["shop/chat-0"].phase is ReplicaPhase.LOST
    play.tell(engine_pod(phase="Unknown"))
    assert play.live("replicas")["shop/chat-0"].phase is ReplicaPhase.LOST
    play.gone("Pod", "shop/chat-0")
    assert (dict(play.world.workloads.on_node), play.world.workloads._deleted) == ({}, set())


def test_a_pod_that_comes_before_its_node_is_not_lost() -> None:
    play = Play(engine_pod())
    assert play.live("replicas")["shop/chat-0"].phase is ReplicaPhase.READY
    play.tell(node())
    assert play.live("replicas")["shop/chat-0"].phase is ReplicaPhase.READY


@pytest.mark.parametrize("note", ["", "{", '{"service":3}'], ids=["emptied", "cut", "wrong"])
def test_a_replica_whose_note_becomes_unreadable_is_nobodys_but_holds_its_devices(note: str) -> None:
    play = Play(node(), engine_pod(devices=(0,)))
    assert play.tell(engine_pod(annotations={labels.LAUNCH: note}))
    assert (play.live("replicas"), play.live("launchers")) == ({}, {})
    assert play.live("claims")["shop/chat-0"].foreign
    assert len(free(play)) == 3
    play.tell(engine_pod(devices=(0,)))
    assert list(play.live("replicas")) == ["shop/chat-0"]
    assert free(play) == [1, 2, 3]


# other people's pods


@pytest.mark.parametrize(
    ("pods", "left"),
    [
        pytest.param((pod("a"),), 3, id="one"),
        pytest.param((pod("a", gpus=2), pod("b", gpus=2)), 0, id="two that fill the node"),
        pytest.param((pod("a"), engine_pod("z", devices=(0,))), 2, id="theirs came first, ours has the device it would have been given"),
        pytest.param((engine_pod("a", devices=(3,)), pod("b", gpus=2)), 1, id="ours came first"),
        pytest.param((pod("a", gpus=9),), 0, id="more than there are"),
        pytest.param((pod("a", gpus=0), pod("b", phase="Succeeded"), pod("c", at="")), 4, id="pods that hold nothing"),
        pytest.param((pod("a", at="n2"),), 4, id="on another node"),
    ],
)  # fmt: skip
def test_other_peoples_pods_are_counted(pods: tuple[Any, ...], left: int) -> None:
    assert len(free(Play(node(), *pods))) == left
    assert len(free(Play(*reversed(pods), node()))) == left


def test_finished_pods_leave_no_trace() -> None:
    play = Play(node())
    for number in range(20):
        play.tell(pod(f"p{number}"))
        play.tell(pod(f"p{number}", phase="Succeeded"))
        play.gone("Pod", f"shop/p{number}")
    assert play.live("claims") == {}
    assert dict(play.world.workloads.on_node) == {}
    assert play.world.workloads.facts == {}
    assert play.world.workloads._node_of == {}


def test_a_pod_that_is_bound_elsewhere_than_it_was_pinned_moves_with_its_node() -> None:
    play = Play(
        node("n1"), node("n2"), engine_pod(phase="Pending", ready=False, at="", spec=made.pinned("n1"))
    )
    play.tell(engine_pod(at="n2"))
    assert play.live("claims")["shop/chat-0"].slot.node == "n2"
    play.tell(node("n1", ready="Unknown"))
    assert play.live("replicas")["shop/chat-0"].phase is ReplicaPhase.READY
    play.tell(node("n2", ready="Unknown"))
    assert play.live("replicas")["shop/chat-0"].phase is ReplicaPhase.LOST


# services


def test_a_service_that_becomes_invalid_says_so_and_what_runs_keeps_running() -> None:
    play = Play(made.service())
    before = play.live("services")["shop/chat"]
    assert play.tell(made.service(accelerators=["b300"])) is False
    assert play.live("services")["shop/chat"] is before
    assert "names 'b300'" in play.world.faults["ModelService", "shop/chat"][0]
    play.tell(made.accelerator("b300", "B300"))
    assert play.world.faults == {}
    assert [v.accelerator for v in play.live("services")["shop/chat"].variants] == ["B300"]
    play.tell(made.service(accelerators=["x"]))
    assert play.gone("ModelService", "shop/chat")
    assert (play.live("services"), play.world.faults) == ({}, {})


def test_one_invalid_object_keeps_nobody_else_out() -> None:
    play = Play(
        made.service("bad", accelerators=["x"]),
        made.service("good"),
        made.job("bad", accelerators=["x"]),
        made.job("good"),
        made.domain("bad", parent="x"),
        made.domain("good"),
    )
    assert [list(play.live(m)) for m in ("services", "jobs", "domains")] == [
        ["shop/good"],
        ["shop/good"],
        ["good"],
    ]
    assert sorted(play.world.faults) == [
        ("ModelService", "shop/bad"),
        ("PowerDomain", "bad"),
        ("TrainingJob", "shop/bad"),
    ]


# power domains


def test_a_domain_in_a_cycle_is_left_out_until_the_cycle_is_broken() -> None:
    play = Play(node(), made.domain("a", "n1", parent="b"), made.domain("b"))
    assert play.live("nodes")["n1"].power_domain == "a"
    play.tell(made.domain("b", parent="a"))
    assert (play.live("domains"), play.live("nodes")["n1"].power_domain) == ({}, "")
    assert "cycle" in play.world.faults["PowerDomain", "a"][0]
    play.tell(made.domain("b"))
    assert sorted(play.live("domains")) == ["a", "b"]
    assert play.live("nodes")["n1"].power_domain == "a"
    assert play.world.faults == {}


def test_a_node_that_two_domains_claim_is_in_neither() -> None:
    play = Play(
        node(), made.domain("a", "n1"), made.domain("b", members={"selector": {"matchLabels": {"row": "7"}}})
    )
    assert play.live("nodes")["n1"].power_domain == "a"
    play.tell(node(labels={"row": "7"}))
    assert (play.live("domains"), play.live("nodes")["n1"].power_domain) == ({}, "")
    assert sorted(play.world.faults) == [("PowerDomain", "a"), ("PowerDomain", "b")]
    play.gone("PowerDomain", "a")
    assert play.live("nodes")["n1"].power_domain == "b"
    assert play.world.faults == {}
    play.gone("PowerDomain", "b")
    assert (play.live("domains"), play.live("nodes")["n1"].power_domain) == ({}, "")


# what others ask


def test_refs_images_and_uids_of_the_users_objects() -> None:
    play = Play(made.service(image="engine:2"), made.job(), made.domain("row"), node())
    assert play.world.subject("ModelService", "shop/chat") == Ref("ModelService", "shop/chat", "uid-chat", 5)
    assert play.world.subject("ModelService", "shop/none") == Ref("ModelService", "shop/none")
    assert play.world.wish_of(Ref("ModelService", "shop/chat")).image == "engine:2"
    assert play.world.wish_of(Ref("TrainingJob", "shop/train")) == Wish()
    assert play.world.wish_of(Ref("ModelService", "shop/none")) == Wish()
    assert play.world.uids() == {
        ("ModelService", "shop/chat"): "uid-chat", ("TrainingJob", "shop/train"): "uid-train",
        ("PowerDomain", "row"): "uid-row", ("AcceleratorClass", "l4"): "uid-l4",
    }  # fmt: skip


def test_the_order_in_which_objects_come_does_not_matter() -> None:
    everything = [
        node("n1"),
        node("n2"),
        made.service(),
        made.job(),
        made.domain("row", "n1"),
        engine_pod(),
        rank_pod(0),
        rank_pod(1),
        pod("x", at="n2"),
    ]
    whole = Play(*everything).observer.snapshot(NOW)
    one_by_one = Play()
    for each in reversed(everything):
        one_by_one.tell(each)
    piecemeal = one_by_one.observer.snapshot(NOW)
    for name in ("nodes", "pools", "claims", "services", "launchers", "replicas", "jobs", "gangs", "domains"):
        assert getattr(piecemeal, name) == getattr(whole, name), name

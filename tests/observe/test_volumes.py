"""Where a claim's volume can be reached from: as the scheduler decides it, with words for who waits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.observe.volumes import DEFAULT_CLASS, matches, reach
from controller.resources.core import Node, NodeSelector
from controller.resources.corestorage import PersistentVolume, PersistentVolumeClaim, StorageClass
from tests.observe import objects as made

ZONE = "topology.kubernetes.io/zone"
Json = dict[str, Any]


def node(name: str, zone: str) -> Node:
    return made.node(name, labels={ZONE: zone})


NODES = {n.metadata.name: n for n in (node("a1", "a"), node("a2", "a"), node("b1", "b"))}


def claim(**more: Any) -> PersistentVolumeClaim:
    spec = {"volumeName": more.pop("volume", ""), "storageClassName": more.pop("of", None)}
    meta = {"name": "data", "namespace": "shop", **more.pop("metadata", {})}
    phase = more.pop("phase", "Bound" if spec["volumeName"] else "Pending")
    return msgspec.convert(
        {"metadata": meta, "spec": spec, "status": {"phase": phase}}, PersistentVolumeClaim
    )


def in_zone(*zones: str, key: str = ZONE, operator: str = "In") -> Json:
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(zones)}]}
    return {"required": {"nodeSelectorTerms": [term]}}


def volume(affinity: Json | None = None, **more: Any) -> PersistentVolume:
    meta = {"name": more.pop("name", "pv"), "labels": more.pop("labels", {})}
    return msgspec.convert({"metadata": meta, "spec": {"nodeAffinity": affinity, **more}}, PersistentVolume)


def storage(name: str = "fast", mode: str = "WaitForFirstConsumer", **more: Any) -> StorageClass:
    meta = {"name": name, "annotations": more.pop("annotations", {})}
    return msgspec.convert({"metadata": meta, "volumeBindingMode": mode, **more}, StorageClass)


IN_A = [{"matchLabelExpressions": [{"key": ZONE, "values": ["a", "c"]}]}]
SELECTED = {"annotations": {"volume.kubernetes.io/selected-node": "a2"}}
THIS = "PersistentVolumeClaim shop/data"
PLACES = [
    pytest.param((), "", f"{THIS}, which does not exist", id="no claim"),
    pytest.param((claim(metadata={"deletionTimestamp": "x"}, volume="pv"), volume()), "", f"{THIS}, which is being deleted", id="a claim that goes"),
    pytest.param((claim(volume="pv"),), "", f"{THIS}, whose PersistentVolume pv does not exist", id="its volume is gone"),
    pytest.param((claim(volume="pv"), volume()), None, "", id="a volume of the network"),
    pytest.param((claim(volume="pv"), volume(in_zone("b"))), "b1", f"{THIS}, whose volume pv is in {ZONE} b", id="a volume in a zone"),
    pytest.param((claim(volume="pv"), volume(in_zone("a", "b"))), "a1 a2 b1", f"{THIS}, whose volume pv is in {ZONE} a, b", id="a volume in two"),
    pytest.param((claim(volume="pv"), volume(in_zone("b", operator="NotIn"))), "a1 a2", f"{THIS}, whose volume pv is in {ZONE} NotIn b", id="a volume anywhere but there"),
    pytest.param((claim(volume="pv"), volume(labels={ZONE: "b__c"})), "b1", f"{THIS}, whose volume pv is in {ZONE} b__c", id="a zone in a label, of old"),
    pytest.param((claim(volume="pv", phase="Pending", of="slow"), volume(), storage("slow", "Immediate")), "", f"{THIS}, which is bound to no volume yet", id="named, but not bound yet"),
    pytest.param((claim(of="slow"), storage("slow", "Immediate")), "", f"{THIS}, which is bound to no volume yet", id="a class that binds at once, and has not"),
    pytest.param((claim(of="none"),), "", f"{THIS}, which is bound to no volume, and StorageClass none does not exist", id="a class that there is not"),
    pytest.param((claim(of=""),), "", f"{THIS}, which is bound to no volume and names no StorageClass", id="no class"),
    pytest.param((claim(of="fast"), storage()), None, "", id="made where it is wanted"),
    pytest.param((claim(), storage(annotations={DEFAULT_CLASS: "true"})), None, "", id="the same, by the default class"),
    pytest.param((claim(of="fast"), storage(allowedTopologies=IN_A)), "a1 a2", f"{THIS}, whose StorageClass fast makes volumes in {ZONE} a, c", id="made where the class may"),
    pytest.param((claim(of="fast", metadata=SELECTED), storage()), "a2", f"{THIS}, whose volume is made for a2", id="being made"),
    pytest.param((claim(of="fast"), storage(provisioner="kubernetes.io/no-provisioner"), volume(in_zone("b"), storageClassName="fast")), "b1", f"{THIS}, for which StorageClass fast has 1 free volumes", id="a disk of a node"),
    pytest.param((claim(of="fast"), storage(provisioner="kubernetes.io/no-provisioner"), volume(in_zone("b"), storageClassName="fast", claimRef={"name": "x"})), "", f"{THIS}, for which StorageClass fast has 0 free volumes", id="a disk that somebody has"),
]  # fmt: skip


@pytest.mark.parametrize(("things", "names", "words"), PLACES)
def test_a_claim_can_be_used_on(things: tuple[Any, ...], names: str | None, words: str) -> None:
    objects: dict[str, dict[str, Any]] = {"Node": NODES}
    for each in things:
        objects.setdefault(type(each).__name__, {})[each.metadata.key] = each
    found, said = reach(objects, "shop", ["data"])
    assert found == (None if names is None else tuple(names.split()))
    assert said == words


def test_all_claims_must_be_reached_and_each_says_what_it_does() -> None:
    one, two = claim(volume="pv"), claim(volume="pv2", metadata={"name": "more"})
    objects: Any = {
        "Node": NODES,
        "PersistentVolumeClaim": {"shop/data": one, "shop/more": two},
        "PersistentVolume": {"pv": volume(in_zone("a")), "pv2": volume(in_zone("b"), name="pv2")},
    }
    found, said = reach(objects, "shop", ["data", "more", "data"])
    assert found == ()
    assert said.count("PersistentVolumeClaim") == 2
    assert reach(objects, "shop", []) == (None, "")


SELECTED_BY = [
    pytest.param([{"key": ZONE, "operator": "Exists"}], True, id="has the label"),
    pytest.param([{"key": ZONE, "operator": "DoesNotExist"}], False, id="has no such label"),
    pytest.param([{"key": "disks", "operator": "Gt", "values": ["3"]}], True, id="more than"),
    pytest.param([{"key": "disks", "operator": "Lt", "values": ["4"]}], False, id="not less than"),
    pytest.param([{"key": "disks", "operator": "Gt", "values": ["many"]}], False, id="a number in words"),
    pytest.param([{"key": "disks", "operator": "Near", "values": ["4"]}], False, id="an operator that there is not"),
    pytest.param([], False, id="a term that says nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("needs", "selected"), SELECTED_BY)
def test_a_selector_selects_as_kubernetes_does(needs: list[Json], selected: bool) -> None:
    selector = msgspec.convert({"nodeSelectorTerms": [{"matchExpressions": needs}]}, NodeSelector)
    assert matches(selector, made.node(labels={ZONE: "a", "disks": "4"})) is selected
    by_name = {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
    }
    assert matches(msgspec.convert(by_name, NodeSelector), made.node())


CLAIMING = {"pod": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}}


def test_a_service_follows_its_volume_and_the_labels_of_nodes() -> None:
    play = made.Play(made.service(**CLAIMING), *NODES.values())
    confined = lambda: play.live("services")["shop/chat"].confined_to  # noqa: E731
    assert confined() == ()
    play.tell(claim(volume="pv"), volume(in_zone("b")))
    assert confined() == ("b1",)
    play.tell(node("a1", "b"))
    assert confined() == ("a1", "b1")
    assert not play.tell(node("a1", "b")), "nothing new"
    play.gone("PersistentVolumeClaim", "shop/data")
    assert confined() == ()
    play.tell(made.service())
    assert confined() is None


def test_what_a_spec_says_of_its_pods_is_in_the_noun() -> None:
    said = {
        "tolerations": [{"key": "team", "value": "red", "effect": "NoSchedule"}],
        "resources": {"cpu": "1500m", "memory": "2Gi"},
    }
    play = made.Play(made.service(pod=said), made.job(pod=said))
    for noun in (play.live("services")["shop/chat"], play.live("jobs")["shop/train"]):
        assert [(t.key, t.operator, t.value, t.effect) for t in noun.tolerates] == [
            ("team", "Equal", "red", "NoSchedule")
        ]
        assert (noun.cpu_millis, noun.memory_bytes) == (1_500, 2 * 2**30)

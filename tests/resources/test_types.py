"""The Python types: reading is lenient, what is derived is right."""

from __future__ import annotations

import msgspec
import pytest

from controller.resources.core import Node, Pod
from controller.resources.modelservice import ModelService
from tests.resources.bad import service
from tests.store.objects import node, pinned_pod, pod


def test_a_field_of_a_newer_version_is_skipped() -> None:
    obj = service({"quantumLeap": True})
    assert msgspec.convert(obj, ModelService).spec.model.name == "llama-3.1-8b"


def test_a_class_is_called_class_in_json() -> None:
    obj = service({"objectives": [{"class": "gold", "ttftSeconds": 1, "tpotSeconds": 0.1}]})
    (objective,) = msgspec.convert(obj, ModelService).spec.objectives
    assert (objective.request_class, objective.percentile) == ("gold", 0.95)


def test_an_object_has_a_key() -> None:
    assert msgspec.convert(service(), ModelService).metadata.key == "default/chat"
    assert msgspec.convert(node("n1"), Node).metadata.key == "n1"


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(pinned_pod("a", "n7"), "n7", id="pinned"),
        pytest.param(pod(), "", id="not pinned"),
        pytest.param(pod() | {"spec": {"affinity": {"podAffinity": {}}}}, "", id="another affinity"),
        pytest.param(
            pod()
            | {
                "spec": {
                    "affinity": {
                        "nodeAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": {
                                "nodeSelectorTerms": [
                                    {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
                                ]
                            }
                        }
                    }
                }
            },
            "",
            id="only labels",
        ),
    ],
)
def test_where_a_pod_is_pinned_to(obj: object, expected: str) -> None:
    assert msgspec.convert(obj, Pod).pinned_to == expected


@pytest.mark.parametrize(
    ("phase", "condition", "ready", "finished"),
    [
        ("Pending", "False", False, False),
        ("Running", "False", False, False),
        ("Running", "True", True, False),
        ("Failed", "False", False, True),
        ("Succeeded", "False", False, True),
    ],
)
def test_how_far_a_pod_is(phase: str, condition: str, ready: bool, finished: bool) -> None:
    status = {"phase": phase, "conditions": [{"type": "Ready", "status": condition}]}
    read = msgspec.convert(pod() | {"status": status}, Pod)
    assert (read.ready, read.finished) == (ready, finished)


@pytest.mark.parametrize(("status", "ready"), [("True", True), ("False", False), ("Unknown", False)])
def test_a_node_is_ready_only_when_its_kubelet_says_so(status: str, ready: bool) -> None:
    obj = node() | {"status": {"conditions": [{"type": "Ready", "status": status}]}}
    assert msgspec.convert(obj, Node).ready is ready

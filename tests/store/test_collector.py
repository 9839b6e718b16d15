"""Owner garbage collection, namespaces and bindings: what a cluster's controllers do, pumped here."""

from __future__ import annotations

from typing import Any

import pytest

from controller.resources.core import EVENT, NAMESPACE, NODE, POD, SERVICE
from controller.resources.kinds import MODEL_SERVICE
from controller.store.embedded import EmbeddedStore
from controller.store.errors import Conflict, Invalid, NotFound
from runtime.clock import VirtualClock
from tests.store.conftest import ORIGIN
from tests.store.following import now
from tests.store.objects import node, pod, service

WRITER = "tester"


def make(store: EmbeddedStore, resource: Any, obj: Any) -> Any:
    return now(store.create(resource, obj, field_manager=WRITER))


def owner(obj: Any, *, blocks: bool = False) -> dict[str, Any]:
    reference = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
    }
    return {**reference, "blockOwnerDeletion": True} if blocks else reference


def pods(store: EmbeddedStore) -> list[str]:
    return [item["metadata"]["name"] for item in now(store.list(POD)).items]


def settle(store: EmbeddedStore) -> int:
    total = 0
    for _ in range(20):
        done = now(store.collect_garbage())
        total += done
        if not done:
            return total
    raise AssertionError("the collector does not come to rest")


def test_what_is_owned_goes_with_its_owner_and_nothing_else_does(store: EmbeddedStore) -> None:
    chat = make(store, MODEL_SERVICE, service("chat"))
    code = make(store, MODEL_SERVICE, service("code"))
    for name, of in (("chat-0", chat), ("chat-1", chat), ("code-0", code)):
        make(store, POD, pod(name, ownerReferences=[owner(of)]))
    make(store, POD, pod("free"))
    assert settle(store) == 0
    now(store.delete(MODEL_SERVICE, "chat", "default"))
    assert pods(store) == ["chat-0", "chat-1", "code-0", "free"]
    assert settle(store) == 2
    assert pods(store) == ["code-0", "free"]


def test_a_chain_of_owners_goes_pass_by_pass(store: EmbeddedStore) -> None:
    top = make(store, MODEL_SERVICE, service())
    middle = make(store, POD, pod("middle", ownerReferences=[owner(top)]))
    make(store, POD, pod("bottom", ownerReferences=[owner(middle)]))
    now(store.delete(MODEL_SERVICE, "chat", "default"))
    settle(store)
    assert pods(store) == []


def test_an_object_born_of_a_dead_owner_goes(store: EmbeddedStore) -> None:
    chat = make(store, MODEL_SERVICE, service())
    now(store.delete(MODEL_SERVICE, "chat", "default"))
    make(store, POD, pod("late", ownerReferences=[owner(chat)]))
    assert settle(store) == 1
    assert pods(store) == []


def test_a_successor_of_the_same_name_is_not_the_owner(store: EmbeddedStore) -> None:
    first = make(store, MODEL_SERVICE, service())
    make(store, POD, pod("old", ownerReferences=[owner(first)]))
    now(store.delete(MODEL_SERVICE, "chat", "default"))
    make(store, MODEL_SERVICE, service())
    settle(store)
    assert pods(store) == []


def test_one_owner_left_keeps_the_object_without_the_dangling_reference(store: EmbeddedStore) -> None:
    chat, code = (make(store, MODEL_SERVICE, service(name)) for name in ("chat", "code"))
    make(store, POD, pod("shared", ownerReferences=[owner(chat), owner(code)]))
    now(store.delete(MODEL_SERVICE, "chat", "default"))
    assert settle(store) == 1
    (left,) = now(store.get(POD, "shared", "default"))["metadata"]["ownerReferences"]
    assert left["name"] == "code"


def test_an_owner_of_a_kind_unknown_here_is_left_alone(store: EmbeddedStore) -> None:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u"}
    make(store, POD, pod("web-0", ownerReferences=[reference]))
    assert settle(store) == 0


def test_a_running_dependent_is_only_marked_and_waits_for_its_kubelet(store: EmbeddedStore) -> None:
    chat = make(store, MODEL_SERVICE, service())
    make(store, POD, pod("chat-0", node="n1", ownerReferences=[owner(chat)]))
    now(store.delete(MODEL_SERVICE, "chat", "default"))
    assert settle(store) == 1
    assert "deletionTimestamp" in now(store.get(POD, "chat-0", "default"))["metadata"]


class TestPropagation:
    def test_foreground_keeps_the_owner_until_what_blocks_it_is_gone(self, store: EmbeddedStore) -> None:
        chat = make(store, MODEL_SERVICE, service())
        make(store, POD, pod("chat-0", node="n1", ownerReferences=[owner(chat, blocks=True)]))
        now(store.delete(MODEL_SERVICE, "chat", "default", propagation="Foreground"))
        settle(store)
        held = now(store.get(MODEL_SERVICE, "chat", "default"))["metadata"]
        assert held["finalizers"] == ["foregroundDeletion"]
        now(store.delete(POD, "chat-0", "default", grace_seconds=0))
        settle(store)
        with pytest.raises(NotFound):
            now(store.get(MODEL_SERVICE, "chat", "default"))

    def test_foreground_does_not_wait_for_what_does_not_block(self, store: EmbeddedStore) -> None:
        chat = make(store, MODEL_SERVICE, service())
        make(store, POD, pod("chat-0", node="n1", ownerReferences=[owner(chat)]))
        now(store.delete(MODEL_SERVICE, "chat", "default", propagation="Foreground"))
        settle(store)
        with pytest.raises(NotFound):
            now(store.get(MODEL_SERVICE, "chat", "default"))
        assert "deletionTimestamp" in now(store.get(POD, "chat-0", "default"))["metadata"]

    def test_orphans_live_on_without_the_reference(self, store: EmbeddedStore) -> None:
        chat = make(store, MODEL_SERVICE, service())
        make(store, POD, pod("chat-0", ownerReferences=[owner(chat)]))
        now(store.delete(MODEL_SERVICE, "chat", "default", propagation="Orphan"))
        settle(store)
        assert "ownerReferences" not in now(store.get(POD, "chat-0", "default"))["metadata"]
        with pytest.raises(NotFound):
            now(store.get(MODEL_SERVICE, "chat", "default"))


def test_a_namespace_takes_everything_in_it_along(store: EmbeddedStore) -> None:
    make(store, NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    inside = service()
    inside["metadata"]["namespace"] = "shop"
    make(store, MODEL_SERVICE, inside)
    make(store, POD, pod("running", node="n1", namespace="shop"))
    make(store, POD, pod("other"))
    now(store.delete(NAMESPACE, "shop"))
    settle(store)
    assert now(store.get(NAMESPACE, "shop"))["status"]["phase"] == "Terminating"
    assert pods(store) == ["other", "running"]
    now(store.delete(POD, "running", "shop", grace_seconds=0))
    settle(store)
    with pytest.raises(NotFound):
        now(store.get(NAMESPACE, "shop"))
    assert pods(store) == ["other"]


def test_an_event_is_forgotten_an_hour_after_its_last_change(
    store: EmbeddedStore, clock: VirtualClock
) -> None:
    def event(name: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"}}

    for name in ("old", "renewed"):
        make(store, EVENT, event(name))
    clock.advance_to(ORIGIN + 1_800)
    now(store.patch(EVENT, "renewed", {"count": 2}, "default", field_manager=WRITER))
    clock.advance_to(ORIGIN + 3_600)
    assert settle(store) == 0
    clock.advance_to(ORIGIN + 3_601)
    assert settle(store) == 1
    assert [item["metadata"]["name"] for item in now(store.list(EVENT)).items] == ["renewed"]


class TestBinding:
    def test_sets_the_node_once(self, store: EmbeddedStore) -> None:
        made = make(store, POD, pod())
        make(store, NODE, node("n1"))
        now(store.bind("engine-0", "default", uid=made["metadata"]["uid"], node="n1"))
        bound = now(store.get(POD, "engine-0", "default"))
        assert bound["spec"]["nodeName"] == "n1"
        assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
        with pytest.raises(Conflict, match='pod engine-0 is already assigned to node "n1"'):
            now(store.bind("engine-0", "default", uid="", node="n2"))

    @pytest.mark.parametrize(
        ("change", "uid", "words"),
        [
            pytest.param({}, "other", "UID in precondition", id="another pod of that name"),
            pytest.param({"finalizers": ["a/b"]}, "", "is being deleted", id="a pod that goes"),
        ],
    )
    def test_is_refused(self, store: EmbeddedStore, change: Any, uid: str, words: str) -> None:
        make(store, POD, pod(**change))
        if change:
            now(store.delete(POD, "engine-0", "default"))
        with pytest.raises(Conflict, match=words):
            now(store.bind("engine-0", "default", uid=uid, node="n1"))

    def test_waits_for_the_gates(self, store: EmbeddedStore) -> None:
        gated = pod()
        gated["spec"]["schedulingGates"] = [{"name": "plimsoll.dev/gang"}]
        make(store, POD, gated)
        with pytest.raises(Conflict, match="schedulingGates"):
            now(store.bind("engine-0", "default", uid="", node="n1"))

    def test_a_pod_that_is_not_there(self, store: EmbeddedStore) -> None:
        with pytest.raises(NotFound):
            now(store.bind("nobody", "default", uid="", node="n1"))


@pytest.mark.parametrize(
    ("name", "ports", "words"),
    [
        pytest.param("1chat", [{"port": 80}], "a DNS-1035 label must consist of", id="a digit in front"),
        pytest.param("chat", [], "spec.ports: Required value", id="no port"),
    ],
)
def test_a_service_that_a_cluster_would_refuse(
    store: EmbeddedStore, name: str, ports: Any, words: str
) -> None:
    obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": ports},
    }
    with pytest.raises(Invalid, match=words):
        make(store, SERVICE, obj)

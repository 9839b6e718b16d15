"""Server-side apply: one owner per field, conflicts by field, deletion and re-creation."""

from __future__ import annotations

from typing import Any

import pytest

from controller.resources.core import NODE, POD
from controller.resources.kinds import MODEL_SERVICE
from controller.store.embedded import EmbeddedStore
from controller.store.embedded.ownership import managed_fields
from controller.store.errors import BadRequest, Conflict, NotFound
from tests.store.conftest import inventory, run
from tests.store.objects import condition, node, of_managed_fields, pod, service


def apply(store: EmbeddedStore, obj: Any, manager: str, **options: Any) -> Any:
    return run(store.apply(MODEL_SERVICE, obj, field_manager=manager, **options))


def status(*conditions: Any, **fields: Any) -> Any:
    return service() | {"spec": {}, "status": {**fields, "conditions": list(conditions)}}


def owned(store: EmbeddedStore, manager: str) -> list[str]:
    if store.capabilities.shows_managed_fields:
        return of_managed_fields(run(store.get(MODEL_SERVICE, "chat", "default")), manager)
    record = store.objects.record(MODEL_SERVICE, "chat", "default")
    return [
        path for row in managed_fields(record.owners) if row["manager"] == manager for path in row["fields"]
    ]


def test_the_first_apply_creates(store: EmbeddedStore) -> None:
    made = apply(store, service(mode="Off"), "kubectl")
    assert made["spec"]["mode"] == "Off"
    assert owned(store, "kubectl") == [".spec.mode", ".spec.model.name"]


def test_applying_the_same_again_gives_no_new_version(store: EmbeddedStore) -> None:
    first = apply(store, service(mode="Off"), "kubectl")
    assert apply(store, service(mode="Off"), "kubectl") == first


def test_a_field_no_longer_applied_goes_back_to_its_default(store: EmbeddedStore) -> None:
    apply(store, service(mode="Off", image="example/engine:1"), "kubectl")
    after = apply(store, service(), "kubectl")
    assert after["spec"]["mode"] == "Auto"
    assert "image" not in after["spec"]


def test_a_field_two_managers_want_alike_stays_when_one_gives_it_up(store: EmbeddedStore) -> None:
    apply(store, service(image="example/engine:1"), "kubectl")
    apply(store, service(image="example/engine:1"), "argo")
    after = apply(store, service(), "kubectl")
    assert after["spec"]["image"] == "example/engine:1"


def test_another_value_for_anothers_field_is_a_conflict_naming_it(store: EmbeddedStore) -> None:
    apply(store, service(mode="Off"), "kubectl")
    before = inventory(store)
    with pytest.raises(Conflict) as caught:
        apply(store, service(mode="Recommend"), "argo")
    assert caught.value.message == 'Apply failed with 1 conflict: conflict with "kubectl": .spec.mode'
    assert [cause.field for cause in caught.value.causes] == [".spec.mode"]
    assert inventory(store) == before


def test_force_takes_the_field_over(store: EmbeddedStore) -> None:
    apply(store, service(mode="Off"), "kubectl")
    after = apply(store, service(mode="Recommend"), "argo", force=True)
    assert after["spec"]["mode"] == "Recommend"
    assert owned(store, "kubectl") == [".spec.model.name"]
    assert ".spec.mode" in owned(store, "argo")


def test_several_conflicts_are_listed_by_manager(store: EmbeddedStore) -> None:
    apply(store, service(mode="Off", image="a"), "kubectl")
    with pytest.raises(Conflict) as caught:
        apply(store, service(mode="Auto", image="b"), "argo")
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "kubectl":\n- .spec.image\n- .spec.mode'
    )


def test_scaling_takes_replicas_and_a_reapply_without_them_does_not_fight(store: EmbeddedStore) -> None:
    apply(store, service(), "kubectl")
    run(store.put_scale(MODEL_SERVICE, "chat", "default", replicas=4, field_manager="hpa"))
    after = apply(store, service(image="example/engine:2"), "kubectl")
    assert after["spec"]["replicas"] == 4


def test_scaling_an_applied_size_makes_the_next_apply_of_it_conflict(store: EmbeddedStore) -> None:
    apply(store, service(replicas=2), "kubectl")
    run(store.put_scale(MODEL_SERVICE, "chat", "default", replicas=4, field_manager="hpa"))
    with pytest.raises(Conflict, match=r"conflict with \"hpa\" with subresource \"scale\""):
        apply(store, service(replicas=2), "kubectl")


class TestConditions:
    """A condition list is keyed by type, so writers of different conditions do not meet."""

    def test_two_managers_of_two_conditions_live_together(self, store: EmbeddedStore) -> None:
        apply(store, service(), "kubectl")
        apply(store, status(condition("Ready")), "planner", subresource="status")
        apply(store, status(condition("Accepted")), "checker", subresource="status")
        after = apply(store, status(condition("Ready", "False")), "planner", subresource="status")
        assert {c["type"]: c["status"] for c in after["status"]["conditions"]} == {
            "Ready": "False",
            "Accepted": "True",
        }

    def test_two_managers_of_one_condition_conflict(self, store: EmbeddedStore) -> None:
        apply(store, service(), "kubectl")
        apply(store, status(condition("Ready")), "planner", subresource="status")
        with pytest.raises(Conflict, match=r'.status.conditions\[type="Ready"\].status'):
            apply(store, status(condition("Ready", "False")), "checker", subresource="status")

    def test_a_condition_no_longer_applied_goes_and_the_others_stay(self, store: EmbeddedStore) -> None:
        apply(store, service(), "kubectl")
        apply(store, status(condition("Ready"), condition("Accepted")), "planner", subresource="status")
        apply(store, status(condition("Powered")), "power", subresource="status")
        after = apply(store, status(condition("Ready")), "planner", subresource="status")
        assert [c["type"] for c in after["status"]["conditions"]] == ["Ready", "Powered"]


class TestDeletedMeanwhile:
    """A late apply brings a deleted object back unless it names the uid (measured on 1.36.3)."""

    def test_without_uid_creates_it_again(self, store: EmbeddedStore) -> None:
        first = apply(store, service(), "kubectl")
        run(store.delete(MODEL_SERVICE, "chat", "default"))
        late = service()
        late["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"]
        again = apply(store, late, "kubectl")
        assert again["metadata"]["uid"] != first["metadata"]["uid"]

    def test_with_uid_is_a_conflict(self, store: EmbeddedStore) -> None:
        first = apply(store, service(), "kubectl")
        run(store.delete(MODEL_SERVICE, "chat", "default"))
        late = service()
        late["metadata"]["uid"] = first["metadata"]["uid"]
        with pytest.raises(Conflict, match="uid mismatch: the provided object specified uid"):
            apply(store, late, "kubectl")

    def test_with_the_uid_of_a_predecessor_is_a_conflict(self, store: EmbeddedStore) -> None:
        first = apply(store, service(), "kubectl")
        run(store.delete(MODEL_SERVICE, "chat", "default"))
        apply(store, service(), "kubectl")
        late = service()
        late["metadata"]["uid"] = first["metadata"]["uid"]
        with pytest.raises(Conflict, match="UID in precondition"):
            apply(store, late, "kubectl")

    def test_status_of_an_absent_object_is_not_found(self, store: EmbeddedStore) -> None:
        with pytest.raises(NotFound):
            apply(store, status(condition("Ready")), "planner", subresource="status")


def test_unknown_fields_are_refused_in_an_apply_too(store: EmbeddedStore) -> None:
    apply(store, service(), "kubectl")
    with pytest.raises(
        BadRequest, match=r'unknown field "spec.modee"|\.spec\.modee: field not declared in schema'
    ):
        apply(store, service(modee="Off"), "kubectl")


def test_a_key_left_to_its_default_names_the_same_item_at_every_apply(store: EmbeddedStore) -> None:
    """`class` of an objective has a default: an item without it is the item of class `default`."""
    wanted = service(objectives=[{"ttftSeconds": 1.0, "tpotSeconds": 0.1}])
    first = apply(store, wanted, "kubectl")
    assert apply(store, wanted, "kubectl") == first
    wanted["spec"]["objectives"][0]["ttftSeconds"] = 2.0
    (objective,) = apply(store, wanted, "kubectl")["spec"]["objectives"]
    assert (objective["class"], objective["ttftSeconds"]) == ("default", 2.0)


def test_an_old_version_in_an_apply_is_a_conflict(store: EmbeddedStore) -> None:
    apply(store, service(), "kubectl")
    late = service(mode="Off")
    late["metadata"]["resourceVersion"] = "1"
    with pytest.raises(Conflict, match="the object has been modified"):
        apply(store, late, "kubectl")


def test_a_pods_containers_are_keyed_by_name(store: EmbeddedStore) -> None:
    run(store.create(POD, pod(), field_manager="operator"))
    wanted = pod()
    wanted["spec"]["containers"][0] = {"name": "engine", "image": "example/engine:2"}
    after = run(store.apply(POD, wanted, field_manager="upgrader", force=True))
    assert [c["image"] for c in after["spec"]["containers"]] == ["example/engine:2"]


def test_node_conditions_of_two_writers_are_kept_apart(store: EmbeddedStore) -> None:
    run(store.create(NODE, node(), field_manager="kubelet"))
    wanted = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    wanted["status"] = {"conditions": [{"type": "GpuHealthy", "status": "True"}]}  # type: ignore[assignment]
    after = run(store.apply(NODE, wanted, field_manager="plimsoll", subresource="status"))
    assert [c["type"] for c in after["status"]["conditions"]] == ["Ready", "GpuHealthy"]
    assert after["status"]["allocatable"]["nvidia.com/gpu"] == "8"


def test_taking_a_label_away_leaves_the_others_labels(store: EmbeddedStore) -> None:
    mine, theirs = service(), service()
    mine["metadata"]["labels"] = {"team": "a"}
    theirs["metadata"]["labels"] = {"tier": "b"}
    apply(store, mine, "kubectl")
    apply(store, theirs, "argo")
    after = apply(store, service(), "kubectl")
    assert after["metadata"]["labels"] == {"tier": "b"}

"""Creation, change and deletion in the embedded store, in the API server's words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from controller.resources.core import LEASE, NAMESPACE, NODE, POD
from controller.resources.kinds import ACCELERATOR_NODE, MODEL_SERVICE, POWER_DOMAIN
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    StoreError,
    TooLarge,
)
from controller.store.interface import Resource
from runtime.clock import VirtualClock
from tests.store.conftest import ORIGIN, inventory, run
from tests.store.objects import condition, node, pod, service

WRITER = "tester"


def now_of(store: EmbeddedStore, stamp: str) -> str:
    """What a time stamp made now must be; a server on wall time says it itself."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp)
    return stamp if store.capabilities.durable else "2026-09-21T14:13:20Z"


def make(store: EmbeddedStore, resource: Any, obj: Any) -> Any:
    return run(store.create(resource, obj, field_manager=WRITER))


def test_a_new_object_gets_identity_version_generation_and_defaults(store: EmbeddedStore) -> None:
    made = make(store, MODEL_SERVICE, service(objectives=[{"ttftSeconds": 2, "tpotSeconds": 0.1}]))
    meta = made["metadata"]
    assert meta["generation"] == 1
    assert meta["creationTimestamp"] == now_of(store, meta["creationTimestamp"])
    assert len(meta["uid"]) == 36
    assert 0 < int(meta["resourceVersion"]) <= store.objects.version
    assert made["spec"]["replicas"] == 0
    assert made["spec"]["hold"] == {"maxRequests": 1000, "deadlineSeconds": 300.0, "maxBytes": 67108864}
    assert made["spec"]["objectives"][0]["class"] == "default"
    assert run(store.get(MODEL_SERVICE, "chat", "default")) == made


def test_what_a_reader_does_to_its_copy_stays_with_the_reader(store: EmbeddedStore) -> None:
    given = service()
    made = make(store, MODEL_SERVICE, given)
    made["spec"]["mode"] = "Off"
    given["spec"]["model"]["name"] = "other"
    kept = run(store.get(MODEL_SERVICE, "chat", "default"))
    assert kept["spec"]["mode"] == "Auto"
    assert kept["spec"]["model"]["name"] == "llama-3.1-8b"


def test_status_given_at_creation_is_dropped_where_status_is_a_subresource(store: EmbeddedStore) -> None:
    made = make(store, MODEL_SERVICE, service() | {"status": {"phase": "Serving"}})
    assert "status" not in made


def test_dry_run_answers_but_keeps_nothing(store: EmbeddedStore) -> None:
    before = inventory(store)
    run(store.create(MODEL_SERVICE, service(), field_manager=WRITER, dry_run=True))
    assert inventory(store) == before
    with pytest.raises(NotFound):
        run(store.get(MODEL_SERVICE, "chat", "default"))


def test_two_stores_of_one_seed_give_the_same_identities(clock: VirtualClock) -> None:
    first, second, other = (open_store(clock, seed=seed) for seed in (3, 3, 4))
    uids = [make(s, POD, pod(generateName="x-", name=""))["metadata"] for s in (first, second, other)]
    assert uids[0] == uids[1]
    assert uids[0]["uid"] != uids[2]["uid"]
    assert uids[0]["name"].startswith("x-")


REFUSED: list[tuple[str, Any, Any, type[StoreError], str]] = [
    (
        "a name that is taken",
        NODE, node("there"), AlreadyExists, 'nodes "there" already exists',
    ),
    (
        "a namespace that is not there",
        POD, pod(namespace="nowhere"), NotFound, 'namespaces "nowhere" not found',
    ),
    (
        "no namespace for a namespaced kind",
        POD, pod(namespace=""), BadRequest, "an empty namespace may not be set during creation",
    ),
    (
        "a namespace for a cluster-scoped kind",
        NODE, node() | {"metadata": {"name": "n", "namespace": "default"}}, BadRequest,
        "namespace may not be set on a cluster-scoped object",
    ),
    (
        "another kind's object",
        POD, node(), BadRequest, "the kind in the data (Node) does not match the expected kind (Pod)",
    ),
    (
        "a resourceVersion at creation",
        POD, pod(resourceVersion="1"), BadRequest,
        "resourceVersion should not be set on objects to be created",
    ),
    (
        "capitals in a name",
        POD, pod("Engine"), Invalid,
        ('Pod "Engine" is invalid: metadata.name: Invalid value: "Engine": a lowercase RFC 1123 subdomain must '
        "consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
        "alphanumeric character (e.g. 'example.com', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"),
    ),
    (
        "a name of 254 bytes",
        POD, pod("a" * 254), Invalid, "metadata.name: Invalid value: ",
    ),
    (
        "a slash in a label's value",
        POD, pod(labels={"service": "default/chat"}), Invalid,
        'metadata.labels: Invalid value: "default/chat": a valid label must be an empty string',
    ),
    (
        "a number as a label's value", POD, pod(labels={"attempt": 1}), BadRequest,
        'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string',
    ),
    (
        "two controlling owners",
        POD,
        pod(ownerReferences=[
            {"apiVersion": "v1", "kind": "Pod", "name": n, "uid": n, "controller": True} for n in "ab"
        ]),
        Invalid, "Only one reference can have Controller set to true.",
    ),
    (
        "an owner without identity",
        POD, pod(ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": ""}]), Invalid,
        'metadata.ownerReferences.uid: Invalid value: "": must not be empty',
    ),
    (
        "a pod without containers", POD, pod() | {"spec": {}}, Invalid, 'Pod "engine-0" is invalid: spec.containers: Required value',
    ),
    (
        "annotations beyond 256 KiB",
        POD, pod(annotations={"a": "x" * 300_000}), Invalid,
        "metadata.annotations: Too long: may not be more than 262144 bytes",
    ),
    (
        "an object beyond 1.5 MiB",
        POD,
        pod() | {"spec": {"containers": [{"name": "a", "image": "b", "command": ["x" * 1_600_000]}]}},
        TooLarge, "etcdserver: request is too large",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("resource", "obj", "error", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_creation_is_refused(
    store: EmbeddedStore, resource: Any, obj: Any, error: type[StoreError], words: str
) -> None:
    make(store, NODE, node("there"))
    before = inventory(store)
    with pytest.raises(error) as caught:
        make(store, resource, obj)
    assert words in caught.value.message
    assert len(caught.value.message) < 2_000
    assert inventory(store) == before


def test_a_kind_the_store_does_not_hold_is_not_found(store: EmbeddedStore) -> None:
    other = Resource(group="example.com", version="v1", kind="Widget", plural="widgets")
    with pytest.raises(NotFound, match=r"could not find the requested resource \(widgets.example.com"):
        run(store.list(other))


class TestReplace:
    def test_under_the_version_read_changes_the_object(self, store: EmbeddedStore) -> None:
        made = make(store, MODEL_SERVICE, service())
        made["spec"]["mode"] = "Off"
        changed = run(store.replace(MODEL_SERVICE, made, field_manager=WRITER))
        assert changed["spec"]["mode"] == "Off"
        assert changed["metadata"]["generation"] == 2
        assert changed["metadata"]["uid"] == made["metadata"]["uid"]

    def test_under_an_old_version_is_a_conflict(self, store: EmbeddedStore) -> None:
        made = make(store, MODEL_SERVICE, service())
        run(store.patch(MODEL_SERVICE, "chat", {"spec": {"mode": "Off"}}, "default", field_manager="other"))
        made["spec"]["mode"] = "Recommend"
        with pytest.raises(Conflict) as caught:
            run(store.replace(MODEL_SERVICE, made, field_manager=WRITER))
        assert caught.value.message == (
            'Operation cannot be fulfilled on modelservices.plimsoll.dev "chat": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )

    @pytest.mark.parametrize(
        ("resource", "obj"),
        [
            pytest.param(MODEL_SERVICE, service(), id="custom resource"),
            pytest.param(
                LEASE,
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": "chat", "namespace": "default"},
                },
                id="lease",
            ),
        ],
    )
    def test_without_a_version_is_refused(self, store: EmbeddedStore, resource: Any, obj: Any) -> None:
        made = make(store, resource, obj)
        del made["metadata"]["resourceVersion"]
        with pytest.raises(
            Invalid, match=r"metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        ):
            run(store.replace(resource, made, field_manager=WRITER))

    def test_status_is_written_apart(self, store: EmbeddedStore) -> None:
        made = make(store, MODEL_SERVICE, service())
        made["spec"]["mode"] = "Off"
        made["status"] = {"phase": "Serving", "conditions": [condition("Ready")]}
        changed = run(store.replace(MODEL_SERVICE, made, field_manager=WRITER, subresource="status"))
        assert changed["spec"]["mode"] == "Auto"
        assert changed["status"]["phase"] == "Serving"
        assert changed["metadata"]["generation"] == 1
        again = run(store.replace(MODEL_SERVICE, {**changed, "status": {}}, field_manager=WRITER))
        assert again["status"]["phase"] == "Serving"

    def test_identity_cannot_be_rewritten(self, store: EmbeddedStore) -> None:
        made = make(store, POD, pod())
        changed = made | {
            "metadata": {**made["metadata"], "creationTimestamp": "2020-01-01T00:00:00Z", "generation": 99}
        }
        after = run(store.replace(POD, changed, field_manager=WRITER))
        assert after["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
        assert after["metadata"].get("generation") == made["metadata"].get("generation")


class TestPatch:
    def test_null_removes_and_the_rest_stays(self, store: EmbeddedStore) -> None:
        make(store, POD, pod(labels={"a": "1", "b": "2"}))
        changed = run(
            store.patch(
                POD, "engine-0", {"metadata": {"labels": {"a": None}}}, "default", field_manager=WRITER
            )
        )
        assert changed["metadata"]["labels"] == {"b": "2"}

    def test_that_changes_nothing_gives_no_new_version(self, store: EmbeddedStore) -> None:
        made = make(store, MODEL_SERVICE, service())
        same = run(
            store.patch(MODEL_SERVICE, "chat", {"spec": {"mode": "Auto"}}, "default", field_manager="other")
        )
        assert same == made

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            pytest.param({"uid": "other"}, "UID in precondition: other", id="another uid"),
            pytest.param({"resource_version": "1"}, "the object has been modified", id="an old version"),
        ],
    )
    def test_preconditions(self, store: EmbeddedStore, given: dict[str, str], words: str) -> None:
        make(store, MODEL_SERVICE, service())
        with pytest.raises(Conflict, match=words):
            run(store.patch(MODEL_SERVICE, "chat", {}, "default", field_manager=WRITER, **given))

    def test_a_rule_broken_by_a_patch_is_refused(self, store: EmbeddedStore) -> None:
        make(store, MODEL_SERVICE, service())
        with pytest.raises(Invalid) as caught:
            run(
                store.patch(
                    MODEL_SERVICE, "chat", {"spec": {"drainSeconds": -1}}, "default", field_manager=WRITER
                )
            )
        assert caught.value.message == (
            'ModelService.plimsoll.dev "chat" is invalid: spec.drainSeconds: Invalid value: -1: '
            "spec.drainSeconds in body should be greater than or equal to 0"
        )
        assert [(c.field, c.reason) for c in caught.value.causes] == [
            ("spec.drainSeconds", "FieldValueInvalid")
        ]

    def test_a_bound_pods_specification_stays(self, store: EmbeddedStore) -> None:
        make(store, POD, pod())
        with pytest.raises(Invalid, match="pod updates may not change fields other than"):
            run(store.patch(POD, "engine-0", {"spec": {"nodeName": "n1"}}, "default", field_manager=WRITER))

    def test_a_gated_pod_takes_its_first_pin_and_no_second(self, store: EmbeddedStore) -> None:
        gated = pod()
        gated["spec"]["schedulingGates"] = [{"name": "plimsoll.dev/gang"}]
        make(store, POD, gated)
        pin = {"spec": {"nodeSelector": {"kubernetes.io/hostname": "n1"}, "schedulingGates": None}}
        run(store.patch(POD, "engine-0", pin, "default", field_manager=WRITER))
        pin["spec"]["nodeSelector"]["kubernetes.io/hostname"] = "n2"  # type: ignore[index]
        with pytest.raises(Invalid, match="pod updates may not change"):
            run(store.patch(POD, "engine-0", pin, "default", field_manager=WRITER))

    def test_status_of_a_kind_without_status_is_not_found(self, store: EmbeddedStore) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "l", "namespace": "default"},
        }
        make(store, LEASE, lease)
        with pytest.raises(NotFound, match=r"leases\.coordination\.k8s\.io/status"):
            run(store.patch(LEASE, "l", {}, "default", field_manager=WRITER, subresource="status"))


class TestDelete:
    def test_removes_at_once_what_nothing_holds(self, store: EmbeddedStore) -> None:
        make(store, MODEL_SERVICE, service())
        run(store.delete(MODEL_SERVICE, "chat", "default"))
        with pytest.raises(NotFound, match=r'modelservices\.plimsoll\.dev "chat" not found'):
            run(store.get(MODEL_SERVICE, "chat", "default"))

    def test_with_another_uid_is_a_conflict(self, store: EmbeddedStore) -> None:
        made = make(store, POD, pod())
        run(store.delete(POD, "engine-0", "default"))
        make(store, POD, pod())
        with pytest.raises(Conflict, match="might have been deleted and then recreated"):
            run(store.delete(POD, "engine-0", "default", uid=made["metadata"]["uid"]))

    def test_with_an_old_version_is_a_conflict(self, store: EmbeddedStore) -> None:
        make(store, POD, pod())
        with pytest.raises(Conflict, match="might have been modified"):
            run(store.delete(POD, "engine-0", "default", resource_version="1"))

    def test_finalizers_hold_the_object_until_the_last_is_gone(self, store: EmbeddedStore) -> None:
        made = make(store, MODEL_SERVICE, service() | {
            "metadata": {"name": "chat", "namespace": "default", "finalizers": ["example.com/a"]}
        })  # fmt: skip
        run(store.delete(MODEL_SERVICE, "chat", "default"))
        held = run(store.get(MODEL_SERVICE, "chat", "default"))
        assert held["metadata"]["deletionTimestamp"] == now_of(store, held["metadata"]["deletionTimestamp"])
        assert held["metadata"]["generation"] == made["metadata"]["generation"] + 1
        more = {"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}
        with pytest.raises(Invalid, match="no new finalizers can be added if the object is being deleted"):
            run(store.patch(MODEL_SERVICE, "chat", more, "default", field_manager=WRITER))
        run(
            store.patch(
                MODEL_SERVICE, "chat", {"metadata": {"finalizers": None}}, "default", field_manager=WRITER
            )
        )
        with pytest.raises(NotFound):
            run(store.get(MODEL_SERVICE, "chat", "default"))

    @pytest.mark.parametrize(
        ("bound", "phase", "asked", "stays"),
        [
            pytest.param("", "", None, False, id="an unbound pod goes at once"),
            pytest.param("n1", "Failed", None, False, id="a failed pod goes at once"),
            pytest.param("n1", "Succeeded", None, False, id="a finished pod goes at once"),
            pytest.param("n1", "Running", None, True, id="a running pod waits for its kubelet"),
            pytest.param("n1", "Running", 0, False, id="grace 0 forces"),
            pytest.param("n1", "Running", 5, True, id="a grace of its own"),
        ],
    )
    def test_grace_of_pods(
        self, store: EmbeddedStore, bound: str, phase: str, asked: int | None, stays: bool
    ) -> None:
        make(store, POD, pod(node=bound))
        if phase:
            run(
                store.patch(
                    POD, "engine-0", {"status": {"phase": phase}}, "default",
                    field_manager="kubelet", subresource="status",
                )
            )  # fmt: skip
        run(store.delete(POD, "engine-0", "default", grace_seconds=asked))
        left = run(store.list(POD)).items
        assert bool(left) == stays
        if stays:
            grace = 30 if asked is None else asked
            assert left[0]["metadata"]["deletionGracePeriodSeconds"] == grace

    def test_a_second_deletion_can_only_shorten_the_grace(
        self, store: EmbeddedStore, clock: VirtualClock
    ) -> None:
        make(store, POD, pod(node="n1"))
        run(store.delete(POD, "engine-0", "default", grace_seconds=60))
        first = run(store.get(POD, "engine-0", "default"))["metadata"]
        clock.advance_to(ORIGIN + 10)
        run(store.delete(POD, "engine-0", "default", grace_seconds=90))
        assert run(store.get(POD, "engine-0", "default"))["metadata"] == first
        run(store.delete(POD, "engine-0", "default", grace_seconds=0))
        with pytest.raises(NotFound):
            run(store.get(POD, "engine-0", "default"))

    def test_nothing_new_in_a_namespace_that_is_being_deleted(self, store: EmbeddedStore) -> None:
        make(store, NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        run(store.delete(NAMESPACE, "shop"))
        with pytest.raises(Forbidden, match="because it is being terminated"):
            make(store, POD, pod(namespace="shop"))


class TestScale:
    def test_reads_and_writes_the_paths_of_the_kind(self, store: EmbeddedStore) -> None:
        make(store, MODEL_SERVICE, service())
        status = {"status": {"replicas": 2, "selector": "plimsoll.dev/service=chat"}}
        run(store.patch(MODEL_SERVICE, "chat", status, "default", field_manager=WRITER, subresource="status"))
        scale = run(store.put_scale(MODEL_SERVICE, "chat", "default", replicas=5, field_manager="kubectl"))
        assert (scale.spec_replicas, scale.status_replicas) == (5, 2)
        assert scale.selector == "plimsoll.dev/service=chat"
        kept = run(store.get(MODEL_SERVICE, "chat", "default"))
        assert kept["spec"]["replicas"] == 5
        assert kept["metadata"]["generation"] == 2
        assert run(store.get_scale(MODEL_SERVICE, "chat", "default")) == scale

    def test_a_negative_size_is_refused(self, store: EmbeddedStore) -> None:
        make(store, MODEL_SERVICE, service())
        with pytest.raises(Invalid, match=r"spec.replicas in body should be greater than or equal to 0"):
            run(store.put_scale(MODEL_SERVICE, "chat", "default", replicas=-1, field_manager="kubectl"))

    def test_an_old_version_is_a_conflict(self, store: EmbeddedStore) -> None:
        make(store, MODEL_SERVICE, service())
        with pytest.raises(Conflict):
            run(
                store.put_scale(
                    MODEL_SERVICE, "chat", "default", replicas=1, field_manager="hpa", resource_version="1"
                )
            )

    @pytest.mark.parametrize("resource", [POWER_DOMAIN, ACCELERATOR_NODE], ids=lambda r: r.kind)
    def test_a_kind_without_scale_has_none(self, store: EmbeddedStore, resource: Any) -> None:
        with pytest.raises(NotFound, match=rf"{resource.qualified}"):
            run(store.get_scale(resource, "x"))


def test_requests_are_counted_by_verb_and_kind(store: EmbeddedStore) -> None:
    make(store, POD, pod())
    run(store.get(POD, "engine-0", "default"))
    run(store.get(POD, "engine-0", "default"))
    assert store.requests["get", "Pod"] == 2
    assert store.requests["create", "Pod"] == 1


def test_the_store_says_what_it_does_not_do(store: EmbeddedStore) -> None:
    assert not store.capabilities.runs_cel
    assert not store.capabilities.durable
    assert store.capabilities.strict_fields

"""Our kinds as a user of kubectl meets them: explained, listed, selected, scaled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from console.controlplane import ControlPlane
from controller.resources import crds
from controller.resources.kinds import BY_KIND, KINDS, Kind
from controller.resources.schema import crd, schema_of
from controller.store.errors import Invalid
from controller.store.kube import KubeStore
from tests.resources.bad import domain, job, product, service
from tests.store.kube import Loop, far_kube

KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource.kind)
NODE: dict[str, Any] = {
    "apiVersion": "plimsoll.dev/v1alpha1",
    "kind": "AcceleratorNode",
    "metadata": {"name": "gpu-1"},
}
STATUSES: dict[str, dict[str, Any]] = {
    "ModelService": {"phase": "Serving", "ready": 2, "gpus": 2, "costPerHour": 1.61, "why": "MixChosen", "mix": "2 l4"},
    "TrainingJob": {"phase": "Running", "step": 40, "gpus": 16, "costPerHour": 54.9, "why": "GangStarted", "attempt": 1},
    "AcceleratorClass": {"nodes": 3, "gpus": 12, "freeGpus": 5},
    "PowerDomain": {"phase": "Within", "drawnWatts": 700, "limitWatts": 950, "nodes": 2, "why": "PowerGranted"},
    "AcceleratorNode": {"phase": "Online", "accelerator": "l4", "gpuCount": 4, "watts": 211.5, "fabric": "ib0"},
}  # fmt: skip
ROWS = {
    "ModelService": "chat Serving 2 2 1.61 MixChosen",
    "TrainingJob": "tune Running 40 100 16 54.9 GangStarted",
    "AcceleratorClass": "l4 25769803776 72 12 5",
    "PowerDomain": "row-a Within 700 950 2 PowerGranted",
    "AcceleratorNode": "gpu-1 Online l4 4 ib0 211.5",
}


@pytest.fixture(scope="module")
def far(control_plane: ControlPlane) -> Iterator[tuple[Loop, KubeStore]]:
    with far_kube(control_plane.kubeconfig) as made:
        yield made


@pytest.fixture
def made(far: tuple[Loop, KubeStore], namespace: str) -> Iterator[str]:
    """One object of each kind, each with a status; the namespace of those that have one."""
    loop, store = far
    objects = []
    for obj in (service(), job(), product(), domain(), NODE):
        resource = BY_KIND[obj["kind"]].resource
        where = namespace if resource.namespaced else ""
        meta = {"name": obj["metadata"]["name"]} | ({"namespace": where} if where else {})
        loop.now(store.create(resource, {**obj, "metadata": meta}, field_manager="kubectl"))
        status = {"status": STATUSES[resource.kind]}
        loop.now(
            store.patch(resource, meta["name"], status, where, field_manager="operator", subresource="status")
        )
        objects.append((resource, meta["name"], where))
    yield namespace
    for entry in objects:
        loop.now(store.delete(*entry))


# -------------------------------------------------------------------------------------------------- what is installed


def test_a_second_installation_changes_nothing(far: tuple[Loop, KubeStore]) -> None:
    loop, store = far

    def versions() -> list[str]:
        return [
            loop.now(store.get(crds.CRD, d["metadata"]["name"]))["metadata"]["resourceVersion"]
            for d in crds.definitions()
        ]

    before = versions()
    loop.now(crds.install(store))
    assert versions() == before


def test_a_definition_that_is_not_served_is_told(far: tuple[Loop, KubeStore]) -> None:
    """Another definition has our short name: the server takes ours and never serves it."""
    loop, store = far
    with pytest.raises(
        crds.NotEstablished,
        match=r"not served after 0\.2 s: .*servers\.example\.org: .*\"msvr\" is already in use",
    ):
        loop.now(_clash(store))


async def _clash(store: KubeStore) -> None:
    names = []
    try:
        for plural in ("masters", "servers"):
            one = json.loads(json.dumps(crd(BY_KIND["PowerDomain"])).replace("plimsoll.dev", "example.org"))
            kind = plural.rstrip("s").title()
            one["metadata"]["name"] = f"{plural}.example.org"
            one["spec"]["names"] |= {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": ["msvr"],
                "categories": [],  # what is listed as ours is ours: kubectl remembers for a while what was served
            }
            names.append(one["metadata"]["name"])
            await crds.install(store, [one], seconds=20.0 if plural == "masters" else 0.2)
    finally:
        for name in names:
            await store.delete(crds.CRD, name)


# ---------------------------------------------------------------------------------------------------- what users read


@KIND
def test_kubectl_explains_every_field(control_plane: ControlPlane, far: Any, kind: Kind) -> None:
    told = control_plane.kubectl("explain", kind.resource.plural, "--recursive").stdout
    shown = {line.split("\t")[0].strip() for line in told.splitlines() if "\t<" in line}
    assert fields(schema_of(kind.resource.kind)) <= shown
    top = control_plane.kubectl("explain", f"{kind.short_names[0]}.status").stdout
    assert schema_of(kind.resource.kind)["properties"]["status"]["description"] in " ".join(top.split())


def fields(schema: dict[str, Any]) -> set[str]:
    names = set(schema.get("properties", {}))
    for part in (*schema.get("properties", {}).values(), schema.get("items")):
        names |= fields(part) if isinstance(part, dict) else set()
    return names


def test_one_word_lists_everything_of_ours(control_plane: ControlPlane, made: str) -> None:
    told = control_plane.kubectl("get", "plimsoll", "-A").stdout
    named = {"modelservice", "trainingjob", "acceleratorclass", "powerdomain", "acceleratornode"}
    assert {
        line.split("plimsoll.dev/")[0].split()[-1].rstrip(".")
        for line in told.splitlines()
        if "plimsoll.dev/" in line
    } == named


@KIND
def test_a_line_answers_the_first_question(control_plane: ControlPlane, made: str, kind: Kind) -> None:
    where = ("-n", made) if kind.resource.namespaced else ()
    head, line = control_plane.kubectl("get", kind.short_names[0], *where).stdout.splitlines()
    assert head.split() == ["NAME", *(c.name.upper() for c in kind.columns if not c.wide)]
    *words, age = line.split()
    assert " ".join(words) == ROWS[kind.resource.kind]
    assert age.endswith("s")
    wide = control_plane.kubectl("get", kind.short_names[0], *where, "-o", "wide").stdout.splitlines()[0]
    assert wide.split() == ["NAME", *(c.name.upper() for c in kind.columns)]


SELECTED = [
    ("msvc", "spec.mode=Auto", 1),
    ("msvc", "spec.mode!=Auto", 0),
    ("msvc", "spec.model.name=llama-3.1-8b,status.phase=Serving", 1),
    ("tjob", "spec.queue=default,spec.suspend=false", 1),
    ("tjob", "status.phase=Failed", 0),
    ("aclass", "spec.resourceName=nvidia.com/gpu,spec.sharing=none", 1),
    ("pdom", "spec.parent=,status.phase=Within", 1),
    ("anode", "status.accelerator=l4,status.phase=Online", 1),
]


@pytest.mark.parametrize(("name", "selector", "count"), SELECTED, ids=[f"{n} {s}" for n, s, _ in SELECTED])
def test_objects_are_selected_by_field(
    control_plane: ControlPlane, made: str, name: str, selector: str, count: int
) -> None:
    found = control_plane.kubectl("get", name, "-n", made, "--field-selector", selector, "-o", "name").stdout
    assert len(found.split()) == count


def test_every_field_to_select_by_is_tried() -> None:
    tried = " ".join(selector for _, selector, _ in SELECTED)
    assert [path for kind in KINDS for path in kind.resource.selectable if path not in tried] == []


def test_a_service_is_scaled_and_read_back(
    control_plane: ControlPlane, far: tuple[Loop, KubeStore], made: str
) -> None:
    loop, store = far
    assert "scaled" in control_plane.kubectl("-n", made, "scale", "msvc/chat", "--replicas=3").stdout
    resource = BY_KIND["ModelService"].resource
    assert loop.now(store.get_scale(resource, "chat", made)).spec_replicas == 3
    with pytest.raises(Invalid, match="should be less than or equal to 10000"):
        loop.now(store.put_scale(resource, "chat", made, replicas=10_001, field_manager="kubectl"))


def test_a_description_has_the_conditions(
    control_plane: ControlPlane, far: tuple[Loop, KubeStore], made: str
) -> None:
    loop, store = far
    condition = {
        "type": "Accepted", "status": "False", "reason": "SpecInvalid", "message": "spec.model: no such model.",
        "lastTransitionTime": "2026-11-21T00:00:00Z", "observedGeneration": 1,
    }  # fmt: skip
    status = {"status": {"conditions": [condition]}}
    resource = BY_KIND["ModelService"].resource
    loop.now(store.patch(resource, "chat", status, made, field_manager="operator", subresource="status"))
    told = " ".join(control_plane.kubectl("-n", made, "describe", "msvc", "chat").stdout.split())
    assert (
        "Message: spec.model: no such model. Observed Generation: 1 Reason: SpecInvalid Status: False Type: Accepted"
        in told
    )
    control_plane.kubectl("-n", made, "wait", "--for=condition=Accepted=False", "--timeout=10s", "msvc/chat")

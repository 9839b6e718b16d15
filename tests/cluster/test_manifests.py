"""Manifests on the real API server: what it refuses, with which sentence, and that it takes every example as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from console.controlplane import ControlPlane
from controller.resources import manifests
from controller.resources.core import NAMESPACE
from controller.resources.kinds import BY_KIND
from controller.store.errors import BadRequest, Invalid, NotFound
from controller.store.kube import KubeStore
from tests.resources.bad import Bad, Change, objective, service
from tests.resources.bad_manifests import BAD, CHANGES, RULED, STRANGE
from tests.store.kube import Loop, far_kube, sweep

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))


@pytest.fixture(scope="module")
def far(control_plane: ControlPlane) -> Iterator[tuple[Loop, KubeStore]]:
    with far_kube(control_plane.kubeconfig) as made:
        yield made


def refusal(write: Callable[[], Any]) -> str:
    with pytest.raises((Invalid, BadRequest)) as caught:
        write()
    return caught.value.message


ALL = [*BAD, *STRANGE, *RULED]


@pytest.mark.parametrize("bad", ALL, ids=[bad.story for bad in ALL])
def test_the_server_refuses_it_with_this_sentence(far: tuple[Loop, KubeStore], bad: Bad) -> None:
    loop, store = far
    resource = BY_KIND[bad.obj["kind"]].resource
    said = refusal(lambda: loop.now(store.create(resource, bad.obj, field_manager="kubectl", dry_run=True)))
    assert said == str(bad.words)


TYPED = "failed to create typed patch object (default/chat; plimsoll.dev/v1alpha1, Kind=ModelService): "
APPLIED = [
    ("a field misspelt", {"replica": 1}, ".spec.replica: field not declared in schema"),
    ("replicas in words", {"replicas": "three"}, ".spec.replicas: expected numeric (int or float), got string"),
    ("a product twice", {"accelerators": ["l4", "l4"]}, '.spec.accelerators: duplicate entries for key [="l4"]'),
    ("one class twice", {"objectives": [objective(), objective()]},
     '.spec.objectives: duplicate entries for key [class="default"]'),
    ("an object where a list belongs", {"objectives": {"a": 1}}, ".spec.objectives: expected list, got &{map[a:1]}"),
    ("a product that is null", {"accelerators": [None]},
     ".spec.accelerators: element 0: associative list without keys has an element that's an explicit null"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "words"), [row[1:] for row in APPLIED], ids=[row[0] for row in APPLIED])
def test_server_side_apply_refuses_it_in_its_own_words_and_not_as_a_fault_of_the_server(
    far: tuple[Loop, KubeStore], spec: Any, words: str
) -> None:
    """It answers 500 to a manifest of the wrong types; asking again would not help, so the seam says 400."""
    loop, store = far
    resource = BY_KIND["ModelService"].resource
    with pytest.raises(BadRequest) as caught:
        loop.now(store.apply(resource, service(spec), field_manager="kubectl"))
    assert caught.value.message == TYPED + words


@pytest.mark.parametrize("change", CHANGES, ids=[change.story for change in CHANGES])
def test_the_server_refuses_the_change_with_this_sentence(
    far: tuple[Loop, KubeStore], namespace: str, change: Change
) -> None:
    loop, store = far
    resource = BY_KIND[change.obj["kind"]].resource
    name, where = change.obj["metadata"]["name"], namespace if resource.namespaced else ""
    metadata = {"name": name} | ({"namespace": where} if where else {})

    def patch(part: Any, subresource: Any) -> Any:
        return loop.now(
            store.patch(resource, name, part, where, field_manager="kubectl", subresource=subresource)
        )

    loop.now(store.create(resource, {**change.obj, "metadata": metadata}, field_manager="kubectl"))
    try:
        if change.status:
            patch({"status": change.status}, "status")
        assert refusal(lambda: patch(change.patch, change.subresource)) == str(change.words)
    finally:
        loop.now(store.delete(resource, name, where))


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_kubectl_applies_every_example_unchanged(
    control_plane: ControlPlane, far: tuple[Loop, KubeStore], file: Path
) -> None:
    """As a user does, and as it stands; twice, because the second time nothing may change."""
    loop, store = far
    count = len(list(yaml.safe_load_all(file.read_text())))
    generations = []
    for _ in range(2):
        told = control_plane.kubectl("apply", "--server-side", "-f", str(file)).stdout
        assert told.count("serverside-applied") == count
        live = [loop.now(store.get(m.resource, *named(m))) for m in manifests.load(file)]
        generations.append([obj["metadata"].get("generation") for obj in live])
        for manifest, obj in zip(manifests.load(file), live, strict=True):
            assert within(manifest.obj.get("spec", {}), obj.get("spec", {}))
    assert generations[0] == generations[1]


def named(manifest: manifests.Manifest) -> tuple[str, str]:
    meta = manifest.obj["metadata"]
    return meta["name"], meta.get("namespace", "")


def within(part: Any, whole: Any) -> bool:
    """Whether everything that was asked for is there."""
    if isinstance(part, dict):
        return all(key in whole and within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(within, part, whole))
    return bool(part == whole)


@pytest.fixture(scope="module", autouse=True)
def _cleared(far: tuple[Loop, KubeStore]) -> Iterator[None]:
    """What the examples made in the cluster is gone afterwards, their namespaces too."""
    yield
    loop, store = far
    loop.now(sweep(store))
    made = {m.obj["metadata"]["name"] for f in FILES for m in manifests.load(f) if m.resource == NAMESPACE}
    for name in sorted(made):
        with suppress(NotFound):
            loop.now(store.delete(NAMESPACE, name))

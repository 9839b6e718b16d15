"""The manifests in examples/ are what a user starts from: all sound, applied in any order, twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.resources import manifests
from controller.resources.acceleratorclass import AcceleratorClass
from controller.resources.manifests import as_object
from controller.resources.modelservice import ModelService
from controller.resources.trainingjob import TrainingJob
from controller.store.embedded import open_store
from placement.models import model_spec, training_shape
from runtime.clock import VirtualClock
from tests.store.following import now

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_folder_applies_and_applies_again_without_a_change(folder: Path) -> None:
    store = open_store(VirtualClock(1_790_000_000.0))
    found = manifests.load(folder)
    first = now(manifests.apply(store, found))
    assert len(first) == len(found)
    assert now(manifests.apply(store, list(reversed(found)))) != []
    versions = {o["metadata"]["uid"]: o["metadata"]["resourceVersion"] for o in first}
    again = now(manifests.apply(store, found))
    assert {o["metadata"]["uid"]: o["metadata"]["resourceVersion"] for o in again} == versions


def test_the_demo_is_what_it_says() -> None:
    found = manifests.load(EXAMPLES / "demo")
    kinds = [manifest.resource.kind for manifest in found]
    assert kinds.count("AcceleratorClass") == 4
    assert kinds.count("ModelService") == 3
    assert kinds.count("TrainingJob") == 2
    assert kinds.count("PowerDomain") == 1


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_price_has_a_date_and_a_source(folder: Path) -> None:
    products = [as_object(m) for m in manifests.load(folder) if m.resource.kind == "AcceleratorClass"]
    assert products or folder.name == "pods", "beside products that are there already"
    for product in products:
        assert isinstance(product, AcceleratorClass)
        assert product.spec.pools
        assert all(pool.priced_at and pool.source for pool in product.spec.pools)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_model_named_is_in_the_catalogue_or_has_its_shape(folder: Path) -> None:
    for manifest in manifests.load(folder):
        obj = as_object(manifest)
        if isinstance(obj, ModelService):
            assert model_spec(obj.spec.model.name, {}).weight_bytes > 0
        elif isinstance(obj, TrainingJob):
            assert training_shape(obj.spec.model.name, {}).layers > 0


def test_the_readme_names_every_folder() -> None:
    text = (EXAMPLES / "README.md").read_text()
    assert [folder.name for folder in FOLDERS if f"`{folder.name}/`" not in text] == []

"""What is made from the Python types and committed is what they make today."""

from __future__ import annotations

from controller.resources import crds
from controller.resources.kinds import KINDS
from controller.resources.reference import PAGE, resources_page
from controller.resources.schema import schema_of
from tests.repository.tree import ROOT


def test_the_definitions_of_the_chart_are_up_to_date() -> None:
    folder = ROOT / crds.FOLDER
    committed = {path.name: path.read_text() for path in folder.iterdir()}
    wanted = crds.files()
    stale = sorted(
        name for name in committed.keys() | wanted.keys() if committed.get(name) != wanted.get(name)
    )
    assert stale == [], f"`make crds` writes {crds.FOLDER} anew; stale: {', '.join(stale)}"


def test_the_reference_page_of_the_kinds_is_up_to_date() -> None:
    assert (ROOT / PAGE).read_text() == resources_page(), f"`make crds` writes {PAGE} anew"


def test_the_reference_page_has_every_field() -> None:
    page = resources_page()
    for kind in KINDS:
        assert f"## {kind.resource.kind}\n" in page
        for part in ("spec", "status"):
            inner = schema_of(kind.resource.kind)["properties"].get(part, {})
            assert [name for name in inner.get("properties", {}) if f"| `{part}.{name}`" not in page] == []

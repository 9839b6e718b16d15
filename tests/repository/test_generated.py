"""What is made from the Python types and committed is what they make today."""

from __future__ import annotations

from controller.resources import crds
from tests.repository.tree import ROOT


def test_the_definitions_of_the_chart_are_up_to_date() -> None:
    folder = ROOT / crds.FOLDER
    committed = {path.name: path.read_text() for path in folder.iterdir()}
    wanted = crds.files()
    stale = sorted(
        name for name in committed.keys() | wanted.keys() if committed.get(name) != wanted.get(name)
    )
    assert stale == [], f"`make crds` writes {crds.FOLDER} anew; stale: {', '.join(stale)}"

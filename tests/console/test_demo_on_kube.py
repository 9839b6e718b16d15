"""The demo on a real control plane: the same course as in this process, and nothing left of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from console.commands.demo import run_demo
from console.demo import runner

MINUTES = 1.0


def test_it_decides_the_same_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "TAIL_SECONDS", 30)  # the jobs' half hour would show nothing more
    summaries, decisions, told = {}, {}, ""
    for kind in ("local", "kube"):
        out = tmp_path / kind
        run_demo(None, 1, out, MINUTES, 1, "json", kind)
        told = capsys.readouterr().err
        summaries[kind] = json.loads((out / "summary.json").read_text())
        decisions[kind] = (out / "decisions.log").read_text().splitlines()
    assert summaries["kube"].keys() == summaries["local"].keys()
    assert (summaries["kube"]["lost"], summaries["kube"]["rejected"]) == (0, 0)
    assert len(decisions["kube"]) > 100
    assert decisions["kube"] == decisions["local"]
    kubeconfig = re.search(r"export KUBECONFIG=(\S+);", told)
    assert kubeconfig, told
    assert not Path(kubeconfig[1]).exists(), "the control plane is stopped, and its folder gone"

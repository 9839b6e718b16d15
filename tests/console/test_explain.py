"""`plimsoll explain` of services that compete for too few GPUs, and of a pool they compete for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.reasons import sentence
from cluster.serving import Objective
from console.commands.explain import run_explain
from controller.ledger.ledger import Ledger
from controller.ledger.rows import PlanId, plan_row, reason_row
from policies.planner import PlannerStates, run_planner
from tests.policies.builders import a_cluster, context


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """What was told in two runs about two services on one A100."""
    made = a_cluster().with_pool("a100-od", "A100-80").with_nodes(1, "a100-od", gpus=1)
    promise = (Objective(ttft_seconds=2.0, tpot_seconds=0.1),)
    for name in ("shop/a", "shop/b"):
        made.with_service(name, "A100-80", expected_requests_per_second=12.0, objectives=promise)
        made.with_load(name, 12.0)
    path = str(tmp_path / "ledger.db")
    told = Ledger(path, now=lambda: 1_700_000_000.0)
    view, states = made.build(), PlannerStates()
    for tick in range(2):
        run = run_planner(view, states, context(tick=tick), {"select": ("joint_mix", {})})
        view, states = run.snapshot, run.states
        for staged in run.stages:
            row = plan_row(PlanId(1, staged.stage, tick), 1_700_000_000.0 + tick, staged.plan.evidence)
            told.plan(row, [reason_row(reason, sentence(reason)) for reason in staged.plan.reasons])
    told.flush(force=True)
    told.close()
    return path


@pytest.fixture
def shown(
    ledger: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """What `plimsoll explain` prints about an object, on a wide screen."""
    monkeypatch.setenv("COLUMNS", "400")

    def explained(name: str) -> str:
        assert run_explain(name, ledger, "text") == 0
        return capsys.readouterr().out

    return explained


def test_a_service_that_goes_short_reads_what_it_gets_and_what_would_help(
    shown: Callable[[str], str],
) -> None:
    text = shown("service/shop/b")
    assert "2 services want more GPUs than there are and were planned together." in text
    assert "what would help: " in text
    assert "more in a100-od would save $" in text
    told_twice_read_once = "Pool a100-od: one more GPU of a100-od would save about $"
    assert text.count(told_twice_read_once) == 1


def test_a_pool_is_asked_about_by_its_name(shown: Callable[[str], str]) -> None:
    text = shown("pool/a100-od")
    assert "2 services compete for its 1 GPU." in text
    assert text.count("ModelService shop/a: 2 services want more") == 1

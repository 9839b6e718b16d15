"""The `selection-multi` figures: exact keys, generated instances, faults that are seen, and sentences."""

import json

import msgspec
import pytest

from benchmarks import selection_multi
from benchmarks.base import Arguments, BenchmarkError
from placement.selection.many import solve_fleet

VARIANTS = {
    "h100-tp1": {"gpu": "h100", "gpus_per_replica": 1, "cost_usd_h": 6.9, "tputs": [[9.0, 3.0], [4.0, 1.0]]},
    "l4-tp1": {"gpu": "l4", "gpus_per_replica": 1, "cost_usd_h": 0.8, "tputs": [[1.0, 0.2], [0.0, 0.0]]},
}


def instance(name: str, best_known: float | None) -> dict:
    models = [
        {"name": f"m{k}", "rate_rps": 3.0 + k, "workload": [[0.4, 0.3], [0.2, 0.1]], "variants": VARIANTS}
        for k in range(2)
    ]
    return {
        "name": name,
        "available_gpus": {"h100": 2, "l4": 3},
        "shed_penalty_usd_h_per_rps": 50.0,
        "max_utilisation": 0.85,
        "models": models,
        "reference": {} if best_known is None else {"best_known": best_known},
    }


@pytest.fixture
def folder(tmp_path):
    best = solve_fleet(selection_multi.fleet(instance("x", None))).objective_per_hour
    table = [instance("known", best + 1.0), instance("unknown", None)]
    (tmp_path / selection_multi.FILE).write_text(json.dumps(table))
    return tmp_path


def test_figures_have_exactly_the_promised_keys(folder):
    figures = selection_multi.run(Arguments(data=folder, quick=True)).figures
    assert list(figures) == ["rel_gap_by_instance", "seconds_by_instance", "seconds_100", "failures"]
    assert list(figures["rel_gap_by_instance"]) == ["known", "unknown", "generated-4", "generated-6"]
    assert figures["rel_gap_by_instance"]["known"] < 0.0  # better than the best known
    assert 0.0 <= figures["rel_gap_by_instance"]["unknown"] < 1e-6
    assert figures["failures"] == 0
    assert msgspec.json.encode(figures)


def test_generated_instances_follow_the_seed_and_scale_the_inventory(folder):
    references = json.loads((folder / selection_multi.FILE).read_text())
    one, same, other = (selection_multi.generated(references, 8, seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert one["available_gpus"] == {"h100": 8, "l4": 12}
    assert len({model["name"] for model in one["models"]}) == 8


def test_a_plan_that_uses_gpus_that_are_not_there_is_a_failure(folder, monkeypatch):
    def cheat(problem, *memory, **clock):
        roomy = msgspec.structs.replace(problem, inventory=dict.fromkeys(problem.inventory))
        return solve_fleet(roomy)

    monkeypatch.setattr(selection_multi, "solve_fleet", cheat)
    figures = selection_multi.run(Arguments(data=folder, quick=True)).figures
    assert figures["failures"] == 4
    assert figures["rel_gap_by_instance"]["known"] == float("inf")


def test_a_plan_that_misstates_its_cost_is_caught_from_the_files_own_figures():
    task = instance("x", None)
    plan = solve_fleet(selection_multi.fleet(task))
    assert selection_multi.raw_faults(task, plan) == ()
    cheaper = msgspec.structs.replace(plan, objective_per_hour=plan.objective_per_hour - 1.0)
    assert "stated is" in selection_multi.raw_faults(task, cheaper)[0]


@pytest.mark.parametrize(
    ("text", "sentence"), [(None, "is missing"), ("[]", "has no instances")], ids=["no file", "no instances"]
)
def test_missing_data_is_a_sentence(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / selection_multi.FILE).write_text(text)
    with pytest.raises(BenchmarkError, match=sentence):
        selection_multi.run(Arguments(data=tmp_path))

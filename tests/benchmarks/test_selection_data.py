"""Bad files of gpu-selection: every benchmark that reads them ends with a sentence of file, place and remedy."""

import json

import pytest

from benchmarks import mix, selection_multi, slo_data
from benchmarks.base import BenchmarkError
from benchmarks.selection_data import read_profile, read_rows
from placement.selection.mix import solve_mix

TABLE, LOADS = "reference_costs_single_model.csv", "workloads_10x6.json"
PROFILE, MANY = "profile_roofline_llama2-7b_12gpu_tpot120ms.json", "reference_multi_model_inventory.json"
HEADS = "n_gpu_types,tpot_slo_ms,workload,rate_rps,optimal_fractional_cost,melange_exact_sf4"
GPU = {"cost_usd_h": 1.0, "tputs": [[4.0, 1.0, 0.5], [2.0, 0.6, 0.2]]}
GRID = {"input_edges": [100, 1000], "output_edges": [50, 100, 500]}


def variant(**changes):
    return {"gpu": "L4", "gpus_per_replica": 1, "cost_usd_h": 0.8, "tputs": [[2.0, 1.0]], **changes}


def many(variants=None, model=None, **changes):
    own = {"name": "m0", "rate_rps": 3.0, "workload": [[0.5, 0.5]], "variants": variants or {"v": variant()}}
    whole = {
        "name": "two", "available_gpus": {"L4": 4}, "shed_penalty_usd_h_per_rps": 50.0, "max_utilisation": 0.85,
        "models": [{**own, **(model or {})}],
    }  # fmt: skip
    return [{**whole, **changes}]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / TABLE).write_text(f"{HEADS}\n1,120,chat,4,1.5,\n")
    (tmp_path / LOADS).write_text(
        json.dumps({**GRID, "workloads": {"chat": [[0.2, 0.2, 0.1], [0.3, 0.2, 0]]}})
    )
    (tmp_path / PROFILE).write_text(json.dumps({**GRID, "tpot_slo_s": 0.12, "gpus": {"L4": GPU}}))
    (tmp_path / MANY).write_text(json.dumps(many()))
    (tmp_path / "slo_simulation_headtohead.csv").write_text("wl,rate,tag,cost\nchat,2.0,melange_upper,4.68\n")
    return tmp_path


def profile(**changes):
    return json.dumps({**GRID, "tpot_slo_s": 0.12, "gpus": {"L4": GPU}, **changes})


def one_model(folder):
    rows, workloads = mix.load(folder)
    profiles = {}
    return [
        mix.instance(row, workloads, mix.profile_of(folder, row["tpot_slo_ms"], profiles, workloads), headroom=True)
        for row in rows
    ]  # fmt: skip


def test_good_files_are_read_with_a_byte_order_mark_and_foreign_line_ends(folder):
    text = (folder / TABLE).read_text().replace("\n", "\r\n")
    (folder / TABLE).write_bytes(b"\xef\xbb\xbf" + text.encode())
    (folder / MANY).write_bytes(b"\xef\xbb\xbf" + (folder / MANY).read_bytes())
    (task,) = one_model(folder)
    assert sum(task.demand) == pytest.approx(4.0)
    assert [each["name"] for each in selection_multi._load(folder / MANY)] == ["two"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param(TABLE, "", "lacks the column n_gpu_types; it has none", id="empty table"),
        pytest.param(TABLE, f"{HEADS}\n", "has no rows", id="a table of nothing"),
        pytest.param(TABLE, f"{HEADS}\n1,120,chat\n", "line 2: nothing stands under rate_rps", id="a short line"),
        pytest.param(TABLE, f"{HEADS}\n1,120,chat,4,1,\n1,120,chat,nan,1,\n", "line 3: rate_rps is 'nan'", id="NaN rate"),
        pytest.param(TABLE, f"{HEADS}\n1,120,chat,-4,1,\n", "line 2: rate_rps is '-4'", id="negative rate"),
        pytest.param(TABLE, f"{HEADS}\n1,120,chat,4,,\n", "optimal_fractional_cost is ''", id="no optimum"),
        pytest.param(TABLE, f"{HEADS}\n1,120,chat,4,1,inf\n", "melange_exact_sf4 is 'inf'", id="another's cost"),
        pytest.param(TABLE, f"{HEADS}\none,120,chat,4,1,\n", "n_gpu_types is 'one'; give a number", id="types in words"),
        pytest.param(TABLE, f"{HEADS}\n1,120,talk,4,1,\n", "the workload 'talk', which workloads_10x6.json does", id="load"),
        pytest.param(LOADS, "", "workloads_10x6.json is not JSON", id="empty loads"),
        pytest.param(LOADS, "[]", "holds a list; it must be an object", id="loads in a list"),
        pytest.param(LOADS, '{"loads": {}}', "has no object `workloads`", id="loads under another name"),
        pytest.param(LOADS, '{"workloads": {"chat": [[0, 0, 0], [0, 0, 0]]}}', "chat is 0 everywhere", id="no load"),
        pytest.param(LOADS, '{"workloads": {"chat": [[1, 0, 0], [0, -1, 0]]}}', "chat, row 2, column 2 is -1", id="load < 0"),
        pytest.param(
            LOADS, json.dumps({**GRID, "input_edges": [100, 900], "workloads": {"chat": [[1, 0, 0], [0, 0, 0]]}}),
            "input_edges are [100, 1000], those of workloads_10x6.json [100, 900]", id="load and profile on different grids",
        ),
        pytest.param(PROFILE, profile(gpus={}), "gpus is empty", id="no GPU"),
        pytest.param(PROFILE, profile(gpus={"L4": {**GPU, "cost_usd_h": 0}}), "gpus.L4.cost_usd_h is 0; give", id="price 0"),
        pytest.param(PROFILE, profile(gpus={"L4": {"tputs": GPU["tputs"]}}), "gpus.L4.cost_usd_h is None", id="no price"),
        pytest.param(
            PROFILE, profile(gpus={"L4": {**GPU, "tputs": [[4, 2], [1, 0.6], [0.5, 0.2]]}}),
            "gpus.L4.tputs has shape (3, 2); it must be 2 x 3, a row for each input size; it looks transposed", id="transposed",
        ),
        pytest.param(
            PROFILE, profile(gpus={"L4": {**GPU, "tputs": [[4, 2, None], [1, 0.6, 1]]}}),
            "gpus.L4.tputs, row 1, column 3 is nan", id="a cell that nobody measured",
        ),
        pytest.param(
            PROFILE, profile(gpus={"L4": {**GPU, "tputs": [[4, 2], [1]]}}), "is no table of numbers", id="ragged rows"
        ),
        pytest.param(PROFILE, profile(input_edges=None), "input_edges is None", id="no edges"),
        pytest.param(PROFILE, profile(input_edges=[9, 9]), "rise strictly", id="edges that do not rise"),
        pytest.param(PROFILE, profile(tpot_slo_s=0), "tpot_slo_s is 0", id="no promise"),
    ],
)  # fmt: skip
def test_files_of_one_model(folder, name, text, said):
    (folder / name).write_text(text)
    with pytest.raises(BenchmarkError) as told:
        one_model(folder)
    assert said in str(told.value)
    assert name in str(told.value)
    assert str(told.value).endswith(".")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param([3], "instance 1 is no object with a name", id="no object"),
        pytest.param(many(models=[]), "instance 1 (two): models is empty", id="no models"),
        pytest.param(many() + many(), "two instances are named 'two'", id="one name twice"),
        pytest.param(many(available_gpus={"L4": -1}), "available_gpus.L4 is -1", id="fewer than none"),
        pytest.param(many(available_gpus={"L4": 1.5}), "available_gpus.L4 is 1.5; give a whole", id="half a GPU"),
        pytest.param(many(available_gpus=None), "available_gpus is None", id="no inventory"),
        pytest.param(many(max_utilisation=1.2), "max_utilisation is above 1", id="more than all"),
        pytest.param(many(shed_penalty_usd_h_per_rps=0), "shed_penalty_usd_h_per_rps is 0", id="load worth nothing"),
        pytest.param(many(reference={"best_known": "?"}), "best_known is '?'", id="a reference in words"),
        pytest.param(many(model={"name": ""}), "model 1: its name is ''", id="a model without a name"),
        pytest.param(many(model={"rate_rps": float("nan")}), "model m0: rate_rps is nan", id="NaN rate"),
        pytest.param(many(model={"variants": None}), "model m0: variants is None", id="no variants"),
        pytest.param(many({"v": variant(cost_usd_h=0)}), "model m0, variant v: cost_usd_h is 0; give", id="price 0"),
        pytest.param(many({"v": variant(gpu=None)}), "variant v: gpu is missing", id="no GPU"),
        pytest.param(many({"v": variant(gpus_per_replica=0)}), "gpus_per_replica is 0", id="a replica of no GPU"),
        pytest.param(many({"v": variant(tputs=[[2.0], [1.0]])}), "it looks transposed", id="transposed"),
        pytest.param(many({"v": variant(tputs=[[2.0, -1.0]])}), "tputs, row 1, column 2 is -1", id="less than nothing"),
    ],
)  # fmt: skip
def test_instances_of_many_models(folder, content, said):
    (folder / MANY).write_text(json.dumps(content))
    with pytest.raises(BenchmarkError) as told:
        selection_multi._load(folder / MANY)
    assert said in str(told.value)
    assert MANY in str(told.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("wl,rate,tag\nchat,2,melange\n", "lacks the column cost", id="a column less"),
        pytest.param(
            "wl,rate,tag,cost\nchat,2,ours,3\n", "no row whose tag begins with melange", id="no scenario"
        ),
        pytest.param("wl,rate,tag,cost\nchat,0,melange,3\n", "line 2: rate is '0'", id="no requests"),
        pytest.param("wl,rate,tag,cost\nchat,2,melange,0\n", "line 2: cost is '0'", id="for nothing"),
        pytest.param("wl,rate,tag,cost\ntalk,2,melange,3\n", "the workload 'talk'", id="an unknown workload"),
    ],
)
def test_scenarios(folder, text, said):
    (folder / "slo_simulation_headtohead.csv").write_text(text)
    with pytest.raises(BenchmarkError, match=said):
        slo_data.read(folder)


def test_a_gpu_that_the_inventory_does_not_have_and_models_of_other_grids_are_planned(folder):
    """The unknown type has no GPUs; generated models keep their own histogram where the other has another shape."""
    content = many({"v": variant(), "w": variant(gpu="TPU")})
    content += many({"v": variant(tputs=[[2.0]])}, model={"workload": [[1.0]], "name": "m1"}, name="other")
    (folder / MANY).write_text(json.dumps(content))
    instances = selection_multi._load(folder / MANY)
    assert selection_multi.fleet(instances[0]).inventory == {"TPU": 0, "L4": 4}
    made = selection_multi.generated(instances, 12, seed=3)
    assert {len(model["workload"][0]) for model in made["models"]} == {1, 2}
    assert all(
        len(each["tputs"][0]) == len(m["workload"][0])
        for m in made["models"]
        for each in m["variants"].values()
    )


def test_holes_of_a_profile_are_told_and_stay_infeasible(folder, capsys):
    (folder / PROFILE).write_text(profile(gpus={"L4": {**GPU, "tputs": [[4.0, 0.0, 0.5], [2.0, 0.6, 0.2]]}}))
    read_profile(folder / PROFILE)
    assert "L4 is 0 at 100 input and 100 output tokens though a larger size works" in capsys.readouterr().err
    assert one_model(folder)[0].variants[0].throughput[1] == 0.0


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BenchmarkError, match=r"gone\.csv is missing; give the folder"):
        read_rows(tmp_path / "gone.csv", ())


@pytest.mark.parametrize(
    ("count", "known", "types"),
    [
        pytest.param(
            4, ("A100", "T4", "A10G"), ("A10G", "A100"), id="those of the four that serve something"
        ),
        pytest.param(12, ("A100", "T4"), ("A100", "T4"), id="all that a profile of twelve has left"),
        pytest.param(1, ("L4",), ("L4",), id="one type"),
        pytest.param(4, ("a", "b", "c", "d"), ("a", "b", "c", "d"), id="four others"),
        pytest.param(4, ("L4", "b", "c", "d"), ("L4", "b", "c", "d"), id="four, one of them usual"),
    ],
)
def test_types_of_a_row(count, known, types):
    assert mix._types({"n_gpu_types": str(count)}, known) == types


def test_numbers_may_be_written_with_a_point_and_another_name_of_the_profile_is_found(folder):
    (folder / TABLE).write_text(f"{HEADS}\n1.0,120.0,chat,4,1.5,\n")
    (folder / PROFILE).rename(folder / "profile_roofline_other_1gpu_tpot120ms.json")
    (task,) = one_model(folder)
    assert [option.name for option in task.variants] == ["L4"]


@pytest.mark.parametrize("rate", ["4", "0.01"])
def test_a_rare_size_that_only_a_dear_gpu_serves_is_served(folder, rate):
    cheap = {"cost_usd_h": 0.7, "tputs": [[4.0, 1.0, 0.5], [2.0, 0.6, 0.0]]}
    (folder / TABLE).write_text(f"{HEADS}\n2,120,chat,{rate},1.5,\n")
    (folder / PROFILE).write_text(profile(gpus={"cheap": cheap, "dear": {**GPU, "cost_usd_h": 9.0}}))
    (folder / LOADS).write_text(
        json.dumps({**GRID, "workloads": {"chat": [[0.2, 0.2, 0.1], [0.3, 0.2, 1e-6]]}})
    )
    (task,) = one_model(folder)
    solution = solve_mix(task)
    assert mix.faults_of(task, solution) == ()
    assert solution.counts["dear"] == 1

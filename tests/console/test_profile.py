"""`plimsoll profile import`: what is written, what is said, and how it is refused."""

import json

import yaml
from typer.testing import CliRunner

from console.main import app
from placement.catalogue import load
from placement.profiles.formats import Given, parse

GRID = {"input_edges": [100, 1000], "output_edges": [10, 100], "tpot_slo_s": 0.06, "gpus": {"L4": {"cost_usd_h": 0.7, "tputs": [[9, 5], [3, 2]]}}}  # fmt: skip


def run(tmp_path, content, *more):
    file = tmp_path / "grid.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return CliRunner().invoke(app, ["profile", "import", str(file), *more], env={"COLUMNS": "200"})


def test_a_profile_is_written_as_the_operator_reads_it(tmp_path):
    out = tmp_path / "out.json"
    told = run(tmp_path, GRID, "--model", "m", "--error", "0.2", "--out", str(out))
    assert told.exit_code == 0, told.output
    (found,) = parse(out.read_text(), "out.json", Given(), load()).profiles
    assert (found.model, found.accelerator, found.tpot_seconds, found.error) == ("m", "L4", 0.06, 0.2)
    assert "TPOT 60 ms" in told.stderr


def test_a_config_map_carries_the_same(tmp_path):
    told = run(tmp_path, GRID, "--model", "m", "--config-map", "measured@ops")
    manifest = yaml.safe_load(told.stdout)
    assert manifest["metadata"] == {
        "name": "measured",
        "namespace": "ops",
        "labels": {"plimsoll.dev/profiles": "true"},
    }
    assert len(parse(manifest["data"]["grid.json"], "x", Given(), load()).profiles) == 1


def test_sizes_given_beside_the_file_are_taken(tmp_path):
    melange = {"gpu_info": {"L4": {"cost": 1, "tputs": [[9, 5], [3, 2]]}}}
    told = run(
        tmp_path,
        melange,
        "--model",
        "m",
        "--input-edges",
        "50,500",
        "--output-edges",
        "20,200",
        "--tpot-ms",
        "40",
    )
    (found,) = json.loads(told.stdout)["profiles"]
    assert (found["input_edges"], found["output_edges"], found["tpot_seconds"]) == (
        [50, 500],
        [20, 200],
        0.04,
    )


def test_every_fault_is_a_sentence_and_nothing_is_written(tmp_path):
    out = tmp_path / "out.json"
    bad = json.dumps(GRID).replace("0.7", "0").replace("9,", "NaN,")
    told = run(tmp_path, bad, "--model", "m", "--out", str(out))
    assert told.exit_code == 2
    assert "gpus.L4.cost_usd_h is 0; write dollars per hour above 0" in told.stderr
    assert "tputs[0][0] (input 100, output 10) is nan; measure that size again" in told.stderr
    assert not out.exists()


def test_files_that_cannot_be_read_or_written_are_sentences(tmp_path):
    missing = CliRunner().invoke(
        app, ["profile", "import", str(tmp_path / "none.json")], env={"COLUMNS": "200"}
    )
    assert (missing.exit_code, "Give the path of a profile file" in missing.stderr) == (2, True)
    told = run(tmp_path, GRID, "--model", "m", "--out", str(tmp_path / "no" / "out.json"))
    assert (told.exit_code, "Give a path that can be written" in told.stderr) == (2, True)
    odd = run(tmp_path, GRID, "--model", "m", "--input-edges", "a,b")
    assert (odd.exit_code, "list token counts" in odd.stderr) == (2, True)
    (tmp_path / "grid.json").write_bytes(b"\xff\xfe")
    bytes_ = CliRunner().invoke(
        app, ["profile", "import", str(tmp_path / "grid.json")], env={"COLUMNS": "200"}
    )
    assert (bytes_.exit_code, "not UTF-8" in bytes_.stderr) == (2, True)

"""Measured rows beside the twin: how rows are read, what one client takes in closed form, and what is left out with its reason."""

import math

import pytest

from benchmarks import truth_silicon as truth
from benchmarks.base import BenchmarkError
from simulator.physics.roofline import step_cost
from simulator.physics.specs import EngineSpec, RooflineConstants

COLUMNS = (
    "model_path,system,precision,isl,osl,batch_size,tp_size,attention_dp_size,silicon_ttft_ms,silicon_tpot_ms"
)
SPECS = """gpu,mem_GiB,mem_bw_GBps,dense_fp16_TFLOPS,dense_fp8_TFLOPS,tdp_W,spec_source
H100-SXM,80,3350,989,1978,700,x
B200-SXM,180,7700,2250,4500,1000,x
L40S,45-48,864,362,733,350,x
T4,16,320,65,,70,x
"""
ROW = "meta-llama/Llama-3.1-8B-Instruct,h100_sxm,fp8,1000,50,4,1,1.0,100,5"


def folder(tmp_path, *rows):
    (tmp_path / "gpu-selection").mkdir()
    (tmp_path / "gpu-selection" / "measured_silicon_here.csv").write_text(
        "\n".join([COLUMNS, *rows]), encoding="utf-8"
    )
    (tmp_path / "gpu-selection" / "gpu_specs_prices.csv").write_text(SPECS, encoding="utf-8")
    return tmp_path


def test_rows_are_read_and_what_cannot_be_simulated_is_counted_by_reason(tmp_path):
    data = folder(
        tmp_path,
        ROW,
        "openai/gpt-oss-120b,b200_sxm,,1000,50,4,2,,100,5",
        ROW.replace("h100_sxm", "tpu9"),
        ROW.replace("meta-llama/Llama-3.1-8B-Instruct", "made/up"),
        ROW.replace(",1.0,", ",4.0,"),
        ROW.replace("fp8", "fp6"),
    )
    rows, left = truth.read(data)
    assert [(row.model, row.precision, row.clients, row.ways) for row in rows] == [
        ("llama-3.1-8b", "fp8", 4, 1),
        ("gpt-oss-120b", "fp4", 4, 2),
    ]
    assert left == {
        "no datasheet of tpu9": 1,
        "no shape of made/up": 1,
        "attention in data parallel": 1,
        "no weights of fp6": 1,
    }
    assert set(truth.read_gpus(data / truth.SPECS)) == {"H100-SXM", "B200-SXM", "L40S"}


@pytest.mark.parametrize("line", ["a,b", ROW.replace("1000", "many")])
def test_a_line_that_is_none_is_told_with_its_place(tmp_path, line):
    with pytest.raises(BenchmarkError, match=r"measured_silicon_here.csv:2: "):
        truth.read(folder(tmp_path, line))


def test_no_table_is_told(tmp_path):
    with pytest.raises(BenchmarkError, match="measured_silicon"):
        truth.read(tmp_path)
    with pytest.raises(BenchmarkError, match="gpu_specs_prices"):
        truth.read_gpus(tmp_path / truth.SPECS)


def test_one_client_takes_what_the_step_cost_says(tmp_path):
    data = folder(tmp_path, ROW.replace(",50,4,", ",51,1,"))
    ((row,), _), gpus = truth.read(data), truth.read_gpus(data / truth.SPECS)
    model, idle = truth.model_of(row)
    assert idle == 0
    cost = step_cost(gpus["H100-SXM"], model, EngineSpec())
    first, each = truth.serve(row, gpus["H100-SXM"])
    assert first == pytest.approx(cost.seconds(0, 1_000, 0, 500_000.0), rel=1e-9)
    assert each == pytest.approx(cost.run_seconds(1, 1_001, 50) / 50, rel=1e-9)
    (compared,), unfit = truth.compare([row], gpus)
    assert unfit == 0
    assert compared.tpot == pytest.approx(each / 0.005 - 1.0)
    assert truth.medians([compared]) == {
        "ttft": round(abs(first / 0.1 - 1.0), 4),
        "tpot": round(abs(each / 0.005 - 1.0), 4),
        "rows": 1,
    }


def test_what_does_not_fit_is_counted(tmp_path):
    data = folder(
        tmp_path,
        ROW.replace("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-70B").replace("fp8", "bf16"),
        ROW.replace("1000", "900000"),
    )
    (rows, _), gpus = truth.read(data), truth.read_gpus(data / truth.SPECS)
    assert truth.compare(rows, gpus) == ([], 2)
    assert math.isnan(truth.medians([])["tpot"])


@pytest.mark.parametrize(
    ("tokens", "share"),
    [(1, 4 / 128), (2, 1 - (124 / 128) ** 2), (10_000, 1.0)],
    ids=["one token: its own experts", "two: both's, fewer than twice", "many: all"],
)
def test_a_step_reads_the_experts_that_its_tokens_take(tokens, share):
    kind = truth.KINDS["gpt-oss-120b"]
    assert kind.read(tokens) == pytest.approx(kind.shared + share * (kind.parameters - kind.shared))
    assert truth.KINDS["qwen3-32b"].read(tokens) == truth.KINDS["qwen3-32b"].parameters


def test_a_slower_all_reduce_lengthens_each_step_by_its_two_in_every_layer(tmp_path):
    data = folder(tmp_path, ROW.replace(",50,4,1,", ",51,1,2,"))
    ((row,), _), gpus = truth.read(data), truth.read_gpus(data / truth.SPECS)
    slower = RooflineConstants(nvlink_latency_seconds=truth.SHIPPED.nvlink_latency_seconds + 5e-5)
    slow, quick = (truth.serve(row, gpus["H100-SXM"], each) for each in (slower, truth.SHIPPED))
    assert slow[1] - quick[1] == pytest.approx(2 * 32 * 5e-5, rel=1e-6)

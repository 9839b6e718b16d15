"""The figure of profiles: rows counted, one product left out at a time, and what cannot be used said with its line."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.base import Arguments, BenchmarkError
from benchmarks.profiles import run
from benchmarks.silicon import read
from placement.catalogue import load
from placement.profiles.figures import OPEN
from placement.profiles.shapes import figures_of
from placement.profiles.steady import steady_seconds
from placement.profiles.steptime import StepTime

HEADER = "id,backend,backend_version,model_path,system,precision,isl,osl,batch_size,tp_size,attention_dp_size,moe_tp_size,moe_ep_size,silicon_ttft_ms,silicon_tpot_ms"


def line(
    system="h100_sxm",
    model="meta-llama/Llama-3.1-8B",
    inputs=1024,
    outputs=512,
    batch=8,
    tpot="10",
    tp=1,
    precision="",
    *,
    ranks=1,
):
    return f"x,vllm,0.1,{model},{system},{precision},{inputs},{outputs},{batch},{tp},{ranks},1,1,100,{tpot}"


def write(folder: Path, lines, header=HEADER, name="measured_silicon_any.csv"):
    (folder / name).write_text("\n".join([header, *lines]) + "\n")
    return folder


def generated(system, scale, count=50):
    """Rows of an engine that reads memory ``scale`` times as fast as believed."""
    step = StepTime(load().find(system).figures(), figures_of("llama-3.1-8b").figures, 1, "bf16", OPEN)
    rng = np.random.default_rng(7)
    found = []
    for _ in range(count):
        batch, inputs, outputs = (
            float(rng.choice(each)) for each in ([1, 8, 32, 64], [512, 1024, 4096], [128, 512])
        )
        loads = (np.array([each]) for each in (batch, inputs, outputs))
        seconds = steady_seconds(step, *loads, own=False)[0] / scale
        found.append(line(system, inputs=inputs, outputs=outputs, batch=batch, tpot=f"{1e3 * seconds:.6f}"))
    return found


def test_what_one_product_teaches_predicts_another(tmp_path):
    write(tmp_path, [*generated("h100_sxm", 0.8), *generated("h200_sxm", 0.8)])
    write(tmp_path, generated("a100_sxm", 0.8), name="measured_silicon_more.csv")
    figures = run(Arguments(data=tmp_path, quick=True)).figures
    assert list(figures) == ["zero_shot_median", "after20_median", "rows", "skipped", "by_system"]
    assert (figures["rows"], figures["skipped"]) == (150, {})
    assert set(figures["by_system"]) == {"a100_sxm", "h100_sxm", "h200_sxm"}
    assert figures["by_system"]["h200_sxm"]["rows"] == 50
    assert figures["after20_median"] < figures["zero_shot_median"] < 15.0


def test_one_product_alone_is_predicted_from_the_published_constants(tmp_path):
    write(tmp_path, generated("l40s", 0.7))
    found = run(Arguments(data=tmp_path, quick=True))
    assert "l40s is the only GPU system" in found.remark
    figures = found.figures
    assert figures["zero_shot_median"] == pytest.approx(30.0, abs=0.1)
    assert figures["after20_median"] < 10.0


def test_rows_that_cannot_be_used_are_counted_by_reason_with_an_example(tmp_path):
    bad = [
        line(system="abacus"),
        line(model="acme/mystery"),
        line(tpot=""),
        line(tpot="nan"),
        line(tpot="0"),
        line(batch=0),
        line(precision="fp3"),
        line(batch="1e300"),
        line(tp=1.5),
        line(ranks=0.5),
        line(ranks="two"),
        line(model="acme/0B"),
        line(model=f"acme/{'9' * 400}B"),
        "short,row",
    ]
    table = read(write(tmp_path, [line(), *bad]))
    assert table.skipped == {
        "no attention_dp_size": 2, "no batch_size": 3, "no silicon_tpot_ms": 3, "no tp_size": 1, "unknown GPU": 1,
        "unknown model": 3, "unknown precision": 1,
    }  # fmt: skip
    assert table.total == len(table.rows) + 14 == 15
    assert table.examples["unknown GPU"].startswith(
        "measured_silicon_any.csv line 3: GPU product 'abacus' is unknown"
    )
    assert "line 5: silicon_tpot_ms is ''; measure the point again" in table.examples["no silicon_tpot_ms"]


def test_an_unmarked_checkpoint_has_its_own_precision(tmp_path):
    lines = [
        line(),
        line(model="openai/gpt-oss-120b"),
        line(model="acme/New-7B-FP8"),
        line(precision="nvfp4"),
        line(model="deepseek-ai/DeepSeek-V3"),
        line(model="deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
        line(model="nvidia/DeepSeek-R1-0528-NVFP4"),
        line(model="Qwen/Qwen2.5-7B-Instruct-AWQ"),
        line(model="Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8"),
    ]
    found = [row.deployment.precision for row in read(write(tmp_path, lines)).rows]
    assert found == ["bf16", "fp4", "fp8", "fp4", "fp8", "bf16", "fp4", "int4", "int8"]


def test_stages_of_a_pipeline_are_told_and_a_column_that_says_none_is_no_matter(tmp_path):
    lines = [f"{line()},{stages}" for stages in ("", "0.0", "1", "1.0", "2", "many")]
    table = read(write(tmp_path, lines, header=f"{HEADER},pp_size"))
    assert (len(table.rows), table.skipped) == (4, {"no pp_size": 1, "pipeline parallel": 1})
    assert "line 6: pp_size is 2" in table.examples["pipeline parallel"]


def test_a_product_is_left_out_under_all_its_names(tmp_path):
    alone = write(tmp_path, generated("h100_sxm", 0.7))
    before = run(Arguments(data=alone, quick=True)).figures["by_system"]["h100_sxm"]["zero_shot"]
    again = [each.replace("h100_sxm", "h100_sxm_other") for each in generated("h100_sxm", 0.7)]
    found = run(Arguments(data=write(tmp_path, again, name="measured_silicon_again.csv"), quick=True))
    assert {name: each["zero_shot"] for name, each in found.figures["by_system"].items()} == {
        "h100_sxm": before, "h100_sxm_other": before
    }  # fmt: skip
    assert "h100_sxm, h100_sxm_other is the only GPU system" in found.remark


def test_any_row_of_any_file_is_used_or_skipped_with_a_reason(tmp_path):
    rng = np.random.default_rng(3)
    cells = ["", "0", "-1", "nan", "inf", "1e400", "x", "1", "2.0", "7.5", "1e8", "b200_sxm", "gb300", "fp8", "int4", "w4afp8", "Qwen/Qwen3-30B-A3B",
             "acme/8x7B", "a-1b-a5b", "vllm", '"', "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16"]  # fmt: skip
    lines = [",".join(rng.choice(cells, 15)) for _ in range(400)]
    table = read(write(tmp_path, [line(), *(each.replace('"', "q") for each in lines)]))
    assert table.total == 1 + len(lines)
    assert len(table.rows) < 20
    assert set(table.examples) == set(table.skipped)


def test_mixtures_splits_and_precisions_never_seen_are_predicted(tmp_path):
    odd = [
        line("gb300", model=model, precision=precision, tp=tp, ranks=ranks, tpot=5.0 + tp)
        for model in ("acme/8x7B", "a-1b-a5b", "Qwen/Qwen3-30B-A3B")
        for precision, tp, ranks in (("int4", 1, 1), ("", 16, 1), ("fp8", 3, 5), ("int8", 1, 8))
    ]
    figures = run(Arguments(data=write(tmp_path, odd), quick=True)).figures
    assert (figures["rows"], figures["skipped"]) == (len(odd), {})
    assert np.isfinite([figures["zero_shot_median"], figures["after20_median"]]).all()


def test_a_file_that_is_no_table_is_told_with_its_line(tmp_path):
    write(tmp_path, [line(), line(model="x" * 200_000)])
    with pytest.raises(
        BenchmarkError, match=r"measured_silicon_any.csv line 3: field larger than field limit"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("system", "precision", "gpu", "want"),
    [("h200_nvl8", "fp8_block", "H200", "fp8"), ("gb200_nvl72", "w4a16_mxfp4", "GB200", "fp4"), ("a100_pcie", "float16", "A100-80-PCIE", "fp16"), ("mi300x", "int4_wo", "MI300X", "int4")],
)  # fmt: skip
def test_names_of_other_tools_are_understood(tmp_path, system, precision, gpu, want):
    (found,) = read(write(tmp_path, [line(system, precision=precision)])).rows
    assert (found.deployment.gpu.name, found.deployment.precision) == (gpu, want)


def test_missing_data_is_a_sentence(tmp_path):
    with pytest.raises(BenchmarkError, match=r"there is no measured_silicon_\*.csv"):
        run(Arguments(data=tmp_path))
    write(tmp_path, ["1,2"], header="isl,osl")
    with pytest.raises(BenchmarkError, match="lacks the column backend"):
        run(Arguments(data=tmp_path))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        pytest.param([], "no row can be used (measured_silicon_any.csv has no rows)", id="a header alone"),
        pytest.param([line(tpot="")], "line 2: silicon_tpot_ms is ''; measure the point again", id="nothing measured"),
    ],
)  # fmt: skip
def test_a_table_without_a_usable_row_is_refused_in_a_sentence(tmp_path, lines, told):
    with pytest.raises(BenchmarkError, match=re.escape(told)):
        run(Arguments(data=write(tmp_path, lines)))


def test_another_encoding_is_told_and_a_byte_order_mark_is_no_matter(tmp_path):
    text = f"{HEADER}\n{line()}"
    (tmp_path / "measured_silicon_any.csv").write_text(text, encoding="utf-8-sig")
    assert len(read(tmp_path).rows) == 1
    (tmp_path / "measured_silicon_any.csv").write_text(
        text + "\n" + line(model="acm\u00e9/7B"), encoding="latin-1"
    )
    with pytest.raises(
        BenchmarkError, match=r"measured_silicon_any.csv is no UTF-8 text .* save it as UTF-8"
    ):
        read(tmp_path)

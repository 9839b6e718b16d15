"""Measured engines as cost models: what was measured comes back, and what cannot be used is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.experiments.costs import Roofline, cost_of
from simulator.experiments.costs import constants_of as roofline_of
from simulator.experiments.profiles import (
    Measurement,
    PowerRow,
    ProfileError,
    fit,
    fit_power,
    read_distserve,
    read_profile,
    read_splitwise,
)
from simulator.physics.measured import MeasuredCost, MeasuredPower, lines
from simulator.physics.power import DEFAULT_POWER, constants_of
from simulator.physics.provenance import provenance
from simulator.physics.published import PUBLISHED
from simulator.physics.roofline import step_cost
from simulator.physics.specs import EngineSpec, RooflineConstants
from simulator.physics.stepcost import StepCost
from simulator.world.spec import ScenarioError
from tests.physics.worlds import A100, LLAMA_7B

TRUE = lines((0.006, 2e-4, 5e-9), (0.034, 1.1e-6, 3e-4))


def measured(cost: StepCost, noise: float = 0.0, seed: int = 1) -> list[Measurement]:
    rng = np.random.default_rng(seed)
    rows = []
    for prompt in (256, 1_024, 4_096):
        for batch in (1, 4, 16):
            context = batch * (prompt + 64)
            times = (
                cost.seconds(0, batch * prompt, 0, batch * prompt**2 / 2),
                cost.seconds(batch, 0, context, 0.0),
            )
            rows.append(Measurement(batch, prompt, context, *(t * (1 + noise * rng.normal()) for t in times)))
    return rows


def test_an_exact_table_gives_its_cost_back() -> None:
    found = fit("x", "a bench", measured(TRUE))
    assert found.error == pytest.approx(0.0, abs=1e-9)
    for name in ("weights", "matmul", "kv", "attention", "fixed", "per_sequence"):
        assert getattr(found.cost, name) == pytest.approx(getattr(TRUE, name), rel=1e-6)
    assert found.source == "a bench; fitted to 9 measurements by relative least squares"


def test_a_noisy_table_gives_nearly_its_cost_and_says_how_far_off_it_is() -> None:
    found = fit("x", "a bench", measured(TRUE, noise=0.05))
    assert 0.01 < found.error < 0.08
    assert found.cost.seconds(8, 0, 8_000, 0.0) == pytest.approx(TRUE.seconds(8, 0, 8_000, 0.0), rel=0.08)


def test_no_coefficient_turns_negative_where_the_table_would_like_it() -> None:
    falling = [row._replace(decode_seconds=0.05 - 1e-7 * row.context) for row in measured(TRUE)]
    found = fit("x", "a bench", falling)
    assert found.cost.kv == 0.0


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        pytest.param(measured(TRUE)[:3], "3 measurements, needs 4", id="too few"),
        pytest.param(
            [*measured(TRUE), Measurement(1, 1, 1.0, 0.0, 1.0)], "not positive and finite", id="no time"
        ),
        pytest.param(
            [*measured(TRUE), Measurement(1, 1, 1.0, 1.0, float("nan"))], "not positive", id="no number"
        ),
    ],
)
def test_a_table_that_carries_no_fit_is_refused(rows: list[Measurement], sentence: str) -> None:
    with pytest.raises(ProfileError, match=sentence):
        fit("x", "a bench", rows)


SPLITWISE = "model,hardware,prompt_size,batch_size,token_size,peak_power,average_power,prompt_time,token_time,e2e_time,tensor_parallel\n"


def splitwise_row(row: Measurement, ways: int, power: str = "0,0", longer: float = 1.0) -> str:
    first, step = row.prefill_seconds * 1e3, row.decode_seconds * 1e3
    whole = (first + 128 * step) * longer
    return f"llama,h100,{row.prompt},{row.batch},128,{power},{first},{step},{whole},{ways}\n"


def test_a_table_of_measurements_gives_a_cost_for_each_engine(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [(row, ways) for ways in (2, 4) for row in measured(TRUE)]
    path.write_text(SPLITWISE + "".join(splitwise_row(row, ways) for row, ways in rows))
    found = read_splitwise(path)
    assert list(found) == [("llama", "h100", 2), ("llama", "h100", 4)]
    cost = found["llama", "h100", 4]
    assert (cost.name, cost.gpus, cost.power) == ("llama on 4 x h100", 4, None)
    assert cost.cost.matmul == pytest.approx(TRUE.matmul, rel=1e-6)


def test_a_batch_that_did_not_run_at_once_is_no_measurement_of_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    late = measured(TRUE)[-1]._replace(batch=64, prefill_seconds=0.1)
    rows = [splitwise_row(row, 2) for row in measured(TRUE)]
    path.write_text(SPLITWISE + "".join([*rows, splitwise_row(late, 2, longer=9.0)]))
    cost = read_splitwise(path)["llama", "h100", 2]
    assert cost.cost.matmul == pytest.approx(TRUE.matmul, rel=1e-6)
    assert cost.band == pytest.approx((0.0, 0.0), abs=1e-9)


def test_measured_power_is_that_of_full_prompts_and_of_decode_with_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = []
    for row in measured(TRUE):
        first, rest = row.prefill_seconds, 128 * row.decode_seconds
        peak = 1.02 if row.batch * row.prompt >= 1_024 else 0.7
        rows.append(splitwise_row(row, 2, f"{peak},{(1.02 * first + 0.6 * rest) / (first + rest)}"))
    path.write_text(SPLITWISE + "".join(rows))
    power = read_splitwise(path)["llama", "h100", 2].power
    assert power is not None
    assert power.prefill_fraction == pytest.approx(1.02)
    assert power.decode_fraction == pytest.approx(0.6, abs=0.02)  # a mean with at most 5 % of prefill in it
    assert power.error is not None
    assert power.error < 0.02
    assert power.band is not None
    assert power.band[1] > 0.05  # the short prompt, which peaks lower than the number says
    constants = constants_of(power)
    assert (constants.prefill_fraction, constants.compute_exponent) == (1.02, DEFAULT_POWER.compute_exponent)
    assert constants_of(None) == DEFAULT_POWER


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        pytest.param(
            [PowerRow(4_096, 1.0, 1.0, 1.0, 0.8)], "no row tells decode alone", id="long prompts alone"
        ),
        pytest.param([PowerRow(128, 0.1, 9.0, 0.7, 0.6)], "no row fills the GPU", id="short prompts alone"),
        pytest.param([PowerRow(2_048, 0.1, 9.0, 0.0, 0.0)], "nothing was measured", id="zeros"),
    ],
)
def test_no_power_is_made_up_where_a_phase_was_not_measured(rows: list[PowerRow], why: str) -> None:
    assert fit_power("a bench", rows) is None, why


@pytest.mark.parametrize("cost", PUBLISHED.values(), ids=lambda cost: cost.name)
def test_each_shipped_cost_says_where_it_is_from_and_how_far_off_it_may_be(cost: MeasuredCost) -> None:
    times, power = provenance(EngineSpec(tensor_parallel=cost.gpus or 1, measured=cost)).sentences()
    assert times.startswith(f"{cost.name}: ")
    assert ("Median error" in times) == (cost.error is not None)
    assert power.startswith("Power: ")
    assert 0.001 < cost.cost.seconds(1, 0, 1_000, 0.0) < 0.2
    if cost.band is not None:
        assert cost.band[0] <= 0.0 <= cost.band[1]


def test_the_roofline_says_so_and_constants_of_ones_own_have_no_error_of_ours() -> None:
    times, _ = provenance(EngineSpec()).sentences()
    assert times.startswith("roofline: roofline with four numbers")
    assert times.endswith("Median error 16.0%.")
    own = EngineSpec(constants=RooflineConstants(fixed_seconds=0.01))
    assert provenance(own).sentences()[0] == "roofline: constants as given. Its error is not known."


def chosen(path: Path, entry: str = "", gpus: int = 2) -> MeasuredCost | None:
    return cost_of("", str(path), entry, gpus, "groups[0]")


def test_a_group_takes_its_entry_of_a_table_of_many_engines(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [splitwise_row(row, ways) for ways in (2, 4) for row in measured(TRUE)]
    path.write_text(SPLITWISE + "".join([*rows, *(row.replace("h100", "a100") for row in rows[:9])]))
    found = chosen(path, "llama/a100")
    assert found is not None
    assert found.name == "llama on 2 x a100"
    only = chosen(path, gpus=4)
    assert only is not None
    assert only.name == "llama on 4 x h100"
    for entry, gpus in (("", 2), ("llama/b200", 4), ("", 8)):
        with pytest.raises(ScenarioError, match=r"groups\[0\]\.entry is .*; measured on \d GPUs are"):
            chosen(path, entry, gpus)
    json_path = tmp_path / "profile.json"
    line = [20.0, 1e-3, 0.04]
    entry_of = {
        "prefill": line,
        "decoding_smallbs": line,
        "decoding_largebs": line,
        "decoding_large_small_bs_threshold": 95,
    }
    json_path.write_text(json.dumps({"opt": {"2": entry_of}}))
    assert chosen(json_path, "opt") == chosen(json_path)
    with pytest.raises(ScenarioError, match=r"groups\[0\]\.profile cannot be used: .*none\.csv"):
        chosen(tmp_path / "none.csv")
    with pytest.raises(ScenarioError, match=r"groups\[0\]\.entry is of a profile"):
        cost_of("", "", "opt", 1, "groups[0]")


def test_the_four_numbers_of_a_roofline_may_be_ones_own_with_their_source() -> None:
    given = Roofline(source="our bench", compute_fraction=0.5, fixed_seconds=0.01, per_sequence_seconds=1e-4)
    constants = roofline_of(given, "groups[0]")
    own, usual = (
        step_cost(A100, LLAMA_7B, EngineSpec(constants=each)) for each in (constants, RooflineConstants())
    )
    assert own.matmul / usual.matmul == pytest.approx(0.73 / 0.5)
    assert (own.fixed, own.per_sequence, own.weights) == (0.01, 1e-4, usual.weights)
    told = provenance(EngineSpec(constants=constants)).sentences()[0]
    assert told == "roofline: our bench. Its error is not known."
    assert roofline_of(None, "groups[0]") == RooflineConstants()


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"source": " "}, "source"),
        ({"bandwidth_fraction": 1.5}, "bandwidth_fraction"),
        ({"compute_fraction": 0.0}, "compute_fraction"),
        ({"fixed_seconds": -1.0}, "fixed_seconds"),
    ],
)
def test_numbers_of_a_roofline_that_cannot_be_are_refused(changed: dict[str, Any], path: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        roofline_of(Roofline(**({"source": "x"} | changed)), "groups[0]")
    assert refused.value.path == f"groups[0].roofline.{path}"


@pytest.mark.parametrize("changed", [{"source": ""}, {"prefill_fraction": 0.0}, {"decode_fraction": 400.0}])
def test_a_power_that_cannot_be_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="measured power"):
        MeasuredPower(**({"source": "x", "prefill_fraction": 1.0, "decode_fraction": 0.6} | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("model,hardware\n", "line 1 has no column 'tensor_parallel'", id="a column is missing"),
        pytest.param(
            SPLITWISE + "llama,h100,many,1,1,1,1,1,1,1,2\n", "table.csv:2: invalid literal", id="no number"
        ),
        pytest.param(SPLITWISE + "llama,h100,128\n", "table.csv:2: ", id="a short row"),
        pytest.param(
            SPLITWISE + "llama,h100,128,1,128,1,1,5,5,645,2\n", "1 measurements, needs 4", id="one row"
        ),
    ],
)
def test_a_table_that_cannot_be_read_says_where(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ProfileError) as caught:
        read_splitwise(path)
    assert sentence in str(caught.value)


def test_distserves_profile_is_read_with_its_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    entry = {
        "prefill": [18.0, 0.1, 1e-5],
        "decoding_smallbs": [20.0, 1e-3, 0.04],
        "decoding_largebs": [7.0, 1e-3, 0.16],
        "decoding_large_small_bs_threshold": 95,
    }
    path.write_text(json.dumps({"opt": {"2": entry}}))
    cost = read_distserve(path)["opt", 2].cost
    assert cost.at(94).seconds(94, 0, 1_000, 0.0) == pytest.approx(0.02 + 0.001 + 0.00376)
    assert cost.at(95).seconds(95, 0, 1_000, 0.0) == pytest.approx(0.007 + 0.001 + 0.0152)


def test_a_users_profile_is_fitted_and_keeps_their_word_for_its_source(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    rows = "".join(f"  - {list(row)}\n" for row in measured(TRUE))
    power = "power: {source: a clamp, prefill_fraction: 0.9, decode_fraction: 0.5}\n"
    path.write_text(
        f"name: mine\nsource: our bench of June\nkv_tokens: 5000\ngpus: 4\n{power}measurements:\n{rows}"
    )
    found = read_profile(path)
    assert (found.gpus, found.power and found.power.source) == (4, "a clamp")
    assert (found.name, found.kv_tokens) == ("mine", 5_000)
    assert found.source.startswith("our bench of June; fitted to 9")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("name: [", "mine.yaml: while parsing", id="not YAML"),
        pytest.param("name: x\nmeasurements: []\n", "missing required field `source`", id="no source"),
        pytest.param("name: x\nsource: y\nmeasurments: []\n", "unknown field `measurments`", id="a slip"),
        pytest.param("name: x\nsource: y\nmeasurements: [[1, 2]]\n", "measurements[0]", id="a short row"),
    ],
)
def test_a_users_profile_that_cannot_be_used_names_the_field(
    text: str, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("read", [read_splitwise, read_distserve, read_profile])
def test_a_file_that_is_not_there_is_named(read: object, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none: .*Give the path of a readable file"):
        read(tmp_path / "none")  # type: ignore[operator]

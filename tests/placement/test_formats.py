"""Others' profile files: axes as each writes them, and every fault with file, place and remedy."""

import json
import math
import re

import msgspec
import pytest

from placement.catalogue import load
from placement.profiles.formats import Given, parse
from placement.profiles.grid import Grid
from placement.profiles.user import ProfileError, ProfileFile, UserProfile, checked, rates_on

CATALOGUE = load()
MODEL = Given(model="llama-2-7b", tpot_seconds=0.12)
MELANGE = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[5, 2], [2, 1]]},
        "A100": {"cost": 3.67, "tputs": [[40, 20], [20, 20]]},
    }
}
AIBRIX = {"gpu": "sim-a40", "cost": 0.3, "tputs": [[9.0, 8.0, 7.0], [3.0, 2.0, 1.0]], "indexes": [[4, 8], [128, 256, 512]], "created": 1732598726.2}  # fmt: skip
GRID = {"input_edges": [100, 1000], "output_edges": [10, 100, 500], "tpot_slo_s": 0.06, "gpus": {"L4": {"cost_usd_h": 0.7, "tputs": [[9, 5, 1], [3, 2, 0]]}}}  # fmt: skip
LIST = {"input_edges": [100, 1000], "output_edges": [10], "profiles": [
    {"model": "llama-3.1-8b", "system": "h100_sxm", "tp": 2, "precision": "fp8", "tpot_slo_ms": 40, "ttft_slo_ms": 5000, "cost_usd_h": 6.9, "tputs": [[50], [9]]}]}  # fmt: skip
EDGES = {"input_edges": (100, 1000), "output_edges": (10, 200)}


def given(**more):
    return Given(model="llama-2-7b", tpot_seconds=0.12, **more)


def read(content, said=MODEL):
    return parse(content if isinstance(content, str) else json.dumps(content), "file.json", said, CATALOGUE)


def test_melange_has_rows_of_inputs():
    found = read(MELANGE, given(**EDGES))
    assert (found.format, found.told) == ("melange", ())
    small, large = found.profiles
    assert (small.accelerator, large.accelerator) == ("A10G", "A100-80")
    assert small.rates == ((5.0, 2.0), (2.0, 1.0))
    assert (small.input_edges, small.output_edges, small.tpot_seconds) == ((100, 1000), (10, 200), 0.12)


def test_aibrix_has_rows_of_outputs_and_is_turned():
    (found,) = read(AIBRIX, given(accelerator="A40")).profiles
    assert (found.input_edges, found.output_edges) == ((128, 256, 512), (4, 8))
    assert found.rates == ((9.0, 3.0), (8.0, 2.0), (7.0, 1.0))
    assert (found.accelerator, found.measured_at) == ("A40", "2024-11-26")


def test_grids_and_lists_say_their_sizes_and_promises():
    (grid,) = read(GRID).profiles
    assert (grid.accelerator, grid.rates[1]) == ("L4", (3.0, 2.0, 0.0))
    assert read(GRID, Given(model="m")).profiles[0].tpot_seconds == 0.06
    (listed,) = read(LIST, Given()).profiles
    assert (listed.model, listed.accelerator, listed.gpus, listed.precision) == (
        "llama-3.1-8b",
        "H100",
        2,
        "fp8",
    )
    assert (listed.tpot_seconds, listed.ttft_seconds) == (0.04, 5.0)


def test_what_was_written_is_read_again():

    found = read(GRID).profiles
    again = read(msgspec.json.encode(ProfileFile(found)).decode(), Given())
    assert (again.format, again.profiles) == ("plimsoll", found)


def test_a_product_that_only_an_accelerator_class_describes_is_taken_when_named_and_told():
    found = read(AIBRIX, given(accelerator="acme-9"))
    assert [each.accelerator for each in found.profiles] == ["acme-9"]
    assert "'acme-9' is unknown" in found.told[0]
    assert "used where one has this name, or has it among its aliases" in found.told[0]
    again = read(msgspec.json.encode(ProfileFile(found.profiles)).decode(), Given())
    assert (again.profiles, again.told[0].split(": ", 1)[1]) == (
        found.profiles,
        found.told[0].split(": ", 1)[1],
    )


def changed(content, *path, to):
    copy = json.loads(json.dumps(content))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return json.dumps(copy)


TALL = {"gpu_info": {"A10G": {"cost": 1, "tputs": [[3, 2, 1], [2, 1, 1]]}}}


@pytest.mark.parametrize(
    ("content", "said", "sentences"),
    [
        pytest.param("{", MODEL, [r"file.json: not JSON .* import the file as its tool wrote it"], id="no JSON"),
        pytest.param("[]", MODEL, ["a profile file is a JSON object"], id="a list"),
        pytest.param("{}", MODEL, ["none of the known formats"], id="another file"),
        pytest.param(MELANGE, MODEL, [r"A10G.tputs is 2 x 2 .* --input-edges .* --output-edges", "A100.tputs"], id="sizes unknown"),
        pytest.param(
            TALL, given(input_edges=(1, 2, 3), output_edges=(4, 5)), ["is 2 x 3, its sizes ask for 3 inputs x 2 outputs; it looks transposed"],
            id="axes turned",
        ),
        pytest.param(
            changed(AIBRIX, "tputs", to=[[9, 3], [8, 2], [7, 1]]), given(accelerator="A40"),
            [r"is 3 x 2, indexes ask for 2 outputs x 3 inputs; it looks transposed: AIBrix has a row for each output size"],
            id="AIBrix turned",
        ),
        pytest.param(AIBRIX, MODEL, [r"file.json tputs: GPU product 'sim-a40' is unknown; .*say --gpu"], id="unknown GPU"),
        pytest.param(changed(GRID, "gpus", "L4", "cost_usd_h", to=0), MODEL, [r"gpus.L4.cost_usd_h is 0; write dollars per hour above 0"], id="price 0"),
        pytest.param(
            changed(GRID, "gpus", "L4", "tputs", 1, 1, to=math.nan), MODEL,
            [r"tputs\[1\]\[1\] \(input 1000, output 100\) is nan; measure that size again"], id="NaN",
        ),
        pytest.param(
            changed(GRID, "gpus", "L4", "tputs", 0, to=[-1, "x", 1]), MODEL, [r"\[0\]\[0\] .* is -1", r"\[0\]\[1\] .* is 'x'"], id="two bad cells at once"
        ),
        pytest.param(changed(GRID, "gpus", "L4", "tputs", 1, to=[3, 2]), MODEL, [r"row 2 has 2 cells, row 1 has 3"], id="a short row"),
        pytest.param(
            changed(GRID, "gpus", "L4", "tputs", to=[[0, 0, 0], [0, 0, 0]]), MODEL,
            ["nothing in it serves any size; measure under a looser promise", "serves no size at all"], id="fits nowhere",
        ),
        pytest.param(changed(GRID, "input_edges", to=[1000, 100]), MODEL, ["input_edges are .* rise strictly"], id="sizes that fall"),
        pytest.param(GRID, Given(), ["the file names no model; say --model"], id="no model"),
        pytest.param(
            '{"gpu_info": {"A10G": {"cost": 1}, "A10G": {"cost": 2}}}', MODEL, ["'A10G' is given twice in one object; keep one"],
            id="one GPU twice",
        ),
        pytest.param(
            changed(AIBRIX, "indexes", to=[[4, math.nan], [128, 512, 1024]]), given(accelerator="A40"),
            [r"file.json: a value is of another kind than the aibrix format has there \(.*NaN.*\)"], id="a size that is no number",
        ),
        pytest.param(
            changed(AIBRIX, "indexes", to=[[4, 8.5], [128, 512, 1024]]), given(accelerator="A40"),
            ["size 8.5 is no whole number of tokens"], id="half a token",
        ),
        pytest.param(
            changed(AIBRIX, "tputs", to=[[9, 8, 7], [3]]), given(accelerator="A40"), ["the aibrix format has there .list index out"],
            id="AIBrix, a short row",
        ),
        pytest.param(changed(AIBRIX, "slos", to=[1]), given(accelerator="A40"), ["of another kind than the aibrix"], id="AIBrix, no object of SLOs"),
        pytest.param(changed(AIBRIX, "created", to=1e300), given(accelerator="A40"), ["of another kind than the aibrix"], id="no date"),
        pytest.param(changed(GRID, "tpot_slo_s", to="fast"), Given(model="llama-2-7b"), ["of another kind than the grid"], id="a promise in words"),
        pytest.param(changed(GRID, "gpus", "L4", "tputs", 1, to=3), MODEL, ["of another kind than the grid"], id="a number for a row"),
        pytest.param(changed(GRID, "output_edges", to=[50, "x", 1000]), MODEL, ["must both list token counts", "its sizes ask for"], id="sizes in words"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place_and_a_remedy(content, said, sentences):
    with pytest.raises(ProfileError) as raised:
        read(content, said)
    assert len(raised.value.sentences) == len(sentences), raised.value.sentences
    for sentence, pattern in zip(raised.value.sentences, sentences, strict=True):
        assert re.search(pattern, sentence), sentence


def test_a_byte_order_mark_means_nothing():
    assert read("\ufeff" + json.dumps(GRID), MODEL) == read(json.dumps(GRID), MODEL)


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        pytest.param(
            [[9, 0, 1], [3, 2, 1]],
            "is 0 at 100 input and 100 output tokens though a larger size works",
            id="a hole",
        ),
        pytest.param(
            [[9, None, 1], [3, 2, 1]],
            "1 sizes of .* were not measured; the next best source fills them",
            id="unmeasured",
        ),
    ],
)
def test_what_can_be_lived_with_is_told(cells, sentence):
    (told,) = read(changed(GRID, "gpus", "L4", "tputs", to=cells)).told

    assert re.search(sentence, told)


def test_a_profile_without_a_promise_says_what_it_is_taken_for():
    (told,) = read(AIBRIX, Given(model="m", accelerator="A40")).told
    assert "is taken for every promise; say --tpot-ms" in told


PROFILE = UserProfile(
    model="m",
    accelerator="L4",
    tpot_seconds=0.1,
    input_edges=(100, 300),
    output_edges=(10, 30),
    rates=((8.0, 4.0), (2.0, 0.0)),
)


def test_rates_are_read_between_sizes_by_their_load_and_never_across_an_infeasible_one():
    found = rates_on(PROFILE, Grid((50, 100, 200, 300, 400), (10, 20)))
    assert found[:, 0] == pytest.approx([8.0, 8.0, 1 / ((1 / 8 + 1 / 2) / 2), 2.0, math.nan], nan_ok=True)
    assert found[1, 1] == pytest.approx(1 / ((1 / 8 + 1 / 4) / 2))
    assert found[2:4, 1].tolist() == [0.0, 0.0]
    assert math.isnan(found[4, 1])


@pytest.mark.parametrize(("tpot", "stands"), [(0.05, False), (0.1, True), (0.2, True)])
def test_a_profile_stands_for_promises_no_tighter_than_its_own(tpot, stands):
    assert PROFILE.stands_for(tpot, 2.0) is stands


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"gpus": 0}, "gpus is 0", id="no GPU"),
        pytest.param({"error": 1.5}, "error is 1.5", id="a band beyond everything"),
        pytest.param({"tpot_seconds": math.nan}, "tpot_seconds is nan", id="no promise"),
        pytest.param({"model": ""}, "name both", id="no model"),
        pytest.param({"rates": ()}, "there are no rates", id="no rates"),
    ],
)
def test_an_impossible_field_is_refused(change, says):

    with pytest.raises(ProfileError, match=says):
        checked(msgspec.structs.replace(PROFILE, **change))

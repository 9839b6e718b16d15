"""From nouns to a problem: beliefs, histograms and pools end up in the right cells."""

import msgspec
import numpy as np
import pytest

from cluster.serving import LoadHistogram, Model, Objective, Variant
from placement import catalogue
from placement.profiles.belief import roofline_belief, step_time
from placement.profiles.grid import DEFAULT_GRID, soft_histogram
from placement.selection.assemble import Offered, assemble
from placement.selection.checker import check
from placement.selection.mix import solve_mix
from placement.selection.problem import SelectionInputError

PRODUCTS = catalogue.load()
SEVEN_B = Model(
    name="llama-2-7b",
    parameters=6.738e9,
    layers=32,
    hidden_size=4096,
    kv_bytes_per_token=524_288,
    weight_bytes=13_476_000_000,
    max_context_tokens=4096,
)


def histogram(rate=4.0, name="default", seed=1):
    rng = np.random.default_rng(seed)
    inputs, outputs = rng.integers(30, 3000, 400).astype(float), rng.integers(30, 900, 400).astype(float)
    cells = soft_histogram(DEFAULT_GRID, inputs, outputs, rate).cells
    return LoadHistogram(
        service="shop/chat",
        request_class=name,
        input_edges=DEFAULT_GRID.input_edges,
        output_edges=DEFAULT_GRID.output_edges,
        cells=tuple(cells.ravel().tolist()),
        window_seconds=60.0,
    )


def offered(product, load, tpot=0.1, **changes):
    found = PRODUCTS.find(product)
    variant = Variant(accelerator=product)
    objective = Objective(ttft_seconds=5.0, tpot_seconds=tpot, request_class=load.request_class)
    belief = roofline_belief(found.figures(), SEVEN_B, variant, objective, load)
    return Offered(
        variant=variant,
        pool=product,
        dollars_per_gpu_hour=found.dollars_per_gpu_hour,
        beliefs=(msgspec.structs.replace(belief, **changes),),
    )


def test_a_service_gets_a_sound_mix_from_beliefs_and_load():
    load = histogram()
    offers = tuple(offered(name, load) for name in ("L4", "A10G", "A100-80", "H100"))
    task = assemble((load,), offers, {"L4": 8, "A10G": 8, "A100-80": 8, "H100": 8}, (1000.0,))
    found = solve_mix(task)
    assert check(task, found) == ()
    assert found.unserved_per_second == 0.0
    assert found.demand_per_second == pytest.approx(4.0)
    assert set(found.counts) <= {f"{name}x1-bf16@{name}" for name in ("L4", "A10G", "A100-80", "H100")}


def test_an_impossible_objective_travels_as_a_reason():
    load = histogram()
    task = assemble(
        (load,), (offered("L4", load, 0.04), offered("H100", load, 0.04)), {"L4": 8, "H100": 8}, (1000.0,)
    )
    found = solve_mix(task)
    (reason,) = found.rejections
    assert (reason.variant, reason.code) == ("L4x1-bf16@L4", "TpotFloor")
    assert reason.need.text == "40 ms"
    assert reason.have.value == pytest.approx(44.92)
    assert set(found.counts) == {"H100x1-bf16@H100"}


def test_the_context_window_does_not_cut_the_grid():
    belief = offered("H100", histogram()).beliefs[0]
    grid = np.array(belief.grid).reshape(DEFAULT_GRID.shape)
    assert grid[DEFAULT_GRID.input_edges.index(4000), DEFAULT_GRID.output_edges.index(1000)] > 0


def test_the_pessimistic_end_of_the_band_is_planned():
    load = histogram()
    sure, unsure = offered("H100", load), offered("H100", load, error=0.25)
    first = assemble((load,), (sure,), {"H100": 8}, (1000.0,)).variants[0]
    second = assemble((load,), (unsure,), {"H100": 8}, (1000.0,)).variants[0]
    assert np.array(second.throughput) == pytest.approx(np.array(first.throughput) * 0.75)


def test_a_variant_of_two_gpus_costs_two():
    load = histogram()
    one = offered("A100-80", load)
    two = msgspec.structs.replace(one, variant=Variant(accelerator="A100-80", gpus=2, tensor=2))
    option = assemble((load,), (two,), {"A100-80": 8}, (1000.0,)).variants[0]
    assert (option.gpus, option.dollars_per_hour) == (2, pytest.approx(2 * 3.431))


def test_classes_stand_one_after_another_with_their_own_prices():
    chat, batch = histogram(2.0, "chat"), histogram(1.0, "batch", seed=2)
    pair = msgspec.structs.replace(
        offered("H100", chat), beliefs=(*offered("H100", chat).beliefs, *offered("H100", batch, 0.3).beliefs)
    )
    task = assemble((chat, batch), (pair,), {"H100": 0}, (900.0, 10.0))
    assert sum(task.demand) == pytest.approx(3.0)
    assert set(task.unserved_prices()[: DEFAULT_GRID.size]) == {900.0}
    assert set(task.unserved_prices()[DEFAULT_GRID.size :]) == {10.0}
    assert solve_mix(task).objective_per_hour == pytest.approx(2.0 * 900 + 10.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"input_edges": (1, 2)}, "different grids", id="other grid"),
        pytest.param({"grid": (1.0,)}, "has 1 cells and the load 60", id="missing cells"),
    ],
)
def test_mismatched_grids_are_refused(change, text):
    load = histogram()
    with pytest.raises(SelectionInputError, match=text):
        assemble((load,), (offered("H100", load, **change),), {"H100": 1}, (1.0,))


def test_missing_prices_or_beliefs_are_refused():
    load = histogram()
    with pytest.raises(SelectionInputError, match="1 load histograms and 2 prices"):
        assemble((load,), (), {}, (1.0, 2.0))
    with pytest.raises(SelectionInputError, match="1 capacity beliefs for 2 request classes"):
        assemble((load, load), (offered("H100", load),), {"H100": 1}, (1.0, 2.0))


def test_nan_in_a_belief_is_refused_by_name_not_dropped():
    load = histogram()
    bad = offered("H100", load, grid=(float("nan"), *offered("H100", load).beliefs[0].grid[1:]))
    found = solve_mix(assemble((load,), (bad,), {"H100": 1}, (1000.0,)))
    assert [each.code for each in found.rejections] == ["ProfileHole"]


def test_parameters_follow_from_weights_when_not_given():
    bare = msgspec.structs.replace(SEVEN_B, parameters=0.0)
    step = step_time(PRODUCTS.find("L4").figures(), bare, Variant(accelerator="L4"))
    assert step.floor_seconds() == pytest.approx(0.04492)

"""GPU facts of the simulator: shared ones are the planner's, its own are a table with dates and sources, bad rows are named."""

import pytest

from placement.catalogue import CatalogueError, load
from simulator.physics.catalogue import GPU_SPECS, gpu_specs

HEADER = "name,idle_watts,max_watts,min_mhz,base_mhz,max_mhz,pcie_gb_per_s,facts_at,source"
VALUES = ["H100", "70", "700", "210", "1590", "1980", "52", "2026-11-21", "a data sheet"]


def row(**changes):
    return ",".join({**dict(zip(HEADER.split(","), VALUES, strict=True)), **changes}.values())


@pytest.mark.parametrize("product", sorted(GPU_SPECS))
def test_planner_and_physics_mean_the_same_product(product):
    spec, planned = GPU_SPECS[product], load().find(product)
    figures = planned.figures()
    assert (spec.memory_bytes, spec.bandwidth_bytes_per_second) == (
        figures.memory_bytes,
        figures.bandwidth_bytes_per_second,
    )
    assert (spec.flops_per_second, spec.flops_8bit_per_second) == (
        figures.flops_16bit_per_second,
        figures.flops_8bit_per_second,
    )
    assert (spec.link, spec.link_bytes_per_second) == (figures.fabric, figures.link_bytes_per_second)
    assert (spec.min_watts, spec.tdp_watts) == (planned.min_watts, planned.tdp_watts)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        pytest.param([row(idle_watts="0")], r"mine.csv row 1 \(H100\): idle_watts is '0'; write a positive", id="zero"),
        pytest.param([row(max_mhz="nan")], "max_mhz is 'nan'", id="NaN"),
        pytest.param([row(base_mhz="100")], "mine.csv row 1: GPU H100 has min_mhz 210, base_mhz 100", id="upside down"),
        pytest.param([row(idle_watts="900")], "mine.csv row 1: GPU H100 has idle_watts 900", id="idle above its limit"),
        pytest.param([row(name="H1000")], r"mine.csv row 1: GPU product 'H1000' is unknown; did you mean", id="unknown"),
        pytest.param([row(name="")], "mine.csv row 1 .* has no name", id="no name"),
        pytest.param([row(facts_at="")], "has no facts_at", id="no date"),
        pytest.param([row(source="")], "has no source", id="no source"),
        pytest.param([row(), row(name="NVIDIA H100 80GB HBM3")], "row 2 names H100 a second time", id="twice by an alias"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_remedy(lines, text):
    with pytest.raises(CatalogueError, match=text):
        gpu_specs([HEADER, *lines], "mine.csv", load())

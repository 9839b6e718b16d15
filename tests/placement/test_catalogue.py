"""Shipped GPU facts: complete, dated, found by any alias, and defects named by row."""

import pytest

from placement.catalogue import CatalogueError, load, parse
from placement.profiles.estimator import gpu_figures

HEADER = (
    "name,aliases,memory_gib,bandwidth_gb_per_s,tflops_16bit,tflops_8bit,min_watts,tdp_watts,fabric,link_gb_per_s,"
    "dollars_per_gpu_hour,priced_at,facts_at,source"
)


def row(**changes):
    values = dict(
        zip(
            HEADER.split(","),
            [
                "X",
                "",
                "24",
                "300",
                "121",
                "0",
                "40",
                "72",
                "pcie",
                "32",
                "0.8",
                "2026-07-20",
                "2026-11-21",
                "somewhere",
            ],
            strict=True,
        )
    )
    return ",".join({**values, **changes}.values())


def test_the_demo_types_are_shipped_with_dated_prices_and_sources():
    catalogue = load()
    for name in ("L4", "A10G", "A100-80", "H100"):
        product = catalogue.find(name)
        assert product.dollars_per_gpu_hour is not None
        assert product.priced_at == "2026-07-20"
        assert product.source
    assert catalogue.find("L4").memory_bytes == 24 * 2**30
    assert all(product.min_watts <= product.tdp_watts for product in catalogue.products.values())


@pytest.mark.parametrize(
    "name", ["a100", "A100-80", "NVIDIA A100-SXM4-80GB", "  nvidia a100-sxm4-80gb ", "a100_sxm", "A100 80"]
)
def test_any_alias_finds_the_product(name):
    assert load().find(name).name == "A100-80"


def test_an_unknown_product_gets_its_nearest_names():
    with pytest.raises(CatalogueError, match=r"'H10' is unknown; did you mean .*H100"):
        load().find("H10")


def test_an_absurd_name_does_not_flood_the_message():
    with pytest.raises(CatalogueError) as raised:
        load().find("x" * 1_000_000)
    assert len(str(raised.value)) < 600


def test_the_clusters_class_of_a_product_has_its_figures_and_its_link():
    product = load().find("H100")
    known = product.accelerator_class()
    assert gpu_figures(known) == product.figures()


def test_pools_carry_price_and_date():
    pool = load().find("L4").pool(available_gpus=3)
    assert (pool.name, pool.accelerator, pool.dollars_per_gpu_hour, pool.available_gpus) == (
        "l4-od",
        "L4",
        0.805,
        3,
    )
    with pytest.raises(CatalogueError, match="no price is known for A40"):
        load().find("A40").pool()


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        pytest.param(
            [HEADER, row(memory_gib="0")],
            r"row 1 \(X\): memory_gib is '0'; write a positive",
            id="zero memory",
        ),
        pytest.param([HEADER, row(tflops_16bit="fast")], "tflops_16bit is 'fast'", id="no number"),
        pytest.param([HEADER, row(bandwidth_gb_per_s="nan")], "bandwidth_gb_per_s is 'nan'", id="NaN"),
        pytest.param(
            [HEADER, row(tflops_8bit="-1")],
            "tflops_8bit is '-1'; write a number of at least 0",
            id="negative",
        ),
        pytest.param([HEADER, row(dollars_per_gpu_hour="0")], "dollars_per_gpu_hour is '0'", id="price 0"),
        pytest.param([HEADER, row(priced_at="")], "has a price without a date", id="undated price"),
        pytest.param(
            [HEADER, row(priced_at="last week")],
            "priced_at is 'last week'; write a day as YYYY-MM-DD",
            id="no day",
        ),
        pytest.param(
            [HEADER, row(facts_at="")], r"row 1 \(X\) has no facts_at; a fact without one", id="undated facts"
        ),
        pytest.param(
            [HEADER, row(source=" ")], "has no source; a fact without one cannot be checked", id="no source"
        ),
        pytest.param([HEADER, row(name="")], "row 1 has no name", id="no name"),
        pytest.param([HEADER, row(), row()], "row 2 names X a second time", id="twice"),
    ],
)
def test_a_bad_row_is_named_with_its_remedy(lines, text):
    with pytest.raises(CatalogueError, match=text):
        parse(lines, "mine.csv")


def test_comments_and_missing_prices_are_fine():
    found = parse(["# a remark", HEADER, "", row(dollars_per_gpu_hour="", priced_at="")], "mine.csv").find(
        "X"
    )
    assert found.dollars_per_gpu_hour is None

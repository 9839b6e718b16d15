"""Precedence: online over the user's over shipped over roofline, cell by cell, each planned at its own pessimistic end."""

import math

import msgspec
import numpy as np
import pytest

from cluster.beliefs import CapacityBelief
from placement.profiles.calibration import Calibration, Samples, observed
from placement.profiles.estimator import RooflineCapacity, RooflineConfig
from placement.profiles.figures import OPEN
from placement.profiles.layers import LEAST_SAMPLES, Layer, Sources, deployment_of, judged, layered, slowed
from placement.profiles.shipped import SHIPPED_ERROR, shipped_constants
from placement.profiles.steady import steady_seconds
from placement.profiles.user import UserProfile
from tests.placement.test_estimator import question

BASE = CapacityBelief(
    model="m",
    variant="v",
    input_edges=(100, 1000),
    output_edges=(10, 100),
    grid=(8.0, 4.0, 2.0, 1.0),
    concurrency=9.0,
    error=0.2,
)
NAN = math.nan


def planned(belief):
    return np.array(belief.grid) * (1 - belief.error)


def test_each_cell_is_of_the_first_source_that_knows_it():
    layers = [
        Layer("user", np.array([[NAN, 6.0], [NAN, 0.0]]), 0.1),
        Layer("shipped", np.array([[9.0, 9.0], [NAN, 9.0]]), 0.5),
    ]
    found = layered(BASE, layers)
    assert (found.source, found.error) == ("user", 0.1)
    assert planned(found) == pytest.approx([9.0 * 0.5, 6.0 * 0.9, 2.0 * 0.8, 0.0])


@pytest.mark.parametrize(
    "layers", [[], [Layer("user", np.full((2, 2), NAN), 0.1)]], ids=["none", "one that knows nothing"]
)
def test_without_anything_better_the_base_stands(layers):
    assert layered(BASE, layers) is BASE


def test_what_was_measured_to_serve_nothing_is_out_and_what_serves_is_in():
    none = layered(BASE, [Layer("user", np.zeros((2, 2)), 0.1)])
    assert (none.excluded, none.need, none.have, none.unit) == ("ProfileHole", 1.0, 0.0, "cells")
    out = msgspec.structs.replace(
        BASE, grid=(0.0,) * 4, excluded="TpotFloor", need=40.0, have=45.0, unit="ms"
    )
    back = layered(out, [Layer("user", np.ones((2, 2)), 0.1)])
    assert (back.excluded, back.need, back.unit) == ("", 0.0, "")
    still = layered(out, [Layer("user", np.zeros((2, 2)), 0.1)])
    assert (still.excluded, still.need, still.have) == ("TpotFloor", 40.0, 45.0)


ASKED = question()
ROOFLINE = RooflineCapacity(RooflineConfig(error=0.16))._answer(ASKED)
KEY = deployment_of(ASKED).counted
NEW = Calibration(constants=shipped_constants(""))
OWN = UserProfile(
    model=ASKED.model.name,
    accelerator="L4",
    tpot_seconds=0.0,
    input_edges=(25, 16000),
    output_edges=(25, 2000),
    rates=((9.0, 1.0), (1.0, 0.1)),
)


@pytest.mark.parametrize(
    ("sources", "source", "error"),
    [
        pytest.param(Sources(), "roofline", 0.16, id="simulated GPUs"),
        pytest.param(Sources(calibration=NEW), "shipped", SHIPPED_ERROR, id="real GPUs"),
        pytest.param(Sources(calibration=NEW, profiles=(OWN,)), "user", 0.1, id="a user's grid"),
        pytest.param(Sources(profiles=(OWN,)), "user", 0.1, id="a user's grid of simulated GPUs"),
        pytest.param(
            Sources(calibration=NEW, profiles=(OWN,), live={KEY: LEAST_SAMPLES - 1}),
            "user",
            0.1,
            id="too few samples",
        ),
        pytest.param(
            Sources(calibration=NEW, profiles=(OWN,), live={KEY: LEAST_SAMPLES}),
            "online",
            None,
            id="measured here",
        ),
        pytest.param(
            Sources(profiles=(msgspec.structs.replace(OWN, tpot_seconds=9.0),)),
            "roofline",
            0.16,
            id="a looser promise",
        ),
        pytest.param(
            Sources(profiles=(msgspec.structs.replace(OWN, precision="fp8"),)),
            "roofline",
            0.16,
            id="another precision",
        ),
        pytest.param(
            Sources(profiles=(msgspec.structs.replace(OWN, gpus=2),)), "roofline", 0.16, id="more GPUs"
        ),
        pytest.param(
            Sources(profiles=(msgspec.structs.replace(OWN, accelerator="l4"),)),
            "user",
            0.1,
            id="a class of a name without capitals",
        ),
        pytest.param(
            Sources(profiles=(msgspec.structs.replace(OWN, accelerator="A10G"),)),
            "roofline",
            0.16,
            id="another product",
        ),
    ],
)
def test_precedence(sources, source, error):
    found = judged(ASKED, ROOFLINE, sources)
    assert found.source == source
    assert found.error == (pytest.approx(error) if error is not None else found.error)
    assert 0.0 < found.error < 1.0


def test_a_profile_of_a_product_is_used_for_the_class_that_has_it_among_its_aliases():
    ours = msgspec.structs.replace(ASKED.accelerator, aliases=("Acme Accel-9",))
    asked = question(accelerator=ours)
    sources = Sources(profiles=(msgspec.structs.replace(OWN, accelerator="acme-accel 9"),))
    assert (judged(asked, ROOFLINE, sources).source, judged(ASKED, ROOFLINE, sources).source) == (
        "user",
        "roofline",
    )


def test_online_samples_of_a_slow_node_lower_the_belief_and_narrow_its_band():
    where = deployment_of(ASKED)
    rng = np.random.default_rng(1)
    batch, inputs, outputs = rng.choice([2.0, 8.0, 24.0], 30), np.full(30, 500.0), np.full(30, 200.0)
    slow = 1.5 * steady_seconds(where.step(shipped_constants("")), batch, inputs, outputs)
    learned = observed(NEW, [Samples(where, batch, inputs, outputs, slow)])
    before = judged(ASKED, ROOFLINE, Sources(calibration=NEW, live={KEY: 30}))
    after = judged(ASKED, ROOFLINE, Sources(calibration=learned, live={KEY: 30}))
    assert after.error < 0.5 * before.error
    assert np.array(after.grid).sum() < 0.8 * np.array(before.grid).sum()
    careful = judged(ASKED, ROOFLINE, Sources(calibration=learned, live={KEY: 30}, quantile=0.98))
    assert careful.grid == after.grid
    assert careful.error > after.error


def test_what_is_known_of_whole_gpus_says_nothing_of_a_share_nor_the_other_way_round():
    half = question(variant=msgspec.structs.replace(ASKED.variant, milli=500))
    share = deployment_of(half)
    assert judged(half, ROOFLINE, Sources(profiles=(OWN,))).source == "roofline"
    assert judged(half, ROOFLINE, Sources(calibration=NEW, live={KEY: 30})).source == "shipped"
    batch, inputs, outputs = np.linspace(2.0, 24.0, 30), np.full(30, 500.0), np.full(30, 200.0)
    quick = 0.5 * steady_seconds(share.step(shipped_constants("")), batch, inputs, outputs)
    learned = observed(NEW, [Samples(share, batch, inputs, outputs, quick)])
    sources = Sources(calibration=learned, live={share.counted: 30})
    assert judged(half, ROOFLINE, sources).source == "online"
    assert judged(ASKED, ROOFLINE, sources).source == "shipped"
    own = [name for name in deployment_of(ASKED).offsets if name in learned.names]
    assert own == []


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_slowed_constants_stretch_every_step(precision):
    where = msgspec.structs.replace(deployment_of(ASKED), precision=precision, tensor=2)
    loads = (np.array([1.0, 64.0]), np.array([100.0, 4000.0]), np.array([500.0, 50.0]))
    once, twice = (steady_seconds(where.step(each), *loads) for each in (OPEN, slowed(OPEN, 2.0)))
    assert twice == pytest.approx(2.0 * once)


@pytest.mark.parametrize("engine", ["vllm", "trtllm", "sglang", "", "another"])
def test_shipped_constants_are_whole(engine):
    found = shipped_constants(engine)
    assert 0.5 < found.bandwidth_fraction < 1.0
    assert all(getattr(found, field) >= 0.0 for field in type(found).__struct_fields__)
    assert (found == shipped_constants("")) is (engine in ("", "another"))

"""What samples teach: recovered constants, transfer to a product never measured, odd deployments, and the band."""

import json
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.codec import from_json, to_json
from placement.profiles.calibration import (
    Calibration,
    Deployment,
    Samples,
    corrected,
    fitted,
    observed,
    predict,
)
from placement.profiles.effects import effects_of, group_of, prior_of
from placement.profiles.figures import OPEN, GpuFigures, ModelFigures
from placement.profiles.steady import running, steady_seconds

A100 = GpuFigures("A100", 80 * 2**30, 2039e9, 312e12, 0.0, 300e9, "nvlink")
H100 = GpuFigures("H100", 80 * 2**30, 3350e9, 989e12, 1978e12, 450e9, "nvlink")
H200 = GpuFigures("H200", 141 * 2**30, 4800e9, 989e12, 1978e12, 450e9, "nvlink")
SMALL = ModelFigures("llama-3.1-8b", 8.03e9, 131_072, 4096, 32)
LARGE = ModelFigures("llama-3.1-70b", 70.6e9, 327_680, 8192, 80)
TRUTH = msgspec.structs.replace(OPEN, bandwidth_fraction=0.80, layer_seconds=5e-5, sequence_bytes=300.0, compute_fraction=0.6,
                                compute_fraction_parallel_16bit=0.6)  # fmt: skip
"""The engine that the samples come from."""


def deployment(gpu=H100, model=SMALL, tensor=1, engine="vllm", release="1"):
    return Deployment(gpu=gpu, model=model, tensor=tensor, precision="bf16", engine=engine, release=release)


def sampled(where, count=12, seed=0, by=1.0, noise=0.01):
    """Samples of the truth at random loads, all ``by`` times as slow."""
    rng = np.random.default_rng(seed)
    batch, inputs, outputs = (
        rng.choice([1, 4, 8, 16, 32, 64, 128], count).astype(float),
        rng.choice([256, 1024, 4096], count).astype(float),
        rng.choice([128, 512, 2048], count).astype(float),
    )
    step = where.step(TRUTH)
    true = steady_seconds(step, running(step, batch, inputs, outputs), inputs, outputs, own=False) * by
    return Samples(where, batch, inputs, outputs, true * np.exp(noise * rng.standard_normal(count)))


def error(calibration, samples):
    found = predict(calibration, *samples[:4])
    return float(np.median(np.abs(found.seconds / samples.seconds - 1)))


TRAINING = [
    sampled(deployment(gpu, model, tensor), seed=n)
    for n, (gpu, model, tensor) in enumerate(
        [
            (A100, SMALL, 1),
            (A100, SMALL, 4),
            (A100, LARGE, 4),
            (H100, SMALL, 1),
            (H100, SMALL, 2),
            (H100, LARGE, 8),
        ]
    )
]


@cache
def trained():
    """What all tests of this file learn from."""
    return fitted(OPEN, TRAINING)


def test_without_samples_the_published_constants_stand_with_a_wide_band():
    none = fitted(OPEN, [])
    where = sampled(deployment())
    found = predict(none, *where[:4])
    step = deployment().step(OPEN)
    assert found.seconds == pytest.approx(
        steady_seconds(step, where.batch, where.inputs, where.outputs, own=False)
    )
    assert (found.spread > 0.15).all()


def test_a_product_never_measured_is_predicted_from_the_others():
    learned = trained()
    unseen = sampled(deployment(H200, SMALL, 4), seed=9)
    assert error(fitted(OPEN, []), unseen) > 0.12
    assert error(learned, unseen) < 0.06
    before, after = (predict(each, *unseen[:4]).spread for each in (fitted(OPEN, []), learned))
    assert (after < before).all()


def test_live_samples_narrow_the_band_and_cure_a_slow_node():
    learned = trained()
    slow = deployment(H200, LARGE, 4)
    live, scored = sampled(slow, 20, 1, by=1.25), sampled(slow, 40, 2, by=1.25)
    after = observed(learned, [live])
    assert error(learned, scored) > 0.12
    assert error(after, scored) < 0.04
    assert (predict(after, *scored[:4]).spread < 0.6 * predict(learned, *scored[:4]).spread).all()
    assert after.samples == learned.samples + 20


def test_two_batches_teach_what_one_does():
    learned = trained()
    live = sampled(deployment(H200, LARGE, 4), 20, 1)
    halves = [
        Samples(live.deployment, *(each[part] for each in live[1:5]))
        for part in (slice(0, 10), slice(10, 20))
    ]
    once, twice = observed(learned, [live]), observed(observed(learned, [halves[0]]), [halves[1]])
    scored = sampled(live.deployment, 30, 3)
    assert predict(twice, *scored[:4]).seconds == pytest.approx(predict(once, *scored[:4]).seconds, rel=0.01)


def test_a_kink_between_reading_and_computing_is_not_leapt_across_for_ever():
    mixture = ModelFigures("qwen3-30b-a3b", 30.5e9, 98_304, 2048, 48, 3.3e9, 128, 8, 29.0e9)
    where, rng = deployment(H100, mixture, 2), np.random.default_rng(0)
    few = many = Calibration(constants=OPEN)
    for _ in range(3):
        batch, inputs, outputs = rng.choice([4.0, 8.0, 16.0, 32.0], 6), np.full(6, 800.0), np.full(6, 200.0)
        true = predict(Calibration(constants=OPEN), where, batch, inputs, outputs, whole=True).seconds
        live = Samples(
            where, batch, inputs, outputs, 1.1 * true * np.exp(0.03 * rng.standard_normal(6)), whole=True
        )
        few, many = observed(few, [live], 30), observed(many, [live], 31)
    assert few.mean == pytest.approx(many.mean, abs=0.01)


def test_an_odd_deployment_explains_itself_and_leaves_the_others_alone():
    odd = sampled(deployment(A100, SMALL, 2, release="broken"), 15, 5, by=5.0)
    unseen = sampled(deployment(H200, LARGE, 2), seed=9)
    learned = fitted(OPEN, [*TRAINING, odd])
    assert error(learned, unseen) < 0.06
    assert error(learned, odd) < 0.15
    later = observed(trained(), [odd])
    assert error(later, unseen) < 0.06


def test_an_engine_has_effects_of_its_own():
    names = effects_of("layer", deployment(engine="sglang"))
    assert list(names) == [
        "layer", "layer@engine=sglang", "layer@build=sglang|1", "layer@gpu=H100", "layer@run=llama-3.1-8b|sglang|bf16|H100"
    ]  # fmt: skip
    changed = corrected(
        OPEN, deployment(engine="sglang"), {"layer@engine=sglang": 0.1, "bandwidth@gpu=H100": 0.2}
    )
    assert changed.layer_seconds == pytest.approx(1e-4 * np.exp(0.1))
    assert changed.bandwidth_fraction == pytest.approx(0.875 * np.exp(-0.2))
    assert corrected(OPEN, deployment(A100), {"bandwidth@gpu=H100": 0.2}) == OPEN


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("layer", "shared:layer"),
        ("layer@engine=x", "engine:layer"),
        ("layer@build=x|1", "build:layer"),
        ("layer@gpu=y", "gpu:layer"),
        ("layer@run=a|b|c|d", "run:layer"),
        ("kind@a|b|c|d", "kind"),
        ("degrees@a|b|c|d|e|1x1", "degrees"),
    ],
)
def test_every_effect_has_a_width_that_its_group_shares(name, group):
    assert 0.0 < prior_of(name) < 1.5
    assert group_of(name) == group
    assert prior_of(name, {group: 0.3}) == 0.3


def test_widths_are_learned_from_how_far_apart_runs_are():
    alike = trained().widths
    apart = fitted(
        OPEN,
        [sampled(each.deployment, seed=n, by=0.5 if n % 2 else 1.5) for n, each in enumerate(TRAINING)],
    ).widths
    assert alike["kind"] < prior_of("kind@") < apart["kind"]
    assert alike["build:fixed"] == pytest.approx(prior_of("fixed@build="), rel=0.1), (
        "nothing tells them apart"
    )


def test_an_engine_that_counts_all_its_steps_tells_the_same_as_requests_do():
    where = deployment(H200, LARGE, 4)
    live = sampled(where, 40, 1, noise=1e-6)
    step = where.step(TRUTH)
    loads = running(step, live.batch, live.inputs, live.outputs), live.inputs, live.outputs
    counted = live._replace(seconds=steady_seconds(step, *loads), whole=True)
    scored = sampled(where, 30, 3)
    learned = trained()
    by_requests, by_steps = (
        predict(observed(learned, [each]), *scored[:4]).seconds for each in (live, counted)
    )
    assert by_steps == pytest.approx(by_requests, rel=0.01)
    mixed_up = predict(observed(learned, [counted._replace(whole=False)]), *scored[:4]).seconds
    assert abs(mixed_up / by_requests - 1.0).max() > 0.01


def test_what_was_learned_survives_storage():
    learned = observed(fitted(OPEN, TRAINING[:2]), [sampled(deployment(), 3)])
    assert from_json(to_json(learned), Calibration) == learned
    assert len(json.loads(to_json(learned))["covariance"]) == len(learned.names) ** 2


def test_nothing_seen_changes_nothing():
    learned = fitted(OPEN, TRAINING[:1])
    assert observed(learned, []) is learned


@settings(max_examples=6)
@given(
    batch=st.floats(1, 512), inputs=st.floats(1, 32_000), outputs=st.floats(1, 8_000), by=st.floats(1e-3, 1e3), whole=st.booleans(),
    count=st.integers(1, 5),
)  # fmt: skip
def test_no_sample_wild_as_it_may_be_breaks_the_band_or_what_is_known_of_others(
    batch, inputs, outputs, by, whole, count
):
    where = deployment(A100, SMALL, 2, engine="sglang")
    loads = tuple(np.full(count, each) for each in (batch, inputs, outputs))
    expected = predict(trained(), where, *loads, whole=whole)
    wild = Samples(where, *loads, expected.seconds * by, whole)
    after = observed(trained(), [wild])
    told = predict(after, where, *loads, whole=whole)
    assert np.isfinite(told.seconds).all()
    assert (told.seconds > 0.0).all()
    assert (told.spread > 0.0).all()
    assert (told.spread <= 1.05 * expected.spread).all(), "samples narrow the band"
    others = sampled(deployment(H200, LARGE, 4), seed=9)
    before, now = (predict(each, *others[:4]).seconds for each in (trained(), after))
    assert abs(np.log(now / before)).max() < 0.25

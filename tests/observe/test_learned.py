"""What engines taught, kept and read again: the round trip, its bounds, and what is told and dropped."""

import logging

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.codec import from_json, to_json
from controller.beliefs import CapacityBeliefs
from controller.config import ProfileSettings
from controller.learned import MOST_EFFECTS, Learned, bounded, calibration_of, counted, learned_of
from placement.profiles.calibration import Calibration, Deployment, Samples, observed, predict
from placement.profiles.figures import MODERN, OPEN, GpuFigures, ModelFigures
from placement.profiles.shipped import shipped_constants
from tests.observe.objects import NOW, device
from tests.observe.objects import inventory as devices_of
from tests.observe.test_capacity_beliefs import LOAD, REPLICA, belief, world
from tests.observe.test_live import seen
from tests.observe.test_reports import report

H100 = GpuFigures("H100", 80 * 2**30, 3350e9, 989e12, 1978e12, 450e9, "nvlink")
EIGHT_B = ModelFigures("llama-3.1-8b", 8.03e9, 131_072, 4096, 32)


def samples(name="llama-3.1-8b", count=25, slow=1.3):
    where = Deployment(
        gpu=H100, model=msgspec.structs.replace(EIGHT_B, name=name), engine="vllm", release="v1"
    )
    batch = np.linspace(2.0, 40.0, count)
    inputs, outputs = np.full(count, 800.0), np.full(count, 200.0)
    true = predict(Calibration(constants=OPEN), where, batch, inputs, outputs, whole=True).seconds
    return Samples(where, batch, inputs, outputs, slow * true, whole=True)


def taught(*more):
    return observed(Calibration(constants=OPEN), [samples(), *more])


def test_what_was_learned_survives_the_ledgers_json_to_the_last_bit():
    known = taught()
    kept = learned_of(known, {"a": 25}, silicon=True)
    again = from_json(to_json(kept), Learned)
    back = calibration_of(again, OPEN, silicon=True)
    assert (back.names, back.mean, back.samples, back.widths) == (known.names, known.mean, 25, known.widths)
    lower = np.tril(known.matrix())
    assert np.array_equal(np.tril(back.matrix()), lower)
    assert again.live == {"a": 25}
    at = [np.array([each]) for each in (16.0, 1000.0, 250.0)]
    where = samples().deployment
    assert predict(back, where, *at).spread == pytest.approx(predict(known, where, *at).spread, rel=1e-9)
    assert predict(back, where, *at).seconds == pytest.approx(predict(known, where, *at).seconds, rel=1e-12)


KEPT = learned_of(taught(), {"a": 25}, silicon=True)


@pytest.mark.parametrize(
    ("change", "silicon", "why"),
    [
        pytest.param({}, False, "it was learned of real GPUs, and these are simulated", id="another kind of fleet"),
        pytest.param({"constants": MODERN}, True, "above other constants", id="a release with constants fitted anew"),
        pytest.param({"mean": KEPT.mean[:-1]}, True, "means and", id="a mean is missing"),
        pytest.param({"triangle": KEPT.triangle[:-1]}, True, "covariances", id="the covariance is cut short"),
        pytest.param({"triangle": -KEPT.triangle}, True, "its covariance is none", id="better than exactly known"),
        pytest.param({"triangle": KEPT.triangle * np.nan}, True, "not finite", id="no numbers"),
        pytest.param({"triangle": KEPT.triangle.astype(np.complex128)}, True, "complex128", id="numbers of another kind"),
        pytest.param({"names": (KEPT.names[0], *KEPT.names[:-1])}, True, "named twice", id="an effect named twice"),
        pytest.param({"names": (*KEPT.names[:-1], "of-a-later-release@gpu=H100")}, True, "knows none", id="an unknown effect"),
        pytest.param({"widths": {"shared:layer": 0.0}}, True, "a width in it is none", id="known before it was seen"),
        pytest.param({"live": {"a": -1}}, True, "negative", id="fewer samples than none"),
    ],
)  # fmt: skip
def test_what_cannot_be_believed_says_why(change, silicon, why):
    with pytest.raises(ValueError, match=why):
        calibration_of(msgspec.structs.replace(KEPT, **change), OPEN, silicon)


def test_more_effects_than_are_kept_go_with_the_deployments_that_are_no_more():
    known = taught(samples("gone-1"), samples("gone-2"))
    current = samples().deployment
    used = {*current.offsets, *current.levels}
    most = len(taught().names) + 2
    small = bounded(known, used, most)
    assert len(small.names) == len(small.mean) == most
    assert set(taught().names) <= set(small.names), "all that the one that is there needs"
    rows = [known.names.index(name) for name in small.names]
    assert np.array_equal(small.matrix(), known.matrix()[np.ix_(rows, rows)])
    assert bounded(known, used, len(known.names)) is known


@given(
    live=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 99)),
    more=st.dictionaries(st.sampled_from("defgh"), st.integers(1, 99)),
    most=st.integers(3, 9),
)
def test_counts_add_up_and_are_bounded_by_those_that_are_no_more(live, more, most):
    found = counted(live, more, {"d", "e"}, most)
    assert all(number == live.get(name, 0) + more.get(name, 0) for name, number in found.items())
    assert {*live, *more} & {"d", "e"} <= set(found)
    assert len(found) <= most
    if len({*live, *more}) <= most:
        assert set(found) == {*live, *more}


def test_the_most_that_is_kept_fits_the_ledger():
    names = tuple(f"effect-{n}@run=a-model-with-a-long-name|vllm|bf16|H100" for n in range(MOST_EFFECTS))
    full = Calibration(
        constants=OPEN, names=names, mean=(0.1234567890123,) * MOST_EFFECTS,
        covariance=tuple(np.eye(MOST_EFFECTS).ravel().tolist()),
    )  # fmt: skip
    assert len(to_json(learned_of(full, {}, silicon=True))) < 1_500_000


def inventory(version):
    return report(inventory=msgspec.structs.replace(devices_of(device(0)), driver_version=version))


def test_by_default_the_agents_say_whether_constants_of_silicon_hold():
    play, beliefs = world(REPLICA, LOAD), CapacityBeliefs()
    beliefs.hear(report(inventory=devices_of()))
    assert beliefs.learned() is None, "a node without GPUs says nothing"
    beliefs.hear(inventory("simulated"))
    beliefs.refresh(play.observer, NOW)
    assert belief(play).source == "roofline"
    assert beliefs.learned().constants == MODERN
    beliefs.hear(inventory("570.86.15"))
    beliefs.refresh(play.observer, NOW + 1)
    assert belief(play).source == "shipped"
    beliefs.hear(inventory("simulated"))
    assert beliefs.learned().constants == shipped_constants(""), "one real node decides"


def test_nothing_is_learned_where_the_user_says_so():
    play, beliefs = world(REPLICA, LOAD), CapacityBeliefs(settings=ProfileSettings(measured=False))
    for window in range(25):
        beliefs.hear(inventory("570.86.15"))
        beliefs.hear(seen(10.0 * window, 200 * window))
    beliefs.refresh(play.observer, NOW + 300)
    assert belief(play).source == "roofline"
    assert beliefs.learned() is None


def learned_once():
    play, beliefs = world(REPLICA, LOAD), CapacityBeliefs()
    beliefs.hear(inventory("570.86.15"))
    beliefs.refresh(play.observer, NOW)
    for window in range(25):
        beliefs.hear(seen(10.0 * window, 200 * window))
    beliefs.refresh(play.observer, NOW + 260)
    assert belief(play).source == "online"
    assert beliefs.learned() is beliefs.learned(), "it is written anew only when it changed"
    return belief(play), from_json(to_json(beliefs.learned()), Learned)


@pytest.mark.parametrize("early", [True, False], ids=["before the first agent", "after it"])
def test_a_new_leader_believes_what_the_former_one_had_learned(early):
    before, kept = learned_once()
    play, beliefs = world(REPLICA, LOAD), CapacityBeliefs()
    if early:
        beliefs.recall(kept)
        assert beliefs.learned() is kept, "nothing is lost while no agent has come"
    beliefs.hear(inventory("570.86.15"))
    if not early:
        beliefs.recall(kept)
    beliefs.refresh(play.observer, NOW + 300)
    assert belief(play).source == "online"
    assert belief(play).grid == pytest.approx(before.grid, rel=1e-9)


def test_what_was_learned_of_simulated_gpus_is_told_and_dropped_on_real_ones(caplog):
    _, kept = learned_once()
    play, beliefs = world(REPLICA, LOAD), CapacityBeliefs()
    beliefs.recall(kept)
    with caplog.at_level(logging.WARNING):
        beliefs.hear(inventory("simulated"))
    assert "learned of real GPUs, and these are simulated; it is learned anew" in caplog.text
    beliefs.refresh(play.observer, NOW)
    assert belief(play).source == "roofline"


def test_a_replica_of_a_former_revision_teaches_nothing():
    old = msgspec.structs.replace(REPLICA, revision="of another image")
    play, beliefs = world(old, LOAD), CapacityBeliefs(settings=ProfileSettings(measured=True))
    for window in range(25):
        beliefs.hear(seen(10.0 * window, 200 * window))
    beliefs.refresh(play.observer, NOW + 260)
    assert beliefs.learned().live == {}

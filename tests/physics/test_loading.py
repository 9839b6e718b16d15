"""Starts of replicas: stages in order, seconds as the formula says, tiers shared."""

import numpy as np
import pytest

from simulator.physics.loading import Loader, Stage, StartSpec, WeightTier

STAGES = [Stage.CONTAINER, Stage.WEIGHTS, Stage.ENGINE, Stage.WARM_UP, Stage.READY]


def loader(seed: int = 0) -> Loader:
    return Loader(np.random.Generator(np.random.PCG64(seed)))


def start(**changes) -> StartSpec:
    return StartSpec(**({"weight_bytes": 31_000_000_000, "jitter": 0.0} | changes))


@pytest.mark.parametrize(
    ("changes", "ready"),
    [
        pytest.param({}, 3 + 20 + 19.6 + 2, id="a node with the image: the process outlasts the weights"),
        pytest.param({"image_bytes": 5_600_000_000}, 101 + 44.6, id="the image is pulled first"),
        pytest.param({"weight_bytes": 310_000_000_000}, 3 + 100 + 21.6, id="weights outlast the process"),
        pytest.param({"tier": WeightTier.NVME, "process_seconds": 0.0}, 3 + 31 / 3.6 + 21.6, id="from NVMe"),
        pytest.param(
            {"tier": WeightTier.DRAM, "process_seconds": 0.0}, 3 + 31 / 21 + 21.6, id="from host memory"
        ),
        pytest.param({"engine_seconds": 39.0}, 3 + 20 + 39 + 2, id="a cold compile cache"),
    ],
)
def test_a_start_takes_the_sum_of_its_stages(changes, ready):
    node = loader()
    assert node.begin("a", start(**changes)).stage is Stage.IMAGE
    events = node.advance_to(1000.0)
    assert [event.stage for event in events] == STAGES
    assert events[-1].at_seconds == pytest.approx(ready)
    assert node.stage("a") is None


def test_two_loads_from_one_tier_take_twice_as_long_each():
    node = loader()
    spec = start(weight_bytes=62_000_000_000, process_seconds=0.0)
    node.begin("a", spec)
    node.begin("b", spec)
    ends = {event.name: event.at_seconds for event in node.advance_to(1000.0) if event.stage is Stage.ENGINE}
    assert ends == pytest.approx({"a": 43.0, "b": 43.0})


def test_loads_from_different_tiers_do_not_slow_each_other():
    node = loader()
    node.begin("a", start(weight_bytes=62_000_000_000, process_seconds=0.0))
    node.begin("b", start(weight_bytes=62_000_000_000, process_seconds=0.0, tier=WeightTier.DRAM))
    ends = {event.name: event.at_seconds for event in node.advance_to(1000.0) if event.stage is Stage.ENGINE}
    assert ends == pytest.approx({"a": 23.0, "b": 3.0 + 62 / 21})


@pytest.mark.parametrize("when", [1.0, 5.0, 15.0, 30.0], ids=["container", "weights", "process", "engine"])
def test_a_cancelled_start_leaves_no_trace_and_frees_the_tier(when):
    node = loader()
    spec = start(weight_bytes=62_000_000_000)
    node.begin("a", spec)
    node.advance_to(when)
    assert node.cancel("a")
    assert not node.cancel("a")
    assert node.advance_to(1000.0) == []
    node.begin("a", spec)
    events = node.advance_to(2000.0)
    assert events[-1].at_seconds == pytest.approx(1000.0 + 3 + 20 + 19.6 + 2)


def test_the_same_start_twice_is_refused():
    node = loader()
    node.begin("a", start())
    with pytest.raises(ValueError, match="already starting"):
        node.begin("a", start())


def test_jitter_is_seeded_and_cuts_in_time_change_nothing():
    def play(seed, cuts):
        node, events = loader(seed), []
        for index in range(5):
            events += node.advance_to(7.0 * index)
            node.begin(str(index), start(jitter=0.3, tier=list(WeightTier)[index % 3]))
        for cut in cuts:
            events += node.advance_to(cut)
        return events + node.advance_to(1e4)

    whole = play(1, [])
    assert play(1, np.linspace(30.0, 300.0, 41).tolist()) == whole
    assert play(2, []) != whole
    times = [event.at_seconds for event in whole]
    assert times == sorted(times)


def test_jitter_spreads_around_the_figure():
    node = loader(3)
    for index in range(400):
        node.begin(str(index), start(jitter=0.1, weight_bytes=0, process_seconds=0.0))
    seconds = [event.at_seconds for event in node.advance_to(1e4) if event.stage is Stage.READY]
    assert np.median(seconds) == pytest.approx(24.6, rel=0.02)
    assert 0.05 < np.std(seconds) / np.mean(seconds) < 0.12


@pytest.mark.parametrize("field", ["weight_bytes", "engine_seconds", "jitter", "image_bytes"])
def test_a_negative_figure_is_refused_by_name(field):
    with pytest.raises(ValueError, match=field):
        start(**{field: -1})


def test_weights_that_others_carry_hold_the_start_up_until_they_have_come():
    wanted = []
    loader = Loader(
        np.random.default_rng(1), fetch=lambda name, spec: wanted.append((name, spec.weight_bytes))
    )
    loader.begin("a", StartSpec(weight_bytes=10**9, jitter=0.0, container_seconds=2.0, process_seconds=1.0))
    loader.begin("b", StartSpec(weight_bytes=10**9, jitter=0.0, container_seconds=2.0, process_seconds=1.0))
    assert [event.stage for event in loader.advance_to(100.0)][-1] is Stage.WEIGHTS
    assert wanted == [("a", 10**9), ("b", 10**9)]
    assert loader.next_event_seconds() == float("inf")
    (engine,) = loader.fetched("a", 100.0)
    assert (engine.stage, engine.at_seconds) == (Stage.ENGINE, 100.0)
    assert loader.cancel("b")
    assert loader.fetched("b", 101.0) == []

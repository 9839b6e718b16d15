"""Power, clocks and limits: each input moved alone, outputs as the formulas say."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.physics.catalogue import A100_80, GPU_SPECS, H100
from simulator.physics.clocks import LaggedSetting, ladder_mhz, snap_mhz
from simulator.physics.power import GpuPower, Phase, PhaseShares, gpu_cap_watts, server_watts

A100 = GpuPower(A100_80)
LOW = 1110 / 1410


@pytest.mark.parametrize(
    ("phase", "clock", "compute_share", "want"),
    [
        pytest.param(Phase.IDLE, 1.0, 0.0, 63, id="idle"),
        pytest.param(Phase.PREFILL, 1.0, 0.0, 400, id="prefill draws board power"),
        pytest.param(Phase.DECODE, 1.0, 0.0, 260, id="decode of a small batch draws 0.65 of it"),
        pytest.param(Phase.DECODE, 1.0, 0.5, 330, id="decode draws more as the batch fills the arithmetic"),
        pytest.param(Phase.TRAINING, 1.0, 0.0, 380, id="training"),
        pytest.param(Phase.BOUNDARY, 1.0, 0.0, 200, id="the dip between two iterations"),
        pytest.param(Phase.PREFILL, LOW, 0.0, 0.80 * 400, id="POLCA: prefill at 1110 MHz is 0.80"),
        pytest.param(Phase.DECODE, LOW, 0.0, 0.85 * 260, id="POLCA: decode at 1110 MHz is 0.85"),
        pytest.param(Phase.IDLE, LOW, 0.0, 63, id="idle power does not follow the clock"),
    ],
)
def test_watts_follow_phase_clock_and_batch(phase, clock, compute_share, want):
    assert A100.watts(phase, clock, compute_share) == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize("product", sorted(GPU_SPECS))
@given(cap=st.integers(40, 800), phase=st.sampled_from([Phase.PREFILL, Phase.DECODE, Phase.TRAINING]))
def test_the_clock_under_a_cap_is_the_highest_that_obeys_it(product, cap, phase):
    gpu = GPU_SPECS[product]
    power = GpuPower(gpu)
    clock = power.clock_under(phase, cap)
    mhz = round(clock * gpu.max_mhz)
    assert mhz in ladder_mhz(gpu)
    if mhz > gpu.min_mhz:
        assert power.watts(phase, clock) <= cap + 1e-3
    above = next((step for step in ladder_mhz(gpu) if step > mhz), None)
    if above is not None:
        assert power.watts(phase, above / gpu.max_mhz) > cap - 1e-3


def test_a_cap_bites_in_prefill_before_it_bites_in_decode():
    held = A100.held(cap_watts=300)
    assert held.prefill_clock < 1.0
    assert held.decode_clock == 1.0
    assert held.prefill_watts <= 300


def test_a_lock_holds_every_phase_and_the_lower_of_lock_and_cap_counts():
    locked = A100.held(lock_mhz=1110)
    assert locked.prefill_clock == locked.decode_clock == locked.training_clock == 1110 / 1410
    assert A100.held(cap_watts=200, lock_mhz=1110).prefill_clock < 1110 / 1410


@given(
    shares=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    compute=st.floats(0, 1),
    cap=st.integers(100, 400),
    lock=st.sampled_from([None, 1410, 1110, 810, 210]),
)
@example(shares=[0.0, 0.06902933901004783, 0.0, 0.0], compute=0.0, cap=260, lock=None)
def test_mean_watts_are_the_shares_of_the_phases_and_never_above_cap_or_uncapped(shares, compute, cap, lock):
    total = max(sum(shares), 1.0)
    prefill, decode, training, boundary = (share / total for share in shares)
    mix = PhaseShares(
        prefill=prefill, decode=decode, decode_compute=compute, training=training, boundary=boundary
    )
    held, free = A100.held(cap, lock), A100.held()
    want = 63 * mix.idle + 400 * prefill + (260 + 140 * compute) * decode + 380 * training + 200 * boundary
    assert free.mean_watts(mix) == pytest.approx(want)
    assert held.mean_watts(mix) <= min(cap, free.mean_watts(mix)) + 1e-6
    assert 0.0 < held.mean_clock(mix) <= 1.0


def test_a_server_draws_its_base_and_more_than_its_gpus():
    assert server_watts(8 * 400, 8) == pytest.approx(870 + 1.28 * 3200)
    assert server_watts(0, 4) == pytest.approx(435)


@given(cap=st.integers(1000, 9000), gpus=st.sampled_from([1, 4, 8]))
def test_gpu_caps_keep_the_server_within_its_cap_wherever_the_product_can(cap, gpus):
    each = gpu_cap_watts(H100, cap, gpus)
    assert 200 <= each <= 700
    if each > 200:
        assert server_watts(gpus * each, gpus) <= cap + 1e-6
    if each < 700:
        assert server_watts(gpus * (each + 1), gpus) > cap


def test_ladder_runs_from_lowest_to_highest_and_snaps_down():
    ladder = ladder_mhz(A100_80)
    assert (ladder[0], ladder[-1]) == (210, 1410)
    assert {high - low for low, high in itertools.pairwise(ladder)} == {15}
    assert [snap_mhz(A100_80, mhz) for mhz in (2000, 1410, 1119, 1110, 100)] == [1410, 1410, 1110, 1110, 210]
    assert all(snap_mhz(A100_80, mhz) == mhz for mhz in ladder)


def test_a_setting_lands_after_its_lag_and_repeating_it_does_not_put_it_off():
    slow = LaggedSetting(1410, lag_seconds=40.0)
    for second in range(100):
        slow.command(1110 if second < 60 else 900, float(second))
        slow.advance_to(float(second))
        assert slow.value == (1410 if second < 40 else 1110)
    assert slow.target == 900
    assert slow.next_event_seconds() == 100.0
    assert slow.advance_to(100.0)
    assert slow.value == 900


def test_a_negative_lag_is_refused():
    with pytest.raises(ValueError, match="cannot land before"):
        LaggedSetting(1, lag_seconds=-1.0)

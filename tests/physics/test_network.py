"""Collectives by network class, and transfers that share a link."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.physics.network import NicClass, NicSpec, SharedLink, allreduce_seconds, common_network

IB = NicSpec(NicClass.INFINIBAND, 400e9, 2)
ROCE = NicSpec(NicClass.ROCE, 200e9, 2)
ETHERNET = NicSpec(NicClass.ETHERNET, 100e9)


@pytest.mark.parametrize(
    ("nics", "alpha", "beta"),
    [
        pytest.param([IB] * 4, 5e-6, 0.75 * 100e9, id="an InfiniBand island"),
        pytest.param([ROCE] * 4, 8e-6, 0.72 * 50e9, id="a RoCE island"),
        pytest.param([ETHERNET] * 4, 5e-5, 0.55 * 12.5e9, id="an Ethernet island"),
        pytest.param([IB, IB, ROCE], 5e-5, 0.55 * 50e9, id="unlike NICs meet on sockets, at the slower rate"),
        pytest.param(
            [IB, NicSpec(NicClass.INFINIBAND, 200e9)], 5e-6, 0.75 * 25e9, id="the slowest port paces the ring"
        ),
    ],
)
def test_a_ring_is_as_good_as_its_network(nics, alpha, beta):
    assert common_network(nics) == pytest.approx((alpha, beta))
    members, size = len(nics), 14e9
    want = 2 * (members - 1) * alpha + 2 * (members - 1) / members * size / beta
    assert allreduce_seconds(size, nics) == pytest.approx(want)


def test_one_node_exchanges_nothing():
    assert allreduce_seconds(1e9, [IB]) == 0.0


def test_better_networks_are_faster_in_their_order():
    times = [allreduce_seconds(14e9, [nic] * 4) for nic in (IB, ROCE, ETHERNET)]
    assert times == sorted(times)


def test_no_nodes_or_no_port_are_refused():
    with pytest.raises(ValueError, match="at least one node"):
        common_network([])
    with pytest.raises(ValueError, match="must be positive"):
        NicSpec(NicClass.ROCE, 0.0)


def test_two_transfers_share_and_the_longer_speeds_up_when_the_shorter_ends():
    link = SharedLink(100.0)
    link.begin("long", 300.0)
    link.begin("short", 100.0)
    assert link.advance_to(10.0) == [(2.0, "short"), (4.0, "long")]


def test_a_late_one_slows_the_first_from_then_on():
    link = SharedLink(100.0)
    link.begin("first", 300.0)
    link.advance_to(1.0)
    link.begin("second", 100.0)
    assert link.advance_to(10.0) == [(3.0, "second"), (4.0, "first")]


def test_a_transfer_may_have_a_limit_of_its_own():
    link = SharedLink(100.0, per_transfer_bytes_per_second=40.0)
    link.begin("one", 80.0)
    assert link.next_event_seconds() == 2.0


def test_cancelling_gives_the_bandwidth_back():
    link = SharedLink(100.0)
    link.begin("a", 200.0)
    link.begin("b", 200.0)
    link.advance_to(1.0)
    link.cancel("b")
    link.cancel("nobody")
    assert link.advance_to(10.0) == [(2.5, "a")]
    with pytest.raises(ValueError, match="must carry"):
        SharedLink(0.0)


def test_the_same_name_twice_is_refused():
    link = SharedLink(100.0)
    link.begin("a", 1.0)
    with pytest.raises(ValueError, match="already active"):
        link.begin("a", 1.0)


@given(st.integers(0, 2**32))
def test_bytes_are_conserved_and_cuts_in_time_change_nothing(seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    starts = np.cumsum(rng.exponential(1.0, 12)).tolist()
    sizes = rng.uniform(1.0, 300.0, 12).tolist()

    def play(cuts):
        link, done = SharedLink(100.0), []
        for at, index in sorted(
            [(at, index) for index, at in enumerate(starts)] + [(cut, -1) for cut in cuts]
        ):
            done += link.advance_to(at)
            if index >= 0:
                link.begin(str(index), sizes[index])
        return done + link.advance_to(1e6)

    whole = play([])
    assert play(np.linspace(0.0, 20.0, 7).tolist()) == whole
    assert len(whole) == 12
    times = [at for at, _ in whole]
    assert times == sorted(times)
    # The link is never idle while something is active, so the last end is at least the bytes over its rate.
    assert times[-1] >= starts[0] + sum(sizes) / 100.0 - 1e-6
    for at, name in whole:
        assert at >= starts[int(name)] + sizes[int(name)] / 100.0 - 1e-9

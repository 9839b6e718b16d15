"""Gangs: iteration time in closed form, checkpoints, the slowest rank, fencing, order of nodes."""

import itertools

import numpy as np
import pytest

from simulator.physics.catalogue import A100_80, H100
from simulator.physics.network import NicClass, NicSpec, allreduce_seconds
from simulator.physics.rendezvous import CheckpointVault, JoinResult, Rendezvous
from simulator.physics.training import (
    Gang,
    GangNode,
    GangPhase,
    TrainingSpec,
    compute_seconds,
    exchange_seconds,
)

IB = NicSpec(NicClass.INFINIBAND, 200e9, 4)
ROCE = NicSpec(NicClass.ROCE, 200e9, 2)
ETHERNET = NicSpec(NicClass.ETHERNET, 100e9)
SPEC = TrainingSpec(parameters=7e9, tokens_per_step=524_288, steps=50, checkpoint_interval_seconds=100.0)


def nodes(count=4, nic=IB, gpu=A100_80):
    return {f"n{index}": GangNode(gpu, 8, nic) for index in range(count)}


def gang(members=None, spec=SPEC, vault=None, attempt=1, at=0.0):
    return Gang("job-1", attempt, spec, members or nodes(), vault or CheckpointVault(), at)


def live(moved, until):
    for name in list(moved._members):
        moved.advance_node(name, until)


@pytest.mark.parametrize(
    ("members", "compute", "exchange"),
    [
        pytest.param(nodes(4), 1.0, IB, id="four InfiniBand nodes"),
        pytest.param(nodes(8), 0.5, IB, id="twice the nodes, half the compute"),
        pytest.param(nodes(4, ROCE), 1.0, ROCE, id="RoCE"),
        pytest.param(nodes(4, ETHERNET), 1.0, ETHERNET, id="Ethernet"),
        pytest.param(nodes(4, IB, H100), 312 / 989, IB, id="faster GPUs"),
        pytest.param(
            nodes(2) | {"h0": GangNode(H100, 8, IB), "h1": GangNode(H100, 8, IB)},
            1.0,
            IB,
            id="slower GPUs pace",
        ),
    ],
)
def test_an_iteration_is_compute_and_exchange(members, compute, exchange):
    one = 8 * 7e9 * 524_288 / (32 * 312e12 * 0.766)
    assert compute_seconds(SPEC, members) == pytest.approx(one * compute)
    want = allreduce_seconds(14e9, [exchange] * len(members))
    assert exchange_seconds(SPEC, members) == pytest.approx(want)
    running = gang(members)
    live(running, 20.0 + 3.5 * (one * compute + want))
    assert running.step == 3
    assert running.step_seconds == pytest.approx(one * compute + want)


@pytest.mark.parametrize(
    ("clock", "speed"), [(1.0, 0.8), (0.787, 1.0), (0.5, 0.9)], ids=["slow node", "1110 MHz", "both"]
)
def test_the_slowest_node_slows_all(clock, speed):
    running = gang()
    running.set_speed("n2", clock, speed, 0.0)
    live(running, 60.0)
    want = compute_seconds(SPEC, nodes()) / (speed * clock**0.4) + exchange_seconds(SPEC, nodes())
    assert running.step_seconds == pytest.approx(want)
    assert running.rate == pytest.approx(speed * clock**0.4)


def test_polca_a_training_clock_of_1110_costs_a_tenth():
    slowdown = (1410 / 1110) ** SPEC.clock_exponent
    assert slowdown == pytest.approx(1.10, abs=0.005)


def test_a_change_in_the_middle_of_an_iteration_counts_for_its_rest():
    running = gang(nodes(1))
    one = compute_seconds(SPEC, nodes(1))
    live(running, 20.0 + 0.25 * one)
    running.set_speed("n0", 1.0, 0.5, 20.0 + 0.25 * one)
    live(running, 20.0 + 3 * one)
    assert running.step_seconds == pytest.approx(0.25 * one + 0.75 * one / 0.5)


def test_checkpoints_hold_the_gang_up_and_a_restart_loses_the_work_since():
    vault = CheckpointVault()
    running = gang(vault=vault)
    one = compute_seconds(SPEC, nodes()) + exchange_seconds(SPEC, nodes())
    before = int(np.ceil(100.0 / one))
    live(running, 20.0 + before * one + 29.0)
    assert (running.phase, running.step) == (GangPhase.CHECKPOINT, before)
    assert vault.latest("job-1") is None  # a checkpoint half written is none
    live(running, 20.0 + before * one + 30.0 + 3.5 * one)
    assert (running.step, running.checkpoint_step) == (before + 3, before)
    running.fail(running.now)
    assert running.phase is GangPhase.FAILED
    again = gang(vault=vault, attempt=2, at=1000.0)
    live(again, 1000.0 + 20.0 + 59.0)
    assert (again.phase, again.step) == (GangPhase.RESTORING, before)
    live(again, 1e5)
    assert (again.phase, again.step) == (GangPhase.DONE, 50)


def test_an_old_attempt_can_neither_save_nor_start():
    vault = CheckpointVault()
    old = gang(vault=vault)
    young = gang(vault=vault, attempt=2)
    live(old, 200.0)
    assert old.checkpoint_step == 0
    assert vault.latest("job-1") is None
    assert vault.fenced == 1
    live(young, 200.0)
    assert vault.latest("job-1").attempt == 2
    with pytest.raises(ValueError, match="older than 2"):
        gang(vault=vault, attempt=1)


def history(order, speeds):
    running = gang(nodes(3))
    for second in range(1, 200):
        for at, node, clock in speeds:
            if second - 1 <= at < second:
                running.set_speed(node, clock, 1.0, at)
        for node in order(second):
            running.advance_node(node, float(second))
    return [running.progress_at(float(second)) for second in range(100, 199)], running.step


def test_the_order_in_which_nodes_move_changes_nothing():
    rng = np.random.Generator(np.random.PCG64(5))
    speeds = sorted(
        (float(rng.uniform(0, 199)), f"n{index % 3}", float(rng.uniform(0.4, 1))) for index in range(30)
    )
    names = ["n0", "n1", "n2"]
    want = history(lambda _: names, speeds)
    for permutation in itertools.permutations(names):
        assert history(lambda _, order=permutation: order, speeds) == want
    assert history(lambda second: rng.permutation(names).tolist(), speeds) == want


def test_a_gang_is_only_as_far_as_its_last_node():
    running = gang(nodes(2))
    running.advance_node("n0", 100.0)
    assert (running.now, running.step) == (0.0, 0)
    running.advance_node("n1", 50.0)
    assert running.now == 50.0


def test_shares_of_phases_add_up_and_dips_are_the_exchange():
    running = gang(nodes(4, ETHERNET))
    live(running, 90.0)
    shares = running.shares(30.0, 80.0)
    assert sum(shares.values()) == pytest.approx(1.0)
    exchange = exchange_seconds(SPEC, nodes(4, ETHERNET))
    period = compute_seconds(SPEC, nodes(4)) + exchange
    running_long = running.shares(20.0, 20.0 + 5 * period)
    assert running_long[GangPhase.EXCHANGE] == pytest.approx(exchange / period)
    assert running.shares(0.0, 10.0) == {GangPhase.STARTING: 1.0}
    with pytest.raises(ValueError, match="empty"):
        running.shares(5.0, 5.0)


def test_overlap_hides_the_exchange():
    hidden = TrainingSpec(parameters=7e9, tokens_per_step=524_288, steps=5, overlap=1.0)
    running = gang(nodes(4, ETHERNET), hidden)
    live(running, 60.0)
    assert running.step_seconds == pytest.approx(compute_seconds(hidden, nodes()))


def test_a_dead_node_ends_the_attempt_at_that_second_and_nobody_waits_for_it():
    running = gang(nodes(2))
    live(running, 100.0)
    running.fail(100.5, "n0")
    assert not running.over
    running.advance_node("n1", 101.0)
    assert running.phase is GangPhase.FAILED
    assert running.progress_at(200.0).at_seconds == 100.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "steps"),
        ({"overlap": 1.5}, "overlap"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds"),
    ],
)
def test_an_impossible_job_is_refused_by_field(change, says):
    with pytest.raises(ValueError, match=says):
        TrainingSpec(**({"parameters": 1e9, "tokens_per_step": 1e6, "steps": 10} | change))


def test_a_gang_without_nodes_or_with_a_stopped_clock_is_refused():
    with pytest.raises(ValueError, match="no nodes"):
        Gang("j", 1, SPEC, {}, CheckpointVault(), 0.0)
    with pytest.raises(ValueError, match="positive fractions"):
        gang().set_speed("n0", 0.0, 1.0, 0.0)


def test_nobody_leaves_the_rendezvous_before_all_are_there():
    meeting = Rendezvous("job-1", "r-2", attempt=2, size=3)
    assert meeting.join("pod-a", 0, "r-2", 2, 1.0) is JoinResult.WAITING
    assert meeting.join("pod-b", 1, "r-2", 2, 2.0) is JoinResult.WAITING
    assert not meeting.complete
    assert meeting.join("pod-c", 2, "r-2", 2, 3.0) is JoinResult.COMPLETE
    assert (meeting.complete_seconds, meeting.joins) == (3.0, 3)
    assert meeting.members() == ("pod-a", "pod-b", "pod-c")
    assert not meeting.leave(0)  # too late: they have gone on together


@pytest.mark.parametrize(
    ("rank", "rendezvous", "attempt", "answer"),
    [
        pytest.param(1, "r-1", 1, JoinResult.OLD_ATTEMPT, id="a rank of the attempt before"),
        pytest.param(1, "r-1", 2, JoinResult.WRONG_RENDEZVOUS, id="another rendezvous"),
        pytest.param(1, "r-3", 3, JoinResult.WRONG_RENDEZVOUS, id="a later attempt at the wrong door"),
        pytest.param(0, "r-2", 2, JoinResult.ALREADY_JOINED, id="a rank that is here"),
        pytest.param(9, "r-2", 2, JoinResult.WRONG_RANK, id="a rank that does not exist"),
    ],
)
def test_whoever_does_not_belong_is_turned_away_and_counted(rank, rendezvous, attempt, answer):
    meeting = Rendezvous("job-1", "r-2", attempt=2, size=3)
    meeting.join("pod-a", 0, "r-2", 2, 1.0)
    assert meeting.join("pod-x", rank, rendezvous, attempt, 2.0) is answer
    assert (meeting.joins, meeting.refusals) == (1, 1)


def test_a_rank_that_dies_waiting_frees_its_place_and_a_closed_meeting_takes_none():
    meeting = Rendezvous("job-1", "r", 1, 2)
    meeting.join("pod-a", 0, "r", 1, 1.0)
    assert meeting.leave(0)
    assert meeting.join("pod-a2", 0, "r", 1, 2.0) is JoinResult.WAITING
    meeting.close()
    assert meeting.join("pod-b", 1, "r", 1, 3.0) is JoinResult.CLOSED
    with pytest.raises(ValueError, match="needs a rank"):
        Rendezvous("job-1", "r", 1, 0)


def test_the_vault_forgets_a_deleted_job():
    vault = CheckpointVault()
    vault.open("j", 3)
    assert vault.save("j", 3, 10, 1.0)
    vault.forget("j")
    assert vault.latest("j") is None
    assert vault.open("j", 1) is None


def test_gradients_that_others_carry_hold_the_iteration_up_until_they_are_exchanged():
    members = nodes(2)
    compute, wire = compute_seconds(SPEC, members), exchange_seconds(SPEC, members)
    alone, carried = gang(members), Gang("job-1", 1, SPEC, members, CheckpointVault(), 0.0, carried=True)
    start = SPEC.start_seconds + compute
    assert carried.next_event_seconds() == SPEC.start_seconds
    live(carried, start)
    assert (carried.phase, carried.next_event_seconds()) == (GangPhase.EXCHANGE, float("inf"))
    live(carried, start + 3.0 * wire)
    carried.exchanged(start + 3.0 * wire)
    assert (carried.step, carried.step_seconds) == (1, pytest.approx(compute + 3.0 * wire))
    assert carried.next_event_seconds() == pytest.approx(start + 3.0 * wire + compute)
    with pytest.raises(ValueError, match="waits for no gradients"):
        carried.exchanged(start + 3.0 * wire)
    live(alone, start + wire)
    assert alone.step_seconds == pytest.approx(compute + wire)
    carried.fail(start + 4.0 * wire, "n0")
    live(carried, start + 9.0 * wire)
    carried.exchanged(start + 9.0 * wire)
    assert (carried.phase, carried.step) == (GangPhase.FAILED, 1)

"""One server: placement, starts, caps with their lease, sensors, failures, and any cut of time."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.physics.catalogue import A100_80, L4
from simulator.physics.failures import Failure, FailureKind
from simulator.physics.loading import Stage, StartSpec
from simulator.physics.network import NicClass, NicSpec
from simulator.physics.node import NodePhysics
from simulator.physics.power import server_watts
from simulator.physics.rendezvous import CheckpointVault
from simulator.physics.roofline import step_cost
from simulator.physics.sequence import EventKind, RefusalCode
from simulator.physics.server import NodeSpec, PowerState
from simulator.physics.specs import EngineSpec
from simulator.physics.training import Gang, GangPhase, TrainingSpec
from tests.physics.worlds import LLAMA_7B

IB = NicSpec(NicClass.INFINIBAND, 200e9, 4)
ENGINE = EngineSpec()
START = StartSpec(weight_bytes=LLAMA_7B.weight_bytes)


def node(seed: int = 0, **changes) -> NodePhysics:
    spec = NodeSpec(**({"name": "n0", "gpu": A100_80, "gpus": 8, "nic": IB} | changes))
    return NodePhysics(spec, np.random.Generator(np.random.PCG64(seed)))


def serving(**changes) -> NodePhysics:
    server = node(**changes)
    server.place("a", LLAMA_7B, ENGINE, (0,))
    return server


def flood(server, count=400, prompt=1500, output=200, name="a"):
    for index in range(count):
        assert server.submit(name, index, prompt, output, 0.01 * index) is None


def test_a_replica_serves_only_after_its_start():
    server = node()
    server.place("a", LLAMA_7B, ENGINE, (3,), START)
    assert server.stage("a") is Stage.IMAGE
    assert server.submit("a", 1, 10, 10, 0.0).code is RefusalCode.STOPPED
    stages = server.advance_to(200.0).stages
    assert stages[-1].stage is Stage.READY
    assert server.stage("a") is Stage.READY
    assert server.engine("a").started == stages[-1].at_seconds
    assert server.submit("a", 1, 10, 10, 200.0) is None
    requests = server.advance_to(210.0).requests
    assert [(name, event.kind) for name, event in requests] == [
        ("a", EventKind.FIRST_TOKEN),
        ("a", EventKind.FINISHED),
    ]


@pytest.mark.parametrize(
    ("name", "engine", "gpus", "says"),
    [
        pytest.param("a", ENGINE, (1,), "already on node", id="the same name"),
        pytest.param("b", ENGINE, (0,), "which a holds", id="a GPU that is taken"),
        pytest.param("b", ENGINE, (8,), "GPUs 0 to 7", id="a GPU that does not exist"),
        pytest.param("b", ENGINE, (1, 2), "2 GPUs for a tensor parallel degree of 1", id="too many GPUs"),
        pytest.param("b", ENGINE, (7,), "broken: Xid", id="a broken GPU"),
    ],
)
def test_impossible_placements_are_refused_with_a_sentence(name, engine, gpus, says):
    server = serving()
    server.fail(Failure(0.0, "n0", FailureKind.GPU_XID, 7))
    with pytest.raises(ValueError, match=says):
        server.place(name, LLAMA_7B, engine, gpus)


def test_a_model_that_does_not_fit_is_refused_before_the_wait():
    big = msgspec.structs.replace(LLAMA_7B, weight_bytes=90 * 2**30)
    server = node()
    with pytest.raises(ValueError, match="leaves no room"):
        server.place("a", big, ENGINE, (0,), START)
    assert server.stage("a") is None


def test_removing_a_replica_fails_what_it_had_and_frees_its_gpus():
    server = serving()
    server.submit("a", 1, 100, 400, 0.0)
    server.advance_to(1.0)
    assert server.remove("a") == [1]
    (name, event), *rest = server.advance_to(2.0).requests
    assert (name, event.kind, event.at_seconds, event.request_id) == ("a", EventKind.FAILED, 1.0, 1)
    assert event.tokens > 0
    assert not rest
    server.place("b", LLAMA_7B, ENGINE, (0,))


def test_draining_and_cancelling_reach_the_engine():
    server = serving()
    server.submit("a", 1, 100, 400, 0.0)
    server.advance_to(0.5)
    server.drain("a")
    assert server.submit("a", 2, 100, 400, 0.5).code is RefusalCode.DRAINING
    assert server.cancel("a", 1)
    assert not server.cancel("a", 1)
    server.advance_to(1.0)
    assert server.engine("a").drained


def test_an_idle_node_draws_its_base_and_idle_gpus():
    server = node()
    server.advance_to(10.0)
    reading = server.read()
    assert reading.watts == pytest.approx(870 + 1.28 * 8 * 63)
    assert reading.uncapped_watts == pytest.approx(reading.watts)
    assert {gpu.utilisation for gpu in reading.gpus} == {0.0}
    assert reading.gpus[0].energy_joules == pytest.approx(630.0)


def test_power_follows_what_each_gpu_does():
    server = serving()
    server.submit("a", 1, 60_000, 1, 0.0)  # seconds of nothing but prefill
    server.advance_to(2.0)
    gpus = server.read().gpus
    assert gpus[0].watts == pytest.approx(400.0)
    assert gpus[0].utilisation == pytest.approx(1.0)
    assert {gpu.watts for gpu in gpus[1:]} == {63.0}


@pytest.mark.parametrize("watts", [2500, 3000, 4000])
def test_a_cap_holds_the_server_below_it_and_tells_what_it_would_draw(watts):
    server = node(actuation_seconds=0.0)
    for index in range(8):
        server.place(str(index), LLAMA_7B, ENGINE, (index,))
        flood(server, name=str(index))
    readback = server.set_cap(watts)
    assert readback <= watts
    server.advance_to(5.0)
    reading = server.read()
    assert reading.watts <= readback
    assert reading.uncapped_watts > 4000
    assert server.power_state() == PowerState(reading.gpu_cap_watts, 0)


def test_a_cap_slows_prefill_and_leaves_a_small_decode_alone():
    def times(cap):
        server = serving(actuation_seconds=0.0)
        if cap:
            server.set_cap(cap)
        server.advance_to(0.01)
        server.submit("a", 1, 4000, 100, 0.01)
        return [event.at_seconds for _, event in server.advance_to(20.0).requests]

    cap = round(server_watts(8 * 300, 8))
    (free_first, free_end), (first, end) = times(0), times(cap)
    assert first - 0.01 > 1.2 * (free_first - 0.01)
    assert end - first == pytest.approx(free_end - free_first)


def test_a_clock_lock_holds_everything():
    server = serving(actuation_seconds=0.0)
    server.set_cap(server.spec.max_watts, 1110)
    flood(server)
    server.advance_to(4.0)
    reading = server.read()
    assert reading.clock_mhz == 1110
    assert reading.gpus[0].clock == pytest.approx(1110 / 1410)
    full, slow = (step_cost(A100_80, LLAMA_7B, ENGINE, clock) for clock in (1.0, 1110 / 1410))
    seconds = [
        cost.seconds(0, 1024, 0, 1024**2 / 2) + cost.run_seconds(16, 16 * 1024, 200) for cost in (full, slow)
    ]
    assert server.engine("a").relative_speed() == pytest.approx(seconds[0] / seconds[1])


@given(st.integers(0, 3000))
def test_base_and_limits_cover_the_server_whatever_its_gpus_may_draw(above):
    server = node()
    spec = server.spec
    asked = spec.base_watts + 8 * spec.gpu.min_watts + above
    assert server.set_cap(asked) <= min(asked, spec.max_watts)
    assert spec.max_watts == spec.base_watts + 8 * 400


def test_a_cap_below_what_the_gpus_can_do_is_read_back_as_it_is():
    server = node()
    assert server.set_cap(500) == server.spec.min_watts > 500


def test_limits_land_after_the_actuation_and_leases_end_by_themselves():
    server = node(safe_watts=2000, actuation_seconds=0.5)
    safe = server.power_state().gpu_cap_watts
    assert server_watts(8 * safe, 8) <= 2000
    server.set_cap(4000, expires_seconds=5.0)
    assert server.power_state().gpu_cap_watts == safe
    server.advance_to(0.5)
    high = server.power_state().gpu_cap_watts
    assert high > safe
    server.advance_to(4.0)
    server.set_cap(4000, expires_seconds=9.0)  # renewed in time
    server.advance_to(9.4)
    assert server.power_state().gpu_cap_watts == high
    server.advance_to(9.5)
    assert server.power_state().gpu_cap_watts == safe


def test_a_lease_that_ended_in_the_past_ends_now():
    server = node(safe_watts=2000, actuation_seconds=0.0)
    server.advance_to(10.0)
    server.set_cap(4000, expires_seconds=5.0)
    server.advance_to(10.0)
    server.advance_to(11.0)
    assert server_watts(8 * server.power_state().gpu_cap_watts, 8) <= 2000


def test_energy_is_the_integral_of_power():
    server = serving()
    flood(server, 100)
    joules = 0.0
    for second in range(1, 60):
        server.advance_to(float(second))
        if second % 3 == 0:
            server.set_cap(2500 if second % 2 else 5000)
        reading = server.read()
        joules += reading.gpus[0].watts
    assert reading.gpus[0].energy_joules == pytest.approx(joules)


def test_an_xid_takes_down_what_runs_on_its_gpu_only():
    server = serving()
    server.place("b", LLAMA_7B, ENGINE, (1,))
    server.submit("a", 1, 100, 400, 0.0)
    server.submit("b", 2, 100, 400, 0.0)
    server.advance_to(1.0)
    server.fail(Failure(1.0, "n0", FailureKind.GPU_XID, 0))
    requests = server.advance_to(60.0).requests
    assert [(name, event.kind) for name, event in requests] == [
        ("a", EventKind.FAILED),
        ("b", EventKind.FINISHED),
    ]
    assert server.stage("a") is None


def test_a_crash_ends_everything_without_an_event():
    server = serving()
    server.submit("a", 7, 100, 400, 0.0)
    server.advance_to(1.0)
    assert server.kill() == {"a": [7]}
    advance = server.advance_to(60.0)
    assert (advance.requests, advance.stages) == ([], [])
    assert server.read().watts == 0.0
    assert server.submit("a", 8, 1, 1, 60.0).code is RefusalCode.STOPPED
    assert not server.alive


def test_a_hung_node_says_nothing_and_keeps_its_requests():
    server = serving()
    server.submit("a", 7, 100, 400, 0.0)
    server.advance_to(1.0)
    server.read()
    server.fail(Failure(1.0, "n0", FailureKind.HANG))
    assert server.advance_to(60.0).requests == []
    assert server.engine("a").holds(7)
    assert server.kill() == {"a": [7]}


def gang_on(*servers, steps=200):
    nodes = {server.spec.name: server.gang_node(8) for server in servers}
    spec = TrainingSpec(parameters=7e9, tokens_per_step=131_072, steps=steps, start_seconds=5.0)
    gang = Gang("job", 1, spec, nodes, CheckpointVault(), servers[0].now)
    for server in servers:
        server.attach(gang, tuple(range(8)))
    return gang


def test_ranks_draw_training_power_with_dips_and_hold_their_gpus():
    one, two = node(), node(name="n1")
    gang = gang_on(one, two)
    for second in range(1, 41):
        for server in (one, two):
            server.advance_to(float(second))
        if second == 20:
            one.read()
    shares = gang.shares(19.0, 39.0)
    boundary = shares.get(GangPhase.EXCHANGE, 0.0)
    assert 0.0 < boundary < 0.5
    assert one.read().gpus[0].watts == pytest.approx(380 * (1 - boundary) + 200 * boundary)
    with pytest.raises(ValueError, match="which job job holds"):
        one.place("a", LLAMA_7B, ENGINE, (0,))
    one.detach("job")
    one.place("a", LLAMA_7B, ENGINE, (0,))


def test_a_capped_or_slow_node_slows_the_whole_gang():
    fast = gang_on(node(), node(name="n1"))
    slow_server = node(name="n1", speed=0.8)
    slow = gang_on(node(), slow_server)
    capped_server = node(name="n1", actuation_seconds=0.0)
    capped = gang_on(node(), capped_server)
    capped_server.set_cap(round(server_watts(8 * 250, 8)))
    capped_server.advance_to(0.0)
    for gang in (fast, slow, capped):
        for name in ("n0", "n1"):
            gang.advance_node(name, 60.0)
    assert slow.step_seconds > 1.1 * fast.step_seconds
    assert capped.step_seconds > 1.03 * fast.step_seconds


@pytest.mark.parametrize(
    ("kind", "phase"),
    [
        (FailureKind.NODE_CRASH, GangPhase.FAILED),
        (FailureKind.GPU_XID, GangPhase.FAILED),
        (FailureKind.HANG, None),
    ],
)
def test_a_failure_ends_the_gang_and_a_hang_stalls_it(kind, phase):
    one, two = node(), node(name="n1")
    gang = gang_on(one, two)
    for server in (one, two):
        server.advance_to(30.0)
    step = gang.step
    two.fail(Failure(30.0, "n1", kind, 0))
    for server in (one, two):
        server.advance_to(90.0)
    assert gang.step == step
    assert gang.phase is phase or phase is None
    assert gang.over == (phase is not None)


@given(st.integers(0, 2**32), st.integers(1, 50))
def test_any_cut_of_time_gives_the_same_events(seed, pieces):
    def play(cuts):
        rng = np.random.Generator(np.random.PCG64(seed))
        server = node(seed % 97, safe_watts=2500, actuation_seconds=0.03)
        server.place("a", LLAMA_7B, ENGINE, (0,))
        server.place("b", LLAMA_7B, ENGINE, (1,), START)
        arrivals = np.sort(rng.uniform(0.0, 60.0, 30)).tolist()
        for index, at in enumerate(arrivals):
            server.submit("a", index, int(rng.integers(1, 4000)), int(rng.integers(0, 300)), at)
        times = np.sort(rng.uniform(0.0, 60.0, 6)).tolist()
        caps, locks = rng.integers(1800, 6000, 6).tolist(), rng.choice([0, 1110], 6).tolist()
        commands = [(at, cap, lock, at + 5.0) for at, cap, lock in zip(times, caps, locks, strict=True)]
        requests, stages = [], []
        for at, *command in sorted(commands + [(cut,) for cut in cuts]):
            advance = server.advance_to(at)
            requests += advance.requests
            stages += advance.stages
            if command:
                server.set_cap(command[0], command[1], command[2])
        advance = server.advance_to(500.0)
        energy = server.read().gpus[0].energy_joules
        return requests + advance.requests, stages + advance.stages, energy

    whole, cut = play([]), play(np.linspace(0.1, 80.0, pieces).tolist())
    assert cut[:2] == whole[:2]
    assert cut[2] == pytest.approx(whole[2], rel=1e-3)
    assert len([1 for _, event in whole[0] if event.kind is EventKind.FINISHED]) == 30


def test_time_never_runs_backwards_and_bad_specs_are_refused():
    server = node()
    server.advance_to(5.0)
    with pytest.raises(ValueError, match="cannot go back"):
        server.advance_to(4.0)
    with pytest.raises(ValueError, match="speed of node n0"):
        node(speed=0.0)


def test_a_small_node_has_a_small_base():
    small = node(gpu=L4, gpus=1)
    small.advance_to(1.0)
    assert small.read().watts == pytest.approx(870 / 8 + 1.28 * 16)
    assert (small.spec.min_watts, small.spec.max_watts) == (160, 201)

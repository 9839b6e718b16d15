"""The discrete-event world: each mechanism beside the run without it, conservation, delay, determinism, refusals."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.serving import Role
from simulator.physics.engine import EngineInstance
from simulator.physics.loading import StartSpec
from simulator.physics.network import NicClass, NicSpec
from simulator.physics.roofline import kv_capacity_tokens, step_cost
from simulator.physics.specs import EngineSpec
from simulator.physics.training import TrainingSpec
from simulator.traces.requests import TraceRequest
from simulator.world.instances import Instance
from simulator.world.parts import Breaking, Buses, Cap, Parts, Power, Training
from simulator.world.spec import Choice, Delays, Failing, Group, Moving, ScenarioError, WorldSpec
from simulator.world.world import World
from tests.physics.worlds import A100, LLAMA_7B, engine_for
from tests.world.forced import force_move

COST = step_cost(A100, LLAMA_7B, EngineSpec())
ENGINE = engine_for(40_000)
LLUMNIX = {"dispatch": Choice("llumnix"), "migration": Choice("llumnix")}


def spec(*groups: Group, **more) -> WorldSpec:
    return WorldSpec(model=LLAMA_7B, groups=groups or (Group(gpu=A100, engine=ENGINE, count=2),), **more)


def asks(*rows: tuple[float, int, int]) -> list[TraceRequest]:
    return [TraceRequest(line, *row) for line, row in enumerate(rows)]


def prefill(tokens: int, behind: int = 0) -> float:
    return COST.seconds(0, tokens, 0, tokens * (behind + tokens / 2))


def finish_of(world: World) -> float:
    (at,) = world.book.finished_seconds
    return float(at)


def test_a_lone_request_takes_what_its_engine_takes():
    world = World(spec(), asks((3.0, 1000, 101)))
    outcome = world.run()
    assert outcome.ttft_p50_seconds == pytest.approx(prefill(1000), rel=1e-9)
    assert finish_of(world) == pytest.approx(3.0 + prefill(1000) + COST.run_seconds(1, 1001, 100), rel=1e-9)
    assert (outcome.complete, outcome.completed, outcome.output_tokens) == (True, 1, 101)


def test_roles_cost_the_transfer_of_the_kv():
    wire = Moving(bytes_per_second=5e9, commit_seconds=0.004)
    split = spec(
        Group(gpu=A100, engine=ENGINE, role=Role.PREFILL),
        Group(gpu=A100, engine=ENGINE, role=Role.DECODE),
        moving=wire,
    )
    together = World(spec(), asks((0.0, 1000, 101)))
    apart = World(split, asks((0.0, 1000, 101)))
    together.run()
    outcome = apart.run()
    assert outcome.handed_over == 1
    assert outcome.ttft_p50_seconds == pytest.approx(prefill(1000), rel=1e-9)
    transfer = 1001 * LLAMA_7B.kv_bytes_per_token / 5e9 + wire.commit_seconds
    first = COST.seconds(0, 1, 0, 1000.5) - COST.seconds(1, 0, 1001, 0.0)
    assert finish_of(apart) - finish_of(together) == pytest.approx(transfer + first, rel=1e-6)


def test_two_transfers_that_leave_one_node_share_its_nic():
    def slowest(per_node: int) -> float:
        split = spec(
            Group(gpu=A100, engine=ENGINE, role=Role.PREFILL, count=2, per_node=per_node),
            Group(gpu=A100, engine=ENGINE, role=Role.DECODE, count=2),
            moving=Moving(bytes_per_second=1e9),
        )
        world = World(split, asks((0.0, 1000, 2), (0.0, 1000, 2)))
        world.run()
        return float(world.book.finished_seconds.max())

    assert slowest(2) - slowest(1) == pytest.approx(1001 * LLAMA_7B.kv_bytes_per_token / 1e9, rel=1e-2)


def test_a_migration_costs_the_client_its_commit_and_the_tail_that_is_computed_again():
    still = World(spec(), asks((0.0, 1000, 200)))
    moved = World(spec(moving=Moving(commit_seconds=0.003)), asks((0.0, 1000, 200)))
    still.run()
    moves = force_move(moved, 0.5)
    outcome = moved.run()
    assert (outcome.migrations, outcome.migrations_aborted) == (1, 0)
    gap = finish_of(moved) - finish_of(still)
    # 1,000 tokens at 10 GB/s take 0.05 s: what was generated meanwhile is computed again, in the step of the next token.
    copied, lag = moves[0].copied, moves[0].lag
    assert copied > 1000
    assert 1 < lag <= moved.spec.moving.lag_tokens
    step = COST.seconds(0, lag, 0, lag * (copied + lag / 2)) - COST.seconds(1, 0, copied + lag, 0.0)
    assert gap == pytest.approx(0.003 + step, rel=1e-6)
    assert moved.instances[0].engine.load().kv_free_tokens == moved.instances[0].engine.capacity_tokens
    assert moved.instances[1].engine.load().kv_free_tokens == moved.instances[1].engine.capacity_tokens


def test_llumnix_moves_requests_away_from_where_the_cache_is_full():
    tight = engine_for(6_000, admission="grow")
    crowd = asks(*[(0.25 * i, 400, 700 if i % 2 else 10) for i in range(24)])
    rows = spec(Group(gpu=A100, engine=tight, count=2), dispatch=Choice("round_robin"))
    without = World(rows, crowd).run()
    early = Choice("llumnix", {"source_below_blocks": 20.0, "target_above_blocks": 20.0})
    crowded = Moving(crowded_share=1.0)
    with_moves = World(msgspec.structs.replace(rows, migration=early, moving=crowded), crowd).run()
    assert with_moves.migrations > 0
    assert with_moves.preemptions <= without.preemptions
    assert with_moves.ttft_p99_seconds < 0.95 * without.ttft_p99_seconds
    assert with_moves.utilisation > without.utilisation
    assert with_moves.completed == without.completed == 24


@pytest.mark.parametrize("notice", [0.0, 0.2], ids=["without a word", "a reclaim with notice"])
def test_who_loses_its_instance_goes_on_elsewhere_from_the_log(notice):
    death = 0.5 + notice
    world = World(
        spec(failures=(Failing(instance=0, at_seconds=0.5, notice_seconds=notice),)), asks((0.0, 1000, 200))
    )
    outcome = world.run()
    assert (outcome.completed, outcome.replayed, outcome.output_tokens) == (1, 1, 200)
    done = 1
    while prefill(1000) + COST.run_seconds(1, 1001, done) <= death:
        done += 1  # tokens that were out when it died: the first, and one a step
    rest = prefill(1000 + done) + COST.run_seconds(1, 1000 + done + 1, 200 - done - 1)
    assert finish_of(world) == pytest.approx(death + rest, rel=1e-9)


def test_a_request_waits_for_the_stages_of_a_cold_start():
    start = StartSpec(weight_bytes=LLAMA_7B.weight_bytes, jitter=0.0)
    one = Group(gpu=A100, engine=ENGINE)
    world = World(
        spec(one, failures=(Failing(instance=0, at_seconds=1.0, start=start),)), asks((2.0, 1000, 10))
    )
    outcome = world.run()
    seconds = start.container_seconds + start.process_seconds + start.engine_seconds + start.warm_up_seconds
    heard = 1.0 + seconds + world.spec.delays.watch_seconds
    assert outcome.ttft_p50_seconds == pytest.approx(heard - 2.0 + prefill(1000), rel=1e-9)


def test_a_request_that_nobody_takes_is_refused_at_its_deadline():
    lost = spec(
        Group(gpu=A100, engine=ENGINE), failures=(Failing(instance=0, at_seconds=1.0),), hold_seconds=30.0
    )
    outcome = World(lost, asks((2.0, 1000, 10))).run()
    assert (outcome.refused, outcome.completed, outcome.complete) == (1, 0, True)


def test_nothing_is_known_before_its_delay():
    ages = []
    delays = Delays(agent_low_seconds=1.0, agent_high_seconds=2.0)
    world = World(spec(Group(gpu=A100, engine=ENGINE, count=20), delays=delays, **LLUMNIX),
                  asks(*[(0.3 * i, 500, 400) for i in range(60)]))  # fmt: skip
    decide = world.services[0].migration.decide

    class Watching:
        def decide(self, view, state, ctx):
            ages.extend((ctx.now_seconds - view.instances.observed_seconds).tolist())
            return decide(view, state, ctx)

    world.services[0].migration = Watching()
    world.run()
    known = np.array([age for age in ages if not np.isnan(age)])
    assert known.size > 100
    assert known.min() >= 1.0
    assert known.max() <= 2.0 + delays.report_seconds + 0.5 + 1e-9


def test_an_event_budget_ends_a_runaway_run_with_a_partial_report():
    outcome = World(spec(event_budget=50), asks(*[(0.1 * i, 500, 100) for i in range(500)])).run()
    assert not outcome.complete
    assert outcome.events == 50
    assert 0 < outcome.arrived < 500


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"groups": ()}, "groups"),
        ({"groups": (Group(gpu=A100, count=0),)}, "groups[0].count"),
        ({"groups": (Group(gpu=A100, role=Role.PREFILL),)}, "groups"),
        ({"dispatch": Choice("clairvoyant")}, "dispatch"),
        ({"migration": Choice("llumnix", {"block_token": 16})}, "migration"),
        ({"delays": Delays(report_seconds=-1.0)}, "delays.report_seconds"),
        ({"delays": Delays(agent_low_seconds=3.0)}, "delays.agent_low_seconds"),
        ({"moving": Moving(bytes_per_second=0.0)}, "moving.bytes_per_second"),
        ({"failures": (Failing(instance=7, at_seconds=1.0),)}, "failures[0].instance"),
        ({"failures": (Failing(instance=0, at_seconds=-1.0),)}, "failures[0].at_seconds"),
        ({"event_budget": 0}, "event_budget"),
        ({"hold_seconds": -3.0}, "hold_seconds"),
    ],
)
def test_a_contradictory_scenario_is_refused_before_the_run(change, path):
    with pytest.raises(ScenarioError) as refused:
        World(msgspec.structs.replace(spec(), **change), asks((0.0, 10, 10)))
    assert refused.value.path == path
    assert str(refused.value).startswith(path)


def anything(seed: int) -> tuple[WorldSpec, list[TraceRequest]]:
    """A random crowd on random instances that move, die, come back and have roles."""
    rng = np.random.Generator(np.random.PCG64(seed))
    engine = engine_for(
        int(rng.choice([3_000, 20_000])), admission=str(rng.choice(["grow", "reserve"])), max_num_seqs=32,
        chunk_tokens=512, prefix_block_tokens=int(rng.choice([0, 64])),
    )  # fmt: skip
    groups = [Group(gpu=A100, engine=engine, count=int(rng.integers(2, 5)), per_node=2)]
    if rng.random() < 0.4:
        groups = [msgspec.structs.replace(groups[0], role=role) for role in (Role.PREFILL, Role.DECODE)]
    start = StartSpec(weight_bytes=10**9, container_seconds=0.5, process_seconds=0.5, engine_seconds=1.0)
    failures = tuple(
        Failing(instance=int(rng.integers(0, 2)), at_seconds=float(rng.uniform(0, 8)), start=start,
                notice_seconds=float(rng.choice([0.0, 1.0])))
        for _ in range(int(rng.integers(0, 3)))
    )  # fmt: skip
    policy = Choice(str(rng.choice(["round_robin", "least_outstanding", "infaas", "llumnix"])))
    choice = Choice("llumnix", {"source_below_blocks": 40.0, "target_above_blocks": 40.0})
    moves = Moving(every_seconds=0.2, crowded_share=1.0, bytes_per_second=float(rng.choice([2e8, 1e10])))
    made = spec(*groups, dispatch=policy, migration=choice, moving=moves, failures=failures, seed=seed,
                parts=any_parts(rng, start))  # fmt: skip
    at = np.cumsum(rng.exponential(0.05, 80)).tolist()
    requests = [
        TraceRequest(i, at[i], int(rng.integers(1, 1200)), int(rng.integers(1, 400)),
                     tuple(int(rng.integers(0, 2)) * 100 + n for n in range(20)), 64)
        for i in range(80)
    ]  # fmt: skip
    return made, requests


def any_parts(rng: np.random.Generator, start: StartSpec) -> Parts:
    """Random mechanisms, each on or off."""
    node, on = "node-0-00000", rng.random(4) < 0.4
    broken = tuple(
        Breaking(node=node, gpu=int(rng.integers(-1, 1)), at_seconds=float(rng.uniform(0, 6)), start=start,
                 repair_seconds=float(rng.choice([0.0, 2.0])))
        for _ in range(3)
    )  # fmt: skip
    cap = Cap(at_seconds=float(rng.uniform(0, 4)), watts=int(rng.integers(300, 3_000)), until_seconds=6.0)
    steps = TrainingSpec(parameters=1e9, tokens_per_step=65_536, steps=30, checkpoint_interval_seconds=1.0)
    job = Training(
        name="j", spec=steps, nodes=(node, "t"), gpu=A100, nic=NicSpec(NicClass.ROCE, 100e9), gpus=2
    )
    return Parts(
        buses=Buses(bytes_per_second=3e9) if on[0] else None,
        power=Power(caps=(cap,)) if on[1] else None,
        breaking=broken if on[2] else (),
        training=(job,) if on[3] else (),
    )


@given(st.integers(0, 2**32))
@settings(max_examples=15)
def test_every_request_ends_once_and_no_block_is_lost_whatever_happens(seed):
    made, requests = anything(seed)
    world = World(made, requests)
    outcome = world.run()
    assert outcome.complete
    assert outcome.arrived == outcome.completed + outcome.refused == 80
    if not outcome.refused:
        assert outcome.output_tokens == sum(request.output_tokens for request in requests)
    assert not world.moves
    for instance in world.instances:
        if instance.alive:
            load = instance.engine.load()
            assert (load.running, load.waiting, load.kv_free_tokens) == (0, 0, load.kv_capacity_tokens)
    assert outcome.utilisation <= 1.0 + 1e-9
    assert (world.book.ttft_seconds > 0.0).all()


@given(st.integers(0, 2**32))
@settings(max_examples=2)
def test_the_same_seed_gives_the_same_world(seed):
    made, requests = anything(seed)
    assert World(made, requests).run() == World(made, requests).run()


def test_the_capacity_a_policy_reads_is_the_engines():
    world = World(spec(), asks((0.0, 10, 10)))
    assert (
        world.services[0].front.rows.table.kv_capacity_tokens.tolist()
        == [kv_capacity_tokens(A100, LLAMA_7B, ENGINE)] * 2
    )
    assert isinstance(world.instances[0].engine, EngineInstance)


def test_an_instance_that_joins_takes_requests_and_one_that_leaves_gives_its_requests_back():
    world = World(
        spec(Group(gpu=A100, engine=ENGINE, count=1)), asks(*[(0.5 * i, 400, 300) for i in range(12)])
    )
    (service,) = world.services
    joined = []

    def join(at, _subject, world):
        joined.append(Instance("late", "node-late", 1, world.instances[0].group, LLAMA_7B, at))
        world.add(joined[0], service)
        return ()

    def leave(at, _subject, world):
        assert joined[0].engine.request_ids(), "it had something to lose"
        return world.remove(joined[0], at)

    world.kernel.push((1.0, join, None))
    world.kernel.push((4.0, leave, None))
    outcome = world.run()
    assert (outcome.completed, outcome.refused) == (12, 0)
    assert outcome.replayed > 0
    assert list(service.front.by_name) == list(service.front.rows.table.keys) == ["i000000"]
    assert service.front.rows.ready_count == 1
    alone = outcome.seconds + 3.0
    assert outcome.utilisation == pytest.approx(
        (joined[0].busy_seconds + world.instances[0].engine.phases().busy_seconds) / alone, rel=1e-9
    )

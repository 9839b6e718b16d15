"""Commitment: one inventory, in order of priority, and what the runner-up would have cost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.hardware import Offer
from cluster.reasons import Reason, render
from cluster.serving import Mode, Objective
from cluster.snapshot import Snapshot
from cluster.targets import Capacity, Mix, Prices, Share
from placement.selection.mix import solve_mix
from policies.commit.by_priority import ByPriority, ByPriorityConfig, ByPriorityState
from policies.commit.commitment import Commitment
from policies.planner import PlannerStates, run_planner
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context
from tests.policies.random_snapshots import random_snapshot


def commit(snapshot: Snapshot, state: ByPriorityState | None = None, **config: Any) -> Any:
    """Capacities by service and reasons by (service, code)."""
    policy = ByPriority(ByPriorityConfig(**config))
    run = policy.commit(snapshot, state or policy.initial(), context(loop="commit"))
    plan = run.draft.plan()
    capacities = {t.service: t for t in plan.targets if isinstance(t, Capacity)}
    reasons = {(r.subject.name, r.code): r for r in plan.reasons}
    return capacities, reasons, run


def promise(priority: int = 0, unserved: float = 50.0) -> tuple[Objective, ...]:
    return (Objective(ttft_seconds=2.0, tpot_seconds=0.1, priority=priority, unserved_dollars=unserved),)


def mixed(l4: int = 4, a100: int = 2) -> ClusterBuilder:
    made = a_cluster().with_pool("l4-od", "L4").with_pool("a100-od", "A100-80")
    return made.with_nodes(l4, "l4-od", gpus=4).with_nodes(a100, "a100-od", gpus=8)


# ------------------------------------------------------------------------------------------ the runner-up is exact


def resolved(made: Commitment) -> float | None:
    """Objective of the best mix with other counts, from the service's full limits, solved anew."""
    settled, limits = made.settled, made.limits
    gpus = {pool: limits.free_gpus[pool] for pool in settled.problem.inventory}
    variants = tuple(
        msgspec.structs.replace(option, max_units=limits.most_units[option.name])
        for option in settled.problem.variants
    )
    problem = msgspec.structs.replace(
        settled.problem, inventory=gpus, variants=variants, forbidden=(settled.counts,)
    )
    other = solve_mix(problem)
    return other.objective_per_hour if other.feasible else None


def told_runner_up(reason: Reason) -> float | None:
    return next((a.cost.value for a in reason.against if a.cost is not None), None)


def planned(seed: int) -> Snapshot:
    """A random cluster after a whole planning round; every other one forgets its mixes, so that new ones are chosen."""
    scratch: dict[str, Any] = {}
    snapshot = run_planner(random_snapshot(seed), PlannerStates(), context(scratch=scratch)).snapshot
    if seed % 2:
        return snapshot
    targets = {
        key: msgspec.structs.replace(target, mix=Mix()) if isinstance(target, Capacity) else target
        for key, target in snapshot.targets.items()
    }
    return msgspec.structs.replace(snapshot, targets=targets)


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_the_runner_ups_cost_is_that_of_a_solve_without_the_choice(first: int):
    """200 random clusters: re-solving with the choice forbidden gives the cost that the reason tells."""
    compared = {"MixKept": 0, "MixChosen": 0}
    for seed in range(first, first + 20):
        _, reasons, run = commit(planned(seed))
        for made in run.commitments:
            code = "MixKept" if made.settled.kept else "MixChosen"
            reason = reasons[made.service.name, code]
            assert reason.need is not None
            assert reason.have is not None
            assert reason.limit is not None
            assert reason.fact("cost") == pytest.approx(made.settled.mix.dollars_per_hour, abs=1e-9)
            other, told = resolved(made), told_runner_up(reason)
            if other is None:
                assert made.settled.other is None
                continue
            assert told == pytest.approx(other - made.settled.objective, abs=1e-6)
            compared[code] += 1
    assert min(compared.values()) >= 3


# ---------------------------------------------------------------------------------------------------- the choice


def test_a_small_load_takes_the_cheapest_mix_and_names_what_it_beat():
    made = (
        mixed()
        .with_service(variants := "shop/chat", "L4", "A100-80", "H100")
        .with_capacity(variants, 2.0, final=False)
    )
    capacities, reasons, _ = commit(made.build())
    chosen = capacities["shop/chat"]
    assert chosen.final
    assert chosen.owner == "commit"
    assert chosen.mix.requests_per_second >= 2.0
    assert sum(part.weight for part in chosen.mix.parts) == pytest.approx(1.0)
    reason = reasons["shop/chat", "MixChosen"]
    sentence = render(reason)
    assert "for a demand of 2.00 req/s" in sentence
    assert "Next best:" in sentence
    assert [a.code for a in reason.against if a.choice == "H100x1-bf16"] == ["UnknownAccelerator"]


def test_what_is_not_wanted_gets_nothing():
    made = mixed().with_service("shop/chat").with_capacity("shop/chat", 0.0, ("L4", "l4-od", 2), final=False)
    capacities, reasons, _ = commit(made.build())
    assert capacities["shop/chat"].mix.parts == ()
    assert ("shop/chat", "NothingWanted") in reasons


def test_a_floor_buys_capacity_without_load():
    made = (
        mixed().with_service("shop/chat", floor_units=2).with_capacity("shop/chat", 0.0, units=2, final=False)
    )
    capacities, _, _ = commit(made.build())
    assert sum(part.units for part in capacities["shop/chat"].mix.parts) >= 1


def test_a_tensor_parallel_unit_needs_its_gpus_on_one_node():
    """Four nodes with one free GPU each are four free GPUs, but no place for a pair."""
    made = a_cluster().with_pool("a100-od", "A100-80").with_nodes(4, "a100-od", gpus=2)
    for node in sorted(made.parts["nodes"]):
        made.with_claim(f"other/{node}", node, 0)
    made.with_service("shop/chat", "A100-80x2").with_capacity("shop/chat", 1.0, final=False)
    capacities, reasons, _ = commit(made.build())
    assert capacities["shop/chat"].mix.parts == ()
    short = reasons["shop/chat", "ShortOfCapacity"]
    assert short.fact("shed") == pytest.approx(1.0)
    assert short.remedy is not None
    assert short.remedy.code == "AddCapacity"
    assert short.remedy.choice == "a100-od"


# --------------------------------------------------------------------------------------------------------- keeping


def kept_case(rate: float, **config: Any) -> Any:
    made = mixed().with_service("shop/chat").with_capacity("shop/chat", 2.0, final=False)
    first, _, _ = commit(made.build())
    standing = first["shop/chat"]
    made.with_target(msgspec.structs.replace(standing, wanted_per_second=rate))
    return standing, commit(made.build(), **config)


def test_a_mix_that_still_does_is_kept():
    standing, (capacities, reasons, _) = kept_case(2.05)
    kept = reasons["shop/chat", "MixKept"]
    assert kept.choice == standing.mix.text
    assert (
        "shop/chat" not in capacities
        or capacities["shop/chat"].mix.parts[0].units == standing.mix.parts[0].units
    )


def test_a_mix_that_no_longer_carries_the_load_is_not_kept():
    _, (capacities, reasons, _) = kept_case(20.0)
    assert ("shop/chat", "MixChosen") in reasons
    assert capacities["shop/chat"].mix.requests_per_second >= 20.0


def test_a_mix_that_has_become_too_dear_is_replaced_after_the_hold():
    made = (
        mixed()
        .with_service("shop/chat")
        .with_capacity("shop/chat", 0.5, ("A100-80", "a100-od", 4), final=True)
    )
    snapshot = made.build()
    early, reasons, _ = commit(snapshot, ByPriorityState(changed_seconds={"shop/chat": NOW - 10.0}))
    assert ("shop/chat", "MixHeld") in reasons
    assert early.get("shop/chat") is None or early["shop/chat"].mix.parts[0].units == 4
    late, reasons, run = commit(snapshot, ByPriorityState(changed_seconds={"shop/chat": NOW - 400.0}))
    assert ("shop/chat", "MixChosen") in reasons
    assert late["shop/chat"].mix.dollars_per_hour < 4 * 3.0
    assert run.state().changed_seconds["shop/chat"] == NOW


@pytest.mark.parametrize(
    "standing", [("L4", "l4-od", 1), ("A100-80", "a100-od", 1)], ids=["from an L4", "from an A100"]
)
def test_a_mix_that_must_change_is_grown_rather_than_replaced(standing):
    """Where replacing everything saves little, what runs goes on running."""

    def mix(*parts: tuple[str, str, int]):
        made = mixed().with_service("shop/chat").with_capacity("shop/chat", 3.0, *parts, final=True)
        capacities, _, _ = commit(made.build())
        return capacities["shop/chat"].mix

    free, grown = mix(), mix(standing)
    units = {part.pool: part.units for part in grown.parts}
    assert grown.dollars_per_hour <= free.dollars_per_hour * 1.1 + 1e-9
    assert grown.requests_per_second + 1e-9 >= 3.0
    if grown.dollars_per_hour > free.dollars_per_hour + 1e-9:
        assert units[standing[1]] >= standing[2]


def test_a_mix_on_a_pool_that_is_gone_is_not_kept():
    made = mixed(a100=2).with_service("shop/chat").with_capacity("shop/chat", 1.0, ("A100-80", "a100-od", 1))
    for name in ("a100-od-0", "a100-od-1"):
        made.changing("nodes", name, offer=Offer.LOST)
    capacities, _, _ = commit(made.build())
    assert {part.pool for part in capacities["shop/chat"].mix.parts} == {"l4-od"}


def test_without_any_belief_what_stands_stands():
    """An estimator that is late must not empty a service."""
    made = mixed().with_service("shop/chat").with_capacity("shop/chat", 2.0, ("L4", "l4-od", 3), final=False)
    snapshot = msgspec.structs.replace(made.build(), beliefs=type(made.build().beliefs)())
    capacities, _, run = commit(snapshot)
    assert capacities["shop/chat"].mix.parts[0].units == 3
    assert run.draft.plan().evidence.degraded == ("capacity beliefs of shop/chat",)


# ------------------------------------------------------------------------------------------------------ priorities


def two_services(high: int, low: int, rate: float = 30.0) -> Any:
    made = a_cluster().with_pool("l4-od", "L4").with_nodes(2, "l4-od", gpus=8)
    for name, priority in (("shop/a-low", low), ("shop/b-high", high)):
        made.with_service(name, "L4", objectives=promise(priority)).with_capacity(name, rate, final=False)
    return made


def test_the_higher_priority_is_served_first_and_the_lower_is_told_what_it_lacks():
    capacities, reasons, _ = commit(two_services(high=5, low=0).build())
    assert (
        capacities["shop/b-high"].mix.requests_per_second > capacities["shop/a-low"].mix.requests_per_second
    )
    short = reasons["shop/a-low", "ShortOfCapacity"]
    assert short.limit.value == 16 - sum(p.units for p in capacities["shop/b-high"].mix.parts)


def test_replicas_of_an_equal_priority_are_not_taken_away():
    made = two_services(high=0, low=0)
    for number in range(12):
        made.with_replica("shop/b-high", "L4", f"l4-od-{number // 8}", devices=(number % 8,))
    capacities, _, _ = commit(made.build())
    assert sum(p.units for p in capacities["shop/a-low"].mix.parts) <= 4


def test_replicas_of_a_lower_priority_count_as_room():
    made = two_services(high=5, low=0, rate=20.0)
    for number in range(16):
        made.with_replica("shop/a-low", "L4", f"l4-od-{number // 8}", devices=(number % 8,))
    capacities, _, _ = commit(made.build())
    assert sum(p.units for p in capacities["shop/b-high"].mix.parts) >= 10


WAITING = [
    pytest.param(1, 0, 0, id="a job of lower priority keeps nothing from a service"),
    pytest.param(0, 0, 8, id="a job of the same priority keeps its node"),
    pytest.param(0, 3, 8, id="a job of higher priority keeps its node"),
]


@pytest.mark.parametrize(("service", "job", "kept"), WAITING)
def test_waiting_jobs_keep_their_nodes(service: int, job: int, kept: int):
    made = a_cluster().with_pool("a100-od", "A100-80").with_nodes(2, "a100-od", gpus=8)
    made.with_service("shop/chat", "A100-80", objectives=promise(service)).with_capacity(
        "shop/chat", 500.0, final=False
    )
    made.with_job("lab/job", nodes=(1, 1), priority=job)
    capacities, _, _ = commit(made.build())
    assert sum(part.units for part in capacities["shop/chat"].mix.parts) == 16 - kept


def test_gangs_other_peoples_pods_and_closed_nodes_are_not_available():
    made = a_cluster().with_pool("a100-od", "A100-80").with_nodes(4, "a100-od", gpus=4)
    made.with_job("lab/job", nodes=(1, 1), gpus=4).with_gang("lab/job", ("a100-od-0",))
    made.with_claim("other/pod", "a100-od-1", 0, 1).changing("nodes", "a100-od-2", offer=Offer.CORDONED)
    made.with_service("shop/chat", "A100-80").with_capacity("shop/chat", 500.0, final=False)
    capacities, _, run = commit(made.build())
    assert sum(part.units for part in capacities["shop/chat"].mix.parts) == 4 + 2
    shares = {t.pool: t for t in run.draft.plan().targets if isinstance(t, Share)}
    assert (shares["a100-od"].serving_gpus, shares["a100-od"].training_gpus) == (6, 4)


def test_a_full_pool_has_a_price_and_an_empty_one_has_none():
    made = mixed(l4=1, a100=1).with_service("shop/chat", "L4").with_capacity("shop/chat", 30.0, final=False)
    _, reasons, run = commit(made.build())
    prices = {t.pool: t.dollars_per_gpu_hour for t in run.draft.plan().targets if isinstance(t, Prices)}
    assert prices["l4-od"] > 0.0
    assert prices["a100-od"] == 0.0
    remedy = reasons["shop/chat", "MixChosen"].remedy
    assert remedy.choice == "l4-od"


# ----------------------------------------------------------------------------------------------------- user's size


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.RECOMMEND])
def test_a_user_gets_exactly_the_size_asked_for(mode: Mode):
    made = mixed().with_service("shop/chat", "L4", "A100-80", mode=mode, replicas=3)
    made.with_capacity("shop/chat", 0.0, units=3, owner="user", final=False)
    capacities, reasons, _ = commit(made.build())
    chosen = capacities["shop/chat"]
    assert [(p.variant, p.units) for p in chosen.mix.parts] == [("L4x1-bf16", 3)]
    assert chosen.owner == "user"
    assert render(reasons["shop/chat", "MixChosen"])


def test_a_user_who_asks_for_more_than_there_is_gets_what_there_is_and_is_told():
    made = mixed(l4=1).with_service("shop/chat", "L4", mode=Mode.OFF, replicas=9)
    made.with_capacity("shop/chat", 0.0, units=9, owner="user", final=False)
    capacities, reasons, _ = commit(made.build())
    assert sum(p.units for p in capacities["shop/chat"].mix.parts) == 4
    assert reasons["shop/chat", "ShortOfCapacity"].fact("shed") > 0.0


def test_a_spent_budget_keeps_what_stands_and_says_so():
    made = mixed().with_service("shop/chat").with_capacity("shop/chat", 5.0, ("L4", "l4-od", 2), final=False)
    policy = ByPriority()
    decision = policy.decide(made.build(), policy.initial(), context(units=0))
    capacity = next(t for t in decision.plan.targets if isinstance(t, Capacity))
    assert capacity.mix.parts[0].units == 2
    assert not decision.plan.evidence.optimal

"""The fold of the stages: what takes effect between them, who decides, and what is remembered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster import actions as act
from cluster.base import Ref
from cluster.codec import from_json, to_json
from cluster.owners import STAGES
from cluster.plan import Plan
from cluster.reasons import Quantity, Reason, Verdict, render
from cluster.serving import Mode, Policies
from cluster.snapshot import Snapshot
from cluster.targets import Capacity, Warm
from policies.assignment import Chosen
from policies.draft import merged
from policies.planner import PlannerRun, PlannerStates, run_planner
from policies.registry import PolicyConfigError
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context
from tests.policies.random_snapshots import random_snapshot

SERVICE = "shop/chat"


def cluster(**service: Any) -> ClusterBuilder:
    made = a_cluster().with_pool("l4-od", "L4").with_nodes(4, "l4-od", gpus=8)
    return made.with_service(SERVICE, "L4", **service)


def run(made: ClusterBuilder | Snapshot, states: PlannerStates | None = None, **defaults: Any) -> PlannerRun:
    snapshot = made if isinstance(made, Snapshot) else made.build()
    found = run_planner(snapshot, states or PlannerStates(), context(), defaults)
    for staged in found.stages:
        for reason in staged.plan.reasons:
            assert render(reason)
    return found


def created(found: PlannerRun) -> list[Any]:
    return [a for s in found.stages for a in s.actions if isinstance(a, act.CreateReplica)]


def codes(found: PlannerRun) -> list[str]:
    return [reason.code for staged in found.stages for reason in staged.plan.reasons]


def test_a_declared_load_becomes_replicas_in_one_run():
    found = run(cluster(expected_requests_per_second=8.0, floor_units=1))
    assert [s.stage for s in found.stages] == list(STAGES)
    capacity = found.snapshot.capacity(SERVICE)
    assert capacity.final
    assert capacity.mix.requests_per_second >= 8.0 / 0.7
    assert len(created(found)) == sum(p.units for p in capacity.mix.parts)
    assert found.actions == len(created(found))
    assert sorted(found.snapshot.replicas) == sorted(a.name for a in created(found))
    assert isinstance(found.snapshot.warm(SERVICE), Warm)


def test_a_second_run_on_what_the_first_left_changes_nothing():
    first = run(cluster(expected_requests_per_second=8.0, floor_units=1))
    second = run(first.snapshot, first.states)
    assert created(second) == []
    assert not [t for s in second.stages for t in s.targets if isinstance(t, Capacity)]


def test_states_survive_json_and_decide_the_same():
    first = run(cluster(expected_requests_per_second=8.0, floor_units=1).with_load(SERVICE, 3.0))
    states = from_json(to_json(first.states), PlannerStates)
    a, b = run(first.snapshot, first.states), run(first.snapshot, states)
    assert to_json(a.stages) == to_json(b.stages)
    assert to_json(a.states) == to_json(b.states)


@pytest.mark.parametrize("seed", range(6))
def test_the_whole_run_is_the_same_with_a_warm_scratch(seed: int):
    snapshot = random_snapshot(seed)
    scratch: dict[str, Any] = {}
    plain = run_planner(snapshot, PlannerStates(), context())
    for _ in range(2):
        again = run_planner(snapshot, PlannerStates(), context(scratch=scratch))
        assert to_json(again.stages) == to_json(plain.stages)
        assert to_json(again.states) == to_json(plain.states)


UNREADABLE = [
    pytest.param({"schema": 99}, id="of a schema nobody knows"),
    pytest.param({"schema": 1, "services": 7}, id="of another form"),
    pytest.param("garbage", id="no struct at all"),
]


@pytest.mark.parametrize("stored", UNREADABLE)
def test_a_state_that_cannot_be_read_starts_anew_and_says_so(stored: Any):
    first = run(cluster(expected_requests_per_second=8.0, floor_units=1))
    (key,) = (k for k in first.states.states if k.startswith("scale/"))
    broken = msgspec.structs.replace(first.states, states={**first.states.states, key: stored})
    found = run(first.snapshot, broken)
    assert codes(found).count("StateReset") == 1


# ---------------------------------------------------------------------------------------------------------- mode


def test_off_serves_exactly_what_the_user_asked_for_and_gives_no_advice():
    found = run(cluster(mode=Mode.OFF, replicas=3).with_load(SERVICE, 90.0))
    assert len(created(found)) == 3
    assert "SizedByUser" in codes(found)
    assert not {"ScaledUp", "ScaledFromZero"} & set(codes(found))
    assert found.snapshot.capacity(SERVICE).owner == "user"


def test_recommend_shows_what_it_would_do_and_does_what_it_was_told():
    found = run(cluster(mode=Mode.RECOMMEND, replicas=2).with_load(SERVICE, 30.0))
    assert len(created(found)) == 2
    shown = [t for s in found.stages if s.policy == "hpa" for t in s.plan.targets]
    assert shown[0].wanted_per_second > 30.0
    assert not [t for s in found.stages if s.policy == "hpa" for t in s.targets]


def test_the_users_size_is_said_once():
    first = run(cluster(mode=Mode.OFF, replicas=3))
    second = run(first.snapshot, first.states)
    assert "SizedByUser" not in codes(second)
    assert created(second) == []
    service = msgspec.structs.replace(first.snapshot.services[SERVICE], replicas=1)
    third = run(msgspec.structs.replace(first.snapshot, services={SERVICE: service}), second.states)
    assert sum(p.units for p in third.snapshot.capacity(SERVICE).mix.parts) == 1


def test_back_to_auto_takes_the_size_over():
    first = run(cluster(mode=Mode.OFF, replicas=3).with_load(SERVICE, 3.0))
    service = msgspec.structs.replace(first.snapshot.services[SERVICE], mode=Mode.AUTO)
    second = run(msgspec.structs.replace(first.snapshot, services={SERVICE: service}), first.states)
    capacity = second.snapshot.capacity(SERVICE)
    assert capacity.owner == "commit"
    assert capacity.wanted_per_second > 3.0


# ---------------------------------------------------------------------------------------------- who decides


def choose(name: str, **config: Any) -> Policies:
    return Policies(name={"scale": name}, config={"scale": config} if config else {})


def test_a_services_own_settings_decide_for_it_alone():
    made = cluster(policies=choose("hpa", target=0.5)).with_service("shop/other", "L4")
    made.with_load(SERVICE, 4.0).with_load("shop/other", 4.0)
    found = run(made)
    assert [s.stage for s in found.stages].count("scale") == 2
    wanted = {name: found.snapshot.capacity(name).wanted_per_second for name in (SERVICE, "shop/other")}
    assert wanted[SERVICE] == pytest.approx(8.0, rel=0.06)
    assert wanted["shop/other"] == pytest.approx(4.0 / 0.7, rel=0.06)


def test_a_wrong_choice_falls_back_to_the_default_and_is_told():
    found = run(cluster(policies=choose("magic")).with_load(SERVICE, 4.0))
    (reason,) = (r for s in found.stages for r in s.plan.reasons if r.code == "PolicyConfigInvalid")
    assert "no scale policy is called 'magic'" in render(reason)
    assert found.snapshot.capacity(SERVICE).wanted_per_second == pytest.approx(4.0 / 0.7, rel=0.06)


def test_the_last_good_choice_stays_in_force():
    good = run(cluster(policies=choose("hpa", target=0.5)).with_load(SERVICE, 4.0))
    assert good.states.good == {f"scale|{SERVICE}": Chosen("hpa", {"target": 0.5})}
    found = run(cluster(policies=choose("hpa", target=-3)).with_load(SERVICE, 4.0), good.states)
    assert "PolicyConfigInvalid" in codes(found)
    assert found.snapshot.capacity(SERVICE).wanted_per_second == pytest.approx(8.0, rel=0.06)
    assert found.states.good == good.states.good


def test_a_fault_in_the_operators_own_defaults_is_an_error():
    with pytest.raises(PolicyConfigError, match="no commit policy is called 'none'"):
        run(cluster(), commit=("none", {}))


def test_an_empty_cluster_plans_nothing():
    found = run(Snapshot())
    assert found.actions == 0
    assert codes(found) == []


# ------------------------------------------------------------------------------------------------- reasons, time


def test_equal_reasons_of_a_plan_become_one_with_a_count():
    subject = Ref("ModelService", SERVICE)
    reasons = tuple(
        Reason(
            code="PriceMissing",
            subject=subject,
            verdict=Verdict.REJECTED,
            choice=c,
            have=Quantity("p", 0.0, "$/h"),
        )
        for c in ("a", "b", "a")
    )
    actions = tuple(act.Release(key=str(i), reason=i) for i in range(3))
    plan = merged(Plan(actions=actions, reasons=reasons))
    assert [(r.choice, r.count) for r in plan.reasons] == [("a", 2), ("b", 1)]
    assert [a.reason for a in plan.actions] == [0, 1, 0]


def test_a_day_without_load_ends_at_zero_and_a_held_request_wakes_it():
    """Through the keep-alive to zero, and back with the first request that waits."""
    found = run(cluster(keep_alive_seconds=120.0).with_load(SERVICE, 4.0))
    snapshot, states, now = found.snapshot, found.states, NOW
    quiet = cluster().with_load(SERVICE, 0.0).with_signal(SERVICE, last_arrival_seconds=NOW).build()
    for _ in range(12):
        now += 15.0
        found = at(snapshot, states, now, quiet)
        snapshot, states = found.snapshot, found.states
    assert found.snapshot.capacity(SERVICE).mix.parts == ()
    held = cluster().with_load(SERVICE, 0.1, held=1.0).build()
    found = at(snapshot, states, now + 1.0, held)
    assert "ScaledFromZero" in codes(found)
    assert len(created(found)) >= 1 or any(isinstance(a, act.Resume) for s in found.stages for a in s.actions)


def at(snapshot: Snapshot, states: PlannerStates, now: float, load: Snapshot) -> PlannerRun:
    """One run at another time under the load of another snapshot, measured now."""
    rows = load.signal_table
    fresh = {
        name: getattr(rows, name) if name != "observed_seconds" else [now] * len(rows)
        for name in rows.columns()
    }
    view = msgspec.structs.replace(
        snapshot,
        stamp=msgspec.structs.replace(snapshot.stamp, taken_seconds=now),
        signal_table=type(rows).build(rows.keys, fresh),
        loads={k: msgspec.structs.replace(h, observed_seconds=now) for k, h in load.loads.items()},
    )
    return run_planner(view, states, context(now))

"""Rollouts of a revision: paced within the surge, never a gap, back by itself when the new one does not come."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import actions as act
from cluster.beliefs import Beliefs, StartBelief
from cluster.overlay import Overlay
from cluster.plan import Plan
from cluster.refused import Refused
from cluster.serving import Replica, ReplicaPhase, Rollout, Service
from cluster.snapshot import Snapshot
from placement.models import model_spec
from policies.place.best_fit import BestFit, BestFitState
from policies.place.rollout import RolloutRules
from tests.policies.builders import NOW, ClusterBuilder, context
from tests.policies.fitting import OLD, SERVICE, cluster, codes, of, place
from tests.policies.test_best_fit_changes import live_through

NEW = "new"
ROLLING = Rollout(number=2, began_seconds=NOW - 5.0, complete=False, back_to=OLD)


def rolling(
    old: int, wanted: int, gpus: int = 8, rollout: Rollout = ROLLING, **service: Any
) -> ClusterBuilder:
    """So many ready replicas of the old revision, on one node, and a service that wants the new one."""
    made = cluster(nodes=1, gpus=gpus).with_capacity(SERVICE, 5.0, ("L4", "l4-od", wanted))
    made.changing("services", SERVICE, revision=NEW, rollout=rollout, **service)
    for _ in range(old):
        with_one(made, OLD)
    return made


def with_one(
    made: ClusterBuilder, revision: str, phase: ReplicaPhase = ReplicaPhase.READY, **more: Any
) -> str:
    """One more replica; its key."""
    made.with_replica(SERVICE, "L4", "l4-od-0", phase, revision=revision, **more)
    return max(made.parts["replicas"], key=lambda key: made.parts["replicas"][key].ordinal)


# --------------------------------------------------------------------------------------------------------- pacing


class Pace(NamedTuple):
    """What is there, and what a round does about it."""

    old: int = 0
    ready: int = 0
    starting: int = 0
    draining: int = 0
    wanted: int = 0
    gpus: int = 16
    creates: int = 0
    drains: int = 0
    deletes: int = 0


PACES = [
    pytest.param(Pace(old=4, wanted=4, creates=1), id="one more is started beside the old ones"),
    pytest.param(Pace(old=4, starting=1, wanted=4), id="while it starts nothing else happens"),
    pytest.param(Pace(old=4, ready=1, wanted=4, drains=1), id="once it is ready one old one goes"),
    pytest.param(Pace(old=3, ready=1, draining=1, wanted=4), id="the next waits until the drained one is gone"),
    pytest.param(Pace(old=3, ready=1, wanted=4, creates=1), id="and comes when it is"),
    pytest.param(Pace(old=1, ready=4, wanted=4, drains=1), id="the last old one goes when all new ones are ready"),
    pytest.param(Pace(old=12, wanted=12, creates=1), id="a tenth of twelve is one"),
    pytest.param(Pace(old=30, wanted=30, gpus=40, creates=3), id="a tenth of thirty is three"),
    pytest.param(Pace(old=30, ready=3, wanted=30, gpus=40, drains=3), id="three came, three go"),
    pytest.param(Pace(old=4, wanted=4, gpus=4, drains=1), id="with no free GPU one old one goes first"),
    pytest.param(Pace(old=3, draining=1, wanted=4, gpus=4), id="and its room is waited for"),
    pytest.param(Pace(old=3, wanted=4, gpus=4, creates=1), id="then the new one takes it"),
    pytest.param(Pace(old=3, starting=1, wanted=4, gpus=4), id="and no second one goes meanwhile"),
    pytest.param(Pace(old=1, wanted=1, gpus=1), id="the only one is never given up for its successor"),
    pytest.param(Pace(old=4, wanted=6, creates=3), id="scaled up in the middle: what lacks, and the surge"),
    pytest.param(Pace(old=4, ready=2, wanted=3, drains=3), id="scaled down in the middle: the old ones go"),
    pytest.param(Pace(old=3, ready=2, wanted=0, drains=5), id="nothing wanted any more: all go"),
    pytest.param(Pace(old=2, ready=3, wanted=4, drains=1), id="an old one was lost: the rest in proportion"),
]  # fmt: skip


@pytest.mark.parametrize("pace", PACES)
def test_pacing(pace: Pace):
    made = rolling(pace.old, pace.wanted, pace.gpus)
    for _ in range(pace.ready):
        with_one(made, NEW)
    for _ in range(pace.starting):
        with_one(made, NEW, ReplicaPhase.STARTING, age=5.0)
    for _ in range(pace.draining):
        made.with_row(with_one(made, OLD, ReplicaPhase.DRAINING, age=5.0), running=1.0, waiting=0.0)
    plan, _ = place(made)
    has = (len(of(plan, act.CreateReplica)), len(of(plan, act.Drain)), len(of(plan, act.DeleteReplica)))
    assert has == (pace.creates, pace.drains, pace.deletes)


def test_scaling_is_no_reason_to_replace_anything():
    made = rolling(2, 2)
    made.changing("services", SERVICE, revision=OLD, rollout=Rollout(), floor_units=1)
    plan, _ = place(made)
    assert of(plan, act.CreateReplica) == of(plan, act.Drain) == []


def test_old_replicas_that_never_served_go_at_once():
    made = rolling(2, 3)
    key = with_one(made, OLD, ReplicaPhase.STARTING)
    plan, _ = place(made)
    assert [action.replica.name for action in of(plan, act.DeleteReplica)] == [key]


def test_a_surge_takes_no_ones_room():
    """A replica beside what is wanted is no reason to end somebody of a lower priority."""
    made = rolling(1, 1, gpus=2).with_service("shop/low", "L4", revision="x")
    made.with_capacity("shop/low", 1.0, ("L4", "l4-od", 1)).with_replica(
        "shop/low", "L4", "l4-od-0", revision="x"
    )
    high = msgspec.structs.replace(made.parts["services"][SERVICE].objectives[0], priority=9)
    made.changing("services", SERVICE, objectives=(high,))
    plan, _ = place(made)
    assert plan.actions == () or not of(plan, act.Drain)
    assert "RolloutWaiting" in codes(plan)
    assert "PreemptedFor" not in codes(plan)


@pytest.mark.parametrize(
    ("measured", "code"), [(0.2, "RolloutMakesRoom"), (1_000.0, "RolloutBelowLoad")], ids=["idle", "busy"]
)
def test_room_is_made_and_what_stays_for_the_load_is_told(measured: float, code: str):
    made = rolling(3, 3, gpus=3).with_load(SERVICE, measured)
    plan, _ = place(made)
    reason = next(reason for reason in plan.reasons if reason.code == code)
    assert reason.need is not None
    assert reason.need.value == pytest.approx(measured)


def test_a_new_model_on_other_gpus_comes_before_the_old_one_goes():
    made = cluster(nodes=2, gpus=4).with_capacity(SERVICE, 5.0, ("L4x2", "l4-od", 2))
    made.changing("services", SERVICE, revision=NEW, rollout=ROLLING, model=model_spec("mistral-7b", {}))
    for _ in range(4):
        made.with_replica(SERVICE, "L4", "l4-od-0", revision=OLD)
    plan, state = place(made)
    assert len(of(plan, act.CreateReplica)) == 1
    assert of(plan, act.Drain) == []
    made.with_replica(SERVICE, "L4x2", "l4-od-1", revision=NEW)
    plan, _ = place(made, state)
    assert len(of(plan, act.Drain)) == 2, "half of the new mix is ready: half of the old may go"


def test_a_full_node_is_cleared_for_a_larger_successor():
    """Two old ones of one node go for a successor of two GPUs, not one of each node."""
    made = cluster(nodes=2, gpus=2).with_capacity(SERVICE, 5.0, ("L4x2", "l4-od", 1))
    made.changing("services", SERVICE, revision=NEW, rollout=ROLLING)
    for number in range(4):
        made.with_replica(SERVICE, "L4", f"l4-od-{number // 2}", revision=OLD)
    plan, _ = place(made)
    nodes = {made.parts["claims"][action.subject.name].slot.node for action in of(plan, act.Drain)}
    assert (len(of(plan, act.Drain)), len(nodes)) == (2, 1)


# -------------------------------------------------------------------------------------------------------- judging


class Seen(NamedTuple):
    """Replicas of the new revision beside three old ones, and what is judged of it."""

    phase: ReplicaPhase = ReplicaPhase.STARTING
    age: float = 5.0
    fault: str = ""
    restarts: int = 0
    ready: int = 0
    p99: float = 0.0
    rollout: Rollout = ROLLING
    code: str = ""


NOWHERE = Rollout(number=1, complete=False)
JUDGED = [
    pytest.param(Seen(age=599.0), id="it still has its time"),
    pytest.param(Seen(age=600.0, code="RolloutTimedOut"), id="its time is over"),
    pytest.param(Seen(age=31.0, p99=30.0, code="RolloutTimedOut"), id="a p99 that is believed in counts instead"),
    pytest.param(Seen(age=700.0, p99=900.0), id="and may be longer"),
    pytest.param(Seen(age=61.0, fault="ImagePullBackOff", code="RolloutFaulty"), id="an image that never pulls ends it sooner"),
    pytest.param(Seen(age=30.0, fault="ErrImagePull"), id="a registry may be slow to answer"),
    pytest.param(Seen(age=30.0, fault="CrashLoopBackOff", restarts=3, code="RolloutFaulty"), id="a crash loop ends it sooner"),
    pytest.param(Seen(age=30.0, restarts=2), id="two restarts are none yet"),
    pytest.param(Seen(age=700.0, ready=1), id="one that is slow where another is ready is a node's fault"),
    pytest.param(Seen(age=9.0, phase=ReplicaPhase.LOST), id="a node that was lost is not its fault"),
    pytest.param(Seen(age=4_000.0, rollout=NOWHERE), id="with nothing to go back to it is tried on"),
    pytest.param(Seen(age=700.0, rollout=Rollout(number=2)), id="what was complete once is not given up"),
]  # fmt: skip


@pytest.mark.parametrize("seen", JUDGED)
def test_judging(seen: Seen):
    made = rolling(3, 3, rollout=seen.rollout)
    for _ in range(seen.ready):
        with_one(made, NEW)
    with_one(made, NEW, seen.phase, age=seen.age, fault=seen.fault, restarts=seen.restarts)
    snapshot = made.build()
    if seen.p99:
        belief = StartBelief(
            model=made.parts["services"][SERVICE].model.name, variant="L4x1-bf16", tier="nvme",
            p50_seconds=1.0, p90_seconds=2.0, p99_seconds=seen.p99,
        )  # fmt: skip
        beliefs: Beliefs = msgspec.structs.replace(snapshot.beliefs, start={"one": belief})
        snapshot = msgspec.structs.replace(snapshot, beliefs=beliefs)
    plan, _ = place(snapshot)
    settled = of(plan, act.SettleRevision)
    assert [action.complete for action in settled] == ([False] if seen.code else [])
    if seen.code:
        assert plan.reasons[settled[0].reason].code == seen.code
        assert of(plan, act.CreateReplica) == of(plan, act.DeleteReplica) == of(plan, act.Drain) == [], (
            "nothing follows before it is written down"
        )


@pytest.mark.parametrize(("since", "given_up"), [(599.0, False), (601.0, True)])
def test_a_revision_whose_pods_are_refused_is_given_up_and_nobody_goes_for_it(since: float, given_up: bool):
    refused = Refused(
        sentence="exceeded quota", code=403, attempts=9, since_seconds=NOW - since, wait_seconds=60.0,
        until_seconds=NOW + 30.0,
    )  # fmt: skip
    plan, _ = place(rolling(3, 3, refused=refused))
    assert [action.complete for action in of(plan, act.SettleRevision)] == [False] * given_up
    assert of(plan, act.Drain) == of(plan, act.CreateReplica) == []


def test_three_failures_in_a_row_end_it_even_where_one_was_ready():
    made, state = rolling(3, 4), None
    with_one(made, NEW)
    for number in range(3):
        key = with_one(made, NEW, ReplicaPhase.FAILED, age=1.0, ordinal=20 + number)
        plan, state = place(made, state)
        assert bool(of(plan, act.SettleRevision)) == (number == 2)
        for mapping in ("replicas", "claims", "launchers"):
            made.parts[mapping].pop(key)
    assert next(iter(plan.reasons)).code == "RolloutFailing"


def test_a_success_in_between_begins_the_count_anew():
    made, state = rolling(3, 8), None
    for number in range(6):
        with_one(
            made, NEW, ReplicaPhase.READY if number % 3 == 2 else ReplicaPhase.FAILED, ordinal=20 + number
        )
        plan, state = place(made, state)
        assert not [action for action in of(plan, act.SettleRevision) if not action.complete]


def test_it_is_complete_when_all_are_ready_and_no_old_one_serves():
    made = rolling(0, 2)
    with_one(made, NEW)
    with_one(made, NEW)
    plan, _ = place(made)
    (settled,) = of(plan, act.SettleRevision)
    assert (settled.complete, settled.revision) == (True, NEW)
    with_one(made, OLD)
    assert of(place(made)[0], act.SettleRevision) == []


def test_going_back_ends_the_new_ones_at_once_and_fills_up_with_the_old():
    back = Rollout(number=1, given_up=NEW)
    made = rolling(0, 4, gpus=5, rollout=back)
    made.changing("services", SERVICE, revision=OLD)
    for _ in range(3):
        with_one(made, OLD)
    failing = with_one(
        made, NEW, ReplicaPhase.STARTING, fault="ImagePullBackOff", stage="ImagePullBackOff: no such tag"
    )
    plan, _ = place(made)
    assert [action.replica.name for action in of(plan, act.DeleteReplica)] == [failing]
    assert len(of(plan, act.CreateReplica)) == 1
    assert "ReplicaRevoked" in codes(plan)
    assert of(plan, act.SettleRevision) == []


def test_going_back_takes_back_those_that_still_drain():
    made = rolling(0, 2, rollout=Rollout(number=1, given_up=NEW))
    made.changing("services", SERVICE, revision=OLD)
    with_one(made, OLD)
    drained = with_one(made, OLD, ReplicaPhase.DRAINING, age=5.0)
    made.with_row(drained, running=1.0, waiting=0.0)
    with_one(made, NEW, ReplicaPhase.STARTING)
    plan, _ = place(made)
    assert [action.subject.name for action in of(plan, act.Resume)] == [drained]
    assert of(plan, act.CreateReplica) == []


# --------------------------------------------------------------------------------------------------- to the end


def wander(
    snapshot: Snapshot, rounds: int, breaks: set[str], *, forget: bool = False, now: float = NOW
) -> tuple[Snapshot, list[int], int]:
    """Rounds of placing in a plain world in which engines of revisions in `breaks` never become ready: the snapshot
    at the end, how many were ready in each round, and the most GPUs that were held.
    """
    policy, state, scratch = BestFit(), BestFitState(), {}
    ready, most = [], 0
    for _ in range(rounds):
        ctx = context(now, loop="place", scratch=scratch)
        decision = policy.decide(snapshot, BestFitState() if forget else state, ctx)
        state = decision.state
        snapshot = _after(snapshot, decision.plan, now, breaks)
        now += 10.0
        mine = [r for r in snapshot.replicas.values() if r.service == SERVICE]
        ready.append(sum(1 for r in mine if r.phase is ReplicaPhase.READY))
        most = max(most, len(mine))
    return snapshot, ready, most


def _after(snapshot: Snapshot, plan: Plan, now: float, breaks: set[str]) -> Snapshot:
    before = snapshot.services[SERVICE]
    after = live_through(snapshot, plan, now)
    overlay = Overlay(after)
    for action in of(plan, act.SettleRevision):
        _keep(overlay, before, action)
    for key, replica in after.replicas.items():
        fresh = key not in snapshot.replicas
        if replica.revision in breaks and replica.phase is ReplicaPhase.READY and fresh:
            overlay.put(
                "replicas",
                key,
                phase=ReplicaPhase.STARTING,
                fault="CrashLoopBackOff",
                phase_since_seconds=now,
            )
    return overlay.snapshot()


def _keep(overlay: Overlay, before: Service, action: act.SettleRevision) -> None:
    """As the operator keeps it, beside what the overlay says already."""
    assert action.revision == before.revision
    service = overlay.read("services")[SERVICE]
    assert service.rollout.complete


@settings(max_examples=25, deadline=None)
@given(
    wanted=st.integers(1, 12),
    spare=st.integers(0, 3),
    forget=st.booleans(),
    broken=st.booleans(),
    changed=st.integers(0, 30),
    to=st.integers(1, 12),
)
def test_whatever_happens_it_ends_with_one_revision_and_never_without_a_replica(
    wanted: int, spare: int, forget: bool, broken: bool, changed: int, to: int
):
    """Scaled in the middle, with room or without, with state or without, to a revision that runs or does not."""
    gpus = max(wanted, to) + spare
    snapshot = rolling(wanted, wanted, gpus=gpus).build()
    breaks = {NEW} if broken else set()
    snapshot, first, held = wander(snapshot, changed, breaks, forget=forget)
    target = rolling(0, to, gpus=gpus).parts["targets"]
    snapshot = msgspec.structs.replace(snapshot, targets=dict(target))
    snapshot, second, _ = wander(snapshot, 70, breaks, forget=forget, now=NOW + 10.0 * changed)
    assert min([*first, *second]) >= 1, "there was a moment without a ready replica"
    surge = max(1, int(RolloutRules().surge_share * wanted))
    assert held <= wanted + surge, "more GPUs than what is wanted and the surge"
    mine = [r for r in snapshot.replicas.values() if r.service == SERVICE]
    runs = OLD if broken or (wanted == gpus == 1) else NEW
    assert _ended(mine, runs, to), [(r.key, r.revision, r.phase) for r in mine]
    service = snapshot.services[SERVICE]
    assert service.rollout.given_up == (NEW if broken and service.revision == OLD else "")


def _ended(mine: list[Replica], revision: str, units: int) -> bool:
    return len(mine) == units and all(r.revision == revision and r.phase is ReplicaPhase.READY for r in mine)

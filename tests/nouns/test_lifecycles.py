"""Life cycles: every arrow that is legal, and that nothing else is."""

from __future__ import annotations

import itertools

import pytest

from cluster import lifecycles
from cluster.flight import FlightPhase
from cluster.lifecycles import (
    GANG,
    IN_FLIGHT,
    JOB,
    LEASE,
    REPLICA,
    REQUEST,
    RESERVATION,
    Arrows,
    legal,
    reachable,
)
from cluster.power import LeasePhase
from cluster.serving import ReplicaPhase
from cluster.training import GangPhase, JobPhase

ARROWS: dict[str, tuple[Arrows, set[tuple[str, str]]]] = {
    "replica": (
        REPLICA,
        {
            ("pending", "starting"), ("pending", "gone"),
            ("starting", "ready"), ("starting", "failed"),
            ("ready", "sleeping"), ("sleeping", "asleep"),
            ("ready", "failed"),
            ("asleep", "waking"), ("waking", "ready"),
            ("ready", "draining"), ("asleep", "draining"),
            ("draining", "ready"), ("draining", "stopping"),
            ("stopping", "gone"), ("failed", "gone"), ("lost", "gone"),
            *((phase, "lost") for phase in ("pending", "starting", "ready", "sleeping", "asleep", "waking",
                                            "draining", "stopping", "failed")),
        },
    ),
    "gang": (
        GANG,
        {
            ("forming", "verifying"), ("forming", "failed"),
            ("verifying", "running"), ("verifying", "failed"),
            ("running", "restarting"), ("running", "stopping"), ("running", "done"),
            ("restarting", "verifying"), ("restarting", "failed"),
            ("stopping", "stopped"),
        },
    ),
    "job": (
        JOB,
        {
            ("waiting", "reserved"), ("waiting", "active"), ("waiting", "suspended"), ("waiting", "failed"),
            ("reserved", "active"), ("reserved", "waiting"), ("reserved", "suspended"),
            ("active", "waiting"), ("active", "suspended"), ("active", "done"), ("active", "failed"),
            ("suspended", "waiting"),
        },
    ),
    "request": (
        REQUEST,
        {
            *(("arrived", to) for to in ("held", "dispatched", "rejected", "cancelled")),
            *(("held", to) for to in ("dispatched", "rejected", "cancelled")),
            ("dispatched", "prefill"), ("prefill", "decoding"),
            *(pair for pair in itertools.product(("dispatched", "prefill", "decoding"),
                                                 ("dispatched", "held", "finished", "cancelled", "failed"))
              if pair[0] != pair[1]),
        },
    ),
    "lease": (
        LEASE,
        {
            ("none", "sent"), ("sent", "active"), ("sent", "expired"), ("active", "sent"), ("active", "expired"),
            ("expired", "none"), ("expired", "sent"),
        },
    ),
    "action in flight": (
        IN_FLIGHT,
        {
            ("issued", "acked"),
            *itertools.product(("issued", "acked"), ("done", "failed", "expired")),
        },
    ),
    "reservation": (
        RESERVATION,
        {
            ("future", "held"), ("future", "released"), ("future", "expired"),
            ("held", "consumed"), ("held", "released"), ("held", "expired"),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arrows", "wanted"), ARROWS.values(), ids=ARROWS.keys())
def test_every_arrow_of_a_life_is_legal_and_everything_else_is_refused(
    arrows: Arrows, wanted: set[tuple[str, str]]
) -> None:
    for source, target in itertools.product(arrows, arrows):
        assert legal(arrows, source, target) is (source == target or (source, target) in wanted), (
            source,
            target,
        )


@pytest.mark.parametrize(
    ("arrows", "phases"),
    [(REPLICA, ReplicaPhase), (GANG, GangPhase), (JOB, JobPhase), (LEASE, LeasePhase), (IN_FLIGHT, FlightPhase)],
    ids=["replica", "gang", "job", "lease", "action in flight"],
)  # fmt: skip
def test_a_life_names_exactly_the_phases_its_noun_has(arrows: Arrows, phases: type[str]) -> None:
    named = set(arrows) | {target for targets in arrows.values() for target in targets}
    assert named == {str(phase) for phase in phases}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arrows", "source", "target", "follows"),
    [
        pytest.param(REPLICA, "pending", "ready", True, id="a start whose stages nobody saw"),
        pytest.param(REPLICA, "pending", "failed", True, id="a pod refused by its kubelet before anybody saw it start"),
        pytest.param(REPLICA, "ready", "asleep", True, id="a sleep seen only when it was done"),
        pytest.param(REPLICA, "draining", "gone", True, id="a drained replica seen only when it was gone"),
        pytest.param(REPLICA, "draining", "failed", True, id="a crash while draining"),
        pytest.param(REPLICA, "ready", "pending", False, id="a ready replica is never unbound again"),
        pytest.param(REPLICA, "stopping", "ready", False, id="a stopping replica does not come back"),
        pytest.param(REPLICA, "lost", "ready", False, id="a lost replica does not come back under its uid"),
        pytest.param(REPLICA, "gone", "lost", False, id="what is gone cannot be lost"),
        pytest.param(REPLICA, "gone", "gone", True, id="staying is always possible"),
        pytest.param(GANG, "forming", "done", True, id="a short attempt seen only at its end"),
        pytest.param(GANG, "running", "failed", True, id="a running gang that lost a node"),
        pytest.param(GANG, "stopping", "running", False, id="a stopping gang does not run on"),
        pytest.param(GANG, "failed", "running", False, id="a failed attempt is over"),
        pytest.param(JOB, "suspended", "done", True, id="a job resumed and finished between two looks"),
        pytest.param(JOB, "done", "waiting", False, id="a finished job does not queue again"),
        pytest.param(REQUEST, "rejected", "dispatched", False, id="a rejected request is over"),
        pytest.param(LEASE, "none", "expired", True, id="a lease that came and went"),
        pytest.param({}, "here", "there", False, id="nothing leads out of an unknown state"),
    ],
)  # fmt: skip
def test_an_observer_accepts_what_a_path_of_arrows_leads_to(
    arrows: Arrows, source: str, target: str, follows: bool
) -> None:
    assert reachable(arrows, source, target) is follows


def test_a_path_is_found_through_cycles_and_given_up_where_there_is_none() -> None:
    ring = {"a": frozenset({"b"}), "b": frozenset({"a", "c"}), "c": frozenset({"a"}), "d": frozenset({"a"})}
    assert reachable(ring, "a", "c")
    assert not reachable(ring, "a", "d")


def test_a_legal_arrow_is_always_a_path() -> None:
    for arrows, wanted in ARROWS.values():
        assert all(reachable(arrows, source, target) for source, target in wanted)


def test_terminal_states_lead_nowhere() -> None:
    ends = {
        name: sorted(s for s, targets in arrows.items() if not targets)
        for name, (arrows, _) in ARROWS.items()
    }
    assert ends == {
        "replica": ["gone"],
        "gang": ["done", "failed", "stopped"],
        "job": ["done", "failed"],
        "request": ["cancelled", "failed", "finished", "rejected"],
        "lease": [],
        "action in flight": ["done", "expired", "failed"],
        "reservation": ["consumed", "expired", "released"],
    }
    assert lifecycles.REPLICA["lost"] == {"gone"}

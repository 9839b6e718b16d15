"""Which starts are timed: whole ones, of a revision's first replica on a node."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from cluster.observer import Observer
from cluster.serving import Launcher, ReplicaPhase
from controller.starts import StartBeliefs
from tests.nouns.cases import L4, replica, service, slot
from tests.nouns.observing import gone, seen

PENDING, STARTING, READY = ReplicaPhase.PENDING, ReplicaPhase.STARTING, ReplicaPhase.READY
LOST, FAILED = ReplicaPhase.LOST, ReplicaPhase.FAILED
Step = tuple[float, ReplicaPhase]
TOOK = 90.0


class Play:
    """Replicas that go through phases, and what is believed of it."""

    def __init__(self) -> None:
        self.observer = Observer()
        self.observer.fold(seen(service()))
        self.starts = StartBeliefs()

    def see(self, name: str, phase: ReplicaPhase, at: float, node: str, revision: str = "r1") -> None:
        """One replica in one phase, as the watch tells."""
        found = msgspec.structs.replace(replica(name, phase), phase_since_seconds=at, revision=revision)
        launcher = Launcher(key=name, ref=found.ref, slots=(slot(node, 0),), variant=L4, phase=phase)
        self.observer.fold(seen(launcher, at))
        self.observer.fold(seen(found, at))

    def start(self, name: str, node: str, steps: Iterable[Step], revision: str = "r1") -> None:
        """One replica through its phases, looked at after each."""
        for at, phase in steps:
            self.see(name, phase, at, node, revision)
            self.starts.refresh(self.observer, at)

    def many(self, steps: Iterable[Step], revision: str = "r1", on: str = "") -> None:
        """Six replicas through the same phases, each on its own node unless `on` names one."""
        for number in range(6):
            self.start(f"{revision}-{number}", on or f"n{number}", list(steps), revision)

    @property
    def p50(self) -> float:
        """Seconds believed; 0 where nothing is."""
        belief = self.observer.beliefs.start.get(f"{service().model.name}|{L4.key}|cold")
        return belief.p50_seconds if belief is not None else 0.0


WHOLE = [(0.0, PENDING), (10.0, STARTING), (10.0 + TOOK, READY)]


@pytest.fixture
def play() -> Play:
    made = Play()
    made.starts.refresh(made.observer, 0.0)
    return made


def test_starts_are_timed_from_being_bound_to_being_ready(play: Play) -> None:
    play.many(WHOLE)
    assert play.p50 == pytest.approx(TOOK)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(0.0, PENDING), (5.0, STARTING)], id="one that is under way"),
        pytest.param([(0.0, STARTING), (5.0, FAILED)], id="one that fails"),
        pytest.param([(0.0, STARTING), (5.0, LOST)], id="one whose node is lost"),
        pytest.param([(0.0, PENDING), (5.0, READY)], id="one whose beginning nobody saw"),
    ],
)
def test_what_is_no_whole_start_is_not_timed(play: Play, steps: list[Step]) -> None:
    play.many(steps)
    assert play.p50 == 0.0


def test_replicas_beside_the_first_on_a_node_find_its_image_there(play: Play) -> None:
    play.many(WHOLE, on="n0")
    assert play.p50 == 0.0, "five of six were warm"
    play.many(WHOLE, revision="r2")
    assert play.p50 == pytest.approx(TOOK), "another revision pulls another image"


def test_what_a_new_operator_finds_under_way_has_no_known_beginning() -> None:
    play = Play()
    for number in range(6):
        play.see(f"r1-{number}", STARTING, 50.0, f"n{number}")
    play.starts.refresh(play.observer, 50.0)
    for number in range(6):
        play.see(f"r1-{number}", READY, 60.0, f"n{number}")
        play.starts.refresh(play.observer, 60.0)
    assert play.p50 == 0.0


def test_where_a_revision_ran_before_this_operator_is_warm() -> None:
    play = Play()
    for number in range(6):
        play.see(f"old-{number}", READY, 0.0, f"n{number}")
    play.starts.refresh(play.observer, 1.0)
    for number in range(6):
        play.observer.fold(gone("replicas", f"old-{number}"))
    play.many(WHOLE)
    assert play.p50 == 0.0


def test_a_replica_that_goes_while_it_starts_is_forgotten(play: Play) -> None:
    play.many([(0.0, STARTING)])
    for number in range(6):
        play.observer.fold(gone("replicas", f"r1-{number}"))
    play.starts.refresh(play.observer, 5.0)
    play.many([(200.0, READY)])
    assert play.p50 == 0.0

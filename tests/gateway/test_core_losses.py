"""The core when instances die, refuse, drain or leave: each request is replayed, waits or ends, once."""

from __future__ import annotations

import pytest

from gateway.hold import HoldConfig
from gateway.messages import End, EventKind, RouteState
from tests.gateway.worlds import CHAT, World, arrival, codes, core, instance, service


def test_an_instance_that_dies_has_its_requests_replayed_by_another_owner() -> None:
    world = World()
    world.route(service(instance("a", "n1"), instance("b", "n2")))
    world.step(arrival(1, 0.1), arrival(2, 0.2))
    first = world.sent[0]
    world.fold(world.frame("n1", [world.event(first, EventKind.FIRST_TOKEN, 0.9, 1)]), world.frame("n2"))
    world.core.node_down("n1", world.now)
    world.step()
    again = world.sent[-1]
    assert (again.request_id, again.epoch, again.instance) == (first.request_id, 2, "shop/b")
    assert (again.submitted_seconds, again.arrived_seconds) == (1.0, 0.1)
    late = world.serve([first], first=1.1, last=1.2)
    world.fold(world.frame("n2", [*late, *world.serve([again], first=1.8, last=1.9)]))
    world.step()
    (ending,) = world.endings
    assert (ending.retries, ending.first_token_seconds, ending.instance) == (1, 1.8, "shop/b")
    assert world.core.counts.stale_events == 2


def test_with_no_instance_left_a_lost_request_waits_ahead_of_newer_ones_and_is_never_turned_away_for_room() -> (
    None
):
    world = World(core(hold=HoldConfig(first_burst=1)))
    world.route(service(instance("a", "n1"), hold_limit=1))
    world.step(arrival(1, 0.1), arrival(2, 0.2))
    world.core.node_down("n1", world.now)
    world.step(arrival(3, 1.5))
    assert world.core.services[CHAT].held.first_comers == 1
    assert world.endings == []
    world.core.node_up("n1", world.now)
    world.step()
    assert [s.request_id for s in world.sent[2:]] == [1, 2, 3]


def test_a_lost_request_fails_when_nobody_is_ready_before_the_deadline() -> None:
    world = World()
    world.route(service(instance("a", "n1"), hold_deadline=3.0))
    world.step(arrival(1, 0.1))
    world.core.node_down("n1", world.now)
    for _ in range(4):
        world.step()
    assert codes(world) == [(1, End.FAILED, "LostDeadline")]
    assert world.endings[0].ended_seconds == 4.0


def test_a_request_that_every_owner_loses_fails_after_the_limit() -> None:
    world = World(core(owners_limit=3))
    world.route(service(instance("a", "n1")))
    world.step(arrival(1, 0.1))
    for _ in range(3):
        world.fold(world.frame("n1", [world.event(world.sent[-1], EventKind.FAILED)]))
        world.step()
    assert [s.epoch for s in world.sent] == [1, 2, 3]
    assert codes(world) == [(1, End.FAILED, "LostOwners")]


def test_who_refuses_is_left_alone_for_a_second_and_the_request_goes_elsewhere() -> None:
    world = World()
    world.route(service(instance("a", "n1", 0.9), instance("b", "n2", 0.1)))
    world.step(arrival(1, 0.1))
    refused = world.sent[0]
    assert refused.instance == "shop/a"
    world.fold(world.frame("n1", [world.event(refused, EventKind.REFUSED)]), world.frame("n2"))
    world.step(arrival(2, 1.5))
    assert [s.instance for s in world.sent[1:]] == ["shop/b", "shop/b"]
    assert world.core.counts.refused_by_engine == 1
    world.step(arrival(3, 2.5))
    assert world.sent[-1].instance == "shop/a"


def test_an_instance_that_its_node_lists_no_more_is_lost() -> None:
    world = World()
    world.route(service(instance("a", "n1"), instance("b", "n2")))
    world.step(arrival(1, 0.1))
    world.fold(world.frame("n1", absent=["shop/a"]), world.frame("n2"))
    world.step(arrival(2, 1.5))
    assert [s.instance for s in world.sent[1:]] == ["shop/b", "shop/b"]
    world.fold(world.frame("n1"))
    world.step(arrival(3, 2.5))
    assert world.sent[-1].instance == "shop/a"


def test_what_was_sent_after_the_frame_that_an_absence_is_told_by_is_not_taken_back() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step()
    world.step(arrival(1, 1.5))
    world.fold(world.frame("n1", absent=["shop/a"], tick=1))
    assert world.core.counts.retried == 0
    world.fold(world.frame("n1", absent=["shop/a"], tick=2))
    assert world.core.counts.retried == 1


@pytest.mark.parametrize(
    "state", [RouteState.DRAINING, RouteState.MASKED, RouteState.ASLEEP], ids=lambda state: state.name.lower()
)
def test_a_row_that_is_not_ready_gets_nothing_new_and_finishes_what_it_has(state: RouteState) -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step(arrival(1, 0.1))
    world.route(service(instance("a", "n1", state=state), instance("b", "n2")))
    world.step(arrival(2, 1.1), arrival(3, 1.2))
    assert [s.instance for s in world.sent] == ["shop/a", "shop/b", "shop/b"]
    world.fold(world.frame("n1", world.serve([world.sent[0]])))
    world.step()
    assert codes(world) == [(1, End.FINISHED, "")]


def test_a_row_that_leaves_the_routes_is_told_to_stop_and_its_requests_move() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step(arrival(1, 0.1))
    world.route(service(instance("b", "n2")))
    world.step()
    assert world.core.counts.lost_rows == 1
    assert world.cancelled == [(1, 1)]
    assert [(s.instance, s.epoch) for s in world.sent] == [("shop/a", 1), ("shop/b", 2)]


def test_another_uid_under_the_same_name_is_another_instance() -> None:
    world = World()
    world.route(service(instance("a", "n1", uid="u1")))
    world.step(arrival(1, 0.1))
    world.route(service(instance("a", "n1", uid="u2")))
    world.step()
    assert [s.epoch for s in world.sent] == [1, 2]


def test_a_row_that_joins_a_node_with_a_stream_serves_at_once() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.route(service(instance("a", "n1", 0.1), instance("b", "n1", 0.9)), up=False)
    world.step(arrival(1, 0.1))
    assert world.sent[0].instance == "shop/b"


def test_what_is_on_its_way_to_an_instance_that_is_not_there_is_not_pending_any_more() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step(arrival(1, 0.1))
    world.fold(world.frame("n1", absent=["shop/a"]))
    (row,) = world.core.services[CHAT].rows.ordered
    assert (row.pending, row.pending_tokens, row.open) == (0, 0, {})


def lost_and_held() -> tuple[World, tuple[object, ...]]:
    """A request that lost its owner, waits for another, and whose service then leaves the routes."""
    world = World()
    whole = (service(instance("a", "n1")), service(name="shop/other"))
    world.route(*whole)
    world.step(arrival(1, 0.1))
    world.core.node_down("n1", world.now)
    world.step()
    assert len(world.core.services[CHAT].held) == 1
    world.route(service(name="shop/other"), up=False)
    return world, whole


@pytest.mark.parametrize("ready", [True, False], ids=["with an instance", "with nobody ready"])
def test_a_service_that_leaves_the_routes_and_is_back_before_the_next_step_gets_its_waiting_requests(
    ready: bool,
) -> None:
    world, whole = lost_and_held()
    world.route(*whole, up=ready)  # type: ignore[arg-type]
    world.step()
    assert [s.epoch for s in world.sent] == ([1, 2] if ready else [1])
    assert len(world.core.services[CHAT].held) == (0 if ready else 1)
    assert world.core.refused_transitions == {}
    assert world.core.open_requests == 1


def test_a_client_that_leaves_meanwhile_takes_its_request_with_it() -> None:
    world, _ = lost_and_held()
    assert world.core.cancel_client(0, world.now) == 1
    world.step()
    assert codes(world) == [(1, End.CANCELLED, "ClientGone")]
    assert world.core.open_requests == 0


def test_what_was_sent_to_an_instance_that_its_node_does_not_list_is_not_pending_there() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step(arrival(1, 0.1))
    world.fold(world.frame("n1", absent=["shop/a"]))
    rows = world.core.services[CHAT].rows
    assert (rows.ordered[0].pending, rows.table.pending[0], rows.table.pending_tokens[0]) == (0, 0.0, 0.0)

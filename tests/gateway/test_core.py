"""The core, case by case: dispatching, holding, pacing, routes, refusing."""

from __future__ import annotations

import pytest

from gateway.core import GatewayConfig, GatewayCore
from gateway.hold import HoldConfig, Pacer
from gateway.messages import End, RouteTable, Window
from tests.gateway.worlds import CHAT, World, arrival, codes, core, instance, service


def test_a_request_is_sent_at_its_arrival_and_its_latency_starts_there() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step(arrival(7, 0.25))
    (sent,) = world.sent
    assert (sent.submitted_seconds, sent.arrived_seconds, sent.epoch, sent.instance) == (
        0.25,
        0.25,
        1,
        "shop/a",
    )
    world.fold(world.frame("n1", world.serve([sent], first=0.75, last=0.95)))
    world.step()
    (ending,) = world.endings
    assert (ending.end, ending.tag, ending.first_token_seconds, ending.finished_seconds) == (
        End.FINISHED,
        7,
        0.75,
        0.95,
    )
    assert (ending.output_tokens, ending.retries, ending.instance) == (50, 0, "shop/a")
    assert world.core.open_requests == 0


def test_requests_spread_in_proportion_to_route_weights() -> None:
    world = World()
    world.route(service(instance("a", "n1", 0.75), instance("b", "n2", 0.25)))
    world.step(*(arrival(k, k / 100) for k in range(80)))
    share = sum(s.instance == "shop/a" for s in world.sent)
    assert share == 60


def test_own_dispatches_of_the_window_count_before_any_report() -> None:
    world = World()
    world.route(service(instance("a", "n1"), instance("b", "n2")))
    world.step(*(arrival(k, k / 10) for k in range(6)))
    assert [s.instance for s in world.sent] == ["shop/a", "shop/b"] * 3
    rows = world.core.services[CHAT].rows.ordered
    assert [row.pending for row in rows] == [3, 3]
    world.fold(world.frame("n1"), world.frame("n2"))
    assert [row.pending for row in rows] == [0, 0]
    assert world.core.services[CHAT].rows.table.running.tolist() == [3, 3]


def test_a_report_that_does_not_know_the_newest_frame_leaves_it_pending() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step(arrival(1, 0.1))
    world.step(arrival(2, 1.1), arrival(3, 1.2))
    world.fold(world.frame("n1", tick=1))
    (row,) = world.core.services[CHAT].rows.ordered
    assert (row.pending, row.pending_tokens) == (2, 200)


def test_requests_of_a_service_at_zero_are_held_reported_at_once_and_leave_when_ready() -> None:
    world = World()
    world.route(service())
    world.step(arrival(1, 0.5))
    assert world.urgent
    assert world.sent == []
    (load,) = world.core.report(1.0).loads
    assert (load.held, load.oldest_held_seconds, load.arrived) == (1, 0.5, 1)
    world.step(arrival(2, 1.5))
    assert not world.urgent
    world.route(service(instance("a", "n1")))
    world.step()
    assert [(s.submitted_seconds, s.arrived_seconds) for s in world.sent] == [(2.0, 0.5), (2.0, 1.5)]
    world.fold(world.frame("n1", world.serve(world.sent, first=2.5, last=2.9)))
    world.step()
    assert [ending.held_seconds for ending in world.endings] == [1.5, 0.5]


def test_a_full_hold_queue_refuses_with_the_time_after_which_there_is_room() -> None:
    world = World()
    world.route(service(hold_limit=2, hold_deadline=30.0))
    world.step(arrival(1, 0.1), arrival(2, 0.2), arrival(3, 0.3))
    (ending,) = world.endings
    assert (ending.tag, ending.end, ending.code) == (3, End.REJECTED, "RejectCap")
    assert ending.retry_after_seconds >= 1.0
    assert "try again in" in ending.message


def test_a_hold_queue_is_bounded_in_bytes_too() -> None:
    world = World(core(hold=HoldConfig(bytes_limit=1_000)))
    world.route(service())
    world.step(
        arrival(1, 0.1, body_bytes=600), arrival(2, 0.2, body_bytes=600), arrival(3, 0.3, body_bytes=400)
    )
    assert codes(world) == [(2, End.REJECTED, "RejectCap")]
    assert world.core.services[CHAT].held.bytes == 1_000


def test_a_held_request_is_refused_when_its_deadline_passes_inside_a_window() -> None:
    world = World()
    world.route(service(hold_deadline=2.5))
    world.step(arrival(1, 0.25))
    world.step()
    assert world.endings == []
    world.step()
    (ending,) = world.endings
    assert (ending.code, ending.ended_seconds, ending.held_seconds) == ("RejectDeadline", 2.75, 2.5)


@pytest.mark.parametrize(
    ("ready_first", "end"),
    [(False, End.REJECTED), (True, End.FAILED)],
    ids=["while held it is turned away", "while it runs it is withdrawn from its engine and has failed"],
)
def test_a_clients_own_deadline(ready_first: bool, end: End) -> None:
    world = World()
    world.route(service(*([instance("a", "n1")] if ready_first else [])))
    world.step(arrival(1, 0.25, deadline_seconds=1.75))
    world.step()
    (ending,) = world.endings
    assert (ending.end, ending.code, ending.ended_seconds) == (end, "ClientDeadline", 1.75)
    assert world.cancelled == ([(1, 1)] if ready_first else [])


def test_release_is_paced_in_doubling_bursts_and_new_arrivals_queue_behind() -> None:
    world = World(core(hold=HoldConfig(first_burst=2, pace_seconds=0.25)))
    world.route(service())
    world.step(*(arrival(k, k / 100) for k in range(20)))
    world.route(service(instance("a", "n1")))
    world.step(arrival(99, 1.3))
    by_time: dict[float, int] = {}
    for sent in world.sent:
        by_time[sent.submitted_seconds] = by_time.get(sent.submitted_seconds, 0) + 1
    assert by_time == {1.0: 2, 1.25: 4, 1.5: 8, 1.75: 7}
    assert world.sent[-1].arrived_seconds == 1.3


def test_a_burst_is_not_given_twice_however_often_one_looks() -> None:
    pacer = Pacer(HoldConfig(first_burst=2, pace_seconds=1.0, pace_growth=3.0))
    assert not pacer.open
    assert pacer.allowance(0.0, 2) == 4
    pacer.took(3)
    assert pacer.allowance(0.5, 2) == 1
    pacer.took(1)
    assert pacer.allowance(0.9, 2) == 0
    assert (pacer.allowance(1.0, 2), pacer.next_seconds) == (12, 2.0)
    pacer.close()
    assert pacer.allowance(1.5, 1) == 2


@pytest.mark.parametrize(
    ("epoch", "version", "taken"),
    [(2, 5, True), (3, 1, True), (2, 4, False), (2, 3, False), (1, 99, False)],
    ids=[
        "next version",
        "next leader",
        "same table again",
        "older version",
        "older leader with a newer version",
    ],
)
def test_only_a_newer_route_table_is_obeyed(epoch: int, version: int, taken: bool) -> None:
    gateway = core()
    assert gateway.apply_routes(RouteTable(2, 4, (service(instance("a", "n1")),)), 0.0)
    assert gateway.apply_routes(RouteTable(epoch, version, ()), 1.0) is taken
    assert (CHAT in gateway.services) is not taken
    counts = gateway.counts
    assert counts.routes_old_epoch + counts.routes_old_version == (0 if taken else 1)


def test_a_removed_service_turns_away_its_held_and_fails_its_running_requests() -> None:
    world = World()
    world.route(service(instance("a", "n1")), service(name="shop/cold"))
    world.step(arrival(1, 0.1), arrival(2, 0.2, name="shop/cold"))
    world.route()
    world.step(arrival(3, 1.5))
    assert codes(world) == [
        (2, End.REJECTED, "RejectNoService"),
        (1, End.FAILED, "LostService"),
        (3, End.REJECTED, "RejectNoService"),
    ]


def test_a_client_that_goes_away_has_all_its_requests_withdrawn() -> None:
    world = World()
    world.route(service(instance("a", "n1")), service(name="shop/cold"))
    world.step(
        arrival(1, 0.1, client=5), arrival(2, 0.2, client=5, name="shop/cold"), arrival(3, 0.3, client=6)
    )
    assert world.core.cancel_client(5, world.now) == 2
    world.step()
    assert codes(world) == [(1, End.CANCELLED, "ClientGone"), (2, End.CANCELLED, "ClientGone")]
    assert world.cancelled == [(1, 1)]
    assert world.core.open_requests == 1
    assert world.core.services["shop/cold"].held.bytes == 0


@pytest.mark.parametrize(
    ("bad", "needle"),
    [
        (arrival(1, 5.0), "after the window ends"),
        (arrival(1, float("nan")), "arrives at nan"),
        (arrival(1, 0.5, prompt=0), "0 prompt"),
        (arrival(1, 0.5, output=0), "0 output"),
        (arrival(1, 0.5, deadline_seconds=float("inf")), "deadline"),
    ],
    ids=["from the future", "at no time", "without a prompt", "wanting nothing", "with an endless deadline"],
)
def test_a_request_that_is_not_valid_is_turned_away_with_a_sentence(bad: object, needle: str) -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step(bad)  # type: ignore[arg-type]
    (ending,) = world.endings
    assert (ending.end, ending.code) == (End.REJECTED, "RejectInvalid")
    assert needle in ending.message


def test_a_request_too_long_for_all_instances_is_turned_away_and_blocks_nobody() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step()
    world.fold(world.frame("n1"))
    world.step(arrival(1, 1.1, prompt=99_990), arrival(2, 1.2))
    assert codes(world) == [(1, End.REJECTED, "RejectTooLong")]
    assert [s.arrived_seconds for s in world.sent] == [1.2]


def test_open_requests_are_bounded_over_all_services() -> None:
    world = World(core(open_limit=2))
    world.route(service(instance("a", "n1")))
    world.step(*(arrival(k, k / 10) for k in range(3)))
    assert codes(world) == [(2, End.REJECTED, "RejectOverload")]


def test_a_late_arrival_is_taken_in_at_the_present_window_with_its_own_time() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step()
    world.step(arrival(1, 0.5))
    assert (world.sent[0].submitted_seconds, world.sent[0].arrived_seconds) == (1.0, 0.5)
    assert world.core.counts.late_arrivals == 1


def test_windows_cannot_go_back() -> None:
    gateway = core()
    gateway.step(Window(1, 10.0, 11.0))
    for window in (Window(1, 11.0, 12.0), Window(2, 9.0, 12.0), Window(2, 11.0, 10.5)):
        with pytest.raises(ValueError, match="must grow"):
            gateway.step(window)


def test_a_gateway_needs_the_default_policy() -> None:
    with pytest.raises(ValueError, match="least_outstanding"):
        GatewayCore(GatewayConfig(), {})


def test_who_waits_too_long_makes_room_for_a_later_arrival_of_the_same_window() -> None:
    world = World()
    world.route(service(hold_limit=1, hold_deadline=0.5))
    world.step(arrival(1, 0.1), arrival(2, 0.7))
    assert codes(world) == [(1, End.REJECTED, "RejectDeadline")]
    assert [ticket.arrival.tag for ticket in world.core.services[CHAT].held] == [2]

"""The core, case by case: holding, pacing, dispatching, replaying, draining, refusing."""

from __future__ import annotations

import pytest

from cluster.actions import Dispatch, Hold
from cluster.plan import Context, Decision, Plan
from cluster.views import DispatchView
from gateway.core import GatewayConfig, GatewayCore
from gateway.hold import HoldConfig, Pacer
from gateway.messages import ClassRoute, End, EventKind, RouteState, RouteTable, ServiceRoute, Window
from policies.dispatch.least_outstanding import LeastOutstanding, LeastOutstandingState
from tests.gateway.worlds import CHAT, World, arrival, core, instance, service


def codes(world: World) -> list[tuple[int, End, str]]:
    return [(ending.tag, ending.end, ending.code) for ending in world.endings]


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


def test_counts_and_held_survive_a_change_of_classes_and_edges() -> None:
    world = World()
    world.route(service())
    world.step(arrival(1, 0.1), arrival(2, 0.2))
    changed = ServiceRoute(
        CHAT,
        classes=(ClassRoute("interactive", 1.0, 0.05), ClassRoute("batch", 60.0, 1.0)),
        input_edges=(64.0, 128.0),
        output_edges=(64.0,),
    )
    world.route(changed)
    world.step(arrival(3, 1.5, request_class="batch"), arrival(4, 1.6, request_class="nobody knows"))
    loads = {load.request_class: load for load in world.core.report(2.0).loads}
    assert (loads["interactive"].arrived, loads["interactive"].held) == (3, 3)
    assert (loads["batch"].arrived, loads["batch"].held) == (1, 1)
    assert loads["interactive"].input_edges == (64.0, 128.0)


def test_a_report_tells_attainment_and_latency_of_what_finished() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step(arrival(1, 0.5, output=11), arrival(2, 0.5, output=11))
    fast, slow = world.sent
    served = [*world.serve([fast], first=1.0, last=1.5), *world.serve([slow], first=3.0, last=3.5)]
    world.fold(world.frame("n1", served))
    (load,) = world.core.report(3.5).loads
    assert (load.window_finished, load.window_attained, load.finished) == (2, 1, 2)
    assert (load.ttft_seconds, load.tpot_seconds) == (2.5, 0.05)
    (row,) = world.core.report(3.5).instances
    assert (row.outstanding, row.connected, row.kv_capacity_tokens) == (0, True, 100_000)


@pytest.mark.parametrize(
    ("first", "last", "attained"),
    [(2.5, 3.5, 1), (2.51, 3.5, 0), (2.5, 3.51, 0), (0.6, 1.6, 1)],
    ids=["both just in time", "the first token too late", "the others too slow", "both early"],
)
def test_an_objective_is_met_only_by_first_token_and_pace_together(
    first: float, last: float, attained: int
) -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    world.step(arrival(1, 0.5, output=11))
    world.fold(world.frame("n1", world.serve(world.sent, first=first, last=last)))
    assert world.core.report(4.0).loads[0].window_attained == attained


def test_counts_tell_each_kind_of_end_and_each_class_its_own() -> None:
    world = World(core(owners_limit=1))
    world.route(service(instance("a", "n1")), service(name="shop/cold", hold_limit=1))
    world.step(
        arrival(1, 0.1), arrival(2, 0.2), arrival(3, 0.3, client=9),
        arrival(4, 0.4, name="shop/cold"), arrival(5, 0.5, name="shop/cold"), arrival(6, 0.6, name="shop/cold"),
    )  # fmt: skip
    done, lost, _ = world.sent
    world.fold(world.frame("n1", [*world.serve([done]), world.event(lost, EventKind.FAILED)]))
    world.core.cancel_client(9, world.now)
    counts = world.core.counts
    assert (counts.arrived, counts.finished, counts.rejected, counts.failed, counts.cancelled) == (
        6,
        1,
        2,
        1,
        1,
    )
    assert (counts.dispatched, counts.held, counts.retried) == (3, 1, 0)
    assert dict(counts.codes) == {"RejectCap": 2, "LostOwners": 1, "ClientGone": 1}
    loads = {load.service: load for load in world.core.report(world.now).loads}
    chat, cold = loads[CHAT], loads["shop/cold"]
    assert (chat.arrived, chat.finished, chat.rejected, chat.lost) == (3, 1, 0, 2)
    assert (cold.arrived, cold.finished, cold.rejected, cold.lost) == (3, 0, 2, 0)
    assert (chat.rejected_per_second, cold.rejected_per_second) == (0.0, 2.0)
    assert world.core.report(20.0).loads[1].rejected_per_second == pytest.approx(2 / 20)
    assert world.core.report(70.0).loads[1].rejected_per_second == 0.0


def test_a_loss_is_counted_with_its_class_and_an_output_of_another_length_too() -> None:
    world = World()
    world.route(service(instance("a", "n1"), instance("b", "n2")))
    world.step(arrival(1, 0.1))
    world.fold(world.frame("n1", [world.event(world.sent[0], EventKind.FAILED)]), world.frame("n2"))
    world.step()
    again = world.sent[1]
    finished = world.event(again, EventKind.FINISHED, tokens=again.output_tokens - 1)
    world.fold(world.frame("n1" if again.instance == "shop/a" else "n2", [finished]))
    assert world.core.report(world.now).loads[0].retried == 1
    assert world.core.counts.short_outputs == 1
    (ending,) = world.core.collect()
    assert (ending.output_tokens, ending.first_token_seconds) == (49, world.now)


def test_who_waits_too_long_makes_room_for_a_later_arrival_of_the_same_window() -> None:
    world = World()
    world.route(service(hold_limit=1, hold_deadline=0.5))
    world.step(arrival(1, 0.1), arrival(2, 0.7))
    assert codes(world) == [(1, End.REJECTED, "RejectDeadline")]
    assert [ticket.arrival.tag for ticket in world.core.services[CHAT].held] == [2]


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


def test_the_policy_cannot_write_what_it_reads() -> None:
    world = World()
    world.route(service(instance("a", "n1")))
    table = world.core.services[CHAT].rows.table
    for name in table.columns():
        with pytest.raises(ValueError, match="read-only"):
            getattr(table, name)[0] = 1.0


class Reluctant:
    """Holds everything until a time, though there are instances that are ready."""

    def __init__(self, until_seconds: float) -> None:
        self._until = until_seconds
        self._then = LeastOutstanding()

    def initial(self) -> LeastOutstandingState:
        return self._then.initial()

    def decide(
        self, view: DispatchView, state: LeastOutstandingState, ctx: Context
    ) -> Decision[LeastOutstandingState]:
        if ctx.now_seconds < self._until:
            return Decision(Plan(actions=(Hold(reason=0, request=view.request.id),)), state)
        return self._then.decide(view, state, ctx)


def test_a_policy_that_holds_while_instances_are_ready_is_asked_again_at_the_pace() -> None:
    policies = {"least_outstanding": LeastOutstanding(), "reluctant": Reluctant(1.3)}
    world = World(GatewayCore(GatewayConfig(hold=HoldConfig(pace_seconds=0.25)), policies))
    route = ServiceRoute(CHAT, instances=(instance("a", "n1"),), dispatch_policy="reluctant")
    world.route(route)
    world.step(arrival(1, 0.125))
    assert (world.sent, world.urgent) == ([], False)
    world.step()
    assert [s.submitted_seconds for s in world.sent] == [1.375]


def test_a_dispatch_to_a_row_that_is_not_ready_is_not_carried_out() -> None:
    class Stubborn(Reluctant):
        """Names a row whatever its state."""

        def decide(
            self, view: DispatchView, state: LeastOutstandingState, ctx: Context
        ) -> Decision[LeastOutstandingState]:
            names = Dispatch(
                reason=-1, request=view.request.id, instance=view.instances.keys[0], code="X", score=0.0
            )
            return Decision(Plan(actions=(names,)), state)

    world = World(GatewayCore(GatewayConfig(), {"least_outstanding": Stubborn(0.0)}))
    world.route(service(instance("a", "n1", state=RouteState.DRAINING), instance("b", "n2")))
    world.step(arrival(1, 0.1))
    assert world.sent == []
    assert len(world.core.services[CHAT].held) == 1

"""What the core counts and reports, and the policy it asks: each end by kind and class, attainment and pace."""

from __future__ import annotations

import pytest

from cluster.actions import Dispatch, Hold
from cluster.plan import Context, Decision, Plan
from cluster.views import DispatchView
from gateway.core import GatewayConfig, GatewayCore
from gateway.hold import HoldConfig
from gateway.messages import ClassRoute, EventKind, RouteState, ServiceRoute
from policies.dispatch.least_outstanding import LeastOutstanding, LeastOutstandingState
from tests.gateway.worlds import CHAT, World, arrival, core, instance, service


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

"""Agents' and gateways' reports as events of the model."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cluster.observer import Observer
from cluster.power import Lease, LeasePhase
from cluster.serving import LoadHistogram
from controller.hub.messages import GangSeen, GpuColumns, InstanceSeen, LeaseSeen, NodeReport
from controller.observe.gangs import Progress
from controller.observe.reports import fold_agent
from controller.observe.sketches import FORGET_SECONDS, SketchBook
from controller.routes import GatewayReport, InstanceLoad, ServiceLoad
from tests.observe import objects as made
from tests.observe.objects import NOW, Play, device, engine_pod, inventory, node

NAN = float("nan")


def report(of: str = "n1", at: float = NOW, **parts: Any) -> NodeReport:
    return NodeReport(
        node=of, tick=1, sequence=1, observed_seconds=at, delivered_seconds=at, boot_id="b", last_command_sequence=0, **parts
    )  # fmt: skip


def lease(**more: Any) -> LeaseSeen:
    fields = {
        "epoch": 1,
        "sequence": 2,
        "watts": 500,
        "clock_mhz": 0,
        "expires_seconds": NOW + 5,
        "safe_watts": 350,
        "active": True,
        "readback_watts": 490,
    }
    return LeaseSeen(**{**fields, **more})


def instance(name: str = "shop/chat-0", **more: Any) -> InstanceSeen:
    fields = {
        "running": 3, "waiting": 1, "kv_free_tokens": 100, "kv_capacity_tokens": 400, "head_of_line_seconds": 0.5,
        "capped_speed": 0.9, "last_busy_seconds": NOW, "generated_tokens": 7, "step_base_seconds": 0.01,
        "step_per_sequence_seconds": 0.002, "step_per_context_token_seconds": None,
    }  # fmt: skip
    return InstanceSeen(name=name, **{**fields, **more})


def row(play: Play, table: str = "node_table", key: str = "n1") -> dict[str, float]:
    return dict(getattr(play.observer.snapshot(play.now), table).rows())[key]


def test_a_whole_report_fills_every_column_it_knows() -> None:
    play = Play(node(), engine_pod())
    fold_agent(
        play.world,
        report(
            inventory=inventory(device(0), device(1)), node_watts=300.0, lease=lease(), instances=(instance(),),
            gpus=GpuColumns(clock_mhz=(900, 1_200), utilisation=(0.5, 1.0), memory_used_bytes=(10, 20)),
        ),
        NOW + 1,
    )  # fmt: skip
    seen = row(play)
    assert {k: v for k, v in seen.items() if not math.isnan(v)} == {
        "observed_seconds": NOW, "watts": 300.0, "clock_mhz": 900.0, "lease_watts": 490.0, "lease_expires_seconds": NOW + 5,
        "safe_watts": 350.0, "min_watts": 180.0, "max_watts": 244.0, "demand_watts": 300.0, "utilisation": 0.75,
        "memory_used_bytes": 30.0,
    }  # fmt: skip
    engine = row(play, "instance_table", "shop/chat-0")
    assert {k: v for k, v in engine.items() if not math.isnan(v)} == {
        "observed_seconds": NOW, "running": 3.0, "waiting": 1.0, "kv_free_tokens": 100.0, "kv_capacity_tokens": 400.0,
        "head_wait_seconds": 0.5, "speed": 0.9, "step_base_seconds": 0.01, "step_per_request_seconds": 0.002,
    }  # fmt: skip
    play.tell()
    assert [d.uuid for d in play.live("nodes")["n1"].devices] == ["GPU-0", "GPU-1"]
    assert play.world.last_report["n1"] == NOW


def test_an_empty_report_is_a_sign_of_life_only() -> None:
    play = Play(node())
    fold_agent(play.world, report(at=NOW + 3), NOW + 4)
    assert {k for k, v in row(play).items() if not math.isnan(v)} == {"observed_seconds"}
    assert play.world.last_report["n1"] == NOW + 3
    assert play.observer.snapshot(NOW).stamp.sources["agents"] == NOW + 3


def test_readings_that_are_missing_stay_unknown() -> None:
    play = Play(node())
    fold_agent(
        play.world,
        report(gpus=GpuColumns(clock_mhz=(None, 800), utilisation=(NAN, 0.25), memory_used_bytes=(None, 5))),
        NOW,
    )
    assert (row(play)["clock_mhz"], row(play)["utilisation"], row(play)["memory_used_bytes"]) == (
        800.0,
        0.25,
        5.0,
    )
    other = Play(node())
    fold_agent(
        other.world, report(gpus=GpuColumns(clock_mhz=(None,), utilisation=(NAN,), memory_used_bytes=())), NOW
    )
    assert all(math.isnan(row(other)[name]) for name in ("clock_mhz", "utilisation", "memory_used_bytes"))


@pytest.mark.parametrize(
    ("watts", "held", "demand"),
    [
        pytest.param(
            300.0, lease(watts=500, readback_watts=0), 300.0, id="well below its cap it wants what it draws"
        ),
        pytest.param(474.0, lease(watts=500, readback_watts=0), 474.0, id="just below the margin"),
        pytest.param(
            475.0, lease(watts=500, readback_watts=0), 244.0, id="at its cap it may want its maximum"
        ),
        pytest.param(300.0, None, 300.0, id="without a cap it takes what it wants"),
        pytest.param(300.0, lease(watts=0, readback_watts=0), 300.0, id="a cap of nothing is none"),
    ],
)
def test_what_a_node_would_draw_if_it_were_free(watts: float, held: LeaseSeen | None, demand: float) -> None:
    play = Play(node())
    fold_agent(
        play.world, report(inventory=inventory(device(0), device(1)), node_watts=watts, lease=held), NOW
    )
    assert row(play)["demand_watts"] == demand


def test_a_cap_told_before_still_counts_and_an_unknown_maximum_is_no_demand() -> None:
    play = Play(node())
    fold_agent(play.world, report(lease=lease(watts=500, readback_watts=500)), NOW)
    fold_agent(play.world, report(node_watts=499.0, at=NOW + 1), NOW + 1)
    assert row(play)["demand_watts"] == 499.0
    fold_agent(play.world, report(inventory=inventory(device(0)), node_watts=499.0, at=NOW + 2), NOW + 2)
    assert row(play)["demand_watts"] == 172.0


def test_a_lease_without_safe_watts_leaves_those_of_the_inventory() -> None:
    play = Play(node())
    fold_agent(play.world, report(inventory=inventory(device(0)), lease=lease(safe_watts=0)), NOW)
    assert row(play)["safe_watts"] == 340.0
    other = Play(node())
    fold_agent(other.world, report(lease=lease(safe_watts=0)), NOW)
    assert math.isnan(row(other)["safe_watts"])


def test_an_agent_answers_the_grant_it_holds() -> None:
    play = Play(node())
    play.world._fold(
        Lease(
            node="n1",
            watts=500,
            charged_watts=600,
            epoch=1,
            sequence=2,
            issued_seconds=NOW,
            expires_seconds=NOW + 9,
        ),
        NOW,
    )
    fold_agent(play.world, report(lease=lease(sequence=1)), NOW)
    assert play.live("leases")["n1"].phase is LeasePhase.SENT
    fold_agent(play.world, report(lease=lease(sequence=2)), NOW)
    assert play.live("leases")["n1"].phase is LeasePhase.ACTIVE


def test_ranks_tell_their_gangs_progress() -> None:
    play = Play(node())
    told = GangSeen(
        job="shop/train",
        job_uid="u",
        attempt=2,
        ranks=4,
        ranks_joined=3,
        step=12,
        last_checkpoint_step=10,
        phase="running",
        step_seconds=1.0,
        fault="",
    )
    fold_agent(play.world, report(gangs=(told,)), NOW)
    assert play.world.workloads.reported["shop/train-a2"] == {"n1": Progress(3, 12, 10, "running")}


# gateways


def load(service: str = "shop/chat", **more: Any) -> ServiceLoad:
    fields = {
        "traffic_class": "chat",
        "window_seconds": 10.0,
        "input_edges": (100.0,),
        "output_edges": (10.0, 20.0),
        "cells": (1.0, 2.0),
    }
    return ServiceLoad(service=service, **{**fields, **more})


def outstanding(name: str, requests: int, tokens: int = 0) -> InstanceLoad:
    return InstanceLoad(
        name=name, service="shop/chat", outstanding=requests, pending_tokens=tokens, running=0, waiting=0, kv_free_tokens=0,
        kv_capacity_tokens=0, connected=True,
    )  # fmt: skip


def told(
    gateway: str, *loads: ServiceLoad, at: float = NOW, instances: tuple[InstanceLoad, ...] = ()
) -> GatewayReport:
    return GatewayReport(
        gateway=gateway,
        tick=1,
        sequence=1,
        observed_seconds=at,
        delivered_seconds=at,
        loads=loads,
        instances=instances,
    )


class Gateways:
    """A book of sketches over a model of one service and one replica."""

    def __init__(self) -> None:
        self.play = Play(node(), made.service(), engine_pod())
        self.book = SketchBook()

    @property
    def observer(self) -> Observer:
        return self.play.observer

    def tell(self, report: GatewayReport, now: float = NOW) -> bool:
        return self.book.fold(self.observer, report, now)

    def loads(self) -> dict[str, LoadHistogram]:
        return self.observer.live("loads")

    def signals(self) -> dict[str, float]:
        return dict(self.observer.snapshot(NOW).signal_table.rows())["shop/chat"]


def test_load_is_the_sum_over_gateways_and_latency_the_worst() -> None:
    gateways = Gateways()
    gateways.tell(told("g1", load(held=3, rejected_per_second=0.5, ttft_seconds=1.0, tpot_seconds=0.02)))
    gateways.tell(
        told("g2", load(cells=(0.5, 0.5), held=1, ttft_seconds=3.0, tpot_seconds=0.01), at=NOW + 2), NOW + 2
    )
    assert gateways.loads() == {
        "shop/chat|chat": LoadHistogram(
            service="shop/chat", request_class="chat", input_edges=(100,), output_edges=(10, 20), cells=(1.5, 2.5),
            window_seconds=10.0, held_per_second=0.4, rejected_per_second=0.5, observed_seconds=NOW + 2,
        )
    }  # fmt: skip
    assert {k: v for k, v in gateways.signals().items() if not math.isnan(v)} == {
        "observed_seconds": NOW + 2, "requests_per_second": 4.0, "held": 4.0, "rejected_per_second": 0.5,
        "ttft_p99_seconds": 3.0, "tpot_p99_seconds": 0.02, "last_arrival_seconds": NOW + 2,
        "size_plans": 0.0,
    }  # fmt: skip


def test_a_newer_sketch_of_a_gateway_replaces_its_older_one() -> None:
    gateways = Gateways()
    gateways.tell(told("g1", load(cells=(5.0, 5.0))))
    gateways.tell(told("g1", load(cells=(1.0, 0.0))))
    assert gateways.loads()["shop/chat|chat"].cells == (1.0, 0.0)


@pytest.mark.parametrize(
    ("age", "cells"),
    [(FORGET_SECONDS, (2.0, 4.0)), (FORGET_SECONDS + 0.1, (1.0, 2.0))],
    ids=["still counted", "forgotten"],
)
def test_a_gateway_that_is_silent_for_long_no_longer_counts(age: float, cells: tuple[float, ...]) -> None:
    gateways = Gateways()
    gateways.tell(told("g1", load()))
    gateways.tell(told("g2", load(), at=NOW + age), NOW + age)
    assert gateways.loads()["shop/chat|chat"].cells == cells


@pytest.mark.parametrize(
    "other",
    [
        load(cells=(9.0,)),
        load(input_edges=(200.0,), cells=(9.0, 9.0)),
        load(output_edges=(10.0, 30.0), cells=(9.0, 9.0)),
    ],
    ids=["another number of cells", "other input edges", "other output edges"],
)
def test_a_gateway_on_another_grid_adds_no_cells(other: ServiceLoad) -> None:
    gateways = Gateways()
    gateways.tell(told("g1", load()))
    gateways.tell(told("g2", other))
    assert gateways.loads()["shop/chat|chat"].cells == (1.0, 2.0)


def test_classes_and_services_are_kept_apart_and_an_unnamed_class_is_the_default() -> None:
    gateways = Gateways()
    gateways.tell(told("g1", load(), load(traffic_class=""), load("shop/other")))
    assert sorted(gateways.loads()) == ["shop/chat|chat", "shop/chat|default", "shop/other|chat"]
    assert gateways.signals()["requests_per_second"] == 6.0


def test_requests_that_begin_to_wait_wake_the_planner_whatever_the_window() -> None:
    gateways = Gateways()
    assert gateways.tell(told("g1", load())) is False
    assert gateways.tell(told("g1", load(held=1, window_seconds=0.0))) is True
    assert gateways.loads()["shop/chat|chat"].held_per_second == 1.0
    assert gateways.tell(told("g1", load(held=2))) is False


def test_a_service_without_arrivals_has_no_last_one_and_held_ones_are_arrivals() -> None:
    gateways = Gateways()
    gateways.tell(told("g1", load(cells=(0.0, 0.0))))
    assert math.isnan(gateways.signals()["last_arrival_seconds"])
    gateways.tell(told("g1", load(cells=(0.0, 0.0), held=1), at=NOW + 4))
    assert gateways.signals()["last_arrival_seconds"] == NOW + 4
    assert math.isnan(gateways.signals()["ttft_p99_seconds"])


def test_outstanding_requests_add_up_over_gateways() -> None:
    gateways = Gateways()
    gateways.tell(told("g1", instances=(outstanding("shop/chat-0", 2, 30),)))
    gateways.tell(told("g2", instances=(outstanding("shop/chat-0", 1, 5), outstanding("stranger", 9))))
    engine = row(gateways.play, "instance_table", "shop/chat-0")
    assert (engine["pending"], engine["pending_tokens"]) == (3.0, 35.0)
    assert gateways.observer.snapshot(NOW).instance_table.keys == ("shop/chat-0",)

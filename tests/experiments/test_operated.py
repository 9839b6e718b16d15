"""Scenarios of a whole cluster: what the planner does in them, what is refused before a run, and captures as a beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from controller.records import read_record
from simulator.experiments.operated import operated_of, prepared
from simulator.experiments.operating import streams
from simulator.experiments.runs import Run
from simulator.experiments.scenario import load, with_settings
from simulator.experiments.simulating import promise_of, simulate, verify
from simulator.physics.catalogue import GPU_SPECS
from simulator.physics.power import server_watts
from simulator.traces.requests import Tally
from simulator.world.operated.world import OperatedWorld
from simulator.world.spec import ScenarioError
from tests.scenarios.plays_serving import GROW
from tests.scenarios.scenario import play

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "container_seconds": 0.5, "process_seconds": 1.0, "engine_seconds": 0.5, "warm_up_seconds": 0.5, "tier": "dram",
    "jitter": 0.0,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "seconds": 120.0,
    "inventory": [{"prefix": "l4", "gpu": "L4", "gpus": 2, "count": 3}],
    "services": [
        {
            "name": "shop/chat",
            "spec": {
                "model": {"name": "llama-3.1-8b"},
                "objectives": [{"class": "default", "ttftSeconds": 3.0, "tpotSeconds": 0.12}],
                "accelerators": ["l4"],
                "minReplicas": 1,
                "drainSeconds": 10,
                "policies": {
                    "scale": {"name": "hpa", "config": {"sync_seconds": 2.0, "stabilisation_seconds": 4.0}}
                },
            },
            "traffic": {"steps": {"rates": [{"at": 5, "rate": 6}, {"at": 30, "rate": 0}]}},
        }
    ],
    "start": QUICK,
    "operator": {"plan_seconds": 5.0},
    "policies": {"commit": {"name": "by_priority", "config": {"hold_seconds": 5.0}}},
}


def changed(*settings: tuple[str, Any]) -> dict[str, Any]:
    return with_settings(SMALL, settings)


def test_the_planner_of_a_scenario_adds_and_removes_instances_and_says_why() -> None:
    found = simulate(_bytes(SMALL), Run((), 1))
    kinds = {row.kind for row in found.log if row.outcome == "done"}
    assert kinds >= {"CreateReplica", "SetRoutes", "Drain", "DeleteReplica"}
    assert max(found.series["ready shop/chat"]) > found.series["ready shop/chat"][-1] > 0
    assert found.figures["completed"] == found.figures["arrived"] > 100
    assert all(row.why for row in found.log)
    held = sum(m * 1.0 for m in found.series["timeline_gpus"]) / 3_600.0
    assert found.figures["gpu_hours"] == pytest.approx(held, rel=0.1)
    assert found.figures["dollars"] == pytest.approx(found.figures["gpu_hours"] * 0.805, rel=0.01)
    assert promise_of(SMALL) == {"ttft_seconds": 3.0, "tpot_seconds": 0.12}


def test_the_same_seed_decides_the_same() -> None:
    first, again = (simulate(_bytes(SMALL), Run((), 3)) for _ in range(2))
    assert first == again
    assert simulate(_bytes(SMALL), Run((), 4)).log != first.log


def test_the_shipped_scenario_can_be_run() -> None:
    given = load(ROOT / "docs/scenarios/cluster.yaml")
    verify(given, Run((), 1))
    found = simulate(_bytes(given), Run((("seconds", 120.0),), 1))
    assert found.figures["ready shop/chat"] > 0.0


def test_the_event_budget_ends_a_cluster_with_a_partial_report() -> None:
    found = simulate(_bytes(SMALL), Run((("event_budget", 300),), 1))
    assert (found.figures["complete"], found.figures["events"]) == (0.0, 300.0)
    assert found.log


CHAT = "services.0.spec"


@pytest.mark.parametrize(
    ("given", "path", "sentence"),
    [
        pytest.param(changed((f"{CHAT}.minReplicas", 7)), "services[0].spec.minReplicas", "asks for 7 replicas; the inventory has room for 6 of L4x1-bf16", id="more replicas than inventory"),
        pytest.param(changed((f"{CHAT}.policies.scale.name", "magic")), "services[0].spec.policies.scale.name", "magic", id="an unknown policy of a service"),
        pytest.param(changed(("policies.place", {"name": "worst_fit"})), "policies.place", "no place policy is called 'worst_fit'", id="an unknown policy of the cluster"),
        pytest.param(changed(("policies.plaice", {"name": "best_fit"})), "policies.plaice", "names no loop", id="an unknown loop"),
        pytest.param(changed(("policies.commit.config.hold_seconds", -1.0)), "policies.commit", "hold_seconds", id="a policy's setting out of range"),
        pytest.param(changed(("seconds", -3)), "seconds", "is -3.0; it must be positive", id="a negative length"),
        pytest.param(changed(("delays.watch_seconds", -0.1)), "delays.watch_seconds", "is -0.1", id="a negative delay"),
        pytest.param(changed(("outages", [{"node": "l4-00", "at_seconds": -1}])), "outages[0].at_seconds", "is -1.0", id="an outage before the beginning"),
        pytest.param(changed(("outages", [{"node": "l4-00", "at_seconds": 5, "back_seconds": 4}])), "outages[0].back_seconds", "must be after", id="back before it went"),
        pytest.param(changed(("outages", [{"node": "l5-00", "at_seconds": 5}])), "outages[0].node", "'l5-00', which the inventory does not have", id="an outage of nobody"),
        pytest.param(changed((f"{CHAT}.minReplica", 1)), "services[0].spec.minReplica", "is no field of ModelService", id="a slip in a service"),
        pytest.param(changed((f"{CHAT}.minReplicas", -1)), "services[0].spec.minReplicas", "greater than or equal to 0", id="fewer replicas than none"),
        pytest.param(changed((f"{CHAT}.accelerators", ["h900"])), "services[0].spec", "'h900', which no AcceleratorClass describes", id="a product nobody has"),
        pytest.param(changed(("inventory.0.gpu", "L44")), "inventory[0].gpu", "did you mean", id="a slip in a product"),
        pytest.param(changed(("inventory.0.count", 0)), "inventory[0].count", "must be positive", id="no machine"),
        pytest.param(changed(("inventory.0.colour", "red")), "inventory[0]", "unknown field `colour`", id="a slip in the inventory"),
        pytest.param(changed(("services.0.traffic.steps.rates.1.at", 5)), "services[0].traffic.steps.rates[1].at", "seconds count from 0 and rise", id="steps out of order"),
        pytest.param(changed(("services.0.traffic.steps.rates.0.rate", -2)), "services[0].traffic.steps.rates[0].rate", "must not be negative", id="a negative rate"),
        pytest.param(changed(("services.0.traffic", "measured")), "services[0].traffic", "there is no snapshot", id="measured nowhere"),
        pytest.param(changed(("services", SMALL["services"] * 2)), "services[1].name", "as that of another one", id="two of one name"),
        pytest.param(changed(("snapshot", "/nowhere.json")), "snapshot", "cannot be read", id="a capture that is not there"),
        pytest.param(changed(("jobs", [{"name": "lab/bert", "spec": {"model": {"name": "gpt-3-1.3b", "sequenceLength": 2048}, "nodes": {"min": 4}, "gpusPerNode": 2, "steps": 10, "globalBatch": 16}}])), "jobs[0].spec.nodes.min", "is 4; at most 3 machines", id="a gang wider than the cluster"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_before_the_run(
    given: dict[str, Any], path: str, sentence: str
) -> None:
    with pytest.raises(ScenarioError) as refused:
        verify(given, Run((), 1))
    assert refused.value.path == path
    assert sentence in str(refused.value)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A planner run of a play, as `plimsoll snapshot` writes it."""
    return play(GROW, tmp_path_factory.mktemp("play")).records[8]


def test_a_captured_cluster_goes_on_where_it_was(record: bytes, tmp_path: Path) -> None:
    captured = read_record(record).snapshot
    ready = sorted(key for key, replica in captured.replicas.items() if replica.phase == "ready")
    assert len(ready) >= 4
    (tmp_path / "cluster.json").write_bytes(record)
    given = {"seconds": 60.0, "snapshot": str(tmp_path / "cluster.json"), "start": QUICK}
    scenario = operated_of(given)
    found = prepared(scenario, 1)
    world = OperatedWorld(found.spec, streams(scenario, found, 1, Tally()))
    first = world.observer.snapshot(world.origin, 1)
    assert first.replicas.keys() == captured.replicas.keys()
    assert first.nodes == captured.nodes
    assert first.targets == captured.targets
    assert first.beliefs == captured.beliefs
    assert {key: claim.slot for key, claim in first.claims.items()} == {
        k: c.slot for k, c in captured.claims.items()
    }
    outcome = world.run()
    rate = sum(load.requests_per_second for load in captured.loads.values())
    assert outcome.arrived == pytest.approx(rate * 60.0, rel=0.25), "the load goes on as it was measured"
    assert outcome.completed == outcome.arrived - len(world.book.open)
    assert outcome.ttft_p99_seconds < 3.0, "nobody waited for a start"
    created = [row.subject for row in world.log.rows if row.kind == "CreateReplica"]
    assert not set(created) & set(captured.replicas)


def test_what_if_asks_a_captured_cluster_with_more_machines(record: bytes, tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_bytes(record)
    steps = {"steps": {"rates": [{"at": 0, "rate": 14}, {"at": 60, "rate": 0}]}}
    given = {
        "seconds": 90.0, "snapshot": str(tmp_path / "cluster.json"), "start": QUICK,
        "services": [{"name": "shop/chat", "traffic": steps}],
    }  # fmt: skip
    more = given | {"inventory": [{"prefix": "more", "gpu": "L4", "gpus": 2, "count": 4}]}
    without, asked = (simulate(_bytes(each), Run((), 1)) for each in (given, more))
    assert max(without.series["timeline_gpus"]) <= 6 < max(asked.series["timeline_gpus"])
    assert asked.figures["ttft_p99_seconds"] < without.figures["ttft_p99_seconds"]


def _bytes(given: dict[str, Any]) -> bytes:
    return msgspec.json.encode(given)


def test_a_job_of_a_scenario_is_trained_and_counted() -> None:
    job = {
        "model": {"name": "gpt-3-1.3b", "sequenceLength": 2048}, "nodes": {"min": 2}, "gpusPerNode": 8, "steps": 50,
        "globalBatch": 16, "accelerators": ["h100"], "checkpoint": {"intervalSeconds": 10, "secondsToWrite": 1},
    }  # fmt: skip
    machines = {"prefix": "h100", "gpu": "H100", "gpus": 8, "count": 3, "network": "infiniband", "ports": 8}
    given = changed(("jobs", [{"name": "lab/bert", "spec": job}])) | {
        "seconds": 300.0,
        "start": {},
        "power": {},
    }
    given["inventory"] = [*SMALL["inventory"], machines]
    found = simulate(_bytes(given), Run((), 1))
    assert found.figures["steps lab/bert"] == 50
    assert found.figures["actions StartGang"] == 1
    assert found.figures["gpu_hours"] > 16 * 30 / 3_600
    most = GPU_SPECS["H100"].tdp_watts * 3_600 * found.figures["gpu_hours"]
    assert 0.0 < found.figures["joules_boundary"] < found.figures["joules_training"] < most


def test_watts_of_machines_are_booked_and_told_by_agents_and_meters() -> None:
    server = {"spec": {"ratingWatts": 4_000}, "name": "row"}
    given = changed(("power", {"meter": {"delay_seconds": 3.0}}), ("domains", [server]),
                    ("outages", [{"node": "l4-02", "at_seconds": 60.0, "back_seconds": 90.0}]))  # fmt: skip
    found = simulate(_bytes(given), Run((), 1))
    figures = found.figures
    idle = server_watts(2 * GPU_SPECS["L4"].idle_watts, 2)
    assert figures["joules"] > 120.0 * 3 * idle - 30.0 * idle
    assert figures["joules_decode"] > figures["joules_prefill"] > 0.0
    assert figures["peak_share_row"] == pytest.approx(figures["watts_peak"] / 4_000)
    node = dict(zip(found.series["watts_seconds"], found.series["watts_node_l4-02"], strict=True))
    assert {watts for at, watts in node.items() if 61.0 < at < 89.0} == {0.0}
    without = simulate(_bytes(SMALL), Run((), 1))
    assert not [name for name in without.figures if "joules" in name]


def test_what_the_operator_hears_of_watts_is_the_machines_own_mean() -> None:
    given = changed(("power", {}), ("domains", [{"name": "row", "spec": {"ratingWatts": 4_000}}]))
    scenario = operated_of(given)
    world = OperatedWorld(prepared(scenario, 1).spec, {})
    world.run()
    idle = server_watts(2 * GPU_SPECS["L4"].idle_watts, 2)
    table = world.observer.node_rows.publish()
    quiet = [watts for name, watts in zip(table.keys, table.watts, strict=True) if name == "l4-02"]
    assert quiet == [pytest.approx(idle)]
    assert world.observer.domain_rows.get("row", "meter_watts") == pytest.approx(3 * idle)

"""The packing figure: the protocol, every list that is found, and sentences where data is missing or broken."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from benchmarks import packing, packing_runs
from benchmarks.base import Arguments, BenchmarkError

KEYS = ["alloc_by_trace_policy", "bound_by_trace", "ms_per_pod"]
PODS_HEAD = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos"


def _pods(path: Path, rows: list[tuple[int, int, int, str]], memory_mib: int = 1_024) -> None:
    """A pod list; the last pod wants so much memory, all others 1 GiB."""
    lines = [f"p{i},{cpu},1024,{gpus},{milli},{spec},LS" for i, (cpu, gpus, milli, spec) in enumerate(rows)]
    lines[-1] = lines[-1].replace(",1024,", f",{memory_mib},")
    path.write_text("\n".join([PODS_HEAD, *lines]) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    openb = tmp_path / "openb"
    openb.mkdir()
    nodes = [f"n{i},64000,262144,{2 + 2 * (i % 2)},{'T4' if i % 3 else 'A10'}" for i in range(10)]
    nodes.append("cpu,64000,262144,0,")
    (openb / packing_runs.NODES).write_text("\n".join(["sn,cpu_milli,memory_mib,gpu,model", *nodes]) + "\n")
    mixed = [(4_000, 1, 500, ""), (8_000, 1, 810, ""), (2_000, 1, 190, ""), (6_000, 1, 1_000, "T4"),
             (8_000, 2, 1_000, ""), (9_000, 0, 0, "")]  # fmt: skip
    _pods(openb / "openb_pod_list_default.csv", mixed * 4)
    _pods(openb / "openb_pod_list_of_mine.csv", [(4_000, 1, 600, ""), (2_000, 1, 400, "A10|T4")] * 8)
    return tmp_path


def _renamed(openb: Path, *names: str) -> None:
    text = (openb / packing_runs.NODES).read_text()
    (openb / packing_runs.NODES).unlink()
    for name in names:
        (openb / f"openb_node_list_{name}.csv").write_text(text)


def test_every_list_found_is_run_under_every_rule(folder: Path) -> None:
    result = packing.run(Arguments(data=folder, seed=5, one_seed=True))
    assert list(result.figures)[:3] == KEYS
    alloc = result.figures["alloc_by_trace_policy"]
    assert sorted(alloc) == ["default", "of_mine"]
    names = {"random", "dotprod", "clustering", "packing", "bestfit", "fgd", "ours", "ours_moving"}
    for trace, row in alloc.items():
        assert set(row) == names
        assert all(0.0 < value <= 100.0 for value in row.values()), trace
    assert result.figures["bound_by_trace"]["of_mine"] == 100.0
    assert result.figures["ms_per_pod"] > 0.0
    assert result.figures["seeds"] == 1
    assert msgspec.json.encode(result.figures)
    assert "seed 5" in result.remark


def test_the_same_seed_gives_the_same_percentages(folder: Path) -> None:
    args = Arguments(data=folder, seed=9, one_seed=True)
    once, again = packing.run(args), packing.run(args)
    assert once.figures["alloc_by_trace_policy"] == again.figures["alloc_by_trace_policy"]


def test_without_a_seed_the_ten_of_the_protocol_are_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "policies", lambda *, quick: ("fgd", "ours"))
    assert packing.run(Arguments(data=folder)).figures["seeds"] == 10


def test_arrivals_are_all_pods_then_drawn_ones_up_to_130_percent(folder: Path) -> None:
    path = folder / "openb" / "openb_pod_list_default.csv"
    trace = packing_runs.read(folder / "openb", "default", path)
    coming = packing_runs.arrivals(trace, 42)
    assert sorted(coming.pods[: len(trace.pods)]) == list(range(len(trace.pods)))
    asked = [trace.pods[index].gpu_millis for index in coming.pods]
    assert trace.capacity_millis == 30_000
    assert sum(asked) >= 39_000 > sum(asked[: max(len(trace.pods), len(asked) - 1)])
    assert sorted(machine.order for machine in coming.machines) == list(range(10))
    assert coming != packing_runs.arrivals(trace, 43)
    assert coming == packing_runs.arrivals(trace, 42)


def test_a_list_that_asks_for_more_than_130_percent_is_cut_there(folder: Path) -> None:
    """As FGD's simulator prunes it: a shuffled part of the list, the same for each rule, with no pod twice."""
    path = folder / "openb" / "openb_pod_list_default.csv"
    trace = packing_runs.read(folder / "openb", "default", path)
    long = trace._replace(pods=trace.pods * 5)
    coming = packing_runs.arrivals(long, 42)
    asked = sum(pod.gpu_millis for pod in long.pods)
    assert asked > 2 * 39_000
    played = sum(long.pods[index].gpu_millis for index in coming.pods)
    assert 39_000 <= played < 39_000 + max(pod.gpu_millis for pod in long.pods)
    assert len(set(coming.pods[:-1])) == len(coming.pods) - 1


def test_fgd_is_compared_with_what_was_published(folder: Path) -> None:
    table = folder / "fgd_expected" / "analysis_allo_discrete.csv"
    table.parent.mkdir()
    table.write_text(
        "workload,sc_policy,tune,seed,total_gpus,130\nopenb_pod_list_default,06-FGD,1.3,42,30,90\n"
        "openb_pod_list_default,06-FGD,1.3,43,30,92\nopenb_pod_list_default,01-Random,1.3,42,30,10\n"
    )
    figures = packing.run(Arguments(data=folder, seed=5, one_seed=True)).figures
    found = figures["alloc_by_trace_policy"]["default"]["fgd"]
    assert math.isclose(figures["fgd_off_published"]["default"], found - 91.0, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda openb: (openb / packing_runs.NODES).unlink(), "is missing", id="no node list"),
        pytest.param(
            lambda openb: [path.unlink() for path in openb.glob("openb_pod_list_*")],
            "has no",
            id="no pod list",
        ),
        pytest.param(
            lambda openb: (openb / "openb_pod_list_default.csv").write_text(
                f"{PODS_HEAD}\np,1,1,1,1500,,LS\n"
            ),
            "gpu_milli is 1500",
            id="more than a whole GPU",
        ),
        pytest.param(
            lambda openb: _pods(openb / "openb_pod_list_default.csv", [(1_000, 0, 0, "")]),
            "none of its 1 pods wants a GPU.*take the file out",
            id="no pod wants a GPU",
        ),
        pytest.param(
            lambda openb: (openb / packing_runs.NODES).write_text(
                "sn,cpu_milli,memory_mib,gpu,model\nn0,1,1,0,\n"
            ),
            "node_list_gpu_node.csv: none of its nodes has a GPU",
            id="no node has a GPU",
        ),
        pytest.param(
            lambda openb: _renamed(openb, "a", "b"),
            "leave one of them",
            id="several node lists, none by its name",
        ),
        pytest.param(
            lambda openb: _pods(openb / "openb_pod_list_default.csv", [(1_000, 2, 500, "")]),
            r"default.csv:2: 2 GPUs of 500 thousandths each.*Correct the line, or take it out",
            id="parts of several GPUs",
        ),
        pytest.param(
            lambda openb: (
                (openb / packing_runs.NODES).write_text(
                    "sn,cpu_milli,memory_mib,gpu,model\n" + "".join(f"n{i},1,1,1000,T4\n" for i in range(2))
                ),
                _pods(openb / "openb_pod_list_default.csv", [(0, 1, 2, "")]),
            ),
            "so that 1300000 would have to come; at most 1000000",
            id="pods too small to ever fill the cluster",
        ),
    ],
)
def test_what_is_missing_or_broken_is_a_sentence(folder: Path, spoil, said: str) -> None:
    spoil(folder / "openb")
    with pytest.raises(BenchmarkError, match=said):
        packing.run(Arguments(data=folder, seed=1, one_seed=True))


def test_the_only_node_list_is_taken_by_whatever_name(folder: Path) -> None:
    before = packing.run(Arguments(data=folder, seed=3, quick=True)).figures["alloc_by_trace_policy"]
    _renamed(folder / "openb", "mine")
    assert packing.run(Arguments(data=folder, seed=3, quick=True)).figures["alloc_by_trace_policy"] == before


@pytest.mark.parametrize(
    ("pod", "memory_mib"),
    [
        pytest.param((4_000, 16, 1_000, ""), 1_024, id="more GPUs than any node has"),
        pytest.param((4_000, 1_000_000, 1_000, ""), 1_024, id="as many GPUs as a city"),
        pytest.param((64_001, 1, 1_000, ""), 1_024, id="more CPU than any node has"),
        pytest.param((4_000, 1, 1_000, ""), 262_145, id="more memory than any node has"),
        pytest.param((4_000, 1, 1_000, "H900|H901"), 1_024, id="products that nobody has"),
    ],
)
def test_pods_that_no_node_holds_are_told_and_refused_and_spoil_nothing(
    folder: Path, pod: tuple[int, int, int, str], memory_mib: int
) -> None:
    mixed = [(4_000, 1, 500, ""), (8_000, 1, 810, ""), (6_000, 1, 1_000, "T4"), (8_000, 2, 1_000, "")] * 6
    path = folder / "openb" / "openb_pod_list_default.csv"
    _pods(path, mixed)
    trace = packing_runs.read(folder / "openb", "default", path)
    _pods(path, [*mixed, pod], memory_mib)
    spoilt = packing_runs.read(folder / "openb", "default", path)
    assert (trace.stranded, spoilt.stranded[:2]) == ((0, "", 0.0), (1, "p24"))
    wanted = [request.gpu_millis for request in spoilt.pods]
    assert math.isclose(spoilt.stranded.asked, 100.0 * wanted[-1] / sum(wanted))
    assert packing_runs.bound(spoilt) == packing_runs.bound(trace)
    every = packing_runs.Arrivals(packing_runs.arrivals(trace, 1).machines, tuple(range(24)))
    for policy in packing_runs.policies(quick=False):
        with_it = packing_runs.play(spoilt, every._replace(pods=(24, *every.pods)), policy, 1)
        assert with_it.dropped >= 1
        assert with_it.allocated > 50.0
    assert (
        "default: 1 of 25 pods (p24 is the first) fit no node"
        in packing.run(Arguments(data=folder, seed=1, quick=True)).remark
    )


def test_a_list_of_which_no_node_holds_anything_allocates_nothing(folder: Path) -> None:
    _pods(folder / "openb" / "openb_pod_list_default.csv", [(4_000, 1, 500, "H900")] * 3)
    figures = packing.run(Arguments(data=folder, seed=1, one_seed=True)).figures
    assert figures["bound_by_trace"]["default"] == 0.0
    assert set(figures["alloc_by_trace_policy"]["default"].values()) == {0.0}


def test_a_pod_without_gpus_fits_whatever_products_it_names(folder: Path) -> None:
    path = folder / "openb" / "openb_pod_list_default.csv"
    _pods(path, [(4_000, 1, 500, ""), (4_000, 0, 1_000, "H900")])
    trace = packing_runs.read(folder / "openb", "default", path)
    assert trace.stranded == (0, "", 0.0)
    every = packing_runs.Arrivals(packing_runs.arrivals(trace, 1).machines, (0, 1))
    assert packing_runs.play(trace, every, "ours", 1).dropped == 0


def test_what_stands_at_100_percent_is_told_when_nothing_could_be_placed_by_then(folder: Path) -> None:
    """A first pod of more GPUs than the cluster has: 100 % is reached with it, and nothing is placed by then."""
    path = folder / "openb" / "openb_pod_list_default.csv"
    _pods(path, [(1_000, 1, 1_000, ""), (1_000, 1_000, 1_000, "")])
    trace = packing_runs.read(folder / "openb", "default", path)
    coming = packing_runs.Arrivals(packing_runs.arrivals(trace, 1).machines, (1, 0, 0))
    ran = packing_runs.play(trace, coming, "bestfit", 1)
    assert (ran.allocated_at_100, ran.dropped) == (0.0, 1)
    assert ran.allocated > 0.0

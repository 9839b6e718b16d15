"""Gangs beside pods that come and go: what is measured, by hand, and what the gang term keeps on a small cluster."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks import packing_gangs, packing_runs
from benchmarks.base import Arguments, BenchmarkError
from benchmarks.packing_gangs import Cluster, Coming, play
from placement.packing.fleet import Fleet, Machine, Request
from placement.packing.packer import Packer
from placement.packing.rules.best_fit import BestFit

HEAD = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixteen nodes of 8 GPUs of one product, and pods of halves, ones and twos."""
    openb = tmp_path / "openb"
    openb.mkdir()
    nodes = [f"n{i},96000,393216,8,T4" for i in range(16)]
    (openb / packing_runs.NODES).write_text("\n".join(["sn,cpu_milli,memory_mib,gpu,model", *nodes]) + "\n")
    shapes = [(4_000, 1, 500), (8_000, 1, 1_000), (6_000, 1, 1_000), (10_000, 2, 1_000), (2_000, 1, 300)]
    pods = [f"p{i},{cpu},1024,{gpus},{milli}," for i, (cpu, gpus, milli) in enumerate(shapes * 4)]
    (openb / "openb_pod_list_default.csv").write_text("\n".join([HEAD, *pods]) + "\n")
    return tmp_path


def trace_of(folder: Path) -> packing_runs.Trace:
    openb = folder / "openb"
    return packing_runs.read(openb, "default", openb / "openb_pod_list_default.csv")


@pytest.mark.parametrize("seed", range(3))
def test_with_the_term_a_larger_gang_can_start_and_none_waits_longer(folder: Path, seed: int) -> None:
    trace = trace_of(folder)
    found = {rule: play(trace, rule, seed, 2.5, 0.8) for rule in ("fgd", "ours, no term", "ours, 20")}
    kept = found["ours, 20"]
    for other in ("fgd", "ours, no term"):
        assert kept.largest_gpus > found[other].largest_gpus, other
        assert kept.wait_of_two <= found[other].wait_of_two, other
    assert kept.refused <= found["ours, no term"].refused


def test_what_is_measured_counted_by_hand() -> None:
    """Two nodes of a product and one of another; a pod breaks one node at 1, a gang of two waits for it until 3."""
    machines = [
        Machine(name=n, kind=k, cpu_millis=8_000, memory_bytes=1, free_millis=(1_000,) * 8, order=i)
        for i, (n, k) in enumerate([("a", "T4"), ("b", "T4"), ("c", "L4")])
    ]
    cluster = Cluster(
        Packer(Fleet(machines), BestFit()), (Request(1_000, 0, 1, 1_000, ("T4",)),), warm_up=0.0
    )
    cluster.comes(Coming(0.0, 9.0, 0)._replace(stays=0.5))
    cluster.until(1.0)  # half a life with one T4 left (8 GPUs), half with two (16)
    cluster.comes(Coming(1.0, 2.0, 0))
    cluster.until(2.0)  # 8 GPUs
    cluster.comes(Coming(2.0, 1.0, -2))
    cluster.until(3.0)  # the gang waits, and nobody else may have the 8 GPUs before it
    cluster.comes(Coming(3.0, 5.0, -1))
    cluster.until(4.0)  # the gang of two has the T4s, the gang of one the other node
    seen = cluster.seen(24_000, 4.0)
    assert seen.largest_gpus == pytest.approx((0.5 * 8 + 0.5 * 16 + 8 + 8 + 0) / 4)
    assert (seen.wait_of_two, seen.wait_of_one) == (pytest.approx(1_000.0), 0.0)
    assert seen.allocated == pytest.approx(100 * (0.5 * 1 + 1 + 1 + 24) / 24 / 4)
    assert (seen.refused, seen.waiting) == (0.0, 0.0)


def test_arrivals_are_those_of_the_seed_and_full_from_the_beginning(folder: Path) -> None:
    trace = trace_of(folder)
    found = packing_gangs.coming(trace, 1, 1.0, 0.9)
    assert found == sorted(found) == packing_gangs.coming(trace, 1, 1.0, 0.9)
    assert found != packing_gangs.coming(trace, 2, 1.0, 0.9)
    assert {each.what for each in found if each.what < 0} == {-1, -2}
    assert sum(each.at == 0.0 for each in found) > 50


def test_the_figure_has_every_rule_at_every_load(folder: Path) -> None:
    result = packing_gangs.run(Arguments(data=folder, seed=1, quick=True))
    table = result.figures["by_load_and_rule"]
    assert len(table) == len(packing_gangs.LOADS) * (2 + len(packing_gangs.TERMS)) == len(result.rows)
    assert msgspec.json.encode(result.figures)


def test_nodes_too_small_for_gangs_are_a_sentence(folder: Path) -> None:
    path = folder / "openb" / packing_runs.NODES
    path.write_text(path.read_text().replace(",8,T4", ",4,T4"))
    with pytest.raises(BenchmarkError, match="no node has 8 GPUs"):
        packing_gangs.run(Arguments(data=folder, seed=1, quick=True))

"""Runs on a real Ray cluster of one node on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.experiments.on_ray import on_ray
from simulator.experiments.outcomes import Outcome, OutcomeFolder
from simulator.experiments.runs import Run, runs_of

ROOT = Path(__file__).resolve().parents[2]
WORKS = "tests.experiments.works"

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="Ray is an extra")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster with two processors; its processes end with it."""
    port = free_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    # Ray makes socket files under its folder, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        head = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2",
                f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false",
                f"--temp-dir={folder}", "--object-store-memory=100000000", "--disable-usage-stats",
            ],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            assert head.stdout is not None
            lines = []
            for line in head.stdout:
                lines.append(line)
                if "Ray runtime started" in line:
                    break
            else:
                pytest.fail("the cluster did not start: " + "".join(lines))
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()
            head.wait(timeout=60)


class Bench:
    def __init__(self, folder: Path, address: str) -> None:
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.scenario = str(self.notes).encode()
        self.outcomes = OutcomeFolder(folder / "outcomes", self.scenario)
        self.address = address
        self.heard: list[Outcome] = []

    def run(self, work: str, runs: list[Run]) -> list[Outcome]:
        return on_ray(self.address, f"{WORKS}:{work}", self.scenario, runs, self.outcomes, self.heard.append)

    def begun(self, seed: int) -> int:
        file = self.notes / f"as written-{seed}"
        return file.stat().st_size if file.exists() else 0


def test_a_cluster_gives_the_same_outcomes_and_a_killed_worker_loses_none(
    cluster: str, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, cluster)
    runs = runs_of({}, (1, 2, 3, 4))
    found = bench.run("dies_once", runs)
    assert [outcome.figures for outcome in found] == [{"seed": float(n)} for n in range(1, 5)]
    assert bench.begun(3) == 2
    assert bench.run("dies_once", runs) == found
    assert [bench.begun(seed) for seed in (1, 2, 3, 4)] == [1, 1, 2, 1]
    assert len(bench.heard) == 8


def test_a_run_that_always_kills_its_worker_is_told_and_not_kept(cluster: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, cluster)
    found = bench.run("always_dies", runs_of({}, (2, 3)))
    assert found[0].figures == {"seed": 2.0}
    assert found[1].error.startswith("lost on the cluster: ")
    assert bench.outcomes.load(Run((), 3)) is None


def test_no_cluster_is_said_with_its_address(tmp_path: Path) -> None:
    bench = Bench(tmp_path, f"127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionError, match=r"no Ray cluster at '127\.0\.0\.1:"):
        bench.run("square", [Run((), 1)])

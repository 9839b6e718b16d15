"""Tells at the end of a test run at how many of its mutating calls the operator was killed in each scenario."""

from collections.abc import Iterator

import pytest

from console.accelerated import QUICK
from console.controlplane import ControlPlane, ControlPlaneError
from tests.scenarios.kube_tier import KubeTier


@pytest.fixture(scope="session")
def kube_tier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeTier]:
    """A real control plane for a worker's scenarios, quick to judge nodes; it fails where there are no binaries.

    One for all modules: a new one's garbage collector takes half a minute to learn of our kinds.
    """
    try:
        plane = ControlPlane(extra=QUICK, logs=tmp_path_factory.mktemp("control-plane")).start()
    except ControlPlaneError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield KubeTier(plane.kubeconfig)
    finally:
        plane.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a scenario, from whatever process it ran in."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    lines = sorted({str(value) for r in reports for name, value in r.user_properties if name == "kills"})
    if lines:
        terminalreporter.section("operator killed at its mutating calls")
        for line in lines:
            terminalreporter.write_line(line)

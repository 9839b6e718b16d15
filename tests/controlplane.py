"""A real control plane for tests: one a worker and session, a fresh namespace a test. Loaded by tests/conftest.py.

Where the binaries are absent the tests fail with the line to type; they are never skipped.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from console.controlplane import ControlPlane, ControlPlaneError

MIB = 2**20
Started = Callable[..., ControlPlane]
_booted = pytest.StashKey[list[dict[str, Any]]]()
_numbers = itertools.count(1)


def _note(config: pytest.Config, plane: ControlPlane) -> None:
    """Remembers what a control plane cost, for the summary."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    cost = {
        "worker": worker,
        "boot_seconds": plane.boot_seconds,
        "mib": plane.resident_bytes / MIB,
        "origin": plane.binaries.origin,
    }
    config.stash.setdefault(_booted, []).append(cost)


def _started(folder: Path, **settings: Any) -> ControlPlane:
    try:
        return ControlPlane(logs=folder, **settings).start()
    except ControlPlaneError as error:
        sentence = str(error)
    pytest.fail(sentence, pytrace=False)


@pytest.fixture(scope="session")
def control_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """The control plane that this worker's tests share. Whoever breaks it mends it: `new_control_plane` is for more."""
    plane = _started(tmp_path_factory.mktemp("control-plane"))
    yield plane
    _note(request.config, plane)
    plane.stop()


@pytest.fixture
def new_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Starts a control plane for this test alone, with the settings given; stopped after it."""
    planes: list[ControlPlane] = []

    def start(**settings: Any) -> ControlPlane:
        planes.append(_started(tmp_path_factory.mktemp("control-plane"), **settings))
        return planes[-1]

    yield start
    for plane in planes:
        plane.stop()


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """The name of a fresh namespace in which pods can be created; its deletion begins after the test.

    Fails a test that leaves the control plane broken, and mends it for the next one.
    """
    name = f"test-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{next(_numbers)}"
    control_plane.create_namespace(name)
    yield name
    broken = control_plane.mend()
    control_plane.api.ask("DELETE", f"/api/v1/namespaces/{name}")
    assert not broken, f"the test left {', '.join(broken)} broken"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands its figures to the process that writes the summary."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["control_planes"] = session.config.stash.get(_booted, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes a worker's figures."""
    figures = getattr(node, "workeroutput", {}).get("control_planes", [])
    node.config.stash.setdefault(_booted, []).extend(figures)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What each control plane cost."""
    for cost in config.stash.get(_booted, []):
        worker = f" {cost['worker']}" if cost["worker"] else ""
        terminalreporter.write_line(
            f"control plane{worker}: ready in {cost['boot_seconds']:.1f} s, "
            f"{cost['mib']:.0f} MiB at the end, {cost['origin']}"
        )

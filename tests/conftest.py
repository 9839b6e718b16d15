"""Rules of the whole suite: a skip states its reason, properties run the same way everywhere, logging stays as it was."""

import logging
import os
from collections.abc import Iterator

import hypothesis
import pytest

import runtime  # noqa: F401 - before any test imports grpc: it leaves gRPC no TLS but 1.3

os.environ.setdefault("PLIMSOLL_PHYSICS", "interpreted")  # tests look inside; read when simulator is imported

pytest_plugins = ["tests.controlplane"]

hypothesis.settings.register_profile(
    "quick", deadline=None, derandomize=True, max_examples=50, print_blob=True, database=None
)
hypothesis.settings.register_profile(
    "thorough", parent=hypothesis.settings.get_profile("quick"), max_examples=500
)
hypothesis.settings.register_profile(
    "brief", parent=hypothesis.settings.get_profile("quick"), max_examples=15
)
hypothesis.settings.load_profile(os.environ.get("PLIMSOLL_PROPERTIES", "quick"))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Takes back what a command run in this process made of the root logger: its level, and where it writes."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for made in [each for each in root.handlers if each not in handlers]:
        root.removeHandler(made)


# What pytest itself writes where nobody gave a reason.
EMPTY_REASONS = {"", "unconditional skip"}
_unexplained: list[str] = []


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The stated reason of a skipped report; empty where none was given."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    text = text.removeprefix("Skipped").removeprefix(":").strip()
    return "" if text in EMPTY_REASONS else text


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not getattr(report, "wasxfail", None) and not reason_of(report):
        _unexplained.append(report.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes a test that was skipped without a reason (on the controlling process, with xdist too)."""
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Notes a module that was skipped without a reason."""
    _note(report)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run that would otherwise pass when a skip in it has no reason."""
    if _unexplained and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the tests that were skipped without a reason."""
    if _unexplained:
        terminalreporter.section("skipped without a reason: state one", red=True)
        for nodeid in sorted(set(_unexplained)):
            terminalreporter.write_line(nodeid)

"""Tells at the end of a test run at how many of its mutating calls the operator was killed in each scenario."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a scenario, from whatever process it ran in."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    lines = sorted({str(value) for r in reports for name, value in r.user_properties if name == "kills"})
    if lines:
        terminalreporter.section("operator killed at its mutating calls")
        for line in lines:
            terminalreporter.write_line(line)

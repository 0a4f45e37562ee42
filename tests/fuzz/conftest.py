"""Says at the end how many inputs each target got."""

from __future__ import annotations

import pytest

from helpers.fuzz import TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line per target, and their sum."""
    if TRIED:
        terminalreporter.section("inputs tried")
        for target, count in sorted(TRIED.items()):
            terminalreporter.write_line(f"{count:8,}  {target}")
        terminalreporter.write_line(f"{sum(TRIED.values()):8,}  in all")

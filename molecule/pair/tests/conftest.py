"""The shared fixtures, and a log of how long each recovery took."""

from __future__ import annotations

from typing import Any

import pytest

pytest_plugins = ["testlib.fixtures"]

RECOVERIES: dict[str, float] = {}


@pytest.fixture(scope="session")
def recoveries() -> dict[str, float]:
    """Drill -> seconds from the fault to the next correct completion; printed at the end."""
    return RECOVERIES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The measured times."""
    if RECOVERIES:
        terminalreporter.section("from the fault to the next correct completion")
        for drill, seconds in RECOVERIES.items():
            terminalreporter.write_line(f"{seconds:6.0f} s  {drill}")

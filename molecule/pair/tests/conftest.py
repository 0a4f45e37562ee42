"""The pair: both nodes, an operator, and a log of how long each recovery took."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared/testlib"))
sys.path.insert(0, str(Path(__file__).parent))

from node import SECRETS, Node, connect
from runs import Operator

INVENTORY = Path(__file__).resolve().parents[1] / "inventory"
RECOVERIES: dict[str, float] = {}


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Runs playbooks against this scenario's inventory."""
    return Operator(INVENTORY, tmp_path_factory.mktemp("operator"), list(SECRETS))


@pytest.fixture(scope="session")
def head() -> Node:
    """Rank 0, with the API."""
    return connect(INVENTORY, "spark1")


@pytest.fixture(scope="session")
def worker() -> Node:
    """Rank 1."""
    return connect(INVENTORY, "spark2")


@pytest.fixture(scope="session")
def recoveries() -> dict[str, float]:
    """Drill -> seconds from the fault to the next right completion; printed at the end."""
    return RECOVERIES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The measured times."""
    if RECOVERIES:
        terminalreporter.section("from the fault to the next right completion")
        for drill, seconds in RECOVERIES.items():
            terminalreporter.write_line(f"{seconds:6.0f} s  {drill}")

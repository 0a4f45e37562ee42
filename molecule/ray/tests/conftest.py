"""Both nodes of the pair."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared/testlib"))

from node import Node, connect

INVENTORY = Path(__file__).resolve().parents[1] / "inventory"


@pytest.fixture(scope="session")
def head() -> Node:
    """The node with the API and Ray's head."""
    return connect(INVENTORY, "spark1")


@pytest.fixture(scope="session")
def worker() -> Node:
    """The node that gives Ray its GPU."""
    return connect(INVENTORY, "spark2")

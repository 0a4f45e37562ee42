"""Fixtures of the failures scenario: an operator with a checkout, and the node."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared/testlib"))

from node import SECRETS, Node, connect
from runs import Operator


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Runs playbooks against this scenario's inventory; every secret of the testbed is known to it."""
    inventory = Path(__file__).resolve().parents[1] / "inventory"
    return Operator(inventory, tmp_path_factory.mktemp("operator"), list(SECRETS))


@pytest.fixture(scope="session")
def node(operator: Operator) -> Node:
    """The scenario's node."""
    return connect(operator.inventory)

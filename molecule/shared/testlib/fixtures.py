"""Fixtures of all scenarios: an operator with a checkout, and the nodes of the scenario's inventory."""

from __future__ import annotations

from pathlib import Path

import pytest

from testlib.node import SECRETS, Node, connect
from testlib.runs import Operator


@pytest.fixture(scope="session")
def inventory(request: pytest.FixtureRequest) -> Path:
    """The inventory of the scenario that the tests belong to."""
    return request.session.items[0].path.parents[1] / "inventory"


@pytest.fixture(scope="session")
def operator(inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Runs playbooks against the inventory; knows every secret of the testbed, so that none is shown."""
    return Operator(inventory, tmp_path_factory.mktemp("operator"), list(SECRETS))


@pytest.fixture(scope="session")
def node(inventory: Path) -> Node:
    """The node of a scenario that has only one."""
    return connect(inventory)


@pytest.fixture(scope="session")
def head(inventory: Path) -> Node:
    """Rank 0 of a replica, with the API."""
    return connect(inventory, "spark1")


@pytest.fixture(scope="session")
def worker(inventory: Path) -> Node:
    """Rank 1 of a replica."""
    return connect(inventory, "spark2")

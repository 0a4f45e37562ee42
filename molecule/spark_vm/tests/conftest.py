"""The machine, and its owner, whose sudo asks for a password."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine import SUDO, Machine, place

from testlib.node import SECRETS, connect
from testlib.runs import Operator

pytest_plugins = ["testlib.fixtures"]


@pytest.fixture(scope="session")
def stranger(inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """An operator who does not give the sudo password."""
    return Operator(inventory, tmp_path_factory.mktemp("stranger"), [*SECRETS, SUDO])


@pytest.fixture(scope="session")
def operator(inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """The owner: gives the sudo password in a file, so that no command line shows it."""
    folder = tmp_path_factory.mktemp("operator")
    file = folder / "sudo-password"
    file.touch(mode=0o600)
    file.write_text(SUDO + "\n", encoding="utf-8")
    return Operator(inventory, folder, [*SECRETS, SUDO], ["--become-password-file", str(file)])


@pytest.fixture(scope="session")
def machine(inventory: Path) -> Machine:
    """The machine, its power and its server, as the test machine sees them."""
    return Machine(connect(inventory, user="root").host, *place(inventory))

"""The shared fixtures, and what this scenario's machines have besides: two by name, their folders, their cables."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from machines import HOSTS, Cables, Patient

from testlib.node import SECRETS, Node, connect
from testlib.runs import Operator, environment

pytest_plugins = ["testlib.fixtures"]


@pytest.fixture(scope="session")
def operator(inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Runs playbooks against the two machines."""
    return Patient(inventory, tmp_path_factory.mktemp("operator"), list(SECRETS))


@pytest.fixture(scope="session")
def nodes(inventory: Path) -> dict[str, Node]:
    """The machines by name."""
    return {host: connect(inventory, host) for host in HOSTS}


@pytest.fixture(scope="session")
def places(inventory: Path) -> dict[str, str]:
    """What the inventory says about the testbed: the folder of each machine and the address of its ssh."""
    expression = (
        "{{ {'folder': testbed_cache ~ '/machines/' ~ testbed_machine, 'ssh': ansible_host} | to_json }}"
    )
    done = subprocess.run(
        ["ansible", "all", "-i", str(inventory), "-m", "ansible.builtin.debug", "-a", f"msg={expression}"],
        check=True, capture_output=True, text=True, env={**environment(), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    by_host: dict[str, str] = {}
    for part in done.stdout.split(" | SUCCESS => ")[1:]:
        message = json.loads(part[: part.rindex("}") + 1])["msg"]
        values = json.loads(message) if isinstance(message, str) else message
        host = values["folder"].rpartition("-")[2]
        by_host |= {f"{host} {name}": value for name, value in values.items()}
    return by_host


@pytest.fixture(scope="session")
def cables(places: dict[str, str]) -> Cables:
    """The cables at spark2."""
    return Cables(Path(places["spark2 folder"]) / "qmp")

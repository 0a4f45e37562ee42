"""Fixtures of the fabric scenario: an operator with a checkout, and the two machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared/testlib"))

from machines import HOSTS, INVENTORY, Cables, Patient
from node import SECRETS, Node, connect
from runs import Operator, environment


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Runs playbooks against the two machines."""
    return Patient(INVENTORY, tmp_path_factory.mktemp("operator"), list(SECRETS))


@pytest.fixture(scope="session")
def nodes() -> dict[str, Node]:
    """The machines by name."""
    return {host: connect(INVENTORY, host) for host in HOSTS}


@pytest.fixture(scope="session")
def places() -> dict[str, str]:
    """What the inventory says about the testbed: the folder of each machine and the address of its ssh."""
    wanted = "{{ {'folder': testbed_cache ~ '/machines/' ~ testbed_machine, 'ssh': ansible_host} | to_json }}"
    done = subprocess.run(
        ["ansible", "all", "-i", str(INVENTORY), "-m", "ansible.builtin.debug", "-a", f"msg={wanted}"],
        check=True, capture_output=True, text=True, env={**environment(), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    found: dict[str, str] = {}
    for part in done.stdout.split(" | SUCCESS => ")[1:]:
        told = json.loads(part[: part.rindex("}") + 1])["msg"]
        told = json.loads(told) if isinstance(told, str) else told
        found |= {f"{told['folder'].rpartition('-')[2]} {name}": value for name, value in told.items()}
    return found


@pytest.fixture(scope="session")
def cables(places: dict[str, str]) -> Cables:
    """The cables at spark2."""
    return Cables(Path(places["spark2 folder"]) / "qmp")

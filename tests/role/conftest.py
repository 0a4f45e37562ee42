"""The role's own rendering, done once per session by ansible-playbook on this machine, without a node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.ansible_run import ROOT, command
from helpers.cases import read_cases

ROLE = ROOT / "roles/dgx_vllm"
KEPT = {
    "draft": "{{ __dgx_vllm_draft }}",
    "unit": "{{ __dgx_vllm_unit_text }}",
    "env": "{{ __dgx_vllm_env }}",
    "firewall": "{{ __dgx_vllm_firewall_text }}",
    "release": "{{ __dgx_vllm_release }}",
    "serve_args": "{{ __dgx_vllm_server.serve }}",
    "docker_args": "{{ __dgx_vllm_server.docker }}",
    "image": "{{ __dgx_vllm_image_run }}",
    "command": "{{ __dgx_vllm_server.command }}",
    "watch": "{{ __dgx_vllm_watch_text }}",
    "watch_unit": "{{ '' if __dgx_vllm_standalone else __dgx_vllm_watch_unit_text }}",
    "build_tag": "{{ __dgx_vllm_build_tag }}",
    "tune": "{{ __dgx_vllm_tune_command }}",
}


def task_of(file: str, name: str) -> dict[str, Any]:
    """One task of the role by its name."""
    tasks = yaml.safe_load((ROLE / f"tasks/{file}.yml").read_text(encoding="utf-8"))
    (found,) = (task for task in tasks if task["name"] == name)
    assert isinstance(found, dict)
    return found


def renderer(place: Path, more: Mapping[str, str]) -> Path:
    """A role with the real defaults, vars and templates, and the real tasks that plan and render a release.

    `more` names expressions that are kept in addition to those of KEPT.
    """
    role = place / "roles/dgx_vllm"
    (role / "tasks").mkdir(parents=True)
    for name in ("defaults", "vars", "templates", "files"):
        (role / name).symlink_to(ROLE / name)
    (place / "files").symlink_to(ROOT / "files")
    plan = task_of("common/validate", "Plan replicas, ranks and addresses")
    render = task_of("service/main", "Render the release")
    keep = {
        "name": "Keep what was rendered",
        "ansible.builtin.copy": {
            "content": "{{ __kept | to_json }}",
            "dest": f"{place}/{{{{ inventory_hostname }}}}.json",
            "mode": "0600",
        },
        "vars": {"__kept": {**KEPT, **more}},
        "check_mode": False,
    }
    (role / "tasks/main.yml").write_text(json.dumps([plan, render, keep]), encoding="utf-8")
    play = {"hosts": "all", "gather_facts": False, "roles": ["dgx_vllm"]}
    (place / "render.yml").write_text(json.dumps([play]), encoding="utf-8")
    return place / "render.yml"


def render(place: Path, inventory: Path, *words: str, **more: str) -> dict[str, dict[str, Any]]:
    """By host of the inventory: unit and environment file as text, and the lists that they were made from."""
    done = command(
        "ansible-playbook",
        "-i",
        str(inventory),
        str(renderer(place, more)),
        *words,
        home=place / "home",
        ANSIBLE_ROLES_PATH=str(place / "roles"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in place.glob("*.json")}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the hosts of cases.yml get."""
    place = tmp_path_factory.mktemp("render")
    (place / "cases.yml").write_text(json.dumps(read_cases()), encoding="utf-8")
    return render(place, place / "cases.yml")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the twelve hosts of inventory/fleet.yml get in check mode; the nodes' state and fabric are given."""
    place = tmp_path_factory.mktemp("fleet")
    inventory = read_cases()["all"]
    given = {
        **inventory["vars"],
        "__dgx_vllm_fabric_read": inventory["hosts"]["pair_head"]["__dgx_vllm_fabric_read"],
    }
    (place / "given.yml").write_text(json.dumps(given), encoding="utf-8")
    return render(place, ROOT / "inventory/fleet.yml", "--check", "-e", f"@{place}/given.yml")


@pytest.fixture(scope="session")
def ring(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What four nodes in a ring get that meet in a VLAN, whose parent has another address and a default route too."""
    place = tmp_path_factory.mktemp("ring")
    hosts = {}
    for number in range(1, 5):
        rails = [
            {"interface": f"rail{rail}", "link": True, "rdma": f"mlx5_{rail}", "rdma_port": 1}
            for rail in range(4)
        ]
        addresses = {"enP7s7": [f"203.0.113.{number}/24"], "enP7s7.20": [f"192.0.2.{number}/24"]}
        hosts[f"spark{number}"] = {
            "ansible_host": f"203.0.113.{number}",
            "dgx_vllm_control_address": f"192.0.2.{number}",
            "__dgx_vllm_fabric_read": {
                "fabric": {"rails": rails, "management": [*addresses], "addresses": addresses}
            },
        }
    common = {
        "dgx_vllm_model": "org/name",
        "dgx_vllm_replica": "chat",
        "dgx_vllm_tensor_parallel_size": 4,
        "dgx_vllm_executor": "ray",
        "dgx_vllm_fabric_kind": "ring",
        "dgx_vllm_fabric_prefix": "198.51.100.0/24",
    }
    inventory = {"all": {"vars": {**read_cases()["all"]["vars"], **common}, "hosts": hosts}}
    (place / "ring.yml").write_text(json.dumps(inventory), encoding="utf-8")
    read = task_of("fabric/read", "Read the fabric of the node")["dgx_vllm.spark.dgx_vllm_fabric"]
    return render(place, place / "ring.yml", management_addresses=read["management_addresses"])


@pytest.fixture(scope="session")
def cases() -> dict[str, dict[str, Any]]:
    """The variables of each case."""
    hosts = read_cases()["all"]["hosts"]
    assert isinstance(hosts, dict)
    return hosts


@pytest.fixture(scope="session")
def specs() -> dict[str, Any]:
    """meta/argument_specs.yml: entry point -> spec."""
    found = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="session")
def defaults() -> dict[str, Any]:
    """defaults/main.yml."""
    found = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found

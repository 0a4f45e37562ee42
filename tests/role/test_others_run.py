"""What belongs to others on a node stays theirs: packages, modes of folders. The role's own tasks on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.releases import node
from helpers.stages import Stages

ABSENT = {"exists": False}


def test_packages_that_others_installed_meanwhile_are_not_the_roles(tmp_path: Path) -> None:
    stages = Stages(tmp_path, "common/state", "common/validate")
    stages.tool("apt-get")
    meanwhile = "printf 'docker.io\\nlinux-image-6.14.0-1019-nvidia\\nnvidia-driver-580-open\\n'"
    count = 'n=$(grep -c dpkg-query "$AT/calls"); echo base-files'
    stages.tool("dpkg-query", f"{count}; [ $n -le 1 ] || {meanwhile}\n")
    include = {
        "ansible.builtin.include_tasks": "common/packages.yml",
        "vars": {"__dgx_vllm_packages": ["docker.io"]},
    }
    quiet = {
        "module_defaults": {"ansible.builtin.apt": {"auto_install_module_deps": False}},
        "block": [include],
    }
    (stages.tasks / "probe.yml").write_text(json.dumps([quiet]), encoding="utf-8")
    stages.run("probe", {"one": node()})
    ledger = json.loads(stages.node("one", "lib/state/ledger.json").read_text())
    assert ledger["packages"] == ["docker.io"]


def test_l10_a_version_that_the_role_replaced_is_noted_and_said(tmp_path: Path) -> None:
    """No package is new, so that nothing else would be noted."""
    stages = Stages(tmp_path, "common/state", "common/validate")
    stages.tool("dpkg-query", "echo base-files; echo libnvidia-container1\n")
    done = {
        "changed": True,
        "stdout": "Unpacking libnvidia-container1:arm64 (1.17.0-1) over (1.18.0-1) ...\n",
    }
    tasks = yaml.safe_load((stages.tasks / "common/packages.yml").read_text())
    tasks[1]["block"] = [{"ansible.builtin.set_fact": {"__dgx_vllm_packages_installed": done}}]
    (stages.tasks / "common/packages.yml").write_text(json.dumps(tasks), encoding="utf-8")
    asked = ["libnvidia-container1=1.17.0-1"]
    run = stages.run("common/packages", {"one": node()}, __dgx_vllm_packages=asked)
    assert run.rc == 0, run.failure("one")
    ledger = json.loads(stages.node("one", "lib/state/ledger.json").read_text())
    assert ledger == {"packages": [], "versions": ["libnvidia-container1=1.18.0-1"]}
    absent = {"service": ABSENT, "watch": ABSENT, "daemon_json": ABSENT, "releases": {}}
    run = stages.run("uninstall", {"one": node(**absent, ledger=ledger)}, dgx_vllm_model="org/m")
    assert run.rc == 0, run.failure("one")
    said = "".join(str(result.get("msg", "")) for _, _, result in run.results())
    assert "apt-get install --allow-downgrades libnvidia-container1=1.18.0-1" in said


@pytest.mark.parametrize("needed", [True, False])
def test_packages_that_others_came_to_need_stop_the_removal(needed: bool, tmp_path: Path) -> None:
    stages = Stages(tmp_path, "common/validate", "common/state", "uninstall/check", "uninstall/packages")
    stages.tool("docker")
    stages.tool("dpkg-query", "echo containerd\n")
    also = "echo 'Purg kubelet [1.31.0-1]'" if needed else ":"
    stages.tool("apt-get", f"echo 'Purg containerd [1.6.20]'; {also}\n")
    state = node(
        service=ABSENT, watch=ABSENT, daemon_json=ABSENT, releases={}, ledger={"packages": ["containerd"]}
    )
    run = stages.run("uninstall", {"one": state}, dgx_vllm_model="org/m")
    assert any("uninstall/packages" in call for call in stages.calls) is not needed
    assert ("would also remove kubelet" in run.failure("one")) is needed


@pytest.mark.parametrize("mode", [0o2775, 0o1777, 0o700])
def test_a_folder_that_was_there_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    kept = own_folder(tmp_path, mode)
    assert (kept.stat().st_mode & 0o7777, (tmp_path / "nodes/one/lib/state/ledger.json").exists()) == (
        mode,
        False,
    )


def test_a_new_folder_is_open_to_readers_and_noted(tmp_path: Path) -> None:
    made = own_folder(tmp_path, None)
    ledger = json.loads((tmp_path / "nodes/one/lib/state/ledger.json").read_text())
    assert (made.stat().st_mode & 0o7777, ledger["folders"]) == (0o755, [str(made)])


def own_folder(place: Path, mode: int | None) -> Path:
    """The role's folder, made by the role, where one with `mode` was unless it is None."""
    stages = Stages(place)
    folder = stages.node("one", "models")
    if mode is not None:
        folder.mkdir(parents=True)
        folder.chmod(mode)
    task: dict[str, Any] = {
        "ansible.builtin.include_tasks": "common/owned_directory.yml",
        "vars": {"__dgx_vllm_own": str(folder)},
    }
    (stages.tasks / "probe.yml").write_text(json.dumps([task]), encoding="utf-8")
    run = stages.run("probe", {"one": node()})
    assert run.rc == 0, run.failure("one")
    return folder

"""Every playbook and every example inventory is readable, and the role is called where its variables are checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.ansible_run import ROOT, command

PLAYBOOKS = [ROOT / "site.yml", *sorted((ROOT / "playbooks").glob("*.yml"))]
INVENTORIES = sorted((ROOT / "inventory").glob("*.yml"))
STAGES = ["runtime", "fabric", "image", "model", "service"]
ENTRIES = ["preflight", "prepare", "serve", "verify", "health", "rollback", "tune", "uninstall"]


def test_there_is_something_to_check() -> None:
    assert {file.stem for file in INVENTORIES} >= {"single", "pair", "fleet"}
    verbs = {"site", "preflight", "verify", "rollback", "uninstall", "tune", "build_image"}
    assert {file.stem for file in PLAYBOOKS} >= verbs


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_playbook_is_readable(playbook: Path, tmp_path: Path) -> None:
    done = command(
        "ansible-playbook", "--syntax-check", "-i", "inventory/single.yml", str(playbook), home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr


def listed(path: Path, home: Path) -> dict[str, Any]:
    done = command("ansible-inventory", "-i", str(path), "--list", home=home, DGX_VLLM_API_KEY="k")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("path", INVENTORIES, ids=lambda path: path.stem)
def test_inventory_is_readable(path: Path, tmp_path: Path, defaults: dict[str, Any]) -> None:
    found = listed(path, tmp_path)
    hosts = found["_meta"]["hostvars"]
    assert hosts
    for variables in hosts.values():
        mine = {name for name in variables if name.startswith("dgx_vllm_")}
        assert mine <= set(defaults)
        assert "dgx_vllm_model" in mine
    flat = json.dumps(found)
    assert "192.168." not in flat
    assert "10." not in {host.get("ansible_host", "")[:3] for host in hosts.values()}


def test_inventories_have_the_hosts_they_promise(tmp_path: Path) -> None:
    counts = {path.stem: len(listed(path, tmp_path)["_meta"]["hostvars"]) for path in INVENTORIES}
    assert counts["single"] == 1
    assert counts["pair"] == 2
    assert counts["fleet"] > 2


def test_site_has_one_tag_a_stage(tmp_path: Path) -> None:
    done = command("ansible-playbook", "--list-tags", "-i", "inventory/single.yml", "site.yml", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [stage for stage in [*STAGES, "verify"] if stage not in done.stdout] == []


@pytest.mark.parametrize("stage", [*ENTRIES, *(f"{stage}/main" for stage in STAGES)])
def test_every_stage_has_its_tasks(stage: str) -> None:
    assert (ROOT / f"roles/dgx_vllm/tasks/{stage}.yml").is_file()


@pytest.mark.parametrize(("builders", "wanted"), [("", "spark1"), ("arm1,arm2", "arm1")])
def test_one_machine_builds_the_image(builders: str, wanted: str, tmp_path: Path) -> None:
    hosts = {name: dict.fromkeys(names.split(",")) for name, names in (("dgx_vllm", "spark1,spark2"),)}
    groups = {name: {"hosts": found} for name, found in hosts.items()}
    if builders:
        groups["dgx_vllm_builder"] = {"hosts": dict.fromkeys(builders.split(","))}
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"children": groups}}), encoding="utf-8")
    done = command(
        "ansible-playbook", "--list-hosts", "-i", str(tmp_path / "hosts.yml"), "playbooks/build_image.yml",
        home=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"hosts (1):\n      {wanted}\n" in done.stdout, done.stdout


def test_tune_takes_one_node_at_a_time() -> None:
    (play,) = yaml.safe_load((ROOT / "playbooks/tune.yml").read_text(encoding="utf-8"))
    assert play["serial"] == 1


def test_tasks_are_named() -> None:
    def walk(tasks: list[dict[str, Any]], file: Path) -> None:
        for task in tasks:
            assert task.get("name"), f"{file.name}: {task}"
            for part in ("block", "rescue", "always"):
                walk(task.get(part, []), file)

    for file in sorted((ROOT / "roles/dgx_vllm/tasks").rglob("*.yml")):
        walk(yaml.safe_load(file.read_text(encoding="utf-8")), file)

"""Relative paths of reports mean the folder in which the operator started ansible-playbook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.checks import CHECKS

from helpers.ansible_run import ROOT, command, inventory


@pytest.mark.parametrize("playbook", ["playbooks/preflight.yml", "dgx_vllm.spark.preflight"])
def test_a_relative_path_is_the_operators(playbook: str, tmp_path: Path) -> None:
    """For a playbook of the checkout and for the collection's, by its full name."""
    accepted = {"dgx_vllm_model": "org/name", "dgx_vllm_preflight_accept": list(CHECKS)}
    hosts = inventory(tmp_path / "inventory", {"one": {}}, **accepted)
    (tmp_path / "mine").mkdir()
    name = playbook if playbook.count(".") > 1 else str(ROOT / playbook)
    done = command(
        "ansible-playbook", "-i", str(hosts), name, "-e", "dgx_vllm_preflight_json=mine/preflight.json",
        home=tmp_path / "home", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "one" in json.loads((tmp_path / "mine/preflight.json").read_text(encoding="utf-8"))
    assert not (ROOT / "playbooks/mine").exists()


def test_no_task_uses_the_path_as_it_was_written() -> None:
    files = [
        *(ROOT / "roles/dgx_vllm/tasks").rglob("*.yml"),
        *(ROOT / "playbooks").rglob("*.yml"),
        ROOT / "site.yml",
    ]
    for file in files:
        text = file.read_text(encoding="utf-8").replace("__dgx_vllm_", "__")
        for name in ("report_dir", "preflight_json", "fabric_json"):
            assert f"dgx_vllm_{name}" not in text, f"{file.name}: use __dgx_vllm_{name}"

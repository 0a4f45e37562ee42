"""M15: one run at a time changes a node. The role's own tasks on this machine, with stubs for the stages."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.checks import CHECKS
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.run import this_run

from helpers.ansible_run import Run
from helpers.stages import Stages

STATE: dict[str, Any] = {
    "image": {"present": True, "id": "sha256:" + "0f" * 32}, "model": {"present": True}, "ledger": {},
    "docker": {"running": True},
}  # fmt: skip
STAGES = ("common/state", "runtime/main", "image/main", "model/main", "service/main", "verify", "uninstall")
FAIL = {"ansible.builtin.fail": {"msg": "as the test wants"}}
ANN = {"id": "x 1 2", "who": "ann@desk", "what": "site.yml", "place": "x", "pid": "1"}


def site(stages: Stages, *words: str, **more: Any) -> Run:
    hosts = {
        "one": {"__dgx_vllm_node": {"state": STATE}, **more},
        "two": {"__dgx_vllm_node": {"state": STATE}},
    }
    accept = list(CHECKS)
    return stages.run(
        "site.yml", hosts, "--skip-tags", "verify", *words,
        dgx_vllm_model="org/m", dgx_vllm_preflight_accept=accept, dgx_vllm_report_dir="",
    )  # fmt: skip


def held(stages: Stages, run: dict[str, str], since: float) -> Path:
    lock = stages.node("one", "run/run.json")
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({**run, "since": since}), encoding="utf-8")
    return lock


def ran(stages: Stages, host: str) -> list[str]:
    return [call.split()[1] for call in stages.calls if call.startswith(host) and "state" not in call]


def test_m15_a_second_run_stops_on_that_node_before_any_change(tmp_path: Path) -> None:
    stages = Stages(tmp_path, *STAGES)
    lock = held(stages, ANN, time.time())
    run = site(stages)
    assert ran(stages, "one") == []
    assert ran(stages, "two") == ["runtime/main", "image/main", "model/main", "service/main"]
    assert run.failure("one").startswith(
        "one is being changed by another run: ann@desk runs site.yml since 20"
    )
    assert f"path={lock} state=absent" in run.failure("one")
    assert json.loads(lock.read_text())["who"] == "ann@desk", "it stays hers"
    assert not stages.node("two", "run/run.json").exists()


@pytest.mark.parametrize("stage", ["image/main", "service/main", ""])
def test_m15_a_run_frees_the_node_whatever_happens(stage: str, tmp_path: Path) -> None:
    stages = Stages(tmp_path, *STAGES)
    look = {"ansible.builtin.command": f"test -e {stages.node('one', 'run/run.json')}"}
    stages.stub("runtime/main", {**look, "when": "inventory_hostname == 'one'"})
    if stage:
        stages.stub(stage, {**FAIL, "when": "inventory_hostname == 'one'"})
    run = site(stages)
    assert run.failure("one") == ("as the test wants" if stage else "")
    assert run.failure("two") == ""
    assert not list(tmp_path.glob("nodes/*/run/run.json"))


def test_m15_a_run_of_this_machine_that_has_ended_blocks_nobody(tmp_path: Path) -> None:
    stages = Stages(tmp_path, *STAGES)
    with subprocess.Popen(["sleep", "60"]) as other:
        lock = held(stages, this_run(other.pid, ["site.yml"]), time.time())
        assert "is being changed by another run" in site(stages).failure("one")
        other.kill()
    run = site(stages)
    assert run.failure("one") == ""
    assert not lock.exists()


def test_m15_an_uninstall_takes_the_lock_and_frees_it(tmp_path: Path) -> None:
    stages = Stages(tmp_path, *STAGES)
    held(stages, ANN, time.time())
    assert "ann@desk" in site(stages, dgx_vllm_state="absent").failure("one")
    assert ran(stages, "one") == []
    stages.node("one", "run/run.json").write_text(json.dumps({**ANN, "since": time.time() - 90000}))
    assert site(stages, dgx_vllm_state="absent").failure("one") == "", "a lock of yesterday"
    assert ran(stages, "one") == ["uninstall"]
    assert not stages.node("one", "run/run.json").exists()


def test_m15_check_mode_neither_takes_nor_minds_the_lock(tmp_path: Path) -> None:
    stages = Stages(tmp_path, *STAGES)
    lock = held(stages, ANN, time.time())
    before = lock.read_text()
    assert site(stages, "--check").failure("one") == ""
    assert lock.read_text() == before
    assert not stages.node("two", "run/run.json").exists()

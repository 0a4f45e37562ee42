"""A node that is removed (dgx_vllm_state: absent) next to nodes that serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.plan import topology
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.checks import CHECKS

from helpers.stages import Stages

STATE: dict[str, Any] = {
    "image": {"present": True, "id": "sha256:" + "0f" * 32}, "model": {"present": True}, "ledger": {},
    "docker": {"installed": True, "running": True, "version": "28.5.2"},
    "packages": {"nvidia-container-toolkit": "1.18.0-1"},
}  # fmt: skip
SHARED = {"dgx_vllm_model": "org/m", "dgx_vllm_preflight_accept": list(CHECKS), "dgx_vllm_report_dir": ""}
STAGES = (
    "common/state", "runtime/main", "fabric/main", "image/main", "fabric/gate/main", "model/main", "service/main",
    "uninstall",
)  # fmt: skip


@pytest.mark.parametrize("names", [("a", "z"), ("z", "a")], ids=["absent-last", "absent-first"])
def test_the_others_are_deployed(names: tuple[str, str], tmp_path: Path) -> None:
    kept, gone = names
    stages = Stages(tmp_path, *STAGES)
    hosts = {name: {"__dgx_vllm_node": {"state": STATE}} for name in sorted(names)}
    hosts[gone]["dgx_vllm_state"] = "absent"
    run = stages.run("site.yml", hosts, "--skip-tags", "verify", **SHARED)
    assert run.rc == 0, [run.failure(host) for host in hosts]
    assert [call for call in stages.calls if "state" not in call] == [
        f"{kept} runtime/main", f"{kept} image/main", f"{kept} model/main", f"{kept} service/main", f"{gone} uninstall",
    ]  # fmt: skip
    (table,) = (
        result["msg"]
        for task, _, result in run.results()
        if task.endswith("Show the preflight report") and "msg" in result
    )
    assert kept in table


def test_it_has_no_place_in_the_plan() -> None:
    pair = {"dgx_vllm_replica": "chat", "dgx_vllm_model": "org/m"}
    found = topology({"one": pair, "two": {**pair, "dgx_vllm_state": "absent"}}, ["one", "two"], {})
    assert list(found["hosts"]) == ["one"]
    assert found["hosts"]["one"]["world_size"] == 1
    assert topology({"two": {"dgx_vllm_state": "absent"}}, ["two"], {})["mistakes"] == []

"""The container runtime on this machine: what becomes of CDI specifications, and when Docker is restarted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.releases import node, systemctl
from helpers.stages import Stages

OTHERS = [{"name": "lab", "restart": "no"}]


def ran(
    place: Path,
    cdi: dict[str, Any],
    docker: dict[str, Any],
    ledger: dict[str, Any],
    toolkit: str | None = "1.18.0-1",
    **common: Any,
) -> list[str]:
    """The commands that the stage called, on a node whose Docker is installed, and its toolkit unless it is None."""
    stages = Stages(place, "common/state", "runtime/toolkit")
    stages.tool("nvidia-ctk")
    systemctl(stages, enabled=True)
    engine = {
        "installed": True, "running": True, "timed_out": False, "error": None, "version": "28.3.0",
        "cgroup_driver": "cgroupfs", "containers": [], **docker,
    }  # fmt: skip
    daemon = {"exists": False, "error": None, "content": {}}
    state = node(
        cdi=cdi,
        docker=engine,
        daemon_json=daemon,
        packages={"nvidia-container-toolkit": toolkit},
        ledger=ledger,
    )
    run = stages.run("runtime/main", {"one": state}, **common)
    assert run.rc == 0, run.failure("one")
    words = ("nvidia-ctk", "systemctl restart", "systemctl reload")
    return [call for call in stages.calls if call.startswith(words)]


def test_a_toolkit_that_refreshes_by_itself_gets_no_static_file(tmp_path: Path) -> None:
    """S6: nothing would keep it up to date, and at boot it would be used until the toolkit's own is there."""
    file = tmp_path / "nodes/one/cdi/nvidia.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    calls = ran(tmp_path, {"specs": [], "refreshes": True}, {}, {"cdi_spec": str(file)})
    assert calls == ["systemctl restart nvidia-cdi-refresh.service"]
    assert not file.exists()


@pytest.mark.parametrize(("gone", "made"), [(["/usr/lib/libcuda.so.1.2"], True), ([], False)])
def test_a_stale_file_of_the_role_is_made_again(gone: list[str], made: bool, tmp_path: Path) -> None:
    """S6: after a driver update it names libraries that are gone."""
    file = str(tmp_path / "nodes/one/cdi/nvidia.yaml")
    cdi = {"specs": [{"path": file, "drivers": ["1.2"], "gone": gone}], "refreshes": False}
    calls = ran(tmp_path, cdi, {}, {"cdi_spec": file})
    assert calls == ([f"nvidia-ctk cdi generate --output={file}"] if made else [])


FRESH = {"specs": [{"path": "/var/run/cdi/nvidia.yaml", "drivers": [], "gone": []}], "refreshes": True}


@pytest.mark.parametrize(
    ("version", "others", "given", "order"),
    [
        ("28.3.0", OTHERS, {}, []),
        ("27.5.1", [], {}, ["systemctl restart docker.service"]),
        ("27.5.1", OTHERS, {}, []),
        ("27.5.1", OTHERS, {"dgx_vllm_docker_restart": True}, ["systemctl restart docker.service"]),
        ("27.5.1", OTHERS, {"dgx_vllm_gpu_access": "runtime"}, ["systemctl reload docker.service"]),
    ],
)
def test_docker_is_restarted_only_where_it_must_and_may(
    version: str, others: list[dict[str, str]], given: dict[str, Any], order: list[str], tmp_path: Path
) -> None:
    """S10: a container without a restart policy ends for good; a runtime is taken over without a restart."""
    calls = ran(tmp_path, FRESH, {"version": version, "containers": others}, {}, **given)
    assert [call for call in calls if "docker.service" in call] == order


@pytest.mark.parametrize(
    ("version", "order"), [("24.0.7", ["systemctl restart docker.service"]), ("28.3.0", [])]
)
def test_docker_that_started_before_the_toolkit_came_must_look_again(
    version: str, order: list[str], tmp_path: Path
) -> None:
    """--gpus works only in an engine that found the toolkit's hook when it started; CDI needs no restart."""
    calls = ran(tmp_path, FRESH, {"version": version}, {}, toolkit=None)
    assert [call for call in calls if "docker.service" in call] == order


def test_the_memory_limit_of_an_earlier_version_goes_without_a_restart(tmp_path: Path) -> None:
    """S10: the container has its own limit."""
    stages = Stages(tmp_path)
    systemctl(stages, enabled=True)
    file = stages.node("one", "docker.service.d/dgx-vllm-memlock.conf")
    file.parent.mkdir(parents=True)
    file.touch()
    state = node(ledger={"fabric_files": [str(file), "/etc/modules-load.d/x.conf"]})
    noted = stages.node("one", "lib/state/ledger.json")
    noted.parent.mkdir(parents=True)
    noted.write_text(
        json.dumps({"fabric_files": [str(file), "/etc/modules-load.d/x.conf"]}), encoding="utf-8"
    )
    place = json.dumps({"__dgx_vllm_memlock_path": str(file)})
    run = stages.run("fabric/memlock", {"one": state}, "-e", place)
    assert run.rc == 0, run.failure("one")
    assert not file.exists()
    ledger = json.loads(stages.node("one", "lib/state/ledger.json").read_text(encoding="utf-8"))
    assert ledger["fabric_files"] == ["/etc/modules-load.d/x.conf"]
    assert [call for call in stages.calls if "docker" in call] == []

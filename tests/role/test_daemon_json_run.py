"""daemon.json of a machine that had one: its text, its order and its mode come back. Run on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.releases import node, systemctl
from helpers.stages import Stages

HAD = '{"proxies": {"http-proxy": "http://me:word@proxy"},\n  "data-root": "/srv", "features": {}}'
ADD = """import json, os, sys
path = next(word.partition("=")[2] for word in sys.argv if word.startswith("--config="))
before = json.load(open(path)) if os.path.exists(path) else {}
after = {**before, "runtimes": {"nvidia": {}}, "features": {**before.get("features", {}), "cdi": True}}
os.path.exists(path) and os.unlink(path)
open(path, "w").write(json.dumps(after, indent=4, sort_keys=True))
"""
DOCKER = {
    "installed": True, "running": True, "timed_out": False, "error": None, "version": "27.5.1",
    "cgroup_driver": "systemd", "containers": [],
}  # fmt: skip


def ran(stages: Stages, stage: str, file: Path, ledger: dict[str, Any], *words: str) -> None:
    """The stage on a node whose state is read from `file`."""
    there = file.exists()
    found = {
        "exists": there, "error": None, "content": json.loads(file.read_text()) if there else {},
        "mode": f"{file.stat().st_mode & 0o7777:04o}" if there else None,
    }  # fmt: skip
    absent = {"exists": False}
    own = {"service": absent, "watch": absent, "releases": {}} if stage == "uninstall" else {}
    state = node(docker=DOCKER, daemon_json=found, ledger=ledger, packages={}, **own)
    place = json.dumps({"__dgx_vllm_daemon_path": str(file)})
    run = stages.run(stage, {"one": state}, "-e", place, *words, dgx_vllm_model="org/m")
    assert run.rc == 0, run.failure("one")


def prepared(place: Path, had: str | None, mode: int = 0o600) -> tuple[Stages, Path, dict[str, Any]]:
    """A node after the role told Docker of the GPU, its daemon.json and its ledger."""
    stages = Stages(place, "common/validate", "common/state")
    systemctl(stages, enabled=True)
    stages.tool("docker")
    (place / "add.py").write_text(ADD, encoding="utf-8")
    stages.tool("nvidia-ctk", f'umask 022; python3 {place}/add.py "$@"\n')
    file = stages.node("one", "docker/daemon.json")
    file.parent.mkdir(parents=True)
    if had is not None:
        file.write_text(had, encoding="utf-8")
        file.chmod(mode)
    ran(stages, "runtime/daemon", file, {})
    assert json.loads(file.read_text())["features"]["cdi"] is True
    return stages, file, json.loads(stages.node("one", "lib/state/ledger.json").read_text())


def mode_of(file: Path) -> int:
    return file.stat().st_mode & 0o7777


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_l10_daemon_json_keeps_its_mode_and_gets_its_text_back(mode: int, tmp_path: Path) -> None:
    stages, file, ledger = prepared(tmp_path, HAD, mode)
    assert mode_of(file) == mode
    copy = stages.node("one", "lib/state/daemon.json")
    assert (mode_of(copy), copy.read_text()) == (mode, HAD)
    assert "word" not in json.dumps(ledger)
    ran(stages, "uninstall", file, ledger)
    assert (mode_of(file), file.read_text()) == (mode, HAD)
    assert not copy.exists()


def test_l10_what_others_changed_since_stays_and_so_does_the_order(tmp_path: Path) -> None:
    stages, file, ledger = prepared(tmp_path, HAD)
    theirs = {"mtu": 9000, **json.loads(file.read_text()), "bip": "192.0.2.1/24"}
    file.write_text(json.dumps(theirs))
    ran(stages, "uninstall", file, ledger)
    rest = json.loads(file.read_text())
    assert (mode_of(file), list(rest)) == (0o600, ["mtu", "data-root", "proxies", "bip"])


def test_l10_a_ledger_of_an_earlier_version_has_no_copy(tmp_path: Path) -> None:
    stages, file, _ = prepared(tmp_path, HAD)
    stages.node("one", "lib/state/daemon.json").unlink()
    ledger = {"daemon_json": {"existed": True, "nvidia_runtime": False, "cdi": False}}
    ran(stages, "uninstall", file, ledger)
    had = json.loads(HAD)
    assert json.loads(file.read_text()) == {"proxies": had["proxies"], "data-root": "/srv"}
    assert mode_of(file) == 0o600


@pytest.mark.parametrize("had", [None, "", "{}\n"])
def test_l10_an_empty_daemon_json_stays_empty_and_a_new_one_goes(had: str | None, tmp_path: Path) -> None:
    stages, file, ledger = prepared(tmp_path, had if had != "" else "{}")
    if had == "":
        stages.node("one", "lib/state/daemon.json").write_text("")
    ran(stages, "uninstall", file, ledger)
    assert (file.read_text() if file.exists() else None) == had


def test_l10_check_mode_writes_nothing(tmp_path: Path) -> None:
    stages, file, ledger = prepared(tmp_path, HAD)
    before = file.read_text()
    ran(stages, "uninstall", file, ledger, "--check", "--diff")
    assert file.read_text() == before

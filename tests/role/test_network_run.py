"""What the role writes for ARP and takes away again, and whose apt repository it uses. Run on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.ansible_run import Run
from helpers.netplan_text import arp_text
from helpers.stages import Stages

NAMES = ["enp1s0f0np0", "enP2p1s0f0np0"]
OFF = {"arp_ignore": 0, "arp_announce": 0}


def arp(
    place: Path, stage: str, ledger: dict[str, Any], *words: str, weak: bool = True
) -> tuple[Stages, Run]:
    stages = Stages(place)
    stages.tool("sysctl", 'cp "$1" "$AT/applied"\n')
    read = {"arp": {"text": None, "live": dict.fromkeys(NAMES, OFF), "weak": NAMES if weak else []}}
    given = {
        "__dgx_vllm_arp_path": str(place / "90-dgx-vllm.conf"),
        "__dgx_vllm_sysctl": str(place / "bin/sysctl"),
        "__dgx_vllm_netplan_rails": [{"interface": name} for name in NAMES],
    }
    host = {"__dgx_vllm_node": {"state": {"ledger": ledger}}, "__dgx_vllm_fabric_read": {"fabric": read}}
    run = stages.run(stage, {"one": host}, "-e", json.dumps(given), *words)
    assert run.rc == 0, run.failure("one")
    return stages, run


def test_arp_is_set_at_once_and_at_boot_and_the_ledger_knows_how_it_was(tmp_path: Path) -> None:
    """S4: without a reboot, and undone by uninstall."""
    stages, _ = arp(tmp_path, "fabric/arp", {"arp": {NAMES[0]: {"arp_ignore": 2, "arp_announce": 0}}})
    assert (tmp_path / "90-dgx-vllm.conf").read_text(encoding="utf-8") == arp_text(NAMES)
    assert (tmp_path / "applied").read_text(encoding="utf-8") == arp_text(NAMES)
    ledger = json.loads(stages.node("one", "lib/state/ledger.json").read_text(encoding="utf-8"))
    assert ledger == {
        "fabric_files": [str(tmp_path / "90-dgx-vllm.conf")],
        "arp": {NAMES[0]: {"arp_ignore": 2, "arp_announce": 0}, NAMES[1]: OFF},
    }


def test_check_mode_shows_the_file_and_writes_nothing(tmp_path: Path) -> None:
    _, run = arp(tmp_path, "fabric/arp", {}, "--check")
    assert [task for task, _, result in run.results() if result.get("changed") and "Let each rail" in task]
    assert not (tmp_path / "90-dgx-vllm.conf").exists()
    assert not (tmp_path / "applied").exists()


def test_uninstall_gives_the_rails_their_former_settings(tmp_path: Path) -> None:
    path = tmp_path / "90-dgx-vllm.conf"
    path.write_text(arp_text(NAMES), encoding="utf-8")
    former = {NAMES[0]: {"arp_ignore": 2, "arp_announce": None}, NAMES[1]: OFF}
    arp(tmp_path, "uninstall/fabric", {"arp": former, "fabric_files": [str(path)]})
    assert (tmp_path / "applied").read_text(encoding="utf-8").splitlines() == [
        f"-net/ipv4/conf/{NAMES[0]}/arp_ignore = 2",
        f"-net/ipv4/conf/{NAMES[1]}/arp_ignore = 0",
        f"-net/ipv4/conf/{NAMES[1]}/arp_announce = 0",
    ]
    assert not path.exists()


@pytest.mark.parametrize("known", [True, False])
def test_an_apt_repository_that_is_there_is_used(known: bool, tmp_path: Path) -> None:
    """Class C: NVIDIA's guide names another key, and apt takes no second entry of one repository with it."""
    stages = Stages(tmp_path, "common/apt_repository", "common/packages")
    guide = {
        "file": "/etc/apt/sources.list.d/nvidia-container-toolkit.list", "suite": "/", "signed_by": "/k.gpg",
        "uri": "https://nvidia.github.io/libnvidia-container/stable/deb/arm64",
    }  # fmt: skip
    state = {"arch": "aarch64", "apt": [guide] if known else []}
    run = stages.run("runtime/toolkit", {"one": {"__dgx_vllm_node": {"state": state}}})
    assert run.rc == 0, run.failure("one")
    added = [] if known else ["one common/apt_repository"]
    assert stages.calls == [*added, "one common/packages"]

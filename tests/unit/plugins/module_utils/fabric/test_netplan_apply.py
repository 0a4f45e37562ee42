"""The netplan file is written, reverted by itself and removed; systemd and netplan are a runner that answers."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from ansible_collections.dgx_vllm.spark.plugins.module_utils import files
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Completed
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan, netplan_apply
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under
from ansible_collections.dgx_vllm.spark.plugins.modules import dgx_vllm_netplan as module

from helpers.netplan_text import netplan_text

NEW = netplan_text(["a", "b"], ["198.51.100.1/26", "198.51.100.65/26"])
OLD = netplan_text(["a", "b"], ["198.51.100.1/26", "198.51.100.66/26"])
FOREIGN = "network: {version: 2}\n"


class Node:
    """A root directory, and a runner that fails the commands that begin with a word of `failing`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.failing: dict[str, str] = {}
        self.seen: list[str] = []
        self.file = under(root, netplan.PATH)

    def runner(self, argv: Sequence[str]) -> Completed:
        words = " ".join(argv)
        self.seen.append(words)
        for begin, complaint in self.failing.items():
            if words.startswith(begin):
                return Completed(1, "", complaint)
        return Completed(0, "", "")

    def apply(self, text: str = NEW) -> None:
        netplan_apply.apply(self.root, self.runner, text, 60)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_revert_is_scheduled_before_anything_changes(node: Node) -> None:
    node.apply()
    names = [seen.split()[0] + " " + seen.split()[1] for seen in node.seen]
    assert names == ["systemctl stop", "systemd-run --quiet", "netplan generate", "netplan apply"]
    assert "--on-active=60" in node.seen[1]
    assert (node.file.read_text(encoding="utf-8"), node.file.stat().st_mode & 0o777) == (NEW, 0o600)


def test_without_a_revert_nothing_changes(node: Node) -> None:
    node.failing["systemd-run"] = "no bus"
    with pytest.raises(
        netplan_apply.ApplyError, match=r"systemd-run cannot schedule the automatic revert \(no bus\)"
    ):
        node.apply()
    assert not node.file.exists()


@pytest.mark.parametrize("step", ["generate", "apply"])
def test_a_file_that_netplan_refuses_is_reverted_at_once(node: Node, step: str) -> None:
    node.failing[f"netplan {step}"] = "bad address"
    with pytest.raises(netplan_apply.ApplyError, match=f"netplan {step} failed .bad address."):
        node.apply()
    assert node.seen[-2] == "/bin/sh /run/dgx-vllm-netplan.revert"
    assert node.seen[-1] == "systemctl stop dgx-vllm-netplan-revert.timer"


def test_systemd_reads_the_command_again_as_it_was_given(node: Node) -> None:
    """A reload writes a transient unit out and in again; ; $ % and quotes do not come through that unharmed."""
    argv: list[Sequence[str]] = []
    netplan_apply.apply(node.root, lambda words: (argv.append(words), node.runner(words))[1], NEW, 60)
    scheduled = next(words for words in argv if words[0] == "systemd-run")
    command = list(scheduled)[-2:]
    assert command == ["/bin/sh", netplan_apply.REVERT.script]
    assert all(re.fullmatch(r"[\w/.-]+", word) for word in command)
    assert "--timer-property=AccuracySec=1s" in scheduled
    script = under(node.root, netplan_apply.REVERT.script)
    assert script.read_text(encoding="utf-8") == netplan_apply.revert_script(None, NEW)
    assert script.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("old", "back"),
    [
        (
            OLD,
            [
                "cp -p /run/dgx-vllm-netplan.before /etc/netplan/40-cx7.yaml",
                "ip address del 198.51.100.65/26 dev b",
            ],
        ),
        (
            None,
            [
                "rm -f /etc/netplan/40-cx7.yaml",
                "ip address del 198.51.100.1/26 dev a",
                "ip address del 198.51.100.65/26 dev b",
            ],
        ),
    ],
)
def test_the_revert_restores_the_file_and_drops_only_new_addresses(
    tmp_path: Path, old: str | None, back: list[str]
) -> None:
    """Run by a real shell, with commands that only tell how they were called; one that fails stops nothing."""
    for name in ("cp", "rm", "ip", "netplan"):
        (tmp_path / name).write_text('#!/bin/sh\necho "${0##*/} $*"\nexit 2\n', encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    script = netplan_apply.revert_script(old, NEW)
    done = subprocess.run(
        ["/bin/sh"], input=script, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.stdout.splitlines() == [*back, "netplan apply"]


def test_l11_what_others_changed_and_did_not_apply_is_not_applied_with_it(node: Node) -> None:
    other = under(node.root, "/etc/netplan/50-office.yaml")
    made = under(node.root, "/run/systemd/network/10-netplan-eth0.network")
    files.write(other, FOREIGN, 0o600)
    files.write(under(node.root, "/etc/netplan/90-NM-1.yaml"), FOREIGN, 0o600)
    os.utime(other, (1000, 1000))
    node.apply()
    assert node.seen, "nothing of netplan's own is there to compare with"
    files.write(made, "", 0o644)
    os.utime(made, (2000, 2000))
    node.apply()
    os.utime(other, (3000, 3000))
    node.seen.clear()
    with pytest.raises(
        netplan_apply.ApplyError, match=r"50-office\.yaml changed after netplan was last applied"
    ):
        node.apply(OLD)
    assert (node.seen, node.file.read_text(encoding="utf-8")) == ([], NEW)
    os.utime(made, (4000, 4000))
    node.apply(OLD)


def test_keeping_stops_the_timer(node: Node) -> None:
    netplan_apply.keep(node.runner)
    assert node.seen[-1] == "systemctl stop dgx-vllm-netplan-revert.timer"


def test_keeping_too_late_is_an_error(node: Node) -> None:
    node.failing["systemctl is-active"] = ""
    with pytest.raises(netplan_apply.ApplyError, match=r"reverted /etc/netplan/40-cx7\.yaml"):
        netplan_apply.keep(node.runner)


def test_removal_drops_the_addresses(node: Node) -> None:
    node.apply()
    node.seen.clear()
    assert netplan_apply.remove(node.root, node.runner)
    assert not node.file.exists()
    assert node.seen == [
        "ip address del 198.51.100.1/26 dev a",
        "ip address del 198.51.100.65/26 dev b",
        "netplan apply",
    ]
    assert not netplan_apply.remove(node.root, node.runner)


def test_a_file_of_somebody_else_comes_back(node: Node) -> None:
    files.write(node.file, FOREIGN, 0o600)
    node.apply(OLD)
    node.apply(NEW)
    assert netplan_apply.remove(node.root, node.runner)
    assert node.file.read_text(encoding="utf-8") == FOREIGN
    assert not netplan_apply.remove(node.root, node.runner)


def test_the_addresses_of_a_file() -> None:
    assert netplan.given(NEW) == [("a", "198.51.100.1/26"), ("b", "198.51.100.65/26")]
    assert netplan.given(FOREIGN) == netplan.given(None) == []


def test_documentation_names_the_options() -> None:
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert {name: option["default"] for name, option in options.items()} == {
        "state": "applied",
        "content": "",
        "live": True,
        "timeout": 180,
    }

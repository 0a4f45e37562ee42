"""The firewall's rules are loaded, taken back, kept and removed; nft and systemd are a runner that answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import MISSING, Completed
from ansible_collections.dgx_vllm.spark.plugins.module_utils.firewall import apply, table
from ansible_collections.dgx_vllm.spark.plugins.module_utils.state.host import under
from ansible_collections.dgx_vllm.spark.plugins.modules import dgx_vllm_firewall as module

RULES, UNIT = "table inet dgx_vllm { }\n", "[Unit]\n"


class Node:
    """A root directory, and a runner that fails the commands that begin with a word of `failing`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.failing: dict[str, Completed] = {}
        self.seen: list[str] = []
        self.listed = "table inet dgx_vllm {\n}\n"

    def runner(self, argv: Sequence[str]) -> Completed:
        words = " ".join(argv).replace(str(self.root), "")
        self.seen.append(words)
        for begin, done in self.failing.items():
            if words.startswith(begin):
                return done
        if words == "systemctl reenable dgx-vllm-firewall.service":
            under(self.root, table.WANTS).parent.mkdir(parents=True, exist_ok=True)
            under(self.root, table.WANTS).symlink_to(table.UNIT_FILE)
        return Completed(0, self.listed if words.startswith("nft list") else "", "")

    def load(self) -> None:
        apply.load(self.root, self.runner, RULES, 60)

    def keep(self) -> None:
        apply.keep(self.root, self.runner, UNIT)

    def text(self, path: str) -> str:
        return under(self.root, path).read_text(encoding="utf-8")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_revert_is_scheduled_before_a_rule_is_loaded(node: Node) -> None:
    node.load()
    assert [seen.split(" --")[0] for seen in node.seen] == [
        "nft -c -f /run/dgx-vllm-firewall.new", "systemctl stop dgx-vllm-firewall-revert.timer", "systemd-run",
        "nft -f /run/dgx-vllm-firewall.new",
    ]  # fmt: skip
    assert "--on-active=60" in node.seen[2]
    assert node.text(apply.REVERT.script) == apply.SCRIPT


def test_until_they_are_kept_a_boot_has_the_former_rules(node: Node) -> None:
    node.load()
    assert not under(node.root, table.RULES).exists()
    assert not under(node.root, table.UNIT_FILE).exists()
    assert not any(table.firewall(node.root, node.runner).values())


@pytest.mark.parametrize(
    ("command", "done", "sentence"),
    [
        ("nft -c", Completed(MISSING, "", ""), "nft is missing; install nftables"),
        (
            "nft -c",
            Completed(1, "", "syntax error"),
            "nft refuses the rules, and nothing was loaded .syntax error.",
        ),
        (
            "systemd-run",
            Completed(1, "", "no bus"),
            "cannot schedule the automatic revert .no bus., so no rule",
        ),
        ("nft -f", Completed(1, "", "no memory"), "cannot load the rules .no memory.; the former ones"),
    ],
)
def test_what_fails_leaves_the_former_rules(node: Node, command: str, done: Completed, sentence: str) -> None:
    node.failing[command] = done
    with pytest.raises(apply.FirewallError, match=sentence):
        node.load()
    loads = [seen for seen in node.seen if seen.startswith("nft -f")]
    assert loads == (["nft -f /run/dgx-vllm-firewall.new"] if command == "nft -f" else [])
    assert command != "nft -f" or node.seen[-1] == "systemctl stop dgx-vllm-firewall-revert.timer"


def test_kept_rules_are_loaded_at_boot_and_a_second_run_finds_them(node: Node) -> None:
    node.load()
    node.keep()
    assert (node.text(table.RULES), node.text(table.UNIT_FILE)) == (RULES, UNIT)
    assert not under(node.root, apply.NEW).exists()
    found = table.firewall(node.root, node.runner)
    assert found == module._wanted({"rules": RULES, "unit": UNIT})


@pytest.mark.parametrize(
    "listed", ["", "table inet dgx_vllm {\n\tchain mine {\n\t}\n}\n"], ids=["flushed", "changed"]
)
def test_rules_that_somebody_changed_are_not_loaded(node: Node, listed: str) -> None:
    node.load()
    node.keep()
    node.listed = listed
    assert not table.firewall(node.root, node.runner)["loaded"]


def test_keeping_too_late_is_an_error(node: Node) -> None:
    node.load()
    node.failing["systemctl is-active"] = Completed(3, "", "")
    with pytest.raises(apply.FirewallError, match="took the rules back before it was reached again"):
        node.keep()
    assert not under(node.root, table.RULES).exists()


def test_a_unit_that_does_not_start_is_said(node: Node) -> None:
    node.load()
    node.failing["systemctl reload-or-restart"] = Completed(1, "", "masked")
    with pytest.raises(apply.FirewallError, match="so a boot may not load them"):
        node.keep()
    assert not table.firewall(node.root, node.runner)["loaded"], "the next run has to try again"


def test_a_unit_that_flushes_every_table_loads_ours_again(node: Node) -> None:
    """Whether it is started for the first time, again, or reloaded; and it does not fail because of us."""
    node.load()
    node.keep()
    lines = node.text(table.DROP_IN).splitlines()
    assert lines[-2:] == [
        f"{name}=-/usr/sbin/nft -f {table.RULES}" for name in ("ExecStartPost", "ExecReload")
    ]
    under(node.root, table.DROP_IN).unlink()
    assert not table.firewall(node.root, node.runner)["enabled"]


def test_removal_leaves_nothing(node: Node) -> None:
    node.load()
    node.keep()
    apply.remove(node.root, node.runner)
    assert "systemctl disable --now dgx-vllm-firewall.service" in node.seen
    assert "nft delete table inet dgx_vllm" in node.seen
    assert not under(node.root, table.DROP_IN).parent.exists()
    assert [path.name for path in node.root.rglob("*") if path.is_file()] == []


def test_a_node_without_the_firewall_is_not_asked(node: Node) -> None:
    """The state is read by every run, on nodes without nft too."""
    assert table.firewall(node.root, node.runner) == {
        "rules_sha256": None, "unit_sha256": None, "enabled": False, "loaded": False,
    }  # fmt: skip
    assert node.seen == []


def test_documentation_names_the_options() -> None:
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert {name: option["default"] for name, option in options.items()} == {
        "state": "applied", "rules": "", "unit": "", "timeout": 120,
    }  # fmt: skip

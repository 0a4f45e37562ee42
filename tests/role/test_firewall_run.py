"""When the firewall's stage runs, and what the rendered rules do between real network namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.module_utils.command import Completed
from ansible_collections.dgx_vllm.spark.plugins.module_utils.firewall import apply, table

from helpers import readers
from helpers.releases import node, plan
from helpers.stages import ROLE, Stages

GOLDEN = Path(__file__).resolve().parent / "golden"
OTHERS = """table ip nat {
	chain DOCKER {
	}
	chain PREROUTING {
		type nat hook prerouting priority -100; policy accept;
		fib daddr type local jump DOCKER
	}
}
"""
SERVER = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    line = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    waiting.register(line, selectors.EVENT_READ)
print("up", flush=True)
while True:
    for key, _ in waiting.select():
        if key.data is None:
            waiting.register(key.fileobj.accept()[0], selectors.EVENT_READ, "line")
        else:
            key.fileobj.send(key.fileobj.recv(100))
"""
ASK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def ask(one):
    try:
        socket.create_connection((one[1], one[2]), timeout=1.5, source_address=(one[0], 0)).close()
        return True
    except OSError:
        return False
asked = json.loads(sys.argv[1])
print(json.dumps([*ThreadPoolExecutor(len(asked)).map(ask, asked)]))
"""
PORTS = {"ssh": 22, "other": 5432, "api": 8123, "store": 29501, "watch": 29590, "chosen": 40000}
PEER, RAIL_STRANGER, CLIENT, STRANGER = "198.51.100.2", "198.51.100.9", "192.0.2.7", "203.0.113.9"
AT_RAIL, AT_MANAGEMENT = "198.51.100.1", "203.0.113.1"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Net:
    """A node with a rail and a management interface, and who is behind each of them."""

    def __init__(self, name: str) -> None:
        self.node, self.fabric, self.lan = (f"{name}-{part}" for part in ("node", "fabric", "lan"))

    def build(self) -> None:
        for space in (self.node, self.fabric, self.lan):
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        ends = {
            self.fabric: ("rail0", [f"{AT_RAIL}/26"], [f"{PEER}/26", f"{RAIL_STRANGER}/26"]),
            self.lan: (
                "mgmt0",
                [f"{AT_MANAGEMENT}/24", "2001:db8::1/64", "fd00::1/64"],
                [f"{STRANGER}/24", f"{CLIENT}/32", "2001:db8::9/64", "fd00::9/64"],
            ),
        }
        for space, (name, own, others) in ends.items():
            ip("-n", self.node, "link", "add", name, "type", "veth", "peer", "name", "far", "netns", space)
            for where, device, addresses in ((self.node, name, own), (space, "far", others)):
                for address in addresses:
                    ip(
                        "-n",
                        where,
                        "address",
                        "add",
                        address,
                        "dev",
                        device,
                        *(["nodad"] if ":" in address else []),
                    )
                ip("-n", where, "link", "set", device, "up")
        ip("-n", self.lan, "route", "add", f"{AT_RAIL}/32", "via", AT_MANAGEMENT)
        ip("-n", self.node, "route", "add", f"{CLIENT}/32", "dev", "mgmt0")

    def remove(self) -> None:
        for space in (self.node, self.fabric, self.lan):
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)

    def run(self, *words: str, text: str = "", where: str = "") -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", where or self.node, *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)

    def load(self, text: str) -> None:
        done = self.run("nft", "-f", "-", text=text)
        assert done.returncode == 0, done.stderr

    def listed(self) -> str:
        return self.run("nft", "list", "ruleset").stdout

    def open(self, source: str, target: str) -> set[str]:
        """Which of PORTS a source reaches."""
        where = self.fabric if source in (PEER, RAIL_STRANGER) else self.lan
        asked = json.dumps([[source, target, port] for port in PORTS.values()])
        done = self.run(sys.executable, "-c", ASK, asked, where=where)
        return {name for name, reached in zip(PORTS, json.loads(done.stdout), strict=True) if reached}


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    if not (shutil.which("nft") and shutil.which("ip")):
        pytest.skip("nft or ip is not installed")
    found = Net(f"dgxvllm{os.getpid()}")
    try:
        try:
            found.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine has no network namespaces for us: {error.stderr.strip()}")
        if found.run("nft", "list", "ruleset").returncode != 0:
            pytest.skip("the kernel has no nf_tables for us")
        words = [*map(str, PORTS.values())]
        command = ["ip", "netns", "exec", found.node, sys.executable, "-c", SERVER, *words]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        try:
            yield found
        finally:
            server.kill()
            server.wait()
    finally:
        found.remove()


@pytest.fixture
def rules() -> str:
    """Those of the head of a pair, with the API of a node that has clients."""
    text = (GOLDEN / "pair_head.nft").read_text(encoding="utf-8")
    api = (GOLDEN / "everything.nft").read_text(encoding="utf-8").split("\t\t# The API.\n")[1]
    return text.replace("\t}\n}\n", "\t\t# The API.\n" + api)


@pytest.fixture
def bare(net: Net) -> Net:
    """The network without a rule."""
    net.run("nft", "flush", "ruleset")
    return net


def test_peers_reach_all_and_strangers_only_what_is_not_ours(bare: Net, rules: str) -> None:
    assert bare.open(STRANGER, AT_MANAGEMENT) == set(PORTS), (
        "without rules all is open, or this test proves nothing"
    )
    bare.load(rules)
    assert bare.open(PEER, AT_RAIL) == set(PORTS)
    assert bare.open(RAIL_STRANGER, AT_RAIL) == {"ssh", "other"}
    assert bare.open(STRANGER, AT_MANAGEMENT) == {"ssh", "other", "chosen"}
    assert bare.open(CLIENT, AT_MANAGEMENT) == {"ssh", "other", "chosen", "api"}
    assert bare.open(STRANGER, AT_RAIL) == {"ssh", "other"}, (
        "the kernel answers for a rail on every interface"
    )


def test_the_rules_are_for_ipv6_too(bare: Net, rules: str) -> None:
    assert bare.open("fd00::9", "fd00::1") == set(PORTS)
    bare.load(rules)
    assert bare.open("fd00::9", "fd00::1") == {"ssh", "other", "chosen"}
    assert bare.open("2001:db8::9", "2001:db8::1") == {"ssh", "other", "chosen", "api"}


def test_others_tables_stay_and_a_second_load_is_the_same(bare: Net, rules: str) -> None:
    bare.load(OTHERS)
    before = bare.listed()
    bare.load(rules)
    once = bare.listed()
    bare.load(rules)
    assert bare.listed() == once
    assert before.strip() in once
    bare.run(*apply.DELETE)
    assert bare.listed() == before


def test_a_connection_that_is_open_stays_open(bare: Net, rules: str) -> None:
    talk = f"""
import socket
line = socket.create_connection(("{AT_MANAGEMENT}", {PORTS["store"]}), timeout=5)
print("connected", flush=True)
input()
line.send(b"x")
print(line.recv(1))
"""
    command = ["ip", "netns", "exec", bare.lan, sys.executable, "-c", talk]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        bare.load(rules)
        assert client.communicate("go\n", timeout=20)[0] == "b'x'\n"


def test_without_a_word_from_the_operator_the_former_rules_come_back(
    bare: Net, rules: str, tmp_path: Path
) -> None:
    """What the timer runs, before any rules were kept and after; both with real nft."""
    kept = tmp_path / "firewall.nft"
    script = apply.SCRIPT.replace(table.RULES, str(kept))
    bare.load(rules)
    bare.run("/bin/sh", "-c", script)
    assert bare.listed() == ""
    kept.write_text((GOLDEN / "pair_worker.nft").read_text(encoding="utf-8"), encoding="utf-8")
    bare.load(kept.read_text(encoding="utf-8"))
    former = bare.listed()
    bare.load(rules)
    assert bare.listed() != former
    bare.run("/bin/sh", "-c", script)
    assert bare.listed() == former


def test_loading_and_keeping_with_the_real_nft(bare: Net, rules: str, tmp_path: Path) -> None:
    def runner(argv: Sequence[str]) -> Completed:
        done = bare.run(*(argv if argv[0] == "nft" else ["true"]))
        return Completed(done.returncode, done.stdout, done.stderr)

    apply.load(tmp_path, runner, rules, 60)
    apply.keep(tmp_path, runner, "[Unit]\n")
    assert table.is_loaded(tmp_path, runner)
    bare.run("nft", "flush", "ruleset")
    assert not table.is_loaded(tmp_path, runner)
    with pytest.raises(apply.FirewallError, match="nft refuses the rules"):
        apply.load(tmp_path, runner, rules.replace("drop", "dorp"), 60)
    assert bare.listed() == ""


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.nft")), ids=lambda file: file.stem)
def test_nft_takes_every_golden_file(bare: Net, file: Path) -> None:
    done = bare.run("nft", "-c", "-f", str(file))
    assert done.returncode == 0, done.stderr


def given(firewall: dict[str, Any] | None, noted: bool) -> dict[str, Any]:
    more = {} if firewall is None else {"firewall": firewall}
    return node(packages={"nftables": "1.0"}, ledger={"firewall": noted} if noted else {}, **more)


def planned() -> dict[str, Any]:
    found = plan("one")
    row = {
        "addresses": [], "peer_addresses": {}, "watch_port": 29590, "master_port": 29501, "executor": "mp",
        "port": 8000,
    }  # fmt: skip
    found["hosts"]["one"].update(row)
    return found


WANTED = {
    "rules_sha256": "{{ __dgx_vllm_firewall_wanted.rules_sha256 }}",
    "unit_sha256": "{{ __dgx_vllm_firewall_wanted.unit_sha256 }}",
    "enabled": True, "loaded": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "firewall", "noted", "ran"),
    [
        (False, None, False, []),
        (False, WANTED, True, ["remove"]),
        (True, None, False, ["load"]),
        (True, {**WANTED, "loaded": False}, True, ["load"]),
        (True, WANTED, True, []),
    ],
    ids=["off", "turned off", "first run", "flushed", "second run"],
)
def test_the_stage_runs_only_where_something_is_to_do(
    wanted: bool, firewall: dict[str, Any] | None, noted: bool, ran: list[str], tmp_path: Path
) -> None:
    stages = Stages(
        tmp_path, "runtime/main", "image/main", "model/main", "firewall/load", "firewall/remove"
    )  # fmt: skip
    common = {"__dgx_vllm_plan": planned(), "dgx_vllm_firewall": wanted, "dgx_vllm_model": "o/m"}
    run = stages.run("prepare", {"one": given(firewall, noted)}, **common)
    assert run.rc == 0, run.failure("one")
    assert [call for call in stages.calls if "firewall" in call] == [f"one firewall/{name}" for name in ran]


def test_the_unit_comes_after_what_flushes_every_table() -> None:
    """/etc/nftables.conf of Debian and Ubuntu begins with `flush ruleset`."""
    unit = (ROLE / "files/dgx-vllm-firewall.service").read_text(encoding="utf-8")
    assert "\nAfter=nftables.service\n" in unit
    assert unit.count(table.RULES) == 2
    assert f"/{readers.setting(unit, 'WantedBy')[0]}.wants/" in table.WANTS


def test_check_mode_shows_the_rules_and_loads_none(tmp_path: Path) -> None:
    """With the real module, which only reads here."""
    stages = Stages(tmp_path, "common/packages")
    common = {"__dgx_vllm_plan": planned(), "dgx_vllm_firewall": True, "dgx_vllm_model": "o/m"}
    api = {"dgx_vllm_host": "192.0.2.1", "dgx_vllm_firewall_api_from": ["198.51.100.0/24"]}
    run = stages.run("firewall/load", {"one": given(None, False)}, "--check", "--diff", **common, **api)
    assert run.rc == 0, run.failure("one")
    (shown,) = (
        result["diff"] for task, _, result in run.results() if task == "dgx_vllm : Show what would be loaded"
    )
    assert "\t\tip daddr 192.0.2.1 tcp dport 8000 drop\n" in shown["after"]
    assert [
        task for task, _, result in run.results() if "Keep the rules" in task and not result.get("skipped")
    ] == []

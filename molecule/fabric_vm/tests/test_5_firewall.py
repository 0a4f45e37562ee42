"""The firewall on two machines: peers pass, a stranger on the rail does not; rules that lock ssh out are taken back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from machines import HOSTS, RAILS, address, changed, greets, listening

from testlib.node import Node
from testlib.runs import Operator, one_line

BOTH = pytest.mark.parametrize("host", HOSTS)
UNIT, REVERT = "dgx-vllm-firewall.service", "dgx-vllm-firewall-revert"
TABLE = "nft list table inet dgx_vllm"
STAGE = ("site.yml", "--tags", "firewall")
SSH_PORT = 2222
STRANGER = "198.51.100.9"
STORE, OTHER = 29501, 5432
LOCKED = """table inet dgx_vllm
delete table inet dgx_vllm
table inet dgx_vllm {
  chain input {
    type filter hook input priority -5; policy accept;
    tcp dport 22 tcp flags & (fin | syn | rst | ack) == syn drop
  }
}
"""


@pytest.fixture(scope="module", autouse=True)
def guarded(operator: Operator, nodes: dict[str, Node]) -> Iterator[None]:
    """Two programs that listen on every address of the head, a stranger on its rail, and the firewall."""
    listen = "systemd-run --quiet --collect --unit=testbed-listen-{0} python3 -m http.server {0} --bind ::"
    nodes["spark1"].sh("; ".join(listen.format(port) for port in (STORE, OTHER)))
    nodes["spark2"].sh(f"ip address add {STRANGER}/26 dev {RAILS[0]}")
    operator.succeed(*STAGE, firewall=True)
    yield
    operator.succeed(*STAGE, firewall=False)
    nodes["spark2"].sh(f"ip address del {STRANGER}/26 dev {RAILS[0]}")
    nodes["spark1"].sh(f"systemctl stop testbed-listen-{STORE} testbed-listen-{OTHER}")


def reaches(node: Node, source: str, port: int) -> bool:
    """Whether a connection from an address of the second machine to the first one's rail is accepted."""
    ask = f"import socket; socket.create_connection(('{address('spark1', 0)}', {port}), 8, ('{source}', 0)).close()"
    return bool(node.host.run(f'python3 -c "{ask}"').rc == 0)


def test_peers_pass_and_a_stranger_reaches_only_what_is_not_ours(nodes: dict[str, Node]) -> None:
    peer = address("spark2", 0)
    assert {port: reaches(nodes["spark2"], peer, port) for port in (STORE, OTHER)} == {
        STORE: True,
        OTHER: True,
    }
    found = {port: reaches(nodes["spark2"], STRANGER, port) for port in (STORE, OTHER)}
    assert found == {STORE: False, OTHER: True}


@BOTH
def test_the_package_and_the_unit_are_there(nodes: dict[str, Node], host: str) -> None:
    assert nodes[host].host.package("nftables").is_installed
    assert nodes[host].host.service(UNIT).is_enabled
    assert nodes[host].is_running(UNIT)
    assert nodes[host].sh(TABLE)


def test_second_run_changes_nothing(operator: Operator) -> None:
    assert changed(operator.succeed(*STAGE, firewall=True)) == dict.fromkeys(HOSTS, 0)
    api = {"host": "192.0.2.1", "firewall_api_from": ["192.0.2.0/24"]}
    run = operator.succeed(*STAGE, "--check", "--diff", firewall=True, **api)
    assert {host: count > 0 for host, count in changed(run).items()} == {"spark1": True, "spark2": False}
    assert "192.0.2.0/24" in run.output


@pytest.mark.parametrize("word", ["restart", "reload", "stop nftables.service; systemctl start"])
def test_what_flushes_every_table_brings_ours_back(nodes: dict[str, Node], word: str) -> None:
    """/etc/nftables.conf of Debian begins with `flush ruleset`."""
    node = nodes["spark1"]
    before = node.sh(f"systemctl start nftables.service; {TABLE}")
    node.sh(f"systemctl {word} nftables.service")
    node.wait_for(TABLE, 30)
    assert node.sh(TABLE) == before


def test_rules_that_somebody_flushed_come_back_with_the_next_run(
    operator: Operator, nodes: dict[str, Node]
) -> None:
    before = nodes["spark1"].sh(TABLE)
    nodes["spark1"].sh("nft flush ruleset")
    run = operator.succeed(*STAGE, firewall=True)
    assert {host: count > 0 for host, count in changed(run).items()} == {"spark1": True, "spark2": False}
    assert nodes["spark1"].sh(TABLE) == before


def test_rules_that_lock_ssh_out_are_taken_back(
    operator: Operator, nodes: dict[str, Node], places: dict[str, str]
) -> None:
    before = {host: nodes[host].sh(TABLE) for host in HOSTS}
    with listening(places["spark2 ssh"], SSH_PORT) as dark:
        run = operator.run(*STAGE, "-e", json.dumps({"__dgx_vllm_firewall_text": LOCKED}), firewall=True)
        end = time.monotonic() + 210
        while not greets(places["spark2 ssh"], SSH_PORT) and time.monotonic() < end:
            time.sleep(1)
    assert run.status in (2, 4), run.tail
    assert len(dark) > 2, f"ssh answered all the time, so this test proves nothing: {run.tail}"
    assert "The firewall of spark2 could not be set up: " in one_line(run.output), run.tail
    for host in HOSTS:
        nodes[host].wait_stopped(f"{REVERT}.timer", f"{REVERT}.service", limit=300)
        assert nodes[host].sh(TABLE) == before[host]
    assert changed(operator.succeed(*STAGE, firewall=True)) == dict.fromkeys(HOSTS, 0)


def test_turned_off_it_leaves_nothing_but_the_package(operator: Operator, nodes: dict[str, Node]) -> None:
    operator.succeed(*STAGE, firewall=False)
    for host in HOSTS:
        assert nodes[host].host.run(TABLE).rc != 0
        assert not nodes[host].host.file(f"/etc/systemd/system/{UNIT}").exists
        assert not nodes[host].host.file("/etc/dgx-vllm/firewall.nft").exists
    assert reaches(nodes["spark2"], STRANGER, STORE)
    assert changed(operator.succeed(*STAGE, firewall=False)) == dict.fromkeys(HOSTS, 0)

"""Two nodes, one model: what runs where, and over which interfaces."""

from __future__ import annotations

import json

import pytest

from testlib.node import MARKERS, UNIT, WATCH, Node

RAILS = ("enp1s0f0np0", "enP2p1s0f0np0")


@pytest.fixture(params=["head", "worker"])
def node(request: pytest.FixtureRequest, head: Node, worker: Node) -> Node:
    """Each of the two."""
    return head if request.param == "head" else worker


def sent(node: Node, interface: str) -> int:
    """Bytes that an interface has sent and received."""
    return sum(int(node.text(f"/sys/class/net/{interface}/statistics/{way}_bytes")) for way in ("rx", "tx"))


def test_both_units_and_both_watches_run_and_start_at_boot(node: Node) -> None:
    for unit in (UNIT, WATCH):
        service = node.host.service(unit)
        assert service.is_running
        assert service.is_enabled


def test_the_head_serves_with_tensor_parallelism_across_both_nodes(head: Node, worker: Node) -> None:
    assert head.completes()
    assert "VLLM::Worker_TP0" in head.sh("docker top dgx-vllm")
    assert "VLLM::Worker_TP1" in worker.sh("docker top dgx-vllm")


def test_the_worker_has_no_api(worker: Node) -> None:
    assert worker.host.run("curl -s -o /dev/null http://127.0.0.1:8000/health").rc == 7


def test_tokens_travel_over_the_rails_and_not_over_the_management_network(head: Node) -> None:
    before = {name: sent(head, name) for name in (*RAILS, "eth0")}
    # On the node, so that the request itself is not counted; one connection for all of it.
    body = json.dumps(
        {"model": "testbed/tiny-moe-fp8", "prompt": "Say something.", "max_tokens": 24, "temperature": 0}
    )
    head.put("/run/testbed-body.json", body)
    head.sh(
        "sed -n 's/^VLLM_API_KEY=\\(.*\\)/header = \"Authorization: Bearer \\1\"/p' /etc/dgx-vllm/current/vllm.env"
        " | curl -sf -K - -H 'Content-Type: application/json' -d @/run/testbed-body.json http://127.0.0.1:8000/v1/completions"
    )
    grown = {name: sent(head, name) - before[name] for name in before}
    assert grown[RAILS[0]] > 200_000, grown
    assert grown["eth0"] < grown[RAILS[0]] / 5, grown


@pytest.mark.parametrize("marker", MARKERS, ids=["linear", "moe"])
def test_each_node_printed_the_markers(node: Node, marker: str) -> None:
    assert node.log.count(marker) == 1


def test_the_environment_names_this_node_and_its_rails(head: Node, worker: Node) -> None:
    for node, address in ((head, "198.51.100.1"), (worker, "198.51.100.2")):
        lines = [
            line for line in node.text("/etc/dgx-vllm/current/vllm.env").splitlines() if "KEY" not in line
        ]
        assert f"VLLM_HOST_IP={address}" in lines
        assert f"GLOO_SOCKET_IFNAME={RAILS[0]}" in lines
        assert f"UCX_NET_DEVICES={','.join(RAILS)}" in lines


def test_the_watch_listens_only_on_the_fabric(node: Node) -> None:
    listening = node.listening(29590)
    assert any(address.startswith("198.51.100.") for address in listening)
    assert "0.0.0.0" not in listening
    assert not any(address.startswith("10.203.") for address in listening)


def test_the_nodes_share_a_secret_that_only_root_reads(head: Node, worker: Node) -> None:
    files = [node.host.file("/etc/dgx-vllm/watch.secret") for node in (head, worker)]
    assert {(file.user, file.mode) for file in files} == {("root", 0o600)}
    (text,) = {file.content_string for file in files}
    word = text.split()[1]
    for node in (head, worker):
        assert word not in node.sh("journalctl --no-pager -u dgx-vllm-watch; cat /etc/dgx-vllm/watch.json")


def test_the_watches_know_each_other(node: Node) -> None:
    assert "counts as silent" not in node.sh("journalctl --no-pager -u dgx-vllm-watch")


def test_without_the_secret_a_watch_answers_nothing(head: Node, worker: Node) -> None:
    ask = "curl -s -m 10 -w '%{http_code}' http://198.51.100.1:29590/status"
    assert worker.sh(ask) == "403"
    assert head.host.run(ask).stdout == "000", "the head itself asks from an address that nobody named"

"""Something fails, nobody intervenes, and the next completion is correct."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from testbed import plug, run_on_testbed

from testlib.node import UNIT, Node, wait_until
from testlib.runs import Operator, one_line

QUESTION = {"model": "testbed/tiny-moe-fp8", "prompt": "Say something.", "max_tokens": 4, "temperature": 0}
LIMIT = 400.0
STATE = "/var/lib/dgx-vllm/state/watch.json"
RAILS = ("enp1s0f0np0", "enP2p1s0f0np0")


def answer(head: Node) -> str:
    """The text of a completion; "" if none comes within eight seconds."""
    status, body = head.request("/v1/completions", QUESTION, limit=8)
    return str(body["choices"][0]["text"]) if status == 200 else ""


def watch(node: Node) -> str:
    """The last lines of the node's watch, for a failed test's report."""
    return node.sh("journalctl --no-pager -n 25 -o short-precise -u dgx-vllm-watch")


@contextmanager
def recovery(head: Node, worker: Node, recoveries: dict[str, float], drill: str) -> Iterator[None]:
    """Something fails inside; then the replica must be started again and give the same answer, within LIMIT seconds."""
    expected = answer(head)
    assert expected, "the pair does not serve before the drill\n" + watch(head)
    runs = [node.property("InvocationID") for node in (head, worker)]
    began = time.monotonic()
    yield
    while True:
        fresh = all(
            node.property("InvocationID") != run for node, run in zip((head, worker), runs, strict=True)
        )
        if fresh and answer(head) == expected:
            break
        assert time.monotonic() - began < LIMIT, f"head:\n{watch(head)}\nworker:\n{watch(worker)}"
        time.sleep(1)
    recoveries[drill] = time.monotonic() - began
    settled(head, worker)


def settled(head: Node, worker: Node) -> None:
    """Both watches report the replica as ready."""
    for node in (head, worker):
        node.wait_for_text(STATE, '"phase": "ready"')


def long_request(head: Node) -> threading.Thread:
    """A completion of many tokens that is running when this returns."""
    body = {**QUESTION, "max_tokens": 200, "ignore_eos": True}
    thread = threading.Thread(target=head.request, args=("/v1/completions", body, 300), daemon=True)
    thread.start()
    time.sleep(4)
    return thread


Drilled = tuple[Node, Node, dict[str, float]]


@pytest.fixture
def pair(head: Node, worker: Node, recoveries: dict[str, float]) -> Drilled:
    """The arguments of `recovery`."""
    return head, worker, recoveries


def test_worker_container_killed(pair: Drilled) -> None:
    with recovery(*pair, "worker container killed"):
        pair[1].sh("docker kill dgx-vllm")


SLOW = """
# Connections to a port, a byte a second each; one that is closed comes again.
import socket, sys, time
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connections = []
while True:
    kept = []
    for connection in connections:
        try:
            connection.send(b"G")
            kept.append(connection)
        except OSError:
            connection.close()
    connections = kept
    for _ in range(count - len(connections)):
        try:
            connections.append(socket.create_connection((address, port), 5))
        except OSError:
            break
    time.sleep(1)
"""


@contextmanager
def slow_connections(node: Node, address: str, count: int = 1000) -> Iterator[None]:
    """`node` keeps opening connections to the watch at `address`."""
    node.put("/run/testbed-slow.py", SLOW)
    node.sh(
        "systemd-run -q --collect --unit testbed-slow -p LimitNOFILE=4096"
        f" python3 /run/testbed-slow.py {address} 29590 {count}"
    )
    try:
        yield
    finally:
        node.sh("systemctl stop testbed-slow; rm -f /run/testbed-slow.py")


def test_worker_killed_under_1000_slow_connections_to_each_watch(pair: Drilled) -> None:
    head, worker, _ = pair
    with slow_connections(worker, "198.51.100.1"), slow_connections(head, "198.51.100.2"):
        time.sleep(10)
        with recovery(*pair, "worker container killed under 1,000 slow connections to each watch"):
            worker.sh("docker kill dgx-vllm")
        assert worker.is_running("testbed-slow.service") and head.is_running("testbed-slow.service")


def test_head_killed(pair: Drilled) -> None:
    with recovery(*pair, "head killed"):
        pair[0].sh("docker kill dgx-vllm")


def test_headless_parent_killed_while_its_child_lives(pair: Drilled) -> None:
    with recovery(*pair, "headless parent killed"):
        pair[1].sh("kill -9 $(docker top dgx-vllm -eo pid,args | awk '/bin\\/vllm serve/ {print $1; exit}')")


def test_worker_frozen_with_a_request_running(pair: Drilled) -> None:
    request = long_request(pair[0])
    with recovery(*pair, "worker frozen (SIGSTOP) with a request running"):
        pair[1].sh("kill -STOP $(docker top dgx-vllm -eo pid | tail -n +2)")
    request.join(300)


def test_head_frozen_with_a_request_running(pair: Drilled) -> None:
    request = long_request(pair[0])
    with recovery(*pair, "head frozen (SIGSTOP) with a request running"):
        pair[0].sh("kill -STOP $(docker top dgx-vllm -eo pid | tail -n +2)")
    request.join(300)


def test_cable_cut_and_plugged_in_again(pair: Drilled) -> None:
    head, worker, _ = pair
    with recovery(*pair, "cable cut for 30 s and plugged in again"):
        worker.sh("; ".join(f"ip link set {rail} down" for rail in RAILS))
        time.sleep(30)
        assert not answer(head), "the pair served without its cable"
        worker.sh("; ".join(f"ip link set {rail} up" for rail in RAILS))


def test_worker_node_rebooted(pair: Drilled) -> None:
    with recovery(*pair, "worker node rebooted"):
        run_on_testbed('dk restart -t 60 "$TESTBED_PREFIX-pair-spark2"')
        plug()


RELUCTANT = """#!/bin/sh
# docker, of which the first two starts of the server after a boot fail, as without its devices.
tries=$(cat /run/testbed-tries 2>/dev/null || echo 0)
if [ "$1" = run ] && [ "$tries" -lt 2 ]; then
  echo $((tries + 1)) >/run/testbed-tries
  exit 125
fi
exec /usr/bin/docker.real "$@"
"""


@pytest.fixture
def reluctant_docker(head: Node, worker: Node) -> Iterator[None]:
    """Nodes whose Docker cannot start the server at first after a boot, and watches with the patience of a default."""
    # A container has its host's uptime, so the time after a boot is made longer.
    with limits(head, worker, failure_limit=3, boot_grace=10**9):
        for node in (head, worker):
            node.put("/usr/bin/docker.new", RELUCTANT)
            node.sh("echo 2 >/run/testbed-tries; chmod 0755 /usr/bin/docker.new")
            node.sh("mv /usr/bin/docker /usr/bin/docker.real; mv /usr/bin/docker.new /usr/bin/docker")
        yield
        for node in (head, worker):
            node.sh("mv /usr/bin/docker.real /usr/bin/docker")


@pytest.mark.usefixtures("reluctant_docker")
def test_both_nodes_lose_power_boot_30_s_apart_and_docker_fails_twice(pair: Drilled) -> None:
    names = [f'"$TESTBED_PREFIX-pair-{host}"' for host in ("spark1", "spark2")]
    with recovery(*pair, "power cut of both nodes, boots 30 s apart, Docker fails twice on each"):
        run_on_testbed(f"dk kill {' '.join(names)}; dk start {names[0]}; sleep 30; dk start {names[1]}")
        plug()
        for node in pair[:2]:
            wait_until(node.answers, "ssh answers after the boot", 90)
    for node in pair[:2]:
        assert node.text("/run/testbed-tries") == "2"


def test_unit_restarted_on_the_worker(pair: Drilled) -> None:
    with recovery(*pair, "systemctl restart dgx-vllm on the worker"):
        pair[1].sh("systemctl restart dgx-vllm")


def test_docker_restarted_on_the_head(pair: Drilled) -> None:
    with recovery(*pair, "systemctl restart docker on the head"):
        pair[0].sh("systemctl restart docker")


def test_a_stopped_watch_stops_no_server(pair: Drilled) -> None:
    head, worker, _ = pair
    runs = [node.property("InvocationID") for node in (head, worker)]
    for node in (head, worker):
        node.sh("systemctl stop dgx-vllm-watch")
        time.sleep(40)
        node.sh("systemctl start dgx-vllm-watch")
    assert [node.property("InvocationID") for node in (head, worker)] == runs, watch(head) + watch(worker)
    assert answer(head)


def test_a_stop_on_one_node_stops_the_replica_and_a_start_on_the_other_starts_it(pair: Drilled) -> None:
    head, worker, _ = pair
    expected = answer(head)
    worker.sh("systemctl stop dgx-vllm")
    head.wait_stopped(UNIT, limit=90)
    assert "it was stopped" in watch(head) or "was stopped on" in watch(head)
    time.sleep(10)
    assert worker.property("ActiveState") == "inactive"
    head.sh("systemctl start dgx-vllm")
    wait_until(worker.is_running, "the server of the worker is started", 90)
    settled_within(head, worker, expected)


def settled_within(head: Node, worker: Node, expected: str) -> None:
    """The replica serves the same answer again."""
    began = time.monotonic()
    while answer(head) != expected:
        assert time.monotonic() - began < LIMIT, f"head:\n{watch(head)}\nworker:\n{watch(worker)}"
        time.sleep(1)
    settled(head, worker)


@contextmanager
def limits(head: Node, worker: Node, **values: float) -> Iterator[None]:
    """Watches with other limits."""
    change = (
        "import json, pathlib; file = pathlib.Path('/etc/dgx-vllm/watch.json'); "
        f"config = json.loads(file.read_text()); config['limits'].update({values!r}); "
        "file.write_text(json.dumps(config))"
    )
    kept = [node.text("/etc/dgx-vllm/watch.json") for node in (head, worker)]
    for node in (head, worker):
        node.sh(f"python3 -c {shlex.quote(change)}; systemctl restart dgx-vllm-watch")
    yield
    for node, text in zip((head, worker), kept, strict=True):
        node.sh(
            f"printf '%s\\n' {shlex.quote(text)} >/etc/dgx-vllm/watch.json; systemctl restart dgx-vllm-watch"
        )


@pytest.fixture
def no_patience(head: Node, worker: Node) -> Iterator[None]:
    """Watches that give up at the first failure."""
    with limits(head, worker, failure_limit=0):
        yield


@pytest.mark.usefixtures("no_patience")
def test_too_many_failures_end_in_a_message(operator: Operator, pair: Drilled) -> None:
    head, worker, _ = pair
    expected = answer(head)
    worker.sh("docker kill dgx-vllm")
    for node in (head, worker):
        node.wait_for_text(STATE, "gave up after 1 failure ")
        node.wait_stopped(UNIT, limit=60)
    output = operator.fail("playbooks/verify.yml").output
    assert (
        "gave up after 1 failure within 60 minutes, the last one on spark2: the server ended by itself"
        in one_line(output)
    )
    assert "gave up after 1 failure" in watch(worker)
    head.sh("systemctl restart dgx-vllm")
    settled_within(head, worker, expected)

"""Tensor parallelism over two nodes through Ray."""

from __future__ import annotations

import time

from testlib.node import MARKERS, UNIT, WATCH, Node


def processes(node: Node) -> str:
    return node.sh("docker top dgx-vllm -eo pid,args")


def test_the_head_answers_with_a_worker_on_each_node(head: Node, worker: Node) -> None:
    assert head.completes()
    assert "vllm serve" in processes(head)
    assert "vllm serve" not in processes(worker)
    assert "raylet" in processes(worker)
    for node in (head, worker):
        assert "RayWorker" in processes(node)


def test_the_units_of_each_node_are_enabled_and_run(head: Node, worker: Node) -> None:
    for node in (head, worker):
        for unit in (UNIT, WATCH):
            service = node.host.service(unit)
            assert service.is_running
            assert service.is_enabled


def test_vllm_went_through_ray(head: Node) -> None:
    log = head.log
    assert "ray start" in log
    assert "--distributed-executor-backend ray" in processes(head)
    assert log.count(MARKERS[1]) >= 1


def test_the_dashboard_is_on_the_fabric_or_nowhere(head: Node) -> None:
    """The image has Ray without its dashboard's packages; an image with them gets the same arguments."""
    assert "--dashboard-host=198.51.100.1" in head.log
    listening = head.listening(8265)
    assert "0.0.0.0" not in listening
    assert not any(address.startswith("10.203.") for address in listening)


def test_a_head_without_its_watch_is_not_considered_dead(head: Node, worker: Node) -> None:
    run = worker.property("InvocationID")
    head.sh("systemctl stop dgx-vllm-watch")
    time.sleep(40)
    head.sh("systemctl start dgx-vllm-watch")
    assert worker.property("InvocationID") == run, worker.sh("journalctl --no-pager -n 25 -u dgx-vllm-watch")
    assert head.completes()


def test_a_killed_worker_recovers(head: Node, worker: Node) -> None:
    runs = [node.property("InvocationID") for node in (head, worker)]
    worker.sh("docker kill dgx-vllm")
    began = time.monotonic()
    while not (
        all(node.property("InvocationID") != run for node, run in zip((head, worker), runs, strict=True))
        and head.request("/health", limit=8)[0] == 200
        and head.completes()
    ):
        assert time.monotonic() - began < 400, head.sh("journalctl --no-pager -n 25 -u dgx-vllm-watch")
        time.sleep(2)
    print(f"from the fault to the next completion through Ray: {time.monotonic() - began:.0f} s")

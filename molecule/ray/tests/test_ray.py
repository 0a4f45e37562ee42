"""Tensor parallelism over two nodes through Ray."""

from __future__ import annotations

import time

from node import Node

MARKER = "[vLLM SM_121] Detected GB10 (SM_121) - using Triton backend for MOE layers"


def processes(node: Node) -> str:
    return node.sh("docker top dgx-vllm -eo pid,args")


def listening(node: Node, port: int) -> str:
    return node.sh(f"ss -Hltn 'sport = :{port}'")


def test_the_head_answers_with_a_worker_on_each_node(head: Node, worker: Node) -> None:
    assert head.completes()
    assert "vllm serve" in processes(head)
    assert "vllm serve" not in processes(worker)
    assert "raylet" in processes(worker)
    for node in (head, worker):
        assert "RayWorker" in processes(node)


def test_one_unit_a_node_is_enabled_and_runs(head: Node, worker: Node) -> None:
    for node in (head, worker):
        assert node.sh("systemctl is-active dgx-vllm dgx-vllm-watch").split() == ["active", "active"]
        assert node.sh("systemctl is-enabled dgx-vllm dgx-vllm-watch").split() == ["enabled", "enabled"]


def test_vllm_went_through_ray(head: Node) -> None:
    log = head.sh("docker logs dgx-vllm 2>&1")
    assert "ray start" in log
    assert "--distributed-executor-backend ray" in processes(head)
    assert log.count(MARKER) >= 1


def test_the_dashboard_is_on_the_fabric_or_nowhere(head: Node) -> None:
    """The image has Ray without the packages of its dashboard; what it is told counts for an image with them, too."""
    assert "--dashboard-host=198.51.100.1" in head.sh("docker logs dgx-vllm 2>&1")
    found = listening(head, 8265)
    assert "0.0.0.0:8265" not in found
    assert "10.203." not in found


def test_a_head_whose_watch_is_away_is_not_taken_for_dead(head: Node, worker: Node) -> None:
    run = worker.property("InvocationID")
    head.sh("systemctl stop dgx-vllm-watch")
    time.sleep(40)
    head.sh("systemctl start dgx-vllm-watch")
    assert worker.property("InvocationID") == run, worker.sh("journalctl --no-pager -n 25 -u dgx-vllm-watch")
    assert head.completes()


def test_a_killed_worker_is_healed(head: Node, worker: Node) -> None:
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

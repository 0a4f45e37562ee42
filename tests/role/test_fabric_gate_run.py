"""The gate's rounds as Ansible runs them: their time, whose limits count, what is compared, what is left behind."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from helpers.ansible_run import Run
from helpers.gate_testbed import GateTestbed


def seconds(done: Run) -> float:
    """From the gate's first task to the end of its last one."""
    spans = [
        [datetime.fromisoformat(task["task"]["duration"][end]) for end in ("start", "end")]
        for play in done.out["plays"]
        for task in play["tasks"]
        if task["task"]["duration"].get("end")
    ]
    names = [task["task"]["name"] for play in done.out["plays"] for task in play["tasks"]]
    first = next(number for number, name in enumerate(names) if "Note what this node" in name)
    return (spans[-1][1] - spans[first][0]).total_seconds()


@pytest.mark.parametrize(
    ("nodes", "rounds"),
    [(2, 1), pytest.param(4, 3, marks=pytest.mark.slow), pytest.param(8, 7, marks=pytest.mark.slow)],
)
def test_time_of_the_gate(tmp_path: Path, nodes: int, rounds: int) -> None:
    """Stand-ins take 1 s per rail, and all nodes on this machine: most of it is Ansible's own time."""
    testbed = GateTestbed(tmp_path, [nodes])
    done = testbed.run()
    assert done.rc == 0, done.failure("r0n0")
    assert len(testbed.findings("bandwidth")) == nodes * (nodes - 1)
    assert {one["status"] for one in testbed.findings("bandwidth")} == {"pass"}
    print(f"gate of {nodes} nodes: {rounds} rounds in {seconds(done):.1f} s")


def test_each_replica_has_the_limits_of_its_head(tmp_path: Path) -> None:
    testbed = GateTestbed(tmp_path, [2, 2])
    for host in ("r1n0", "r1n1"):
        testbed.hosts[host]["dgx_vllm_fabric_thresholds"] = {"rail_gbits": 98}
    done = testbed.run()
    assert "below 98 Gb/s" in done.failure("r1n0")
    assert done.failure("r0n0") == ""


def test_a_second_run_is_compared_with_the_first(tmp_path: Path) -> None:
    testbed = GateTestbed(tmp_path, [2])
    assert testbed.run().rc == 0
    assert testbed.findings("trend") == []
    testbed.measures("86.4")
    assert testbed.run().rc == 0
    assert [one["found"] for one in testbed.findings("trend")] == [
        "r0n1 rail 0 - r0n0 rail 0: 97.3 -> 86.4 Gb/s",
        "r0n1 rail 1 - r0n0 rail 1: 97.3 -> 86.4 Gb/s",
    ]


def test_the_container_of_the_all_gather_is_removed(tmp_path: Path) -> None:
    testbed = GateTestbed(tmp_path, [2])
    done = testbed.run(dgx_vllm_fabric_nccl=True)
    assert done.rc == 0, done.failure("r0n0")
    assert [one["found"] for one in testbed.findings("nccl")] == ["22.1 GB/s over IB"]
    asked = (tmp_path / "docker.log").read_text(encoding="utf-8").splitlines()
    remove = "rm --force dgx-vllm-fabric"
    assert [line for line in asked if not line.startswith("run ")] == [remove] * 4
    assert asked[-1] == remove
    runs = [line for line in asked if line.startswith("run ")]
    assert all("--name=dgx-vllm-fabric " in line for line in runs)
    assert {rank for rank in ("0", "1") for line in runs if f" --env=RANK={rank} " in line} == {"0", "1"}
    for given in ("WORLD_SIZE=2", "MASTER_ADDR=10.0.0.1", "NCCL_DEBUG=INFO", "NCCL_IB_HCA="):
        assert all(f" --env={given}" in line for line in runs), given

"""The fabric gate names what is wrong, and no model is loaded over a bad fabric. Late, because it moves the cables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testbed import plug

from testlib.node import UNIT, Node
from testlib.runs import Operator, one_line

RAILS = ("enp1s0f0np0", "enP2p1s0f0np0")


@pytest.fixture(scope="module", autouse=True)
def stopped(head: Node, worker: Node) -> Iterator[None]:
    """The replica stopped, and its cables as they were."""
    head.sh("systemctl stop dgx-vllm")
    worker.wait_stopped(UNIT, limit=120)
    plug()
    yield
    plug()


def test_a_correct_fabric_passes(operator: Operator) -> None:
    run = operator.succeed("playbooks/fabric.yml")
    assert "jumbo_ping" in run.output
    assert run.counts["changed"] == 0


def test_mtu_1500_on_one_end(operator: Operator, worker: Node) -> None:
    worker.sh(f"ip link set {RAILS[1]} mtu 1500")
    run = operator.fail("playbooks/fabric.yml")
    assert f"spark2 {RAILS[1]} has MTU 1500" in run.message or f"{RAILS[1]} has MTU 1500" in run.message
    worker.sh(f"ip link set {RAILS[1]} mtu 9000")


def test_one_rail_down(operator: Operator, worker: Node) -> None:
    worker.sh(f"ip link set {RAILS[1]} down")
    run = operator.fail("playbooks/fabric.yml")
    assert RAILS[1] in run.message
    assert "no link" in run.message or "is down" in run.message
    worker.sh(f"ip link set {RAILS[1]} up")


def test_swapped_cables(operator: Operator) -> None:
    plug(swapped=True)
    assert "swapped" in operator.fail("playbooks/fabric.yml").message
    plug()


def test_no_model_is_loaded_over_a_bad_fabric(operator: Operator, head: Node, worker: Node) -> None:
    worker.sh(f"ip link set {RAILS[0]} mtu 1500")
    run = operator.fail("site.yml")
    assert "spark2 lacks planned addresses or the MTU 9000 on its rails" in one_line(run.output)
    assert "the fabric of this node was not read. fix what stopped this host" in run.message
    assert not head.is_running()
    worker.sh(f"ip link set {RAILS[0]} mtu 9000")
    operator.succeed("site.yml")
    assert head.completes()

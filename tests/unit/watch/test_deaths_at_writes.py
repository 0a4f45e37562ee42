"""A watch that dies at any write of its state, before or after the file is renamed, ends what it began."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from replica_watch.model import Report

from helpers.fake_world import Node, World, phases

RESTART_SECONDS = 5
"""RestartSec= of the watch's unit."""


class Died(BaseException):
    """The process is gone."""


def dies(node: Node, write: int, recorded: bool) -> Callable[[], bool]:
    """The node's watch dies at its `write`-th write from now on; whether it did."""
    left, back_at = [write], [0.0]
    tick, keep = Node.tick_watch, Node.keep

    def keep_or_die(report: Report) -> None:
        left[0] -= 1
        if left[0] != 0:
            keep(node, report)
            return
        if recorded:
            keep(node, report)
        raise Died

    def tick_or_restart() -> None:
        if node.watch is None and back_at[0] and node.world.now >= back_at[0]:
            back_at[0] = 0.0
            node.new_watch()
        try:
            tick(node)
        except Died:
            node.watch, back_at[0] = None, node.world.now + RESTART_SECONDS

    node.tick_watch, node.keep = tick_or_restart, keep_or_die  # type: ignore[method-assign]
    assert node.watch is not None
    node.watch._save = keep_or_die
    return lambda: left[0] <= 0


def freeze(node: Node) -> None:
    node.world.requests = 1
    assert node.process is not None
    node.process.frozen = True


FAULTS: dict[str, Callable[[World], None]] = {
    "worker killed": lambda world: world.worker.kill(),
    "head killed": lambda world: world.head.kill(),
    "worker frozen": lambda world: freeze(world.worker),
    "restarted on the worker": lambda world: world.worker.restart(),
    "restarted on the head": lambda world: world.head.restart(),
}


@pytest.mark.parametrize("recorded", [False, True], ids=["before the rename", "after the rename"])
@pytest.mark.parametrize("write", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("role", ["head", "worker"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_replica_serves_again(fault: str, role: str, write: int, recorded: bool) -> None:
    world = World(2)
    world.until_served()
    died = dies(getattr(world, role), write, recorded)
    FAULTS[fault](world)
    world.run(180 if "frozen" in fault else 5)
    world.until_served()
    assert died() or write > 3


@pytest.mark.parametrize("recorded", [False, True], ids=["before the rename", "after the rename"])
@pytest.mark.parametrize("write", [1, 2])
@pytest.mark.parametrize("role", ["head", "worker"])
@pytest.mark.parametrize("stopped", ["head", "worker"])
def test_the_replica_stays_stopped(stopped: str, role: str, write: int, recorded: bool) -> None:
    world = World(2)
    world.until_served()
    dies(getattr(world, role), write, recorded)
    getattr(world, stopped).stop()
    world.run(300)
    assert all(node.process is None for node in world.nodes.values()), world.story()
    assert phases(world) == {"stopped"}

"""A disk that is full or read-only on one node keeps its watch from nothing but remembering."""

from __future__ import annotations

import errno
import os

import pytest
from replica_watch.model import Report

from helpers.fake_world import AT_ONCE, SOFT_STOP_SECONDS, World, phases


def full(world: World, number: int) -> None:
    """The worker cannot write any more."""

    def save(_: Report) -> None:
        raise OSError(number, os.strerror(number))

    assert world.worker.watch is not None
    world.worker.watch._save = save


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_stop_on_the_head_stops_a_worker_whose_disk_is_full(world: World, number: int) -> None:
    full(world, number)
    world.head.stop()
    world.run(120)
    assert all(node.process is None for node in world.nodes.values()), world.story()
    assert phases(world) == {"stopped"}


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_killed_server_comes_back_although_a_disk_is_full(world: World, role: str) -> None:
    full(world, errno.ENOSPC)
    getattr(world, role).kill()
    world.run(2)
    assert world.until_served() <= 2 * AT_ONCE + SOFT_STOP_SECONDS, world.story()
    assert set(world.runs()) == {2}


def test_it_says_so_and_not_with_every_look(world: World) -> None:
    full(world, errno.ENOSPC)
    world.worker.kill()
    world.run(600)
    said = [
        line
        for line in world.worker.log
        if "cannot keep its state on the disk (No space left on device)" in line
    ]
    assert 1 <= len(said) <= 11

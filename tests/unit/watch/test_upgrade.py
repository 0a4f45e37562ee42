"""While the watches of a replica do not know each other, such as during an upgrade, a healthy server stays.

To each of them the other one is silent, as if it were stopped: an older watch has no secret and is refused, and its
answers have no MAC.
"""

from __future__ import annotations

import pytest

from helpers.fake_world import AT_ONCE, SOFT_STOP_SECONDS, World, phases

HOUR = 3600


@pytest.mark.parametrize("first", ["head", "worker"])
def test_nodes_that_are_upgraded_an_hour_apart_keep_their_servers(world: World, first: str) -> None:
    """M4: an old watch without a secret beside a new one."""
    nodes = [
        getattr(world, first),
        *(node for node in world.nodes.values() if node is not getattr(world, first)),
    ]
    for node in nodes:
        node.secret = "new"
        node.new_watch()
        world.run(HOUR)
        assert world.serves(), world.story()
    assert set(world.runs()) == {1}, world.story()
    assert phases(world) == {"ready"}
    world.worker.kill()
    world.run(2)
    assert world.until_served() <= 2 * AT_ONCE + SOFT_STOP_SECONDS, world.story()


@pytest.mark.parametrize("upgraded", ["head", "worker"])
def test_servers_that_are_started_meanwhile_stay(upgraded: str) -> None:
    """The worker cannot learn that the head serves, and does not take that for a start that failed."""
    world = World(2)
    getattr(world, upgraded).secret = "new"
    world.run(2 * HOUR)
    assert world.serves(), world.story()
    assert set(world.runs()) == {1}, world.story()
    for node in world.nodes.values():
        node.secret = "new"
    assert world.until_served() <= 5
    assert set(world.runs()) == {1}, world.story()


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_server_that_ends_meanwhile_comes_back_once_all_know_each_other(role: str) -> None:
    world = World(2)
    world.until_served()
    world.head.secret = "new"
    getattr(world, role).kill()
    world.run(HOUR)
    assert not world.serves()
    assert "gave up" not in world.story()
    world.worker.secret = "new"
    assert world.until_served() <= 2 * AT_ONCE + SOFT_STOP_SECONDS, world.story()


def test_a_worker_whose_head_does_not_even_listen_is_started_again_in_the_end() -> None:
    world = World(2, start_timeout=100)
    world.worker.secret = "new"
    world.run(5)
    world.head.kill()
    world.head.watch = None
    world.run(300)
    assert "not ready within 100 s" in world.story()

"""The watch after a boot: what Docker cannot start yet is tried again, and patience ends."""

from __future__ import annotations

import pytest
from replica_watch.model import Unit

from helpers.fake_world import AT_ONCE, World, phases


@pytest.mark.parametrize("gap", [0, 10, 30, 60])
@pytest.mark.parametrize("failures", [0, 1, 2, 3, 8])
def test_a_pair_comes_back_from_a_power_cut(failures: int, gap: int) -> None:
    """B4: the second node boots `gap` seconds later, and Docker cannot start the first containers of either."""
    world = World(2)
    world.until_served()
    for number, node in enumerate(world.nodes.values()):
        node.power_off(20 + number * gap)
        node.not_started = failures
    world.run(20)
    assert world.until_served() <= gap + AT_ONCE + 25 * (failures + 1)
    assert "gave up" not in world.story()


def test_a_container_that_never_starts_ends_in_giving_up() -> None:
    """The patience after a boot ends."""
    world = World(2)
    world.until_served()
    world.worker.power_off(20)
    world.worker.not_started = 10_000
    world.run(580)
    assert "gave up" not in world.story()
    world.run(1200)
    assert phases(world) == {"stopped"}
    assert "gave up after 4 failures" in world.story()


def test_without_a_boot_a_container_that_does_not_start_is_a_failure() -> None:
    world = World(2)
    world.until_served()
    world.worker.not_started = 10_000
    world.worker.kill()
    world.run(300)
    assert phases(world) == {"stopped"}


def test_a_pair_waits_when_one_node_refuses_to_start() -> None:
    """B5: the machine of one node died twice while the server was starting; the other one does not wait in vain."""
    world = refusing()
    assert phases(world) == {"stopped"}
    assert [node.process for node in world.nodes.values()] == [None, None]
    reasons = {node.watch.report.reason for node in world.nodes.values() if node.watch}
    (reason,) = reasons
    assert reason.startswith("spark2 waits, as its machine died while the server was starting")
    assert "the replica stays down: spark2 waits" in world.story()


def test_a_start_by_hand_after_a_refusal_starts_the_pair() -> None:
    world = refusing()
    world.worker.refuses = False
    world.head.start()
    assert world.until_served() < 2 * AT_ONCE


@pytest.mark.parametrize("minutes", [5, 30, 120])
def test_a_node_without_a_link_waits_for_the_other_however_long_that_is_off(minutes: int) -> None:
    """B3, B4: a cable without a machine at its other end has no link, so its rail has no address to start with."""
    world = World(2)
    world.until_served()
    world.head.power_off(20)
    world.worker.power_off(minutes * 60)
    world.head.lacks_rails = True
    world.run(minutes * 60)
    world.head.lacks_rails = False
    world.until_served(1200)
    assert "gave up" not in world.story()


def test_systemd_that_is_slow_to_start_after_a_refusal_is_no_second_refusal() -> None:
    """Between the order and the start, systemd still shows the run that refused."""
    world = refusing()
    refused, show, start = world.worker.show(), world.worker.show, world.worker.start
    world.worker.refuses = False
    slow: list[float] = []

    def late_show() -> Unit:
        return refused if slow and world.now - slow[-1] < 3 else show()

    def late_start() -> None:
        slow.append(world.now)
        start()

    world.worker.show, world.worker.start = late_show, late_start  # type: ignore[method-assign]
    world.head.start()
    assert world.until_served() < 2 * AT_ONCE


def refusing() -> World:
    """A pair after a power cut, whose worker refuses to start."""
    world = World(2)
    world.until_served()
    for node in world.nodes.values():
        node.power_off(20)
    world.worker.refuses = True
    world.run(120)
    return world

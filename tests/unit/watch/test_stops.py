"""What an operator orders is not a fault: a stop takes the whole replica, a start brings it back."""

from __future__ import annotations

import pytest
from replica_watch.model import UNKNOWN, Unit

from helpers.fake_world import AT_ONCE, SOFT_STOP_SECONDS, World, phases


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_stop_takes_the_whole_replica_and_a_start_brings_it_back(world: World, role: str) -> None:
    node = getattr(world, role)
    node.stop()
    world.run(40)
    assert all(one.process is None for one in world.nodes.values())
    assert phases(world) == {"stopped"}
    world.run(3600)
    assert set(world.runs()) == {1}
    node.start()
    assert world.until_served() <= AT_ONCE
    assert set(world.runs()) == {2}


def test_a_stop_on_a_worker_is_a_stop_though_the_head_ends_before_it(world: World) -> None:
    world.worker.stop()
    world.run(3)
    if world.head.process is not None:
        world.head.ends(0, "exit-code")
    world.run(60)
    assert phases(world) == {"stopped"}, world.story()
    assert set(world.runs()) == {1}


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_restart_by_hand_takes_the_whole_replica(world: World, role: str) -> None:
    getattr(world, role).restart()
    world.run(2)
    assert world.until_served() <= 2 * AT_ONCE + SOFT_STOP_SECONDS, world.story()
    assert len(world.generations()) == 1
    assert {tuple(node.watch.report.failures) for node in world.nodes.values() if node.watch} == {()}


def test_a_restart_of_all_nodes_at_once(world: World) -> None:
    for node in world.nodes.values():
        node.restart()
    world.run(2)
    assert world.until_served() <= 2 * AT_ONCE + SOFT_STOP_SECONDS, world.story()
    assert len(world.generations()) == 1


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_restart_that_is_over_between_two_looks(world: World, role: str) -> None:
    node = getattr(world, role)
    node.ends(143, "success")
    node.start()
    assert world.until_served() <= 2 * AT_ONCE
    assert len(world.generations()) == 1


def test_a_stop_of_a_server_that_must_be_killed_is_still_a_stop(world: World) -> None:
    world.worker.stop()
    world.run(5)
    world.worker.ends(137, "exit-code")
    world.run(60)
    assert phases(world) == {"stopped"}


def test_a_unit_that_systemd_has_forgotten_was_stopped() -> None:
    world = World(2)
    world.until_served()
    world.worker.ends(0, "success")
    world.worker.run = ""
    world.run(60)
    assert phases(world) == {"stopped"}


def test_a_replica_that_was_stopped_stays_stopped_over_a_reboot_of_the_watch(world: World) -> None:
    world.head.stop()
    world.run(40)
    for node in world.nodes.values():
        node.new_watch()
    world.run(600)
    assert set(world.runs()) == {1}


@pytest.mark.parametrize("stopped", [False, True])
def test_a_systemd_that_does_not_answer_is_no_start(stopped: bool) -> None:
    world = World(2)
    world.until_served()
    if stopped:
        world.head.stop()
        world.run(40)
    before, show = world.runs(), world.worker.show
    world.worker.show = lambda: Unit(UNKNOWN)  # type: ignore[method-assign]
    world.run(20)
    world.worker.show = show  # type: ignore[method-assign]
    world.run(120)
    assert world.runs() == before, world.story()


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_stop_that_is_over_between_two_looks(world: World, role: str) -> None:
    """An idle server ends within a second, and with status 0."""
    node = getattr(world, role)
    node.ends(0, "success")
    run = node.run
    node.show = lambda: Unit("inactive", run, 0, 0, "success", ordered=True)
    world.run(40)
    assert phases(world) == {"stopped"}, world.story()
    assert set(world.runs()) == {1}

"""The watch in a fake world: every fault that was measured with two real nodes, and what it must not do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replica_watch.model import Metrics, Report, Settings
from replica_watch.server_checks import ServerChecks

from helpers.fake_world import AT_ONCE, BOOT_SECONDS, World, phases


def test_the_first_start_restarts_nothing(world: World) -> None:
    assert world.generations() == {1}
    assert set(world.runs()) == {1}


@pytest.mark.parametrize("late", ["spark1", "spark2"])
def test_nodes_may_start_in_any_order(late: str) -> None:
    world = World(2, started=False)
    for host, node in world.nodes.items():
        if host != late:
            node.start()
    world.run(100)
    world.nodes[late].start()
    assert world.until_served() <= AT_ONCE
    assert max(world.runs()) <= 2


def test_quiet_days_change_nothing(world: World) -> None:
    world.run(1800)
    assert set(world.runs()) == {1}
    world.requests = 3
    world.run(1800)
    assert set(world.runs()) == {1}


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_killed_container(world: World, role: str) -> None:
    getattr(world, role).kill()
    assert world.until_served() <= AT_ONCE
    assert set(world.runs()) == {2}
    assert world.generations() == {2}


def test_a_head_that_ends_with_status_0_is_a_fault(world: World) -> None:
    world.head.ends(0, "success")
    assert world.until_served() <= AT_ONCE
    assert "ended by itself (status 0, success)" in world.story()


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_rebooted_node(world: World, role: str) -> None:
    getattr(world, role).power_off(BOOT_SECONDS)
    assert world.until_served() <= BOOT_SECONDS + AT_ONCE + 10
    assert max(world.runs()) <= 3


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_reboot_that_is_over_before_anybody_misses_the_node(world: World, role: str) -> None:
    getattr(world, role).power_off(3)
    assert world.until_served() <= 3 + AT_ONCE
    assert len(world.generations()) == 1


def test_a_node_that_is_away_for_hours(world: World) -> None:
    world.worker.power_off(3600)
    world.run(3600 - 5)
    assert world.head.process is None
    assert world.head.runs == 1, "nothing is started while a node is missing"
    assert "waits for" in world.story()
    world.run(5)
    assert world.until_served() <= AT_ONCE + 10


def test_a_cable_that_is_cut_and_put_in_again(world: World) -> None:
    world.requests = 2
    world.cut = {world.worker.host}
    world.run(120)
    assert world.head.process is None
    assert world.worker.process is None
    world.cut = set()
    assert world.until_served() <= AT_ONCE
    assert set(world.runs()) == {2}


def test_a_short_cut_is_no_reason_to_restart(world: World) -> None:
    world.cut = {world.worker.host}
    world.run(10)
    world.cut = set()
    world.run(600)
    assert set(world.runs()) == {1}


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_frozen_server_with_requests_running(world: World, role: str) -> None:
    node = getattr(world, role)
    world.requests = 2
    world.run(20)
    assert node.process is not None
    node.process.frozen = True
    assert world.until_served() <= 120 + 2 * 30 + AT_ONCE
    expected = "no token has come" if role == "worker" else "/health does not answer"
    assert expected in world.story() or "did not come in time" in world.story()


def test_requests_run_and_no_token_grows() -> None:
    world = World(2, stall=20.0, probe_interval=10_000.0)
    world.until_served()
    world.requests = 2
    world.run(10)
    assert world.worker.process is not None
    world.worker.process.frozen = True
    assert world.until_served() <= 20 + AT_ONCE
    assert "2 requests run and no token has come for 21 s" in world.story()


def test_health_lies_while_nobody_asks(world: World) -> None:
    """Nothing runs, so no counter can tell; the probe does."""
    assert world.worker.process is not None
    world.worker.process.frozen = True
    assert world.head.healthy()
    assert world.until_served() <= 60 + 2 * 30 + AT_ONCE + 5
    assert "/health says 200 and a completion did not come in time, 2 times" in world.story()


def test_a_server_that_is_busy_is_not_called_dead() -> None:
    """The probe waits behind other requests; tokens grow all the time."""
    world = World(2)
    world.until_served()
    world.requests = 100
    world.head.probe_result = lambda: False  # type: ignore[method-assign]
    world.run(3600)
    assert set(world.runs()) == {1}


def test_a_long_prompt_is_work_too(world: World) -> None:
    """No token is counted before the first of the answer, and the probe waits behind it."""
    world.run(60)
    world.requests = 1
    world.prompt_until = world.now + 900
    world.run(1000)
    assert set(world.runs()) == {1}, world.story()


def test_a_watch_that_died_is_no_reason_to_restart_a_server_that_serves() -> None:
    world = World(2)
    world.until_served()
    world.worker.watch = None
    world.run(600)
    assert world.head.runs == 1
    world.worker.new_watch()
    world.run(100)
    assert world.runs() == [1, 1]


@pytest.mark.parametrize("which", [0, 1, -1])
def test_any_watch_may_die_while_the_replica_serves(world: World, which: int) -> None:
    node = list(world.nodes.values())[which]
    node.watch = None
    world.run(600)
    assert set(world.runs()) == {1}, world.story()
    node.new_watch()
    world.run(100)
    assert set(world.runs()) == {1}


def test_a_pause_keeps_every_node_down(world: World) -> None:
    """A Ray worker that starts long before its head ends in a failure."""
    world.worker.crashes = 2
    world.until_served()
    starts = [
        [float(line.partition(" ")[0]) for line in node.log if "starts generation 3" in line]
        for node in world.nodes.values()
    ]
    seen = [float(line.partition(" ")[0]) for line in world.worker.log if "restarts after 5 s" in line]
    assert all(one[0] >= seen[-1] + 5 for one in starts), world.story()


def test_failures_back_off_then_stop_and_say_why(world: World) -> None:
    world.worker.crashes = 10**6
    world.run(3600)
    assert phases(world) == {"stopped"}
    assert world.worker.runs == 1 + 3, "the fourth failure is the last"
    for node in world.nodes.values():
        assert node.watch is not None
        reason = node.watch.report.reason
        assert "gave up after 4 failures within 60 minutes" in reason
        assert (
            f"the last one on {world.worker.host}: the server ended by itself (status 1, exit-code)" in reason
        )
        assert "systemctl restart dgx-vllm" in reason
    delays = [line for line in world.worker.log if "the replica restarts" in line]
    assert ["after 5 s" in delays[1], "after 10 s" in delays[2]] == [True, True]
    world.run(7200)
    assert world.worker.runs == 4


def test_a_start_by_hand_after_giving_up_begins_anew(world: World) -> None:
    world.worker.crashes = 4
    world.run(1200)
    assert phases(world) == {"stopped"}
    world.head.start()
    assert world.until_served() <= 2 * AT_ONCE
    assert {tuple(node.watch.report.failures) for node in world.nodes.values() if node.watch} == {()}


def test_a_missing_peer_is_no_failure_of_the_server(world: World) -> None:
    for _ in range(6):
        world.worker.power_off(60)
        world.run(5)
        world.until_served()
    assert {tuple(node.watch.report.failures) for node in world.nodes.values() if node.watch} == {()}


def test_nobody_starts_beside_an_old_run() -> None:
    """The head's container takes its time to die; the workers wait for it."""
    world = World(4)
    world.until_served()
    world.head.stop = lambda hard=False: None  # type: ignore[method-assign, assignment, misc]
    world.worker.kill()
    world.run(60)
    assert world.runs() == [1, 1, 1, 1]
    world.head.ends(137, "exit-code")
    assert world.until_served() <= AT_ONCE
    assert world.runs() == [2, 2, 2, 2]
    assert {len(node.watch.report.failures) for node in world.nodes.values() if node.watch} == {1}


def test_a_node_that_boots_beside_an_old_head_starts_again_with_it() -> None:
    """A reboot nobody missed, and a head whose container takes eight seconds to die."""
    world = World(2)
    world.until_served()
    head = world.head

    def slow(hard: bool = False) -> None:
        head.stops_at = head.stops_at or world.now + 8

    head.stop = slow  # type: ignore[method-assign]
    world.worker.power_off(3)
    assert world.until_served() <= 3 + 8 + AT_ONCE
    assert world.worker.runs == 3
    assert {tuple(node.watch.report.failures) for node in world.nodes.values() if node.watch} == {()}


class Api:
    """A server whose probes never come back in time."""

    def __init__(self) -> None:
        self.running = 1.0
        self.tokens = 0.0
        self.cache = 0.0

    def healthy(self) -> bool:
        return True

    def metrics(self) -> Metrics:
        return Metrics(self.running, self.tokens, self.cache)

    def begin_probe(self, deadline: float) -> None:
        pass

    def probe_result(self) -> bool:
        return False


@pytest.mark.parametrize("grows", ["tokens", "cache"])
def test_what_grows_while_a_request_runs_is_progress(grows: str) -> None:
    api = Api()
    checks = ServerChecks(Settings("spark1", 0, ("spark2",), "spark1", stall=30.0), api)
    checks.reset(0.0)
    for now in range(0, 1000, 2):
        assert not checks.look(float(now), True, False)[1]
        setattr(api, grows, getattr(api, grows) + 0.5)


def test_a_quiet_hour_is_not_counted_against_the_next_request() -> None:
    api = Api()
    api.running = 0.0
    checks = ServerChecks(Settings("spark1", 0, ("spark2",), "spark1", stall=30.0, probe_interval=1e6), api)
    checks.reset(0.0)
    checks.look(0.0, True, False)
    checks.look(3600.0, True, False)
    api.running = 1.0
    found = {now: checks.look(3600.0 + now, True, False)[1] for now in (2, 16, 30, 32)}
    assert list(found.values()) == ["", "", "", "1 request runs and no token has come for 32 s"]


@pytest.mark.parametrize("grows", [True, False])
def test_tokens_that_come_while_a_probe_waits_are_an_answer(grows: bool) -> None:
    api = Api()
    checks = ServerChecks(Settings("spark1", 0, ("spark2",), "spark1", stall=10_000.0), api)
    checks.reset(0.0)
    faults = []
    for now in range(0, 1000, 70):
        faults.append(checks.look(float(now), True, False)[1])
        api.tokens += grows
        faults.append(checks.look(float(now + 1), True, False)[1])
    assert any(faults) == (not grows)


def test_failures_of_last_week_do_not_count(world: World) -> None:
    for _ in range(8):
        world.worker.kill()
        world.until_served()
        world.run(2000)
    assert world.generations() == {9}


def test_a_server_that_never_gets_ready(world: World) -> None:
    world.head.healthy = lambda: False  # type: ignore[method-assign]
    world.worker.kill()
    world.run(5 * 1800)
    assert "not ready within 1800 s" in world.story()
    assert phases(world) == {"stopped"}
    assert "gave up after 4 failures within " in world.story()
    assert len(set(world.runs())) == 1


def test_systemd_does_not_start_the_unit() -> None:
    world = World(2, failure_limit=1)
    world.until_served()
    world.worker.kill()
    world.worker.start = lambda: None  # type: ignore[method-assign]
    world.run(600)
    assert phases(world) == {"stopped"}
    assert "systemd did not start the unit" in world.story()


def test_a_watch_that_restarts_remembers(world: World) -> None:
    for node in world.nodes.values():
        node.new_watch()
    world.run(600)
    assert set(world.runs()) == {1}


def test_a_machine_that_shuts_down_stops_nobody_else() -> None:
    world = World(2)
    world.until_served()
    world.worker.shutting_down = lambda: True  # type: ignore[method-assign]
    world.worker.ends(143, "success")
    world.run(5)
    assert world.head.watch is not None
    assert world.head.watch.report.desired == "up"


def test_reports_survive_the_way_over_the_network() -> None:
    report = Report("spark1", 3, "up", "ready", "run", "reason", 5.0, 7.0, [1.0], [2.0])
    assert Report.from_json(report.as_json()) == report
    for bad in ({}, {"host": "a"}, {"host": "a", "generation": "x", "desired": "up", "phase": "new"}):
        with pytest.raises(ValueError, match=r"of a watch|a watch wants"):
            Report.from_json(bad)


FAULTS = ("kill", "exit", "reboot", "short_reboot", "cut", "freeze", "watch", "operator")


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from((2, 4)),
    st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 3), st.integers(0, 90)), max_size=6),
    st.booleans(),
)
def test_whatever_happens_the_replica_serves_again(
    size: int, faults: list[tuple[str, int, int]], busy: bool
) -> None:
    world = World(size, failure_limit=100)
    world.requests = int(busy)
    for fault, which, pause in faults:
        world.run(pause)
        node = list(world.nodes.values())[which % size]
        if fault == "kill" and node.on:
            node.kill()
        elif fault == "exit" and node.on:
            node.ends(0, "success")
        elif fault == "reboot" and node.on:
            node.power_off(BOOT_SECONDS)
        elif fault == "short_reboot" and node.on:
            node.power_off(2)
        elif fault == "cut":
            world.cut = {node.host}
            world.run(pause)
            world.cut = set()
        elif fault == "freeze" and node.process is not None:
            node.process.frozen = True
        elif fault == "watch" and node.on:
            node.new_watch()
        elif fault == "operator" and node.on and node.stops_at is None and node.process is not None:
            node.restart()
    assert world.until_served(4000) < 4000
    assert len(world.generations()) == 1

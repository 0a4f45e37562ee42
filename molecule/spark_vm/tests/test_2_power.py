"""Boots and power cuts, with nobody there: what starts again by itself, and what waits for its owner."""

from __future__ import annotations

from machine import DELAY, SPECIFICATION, Machine

from testlib.node import UNIT, wait_until
from testlib.runs import Operator

SLOW = {"STANDIN_LOAD": "45"}
"""A model that takes long enough to load for the power to be cut meanwhile."""


def test_server_comes_back_after_a_reboot_with_the_specification_20_s_late(machine: Machine) -> None:
    machine.put(DELAY, "20\n")
    machine.reboot()
    seconds = machine.serves()
    print(f"\npower on to a served token, the CDI specification 20 s late: {seconds:.0f} s")
    begun = int(machine.property("InactiveExitTimestampMonotonic"))
    refreshed = int(machine.sh("systemctl show -P ExecMainExitTimestampMonotonic nvidia-cdi-refresh.service"))
    assert begun < refreshed, "the specification was there first, so this test proves nothing"
    assert machine.property("NRestarts") == "0"
    machine.sh(f"rm {DELAY}")


def test_server_comes_back_after_a_power_cut(machine: Machine) -> None:
    machine.cut()
    machine.switch_on()
    seconds = machine.serves()
    print(f"\npower on to a served token: {seconds:.0f} s")
    assert machine.host.file(SPECIFICATION).exists


def test_release_that_never_served_is_not_tried_again_at_boot(operator: Operator, machine: Machine) -> None:
    served, before = machine.current, machine.property("InvocationID")
    run = operator.start(extra_env={"STANDIN_LOAD": "900"})
    wait_until(lambda: machine.property("InvocationID") != before, "the new release is started", 900)
    machine.loads()
    machine.cut()
    assert run.wait().status in (2, 4)
    machine.switch_on()
    machine.booted()
    assert not machine.host.service(UNIT).is_enabled
    assert machine.property("ActiveState") == "inactive"
    assert "Starting to load model" not in machine.journal()
    assert machine.current == served


def test_next_run_accepts_a_release_and_starts_it_at_boot(operator: Operator, machine: Machine) -> None:
    operator.succeed(extra_env=SLOW)
    assert machine.token()
    assert machine.host.service(UNIT).is_enabled


def test_accepted_release_whose_start_the_machine_did_not_survive_is_tried_once_more(
    machine: Machine,
) -> None:
    machine.sh(f"systemctl restart {UNIT}")
    machine.loads()
    machine.cut()
    machine.switch_on()
    machine.serves()


def test_accepted_release_waits_after_the_second_time_and_says_why(machine: Machine) -> None:
    machine.sh(f"systemctl restart {UNIT}")
    machine.loads()
    machine.cut()
    machine.switch_on()
    machine.loads()
    machine.cut()
    machine.switch_on()
    machine.booted()
    assert machine.property("ActiveState") in ("inactive", "failed")
    assert "Starting to load model" not in machine.journal()
    assert "[dgx-vllm] does not start: " in machine.journal()
    assert "systemctl start" in machine.host.run(f"systemctl status --no-pager -l {UNIT}").stdout
    machine.sh(f"systemctl start {UNIT}")
    machine.serves()

"""From a machine as its owner has it to a served token: with a sudo password, and without a trace on other programs."""

from __future__ import annotations

from machine import Machine

from testlib.node import UNIT
from testlib.runs import Operator


def test_without_the_sudo_password_nothing_is_changed(stranger: Operator, machine: Machine) -> None:
    run = stranger.run()
    assert run.status in (2, 4)
    assert "password is required" in run.output or "Missing sudo password" in run.output
    assert not machine.host.file("/etc/dgx-vllm").exists


def test_first_run_serves_and_restarts_nothing_of_others(operator: Operator, machine: Machine) -> None:
    foreign, docker = machine.foreign, machine.sh("systemctl show -P InvocationID docker.service")
    assert foreign[:2] == (True, 0)
    run = operator.succeed()
    print(f"\nfirst run of site.yml: {run.seconds:.0f} s, {run.counts['changed']} changes")
    assert machine.token()
    assert machine.foreign == foreign
    assert machine.sh("systemctl show -P InvocationID docker.service") == docker
    assert machine.host.service(UNIT).is_enabled


def test_second_run_changes_nothing(operator: Operator, machine: Machine) -> None:
    foreign, before = machine.foreign, machine.property("InvocationID")
    run = operator.succeed()
    print(f"\nsecond run of site.yml: {run.seconds:.0f} s")
    assert run.changed == []
    assert machine.property("InvocationID") == before
    assert machine.foreign == foreign

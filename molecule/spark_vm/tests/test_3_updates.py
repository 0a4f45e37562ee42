"""What apt and an update of the driver do to a running server."""

from __future__ import annotations

import json
from typing import Any

from machine import Machine

from testlib.runs import Operator, one_line

NEWER = "580.142.01"


def proof(machine: Machine) -> str:
    """What the role has noted when it last used the GPU in a container."""
    ledger: dict[str, Any] = json.loads(machine.text("/var/lib/dgx-vllm/state/ledger.json"))
    return str(ledger["gpu_proof"])


def test_needrestart_restarts_a_service_of_others_and_not_the_server(machine: Machine) -> None:
    """The C library is installed again, as a security update does; every process maps it."""
    control = "systemctl show -P InvocationID testbed-control.service"
    before = machine.property("InvocationID"), machine.sh(control), machine.foreign
    machine.sh("DEBIAN_FRONTEND=noninteractive apt-get install -y -q --reinstall libc6")
    assert machine.sh(control) != before[1], "needrestart restarted nothing, so this test proves nothing"
    assert (machine.property("InvocationID"), machine.foreign) == (before[0], before[2])
    assert machine.token()


def test_updated_driver_without_a_reboot_is_said_and_ends_no_server(
    operator: Operator, machine: Machine
) -> None:
    before = machine.property("InvocationID")
    machine.sh(f"sim-driver {NEWER}")
    output = one_line(operator.succeed("playbooks/verify.yml").output)
    assert f"driver {NEWER} is installed" in output
    assert "Reboot the node when the service can be missed" in output
    run = operator.fail()
    assert "reboot: the driver was updated, but its old module is still loaded" in one_line(run.output)
    assert run.changed == []
    assert machine.property("InvocationID") == before
    assert machine.token()


def test_after_the_reboot_the_server_is_back_and_the_gpu_is_proven_again(
    operator: Operator, machine: Machine
) -> None:
    before = proof(machine)
    machine.reboot()
    machine.serves()
    run = machine.property("InvocationID")
    operator.succeed()
    assert NEWER in proof(machine)
    assert proof(machine) != before
    assert machine.property("InvocationID") == run

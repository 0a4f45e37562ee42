"""What apt and an update of the driver do to a running server."""

from __future__ import annotations

from machine import Machine

NEWER = "580.142.01"


def test_needrestart_restarts_a_service_of_others_and_not_the_server(machine: Machine) -> None:
    """The C library is installed again, as a security update does; every process maps it."""
    control = "systemctl show -P InvocationID testbed-control.service"
    before = machine.property("InvocationID"), machine.sh(control), machine.foreign
    machine.sh("DEBIAN_FRONTEND=noninteractive apt-get install -y -q --reinstall libc6")
    assert machine.sh(control) != before[1], "needrestart restarted nothing, so this test proves nothing"
    assert (machine.property("InvocationID"), machine.foreign) == (before[0], before[2])
    assert machine.token()

"""The other image store of Docker, containerd's: the same image by another name. Last, because Docker starts anew."""

from __future__ import annotations

from machine import Machine

from testlib.runs import Operator

FOREIGN = """tar -C / -c usr/bin/busybox | docker import - foreign
docker run -d --name foreign --restart=no --init foreign /usr/bin/busybox sleep 1000000"""


def test_server_is_deployed_from_containerds_image_store(operator: Operator, machine: Machine) -> None:
    machine.put("/etc/docker/daemon.json", '{"features": {"containerd-snapshotter": true}}\n')
    machine.sh("systemctl restart docker.service")
    assert "io.containerd.snapshotter" in machine.sh("docker info -f '{{.DriverStatus}}'")
    machine.sh(FOREIGN)
    foreign = machine.foreign
    operator.succeed()
    assert machine.token()
    assert machine.foreign == foreign


def test_second_run_changes_nothing(operator: Operator, machine: Machine) -> None:
    assert operator.succeed().changed == []

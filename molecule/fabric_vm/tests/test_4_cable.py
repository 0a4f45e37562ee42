"""DGX OS removes the adapter with its cable and brings it back with it: so do these machines, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machines import HOSTS, RAILS, RDMA, address, addresses, changed, fabric, jumbo_ping

from testlib.node import Node, wait_until
from testlib.runs import Operator, one_line

SLOTS = ("0000:00:11.0", "0000:00:12.0")
"""Where QEMU has put the two functions of the adapter."""


def pull(node: Node) -> None:
    """Pull the cable: both functions of the adapter go."""
    node.sh("; ".join(f"echo 1 >/sys/bus/pci/devices/{slot}/remove" for slot in SLOTS))


def plug(node: Node) -> None:
    """Plug it in again; mlx5 makes the RDMA devices by itself, soft-RoCE does not."""
    node.sh("echo 1 >/sys/bus/pci/rescan")
    for rail in RAILS:
        node.wait_for(f"test -e /sys/class/net/{rail}", 60)
    node.sh("/usr/local/sbin/sim-rdma")


@pytest.fixture(scope="module")
def pulled(operator: Operator, nodes: dict[str, Node]) -> Iterator[Node]:
    """The second machine without its cable, and with it again at the end."""
    operator.succeed("site.yml", "--tags", "fabric")
    node = nodes["spark2"]
    pull(node)
    yield node
    if not node.host.file(f"/sys/class/net/{RAILS[0]}").exists:
        plug(node)


def test_both_rails_share_one_segment_and_each_answers_for_itself(nodes: dict[str, Node]) -> None:
    """Linux would answer for any address on any interface, and the peer learn the other function's MAC address."""
    for rail, name in enumerate(RAILS):
        nodes["spark1"].sh(f"ip neigh flush dev {name}")
        jumbo_ping(nodes["spark1"], address("spark1", rail), address("spark2", rail))
        learned = nodes["spark1"].sh(f"ip neigh show {address('spark2', rail)} dev {name}")
        assert nodes["spark2"].text(f"/sys/class/net/{name}/address") in learned


def test_machine_without_its_cable_is_told_to_plug_it_in(operator: Operator, pulled: Node) -> None:
    run = operator.run("site.yml", "--tags", "fabric")
    assert run.status == 2, run.tail
    output = one_line(run.output)
    assert "spark2" in output
    assert "plug the cable in" in output, run.tail
    assert changed(run) == dict.fromkeys(HOSTS, 0)


def test_adapter_that_is_back_has_its_names_addresses_and_mtu(operator: Operator, pulled: Node) -> None:
    plug(pulled)
    wait_until(lambda: set(RAILS) <= set(addresses(pulled)), "the rails have their addresses again", 120)
    assert [rail["rdma"] for rail in fabric("spark2")["rails"]] == list(RDMA)
    assert [pulled.text(f"/sys/class/net/{rail}/mtu") for rail in RAILS] == ["9000", "9000"]
    run = operator.succeed("playbooks/fabric.yml")
    assert changed(run) == dict.fromkeys(HOSTS, 0)


def test_next_run_changes_nothing(operator: Operator) -> None:
    assert changed(operator.succeed("site.yml", "--tags", "fabric")) == dict.fromkeys(HOSTS, 0)

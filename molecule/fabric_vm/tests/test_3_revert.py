"""A fabric configuration that cuts off the management network: the machine reverts it by itself.

A prefix in use on the machine is refused before any change. What the role cannot see is a network that the machine
reaches only by a route. So the management addresses have no prefix (/32) here, only a route to their gateway 10.0.2.2.
That is the address that spark2, the second in the fabric prefix, gives to a rail: its answers to ssh no longer leave
it. spark1 stays reachable and keeps its part of the mistake until the next run, unless the test machine is so slow
that its time runs out as well.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from machines import HOSTS, NETPLAN, PLANNED, RAILS, addresses, changed, greets, listening

from testlib.node import Node
from testlib.runs import Operator, one_line

REVERT = "dgx-vllm-netplan-revert"
SSH_PORT = 2222
WITHOUT_PREFIX = """ip address add 10.0.2.15/32 dev enP7s7
ip address del 10.0.2.15/24 dev enP7s7
ip route replace 10.0.2.2 dev enP7s7
ip route replace default via 10.0.2.2"""


def rails(node: Node) -> list[tuple[str, ...]]:
    """The addresses of the rails; those of the management interface are networkd's to restore."""
    by_interface = addresses(node)
    return [by_interface[rail] for rail in RAILS]


def netplan_file(node: Node) -> tuple[str, int, str]:
    """Content, mode and owner of the fabric's netplan file."""
    file = node.host.file(NETPLAN)
    return file.sha256sum, file.mode, file.user


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"fabric_prefix": "10.0.2.0/24"},
            "spark2: rails: 10.0.2.0/26, planned for rail 0, overlaps 10.0.2.0/24 of enP7s7. ",
        ),
        (
            {"fabric_interfaces": ["enP7s7", RAILS[1]]},
            "spark2: rails: enP7s7 carries the management network, so it cannot be a rail; ",
        ),
    ],
    ids=["network in use", "management interface"],
)
def test_what_would_lock_the_machine_out_is_refused_before_any_change(
    operator: Operator, nodes: dict[str, Node], wrong: dict[str, Any], message: str
) -> None:
    before = {host: addresses(nodes[host]) for host in HOSTS}
    run = operator.run("site.yml", "--tags", "fabric", **wrong)
    assert run.status == 2, run.tail
    assert message in one_line(run.output), run.tail
    assert changed(run) == dict.fromkeys(HOSTS, 0)
    assert {host: addresses(nodes[host]) for host in HOSTS} == before


def test_machine_that_lost_its_network_reverts_the_change(
    operator: Operator, nodes: dict[str, Node], places: dict[str, str]
) -> None:
    node, address = nodes["spark2"], places["spark2 ssh"]
    for machine in nodes.values():
        machine.sh(WITHOUT_PREFIX)
    before = rails(node), netplan_file(node)

    with listening(address, SSH_PORT) as dark:
        run = operator.run("site.yml", "--tags", "fabric", fabric_prefix="10.0.2.0/28")
        end = time.monotonic() + 210
        while not greets(address, SSH_PORT) and time.monotonic() < end:
            time.sleep(1)

    assert run.status in (2, 4), run.tail
    assert len(dark) > 2, f"ssh answered all the time, so this test proves nothing: {run.tail}"
    assert greets(address, SSH_PORT), "the machine did not come back"
    print(f"ssh did not answer for {dark[-1] - dark[0]:.0f} s")
    # The last step of the revert, `netplan apply`, still runs when ssh answers again.
    node.wait_stopped(f"{REVERT}.timer", f"{REVERT}.service", limit=300)
    assert (rails(node), netplan_file(node)) == before
    journal = node.sh(f"journalctl --no-pager -b -o cat -u {REVERT}.service")
    assert f"Started {REVERT}.service - Reverts {NETPLAN}" in journal
    assert "Failed with result" not in journal
    output = one_line(run.output)
    assert "The rails of spark2 could not be configured: " in output, run.tail
    assert ". A change that is not confirmed is reverted after 180 seconds." in output


def test_corrected_run_repairs_both(operator: Operator, nodes: dict[str, Node]) -> None:
    nodes["spark1"].wait_stopped(f"{REVERT}.timer", f"{REVERT}.service", limit=300)
    mistaken = rails(nodes["spark1"])[0] == ("10.0.2.1/30",)
    run = operator.succeed("site.yml", "--tags", "fabric")
    assert {host: count > 0 for host, count in changed(run).items()} == {"spark1": mistaken, "spark2": False}
    for host in HOSTS:
        assert rails(nodes[host]) == [(planned,) for planned in PLANNED[host]]

"""A fabric that takes the management network away: the machine comes back by itself, as it was.

A prefix in use on the machine is refused before any change. What the role cannot see is a network that the machine
reaches by a route alone. So the management addresses stand alone (/32) here, with a route to their gateway 10.0.2.2.
That is the address that spark2, the second in the prefix, gives to a rail: its answers to ssh leave it no more. spark1
stays within reach and keeps its part of the mistake until the next run, unless the test machine is so slow that its
time runs out, too.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from machines import HOSTS, NETPLAN, PLANNED, RAILS, addresses, changed, greets, listening
from node import Node
from runs import Operator, one_line

REVERT = "dgx-vllm-netplan-revert"
SSH_PORT = 2222
ALONE = """ip address add 10.0.2.15/32 dev enP7s7
ip address del 10.0.2.15/24 dev enP7s7
ip route replace 10.0.2.2 dev enP7s7
ip route replace default via 10.0.2.2"""


def rails(node: Node) -> list[tuple[str, ...]]:
    """The addresses of the rails. What networkd makes of the management's is its own affair."""
    found = addresses(node)
    return [found[rail] for rail in RAILS]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
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
    operator: Operator, nodes: dict[str, Node], wrong: dict[str, Any], sentence: str
) -> None:
    before = {host: addresses(nodes[host]) for host in HOSTS}
    run = operator.run("site.yml", "--tags", "fabric", **wrong)
    assert run.status == 2, run.tail
    assert sentence in one_line(run.output), run.tail
    assert changed(run) == dict.fromkeys(HOSTS, 0)
    assert {host: addresses(nodes[host]) for host in HOSTS} == before


def test_machine_that_lost_its_network_takes_the_change_back(
    operator: Operator, nodes: dict[str, Node], places: dict[str, str]
) -> None:
    node, address = nodes["spark2"], places["spark2 ssh"]
    for machine in nodes.values():
        machine.sh(ALONE)
    look = f"sha256sum {NETPLAN}; stat -c '%a %U' {NETPLAN}"
    before = rails(node), node.sh(look)

    with listening(address, SSH_PORT) as dark:
        run = operator.run("site.yml", "--tags", "fabric", fabric_prefix="10.0.2.0/28")
        end = time.monotonic() + 150
        while not greets(address, SSH_PORT) and time.monotonic() < end:
            time.sleep(1)

    assert run.status in (2, 4), run.tail
    assert len(dark) > 2, f"ssh answered all the time, so this test proved nothing: {run.tail}"
    assert greets(address, SSH_PORT), "the machine did not come back"
    print(f"ssh did not answer for {dark[-1] - dark[0]:.0f} s")
    # The last of the way back, `netplan apply`, still runs when ssh answers again.
    node.wait_for(f"! systemctl is-active --quiet {REVERT}.timer {REVERT}.service", 300)
    assert (rails(node), node.sh(look)) == before
    told = node.sh(f"journalctl --no-pager -b -o cat -u {REVERT}.service")
    assert f"Started {REVERT}.service - Takes {NETPLAN} back" in told
    assert "Failed with result" not in told
    sentence = one_line(run.output)
    assert "The rails of spark2 could not be configured: " in sentence, run.tail
    assert ". A change that is not confirmed is reverted after 120 seconds." in sentence


def test_corrected_run_heals_both(operator: Operator, nodes: dict[str, Node]) -> None:
    nodes["spark1"].wait_for(f"! systemctl is-active --quiet {REVERT}.timer {REVERT}.service", 300)
    mistaken = rails(nodes["spark1"])[0] == ("10.0.2.1/30",)
    run = operator.succeed("site.yml", "--tags", "fabric")
    assert {host: count > 0 for host, count in changed(run).items()} == {"spark1": mistaken, "spark2": False}
    for host in HOSTS:
        assert rails(nodes[host]) == [(one,) for one in PLANNED[host]]

"""A fabric that takes the management network away: the machine comes back by itself, as it was.

The prefix given here holds the network through which ssh comes in. The role cannot see that from the address that the
operator uses, which leads to the machine through QEMU's address translation. So spark2, the second in the prefix, gives
a rail the address 10.0.2.2, which is its gateway's, and its answers to ssh leave it no more. spark1 stays within reach
and keeps its part of the mistake until the next run, unless the test machine is so slow that its time runs out, too.
"""

from __future__ import annotations

import time

from machines import HOSTS, NETPLAN, PLANNED, RAILS, addresses, changed, greets, listening
from node import Node
from runs import Operator, one_line

REVERT = "dgx-vllm-netplan-revert"
SSH_PORT = 2222


def test_machine_that_lost_its_network_takes_the_change_back(
    operator: Operator, nodes: dict[str, Node], places: dict[str, str]
) -> None:
    node, address = nodes["spark2"], places["spark2 ssh"]
    look = f"sha256sum {NETPLAN}; stat -c '%a %U' {NETPLAN}"
    before = addresses(node), node.sh(look)

    with listening(address, SSH_PORT) as dark:
        run = operator.run("site.yml", "--tags", "fabric", fabric_prefix="10.0.2.0/24")
        end = time.monotonic() + 150
        while not greets(address, SSH_PORT) and time.monotonic() < end:
            time.sleep(1)

    assert run.status in (2, 4), run.tail
    assert len(dark) > 2, f"ssh answered all the time, so this test proved nothing: {run.tail}"
    assert greets(address, SSH_PORT), "the machine did not come back"
    print(f"ssh did not answer for {dark[-1] - dark[0]:.0f} s")
    # The last of the way back, `netplan apply`, still runs when ssh answers again.
    node.wait_for(f"! systemctl is-active --quiet {REVERT}.timer {REVERT}.service", 300)
    assert (addresses(node), node.sh(look)) == before
    told = node.sh(f"journalctl --no-pager -b -o cat -u {REVERT}.service")
    assert f"Started {REVERT}.service - Takes {NETPLAN} back" in told
    assert "Failed with result" not in told
    sentence = one_line(run.output)
    assert "The rails of spark2 could not be configured: " in sentence, run.tail
    assert ". A change that is not kept is taken back after 120 seconds." in sentence


def test_corrected_run_heals_both(operator: Operator, nodes: dict[str, Node]) -> None:
    nodes["spark1"].wait_for(f"! systemctl is-active --quiet {REVERT}.timer {REVERT}.service", 300)
    mistaken = addresses(nodes["spark1"])[RAILS[0]] == ("10.0.2.1/26",)
    run = operator.succeed("site.yml", "--tags", "fabric")
    assert {host: count > 0 for host, count in changed(run).items()} == {"spark1": mistaken, "spark2": False}
    for host in HOSTS:
        found = addresses(nodes[host])
        assert [found[rail] for rail in RAILS] == [(one,) for one in PLANNED[host]]

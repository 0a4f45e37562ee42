"""The fabric stage on two fresh machines: what it finds, what it configures, and that another run changes nothing."""

from __future__ import annotations

import ipaddress

import pytest
from machines import HOSTS, NETPLAN, PLANNED, RAILS, RDMA, address, addresses, changed, fabric, jumbo_ping

from testlib.node import Node
from testlib.runs import Operator

PACKAGES = ("rdma-core", "ibverbs-providers", "ibverbs-utils", "perftest", "infiniband-diags")
BOTH = pytest.mark.parametrize("host", HOSTS)
EACH_RAIL = pytest.mark.parametrize("rail", (0, 1))


@BOTH
def test_fresh_machine_has_rdma_devices_and_nothing_else(nodes: dict[str, Node], host: str) -> None:
    facts = fabric(host)
    assert [rail["rdma"] for rail in facts["rails"]] == list(RDMA)
    assert facts["management"] == ["enP7s7"]
    assert not facts["tools"]["ib_write_bw"]
    assert not set(RAILS) & set(addresses(nodes[host]))


def test_stage_and_gate_pass(operator: Operator) -> None:
    run = operator.succeed("site.yml", "--tags", "fabric")
    assert all(changed(run)[host] > 0 for host in HOSTS)


@BOTH
@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_installed(nodes: dict[str, Node], host: str, package: str) -> None:
    assert nodes[host].host.package(package).is_installed


@BOTH
def test_modules_are_loaded_now_and_at_boot(nodes: dict[str, Node], host: str) -> None:
    modules = nodes[host].text("/etc/modules-load.d/dgx-vllm.conf").splitlines()
    assert "ib_uverbs" in modules
    assert not [name for name in modules if not nodes[host].host.file(f"/sys/module/{name}").exists]


@BOTH
def test_netplan_file_is_readable_by_root_only(nodes: dict[str, Node], host: str) -> None:
    file = nodes[host].host.file(NETPLAN)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    assert all(f"- {planned}" in file.content_string for planned in PLANNED[host])
    assert file.content_string.count("mtu: 9000") == 2


@BOTH
def test_rails_have_their_addresses_and_mtu(nodes: dict[str, Node], host: str) -> None:
    by_interface = addresses(nodes[host])
    assert [by_interface[rail] for rail in RAILS] == [(planned,) for planned in PLANNED[host]]
    assert by_interface["enP7s7"] == ("10.0.2.15/24",)
    mtu = {name: nodes[host].text(f"/sys/class/net/{name}/mtu") for name in (*RAILS, "enP7s7")}
    assert [mtu[rail] for rail in RAILS] == ["9000", "9000"]
    assert mtu["enP7s7"] == "1500"


@BOTH
def test_module_finds_a_roce_v2_entry_for_each_address(host: str) -> None:
    devices = {device["interface"]: device for device in fabric(host)["devices"]}
    for name, planned in zip(RAILS, PLANNED[host], strict=True):
        assert "ACTIVE" in devices[name]["rdma_state"]
        entries = [(gid["type"], gid["address"]) for gid in devices[name]["gids"]]
        assert ("RoCE v2", str(ipaddress.ip_interface(planned).ip)) in entries


@EACH_RAIL
@pytest.mark.parametrize(("host", "other"), [HOSTS, HOSTS[::-1]])
def test_packets_of_9000_bytes_pass(nodes: dict[str, Node], host: str, other: str, rail: int) -> None:
    output = jumbo_ping(nodes[host], address(host, rail), address(other, rail))
    assert "8980 bytes from" in output, output
    assert " 0% packet loss" in output, output


def test_second_run_changes_nothing(operator: Operator, nodes: dict[str, Node]) -> None:
    # A file that is written again has another inode, for which testinfra has no resource.
    look = f"stat -c '%Y %i' {NETPLAN} /etc/modules-load.d/dgx-vllm.conf; sha256sum {NETPLAN}"
    before = {host: nodes[host].sh(look) for host in HOSTS}
    run = operator.succeed("site.yml", "--tags", "fabric")
    assert changed(run) == dict.fromkeys(HOSTS, 0)
    assert {host: nodes[host].sh(look) for host in HOSTS} == before

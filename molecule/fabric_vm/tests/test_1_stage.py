"""The fabric stage on two fresh machines: what it finds, what it makes, and that it makes it once."""

from __future__ import annotations

import ipaddress
import json

import pytest
from machines import HOSTS, NETPLAN, PLANNED, RAILS, RDMA, address, addresses, changed, fabric, jumbo_ping
from node import Node
from runs import Operator

PACKAGES = ("rdma-core", "ibverbs-providers", "ibverbs-utils", "perftest", "infiniband-diags")
BOTH = pytest.mark.parametrize("host", HOSTS)
EACH_RAIL = pytest.mark.parametrize("rail", (0, 1))


@BOTH
def test_fresh_machine_has_rdma_devices_and_nothing_else(nodes: dict[str, Node], host: str) -> None:
    found = fabric(host)
    assert [rail["rdma"] for rail in found["rails"]] == list(RDMA)
    assert found["management"] == ["enP7s7"]
    assert not found["tools"]["ib_write_bw"]
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
    wanted = nodes[host].sh("cat /etc/modules-load.d/dgx-vllm.conf").splitlines()
    assert "ib_uverbs" in wanted
    assert not [name for name in wanted if not nodes[host].host.file(f"/sys/module/{name}").exists]


@BOTH
def test_netplan_file_is_for_root_alone(nodes: dict[str, Node], host: str) -> None:
    file = nodes[host].host.file(NETPLAN)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    assert all(f"- {one}" in file.content_string for one in PLANNED[host])
    assert file.content_string.count("mtu: 9000") == 2


@BOTH
def test_rails_have_their_addresses_and_mtu(nodes: dict[str, Node], host: str) -> None:
    found = addresses(nodes[host])
    assert [found[rail] for rail in RAILS] == [(one,) for one in PLANNED[host]]
    assert found["enP7s7"] == ("10.0.2.15/24",)
    links = {one["ifname"]: one for one in json.loads(nodes[host].sh("ip -json link show"))}
    assert [links[rail]["mtu"] for rail in RAILS] == [9000, 9000]
    assert links["enP7s7"]["mtu"] == 1500


@BOTH
def test_module_finds_a_roce_v2_entry_for_each_address(host: str) -> None:
    devices = {one["interface"]: one for one in fabric(host)["devices"]}
    for name, planned in zip(RAILS, PLANNED[host], strict=True):
        assert "ACTIVE" in devices[name]["rdma_state"]
        entries = [(gid["type"], gid["address"]) for gid in devices[name]["gids"]]
        assert ("RoCE v2", str(ipaddress.ip_interface(planned).ip)) in entries


@EACH_RAIL
@pytest.mark.parametrize(("host", "other"), [HOSTS, HOSTS[::-1]])
def test_packets_of_9000_bytes_pass(nodes: dict[str, Node], host: str, other: str, rail: int) -> None:
    told = jumbo_ping(nodes[host], address(host, rail), address(other, rail))
    assert "8980 bytes from" in told, told
    assert " 0% packet loss" in told, told


def test_second_run_changes_nothing(operator: Operator, nodes: dict[str, Node]) -> None:
    look = f"stat -c '%Y %i' {NETPLAN} /etc/modules-load.d/dgx-vllm.conf; sha256sum {NETPLAN}"
    before = {host: nodes[host].sh(look) for host in HOSTS}
    run = operator.succeed("site.yml", "--tags", "fabric")
    assert changed(run) == dict.fromkeys(HOSTS, 0)
    assert {host: nodes[host].sh(look) for host in HOSTS} == before

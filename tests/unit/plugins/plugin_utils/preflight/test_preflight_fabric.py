"""Mistakes about the rails that stop a node before any change."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.preflight import preflight_fabric
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.plan.plan import plan

from helpers.fleets import replica
from helpers.machine import Machine
from helpers.netplan_text import netplan_text

ROW: dict[str, Any] = {
    "host": "spark1",
    "rails": [{"address": "198.51.100.1/26"}, {"address": "198.51.100.65/26"}],
}


def failed(machine: Machine, *interfaces: str) -> list[str]:
    rows = preflight_fabric(machine.read(*interfaces), ROW)
    assert all(one["check"] == "rails" for one in rows)
    return [one["found"] for one in rows if one["status"] == "fail"]


@pytest.fixture
def cabled(spark: Machine) -> Machine:
    """A machine with a cable in port 0, reached at 192.0.2.11/24."""
    spark.port(0)
    return spark


def test_a_free_subnet_passes(cabled: Machine) -> None:
    assert preflight_fabric(cabled.read(), ROW) == [
        {
            "where": "spark1",
            "check": "rails",
            "status": "pass",
            "found": "198.51.100.1/26, 198.51.100.65/26",
            "reason": "",
            "remedy": "",
        }
    ]


def test_a_named_interface_that_is_missing_or_administers_the_machine(cabled: Machine) -> None:
    assert failed(cabled, "enp1s0f0np0", "enp9s0") == [
        "dgx_vllm_fabric_interfaces names enp9s0, which this machine does not have: plug the cable in at both ends, "
        "as DGX OS turns the adapter off without one, or correct the name."
    ]
    (sentence,) = failed(cabled, "enP7s7")
    assert sentence.startswith("enP7s7 carries the management network, so it cannot be a rail")


@pytest.mark.parametrize("own", ["198.51.100.200/24", "198.51.100.70/32", "198.0.0.9/8"])
def test_a_subnet_that_is_in_use_elsewhere(cabled: Machine, own: str) -> None:
    cabled.addresses["enP7s7"] = ["192.0.2.11/24", own]
    found = failed(cabled)
    assert found
    assert all(" of enP7s7" in sentence for sentence in found)
    assert ("198.51.100.64/26, planned for rail 1, overlaps 198.51.100.70/32 of enP7s7" in found) == (
        own == "198.51.100.70/32"
    )


def test_addresses_on_the_rails_themselves_are_what_the_run_replaces(cabled: Machine) -> None:
    cabled.addresses["enp1s0f0np0"] = ["198.51.100.9/24"]
    assert failed(cabled) == []


def test_a_cable_moved_to_the_other_port_does_not_overlap(cabled: Machine) -> None:
    """The interfaces of port 1 still have what the role's own file gave them."""
    old = [cabled.half(1, half, carrier=0) for half in (0, 1)]
    given = ["198.51.100.2/26", "198.51.100.66/26"]
    for name, address in zip(old, given, strict=True):
        cabled.addresses[name] = [address]
    assert len(failed(cabled)) == 2
    cabled.write("etc/netplan/40-cx7.yaml", netplan_text(old, given))
    assert failed(cabled) == []


def test_a_planned_address_on_a_port_without_a_link_does_not_overlap(cabled: Machine) -> None:
    for name in ("enp1s0f0np0", "enP2p1s0f0np0"):
        (cabled.root / f"sys/class/net/{name}/carrier").write_text("0\n")
    cabled.addresses |= {"enp1s0f0np0": ["198.51.100.1/26"], "enP2p1s0f0np0": ["198.51.100.65/26"]}
    assert failed(cabled) == []


def test_a_planned_address_on_the_management_interface_is_one(cabled: Machine) -> None:
    cabled.addresses["enP7s7"] = ["198.51.100.1/26"]
    assert failed(cabled) == ["198.51.100.0/26, planned for rail 0, overlaps 198.51.100.0/26 of enP7s7"]


def test_netplan_files_of_others_are_named(cabled: Machine) -> None:
    """S8: cluster assistants and playbooks leave files of their own; netplan adds their addresses to ours."""
    other = "network:\n  version: 2\n  ethernets:\n    {}:\n      addresses: [192.168.100.10/24]\n"
    cabled.write("etc/netplan/98-assistant.yaml", other.format("enp1s0f0np0"))
    cabled.write("run/netplan/10-quoted.yaml", other.format('"enP2p1s0f0np0"'))
    cabled.write("etc/netplan/01-management.yaml", other.format("enP7s7"))
    cabled.write("etc/netplan/40-cx7.yaml", other.format("enp1s0f0np0"))
    cabled.write("etc/netplan/50-commented.yaml", "# enp1s0f0np0:\nnetwork: {version: 2}\n")
    rows = preflight_fabric(cabled.read(), ROW)
    assert [(row["status"], row["found"]) for row in rows] == [
        ("fail", "/run/netplan/10-quoted.yaml configures enP2p1s0f0np0 with 192.168.100.10/24"),
        ("fail", "/etc/netplan/98-assistant.yaml configures enp1s0f0np0 with 192.168.100.10/24"),
    ]
    assert all("dgx_vllm_fabric_manage: false" in row["remedy"] for row in rows)
    rows = preflight_fabric(cabled.read(), ROW, {"manage": False})
    assert [row["status"] for row in rows] == ["pass"]


def test_without_an_adapter_the_cable_is_named_first(spark: Machine) -> None:
    """S5: DGX OS takes the adapter off the bus when no cable is in it."""
    (problem,) = spark.read()["problems"]
    assert problem.startswith("No ConnectX adapter is visible; plug the cable in at both ends")


def fleet(*numbers: int, **more: Any) -> dict[str, dict[str, Any]]:
    """Pairs p1, p2 … of spark1 and spark2, spark3 and spark4 … on one switch and one prefix."""
    return {
        f"spark{number}": {
            "ansible_host": f"192.0.2.{number}",
            "dgx_vllm_replica": f"p{(number + 1) // 2}",
            "dgx_vllm_tensor_parallel_size": 2,
            "dgx_vllm_fabric_kind": "switch",
            "dgx_vllm_fabric_prefix": "198.51.100.0/24",
            **{f"dgx_vllm_{name}": value for name, value in more.items()},
        }
        for number in numbers
    }


def row_of(host: str, hosts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    planned = plan(hosts)
    assert planned["mistakes"] == []
    return dict(planned["hosts"][host])


def ran_before(machine: Machine, row: dict[str, Any]) -> None:
    names = ["enp1s0f0np0", "enP2p1s0f0np0"]
    machine.write("etc/netplan/40-cx7.yaml", netplan_text(names, [rail["address"] for rail in row["rails"]]))


def test_addresses_that_move_because_hosts_went_need_the_operators_word(cabled: Machine) -> None:
    """Item 6: spark1 and spark2 leave the inventory, and spark3 would take the place of spark1."""
    ran_before(cabled, row_of("spark3", fleet(1, 2, 3, 4)))
    row = row_of("spark3", fleet(3, 4))
    (finding,) = preflight_fabric(cabled.read(), row)
    assert finding["status"] == "fail"
    assert finding["found"].startswith(
        "enp1s0f0np0 has 198.51.100.3/26 and would get 198.51.100.1/26; enP2p1s0f0np0"
    )
    assert "write `dgx_vllm_fabric_index: 2` for spark3" in finding["remedy"]
    assert "-e dgx_vllm_fabric_renumber=true" in finding["remedy"]
    assert [one["status"] for one in preflight_fabric(cabled.read(), row, {"renumber": True})] == ["pass"]
    assert [one["status"] for one in preflight_fabric(cabled.read(), row, {"manage": False})] == ["pass"]
    kept = fleet(3, 4)
    for number, host in enumerate(kept, 2):
        kept[host]["dgx_vllm_fabric_index"] = number
    assert [one["status"] for one in preflight_fabric(cabled.read(), row_of("spark3", kept))] == ["pass"]


def test_addresses_that_stay_or_that_the_operator_changed_need_no_word(cabled: Machine) -> None:
    ran_before(cabled, row_of("spark1", fleet(1, 2, 3, 4)))
    for hosts in (fleet(1, 2), fleet(1, 2, fabric_prefix="203.0.113.0/24"), fleet(1, 2, 3, 4)):
        assert [one["status"] for one in preflight_fabric(cabled.read(), row_of("spark1", hosts))] == ["pass"]


def test_a_ring_that_grew_keeps_its_addresses_by_writing_them(spark: Machine) -> None:
    for port in (0, 1):
        spark.port(port)
    names = ["enp1s0f0np0", "enP2p1s0f0np0", "enp1s0f1np1", "enP2p1s0f1np1"]
    ring = replica(3, fabric_kind="ring")
    old = [rail["address"] for rail in row_of("spark3", ring)["rails"]]
    spark.write("etc/netplan/40-cx7.yaml", netplan_text(names, old))
    row = row_of("spark3", replica(4, fabric_kind="ring"))
    (finding,) = preflight_fabric(spark.read(rails=4), row)
    assert f"write `dgx_vllm_fabric_addresses: [{', '.join(old)}]` for spark3" in finding["remedy"]


def test_m12_the_store_of_a_head_is_open_elsewhere_without_the_firewall(cabled: Machine) -> None:
    """PyTorch's TCPStore listens on [::]; a warning, because a firewall of the operator's is not seen from here."""
    head = {**ROW, "is_head": True, "master_port": 29501}
    (rails, warning) = preflight_fabric(cabled.read(), head, {"firewall": False})
    assert (rails["status"], warning["check"], warning["status"]) == ("pass", "master_port", "warn")
    assert warning["found"] == "29501 open at 192.0.2.11 of enP7s7 too"
    for row, settings in (({**head, "is_head": False}, {"firewall": False}), (head, {"firewall": True})):
        assert [one["check"] for one in preflight_fabric(cabled.read(), row, settings)] == ["rails"]

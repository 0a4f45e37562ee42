"""Mistakes about the rails that stop a node before any change."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_vllm.spark.plugins.filter.preflight import preflight_fabric

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
    assert [(row["status"], row["found"]) for row in rows if row["status"] != "pass"] == [
        ("warn", "enP2p1s0f0np0 is configured by /run/netplan/10-quoted.yaml, too"),
        ("warn", "enp1s0f0np0 is configured by /etc/netplan/98-assistant.yaml, too"),
    ]


def test_without_an_adapter_the_cable_is_named_first(spark: Machine) -> None:
    """S5: DGX OS takes the adapter off the bus when no cable is in it."""
    (problem,) = spark.read()["problems"]
    assert problem.startswith("No ConnectX adapter is visible; plug the cable in at both ends")

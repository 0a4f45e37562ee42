"""Whether a node can have the rails that are planned for it, before anything is changed. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterator, Mapping
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.verdict import Row

CHECK = "rails"


def fabric_rows(facts: Mapping[str, Any], row: Mapping[str, Any]) -> list[Row]:
    """One failed row a mistake that neither cables nor packages mend, or one that passed.

    `facts` is the `fabric` of dgx_vllm_fabric, `row` the node's row of the plan. No user can accept these: they
    lock the node out or leave it without a fabric.
    """
    failed = [Row(CHECK, "fail", sentence, "", "") for sentence in facts["refused"]]
    failed += _overlaps(facts, row)
    return failed or [Row(CHECK, "pass", ", ".join(rail["address"] for rail in row["rails"]), "", "")]


def _overlaps(facts: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Row]:
    """Planned subnets that the node already reaches over something that is no rail."""
    planned = {rail["address"]: ipaddress.IPv4Interface(rail["address"]).network for rail in row["rails"]}
    for interface, network in _elsewhere(facts, planned):
        for rail, subnet in enumerate(planned.values()):
            if subnet.overlaps(network):
                yield Row(
                    CHECK,
                    "fail",
                    f"{subnet}, planned for rail {rail}, overlaps {network} of {interface}",
                    "the node would send into the cable what belongs there, answers to ssh among it",
                    "take another dgx_vllm_fabric_prefix, or other dgx_vllm_fabric_addresses",
                )


def _elsewhere(
    facts: Mapping[str, Any], planned: Container[str]
) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """Interface and network of every address that is none of a rail, nor of one whose cable is out or was moved."""
    rails = {rail["interface"] for rail in facts["rails"]}
    written = netplan.given(facts["netplan"]["text"])
    for interface, addresses in facts["addresses"].items():
        for address in addresses:
            waits = address in planned and interface not in facts["management"]
            if not (interface in rails or waits or (interface, address) in written):
                yield interface, ipaddress.IPv4Interface(address).network

"""Whether a node can have the rails that are planned for it, before anything is changed. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterator, Mapping
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding


def fabric_findings(facts: Mapping[str, Any], row: Mapping[str, Any]) -> list[Finding]:
    """One failure per mistake that neither cables nor packages can fix, or one finding that passed.

    `facts` is the `fabric` of dgx_vllm_fabric, `row` the node's row of the plan. No user can accept these: they
    lock the node out or leave it without a fabric.
    """
    check = Check(row["host"], "rails")
    failures = [check.failed(sentence) for sentence in facts["refused"]] + _overlaps(check, facts, row)
    passed = [] if failures else [check.passed(", ".join(rail["address"] for rail in row["rails"]))]
    return [*failures, *passed, *_elsewhere_configured(check, facts)]


def _elsewhere_configured(check: Check, facts: Mapping[str, Any]) -> list[Finding]:
    """Files of other tools for a rail: netplan adds their addresses to the planned one."""
    return [
        check.warned(
            f"{name} is configured by {', '.join(files)}, too",
            "netplan merges its files and adds up their addresses, so the rail keeps those of an earlier set-up",
            "move the file out of that folder and run `netplan apply`, or manage the addresses yourself "
            "(dgx_vllm_fabric_manage: false)",
        )
        for name, files in sorted((facts.get("netplan_elsewhere") or {}).items())
    ]


def _overlaps(check: Check, facts: Mapping[str, Any], row: Mapping[str, Any]) -> list[Finding]:
    """Planned subnets that the node already reaches over an interface that is not a rail."""
    planned = {rail["address"]: ipaddress.IPv4Interface(rail["address"]).network for rail in row["rails"]}
    return [
        check.failed(
            f"{subnet}, planned for rail {rail}, overlaps {network} of {interface}",
            "the node would send traffic for that network into the fabric cable, replies to ssh included",
            "choose another dgx_vllm_fabric_prefix, or other dgx_vllm_fabric_addresses",
        )
        for interface, network in _elsewhere(facts, planned)
        for rail, subnet in enumerate(planned.values())
        if subnet.overlaps(network)
    ]


def _elsewhere(
    facts: Mapping[str, Any], planned: Container[str]
) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """Interface and network of every address except those of rails, including rails whose cable is out or was moved."""
    rails = {rail["interface"] for rail in facts["rails"]}
    written = netplan.given(facts["netplan"]["text"])
    for interface, addresses in facts["addresses"].items():
        for address in addresses:
            unplugged = address in planned and interface not in facts["management"]
            if not (interface in rails or unplugged or (interface, address) in written):
                yield interface, ipaddress.IPv4Interface(address).network

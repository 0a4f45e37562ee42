"""Whether a node can have the rails that are planned for it, before anything is changed. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterator, Mapping
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan
from ansible_collections.dgx_vllm.spark.plugins.module_utils.finding import Check, Finding
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.preflight.values import Settings

DOCKER_BRIDGE = ipaddress.IPv4Network("172.17.0.0/16")
"""What Docker takes for its bridge when it is installed, unless it is told otherwise."""


INTERNAL = ("lo", "docker", "br-", "veth")
"""Beginnings of names of interfaces that no other machine is behind."""


def fabric_findings(facts: Mapping[str, Any], row: Mapping[str, Any], settings: Settings) -> list[Finding]:
    """One failure per mistake that neither cables nor packages can fix, or one finding that passed.

    `facts` is the `fabric` of dgx_vllm_fabric, `row` the node's row of the plan; `settings` has `manage` (whether the
    role writes the addresses), `renumber` (whether they may move), `docker_installed` and `firewall` (it is on).
    No user can accept a failure: it locks the node out or leaves it without a fabric.
    """
    check = Check(row["host"], "rails")
    others = [*_elsewhere_configured(check, facts, row)] if settings.get("manage", True) else []
    findings = [
        *(check.failed(sentence) for sentence in facts["refused"]),
        *_overlaps(check, facts, row, settings),
        *(_moved(check, facts, row) if settings.get("manage", True) and not settings.get("renumber") else ()),
        *others,
    ]
    if any(finding.status == "fail" for finding in findings):
        return findings
    rails = check.passed(", ".join(rail["address"] for rail in row["rails"]))
    return [rails, *findings, *_master_port(Check(row["host"], "master_port"), facts, row, settings)]


def _master_port(
    check: Check, facts: Mapping[str, Any], row: Mapping[str, Any], settings: Settings
) -> Iterator[Finding]:
    """Of a head: PyTorch's store asks for no key and listens at every address, whatever --master-addr says."""
    if not row.get("is_head") or settings.get("firewall", True):
        return
    rails = {rail["interface"] for rail in facts["rails"]}
    others = [
        f"{address.partition('/')[0]} of {interface}"
        for interface, addresses in facts["addresses"].items()
        if interface not in rails and not interface.startswith(INTERNAL)
        for address in addresses
    ]
    if not others:
        return
    yield check.warned(
        f"{row['master_port']} open at {', '.join(others)} too",
        "the store of PyTorch listens at every address, and whoever reaches it can read and change what the nodes of "
        "the replica tell each other",
        "set dgx_vllm_firewall: true, or keep the port closed elsewhere (docs/operations.md, Ports)",
    )


def _elsewhere_configured(
    check: Check, facts: Mapping[str, Any], row: Mapping[str, Any]
) -> Iterator[Finding]:
    """Files of other tools for a rail, each with its name: netplan adds their addresses to the planned one."""
    planned = {rail["address"] for rail in row["rails"]}
    for other in facts.get("netplan_elsewhere") or ():
        where = f"{other['file']} configures {' and '.join(other['interfaces'])}"
        foreign = [address for address in other["addresses"] if address not in planned]
        if foreign:
            yield check.failed(
                f"{where} with {', '.join(foreign)}",
                "netplan merges its files and adds up their addresses, so the rail would have those as well",
                f"move {other['file']} out of that folder, or set dgx_vllm_fabric_manage: false and manage all "
                "addresses of the rails yourself",
            )
        else:
            yield check.warned(
                where,
                "netplan merges its files, and the one that comes last by name decides",
                f"move {other['file']} out of that folder if the rails do not become as planned",
            )


def _moved(check: Check, facts: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Finding]:
    """Addresses that the role gave and that would move although nobody changed them: hosts came or went.

    A new prefix, index or address is the operator's own change.
    """
    if row.get("pinned", True):
        return
    prefix = ipaddress.IPv4Network(row["prefix"])
    before = netplan.given(facts["netplan"]["text"])
    after = [str(rail["address"]) for rail in row["rails"]]
    moved = [
        (name, old, new)
        for (name, old), new in zip(before, after, strict=False)
        if old != new and ipaddress.IPv4Interface(old).network.subnet_of(prefix)
    ]
    if not moved:
        return
    old = ipaddress.IPv4Interface(moved[0][1])
    number = int(old.ip) - int(old.network.network_address) - 1
    keep = (
        f"`dgx_vllm_fabric_addresses: [{', '.join(address for _, address in before)}]`"
        if row["kind"] == "ring"
        else f"`dgx_vllm_fabric_index: {number}`"
    )
    yield check.failed(
        "; ".join(f"{name} has {old} and would get {new}" for name, old, new in moved),
        "hosts were added to the inventory or removed from it, and a planned address follows from the place among "
        "them; a change cuts the connections of the replica",
        f"write {keep} for {row['host']} to keep its addresses, or run with -e dgx_vllm_fabric_renumber=true",
    )


def _overlaps(
    check: Check, facts: Mapping[str, Any], row: Mapping[str, Any], settings: Settings
) -> list[Finding]:
    """Planned subnets that the node already reaches over an interface that is not a rail, or will through Docker."""
    planned = {rail["address"]: ipaddress.IPv4Interface(rail["address"]).network for rail in row["rails"]}
    taken = [(f"of {interface}", network) for interface, network in _elsewhere(facts, planned)]
    if not settings.get("docker_installed", True):
        taken.append(("of Docker's bridge, which comes with its installation", DOCKER_BRIDGE))
    return [
        check.failed(
            f"{subnet}, planned for rail {rail}, overlaps {network} {owner}",
            "the node would send traffic for that network into the fabric cable, replies to ssh included",
            "choose another dgx_vllm_fabric_prefix, or other dgx_vllm_fabric_addresses",
        )
        for owner, network in taken
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

"""The rails of a node as netplan should configure them, and the commands that are missing until it does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nodes import rail_devices

Facts = Mapping[str, Any]
Row = Mapping[str, Any]


_PLAIN = re.compile(r"(?!(?:null|true|false|yes|no|on|off|y|n)\Z)[a-z][a-z0-9_.-]*", re.IGNORECASE | re.ASCII)
"""A name that every reader of YAML takes for this text."""


class NetplanError(ValueError):
    """Rails that cannot be configured; the text is a sentence for the operator."""


def addressed_rails(facts: Facts, row: Row) -> list[dict[str, str]]:
    """`interface` and planned `address` of each rail, in order.

    `facts` is what dgx_vllm_fabric returned, `row` the node's row of the plan. Raises NetplanError if they do not fit
    or a rail must not be configured.
    """
    names = [str(rail["interface"]) for rail in facts["rails"]]
    addresses = [str(rail["address"]) for rail in row["rails"]]
    if len(names) != len(addresses):
        raise NetplanError(
            f"{len(names)} interface{'s' * (len(names) != 1)} of cabled ports ({', '.join(names) or 'none'}) and "
            f"{len(addresses)} planned addresses do not match; see the fabric report for the missing ones."
        )
    for name in names:
        if not _PLAIN.fullmatch(name):
            raise NetplanError(
                f"The interface name {name!r} would be read differently in netplan's file; rename it to letters, "
                "digits, dots, dashes and underscores, beginning with a letter."
            )
        if name in facts["management"]:
            raise NetplanError(
                f"{name} carries the management network and cannot be a rail; remove it from "
                "dgx_vllm_fabric_interfaces."
            )
    if len(set(names)) != len(names):
        raise NetplanError(f"A rail is named twice ({', '.join(names)}); correct dgx_vllm_fabric_interfaces.")
    return [{"interface": name, "address": address} for name, address in zip(names, addresses, strict=True)]


def address_commands(facts: Facts, row: Row, mtu: int) -> list[str]:
    """The ip commands that would give each rail its planned address and MTU now; [] if all have them.

    A rail whose cable is out has none: no command helps, and its configuration waits for the link.
    """
    devices = rail_devices(facts)
    commands = []
    for rail in row["rails"]:
        device = devices.get(rail["rail"])
        if device is None or device["carrier"] is False:
            continue
        if (device["mtu"] or 0) < mtu or not device["carrier"]:
            commands.append(f"ip link set dev {device['interface']} up mtu {mtu}")
        if rail["address"] not in device["addresses"]:
            commands.append(f"ip address add {rail['address']} dev {device['interface']}")
    return commands

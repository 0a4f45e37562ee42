"""How the rails of a node differ from their planned addresses, as commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.gate.nodes import rail_devices


def address_commands(facts: Mapping[str, Any], row: Mapping[str, Any], mtu: int) -> list[str]:
    """The ip commands that would give each rail its planned address and MTU now; [] if all have them.

    `facts` is what dgx_vllm_fabric returned, `row` the node's row of the plan. A rail whose cable is out has none: no
    command helps, and its configuration waits for the link.
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

"""Filters over the rails of a node and their planned addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_vllm.spark.plugins.module_utils.fabric import netplan
from ansible_collections.dgx_vllm.spark.plugins.plugin_utils.netplan import address_commands


def fabric_netplan(
    rails: Sequence[Mapping[str, Any]],
    addresses: Sequence[str],
    management: Sequence[str] = (),
    mtu: int = 9000,
) -> str:
    """Content of /etc/netplan/40-cx7.yaml."""
    try:
        return netplan.render(rails, addresses, management, int(mtu))
    except netplan.NetplanError as error:
        raise AnsibleFilterError(str(error)) from error


def fabric_address_commands(facts: Mapping[str, Any], row: Mapping[str, Any], mtu: int = 9000) -> list[str]:
    """What would have to be typed for the rails to be as planned; [] when they are."""
    return address_commands(facts, row, int(mtu))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"fabric_address_commands": fabric_address_commands, "fabric_netplan": fabric_netplan}
